//! A bound on how much goes on at once somewhere: a listener, a route, an frps.
//!
//! Each worker counts its own; who wants in sums them up. Two workers that look at the same moment may both get in, so a bound may be
//! exceeded by the number of workers less one. Nothing is shared that is written per request.

use std::sync::Arc;

use crate::telemetry::shard::{Counter, Shards, WorkerId};

/// The bound and what goes on. What goes on outlives reloads.
#[derive(Debug, Clone)]
pub struct Gate {
    limit: u32,
    load: Arc<Shards<Counter>>,
}

/// Counts as going on until it is dropped.
#[derive(Debug)]
pub struct Inside<'a> {
    load: &'a Shards<Counter>,
    worker: WorkerId,
}

/// The same for what outlives the look at the gate: it keeps the count alive by itself.
#[derive(Debug)]
pub struct Held {
    load: Arc<Shards<Counter>>,
    worker: WorkerId,
}

impl Gate {
    /// At most `limit` (at least 1) at once; `load` is shared by all that have the same bound.
    #[must_use]
    pub const fn new(limit: u32, load: Arc<Shards<Counter>>) -> Self {
        Self { limit, load }
    }

    /// What goes on now.
    #[must_use]
    pub fn load(&self) -> u64 {
        self.load.sum(|count| count)
    }

    /// Most of it.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Whether one more may come.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.load() < u64::from(self.limit)
    }

    /// Whether there is a bound and it is reached.
    #[must_use]
    pub fn is_full(gate: Option<&Self>) -> bool {
        gate.is_some_and(|gate| !gate.has_room())
    }

    /// Counts one more, whether there is room or not.
    #[must_use]
    pub fn enter(&self, worker: WorkerId) -> Inside<'_> {
        self.load.of(worker).inc();
        Inside { load: &self.load, worker }
    }

    /// As [`Gate::enter`], for as long as the guard lives; it must end on the thread of `worker`.
    #[must_use]
    pub fn hold(&self, worker: WorkerId) -> Held {
        self.load.of(worker).inc();
        Held { load: Arc::clone(&self.load), worker }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.load.of(self.worker).dec();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.load.of(self.worker).dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_until_its_end_even_when_the_gate_has_gone() {
        let load = Arc::new(Shards::new(1));
        let gate = Gate::new(1, Arc::clone(&load));
        let held = gate.hold(WorkerId(0));
        assert!(!gate.has_room());
        drop(gate);
        let next = Gate::new(1, load);
        assert_eq!(next.load(), 1, "as after a reload");
        drop(held);
        assert!(next.has_room());
    }

    #[test]
    fn as_many_get_in_as_may_and_the_next_one_when_somebody_leaves() {
        let gate = Gate::new(2, Arc::new(Shards::new(2)));
        let one = gate.enter(WorkerId(0));
        assert!(gate.has_room());
        let two = gate.enter(WorkerId(1));
        assert!(!gate.has_room() && gate.load() == 2);
        drop(one);
        assert!(gate.has_room());
        drop(two);
        assert_eq!(gate.load(), 0);
    }
}
