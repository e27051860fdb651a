//! `pools`: what a pool is made of; its members, affinity, health and limits have files of their own.

use std::time::Duration;

use super::{
    Known, affinity, field, health, hold, leads::Leads, limits, members, outlier, retry, tls, tunnels,
    unopened,
};
use crate::{
    keys::{self, Kind},
    model::{Affinity, Balance, Carries, Frps, Locality, Pool},
    read::{At, Ctx, Fault, Fields, duration_or_off, factor, factor_or_off, name, word},
    yaml::Node,
};

/// Name of the pool (and route) that exists when the file names none.
pub(super) const IMPLICIT: &str = "default";

/// Reads all pools; without any, makes the implicit one of all frps. `alone`: there is nothing for it to do.
pub(super) fn read_all(
    ctx: &mut Ctx<'_>,
    at: &At<'_>,
    frps_at: Option<&At<'_>>,
    frps: &[Frps],
    alone: bool,
    leads: &Leads,
    known: &mut Known,
) -> Vec<Pool> {
    let items = at.items(ctx);
    if items.is_empty() && at.is_null_or_empty_list() {
        let Some(fleet) = frps_at else {
            known.pools.implicit(IMPLICIT);
            return Vec::new();
        };
        if alone {
            return Vec::new();
        }
        known.pools.implicit(IMPLICIT);
        // Its faults can only be about the fleet, so they point there.
        let node = Node::map(&[("name", IMPLICIT)], fleet.node.span);
        return vec![pool(ctx, &At { node: &node, path: fleet.path.clone() }, frps_at, frps, leads, known)];
    }
    items.iter().map(|item| pool(ctx, item, frps_at, frps, leads, known)).collect()
}

fn pool(
    ctx: &mut Ctx<'_>,
    at: &At<'_>,
    frps_at: Option<&At<'_>>,
    frps: &[Frps],
    leads: &Leads,
    known: &Known,
) -> Pool {
    let fields = Fields::open(ctx, at, &keys::POOL);
    let name = fields.read(ctx, "name", name).unwrap_or_default();
    let carries = leads.carries(ctx, at, &name);
    let selector = fields.get("tunnels").map(|at| tunnels::selector(ctx, &at, frps, known));
    if let (Some(_), Some(at)) = (&selector, fields.get("frps")) {
        ctx.push(
            Fault::error(&at, "two-kinds-of-members", "a pool has frps or tunnels, not both")
                .help("to take only tunnels of some frps, write \"tunnels: { frps: [NAME], … }\""),
        );
    }
    let frps = match &selector {
        Some(_) => Vec::new(),
        None => members::members(ctx, &fields, frps_at, frps, carries, known),
    };
    let affinity = fields.read(ctx, "affinity", affinity::affinity);
    let Rule { balance, latency_decay, hash_bound } = rule_of(ctx, &fields, affinity.as_ref());
    // Connections stay open: a bound would send a visitor's second one elsewhere as soon as the pool is quiet.
    let bound = fields.get("balance").and_then(|at| field(&at, "bound"));
    let hash_bound = hash_bound.filter(|_| carries == Carries::Http || bound.is_some());
    let protocol = tls::pool_protocol(ctx, &fields, carries);
    let pool = Pool {
        protocol,
        tls: tls::of_pool(ctx, &fields, carries, protocol),
        name,
        carries,
        frps,
        tunnels: selector,
        balance,
        latency_decay,
        hash_bound,
        affinity,
        slow_start: fields.read(ctx, "slow_start", duration_or_off).flatten(),
        locality: fields.read(ctx, "locality", locality).unwrap_or(Locality::Ignore),
        panic_threshold: fields.percent(ctx, "panic_threshold"),
        health: fields.get("health").and_then(|at| health::health(ctx, &at)),
        outlier: fields.read(ctx, "outlier", outlier::outlier).flatten(),
        limits: limits::limits(ctx, &fields),
        retry: retry::retry(ctx, &fields),
        hold: hold::hold(ctx, &fields),
        proxy_protocol: hold::proxy_protocol(ctx, &fields, carries),
        connect_timeout: fields.duration(ctx, "connect_timeout"),
        keepalive: fields.duration(ctx, "keepalive"),
        fail_timeout: fields.duration(ctx, "fail_timeout"),
        absent_timeout: fields.duration(ctx, "absent_timeout"),
    };
    unopened::check(ctx, &fields, &pool);
    health::reachable(ctx, &fields, &pool);
    pool
}

/// The rule that picks, with what only some rules use.
pub(super) struct Rule {
    pub(super) balance: Balance,
    pub(super) latency_decay: Duration,
    pub(super) hash_bound: Option<u32>,
}

/// The rule of a pool.
pub(super) fn rule_of(ctx: &mut Ctx<'_>, fields: &Fields<'_>, affinity: Option<&Affinity>) -> Rule {
    let hashed = affinity.is_some_and(affinity::is_hashing);
    let rule = fields.read(ctx, "balance", |ctx, at, kind| Some(rule(ctx, at, kind, hashed)));
    rule.unwrap_or(Rule { balance: Balance::RoundRobin, latency_decay: Duration::ZERO, hash_bound: None })
}

/// `peak_ewma`, or `{ policy: peak_ewma, decay: 2s }`.
fn rule(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind, hashed: bool) -> Rule {
    let (fields, balance) = if at.is_map() {
        let fields = Fields::open(ctx, at, &keys::BALANCE);
        let policy = fields.read(ctx, "policy", word);
        (fields, policy.map(balance))
    } else {
        (Fields::empty(at, &keys::BALANCE), word(ctx, at, kind).map(balance))
    };
    let rule = Rule {
        balance: balance.unwrap_or(Balance::RoundRobin),
        latency_decay: fields.duration(ctx, "decay"),
        hash_bound: fields.read(ctx, "bound", factor_or_off).flatten(),
    };
    if let (Some(at), Some(balance)) = (fields.get("decay"), balance)
        && balance != Balance::PeakEwma
    {
        ctx.push(
            Fault::warning(&at, "no-effect", "decay has no effect: only peak_ewma picks by latency")
                .help("remove it, or write \"policy: peak_ewma\""),
        );
    }
    if let (Some(at), Some(balance)) = (fields.get("bound"), balance)
        && !hashed
        && !matches!(balance, Balance::Maglev | Balance::RingHash)
    {
        ctx.push(Fault::warning(&at, "no-effect", "bound has no effect: nothing is hashed in this pool").help(
            "remove it, write \"policy: maglev\" or \"ring_hash\", or give an affinity by header, query or source_ip",
        ));
    }
    rule
}

fn balance(word: &str) -> Balance {
    match word {
        "random" => Balance::Random,
        "least_request" => Balance::LeastRequest,
        "peak_ewma" => Balance::PeakEwma,
        "maglev" => Balance::Maglev,
        "ring_hash" => Balance::RingHash,
        _ => Balance::RoundRobin,
    }
}

/// `ignore`, `prefer`, or `{ prefer: { spill: 1.4 } }`.
pub(super) fn locality(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Locality> {
    let fields = if at.is_map() {
        let prefer = Fields::open(ctx, at, &keys::LOCALITY).get("prefer")?;
        Fields::open(ctx, &prefer, &keys::PREFER)
    } else if word(ctx, at, kind)? == "prefer" {
        Fields::empty(at, &keys::PREFER)
    } else {
        return Some(Locality::Ignore);
    };
    Some(Locality::Prefer { spill: fields.read(ctx, "spill", factor)? })
}
