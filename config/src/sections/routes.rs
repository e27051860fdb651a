//! `routes`: match → weighted pools.

use super::{Known, leads::Leads, matches, members::reference, pools::IMPLICIT, promises};
use crate::{
    keys::{self, Kind},
    model::{Route, WeightedPool},
    read::{At, Ctx, Fault, Fields, duration_or_off, name, text},
    yaml::{Node, Value},
};

/// Reads all routes; without any, makes the implicit one to the only pool.
pub(super) fn read_all(
    ctx: &mut Ctx<'_>,
    at: &At<'_>,
    pools_at: Option<&At<'_>>,
    leads: &Leads,
    known: &Known,
) -> Vec<Route> {
    let items = at.items(ctx);
    if items.is_empty() && at.is_null_or_empty_list() {
        // Without an http listener there is nothing for a route to do.
        if !leads.has_http {
            return Vec::new();
        }
        let all = known.pools.all();
        let names: Vec<&String> = all.iter().filter(|name| !leads.is_led_to(name)).collect();
        if names.is_empty() && !all.is_empty() {
            return Vec::new();
        }
        // A fleet of pure tunnel servers: its tunnels are routes by themselves.
        if names.is_empty() && known.fleet_is_sound && known.no_pools {
            return Vec::new();
        }
        if names.len() > 1
            && let Some(pools) = pools_at
        {
            ctx.push(
                Fault::error(
                    pools,
                    "no-routes",
                    format!("{} pools, but no route leads to them", names.len()),
                )
                .help("add \"routes:\" with, say, \"- { match: { host: app.example.com }, pool: NAME }\""),
            );
        }
        let node = Node::map(&[("name", IMPLICIT)], at.node.span);
        let fields = Fields::open(ctx, &At { node: &node, path: at.path.clone() }, &keys::ROUTE);
        let mut route = settings(ctx, &fields, 0, known);
        route.pools =
            names.iter().take(1).map(|name| WeightedPool { name: (*name).clone(), weight: 1 }).collect();
        return vec![route];
    }
    declare_defaults(ctx, &items);
    items.iter().enumerate().map(|(index, item)| route(ctx, item, index, known)).collect()
}

/// Reports names that occur twice, the `route-N` of unnamed routes among them.
fn declare_defaults(ctx: &mut Ctx<'_>, items: &[At<'_>]) {
    let mut names = crate::read::Names::new("route", "unknown-route");
    for (index, item) in items.iter().enumerate() {
        let Value::Map(entries) = &item.node.value else { continue };
        match entries.iter().find(|(key, _)| item.key("", key).raw() == Some("name")) {
            Some((_, node)) => {
                let at = item.key("name", node);
                if let Some(name) = at.raw() {
                    names.declare(ctx, &at, name);
                }
            }
            None => names.declare(ctx, item, &format!("route-{index}")),
        }
    }
}

fn route(ctx: &mut Ctx<'_>, at: &At<'_>, index: usize, known: &Known) -> Route {
    let before = ctx.error_count();
    let fields = Fields::open(ctx, at, &keys::ROUTE);
    let pools = pools(ctx, &fields, known, before);
    Route { pools, ..settings(ctx, &fields, index, known) }
}

/// All but the pools.
fn settings(ctx: &mut Ctx<'_>, fields: &Fields<'_>, index: usize, known: &Known) -> Route {
    let nothing = Node::null(fields.at().node.span);
    let condition = fields.get("match").unwrap_or_else(|| fields.at().key("match", &nothing));
    Route {
        name: fields.read(ctx, "name", name).unwrap_or_else(|| format!("route-{index}")),
        matches: matches::route_match(ctx, &condition),
        pools: Vec::new(),
        redirect: fields.read(ctx, "redirect", promises::redirect),
        hsts: promises::hsts(ctx, fields),
        client: fields.read(ctx, "client", promises::client),
        timeout: fields.read(ctx, "timeout", duration_or_off).flatten(),
        listeners: listeners(ctx, fields, known),
        in_flight: fields
            .get("limits")
            .and_then(|at| Fields::open(ctx, &at, &keys::ROUTE_LIMITS).optional_u32(ctx, "in_flight")),
    }
}

fn pools(ctx: &mut Ctx<'_>, fields: &Fields<'_>, known: &Known, before: usize) -> Vec<WeightedPool> {
    if fields.get("redirect").is_some() {
        if let Some(at) = fields.get("pools").or_else(|| fields.get("pool")) {
            ctx.push(Fault::error(&at, "pool-and-redirect", "both a pool and a redirect are given").help(
                "a route sends visitors elsewhere or serves them: write two routes, one for each listener",
            ));
        }
        return Vec::new();
    }
    let at = match (fields.get("pools"), fields.get("pool")) {
        (Some(_), Some(short)) => {
            ctx.push(
                Fault::error(&short, "pool-and-pools", "both pool and pools are given")
                    .help("\"pool: NAME\" is short for \"pools: [NAME]\": keep one"),
            );
            return Vec::new();
        }
        (Some(at), None) | (None, Some(at)) => at,
        (None, None) => {
            if fields.at().is_map() {
                ctx.push(Fault::error(fields.at(), "route-without-pools", "this route leads nowhere").help(
                    format!("add \"pool: NAME\"; pools here: {}", crate::suggest::list(&known.pools.words())),
                ));
            }
            return Vec::new();
        }
    };
    let items = if fields.get("pools").is_some() { at.items(ctx) } else { vec![at.clone()] };
    let mut pools: Vec<WeightedPool> = Vec::new();
    for item in items {
        let Some((at, weight)) = reference(ctx, &item, &keys::ROUTE_POOL) else { continue };
        let Some(name) = text(ctx, &at, &Kind::Text) else { continue };
        if !known.pools.check(ctx, &at, &name) {
            continue;
        }
        if pools.iter().any(|pool| pool.name == name) {
            ctx.push(
                Fault::error(&at, "duplicate-member", format!("{} is in this route twice", at.seen()))
                    .help("give it a weight instead: { name: NAME, weight: 2 }"),
            );
        }
        pools.push(WeightedPool { name, weight: weight.unwrap_or(1) });
    }
    if pools.is_empty() && ctx.error_count() == before {
        ctx.push(
            Fault::error(&at, "route-without-pools", "this route leads nowhere")
                .help(format!("name a pool; pools here: {}", crate::suggest::list(&known.pools.words()))),
        );
    }
    pools
}

fn listeners(ctx: &mut Ctx<'_>, fields: &Fields<'_>, known: &Known) -> Vec<String> {
    let Some(at) = fields.get("listeners") else { return Vec::new() };
    let items = at.one_or_many();
    if items.is_empty() {
        ctx.push(
            Fault::error(&at, "empty-list", "listeners lists nothing")
                .help("name at least one, or remove \"listeners\" to serve the route on all"),
        );
    }
    let mut names = Vec::new();
    for item in items {
        let Some(name) = text(ctx, &item, &Kind::Text) else { continue };
        if known.listeners.check(ctx, &item, &name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
