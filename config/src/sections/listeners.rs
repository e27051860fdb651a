//! `listeners`: bound addresses.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

use super::{Known, leads::ONLY_FOR, lists, tls};
use crate::{
    keys,
    model::{FrpListener, Frps, Listener, ListenerLimits, ListenerTimeouts, Place, Protocol, Together},
    read::{At, Ctx, Fault, Fields, address, name, network, size, text, word},
    yaml::{Node, Span},
};

pub(super) fn read_all(ctx: &mut Ctx<'_>, at: &At<'_>, frps: &[Frps], known: &Known) -> Vec<Listener> {
    let items = at.items(ctx);
    items.iter().map(|item| listener(ctx, item, frps, known)).collect()
}

fn listener(ctx: &mut Ctx<'_>, at: &At<'_>, frps: &[Frps], known: &Known) -> Listener {
    let fields = Fields::open(ctx, at, &keys::LISTENER);
    let nothing = Node::null(Span::START);
    let part = |name: &'static str| fields.get(name).unwrap_or_else(|| fields.at().key(name, &nothing));
    let protocol = fields.read(ctx, "protocol", word).map_or(Protocol::Http, protocol);
    for (key, protocols, help) in ONLY_FOR {
        if let Some(at) = fields.get(key)
            && !protocols.contains(&protocol)
        {
            let message = format!("{key} means nothing on a listener for {}", protocol.word());
            ctx.push(Fault::error(&at, "not-for-this-protocol", message).help(*help));
        }
    }
    Listener {
        name: fields.read(ctx, "name", name).unwrap_or_default(),
        bind: fields.read(ctx, "bind", address).unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0))),
        protocol,
        pool: pool(ctx, &fields, protocol, known),
        proxy_protocol: networks(ctx, &fields, "proxy_protocol"),
        frp: (protocol == Protocol::Frp).then(|| frp(ctx, &fields, frps, known)),
        tls: tls::of_listener(ctx, &fields, protocol),
        http2: tls::http2(ctx, &fields, protocol),
        trusted_proxies: networks(ctx, &fields, "trusted_proxies"),
        timeouts: timeouts(ctx, &part("timeouts"), protocol),
        limits: limits(ctx, &part("limits")),
    }
}

fn protocol(word: &str) -> Protocol {
    Protocol::ALL.into_iter().find(|protocol| protocol.word() == word).unwrap_or(Protocol::Http)
}

fn networks(ctx: &mut Ctx<'_>, fields: &Fields<'_>, key: &'static str) -> Vec<IpNet> {
    let items = fields.get(key).map(|at| at.one_or_many()).unwrap_or_default();
    items.iter().filter_map(|at| network(ctx, at, &keys::Kind::Network)).collect()
}

fn pool(ctx: &mut Ctx<'_>, fields: &Fields<'_>, protocol: Protocol, known: &Known) -> Option<String> {
    match fields.get("pool") {
        Some(at) => {
            let name = text(ctx, &at, &keys::Kind::Text)?;
            known.pools.check(ctx, &at, &name).then_some(name)
        }
        None => {
            if matches!(protocol, Protocol::Tcp | Protocol::Udp) {
                let message = format!("a {} listener needs a pool", protocol.word());
                ctx.push(Fault::error(fields.at(), "missing-key", message).help(format!(
                    "add \"pool: NAME\": where everything goes; pools here: {}",
                    crate::suggest::list(&known.pools.words())
                )));
            }
            None
        }
    }
}

fn frp(ctx: &mut Ctx<'_>, fields: &Fields<'_>, frps: &[Frps], known: &Known) -> FrpListener {
    const ADD: &str = "add \"control_port: 7000\" (what bindPort says in its frps.toml)";
    let mut names = Vec::new();
    if fields.get("frps").is_some() {
        names = lists::frps(ctx, fields, known);
        let at = fields.place("frps");
        for name in &names {
            let server = frps.iter().find(|server| server.name == *name);
            if known.fleet_is_sound && server.is_some_and(|server| server.control_port.is_none()) {
                let message = format!("the frps \"{name}\" has no control_port");
                ctx.push(Fault::error(&at, "no-control-port", message).help(ADD));
            }
        }
    } else {
        let able = frps.iter().filter(|server| server.control_port.is_some());
        names.extend(able.map(|server| server.name.clone()));
        if names.is_empty() && known.fleet_is_sound {
            let message = "no frps has a control_port, so clients can be placed nowhere";
            ctx.push(Fault::error(fields.at(), "no-control-port", message).help(ADD));
        }
    }
    FrpListener {
        frps: names,
        place: match fields.read(ctx, "place", word) {
            Some("least_clients") => Place::LeastClients,
            Some("source_ip") => Place::SourceIp,
            Some(_) | None => Place::LeastTunnels,
        },
        together: match fields.read(ctx, "together", word) {
            Some("user") => Together::User,
            Some("source_ip") => Together::SourceIp,
            Some(_) | None => Together::Nobody,
        },
    }
}

/// Longest silence of a session of datagrams, which nobody ends, unless it is said.
const DATAGRAMS_IDLE: Duration = Duration::from_secs(60);

fn timeouts(ctx: &mut Ctx<'_>, at: &At<'_>, protocol: Protocol) -> ListenerTimeouts {
    let fields = Fields::open(ctx, at, &keys::TIMEOUTS);
    ListenerTimeouts {
        header: fields.duration(ctx, "header"),
        idle: fields.duration(ctx, "idle"),
        stream_idle: match (protocol, fields.get("stream_idle")) {
            (Protocol::Udp, None) => DATAGRAMS_IDLE,
            _ => fields.duration(ctx, "stream_idle"),
        },
    }
}

fn limits(ctx: &mut Ctx<'_>, at: &At<'_>) -> ListenerLimits {
    let fields = Fields::open(ctx, at, &keys::LIMITS);
    let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let head = fields.read(ctx, "head_bytes", size).map(bytes);
    let mut line = fields.read(ctx, "request_line_bytes", size).map(bytes);
    if let (Some(max), Some(bound)) = (line, head)
        && max > bound
    {
        match fields.get("request_line_bytes") {
            Some(at) => ctx.push(
                Fault::error(&at, "limit-over-limit", format!("{} is more than head_bytes", at.seen()))
                    .help("the request line is a part of the head: raise head_bytes or lower this"),
            ),
            // Nobody wrote the larger one: the default gives way.
            None => line = head,
        }
    }
    ListenerLimits {
        head_bytes: head.unwrap_or_default(),
        request_line_bytes: line.unwrap_or_default(),
        headers: fields.usize(ctx, "headers"),
        body_bytes: fields.read(ctx, "body_bytes", size),
        connections: fields.usize(ctx, "connections"),
        in_flight: fields.optional_u32(ctx, "in_flight"),
    }
}
