//! `tunnels` and `pools[].tunnels`: tunnels as routes by themselves, and as members of a pool.

use super::{Known, affinity, hold, labels, limits, lists, pools, retry};
use crate::{
    keys::{self, Kind},
    model::{Carries, DomainPattern, Frps, Locality, Pool, PoolProtocol, TunnelSelector, Tunnels},
    read::{At, Ctx, Fault, Fields, duration_or_off, text},
};

/// `serve_by_default`: whether some frps calls us.
pub(super) fn tunnels(ctx: &mut Ctx<'_>, at: &At<'_>, known: &Known, serve_by_default: bool) -> Tunnels {
    let fields = Fields::open(ctx, at, &keys::TUNNELS);
    let names =
        lists::some(ctx, &fields, "listeners", "name at least one, or remove it to serve them on all");
    let mut listeners = Vec::new();
    for at in names.iter().flatten() {
        if let Some(name) = text(ctx, at, &Kind::Text)
            && known.listeners.check(ctx, at, &name)
            && !listeners.contains(&name)
        {
            listeners.push(name);
        }
    }
    let serve = match fields.get("serve") {
        Some(_) => fields.boolean(ctx, "serve"),
        None => serve_by_default,
    };
    Tunnels {
        serve,
        listeners,
        timeout: fields.read(ctx, "timeout", duration_or_off).flatten(),
        pool: fields
            .read(ctx, "pool", |ctx, at, _| Some(pool(ctx, at)))
            .unwrap_or_else(|| pool(ctx, &fields.place("pool"))),
        series: fields.usize(ctx, "series"),
    }
}

fn pool(ctx: &mut Ctx<'_>, at: &At<'_>) -> Pool {
    let fields = Fields::open(ctx, at, &keys::TUNNEL_POOL);
    let affinity = fields.read(ctx, "affinity", affinity::affinity);
    let rule = pools::rule_of(ctx, &fields, affinity.as_ref());
    Pool {
        protocol: PoolProtocol::H1,
        tls: None,
        name: "auto".into(),
        carries: Carries::Http,
        frps: Vec::new(),
        tunnels: None,
        balance: rule.balance,
        latency_decay: rule.latency_decay,
        hash_bound: rule.hash_bound,
        affinity,
        slow_start: fields.read(ctx, "slow_start", duration_or_off).flatten(),
        locality: fields.read(ctx, "locality", pools::locality).unwrap_or(Locality::Ignore),
        panic_threshold: 0,
        health: None,
        outlier: None,
        limits: limits::limits(ctx, &fields),
        retry: retry::retry(ctx, &fields),
        hold: hold::hold(ctx, &fields),
        proxy_protocol: None,
        connect_timeout: fields.duration(ctx, "connect_timeout"),
        keepalive: fields.duration(ctx, "keepalive"),
        fail_timeout: fields.duration(ctx, "fail_timeout"),
        absent_timeout: fields.duration(ctx, "absent_timeout"),
    }
}

/// What a selector is made of.
const CONDITIONS: [&str; 5] = ["domain", "user", "name", "labels", "frps"];

/// `pools[].tunnels`.
pub(super) fn selector(ctx: &mut Ctx<'_>, at: &At<'_>, frps: &[Frps], known: &Known) -> TunnelSelector {
    let before = ctx.error_count();
    let fields = Fields::open(ctx, at, &keys::TUNNEL_SELECTOR);
    // A misspelt condition is one.
    let all_known = ctx.error_count() == before;
    let before = ctx.error_count();
    let labels = fields.get("labels").map(|at| labels::labels(ctx, &at)).unwrap_or_default();
    if let Some(at) = fields.get("labels")
        && labels.is_empty()
        && ctx.error_count() == before
    {
        ctx.push(
            Fault::error(&at, "empty-selector", "labels names none, so it selects nothing in particular")
                .help("name at least one label, or remove it"),
        );
    }
    if all_known && CONDITIONS.iter().all(|key| fields.get(key).is_none()) {
        ctx.push(
            Fault::error(at, "empty-selector", "it selects nothing in particular")
                .help("name a domain, user, name, labels or frps; for all tunnels there is \"name: '*'\""),
        );
    }
    let written = lists::domains(ctx, &fields, "domain");
    let domain = |pattern: DomainPattern| match pattern {
        DomainPattern::Any => "*".to_owned(),
        DomainPattern::Exact(name) => name,
        DomainPattern::Below(suffix) => format!("*.{suffix}"),
    };
    let selector = TunnelSelector {
        domains: written.into_iter().map(domain).collect(),
        users: lists::patterns(ctx, &fields, "user"),
        names: lists::patterns(ctx, &fields, "name"),
        labels,
        frps: lists::frps(ctx, &fields, known),
    };
    known_by_nobody(ctx, &fields, &selector, frps, known);
    selector
}

/// What no admin API lists can't be selected.
fn known_by_nobody(
    ctx: &mut Ctx<'_>,
    fields: &Fields<'_>,
    selector: &TunnelSelector,
    frps: &[Frps],
    known: &Known,
) {
    const HELP: &str = "add admin: { url: \"http://HOST:7500\", password: … } to the frps";
    let of_these = |server: &&Frps| selector.frps.is_empty() || selector.frps.contains(&server.name);
    if !known.fleet_is_sound || frps.iter().filter(of_these).any(|server| server.admin.is_some()) {
        return;
    }
    // Names that no frps has were reported as such.
    if frps.iter().any(|server| server.admin.is_some()) && !frps.iter().any(|server| of_these(&server)) {
        return;
    }
    let (at, message) = match fields.get("frps") {
        Some(at) if frps.iter().any(|server| server.admin.is_some()) => {
            (at, "none of these frps has an admin API, so none of their tunnels is known")
        }
        _ => (fields.at().clone(), "no frps has an admin API, so no tunnel is known"),
    };
    ctx.push(Fault::error(&at, "no-admin", message).help(HELP));
}
