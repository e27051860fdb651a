//! Dry runs of the pick in one pool.

use frp_gateway_config::model::{Affinity, Balance};
use lb_algos::{PolicyKind, Rng};

use super::{
    candidates::{self, Stage},
    score,
    view::{Ending, PoolView},
    visit::{Visit, What},
};
use crate::{
    data::{
        absent::Absences,
        pick::{self, Keep, Knowledge, Picked, PolicyState},
        reason::{Among, Because, Why},
        session,
        tiers::Outlook,
    },
    error::Refusal,
    http1::RequestHead,
    snapshot::{Gate, Member, Pool},
};

/// Looks at a member that all dry runs of a pool may take together.
const MOST_LOOKS: usize = 100_000;

/// What the dry runs came to.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// How often each member was picked.
    pub(super) hits: Vec<u32>,
    /// How often anybody was.
    pub(super) total: u32,
    /// One of the picks, drawn fairly.
    pick: Option<(usize, Why)>,
    /// Nobody had room.
    full: bool,
}

/// What the session cookie of the request leads to.
enum Held {
    /// Nothing: the policy decides.
    No,
    At(usize),
    /// It waits for its own endpoint.
    Waits,
    Away,
}

/// Explains the pick in `pool`; the pool's part of the route is left open.
pub(super) fn explain(visit: &Visit<'_>, pool: &Pool, rng: &mut Rng) -> PoolView {
    let mut notes = Vec::new();
    let (holders, refusing) = (visit.holders(pool), visit.refusing(pool));
    if !refusing.is_empty() {
        notes.push(format!(
            "{} of {} want other credentials (HTTP Basic)",
            refusing.len(),
            pool.members.len()
        ));
    }
    // What workers remember of frps-404s is theirs alone.
    let absences = Absences::default();
    let (key, (host, path)) = (visit.key(pool), visit.scope());
    let known = Knowledge {
        tried: &refusing,
        holders: &holders,
        absences: &absences,
        idle: None,
        scope: absences.scope(pool.number(), host, path),
        cautious: false,
        key,
        in_flight: pool.limits.in_flight,
        now: visit.now,
    };
    let held = match visit.what {
        What::Request { head, wire, .. } => session(head, wire, pool, known, &mut notes),
        What::Connection { .. } => Held::No,
    };
    let (kind, prepared) = match (key, &pool.keyed) {
        (Some(_), Some((kind, prepared))) => (*kind, prepared),
        _ => (pool.policy, &pool.prepared),
    };
    let runs = dry_runs(pool, known, kind, rng);
    let mut outlook = Outlook::default();
    outlook.recount(pool, visit.now);
    let stage = Stage::of(pool, known, outlook.is_panic());
    let mut members = candidates::all(pool, known, &stage, &runs);
    let score = score::score(pool, kind, key, prepared, &mut members);
    let of = members.iter().filter(|member| member.eligible).count();
    let label = |index: usize| pool.members.get(index).map_or("", |member| member.endpoint.label());
    let picked = |index: usize, why: Why, of: usize, certain: bool| Ending::Picked {
        endpoint: label(index).to_owned(),
        reason: why.reason.label().to_owned(),
        among: why.among.label().to_owned(),
        of,
        certain,
    };
    let waiting = pool.queue.len();
    let (ending, index) = if pool.limited && waiting > 0 {
        notes.push("who comes while others wait gets in line".to_owned());
        (Ending::Waits { waiting }, None)
    } else {
        match (held, runs.pick) {
            (Held::At(index), _) => {
                let why = Why { reason: Because::Session, among: Among::All };
                (picked(index, why, 1, true), Some(index))
            }
            (Held::Waits, _) => (Ending::Waits { waiting }, None),
            (Held::Away, _) => (Ending::refused(Refusal::SessionAway, ""), None),
            (Held::No, Some((index, why))) => {
                let certain = runs.hits.get(index) == Some(&runs.total);
                note_chance(why, certain, &mut notes);
                (picked(index, why, of, certain), Some(index))
            }
            (Held::No, None) if runs.full => (Ending::Waits { waiting }, None),
            (Held::No, None) if !refusing.is_empty() && refusing.len() == pool.members.len() => {
                (Ending::refused(Refusal::Unauthorized, "wrong or no credentials"), None)
            }
            (Held::No, None) => {
                let why = "every endpoint is down, unhealthy or weighs 0";
                (Ending::refused(Refusal::NoEndpoint, why), None)
            }
        }
    };
    if let Some(member) = index.and_then(|index| members.get_mut(index)) {
        member.picked = true;
    }
    note_state(visit, pool, known, &stage, &mut notes);
    PoolView {
        pool: pool.name.to_string(),
        weight: 0,
        percent: 0.0,
        drawn: false,
        balance: word(pool.balance).to_owned(),
        key: key.and_then(|_| key_source(pool)),
        ending,
        dry_runs: runs.total,
        score,
        waiting,
        candidates: members,
        notes,
    }
}

/// As the request path settles a session before it picks.
fn session(
    head: &RequestHead,
    wire: &[u8],
    pool: &Pool,
    known: Knowledge<'_>,
    notes: &mut Vec<String>,
) -> Held {
    let session = session::read(pool, head, wire);
    let Some(index) = session.member(pool) else {
        if session.is_lost() {
            notes.push("the session cookie names an endpoint that the pool doesn't have".to_owned());
            return if session.is_strict() { Held::Away } else { Held::No };
        }
        return Held::No;
    };
    let name = pool.members.get(index).map_or("", |member| member.endpoint.label());
    match (pick::may_keep(pool, index, known), session.is_strict()) {
        (Keep::Yes, _) => {
            notes.push(format!("the visitor's session is at {name}; it wins over weight, zone and policy"));
            Held::At(index)
        }
        (Keep::Full, true) => {
            notes.push(format!("the visitor's session is at {name}, which is at its limit"));
            Held::Waits
        }
        (Keep::Full, false) => {
            notes.push(format!("the visitor's session stays at {name}, which is at its limit for now"));
            Held::No
        }
        (Keep::Gone, strict) => {
            notes.push(format!("the visitor's session was at {name}, which doesn't serve now"));
            if strict { Held::Away } else { Held::No }
        }
    }
}

/// Picks again and again on the live state, none of which is changed by it.
fn dry_runs(pool: &Pool, known: Knowledge<'_>, kind: PolicyKind, rng: &mut Rng) -> Runs {
    let count = (MOST_LOOKS / pool.members.len().max(1)).clamp(50, 1000);
    let mut runs = Runs { hits: vec![0; pool.members.len()], ..Runs::default() };
    let mut state = PolicyState::new(pool);
    for _run in 0..count {
        // A policy that has picked a while claims probes, which workers would then not send.
        if kind == PolicyKind::PeakEwma {
            state = PolicyState::new(pool);
        }
        match pick::pick(&mut state, pool, known, rng) {
            Picked::Member { index, why } => {
                if let Some(hits) = runs.hits.get_mut(index) {
                    *hits += 1;
                }
                runs.total += 1;
                // Each of them is kept with the same chance.
                if rng.below(runs.total) == 0 {
                    runs.pick = Some((index, why));
                }
            }
            Picked::Full => runs.full = true,
            Picked::Nobody => {}
        }
        if runs.total == 0 {
            break;
        }
    }
    runs
}

fn note_chance(why: Why, certain: bool, notes: &mut Vec<String>) {
    if certain {
        return;
    }
    match why.reason {
        Because::Turn => notes.push("each worker takes turns by itself; this is one fair draw".to_owned()),
        Because::Chance => notes.push("drawn by chance; another request may draw another".to_owned()),
        Because::LeastLoaded
        | Because::Cheapest
        | Because::Probe
        | Because::Hash
        | Because::HashSpill
        | Because::Session
        | Because::Hedge => {
            notes.push("several are equal, or zones share the traffic; this is one fair draw".to_owned());
        }
    }
}

fn note_state(visit: &Visit<'_>, pool: &Pool, known: Knowledge<'_>, stage: &Stage, notes: &mut Vec<String>) {
    let is_request = matches!(visit.what, What::Request { .. });
    if known.key.is_none() && is_request {
        let missing = match &pool.affinity {
            Some(Affinity::Header(name)) => Some(format!("the request has no header {name} to be hashed by")),
            Some(Affinity::Query(name)) => {
                Some(format!("the request has no parameter {name} to be hashed by"))
            }
            Some(Affinity::SourceIp { .. } | Affinity::Cookie(_)) | None => None,
        };
        notes.extend(missing);
    }
    if stage.panic {
        notes.push(format!(
            "fewer than {} % of the members are healthy: health is ignored (panic_threshold)",
            pool.panic_threshold
        ));
    }
    if visit.goes_by_tunnels() {
        let names: Vec<_> = pool
            .members
            .iter()
            .filter(|member| known.holders.contains(&member.frps))
            .map(|member| member.endpoint.label())
            .collect();
        let what = match visit.what {
            What::Request { .. } => "this host and path",
            What::Connection { .. } => "this server name",
        };
        notes.push(if names.is_empty() {
            format!("no frps of the pool lists a tunnel for {what}")
        } else {
            format!("tunnels for {what} are listed by {}", names.join(", "))
        });
    }
    let at_limit = |member: &Member| {
        pool.limits.connections.is_some_and(|most| member.endpoint.connections() >= most)
            || Gate::is_full(member.connections.as_ref())
    };
    // A connection that is carried is never an idle one.
    if is_request && pool.members.iter().any(at_limit) {
        notes.push(
            "at its connection limit an endpoint serves the workers that have an idle connection to it"
                .to_owned(),
        );
    }
}

/// What requests to `pool` are hashed by.
fn key_source(pool: &Pool) -> Option<String> {
    Some(match &pool.affinity {
        Some(Affinity::Header(name)) => format!("header {name}"),
        Some(Affinity::Query(name)) => format!("query {name}"),
        Some(Affinity::SourceIp { .. } | Affinity::Cookie(_)) | None => "source IP".to_owned(),
    })
}

/// The file's word.
pub(crate) const fn word(balance: Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "round_robin",
        Balance::Random => "random",
        Balance::LeastRequest => "least_request",
        Balance::PeakEwma => "peak_ewma",
        Balance::Maglev => "maglev",
        Balance::RingHash => "ring_hash",
    }
}
