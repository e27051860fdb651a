//! What a policy may know of the endpoints it chooses from.

use crate::Latency;

/// The endpoints of one pool as they stand for one pick. Index order is the pool's; indexes go from 0 to `len() - 1`.
///
/// Policies ask lazily, so a pick costs only the loads it needs and builds no list. Answers may change between two calls
/// (other threads count too): a policy relies on no two of them agreeing. Only `len` and `id` must stay as they were at
/// the last [`Policy::rebuild`](crate::Policy::rebuild).
///
/// Calling with an index out of range may panic; policies don't.
pub trait Fleet {
    /// Number of endpoints, eligible or not.
    fn len(&self) -> usize;

    /// Stable identity: survives rebuilds and moves within the order. Unique in the fleet; if it isn't, the endpoints that
    /// share it start from the same state after a rebuild.
    fn id(&self, index: usize) -> u64;

    /// Relative share of traffic, only meaningful against the others' weights. 0 = no new traffic.
    fn weight(&self, index: usize) -> u32;

    /// May the pick fall on it: live, healthy, not already tried by this request…
    fn eligible(&self, index: usize) -> bool;

    /// Requests sent to it and not ended, by all threads.
    fn in_flight(&self, index: usize) -> u32;

    /// What is known of its latency; `None` = nothing is kept of it.
    fn latency(&self, _index: usize) -> Option<&Latency> {
        None
    }

    /// Whether there is no endpoint at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The weight with which `index` takes part in this pick; `None` when it takes no part.
///
/// The one place that says what "may be picked" means. Weight first: it is the cheaper question.
pub(crate) fn stake<F: Fleet + ?Sized>(fleet: &F, index: usize) -> Option<u32> {
    let weight = fleet.weight(index);
    (weight > 0 && fleet.eligible(index)).then_some(weight)
}
