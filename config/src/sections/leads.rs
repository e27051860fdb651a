//! What leads to which pool: it decides what the pool carries, and so which ports or tunnels it is made of.

use std::collections::{BTreeMap, BTreeSet};

use super::{field, items};
use crate::{
    model::{Carries, Config, Listener, Protocol, Route},
    read::{At, Ctx, Fault, Fields},
};

/// What leads to each pool, by name.
pub(crate) struct Leads {
    pools: BTreeMap<String, BTreeSet<Carries>>,
    /// Some listener speaks http.
    pub(crate) has_http: bool,
}

impl Leads {
    /// Reads it off the listeners, and off the routes as they are written: names only, nothing is reported.
    pub(super) fn new(listeners: &[Listener], root: &Fields<'_>) -> Self {
        let mut pools: BTreeMap<String, BTreeSet<Carries>> = BTreeMap::new();
        for listener in listeners {
            if let (Some(pool), Some(carries)) = (&listener.pool, listener.protocol.carries()) {
                pools.entry(pool.clone()).or_default().insert(carries);
            }
        }
        for route in items(root, "routes") {
            let on: Vec<_> = field(&route, "listeners").map(|at| at.one_or_many()).unwrap_or_default();
            let on = on.iter().filter_map(|at| listeners.iter().find(|known| Some(&*known.name) == at.raw()));
            let carries: BTreeSet<_> = on.filter_map(|listener| listener.protocol.carries()).collect();
            let carries = if carries.is_empty() { BTreeSet::from([Carries::Http]) } else { carries };
            let one = field(&route, "pool").into_iter();
            let many = field(&route, "pools").map(|at| at.one_or_many()).unwrap_or_default();
            for at in one.chain(many) {
                let name = field(&at, "name").unwrap_or(at);
                if let Some(name) = name.raw() {
                    pools.entry(name.to_owned()).or_default().extend(&carries);
                }
            }
        }
        let has_http =
            listeners.iter().any(|listener| matches!(listener.protocol, Protocol::Http | Protocol::Https));
        Self { pools, has_http }
    }

    /// What the pool of this name carries; nothing leads to it: http.
    pub(super) fn carries(&self, ctx: &mut Ctx<'_>, at: &At<'_>, pool: &str) -> Carries {
        let all: Vec<Carries> =
            self.pools.get(pool).map(|all| all.iter().copied().collect()).unwrap_or_default();
        if let [one, other, ..] = all[..] {
            let message = format!("both {} and {} lead to this pool", one.word(), other.word());
            ctx.push(
                Fault::error(at, "two-kinds-of-traffic", message)
                    .help("they need other ports of the same frps: make two pools of it"),
            );
        }
        all.first().copied().unwrap_or(Carries::Http)
    }

    /// Whether a listener or route names this pool.
    pub(super) fn is_led_to(&self, pool: &str) -> bool {
        self.pools.contains_key(pool)
    }
}

/// Checks of listeners and routes that need both.
pub(super) fn check(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    let written = items(root, "routes");
    for (index, route) in config.routes.iter().enumerate() {
        let Some(item) = written.get(index) else { continue };
        route_on_its_listeners(ctx, item, route, &config.listeners);
    }
}

fn route_on_its_listeners(ctx: &mut Ctx<'_>, item: &At<'_>, route: &Route, listeners: &[Listener]) {
    let on = |name: &String| listeners.iter().find(|listener| listener.name == *name);
    let protocols: BTreeSet<_> =
        route.listeners.iter().filter_map(on).map(|listener| listener.protocol.word()).collect();
    let at = field(item, "listeners").unwrap_or_else(|| item.clone());
    for listener in route.listeners.iter().filter_map(on) {
        match listener.protocol {
            Protocol::Http | Protocol::Https | Protocol::TlsPassthrough => {}
            protocol @ (Protocol::Tcp | Protocol::Udp) => ctx.push(
                Fault::error(
                    &at,
                    "listener-without-routes",
                    format!("the {} listener \"{}\" has no routes", protocol.word(), listener.name),
                )
                .help("everything on it goes to one pool: write \"pool: NAME\" at the listener"),
            ),
            Protocol::Frp => ctx.push(
                Fault::error(
                    &at,
                    "listener-without-routes",
                    format!("visitors don't come through the frp listener \"{}\"", listener.name),
                )
                .help("frpc dial it; name an http listener here"),
            ),
        }
    }
    let opened = protocols.contains("http") || protocols.contains("https");
    if opened && protocols.contains("tls_passthrough") {
        let word = if protocols.contains("http") { "http" } else { "https" };
        let message = format!("{word} and tls_passthrough listeners share this route");
        ctx.push(
            Fault::error(&at, "two-kinds-of-traffic", message)
                .help("write one route for each: they need pools of their own"),
        );
    }
    if protocols.len() == 1 && protocols.contains("tls_passthrough") {
        only_names(ctx, item);
    }
}

/// All that is seen of a TLS connection is the server name.
fn only_names(ctx: &mut Ctx<'_>, item: &At<'_>) {
    let condition = field(item, "match");
    for key in ["path", "method", "headers", "query", "client"] {
        if let Some(at) = condition.as_ref().and_then(|condition| field(condition, key)) {
            ctx.push(
                Fault::error(
                    &at,
                    "not-visible",
                    format!("{key} can't be seen: TLS is passed through unopened"),
                )
                .help("only \"host\" (the server name that the client asks for) can be matched here"),
            );
        }
    }
    for key in ["redirect", "hsts", "client"] {
        if let Some(at) = field(item, key) {
            ctx.push(
                Fault::error(&at, "not-visible", format!("{key} can't be: TLS is passed through unopened"))
                    .help("it is for routes of listeners that end TLS: write \"protocol: https\" there"),
            );
        }
    }
    if let Some(at) = field(item, "timeout") {
        ctx.push(
            Fault::warning(&at, "no-effect", "timeout has no effect on connections that are passed through")
                .help("remove it; the listener's timeouts bound them"),
        );
    }
}

/// Where no PROXY protocol header is sent.
pub(super) const NO_PROXY_HEADER: &str = "remove it: applications behind http read X-Forwarded-For; it is for pools of tcp or tls_passthrough listeners";

/// Where no TLS is spoken.
pub(super) const NO_TLS: &str = "remove it: it is for pools of frps that http and https listeners lead to";

/// What only some protocols know.
pub(super) const ONLY_FOR: &[(&str, &[Protocol], &str)] = &[
    (
        "pool",
        &[Protocol::Tcp, Protocol::Udp, Protocol::TlsPassthrough],
        "write a route with \"listeners: [NAME]\" instead",
    ),
    (
        "proxy_protocol",
        &[Protocol::Http, Protocol::Https, Protocol::Tcp, Protocol::TlsPassthrough, Protocol::Frp],
        "datagrams carry no PROXY protocol header here: remove it",
    ),
    ("frps", &[Protocol::Frp], "it says where an frp listener places clients; a pool says where visitors go"),
    (
        "place",
        &[Protocol::Frp],
        "it says how an frp listener places clients; \"balance\" of a pool is for visitors",
    ),
    ("together", &[Protocol::Frp], "it is for frp listeners; \"affinity\" of a pool is for visitors"),
    (
        "tls",
        &[Protocol::Https, Protocol::Frp],
        "TLS ends at https and frp listeners only: write \"protocol: https\"",
    ),
    (
        "http2",
        &[Protocol::Http, Protocol::Https],
        "it is for http and https listeners; bytes are passed on as they are",
    ),
    (
        "trusted_proxies",
        &[Protocol::Http, Protocol::Https],
        "it is about HTTP header fields; \"proxy_protocol\" is for connections",
    ),
];
