//! `plugin`, `frps[].plugin`, `agent`: who answers frps, and by which secrets they know each other.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::{Known, lists};
use crate::{
    keys::{self, Kind},
    model::{Agent, Frps, FrpsPlugin, Plugin},
    read::{At, Ctx, Fault, Fields, address, network, secret, text, url},
    secret::Secret,
};

/// Fewest characters of a key.
const SHORTEST_KEY: usize = 32;
/// Fewest characters of a secret that is compared as it is.
const SHORTEST_SECRET: usize = 16;
/// Who may call, when nothing is said: loopback and private addresses.
const PRIVATE: [&str; 6] =
    ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];
/// How to make a key.
const MAKE_KEY: &str = "make one with: head -c 32 /dev/urandom | base64";
/// How to make a secret that fits into a path.
const MAKE_SECRET: &str = "make one with: head -c 24 /dev/urandom | base64 | tr '+/' '-_'";

pub(super) fn plugin(ctx: &mut Ctx<'_>, at: &At<'_>) -> Plugin {
    let fields = Fields::open(ctx, at, &keys::PLUGIN);
    let allow = lists::some(ctx, &fields, "allow", "remove it to allow loopback and private addresses");
    let allow = match allow {
        Some(items) => items.iter().filter_map(|at| network(ctx, at, &Kind::Network)).collect(),
        None => PRIVATE.iter().filter_map(|net| net.parse::<IpNet>().ok()).collect(),
    };
    let key =
        |ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind| long(ctx, at, kind, "key", SHORTEST_KEY, MAKE_KEY);
    let plugin = Plugin {
        listen: fields.read(ctx, "listen", address).unwrap_or(NOWHERE),
        key: fields.read(ctx, "key", key).unwrap_or_else(|| Secret::new("")),
        old_key: fields.read(ctx, "old_key", key),
        allow,
        agent_token: fields.read(ctx, "agent_token", token),
    };
    if plugin.old_key.as_ref() == Some(&plugin.key) {
        ctx.push(
            Fault::warning(&fields.place("old_key"), "same-key", "old_key is the same as key")
                .help("write the key before into old_key, or remove it"),
        );
    }
    plugin
}

/// Stands for an address that was reported as bad.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A secret of at least `shortest` characters.
fn long(
    ctx: &mut Ctx<'_>,
    at: &At<'_>,
    kind: &Kind,
    what: &str,
    shortest: usize,
    help: &str,
) -> Option<Secret> {
    let value = secret(ctx, at, kind)?;
    if value.expose().chars().count() >= shortest {
        return Some(value);
    }
    ctx.push(
        Fault::error(at, "short-key", format!("the {what} has fewer than {shortest} characters")).help(help),
    );
    None
}

fn token(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Secret> {
    long(ctx, at, kind, "token", SHORTEST_SECRET, MAKE_KEY)
}

/// `frps[].plugin`.
pub(super) fn of_frps(ctx: &mut Ctx<'_>, at: &At<'_>, has_admin: bool) -> Option<FrpsPlugin> {
    let fields = Fields::open(ctx, at, &keys::FRPS_PLUGIN);
    if !has_admin {
        ctx.push(Fault::error(at, "plugin-without-admin", "this frps has a plugin but no admin").help(
            "add admin: { url: \"http://HOST:7500\", password: … }: what it lists decides what is live",
        ));
    }
    let secret = fields.read(ctx, "secret", |ctx, at, kind| {
        let value = long(ctx, at, kind, "secret", SHORTEST_SECRET, MAKE_SECRET)?;
        if value.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Some(value);
        }
        ctx.push(
            Fault::error(
                at,
                "bad-plugin-secret",
                "the secret is a part of a path: only A-Z a-z 0-9 - and _ may be in it",
            )
            .help(MAKE_SECRET),
        );
        None
    })?;
    Some(FrpsPlugin { secret })
}

pub(super) fn agent(ctx: &mut Ctx<'_>, at: &At<'_>, frps: &[Frps], known: &Known) -> Agent {
    let fields = Fields::open(ctx, at, &keys::AGENT);
    let name = fields.get("frps").and_then(|at| {
        let name = text(ctx, &at, &Kind::Text)?;
        if !known.frps.check(ctx, &at, &name) {
            return None;
        }
        let plugin = frps.iter().find(|frps| frps.name == name).and_then(|frps| frps.plugin.as_ref());
        if plugin.is_none() && known.fleet_is_sound {
            ctx.push(
                Fault::error(&at, "no-plugin", format!("the frps {} has no plugin", at.seen()))
                    .help("add plugin: { secret: … } to it: the agent answers under that path"),
            );
        }
        Some(name)
    });
    let gateways = lists::some(
        ctx,
        &fields,
        "gateways",
        "name the plugin listener of each gateway: \"http://HOST:9901\"",
    );
    Agent {
        frps: name.unwrap_or_default(),
        listen: fields.read(ctx, "listen", address).unwrap_or(NOWHERE),
        gateways: gateways.iter().flatten().filter_map(|at| url(ctx, at, &Kind::Url)).collect(),
        token: fields.read(ctx, "token", token),
    }
}
