//! Rules that choose an endpoint for a request. Pure: no I/O, clock, logging or globals; time and chance are arguments.
//!
//! Which policy for which traffic (`n` endpoints; pick costs without what [`Fleet`] itself costs):
//!
//! | policy | for | cost of a pick | source |
//! | --- | --- | --- | --- |
//! | [`RoundRobin`] | requests that cost about the same; exact shares | O(n) | nginx 2012 |
//! | [`Random`] | many gateways or workers, no coordination wanted | O(1) | Walker 1974, Vose 1991 |
//! | [`LeastRequest`] | requests or endpoints of unlike speed, long streams | O(n) up to 16, then O(1) | Mitzenmacher 2001 |
//!
//! O(1) turns into O(n) for single picks while much of a pool's weight is ineligible. No pick allocates.
//!
//! Each worker thread owns one [`AnyPolicy`] per pool (`&mut self`: no locks, no atomics). In-flight counts are the
//! fleet's, shared by all workers, so [`LeastRequest`] sees what the others do; [`RoundRobin`] takes turns per worker.
//!
//! ```
//! use lb_algos::{AnyPolicy, Fleet, PolicyKind, Rng, Tick};
//!
//! struct Weights([u32; 3]);
//!
//! impl Fleet for Weights {
//!     fn len(&self) -> usize { self.0.len() }
//!     fn id(&self, index: usize) -> u64 { index as u64 }
//!     fn weight(&self, index: usize) -> u32 { self.0[index] }
//!     fn eligible(&self, _: usize) -> bool { true }
//!     fn in_flight(&self, _: usize) -> u32 { 0 }
//! }
//!
//! let (fleet, mut rng) = (Weights([5, 1, 1]), Rng::seeded(1));
//! let mut policy = AnyPolicy::new(PolicyKind::RoundRobin);
//! policy.rebuild(&fleet);
//! let mut hits = [0; 3];
//! for _ in 0..7 {
//!     let index = policy.pick(&fleet, Tick::ZERO, &mut rng).expect("all are eligible");
//!     hits[index] += 1;
//! }
//! assert_eq!(hits, [5, 1, 1]);
//! ```
//!
//! Reading order: this file, `candidate` (what is known), one of `round_robin`, `random`, `least_request`, then what they
//! share: `weighted`, `rng`, `tick`.

mod any_policy;
mod candidate;
mod least_request;
mod random;
mod rng;
mod round_robin;
mod tick;
mod weighted;

use std::fmt::Debug;

pub use any_policy::{AnyPolicy, PolicyKind};
pub use candidate::Fleet;
pub use least_request::LeastRequest;
pub use random::Random;
pub use rng::Rng;
pub use round_robin::RoundRobin;
pub use tick::Tick;

/// A rule that picks.
///
/// Generic over the fleet, so it can't be a trait object: [`AnyPolicy`] is the choice at run time. A `&dyn Fleet` works.
pub trait Policy: Debug + Send {
    /// The endpoint for one request, as an index into `fleet`; `None` only when no eligible endpoint has weight > 0.
    ///
    /// Never allocates, never panics, whatever `fleet` answers and however `now` moves. Picking is all: counting the
    /// request as in flight is the caller's.
    fn pick<F: Fleet + ?Sized>(&mut self, fleet: &F, now: Tick, rng: &mut Rng) -> Option<usize>;

    /// To be called before the first pick and whenever members or weights changed. What is known of ids that stay is kept,
    /// so that a reload is not felt. The only place that allocates.
    fn rebuild<F: Fleet + ?Sized>(&mut self, fleet: &F);
}
