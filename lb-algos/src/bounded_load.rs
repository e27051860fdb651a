//! Hashing's common end: who stands in for an owner, and the bound on load.

use crate::{
    Ask, Fleet, Reason,
    candidate::stake,
    hash::{mix, reduce},
    trust::is_trusted,
};

/// Most that one endpoint may have in flight, relative to all.
///
/// An endpoint takes one more request only while in-flight + 1 ≤ ⌈bound × (total + 1) × weight / Σ weight⌉, sums over the
/// endpoints that may be picked. Since the bound is at least 1, there is always one that may. Mirrokni, Thorup and
/// Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    percent: u64,
    total: u64,
    weights: u64,
}

impl Bound {
    /// O(n): one load of eligibility, weight and in-flight per endpoint. Any shortcut would be a guess at the sum.
    fn of<F: Fleet + ?Sized>(fleet: &F, percent: u32) -> Self {
        let mut bound = Self { percent: u64::from(percent.max(100)), total: 0, weights: 0 };
        for index in 0..fleet.len() {
            if let Some(weight) = stake(fleet, index) {
                bound.total += u64::from(fleet.in_flight(index));
                bound.weights += u64::from(weight);
            }
        }
        bound
    }

    /// in-flight < ⌈x / y⌉ is in-flight × y < x.
    fn admits(self, in_flight: u32, weight: u32) -> bool {
        u128::from(in_flight) * 100 * u128::from(self.weights)
            < u128::from(self.percent) * u128::from(self.total + 1) * u128::from(weight)
    }
}

/// One key's walk over a fleet: which endpoints take it, and why those before did not.
#[derive(Debug)]
pub(crate) struct Walk {
    key: u64,
    percent: Option<u32>,
    dice: u32,
    /// Summed when first needed: an idle endpoint is within any bound.
    bound: Option<Bound>,
    /// An endpoint would have taken the key, but for its load.
    pub(crate) spilled: bool,
}

impl Walk {
    pub(crate) fn new(key: u64, percent: Option<u32>) -> Self {
        let dice = u32::try_from(mix(key, u64::MAX) >> 32).unwrap_or(u32::MAX);
        Self { key, percent, dice, bound: None, spilled: false }
    }

    /// Why the endpoint that took the key did.
    pub(crate) fn reason(&self, ask: Ask) -> Reason {
        match (ask.key, self.spilled) {
            (None, _) => Reason::Chance,
            (Some(_), false) => Reason::Hash,
            (Some(_), true) => Reason::HashSpill,
        }
    }

    /// Whether `index`, of weight `built` in the table, takes the key.
    ///
    /// An endpoint whose weight has fallen since keeps the same part of its keys: which ones, the key decides.
    pub(crate) fn takes<F: Fleet + ?Sized>(&mut self, fleet: &F, index: usize, built: u32) -> bool {
        let Some(weight) = stake(fleet, index) else { return false };
        if weight < built && reduce(mix(self.key, index as u64), u64::from(built)) >= u64::from(weight) {
            return false;
        }
        // Whoever fails fast is idle: it keeps its own keys, but gets nobody else's.
        if self.spilled && !is_trusted(fleet, index, self.dice) {
            return false;
        }
        let within = self.within_bound(fleet, index, weight);
        self.spilled |= !within;
        within
    }

    fn within_bound<F: Fleet + ?Sized>(&mut self, fleet: &F, index: usize, weight: u32) -> bool {
        let Some(percent) = self.percent else { return true };
        let in_flight = fleet.in_flight(index);
        in_flight == 0
            || self.bound.get_or_insert_with(|| Bound::of(fleet, percent)).admits(in_flight, weight)
    }

    /// Where every walk ends: the endpoint with the highest score of those that may be picked and are within the bound; if
    /// the fleet changes so fast that none is, of those that may be picked. `None` only if none may be.
    ///
    /// O(n). Needs no table: weighted rendezvous hashing, by identity. Thaler and Ravishankar, IEEE/ACM ToN 6(1), 1998;
    /// weights: Schindelhauer and Schomaker, SPAA 2005.
    pub(crate) fn rendezvous<F: Fleet + ?Sized>(&mut self, fleet: &F) -> Option<usize> {
        let (mut best, mut owner) = (None, None);
        for index in 0..fleet.len() {
            let Some(weight) = stake(fleet, index) else { continue };
            // In (0, 1): the logarithm is finite and not 0. 53 bits: a double holds them exactly.
            let point = ((mix(self.key, fleet.id(index)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            let score = -f64::from(weight) / point.ln();
            if owner.is_none_or(|(_, highest)| score > highest) {
                owner = Some((index, score));
            }
            if best.is_none_or(|(_, highest)| score > highest) && self.within_bound(fleet, index, weight) {
                best = Some((index, score));
            }
        }
        self.spilled |= best != owner;
        best.or(owner).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_rounded_up_share_of_all_that_is_in_flight() {
        // 1.25 × (7 + 1) × 1/4 = 2.5, rounded up 3: the third is taken, a fourth is not.
        let bound = Bound { percent: 125, total: 7, weights: 4 };
        assert_eq!([0, 1, 2, 3].map(|in_flight| bound.admits(in_flight, 1)), [true, true, true, false]);
        // 1.0 × (3 + 1) × 1/4 = 1 exactly.
        let bound = Bound { percent: 100, total: 3, weights: 4 };
        assert_eq!([0, 1].map(|in_flight| bound.admits(in_flight, 1)), [true, false]);
    }

    #[test]
    fn the_greatest_numbers_overflow_nothing() {
        let bound = Bound { percent: u64::from(u32::MAX), total: u64::MAX >> 8, weights: u64::MAX >> 8 };
        assert!(bound.admits(u32::MAX, u32::MAX));
    }
}
