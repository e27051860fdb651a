//! What of a pool is legal but surely unmeant once the whole file is known.

use std::collections::BTreeMap;

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
    late_hedge(ctx, root, config);
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
    if pool.tunnels.is_none() && !pool.frps.iter().any(|member| here(&member.frps)) {
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

fn late_hedge(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    let pools: BTreeMap<&str, &Pool> = config.pools.iter().map(|pool| (pool.name.as_str(), pool)).collect();
    for (item, route) in items(root, "routes").iter().zip(&config.routes) {
        for target in &route.pools {
            let hedge = pools.get(target.name.as_str()).and_then(|pool| pool.retry.hedge);
            if let (Some(hedge), Some(whole)) = (hedge, route.timeout)
                && hedge.after >= whole
            {
                let message = format!(
                    "hedging in the pool \"{}\" begins after {}, but this route's timeout is {}",
                    target.name,
                    format_duration(hedge.after),
                    format_duration(whole)
                );
                ctx.push(
                    Fault::warning(item, "no-time-for-hedge", message)
                        .help("lower pools[].retry.hedge.after, or raise the route's timeout"),
                );
            }
        }
    }
}
