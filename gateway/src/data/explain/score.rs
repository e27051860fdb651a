//! What the policy compares.

use lb_algos::{AnyPolicy, Ask, Fleet, PeakEwma, PolicyKind, Prepared, Rng, Tick};

use super::{candidates::tidy, view::Candidate};
use crate::snapshot::Pool;

/// Standing behind the owner is told up to here: who comes later is hardly ever asked.
const MOST_RANKS: u32 = 8;

/// Fills in the candidates' scores, or ranks where a key decides; says what they mean.
pub(super) fn score(
    pool: &Pool,
    kind: PolicyKind,
    key: Option<u64>,
    prepared: &Prepared,
    all: &mut [Candidate],
) -> Option<String> {
    match kind {
        PolicyKind::RoundRobin | PolicyKind::Random => None,
        PolicyKind::LeastRequest => {
            for one in all.iter_mut().filter(|one| one.effective_weight > 0.0) {
                one.score = Some(tidy(f64::from(one.in_flight) / one.effective_weight));
            }
            Some("in flight ÷ weight".to_owned())
        }
        PolicyKind::PeakEwma => {
            let (part, indifferent) = (mean_weight(all), PeakEwma::INDIFFERENT.as_secs_f64() * 1e3);
            for one in all.iter_mut().filter(|one| one.effective_weight > 0.0) {
                let load = f64::from(one.in_flight) / one.effective_weight + 1.0 / part;
                one.score = one.latency_ms.map(|latency| tidy((latency + indifferent) * load));
            }
            Some(
                "(latency + 5 ms) × (in flight ÷ weight + 1 ÷ mean weight); within 25 % of the least is equal"
                    .to_owned(),
            )
        }
        PolicyKind::Maglev { .. } | PolicyKind::RingHash { .. } => {
            rank(pool, kind, key?, prepared, all);
            Some("standing for this key: 1 owns it, the next ones stand in".to_owned())
        }
    }
}

/// Mean weight of those that the pick could fall on.
fn mean_weight(all: &[Candidate]) -> f64 {
    let weights = || all.iter().filter(|one| one.eligible).map(|one| one.effective_weight);
    let count = weights().count();
    if count == 0 {
        1.0
    } else {
        weights().sum::<f64>() / f64::from(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

/// Asks the policy who serves the key when everybody is well and idle, then who does without that one, and so on.
fn rank(pool: &Pool, kind: PolicyKind, key: u64, prepared: &Prepared, all: &mut [Candidate]) {
    let mut fleet = Idle { pool, out: vec![false; pool.members.len()] };
    let mut policy = AnyPolicy::new(kind);
    policy.rebuild(&fleet, prepared);
    let ask = Ask { now: Tick::ZERO, key: Some(key) };
    for rank in 0..MOST_RANKS {
        let Some(pick) = policy.pick(&fleet, ask, &mut Rng::seeded(0)) else { return };
        if let (Some(one), Some(out)) = (all.get_mut(pick.index), fleet.out.get_mut(pick.index)) {
            (one.rank, *out) = (Some(rank), true);
        }
    }
}

/// The pool if all its members were well and idle.
struct Idle<'a> {
    pool: &'a Pool,
    out: Vec<bool>,
}

impl Fleet for Idle<'_> {
    fn len(&self) -> usize {
        self.pool.members.len()
    }

    fn id(&self, index: usize) -> u64 {
        self.pool.members[index].endpoint.number
    }

    fn weight(&self, index: usize) -> u32 {
        self.pool.members[index].weight
    }

    fn eligible(&self, index: usize) -> bool {
        !self.out[index]
    }

    fn in_flight(&self, _index: usize) -> u32 {
        0
    }
}
