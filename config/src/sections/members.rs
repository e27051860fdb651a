//! `pools[].frps`: members by name, all, or by labels.

use super::{Known, labels};
use crate::{
    keys::{self, Kind},
    model::{Frps, PoolMember},
    read::{At, Ctx, Fault, Fields, integer, text},
};

/// What an frps without a vhost port needs.
const ADD_PORT: &str = "add \"vhost_http_port: 8080\" to an frps (what vhostHTTPPort says in its frps.toml)";
/// What else a pool can be made of.
const OF_TUNNELS: &str = "make this pool of tunnels instead: \"tunnels: { domain: HOST }\"";
/// What a fleet can do without pools.
const SERVE: &str = "let tunnels be routes by themselves: \"tunnels: { serve: true }\"";

/// Members in file order; `all`, or nothing, is every frps with a vhost port, a map those with certain labels.
pub(super) fn members(
    ctx: &mut Ctx<'_>,
    fields: &Fields<'_>,
    frps_at: Option<&At<'_>>,
    frps: &[Frps],
    known: &Known,
) -> Vec<PoolMember> {
    let at = fields.place("frps");
    match fields.get("frps") {
        Some(at) if at.is_map() => labelled(ctx, &at, frps_at, frps, known),
        Some(at) if at.raw() != Some("all") => listed(ctx, &at, frps, known),
        Some(_) | None => all(ctx, &at, frps, known),
    }
}

fn listed(ctx: &mut Ctx<'_>, list: &At<'_>, frps: &[Frps], known: &Known) -> Vec<PoolMember> {
    let before = ctx.error_count();
    let mut members: Vec<PoolMember> = Vec::new();
    for item in list.items(ctx) {
        let Some((at, weight, priority)) = member(ctx, &item) else { continue };
        let Some(name) = text(ctx, &at, &Kind::Text) else { continue };
        if !known.frps.check(ctx, &at, &name) {
            continue;
        }
        let Some(server) = frps.iter().find(|f| f.name == name) else { continue };
        if server.vhost_http_port.is_none() {
            ctx.push(
                Fault::error(&at, "no-vhost-port", format!("the frps {} has no vhost_http_port", at.seen()))
                    .help(match server.admin {
                        Some(_) => format!("add vhost_http_port to it, or {OF_TUNNELS}"),
                        None => "add vhost_http_port to it, or leave it out of this pool".to_owned(),
                    }),
            );
        }
        if members.iter().any(|member| member.frps == name) {
            ctx.push(
                Fault::error(&at, "duplicate-member", format!("{} is in this pool twice", at.seen()))
                    .help("give it a weight instead: { name: NAME, weight: 2 }"),
            );
        }
        members.push(PoolMember { frps: name, weight: weight.unwrap_or(server.weight), priority });
    }
    if members.is_empty() && ctx.error_count() == before {
        ctx.push(
            Fault::error(list, "pool-without-members", "this pool has no members")
                .help("name at least one frps, or write \"frps: all\""),
        );
    }
    members
}

fn all(ctx: &mut Ctx<'_>, at: &At<'_>, frps: &[Frps], known: &Known) -> Vec<PoolMember> {
    let members = able(frps, |_| true);
    // An empty fleet, or one that could not be read, was reported as such.
    if members.is_empty() && !frps.is_empty() && known.fleet_is_sound {
        // The implicit pool stands where the fleet does.
        let instead = if at.path.starts_with("pools") { OF_TUNNELS } else { SERVE };
        let help = match frps.iter().any(|server| server.admin.is_some()) {
            true => format!("{instead}; or {ADD_PORT}"),
            false => ADD_PORT.to_owned(),
        };
        let message = "no frps has a vhost_http_port, so this pool has no members";
        ctx.push(Fault::error(at, "no-vhost-port", message).help(help));
    }
    members
}

/// `{ labels: { version: v2 } }`: every frps that has them all.
fn labelled(
    ctx: &mut Ctx<'_>,
    at: &At<'_>,
    frps_at: Option<&At<'_>>,
    frps: &[Frps],
    known: &Known,
) -> Vec<PoolMember> {
    let before = ctx.error_count();
    let fields = Fields::open(ctx, at, &keys::SELECTOR);
    let Some(at) = fields.get("labels") else { return Vec::new() };
    let wanted = labels::labels(ctx, &at);
    if ctx.error_count() > before {
        return Vec::new();
    }
    if wanted.is_empty() {
        ctx.push(
            Fault::error(&at, "empty-selector", "labels names none, so it selects nothing in particular")
                .help("name at least one label, or write \"frps: all\""),
        );
        return Vec::new();
    }
    let has_all = |server: &Frps| wanted.iter().all(|(name, value)| server.labels.get(name) == Some(value));
    let members = able(frps, has_all);
    if !members.is_empty() || !known.fleet_is_sound {
        return members;
    }
    if frps.iter().any(has_all) {
        let message = "no frps with these labels has a vhost_http_port, so this pool has no members";
        ctx.push(Fault::error(&at, "no-vhost-port", message).help(ADD_PORT));
    } else {
        let message = if wanted.len() == 1 {
            "no frps has this label, so this pool has no members"
        } else {
            "no frps has all of these labels, so this pool has no members"
        };
        let known = labels::words(frps_at);
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        ctx.push(
            Fault::error(&at, "pool-without-members", message)
                .help(format!("labels of the frps here: {}", crate::suggest::list(&known))),
        );
    }
    members
}

/// Those of the fleet that can be members and are wanted.
fn able(frps: &[Frps], wanted: impl Fn(&Frps) -> bool) -> Vec<PoolMember> {
    frps.iter()
        .filter(|server| server.vhost_http_port.is_some() && wanted(server))
        .map(|server| PoolMember { frps: server.name.clone(), weight: server.weight, priority: 0 })
        .collect()
}

/// `name`, or `{ name: …, weight: …, priority: … }`.
fn member<'t>(ctx: &mut Ctx<'_>, at: &At<'t>) -> Option<(At<'t>, Option<u32>, u32)> {
    if at.raw().is_some() {
        return Some((at.clone(), None, 0));
    }
    let fields = Fields::open(ctx, at, &keys::MEMBER);
    let (weight, priority) = (fields.optional_u32(ctx, "weight"), fields.u32(ctx, "priority"));
    Some((fields.get("name")?, weight, priority))
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
