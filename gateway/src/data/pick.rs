//! Which member of a pool gets the next attempt, and why.
//!
//! What is known narrows the choice in steps, and each step yields rather than leaves a request without an endpoint: the
//! holders of the host, then everybody not known to lack it, then everybody that is up, then the ejected, then those whose
//! last connect failed. Within each step the tier goes first ([`super::tiers`]): own zone, lowest priority. Health checks
//! yield only below the pool's panic threshold; weight 0 and limits never do.

use frp_gateway_config::model::Budget;
use lb_algos::{AnyPolicy, Ask, Fleet, Latency, Reason, RetryBudget, Rng, Tick, slow_start::slow_start};

use super::{
    absent::{Absences, Scope},
    tiers::{Outlook, Tier},
    upstream::IdleConnections,
};
use crate::snapshot::{Gate, Member, Pool};

pub use super::reason::{Among, Why};

/// A worker's policy state for one pool.
#[derive(Debug)]
pub struct PolicyState {
    policy: AnyPolicy,
    /// For requests with a key, where `policy` doesn't hash.
    keyed: Option<AnyPolicy>,
    outlook: Outlook,
    revision: u64,
    budgets: (Budget, Option<Budget>),
    /// Retries that this worker may still make.
    pub retries: RetryBudget,
    /// Second attempts that it may still make.
    pub hedges: RetryBudget,
}

impl PolicyState {
    /// State for `pool`, of which nothing has been picked.
    #[must_use]
    pub fn new(pool: &Pool) -> Self {
        let keyed = pool.keyed.as_ref().map(|(kind, _)| AnyPolicy::new(*kind));
        let policy = AnyPolicy::new(pool.policy);
        let budgets = budgets_of(pool);
        let mut state = Self {
            policy,
            keyed,
            outlook: Outlook::default(),
            revision: pool.revision,
            budgets,
            retries: budget(Some(budgets.0), pool),
            hedges: budget(budgets.1, pool),
        };
        state.rebuild(pool);
        state
    }

    /// One more request: a part of it may be spent on retries.
    pub fn count_request(&mut self, pool: &Pool, now: Tick) {
        // Shared by all revisions of a pool, so a reload neither refills nor empties it.
        if self.budgets != budgets_of(pool) {
            self.budgets = budgets_of(pool);
            self.retries = budget(Some(self.budgets.0), pool);
            self.hedges = budget(self.budgets.1, pool);
        }
        self.retries.deposit(now);
        if self.budgets.1.is_some() {
            self.hedges.deposit(now);
        }
    }

    /// Follows a reload; positions of members that stay are kept.
    pub fn follow(&mut self, pool: &Pool) {
        if self.revision == pool.revision {
            return;
        }
        let keyed = pool.keyed.as_ref().map(|(kind, _)| *kind);
        if self.policy.kind() != pool.policy || self.keyed.as_ref().map(AnyPolicy::kind) != keyed {
            let (retries, hedges, budgets) = (self.retries.clone(), self.hedges.clone(), self.budgets);
            *self = Self { retries, hedges, budgets, ..Self::new(pool) };
            return;
        }
        self.outlook = Outlook::default();
        self.revision = pool.revision;
        self.rebuild(pool);
    }

    fn rebuild(&mut self, pool: &Pool) {
        let everybody = View::everybody(pool);
        self.policy.rebuild(&everybody, &pool.prepared);
        if let (Some(policy), Some((_, prepared))) = (&mut self.keyed, &pool.keyed) {
            policy.rebuild(&everybody, prepared);
        }
    }
}

fn budgets_of(pool: &Pool) -> (Budget, Option<Budget>) {
    (pool.retry.budget, pool.retry.hedge.map(|hedge| hedge.budget))
}

/// This worker's part of a budget.
fn budget(budget: Option<Budget>, pool: &Pool) -> RetryBudget {
    let budget = budget.unwrap_or(Budget { percent: 0, floor: 0 });
    RetryBudget::new(budget.percent, f64::from(budget.floor) / f64::from(pool.workers.max(1)))
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
    /// The worker's idle connections, which a connection limit doesn't keep from being used. `None` = nobody's in particular:
    /// an endpoint has some when more connections than requests in flight are there.
    pub idle: Option<&'a IdleConnections>,
    /// Scope of the request.
    pub scope: Scope,
    /// The request could not be sent on after frps's page: keep it off members that once lacked the tunnel.
    pub cautious: bool,
    /// Hash of what the request is to stay with.
    pub key: Option<u64>,
    /// Most requests in flight at one member; `None` = unbounded. The pool's own, or a newer one: who waits for room follows
    /// a reload.
    pub in_flight: Option<u32>,
    /// Now.
    pub now: Tick,
}

/// What a pick came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picked {
    /// This member, and why.
    Member {
        /// Index in the pool.
        index: usize,
        /// Why it.
        why: Why,
    },
    /// Members could serve, but all of them are at their limits.
    Full,
    /// None may be tried.
    Nobody,
}

/// Picks a member.
pub fn pick(state: &mut PolicyState, pool: &Pool, known: Knowledge<'_>, rng: &mut Rng) -> Picked {
    state.follow(pool);
    let nothing_absent = known.absences.is_empty();
    let outlook_matters = pool.tiered || pool.panic_threshold > 0;
    if outlook_matters {
        state.outlook.refresh(pool, known.now);
    }
    let panic = outlook_matters && state.outlook.is_panic();
    let base = Step {
        among: Among::All,
        tier: None,
        holders: false,
        present: true,
        ejected: panic,
        down: false,
        panic,
    };
    let steps = [
        (!known.holders.is_empty()).then_some(Step { among: Among::Holders, holders: true, ..base }),
        Some(base),
        (!nothing_absent).then_some(Step { among: Among::Absent, present: false, ..base }),
        Some(Step { among: Among::Ejected, present: false, ejected: true, ..base }),
        Some(Step { among: Among::Down, present: false, ejected: true, down: true, ..base }),
    ];
    let (policy, ask) = match (known.key, &mut state.keyed) {
        (Some(_), Some(keyed)) => (keyed, Ask { now: known.now, key: known.key }),
        (key, _) => (&mut state.policy, Ask { now: known.now, key }),
    };
    for step in steps.into_iter().flatten() {
        let mut view = View { pool, step, known: Some(known), nothing_absent, for_session: false };
        for look in 0..if pool.tiered { 3 } else { 0 } {
            // At last the other zone, before those who stand by.
            let tier = if look < 2 { state.outlook.draw(rng) } else { state.outlook.level() };
            let Some(tier) = tier else { break };
            view.step.tier = Some(tier);
            if let Some(pick) = policy.pick(&view, ask, rng) {
                let among = if panic { Among::Panic } else { tier.among() };
                return Picked::Member { index: pick.index, why: Why { reason: pick.reason.into(), among } };
            }
            view.step.tier = None;
            // The picture may be some milliseconds old.
            state.outlook.recount(pool, known.now);
        }
        if let Some(pick) = policy.pick(&view, ask, rng) {
            let among = if panic && step.among == Among::All { Among::Panic } else { step.among };
            return Picked::Member { index: pick.index, why: Why { reason: pick.reason.into(), among } };
        }
        if pool.limited && view.is_full() {
            return Picked::Full;
        }
    }
    Picked::Nobody
}

/// Whether somebody other than `index` and those tried could serve.
#[must_use]
pub fn has_other(pool: &Pool, tried: &[usize], index: usize, now: Tick) -> bool {
    pool.members.iter().enumerate().any(|(other, member)| {
        other != index
            && member.weight > 0
            && member.state.is_healthy()
            && !member.state.is_ejected(now)
            && !member.endpoint.is_down(now)
            && member.endpoint.is_open()
            && !tried.contains(&other)
    })
}

/// Whether a session may go on at `index`: weight and tier don't matter, the tunnel does, and health unless the pool is in
/// a panic.
#[must_use]
pub fn may_keep(pool: &Pool, index: usize, known: Knowledge<'_>) -> Keep {
    let step = Step {
        among: Among::All,
        tier: None,
        holders: false,
        present: true,
        ejected: false,
        down: false,
        panic: false,
    };
    let nothing_absent = known.absences.is_empty();
    let mut view = View { pool, step, known: Some(known), nothing_absent, for_session: true };
    if !view.is_fit(index) && is_in_panic(pool, known.now) {
        (view.step.panic, view.step.ejected) = (true, true);
    }
    if !view.is_fit(index) {
        Keep::Gone
    } else if view.has_room(index) {
        Keep::Yes
    } else {
        Keep::Full
    }
}

/// Whether so few members are healthy that health is ignored. O(n): only for sessions whose member looks unfit.
fn is_in_panic(pool: &Pool, now: Tick) -> bool {
    let mut outlook = Outlook::default();
    if pool.panic_threshold > 0 {
        outlook.recount(pool, now);
    }
    outlook.is_panic()
}

/// What becomes of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It goes on.
    Yes,
    /// Its member serves, but is at its limit.
    Full,
    /// Its member doesn't serve any more.
    Gone,
}

/// Which conditions hold in a step.
#[derive(Debug, Clone, Copy)]
struct Step {
    among: Among,
    tier: Option<Tier>,
    /// Only holders of the host.
    holders: bool,
    /// Only members not known to lack the tunnel.
    present: bool,
    /// Ejected ones too.
    ejected: bool,
    /// Those whose last connect failed too.
    down: bool,
    /// Unhealthy ones too.
    panic: bool,
}

/// The pool as a policy sees it for one pick.
pub(super) struct View<'a> {
    pool: &'a Pool,
    step: Step,
    known: Option<Knowledge<'a>>,
    nothing_absent: bool,
    for_session: bool,
}

impl<'a> View<'a> {
    fn everybody(pool: &'a Pool) -> Self {
        let step = Step {
            among: Among::All,
            tier: None,
            holders: false,
            present: false,
            ejected: true,
            down: true,
            panic: true,
        };
        Self { pool, step, known: None, nothing_absent: true, for_session: false }
    }

    /// All conditions but the limits.
    fn is_fit(&self, index: usize) -> bool {
        let member = &self.pool.members[index];
        let Some(known) = &self.known else { return true };
        member.endpoint.is_open()
            && (self.step.panic || member.state.is_healthy())
            && (self.step.ejected || !member.state.is_ejected(known.now))
            && (self.step.down || !member.endpoint.is_down(known.now))
            && self.step.tier.is_none_or(|tier| tier.has(member))
            && (!self.step.holders || known.holders.contains(&member.frps))
            && (self.nothing_absent || !self.step.present || self.is_present(known, member))
            && !known.tried.contains(&index)
    }

    fn is_present(&self, known: &Knowledge<'_>, member: &Member) -> bool {
        let number = member.endpoint.number;
        if known.cautious && !self.for_session {
            !known.absences.is_suspect(known.scope, number, known.now)
        } else {
            !known.absences.is_absent(known.scope, number, known.now)
        }
    }

    fn has_room(&self, index: usize) -> bool {
        if !self.pool.limited {
            return true;
        }
        let member = &self.pool.members[index];
        if Gate::is_full(member.gate.as_ref()) {
            return false;
        }
        let in_flight = self.known.map_or(self.pool.limits.in_flight, |known| known.in_flight);
        let endpoint = &member.endpoint;
        let may_connect = self.pool.limits.connections.is_none_or(|limit| endpoint.connections() < limit)
            && !Gate::is_full(member.connections.as_ref());
        endpoint.in_flight() < in_flight.unwrap_or(u32::MAX).min(member.state.limit())
            && (may_connect
                || match self.known.and_then(|known| known.idle) {
                    Some(idle) => idle.has(endpoint.number),
                    None => endpoint.connections() > endpoint.in_flight(),
                })
    }

    /// Whether somebody would be eligible but for its limits.
    fn is_full(&self) -> bool {
        (0..self.pool.members.len())
            .any(|index| self.pool.members[index].weight > 0 && self.is_fit(index) && !self.has_room(index))
    }
}

impl Fleet for View<'_> {
    fn len(&self) -> usize {
        self.pool.members.len()
    }

    fn id(&self, index: usize) -> u64 {
        self.pool.members[index].endpoint.number
    }

    fn weight(&self, index: usize) -> u32 {
        let member = &self.pool.members[index];
        let Some(window) = self.pool.slow_start else { return member.weight };
        let age = match (&self.known, member.state.since()) {
            (Some(known), Some(since)) => known.now.since(since),
            (None, _) | (_, None) => window,
        };
        slow_start(member.weight, age, window)
    }

    fn eligible(&self, index: usize) -> bool {
        self.is_fit(index) && self.has_room(index)
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.pool.members[index].endpoint.in_flight()
    }

    fn latency(&self, index: usize) -> Option<&Latency> {
        Some(&self.pool.members[index].state.latency)
    }
}

impl From<Reason> for super::reason::Because {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Turn => Self::Turn,
            Reason::Chance => Self::Chance,
            Reason::LeastLoaded => Self::LeastLoaded,
            Reason::Cheapest => Self::Cheapest,
            Reason::Probe => Self::Probe,
            Reason::Hash => Self::Hash,
            Reason::HashSpill => Self::HashSpill,
        }
    }
}
