//! Fewest requests in flight.

use crate::{
    Ask, Fleet, Pick, Policy, Reason, Rng,
    candidate::stake,
    trust::{Prober, Trusted},
    weighted::{Lot, Table},
};

/// Up to this many endpoints, all are compared.
///
/// Looking at all beats looking at two wherever it costs about the same: two draws often miss the idle one. Measured
/// 2026-11 (2 virtual cores, other work running, best of 7): all of 16 in 13–17 ns, 52 if all tie; two draws 11 ns, 41–49
/// while half are ineligible.
const SCAN_UP_TO: usize = 16;

/// Picks the endpoint with the lowest load = in-flight / weight: of all, or of two drawn at random in fleets over 16.
///
/// So two endpoints never give the busier one, and load settles in proportion to weight. The measure is that of nginx's
/// `least_conn`. It is not (in-flight + 1) / weight: that one sends everything to the heaviest endpoint while the fleet is
/// idle, and may send to the busier of two.
///
/// - Ties are broken at random in proportion to weight, so an idle fleet gets its weighted shares, not its first endpoint
///   everything. Of two draws a tie goes to the first; being a weighted draw it comes to the same.
/// - The two are drawn without replacement and by weight. If 8 draws find no (second) eligible one, all are compared.
/// - Cost: up to 16 endpoints O(n); above, O(1) while most of the weight is eligible, else O(n). No allocation in `pick`;
///   `rebuild` is O(n), 16 bytes per endpoint.
/// - Failing fast keeps an endpoint idle, and must not attract requests: who fails a share of its requests of late
///   ([`Latency::failing`](crate::Latency::failing)) is left out of that share of picks while there is anybody else; a probe a
///   second finds out when it is well again.
/// - `None` only when no eligible endpoint has weight > 0.
/// - In-flight counts are read live. Weights are too, but the draws use those of the last `rebuild`.
///
/// Two choices: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001.
#[derive(Debug, Default)]
pub struct LeastRequest {
    /// Empty for fleets that are scanned.
    table: Table,
    prober: Prober,
}

impl LeastRequest {
    /// Knows no endpoints yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Policy for LeastRequest {
    fn pick<F: Fleet + ?Sized>(&mut self, fleet: &F, ask: Ask, rng: &mut Rng) -> Option<Pick> {
        if let Some(index) = self.prober.due(fleet, ask, |latency| latency.failing() > 0) {
            return Some(Reason::Probe.of(index));
        }
        let trusted = Trusted { fleet, dice: rng.below(u32::MAX) };
        let least = self.least(&trusted, rng).or_else(|| self.least(fleet, rng));
        least.map(|index| Reason::LeastLoaded.of(index))
    }

    fn rebuild<F: Fleet + ?Sized>(&mut self, fleet: &F) {
        if fleet.len() <= SCAN_UP_TO {
            self.table.clear();
        } else {
            self.table.build(fleet);
        }
    }
}

impl LeastRequest {
    fn least<F: Fleet + ?Sized>(&self, fleet: &F, rng: &mut Rng) -> Option<usize> {
        if fleet.len() <= SCAN_UP_TO {
            return least_of_all(fleet, rng).map(|(index, _)| index);
        }
        let drawn = self.table.draw(fleet, None, rng);
        let Some((first, load)) = drawn.and_then(|index| Some((index, Load::of(fleet, index)?))) else {
            return least_of_all(fleet, rng).map(|(index, _)| index);
        };
        // The rival must be strictly better: were ties drawn anew, idle shares would drift from the weights.
        let rival = match self.table.draw(fleet, Some(first), rng) {
            Some(index) => Load::of(fleet, index).map(|load| (index, load)),
            None => least_of_all(fleet, rng),
        };
        match rival {
            Some((index, lower)) if lower.is_below(load) => Some(index),
            _ => Some(first),
        }
    }
}

/// The least loaded of all that may be picked; among equals by weight.
fn least_of_all<F: Fleet + ?Sized>(fleet: &F, rng: &mut Rng) -> Option<(usize, Load)> {
    let mut best: Option<(Lot, Load)> = None;
    for index in 0..fleet.len() {
        let Some(weight) = stake(fleet, index) else { continue };
        let load = Load { in_flight: fleet.in_flight(index), weight };
        match &mut best {
            Some((_, least)) if least.is_below(load) => {}
            Some((lot, least)) if !load.is_below(*least) => lot.enter(index, weight, rng),
            _ => {
                let mut lot = Lot::default();
                lot.enter(index, weight, rng);
                best = Some((lot, load));
            }
        }
    }
    best.and_then(|(lot, load)| Some((lot.winner?, load)))
}

/// in-flight / weight, compared as fractions so that nothing is rounded.
#[derive(Debug, Clone, Copy)]
struct Load {
    in_flight: u32,
    weight: u32,
}

impl Load {
    /// `None` when the weight has become 0 since the draw.
    fn of<F: Fleet + ?Sized>(fleet: &F, index: usize) -> Option<Self> {
        let weight = fleet.weight(index);
        (weight > 0).then(|| Self { in_flight: fleet.in_flight(index), weight })
    }

    fn is_below(self, other: Self) -> bool {
        u64::from(self.in_flight) * u64::from(other.weight)
            < u64::from(other.in_flight) * u64::from(self.weight)
    }
}
