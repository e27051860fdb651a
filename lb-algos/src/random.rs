//! Weighted random choice.

use crate::{
    Ask, Fleet, Pick, Policy, Reason, Rng,
    weighted::{Table, scan},
};

/// Picks any eligible endpoint with probability proportional to its weight.
///
/// Needs no state between picks, so it never herds and any number of workers or gateways need no coordination; the price
/// is unevenness: over `k` picks an endpoint of share `p` is off by about √(k·p·(1−p)).
///
/// - Cost: O(1) while most of the weight is eligible (alias table, draws on ineligible endpoints thrown away), else, after
///   8 draws, O(n). The distribution is the same. No allocation in `pick`; `rebuild` is O(n), 16 bytes per endpoint.
/// - `None` only when no eligible endpoint has weight > 0.
/// - Weights are those of the last `rebuild`; one that has become 0 since is obeyed at once.
/// - Without a `rebuild` after the fleet's size changed it scans: slower, still right.
///
/// Alias method: Walker 1974, Vose 1991.
#[derive(Debug, Default)]
pub struct Random {
    table: Table,
}

impl Random {
    /// Knows no endpoints yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Policy for Random {
    fn pick<F: Fleet + ?Sized>(&mut self, fleet: &F, _ask: Ask, rng: &mut Rng) -> Option<Pick> {
        let drawn = self.table.draw(fleet, None, rng).or_else(|| scan(fleet, rng));
        drawn.map(|index| Reason::Chance.of(index))
    }

    fn rebuild<F: Fleet + ?Sized>(&mut self, fleet: &F) {
        self.table.build(fleet);
    }
}
