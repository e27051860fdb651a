//! `pools`: members and how they are used.

use super::{Known, health};
use crate::{
    keys::{self, Kind},
    model::{Balance, Frps, Pool, PoolMember, Retry},
    read::{At, Ctx, Fault, Fields, duration, integer, name, text, word},
    yaml::{Node, Span},
};

/// Name of the pool (and route) that exists when the file names none.
pub(super) const IMPLICIT: &str = "default";

/// Reads all pools; without any, makes the implicit one of all frps.
pub(super) fn read_all(
    ctx: &mut Ctx<'_>,
    at: &At<'_>,
    frps_at: Option<&At<'_>>,
    frps: &[Frps],
    known: &mut Known,
) -> Vec<Pool> {
    let items = at.items(ctx);
    if items.is_empty() && at.is_null_or_empty_list() {
        known.pools.implicit(IMPLICIT);
        let Some(fleet) = frps_at else { return Vec::new() };
        // Its faults can only be about the fleet, so they point there.
        let node = Node::map(&[("name", IMPLICIT)], fleet.node.span);
        return vec![pool(ctx, &At { node: &node, path: fleet.path.clone() }, frps, known)];
    }
    items.iter().map(|item| pool(ctx, item, frps, known)).collect()
}

fn pool(ctx: &mut Ctx<'_>, at: &At<'_>, frps: &[Frps], known: &Known) -> Pool {
    let fields = Fields::open(ctx, at, &keys::POOL);
    Pool {
        name: fields.read(ctx, "name", name).unwrap_or_default(),
        frps: members(ctx, &fields, frps, known),
        balance: fields.read(ctx, "balance", word).map_or(Balance::RoundRobin, balance),
        health: fields.get("health").and_then(|at| health::health(ctx, &at)),
        retry: retry(ctx, &fields),
        connect_timeout: fields.duration(ctx, "connect_timeout"),
        keepalive: fields.duration(ctx, "keepalive"),
        fail_timeout: fields.duration(ctx, "fail_timeout"),
        absent_timeout: fields.duration(ctx, "absent_timeout"),
    }
}

fn balance(word: &str) -> Balance {
    match word {
        "random" => Balance::Random,
        "least_request" => Balance::LeastRequest,
        _ => Balance::RoundRobin,
    }
}

fn retry(ctx: &mut Ctx<'_>, fields: &Fields<'_>) -> Retry {
    let nothing = Node::null(Span::START);
    let at = fields.get("retry").unwrap_or_else(|| fields.at().key("retry", &nothing));
    let fields = Fields::open(ctx, &at, &keys::RETRY);
    Retry {
        attempts: fields.u32(ctx, "attempts"),
        per_try_timeout: fields.read(ctx, "per_try_timeout", duration),
    }
}

/// Members in file order; `all`, or nothing, is every frps that has a vhost port.
fn members(ctx: &mut Ctx<'_>, fields: &Fields<'_>, frps: &[Frps], known: &Known) -> Vec<PoolMember> {
    let listed = fields.get("frps").filter(|at| at.raw() != Some("all"));
    let Some(list) = listed else {
        let at = fields.get("frps").unwrap_or_else(|| fields.at().clone());
        return all_members(ctx, &at, frps, known);
    };
    let before = ctx.error_count();
    let mut members: Vec<PoolMember> = Vec::new();
    for item in list.items(ctx) {
        let Some((at, weight)) = reference(ctx, &item, &keys::MEMBER) else { continue };
        let Some(name) = text(ctx, &at, &Kind::Text) else { continue };
        if !known.frps.check(ctx, &at, &name) {
            continue;
        }
        let Some(server) = frps.iter().find(|f| f.name == name) else { continue };
        if server.vhost_http_port.is_none() {
            ctx.push(
                Fault::error(&at, "no-vhost-port", format!("the frps {} has no vhost_http_port", at.seen()))
                    .help("add vhost_http_port to it, or leave it out of this pool"),
            );
        }
        if members.iter().any(|member| member.frps == name) {
            ctx.push(
                Fault::error(&at, "duplicate-member", format!("{} is in this pool twice", at.seen()))
                    .help("give it a weight instead: { name: NAME, weight: 2 }"),
            );
        }
        members.push(PoolMember { frps: name, weight: weight.unwrap_or(server.weight) });
    }
    if members.is_empty() && ctx.error_count() == before {
        ctx.push(
            Fault::error(&list, "pool-without-members", "this pool has no members")
                .help("name at least one frps, or write \"frps: all\""),
        );
    }
    members
}

fn all_members(ctx: &mut Ctx<'_>, at: &At<'_>, frps: &[Frps], known: &Known) -> Vec<PoolMember> {
    let able: Vec<&Frps> = frps.iter().filter(|f| f.vhost_http_port.is_some()).collect();
    // An empty fleet, or one that could not be read, was reported as such.
    if able.is_empty() && !frps.is_empty() && known.fleet_is_sound {
        ctx.push(
            Fault::error(at, "no-vhost-port", "no frps has a vhost_http_port, so this pool has no members")
                .help("add \"vhost_http_port: 8080\" to an frps (what vhostHTTPPort says in its frps.toml)"),
        );
    }
    able.into_iter().map(|f| PoolMember { frps: f.name.clone(), weight: f.weight }).collect()
}

/// `name`, or `{ name: …, weight: … }`: where the name stands, and the weight if one is given.
pub(super) fn reference<'t>(
    ctx: &mut Ctx<'_>,
    at: &At<'t>,
    section: &'static keys::Section,
) -> Option<(At<'t>, Option<u32>)> {
    if at.raw().is_some() {
        return Some((at.clone(), None));
    }
    let fields = Fields::open(ctx, at, section);
    let weight = fields.get("weight").and_then(|_| fields.read(ctx, "weight", integer));
    Some((fields.get("name")?, weight.and_then(|n| u32::try_from(n).ok())))
}
