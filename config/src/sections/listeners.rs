//! `listeners`: bound addresses.

use std::net::SocketAddr;

use crate::{
    keys,
    model::{Listener, ListenerLimits, ListenerTimeouts, Protocol},
    read::{At, Ctx, Fault, Fields, address, name, network, size, word},
    yaml::{Node, Span},
};

pub(super) fn read_all(ctx: &mut Ctx<'_>, at: &At<'_>) -> Vec<Listener> {
    let items = at.items(ctx);
    items.iter().map(|item| listener(ctx, item)).collect()
}

fn listener(ctx: &mut Ctx<'_>, at: &At<'_>) -> Listener {
    let fields = Fields::open(ctx, at, &keys::LISTENER);
    let nothing = Node::null(Span::START);
    let part = |name: &'static str| fields.get(name).unwrap_or_else(|| fields.at().key(name, &nothing));
    // The table allows one word, so there is nothing to tell apart yet.
    let protocol = fields.read(ctx, "protocol", word).map_or(Protocol::Http, |_| Protocol::Http);
    let proxies = fields.get("trusted_proxies").map(|at| at.one_or_many()).unwrap_or_default();
    Listener {
        name: fields.read(ctx, "name", name).unwrap_or_default(),
        bind: fields.read(ctx, "bind", address).unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0))),
        protocol,
        trusted_proxies: proxies.iter().filter_map(|at| network(ctx, at, &keys::Kind::Network)).collect(),
        timeouts: timeouts(ctx, &part("timeouts")),
        limits: limits(ctx, &part("limits")),
    }
}

fn timeouts(ctx: &mut Ctx<'_>, at: &At<'_>) -> ListenerTimeouts {
    let fields = Fields::open(ctx, at, &keys::TIMEOUTS);
    ListenerTimeouts {
        header: fields.duration(ctx, "header"),
        idle: fields.duration(ctx, "idle"),
        stream_idle: fields.duration(ctx, "stream_idle"),
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
    }
}
