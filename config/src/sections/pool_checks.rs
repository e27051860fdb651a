//! What of a pool is legal but surely unmeant once the whole file is known.

use std::{collections::BTreeMap, time::Duration};

use super::{field, items};
use crate::{
    model::{Config, Locality, Pool},
    read::{At, Ctx, Fault, Fields},
    units::format_duration,
};

/// Runs them all; only called when the file has no error.
pub(super) fn unmeant(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    for (item, pool) in items(root, "pools").iter().zip(&config.pools) {
        zone(ctx, item, pool, config);
        panic_threshold(ctx, item, pool);
        priorities(ctx, item, pool);
    }
    if config.tunnels.serve
        && let Some(item) = root.get("tunnels").and_then(|at| field(&at, "pool"))
    {
        zone(ctx, &item, &config.tunnels.pool, config);
    }
    let uses = uses(root, config);
    long_tries(ctx, &uses);
    late_hedge(ctx, &uses);
}

fn zone(ctx: &mut Ctx<'_>, item: &At<'_>, pool: &Pool, config: &Config) {
    let (Some(at), Locality::Prefer { .. }) = (field(item, "locality"), pool.locality) else { return };
    let Some(zone) = &config.zone else {
        ctx.push(
            Fault::warning(&at, "no-zone", "locality has no effect: the gateway's own zone is not given")
                .help("add \"zone: NAME\" at the top level of the file"),
        );
        return;
    };
    let here = |name: &str| config.frps.iter().any(|f| f.name == name && f.zone.as_ref() == Some(zone));
    // Tunnels may have zones of their own.
    if !pool.frps.is_empty() && !pool.frps.iter().any(|member| here(&member.frps)) {
        let message = format!("locality has no effect: no member of this pool is in the zone \"{zone}\"");
        ctx.push(
            Fault::warning(&at, "no-zone", message)
                .help(format!("give the frps beside this gateway \"zone: {zone}\", or remove locality")),
        );
    }
}

fn panic_threshold(ctx: &mut Ctx<'_>, item: &At<'_>, pool: &Pool) {
    if let Some(at) = field(item, "panic_threshold")
        && pool.panic_threshold > 0
        && pool.health.is_none()
        && pool.outlier.is_none()
    {
        ctx.push(
            Fault::warning(
                &at,
                "no-effect",
                "panic_threshold has no effect: nothing finds members unhealthy",
            )
            .help("give \"health\" or \"outlier\" beside it, or remove it"),
        );
    }
}

fn priorities(ctx: &mut Ctx<'_>, item: &At<'_>, pool: &Pool) {
    let lowest = pool.frps.iter().map(|member| member.priority).min();
    if let (Some(at), Some(lowest @ 1..)) = (field(item, "frps"), lowest) {
        ctx.push(
            Fault::warning(
                &at,
                "no-priority-zero",
                format!("no member has priority 0; those of {lowest} are used first"),
            )
            .help("count priorities from 0, or give the members that are used first none"),
        );
    }
}

/// A pool under a deadline.
struct Use<'a, 't> {
    at: At<'t>,
    pool: &'a Pool,
    /// What the pool is called.
    called: String,
    deadline: Duration,
    /// What the deadline is called.
    whose: &'static str,
}

/// Every pool with the timeout of each route that leads to it; and that of tunnels.
fn uses<'a, 't>(root: &Fields<'t>, config: &'a Config) -> Vec<Use<'a, 't>> {
    let pools: BTreeMap<&str, &Pool> = config.pools.iter().map(|pool| (pool.name.as_str(), pool)).collect();
    let mut uses = Vec::new();
    for (at, route) in items(root, "routes").into_iter().zip(&config.routes) {
        let Some(deadline) = route.timeout else { continue };
        for target in &route.pools {
            let Some(pool) = pools.get(target.name.as_str()) else { continue };
            let called = format!("the pool \"{}\"", target.name);
            uses.push(Use { at: at.clone(), pool, called, deadline, whose: "this route's timeout" });
        }
    }
    if let (Some(at), Some(deadline), true) =
        (root.get("tunnels"), config.tunnels.timeout, config.tunnels.serve)
    {
        let called = "tunnels.pool".to_owned();
        uses.push(Use { at, pool: &config.tunnels.pool, called, deadline, whose: "tunnels.timeout" });
    }
    uses
}

fn long_tries(ctx: &mut Ctx<'_>, uses: &[Use<'_, '_>]) {
    for Use { at, pool, called, deadline, whose } in uses {
        if pool.retry.per_try_timeout.is_some_and(|per_try| per_try >= *deadline) {
            let message = format!("the per_try_timeout of {called} is not below {whose}");
            ctx.push(
                Fault::warning(at, "no-time-for-retry", message).help(
                    "an attempt that times out then leaves no time for a second: lower per_try_timeout",
                ),
            );
        }
    }
}

fn late_hedge(ctx: &mut Ctx<'_>, uses: &[Use<'_, '_>]) {
    for Use { at, pool, called, deadline, whose } in uses {
        let Some(hedge) = pool.retry.hedge.filter(|hedge| hedge.after >= *deadline) else { continue };
        let message = format!(
            "hedging in {called} begins after {}, but {whose} is {}",
            format_duration(hedge.after),
            format_duration(*deadline)
        );
        ctx.push(Fault::warning(at, "no-time-for-hedge", message).help(match *whose {
            "tunnels.timeout" => "lower tunnels.pool.retry.hedge.after, or raise tunnels.timeout",
            _ => "lower pools[].retry.hedge.after, or raise the route's timeout",
        }));
    }
}
