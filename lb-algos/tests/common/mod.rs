//! A fleet made of plain values, and all policies.

#![allow(dead_code, reason = "every test file uses its own part")]

use lb_algos::{AnyPolicy, Fleet, PolicyKind, Rng, Tick};

pub(crate) const KINDS: [PolicyKind; 3] =
    [PolicyKind::RoundRobin, PolicyKind::Random, PolicyKind::LeastRequest];

#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint {
    pub(crate) id: u64,
    pub(crate) weight: u32,
    pub(crate) eligible: bool,
    pub(crate) in_flight: u32,
}

impl Endpoint {
    pub(crate) fn may_be_picked(&self) -> bool {
        self.eligible && self.weight > 0
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Endpoints(pub(crate) Vec<Endpoint>);

impl Endpoints {
    /// Idle and eligible, ids from 0.
    pub(crate) fn with_weights(weights: &[u32]) -> Self {
        let endpoint = |(id, &weight)| Endpoint { id, weight, eligible: true, in_flight: 0 };
        Self((0..).zip(weights).map(endpoint).collect())
    }
}

impl Fleet for Endpoints {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn id(&self, index: usize) -> u64 {
        self.0[index].id
    }

    fn weight(&self, index: usize) -> u32 {
        self.0[index].weight
    }

    fn eligible(&self, index: usize) -> bool {
        self.0[index].eligible
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.0[index].in_flight
    }
}

/// The policy of that kind, built for `fleet`.
pub(crate) fn built(kind: PolicyKind, fleet: &Endpoints) -> AnyPolicy {
    let mut policy = AnyPolicy::new(kind);
    policy.rebuild(fleet);
    policy
}

/// `count` picks.
pub(crate) fn picks(policy: &mut AnyPolicy, fleet: &Endpoints, count: usize, rng: &mut Rng) -> Vec<usize> {
    (0..count).map(|_| policy.pick(fleet, Tick::ZERO, rng).expect("somebody is eligible")).collect()
}
