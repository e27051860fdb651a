//! `pools[].frps`: members by name, all, or by labels.

use super::{Known, labels};
use crate::{
    keys::{self, Kind},
    model::{Carries, Frps, PoolMember},
    read::{At, Ctx, Fault, Fields, integer, text},
};

/// What an frps without a vhost port needs.
const ADD_PORT: &str = "add \"vhost_http_port: 8080\" to an frps (what vhostHTTPPort says in its frps.toml)";
/// What a pool of remote ports needs.
const ADD_REMOTE_PORT: &str = "add \"port: N\" (the remotePort of its frpc) to the pool or the member, or make the pool of tunnels: \"tunnels: { name: NAME }\"";

/// What an frps must have to be a member.
#[derive(Clone, Copy)]
pub(super) struct Need {
    carries: Carries,
    /// `port` of the pool.
    port: Option<u16>,
}

impl Need {
    fn is_met(self, frps: &Frps, own: Option<u16>) -> bool {
        match self.carries {
            Carries::Http => frps.vhost_http_port.is_some(),
            Carries::Tls => frps.vhost_https_port.is_some(),
            Carries::Tcp | Carries::Udp => own.or(self.port).is_some(),
        }
    }

    fn member_port(self, own: Option<u16>) -> Option<u16> {
        own.or(self.port).filter(|_| matches!(self.carries, Carries::Tcp | Carries::Udp))
    }

    const fn key(self) -> &'static str {
        match self.carries {
            Carries::Http => "vhost_http_port",
            Carries::Tls => "vhost_https_port",
            Carries::Tcp | Carries::Udp => "port",
        }
    }

    const fn add_port(self) -> &'static str {
        match self.carries {
            Carries::Http => ADD_PORT,
            Carries::Tls => {
                "add \"vhost_https_port: 8443\" to an frps (what vhostHTTPSPort says in its frps.toml)"
            }
            Carries::Tcp | Carries::Udp => ADD_REMOTE_PORT,
        }
    }
}

fn no_port(ctx: &mut Ctx<'_>, at: &At<'_>, carries: Carries) {
    let message = format!("this pool carries {}: it has no port of its own", carries.word());
    let help = match carries {
        Carries::Tls => "remove it: the vhost_https_port of each frps is used",
        Carries::Http | Carries::Tcp | Carries::Udp => {
            "remove it: the vhost_http_port of each frps is used; a port is for pools that a tcp or udp listener names"
        }
    };
    ctx.push(Fault::error(at, "no-effect", message).help(help));
}

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
    carries: Carries,
    known: &Known,
) -> Vec<PoolMember> {
    let need = Need { carries, port: fields.port(ctx, "port") };
    if let (Some(at), false) = (fields.get("port"), matches!(carries, Carries::Tcp | Carries::Udp)) {
        no_port(ctx, &at, carries);
    }
    let at = fields.place("frps");
    match fields.get("frps") {
        Some(at) if at.is_map() => labelled(ctx, &at, frps_at, frps, need, known),
        Some(at) if at.raw() != Some("all") => listed(ctx, &at, frps, need, known),
        Some(_) | None => all(ctx, &at, frps, need, known),
    }
}

fn listed(ctx: &mut Ctx<'_>, list: &At<'_>, frps: &[Frps], need: Need, known: &Known) -> Vec<PoolMember> {
    let before = ctx.error_count();
    let mut members: Vec<PoolMember> = Vec::new();
    for item in list.items(ctx) {
        let Some((at, weight, priority, port)) = member(ctx, &item, need) else { continue };
        let Some(name) = text(ctx, &at, &Kind::Text) else { continue };
        if !known.frps.check(ctx, &at, &name) {
            continue;
        }
        let Some(server) = frps.iter().find(|f| f.name == name) else { continue };
        if !need.is_met(server, port) {
            let key = need.key();
            let fault = match need.carries {
                Carries::Http | Carries::Tls => {
                    let fault =
                        Fault::error(&at, "no-vhost-port", format!("the frps {} has no {key}", at.seen()));
                    fault.help(match server.admin {
                        Some(_) => format!("add {key} to it, or {OF_TUNNELS}"),
                        None => format!("add {key} to it, or leave it out of this pool"),
                    })
                }
                Carries::Tcp | Carries::Udp => {
                    let fault = Fault::error(
                        &at,
                        "no-port",
                        format!("the remote port on the frps {} is missing", at.seen()),
                    );
                    fault.help(ADD_REMOTE_PORT)
                }
            };
            ctx.push(fault);
        }
        if members.iter().any(|member| member.frps == name) {
            ctx.push(
                Fault::error(&at, "duplicate-member", format!("{} is in this pool twice", at.seen()))
                    .help("give it a weight instead: { name: NAME, weight: 2 }"),
            );
        }
        members.push(PoolMember {
            frps: name,
            weight: weight.unwrap_or(server.weight),
            priority,
            port: need.member_port(port),
        });
    }
    if members.is_empty() && ctx.error_count() == before {
        ctx.push(
            Fault::error(list, "pool-without-members", "this pool has no members")
                .help("name at least one frps, or write \"frps: all\""),
        );
    }
    members
}

fn all(ctx: &mut Ctx<'_>, at: &At<'_>, frps: &[Frps], need: Need, known: &Known) -> Vec<PoolMember> {
    let members = able(frps, need, |_| true);
    // An empty fleet, or one that could not be read, was reported as such.
    if members.is_empty() && !frps.is_empty() && known.fleet_is_sound {
        if matches!(need.carries, Carries::Tcp | Carries::Udp) {
            let message = format!("this pool carries {} and has no port", need.carries.word());
            ctx.push(Fault::error(at, "no-port", message).help(ADD_REMOTE_PORT));
            return members;
        }
        // The implicit pool stands where the fleet does.
        let instead = if at.path.starts_with("pools") { OF_TUNNELS } else { SERVE };
        let help = match frps.iter().any(|server| server.admin.is_some()) {
            true => format!("{instead}; or {}", need.add_port()),
            false => need.add_port().to_owned(),
        };
        let message = format!("no frps has a {}, so this pool has no members", need.key());
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
    need: Need,
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
    let members = able(frps, need, has_all);
    if !members.is_empty() || !known.fleet_is_sound {
        return members;
    }
    if frps.iter().any(has_all) {
        let message = match need.carries {
            Carries::Http | Carries::Tls => {
                format!("no frps with these labels has a {}, so this pool has no members", need.key())
            }
            Carries::Tcp | Carries::Udp => {
                format!("this pool carries {} and has no port", need.carries.word())
            }
        };
        ctx.push(Fault::error(&at, "no-vhost-port", message).help(need.add_port()));
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
fn able(frps: &[Frps], need: Need, wanted: impl Fn(&Frps) -> bool) -> Vec<PoolMember> {
    frps.iter()
        .filter(|server| need.is_met(server, None) && wanted(server))
        .map(|server| PoolMember {
            frps: server.name.clone(),
            weight: server.weight,
            priority: 0,
            port: need.member_port(None),
        })
        .collect()
}

/// `name`, or `{ name: …, weight: …, priority: …, port: … }`.
fn member<'t>(ctx: &mut Ctx<'_>, at: &At<'t>, need: Need) -> Option<(At<'t>, Option<u32>, u32, Option<u16>)> {
    if at.raw().is_some() {
        return Some((at.clone(), None, 0, None));
    }
    let fields = Fields::open(ctx, at, &keys::MEMBER);
    let (weight, priority) = (fields.optional_u32(ctx, "weight"), fields.u32(ctx, "priority"));
    let port = fields.port(ctx, "port");
    if let (Some(at), false) = (fields.get("port"), matches!(need.carries, Carries::Tcp | Carries::Udp)) {
        no_port(ctx, &at, need.carries);
    }
    Some((fields.get("name")?, weight, priority, port))
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
