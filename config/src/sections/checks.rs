//! Checks that need more than one section: addresses bound twice, and what is legal but surely unmeant.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{field, is_for_the_agent, items, pool_checks, sharing, tls_checks, tunnel_checks};
use crate::{
    model::{Config, Frps, HostMatch, Listener, Protocol, Route, RouteMatch},
    read::{Ctx, Fault, Fields},
};

/// Runs them all. Those about use and shadowing only when there is no error: a typo in a reference makes its
/// target "unused", and that would be noise.
pub(super) fn cross_section(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    bound_twice(ctx, root, config);
    sharing::check(ctx, root, config);
    loops(ctx, root, config);
    if ctx.error_count() > 0 {
        return;
    }
    same_endpoint(ctx, root, &config.frps);
    unused(ctx, root, config);
    zero_weights(ctx, root, config);
    shadowed(ctx, root, &config.routes, &config.listeners);
    pool_checks::unmeant(ctx, root, config);
    tunnel_checks::unmeant(ctx, root, config);
}

fn bound_twice(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    // The agent opens neither of the two.
    if is_for_the_agent(root) {
        return;
    }
    // Datagrams have ports of their own.
    let mut bound: BTreeMap<(SocketAddr, bool), String> = BTreeMap::new();
    if config.admin.listen.port() != 0 {
        bound.insert((config.admin.listen, false), "the admin listener".to_owned());
    }
    if let Some(plugin) = &config.plugin
        && plugin.listen.port() != 0
        && let Some(other) = bound.insert((plugin.listen, false), "the plugin listener".to_owned())
        && let Some(at) = root.get("plugin")
    {
        let at = field(&at, "listen").unwrap_or(at);
        let message = format!("\"{}\" is bound by {other} already", plugin.listen);
        ctx.push(
            Fault::error(&at, "bound-twice", message).help("give the plugin listener an address of its own"),
        );
    }
    let shared = sharing::seconds(&config.listeners);
    for (index, (item, listener)) in items(root, "listeners").iter().zip(&config.listeners).enumerate() {
        let Some(at) = field(item, "bind") else { continue };
        if listener.bind.port() == 0 || shared.contains(&index) {
            continue;
        }
        let address = (listener.bind, listener.protocol == Protocol::Udp);
        if let Some(other) = bound.get(&address) {
            let help = match listener.protocol {
                Protocol::Https | Protocol::TlsPassthrough => {
                    "give each listener an address of its own, but for one https and one tls_passthrough listener"
                }
                Protocol::Http | Protocol::Tcp | Protocol::Udp | Protocol::Frp => {
                    "give each listener an address of its own"
                }
            };
            let message = format!("{} is bound by {other} already", at.seen());
            ctx.push(Fault::error(&at, "bound-twice", message).help(help));
        } else {
            bound.insert(address, format!("the listener \"{}\"", listener.name));
        }
    }
}

/// An `frp` listener that would dial itself.
fn loops(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    for (item, server) in items(root, "frps").iter().zip(&config.frps) {
        let Some(port) = server.control_port else { continue };
        let host = if server.host == "localhost" { "127.0.0.1" } else { &server.host };
        let Ok(host) = host.parse::<IpAddr>() else { continue };
        let is_here = |bind: &SocketAddr| {
            bind.port() == port && (bind.ip() == host || bind.ip().is_unspecified() && host.is_loopback())
        };
        let itself = config.listeners.iter().find(|listener| {
            let places = listener.frp.as_ref().is_some_and(|frp| frp.frps.contains(&server.name));
            places && is_here(&listener.bind)
        });
        if let (Some(listener), Some(at)) = (itself, field(item, "control_port")) {
            let message = format!(
                "{}:{port} is the listener \"{}\" itself: clients would go round in a circle",
                server.host, listener.name
            );
            ctx.push(
                Fault::error(&at, "own-listener", message)
                    .help("write bindPort of its frps.toml, and give frps or listener another port"),
            );
        }
    }
}

fn same_endpoint(ctx: &mut Ctx<'_>, root: &Fields<'_>, frps: &[Frps]) {
    let mut seen: BTreeMap<(String, u16), &str> = BTreeMap::new();
    for (item, server) in items(root, "frps").iter().zip(frps) {
        let Some(port) = server.vhost_http_port else { continue };
        let key = (server.host.to_ascii_lowercase(), port);
        if let Some(other) = seen.get(&key) {
            ctx.push(
                Fault::warning(
                    item,
                    "same-endpoint",
                    format!("the frps \"{other}\" has the same host and vhost_http_port"),
                )
                .help("one server under two names gets two shares; use weight for that"),
            );
        } else {
            seen.insert(key, &server.name);
        }
    }
}

fn unused(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    let members: BTreeSet<&str> =
        config.pools.iter().flat_map(|pool| &pool.frps).map(|member| member.frps.as_str()).collect();
    for (item, server) in items(root, "frps").iter().zip(&config.frps) {
        let has_agent = config.agent.as_ref().is_some_and(|agent| agent.frps == server.name);
        let places =
            |listener: &Listener| listener.frp.as_ref().is_some_and(|frp| frp.frps.contains(&server.name));
        let tunnels = has_agent
            || tunnel_checks::tunnels_are_used(config, server)
            || config.listeners.iter().any(places);
        if !members.contains(server.name.as_str()) && !tunnels {
            let help = match (server.vhost_http_port, &server.admin) {
                (Some(_), _) => "name it in a pool, or remove it",
                (None, Some(_)) => "select its tunnels in a pool, or remove it",
                (None, None) => "give it a vhost_http_port and name it in a pool, or remove it",
            };
            let message = format!("no pool uses the frps \"{}\"", server.name);
            ctx.push(Fault::warning(item, "unused-frps", message).help(help));
        }
    }
    let targets: BTreeSet<&str> = config
        .routes
        .iter()
        .flat_map(|route| &route.pools)
        .map(|pool| pool.name.as_str())
        .chain(config.listeners.iter().filter_map(|listener| listener.pool.as_deref()))
        .collect();
    for (item, pool) in items(root, "pools").iter().zip(&config.pools) {
        if !targets.contains(pool.name.as_str()) {
            let message = format!("no route leads to the pool \"{}\"", pool.name);
            let domain = pool.tunnels.as_ref().and_then(|selector| selector.domains.first());
            let help = match domain.filter(|domain| *domain != "*") {
                Some(host) => {
                    format!(
                        "add a route: {{ match: {{ host: \"{host}\" }}, pool: {} }}, or remove it",
                        pool.name
                    )
                }
                None => "name it in a route, or remove it".to_owned(),
            };
            ctx.push(Fault::warning(item, "unused-pool", message).help(help));
        }
    }
    for (item, listener) in items(root, "listeners").iter().zip(&config.listeners) {
        let tunnels = config.tunnels.serve
            && (config.tunnels.listeners.is_empty() || config.tunnels.listeners.contains(&listener.name));
        let without_routes = match listener.protocol {
            Protocol::Tcp | Protocol::Udp | Protocol::Frp => true,
            Protocol::TlsPassthrough => listener.pool.is_some(),
            Protocol::Http | Protocol::Https => false,
        };
        if !without_routes
            && !tunnels
            && !config.routes.iter().any(|route| tls_checks::is_served_on(route, listener))
        {
            let message = format!("no route is served on the listener \"{}\"", listener.name);
            ctx.push(
                Fault::warning(item, "unused-listener", message)
                    .help("it answers 404 to everything; name it in a route, or remove it"),
            );
        }
    }
}

fn zero_weights(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    let message = "all weights are 0, so nothing gets traffic";
    let pools = items(root, "pools");
    for (index, pool) in config.pools.iter().enumerate() {
        if pool.tunnels.is_none() && pool.frps.iter().all(|member| member.weight == 0) {
            let fleet = root.get("frps");
            if let Some(at) = pools.get(index).or(fleet.as_ref()) {
                ctx.push(
                    Fault::warning(at, "all-weights-zero", message).help("give one member a weight above 0"),
                );
            }
        }
    }
    for (item, route) in items(root, "routes").iter().zip(&config.routes) {
        if route.redirect.is_none() && route.pools.iter().all(|pool| pool.weight == 0) {
            ctx.push(
                Fault::warning(item, "all-weights-zero", message).help("give one pool a weight above 0"),
            );
        }
    }
}

/// A route whose every request an earlier one takes. Only equal conditions shadow: otherwise the more specific
/// route wins, wherever it stands.
fn shadowed(ctx: &mut Ctx<'_>, root: &Fields<'_>, routes: &[Route], listeners: &[Listener]) {
    let items = items(root, "routes");
    let mut earlier: BTreeMap<String, Vec<&Route>> = BTreeMap::new();
    for (item, route) in items.iter().zip(routes) {
        let others = earlier.entry(conditions(&route.matches)).or_default();
        // A bucket is as small as the number of routes that differ in hosts alone; each is compared, up to a
        // bound that keeps a file of equal routes from being quadratic.
        if let Some(first) = others.iter().take(1000).find(|first| covers(first, route, listeners)) {
            ctx.push(
                Fault::warning(item, "shadowed-route", format!("every request goes to the earlier route \"{}\"", first.name))
                    .help("the conditions are the same, and then the earlier route wins: remove one or tell them apart"),
            );
        }
        others.push(route);
    }
}

/// All conditions but the host, in a form in which equal conditions are equal texts.
fn conditions(matches: &RouteMatch) -> String {
    let sorted = |values: Vec<String>| values.into_iter().collect::<BTreeSet<_>>();
    let methods = sorted(matches.methods.clone());
    let headers = sorted(matches.headers.iter().map(|value| format!("{value:?}")).collect());
    let query = sorted(matches.query.iter().map(|value| format!("{value:?}")).collect());
    let client = sorted(matches.client.iter().map(|identity| format!("{identity:?}")).collect());
    format!("{:?} {methods:?} {headers:?} {query:?} {client:?}", matches.path)
}

/// Given equal other conditions: has `first` all hosts and listeners of `later`?
fn covers(first: &Route, later: &Route, all: &[Listener]) -> bool {
    let hosts = match (first.matches.hosts.is_empty(), later.matches.hosts.is_empty()) {
        (true, true) => true,
        (false, false) => {
            let hosts: BTreeSet<&HostMatch> = first.matches.hosts.iter().collect();
            later.matches.hosts.iter().all(|host| hosts.contains(host))
        }
        // A named host is more specific than none.
        (true, false) | (false, true) => false,
    };
    let listeners = if first.redirect.is_some() {
        // It isn't on all listeners that it names.
        all.iter()
            .filter(|one| tls_checks::is_served_on(later, one))
            .all(|one| tls_checks::is_served_on(first, one))
    } else {
        first.listeners.is_empty()
            || (!later.listeners.is_empty()
                && later.listeners.iter().all(|name| first.listeners.contains(name)))
    };
    hosts && listeners
}
