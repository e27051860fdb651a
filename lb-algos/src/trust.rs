//! Failing fast must not look like being free: policies that go by load look at a fleet through [`Trusted`].

use std::time::Duration;

use crate::{Ask, Fleet, Latency, candidate::stake};

/// An endpoint from which nothing was heard for so long is due for a probe.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// One pick in so many may be a probe. With few requests, hardly any endpoint is heard of every second, and without this
/// bound slow and failing ones would get as much as the others.
const PICKS_PER_PROBE: u32 = 20;

/// A fleet without those that fail, for one pick: who fails a share of its requests is left out of that share of picks.
///
/// One throw of the dice counts for all, so where everybody fails alike, everybody is in or nobody is; then the caller looks
/// at the fleet as it is.
pub(crate) struct Trusted<'f, F: ?Sized> {
    pub(crate) fleet: &'f F,
    /// Evenly drawn.
    pub(crate) dice: u32,
}

impl<F: Fleet + ?Sized> Fleet for Trusted<'_, F> {
    fn len(&self) -> usize {
        self.fleet.len()
    }

    fn id(&self, index: usize) -> u64 {
        self.fleet.id(index)
    }

    fn weight(&self, index: usize) -> u32 {
        self.fleet.weight(index)
    }

    fn eligible(&self, index: usize) -> bool {
        is_trusted(self.fleet, index, self.dice) && self.fleet.eligible(index)
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.fleet.in_flight(index)
    }

    fn latency(&self, index: usize) -> Option<&Latency> {
        self.fleet.latency(index)
    }
}

/// Whether `index` is in at this throw of the dice.
pub(crate) fn is_trusted<F: Fleet + ?Sized>(fleet: &F, index: usize, dice: u32) -> bool {
    fleet.latency(index).is_none_or(|latency| latency.failing() <= dice)
}

/// Whose turn it is to be asked whether it is due for a probe. One endpoint is looked at per pick once one may be made, so
/// all of them once in n picks.
#[derive(Debug, Default)]
pub(crate) struct Prober {
    cursor: usize,
    since: u32,
}

impl Prober {
    /// The endpoint that gets this request as a probe, of those that `wanted` says need one. O(1).
    pub(crate) fn due<F: Fleet + ?Sized>(
        &mut self,
        fleet: &F,
        ask: Ask,
        wanted: impl Fn(&Latency) -> bool,
    ) -> Option<usize> {
        self.since = self.since.saturating_add(1);
        if self.since < PICKS_PER_PROBE || fleet.is_empty() {
            return None;
        }
        self.cursor = if self.cursor + 1 < fleet.len() { self.cursor + 1 } else { 0 };
        let index = self.cursor;
        let latency = fleet.latency(index)?;
        let due = wanted(latency)
            && !latency.backs_off(ask.now)
            && stake(fleet, index).is_some()
            && latency.claim_probe(ask.now, PROBE_EVERY);
        if due {
            self.since = 0;
        }
        due.then_some(index)
    }
}
