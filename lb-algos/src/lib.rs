//! Rules that choose an endpoint for a request. Pure: no I/O, clock, logging or globals; time and chance are arguments.
//!
//! Which policy for which traffic (`n` endpoints; pick costs without what [`Fleet`] itself costs):
//!
//! | policy | for | cost of a pick | source |
//! | --- | --- | --- | --- |
//! | [`RoundRobin`] | requests that cost about the same; exact shares | O(n) up to 64, then O(log n) | nginx 2012, WF²Q 1996 |
//! | [`Random`] | many gateways or workers, no coordination wanted | O(1) | Walker 1974, Vose 1991 |
//! | [`LeastRequest`] | requests or endpoints of unlike speed, long streams | O(n) up to 16, then O(1) | Mitzenmacher 2001 |
//! | [`PeakEwma`] | endpoints that turn slow or fail; short requests | O(n) up to 16, then O(1) | Finagle, Mitzenmacher 2001 |
//! | [`Maglev`] | the same visitor to the same endpoint; caches | O(1), with a bound O(n) | Eisenbud 2016 |
//! | [`RingHash`] | the same, with the owners that nginx or ketama clients have | O(log n), with a bound O(n) | Karger 1997 |
//!
//! O(1) turns into O(n) for single picks while much of a pool's weight is ineligible. No pick allocates. The bound on load
//! is that of Mirrokni et al. 2018. Rendezvous hashing is no policy of its own: O(n) for what Maglev does in O(1); it is
//! where both hashing policies end when their tables don't help.
//!
//! Each worker thread owns one [`AnyPolicy`] per pool (`&mut self`: no locks, no atomics). In-flight counts and latencies
//! are the fleet's, shared by all workers, so [`LeastRequest`] and [`PeakEwma`] see what the others do; [`RoundRobin`] takes
//! turns per worker. Tables of hashing policies ([`Prepared`]) are built once per reload and shared.
//!
//! ```
//! use lb_algos::{AnyPolicy, Ask, Fleet, PolicyKind, Prepared, Rng, Tick};
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
//! policy.rebuild(&fleet, &Prepared::None);
//! let mut hits = [0; 3];
//! for _ in 0..7 {
//!     let picked = policy.pick(&fleet, Ask::at(Tick::ZERO), &mut rng).expect("all are eligible");
//!     hits[picked.index] += 1;
//! }
//! assert_eq!(hits, [5, 1, 1]);
//! ```
//!
//! Reading order: this file, `candidate` and `latency` (what is known), `pick` (question and answer), one of `round_robin`,
//! `random`, `least_request`, `peak_ewma`, `maglev`, `ring_hash`, then what they share: `turns`, `weighted`, `bounded_load`,
//! `prepared`, `hash`, `rng`, `tick`.
//!
//! What surrounds a policy: [`outlier`] (who is left out for a time), [`RetryBudget`] and [`backoff()`] (how often and when to
//! try again), [`AdaptiveLimit`] (how much at once), [`slow_start()`] (a newcomer's weight), [`local_share`] (how much stays in
//! the zone). `tests/fleet_simulation` plays all of it together.

pub mod backoff;
pub mod locality;
pub mod outlier;
pub mod slow_start;

mod adaptive_limit;
mod any_policy;
mod bounded_load;
mod candidate;
mod hash;
mod latency;
mod least_request;
mod maglev;
mod peak_ewma;
mod pick;
mod prepared;
mod random;
mod retry_budget;
mod ring_hash;
mod rng;
mod round_robin;
mod tick;
mod trust;
mod turns;
mod weighted;

use std::fmt::Debug;

pub use adaptive_limit::{AdaptiveLimit, LimitSample};
pub use any_policy::{AnyPolicy, PolicyKind};
pub use backoff::backoff;
pub use candidate::Fleet;
pub use hash::stable_hash;
pub use latency::Latency;
pub use least_request::LeastRequest;
pub use locality::local_share;
pub use maglev::{Maglev, MaglevTable};
pub use peak_ewma::PeakEwma;
pub use pick::{Ask, Pick, Reason};
pub use prepared::{Place, Prepared};
pub use random::Random;
pub use retry_budget::RetryBudget;
pub use ring_hash::{Ring, RingHash};
pub use rng::Rng;
pub use round_robin::RoundRobin;
pub use slow_start::slow_start;
pub use tick::Tick;

/// A rule that picks.
///
/// Generic over the fleet, so it can't be a trait object: [`AnyPolicy`] is the choice at run time. A `&dyn Fleet` works.
pub trait Policy: Debug + Send {
    /// The endpoint for one request and why it; `None` only when no eligible endpoint has weight > 0.
    ///
    /// Never allocates, never panics, whatever `fleet` answers and however `ask.now` moves. Picking is all: counting the
    /// request as in flight is the caller's.
    fn pick<F: Fleet + ?Sized>(&mut self, fleet: &F, ask: Ask, rng: &mut Rng) -> Option<Pick>;

    /// To be called before the first pick and whenever members or weights changed. What is known of ids that stay is kept,
    /// so that a reload is not felt. The only place that allocates.
    fn rebuild<F: Fleet + ?Sized>(&mut self, fleet: &F);
}
