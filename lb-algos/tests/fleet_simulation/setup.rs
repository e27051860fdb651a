//! What a world is made of and what may happen in it.

use std::time::Duration;

use lb_algos::{PolicyKind, outlier::OutlierRules};

use crate::member::{Fault, Spec};

pub(crate) const DECAY: Duration = Duration::from_secs(2);

pub(crate) const RULES: OutlierRules = OutlierRules {
    consecutive_failures: 5,
    consecutive_gateway_errors: 3,
    success_ratio: Some((80, 20)),
    latency_factor_percent: None,
    base_ejection: Duration::from_secs(10),
    max_ejection: Duration::from_secs(300),
    max_ejected_percent: 50,
};

/// What a world is made of. Everything that happens in it follows from this and its script.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) kind: PolicyKind,
    pub(crate) seed: u64,
    pub(crate) members: Vec<Spec>,
    pub(crate) workers: usize,
    /// Requests, a Poisson stream over all workers.
    pub(crate) per_second: f64,
    /// So many requests in a hundred cost ten times as much as the others.
    pub(crate) costly_percent: u32,
    pub(crate) outlier: Option<OutlierRules>,
    /// Attempts after the first.
    pub(crate) retries: u32,
    /// Percent, and retries per second and worker.
    pub(crate) budget: (u32, f64),
    /// Most requests in flight at one member.
    pub(crate) limit: u32,
    /// A second limit, which follows the latency: its bounds.
    pub(crate) adaptive: Option<(u32, u32)>,
    pub(crate) slow_start: Option<Duration>,
    /// Of one attempt.
    pub(crate) deadline: Duration,
}

impl Setup {
    /// No ejection, no retries, no limits.
    pub(crate) fn plain(kind: PolicyKind, seed: u64, members: &[Spec], per_second: f64) -> Self {
        Self {
            kind,
            seed,
            members: members.to_vec(),
            workers: 2,
            per_second,
            costly_percent: 0,
            outlier: None,
            retries: 0,
            budget: (20, 1.5),
            limit: u32::MAX,
            adaptive: None,
            slow_start: None,
            deadline: Duration::from_secs(5),
        }
    }

    /// With ejection and retries as a gateway has them by default.
    pub(crate) fn guarded(kind: PolicyKind, seed: u64, members: &[Spec], per_second: f64) -> Self {
        Self { outlier: Some(RULES), retries: 2, ..Self::plain(kind, seed, members, per_second) }
    }
}

/// What a script can do. Members are named by slot: their place in the order in which they first joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    Join(Spec),
    Leave(usize),
    Return(usize),
    Weight(usize, u32),
    Service(usize, Duration),
    Fault(usize, Fault),
    Healthy(usize, bool),
    /// A successful probe of ours.
    Probe(usize),
}
