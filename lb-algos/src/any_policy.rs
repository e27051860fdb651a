//! One of the policies, chosen at run time.

use crate::{Fleet, LeastRequest, Policy, Random, Rng, RoundRobin, Tick};

/// Which policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// [`RoundRobin`]
    RoundRobin,
    /// [`Random`]
    Random,
    /// [`LeastRequest`]
    LeastRequest,
}

/// One pool's policy on one worker thread.
///
/// An enum, not a trait object: one predictable branch, and the pool's [`Fleet`] is inlined into the scan.
/// Measured 2026-11, 2 virtual cores, other work running, best of 7; ns per pick, inlined / through `&dyn Fleet`:
/// with 3 endpoints round robin 6.5 / 12.6, random 4.8 / 6.9, least request 3.3 / 12.9; with 300 endpoints 374 / 816,
/// 4.9 / 6.7, 10.9 / 17.4.
#[derive(Debug)]
pub enum AnyPolicy {
    /// In turn, by weight.
    RoundRobin(RoundRobin),
    /// By chance, by weight.
    Random(Random),
    /// Fewest requests in flight per weight.
    LeastRequest(LeastRequest),
}

impl AnyPolicy {
    /// The policy of that kind, which knows no endpoints: [`AnyPolicy::rebuild`] comes next.
    #[must_use]
    pub fn new(kind: PolicyKind) -> Self {
        match kind {
            PolicyKind::RoundRobin => Self::RoundRobin(RoundRobin::new()),
            PolicyKind::Random => Self::Random(Random::new()),
            PolicyKind::LeastRequest => Self::LeastRequest(LeastRequest::new()),
        }
    }

    /// Which one it is.
    #[must_use]
    pub fn kind(&self) -> PolicyKind {
        match self {
            Self::RoundRobin(_) => PolicyKind::RoundRobin,
            Self::Random(_) => PolicyKind::Random,
            Self::LeastRequest(_) => PolicyKind::LeastRequest,
        }
    }

    /// [`Policy::pick`], without the trait in scope.
    pub fn pick<F: Fleet + ?Sized>(&mut self, fleet: &F, now: Tick, rng: &mut Rng) -> Option<usize> {
        match self {
            Self::RoundRobin(policy) => policy.pick(fleet, now, rng),
            Self::Random(policy) => policy.pick(fleet, now, rng),
            Self::LeastRequest(policy) => policy.pick(fleet, now, rng),
        }
    }

    /// [`Policy::rebuild`], without the trait in scope.
    pub fn rebuild<F: Fleet + ?Sized>(&mut self, fleet: &F) {
        match self {
            Self::RoundRobin(policy) => policy.rebuild(fleet),
            Self::Random(policy) => policy.rebuild(fleet),
            Self::LeastRequest(policy) => policy.rebuild(fleet),
        }
    }
}

impl Policy for AnyPolicy {
    fn pick<F: Fleet + ?Sized>(&mut self, fleet: &F, now: Tick, rng: &mut Rng) -> Option<usize> {
        Self::pick(self, fleet, now, rng)
    }

    fn rebuild<F: Fleet + ?Sized>(&mut self, fleet: &F) {
        Self::rebuild(self, fleet);
    }
}
