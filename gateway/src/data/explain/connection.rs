//! The same for connections: of `tcp` and `udp` listeners, and of `tls_passthrough` ones by the server name. The steps are those of
//! [`l4`](crate::data::l4).

use std::{net::IpAddr, sync::Arc};

use frp_gateway_config::model::Protocol;
use lb_algos::{Rng, Tick};

use super::{
    Explanation, judge, many, pool, tunnels_first,
    view::{Ending, PoolView},
    visit::{Visit, What},
};
use crate::{
    error::Refusal,
    snapshot::{Found, Gate, Listener, Pool, Snapshot, router::Request},
    tls::ClientIdentity,
};

/// A connection that is not made.
#[derive(Debug)]
pub struct Connecting<'a> {
    /// The state it would meet.
    pub snapshot: &'a Snapshot,
    /// Where it would come in.
    pub listener: &'a Listener,
    /// The server that its TLS asks for, lower case; empty = none, or no TLS.
    pub name: &'a str,
    /// Only to be shown.
    pub url: &'a str,
    /// Who would connect.
    pub peer: IpAddr,
    /// Now.
    pub now: Tick,
    /// For draws.
    pub seed: u64,
}

/// Explains what would become of it. Cost and manners are those of [`explain`](super::explain).
#[must_use]
pub fn explain(asked: &Connecting<'_>) -> Explanation {
    let (snapshot, listener) = (asked.snapshot, asked.listener);
    let mut told = Explanation {
        generation: snapshot.generation,
        listener: listener.name.to_string(),
        method: String::new(),
        url: asked.url.to_owned(),
        from: asked.peer,
        route: None,
        pool: None,
        ending: Ending::refused(Refusal::NoRoute, ""),
        routes: Vec::new(),
        pools: Vec::new(),
    };
    let visit = Visit {
        snapshot,
        listener,
        peer: asked.peer,
        now: asked.now,
        what: What::Connection { name: asked.name },
    };
    let mut rng = Rng::seeded(asked.seed);
    match listener.protocol {
        Protocol::TlsPassthrough => by_name(asked, &visit, &mut rng, &mut told),
        Protocol::Tcp | Protocol::Udp | Protocol::Http | Protocol::Https | Protocol::Frp => {
            the_rest(&visit, &mut rng, &mut told);
        }
    }
    if Gate::is_full(listener.gate.as_ref()) {
        told.ending = Ending::refused(Refusal::Overloaded, "limits.in_flight of the listener is reached");
    }
    told.ending = told.ending.of_connection();
    for pool in &mut told.pools {
        pool.ending = pool.ending.of_connection();
    }
    told
}

fn by_name(asked: &Connecting<'_>, visit: &Visit<'_>, rng: &mut Rng, told: &mut Explanation) {
    let tunnels = &asked.snapshot.tunnels;
    let found = judge(asked.snapshot, asked.listener, &ServerName(asked.name), &mut told.routes);
    match asked.listener.router.find_tls(tunnels, asked.name) {
        Some(Found::Tunnels(found)) => {
            tunnels_first(visit, asked.name, found, rng, told);
            return;
        }
        Some(Found::Route(_)) | None => {}
    }
    if let Some(route) = found {
        many(visit, &route, rng, told);
        if Gate::is_full(route.gate.as_ref()) {
            told.ending = Ending::refused(Refusal::Overloaded, "limits.in_flight of the route is reached");
        }
    } else if asked.listener.pool.is_some() {
        the_rest(visit, rng, told);
    } else if tunnels.is_tls_away(asked.name, asked.now) {
        told.ending = Ending::refused(Refusal::TunnelAway, "its last tunnel went a moment ago");
    }
}

/// The listener's own pool.
fn the_rest(visit: &Visit<'_>, rng: &mut Rng, told: &mut Explanation) {
    let Some(pool): Option<&Arc<Pool>> = visit.listener.pool.as_ref() else {
        told.ending = Ending::refused(Refusal::NoRoute, "the listener has no pool");
        return;
    };
    let view = pool::explain(visit, pool, rng);
    (told.pool, told.ending) = (Some(view.pool.clone()), view.ending.clone());
    told.pools.push(PoolView { weight: 1, percent: 100.0, drawn: true, ..view });
}

/// All that is seen of a TLS connection.
struct ServerName<'a>(&'a str);

impl Request for ServerName<'_> {
    fn host(&self) -> &str {
        self.0
    }

    fn path(&self) -> &[u8] {
        b"/"
    }

    fn query(&self) -> Option<&[u8]> {
        None
    }

    fn method(&self) -> &[u8] {
        b""
    }

    fn any_header(&self, _name: &[u8], _test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }

    fn is_basic_user(&self, _user: &str) -> bool {
        false
    }

    fn client(&self) -> Option<&ClientIdentity> {
        None
    }

    fn is_https(&self) -> bool {
        true
    }
}
