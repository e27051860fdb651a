//! A fleet made of plain values, and all policies.

#![allow(dead_code, reason = "every test file uses its own part")]

use lb_algos::{AnyPolicy, Ask, Fleet, Latency, Place, PolicyKind, Prepared, Rng, Tick, stable_hash};

pub(crate) const KINDS: [PolicyKind; 8] = [
    PolicyKind::RoundRobin,
    PolicyKind::Random,
    PolicyKind::LeastRequest,
    PolicyKind::PeakEwma,
    PolicyKind::Maglev { bound: None },
    PolicyKind::Maglev { bound: Some(125) },
    PolicyKind::RingHash { bound: None },
    PolicyKind::RingHash { bound: Some(125) },
];

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

/// Endpoints with latencies.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) fleet: Endpoints,
    pub(crate) latencies: Vec<Latency>,
}

impl Fleet for Measured {
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
        self.fleet.eligible(index)
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.fleet.in_flight(index)
    }

    fn latency(&self, index: usize) -> Option<&Latency> {
        Some(&self.latencies[index])
    }
}

/// Where the endpoint of each id is.
pub(crate) fn prepared(kind: PolicyKind, endpoints: &[Endpoint]) -> Prepared {
    let hosts: Vec<String> = endpoints.iter().map(|endpoint| host(endpoint.id)).collect();
    let mut places = Vec::new();
    for (endpoint, host) in endpoints.iter().zip(&hosts) {
        // Rings of great weights take their time; that they are right is for ring_hash's own tests.
        let most = if let PolicyKind::RingHash { .. } = kind { 20 } else { u32::MAX };
        let (key, weight) = (stable_hash(&[host.as_bytes()]), endpoint.weight.min(most));
        places.push(Place { host, port: 8080, key, weight });
    }
    Prepared::build(kind, &places)
}

/// An address per id.
pub(crate) fn host(id: u64) -> String {
    format!("10.0.{}.{}", id / 250, id % 250)
}

/// The policy of that kind, built for `fleet`.
pub(crate) fn built(kind: PolicyKind, fleet: &Endpoints) -> AnyPolicy {
    let mut policy = AnyPolicy::new(kind);
    policy.rebuild(fleet, &prepared(kind, &fleet.0));
    policy
}

/// `count` picks.
pub(crate) fn picks(policy: &mut AnyPolicy, fleet: &Endpoints, count: usize, rng: &mut Rng) -> Vec<usize> {
    (0..count)
        .map(|_| policy.pick(fleet, Ask::at(Tick::ZERO), rng).expect("somebody is eligible").index)
        .collect()
}
