//! Which member of a pool gets the next attempt.
//!
//! What is known narrows the choice in steps, and each step yields rather than leaves a request without an endpoint:
//! the holders of the host, then everybody not known to lack it, then everybody that is up, then those whose last
//! connect failed. Health checks and weight 0 never yield.

use lb_algos::{AnyPolicy, Fleet, Rng, Tick};

use super::absent::{Absences, Scope};
use crate::snapshot::{Member, Pool};

/// A worker's policy state for one pool.
#[derive(Debug)]
pub struct PolicyState {
    policy: AnyPolicy,
    revision: u64,
}

impl PolicyState {
    /// State for `pool`, of which nothing has been picked.
    #[must_use]
    pub fn new(pool: &Pool) -> Self {
        let mut state = Self { policy: AnyPolicy::new(pool.policy), revision: pool.revision };
        state.policy.rebuild(&View::everybody(pool));
        state
    }

    /// Follows a reload; positions of members that stay are kept.
    pub fn follow(&mut self, pool: &Pool) {
        if self.policy.kind() != pool.policy {
            *self = Self::new(pool);
        } else if self.revision != pool.revision {
            self.policy.rebuild(&View::everybody(pool));
            self.revision = pool.revision;
        }
    }
}

/// What is known for one attempt.
#[derive(Debug, Clone, Copy)]
pub struct Knowledge<'a> {
    /// Members (by index) that this request has tried.
    pub tried: &'a [usize],
    /// frps that hold the host, by admin listing; empty = nobody is known to.
    pub holders: &'a [u32],
    /// What the worker has learnt.
    pub absences: &'a Absences,
    /// Scope of the request.
    pub scope: Scope,
    /// The request could not be sent on after frps's page: keep it off members that once lacked the tunnel.
    pub cautious: bool,
    /// Now.
    pub now: Tick,
}

/// Picks a member, `None` when none may be tried.
pub fn pick(state: &mut PolicyState, pool: &Pool, known: Knowledge<'_>, rng: &mut Rng) -> Option<usize> {
    state.follow(pool);
    let nothing_absent = known.absences.is_empty();
    let steps = [
        (!known.holders.is_empty()).then_some(Step { holders: true, present: true, up: true }),
        Some(Step { holders: false, present: true, up: true }),
        (!nothing_absent).then_some(Step { holders: false, present: false, up: true }),
        Some(Step { holders: false, present: false, up: false }),
    ];
    steps.into_iter().flatten().find_map(|step| {
        let view = View { members: &pool.members, step, known: Some(known), nothing_absent };
        state.policy.pick(&view, known.now, rng)
    })
}

/// Which conditions hold in a step.
#[derive(Debug, Clone, Copy)]
struct Step {
    holders: bool,
    present: bool,
    up: bool,
}

struct View<'a> {
    members: &'a [Member],
    step: Step,
    known: Option<Knowledge<'a>>,
    nothing_absent: bool,
}

impl<'a> View<'a> {
    fn everybody(pool: &'a Pool) -> Self {
        let step = Step { holders: false, present: false, up: false };
        Self { members: &pool.members, step, known: None, nothing_absent: true }
    }
}

impl Fleet for View<'_> {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn id(&self, index: usize) -> u64 {
        self.members[index].endpoint.number
    }

    fn weight(&self, index: usize) -> u32 {
        self.members[index].weight
    }

    fn eligible(&self, index: usize) -> bool {
        let member = &self.members[index];
        let Some(known) = &self.known else { return true };
        let holds = !self.step.holders || known.holders.contains(&member.frps);
        let up = !self.step.up || !member.endpoint.is_down(known.now);
        let present = self.nothing_absent
            || !self.step.present
            || !if known.cautious {
                known.absences.is_suspect(known.scope, member.endpoint.number, known.now)
            } else {
                known.absences.is_absent(known.scope, member.endpoint.number, known.now)
            };
        member.verdict.is_healthy() && holds && up && present && !known.tried.contains(&index)
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.members[index].endpoint.in_flight()
    }
}
