//! What would become of a request, and why: the request path's own steps, on the live state, without sending anything.
//!
//! The head goes through the data path's parser, router, key, session and [`pick`](super::pick); what is counted, waited for
//! or learnt on the way is not. Runs on the control thread. What a worker alone knows is not seen: its remembered frps-404s,
//! its idle connections, and whose turn it is there. So the pick is drawn from many dry runs: where all of them agree, the
//! next request goes there.

mod candidates;
mod connection;
mod pool;
mod score;
pub mod view;
mod visit;

use std::{net::IpAddr, sync::Arc};

use lb_algos::{Rng, Tick};

pub use self::connection::{Connecting, explain as explain_connection};
pub(crate) use self::{
    candidates::{effective_weight, has_room, latency_ms, verdicts},
    pool::word,
};
use self::{
    view::{Ending, Explanation, RouteView},
    visit::{Visit, What},
};
use super::{headers, http::View, redirect};
use crate::{
    error::Refusal,
    http1::{Method, RequestHead},
    snapshot::{
        Found, Listener, Route, Snapshot,
        router::{Request, why::Verdict},
        tunnels::TunnelRoute,
    },
    tls::ClientIdentity,
};

/// A request that is not made.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The state it would meet.
    pub snapshot: &'a Snapshot,
    /// Where it would come in.
    pub listener: &'a Listener,
    /// Its method, only to be shown.
    pub method: &'a str,
    /// Its URL, only to be shown.
    pub url: &'a str,
    /// Its head as it would be sent.
    pub wire: &'a [u8],
    /// Who would send it.
    pub peer: IpAddr,
    /// Whose certificate they would have shown.
    pub client: Option<&'a ClientIdentity>,
    /// Now.
    pub now: Tick,
    /// For draws.
    pub seed: u64,
}

/// Explains what would become of it.
///
/// Reads what workers write, writes nothing, takes no lock. O(routes + members × dry runs), at most some 100,000 looks at a
/// member per pool of the route.
#[must_use]
pub fn explain(asked: &Asked<'_>) -> Explanation {
    let mut told = Explanation {
        generation: asked.snapshot.generation,
        listener: asked.listener.name.to_string(),
        method: asked.method.to_owned(),
        url: asked.url.to_owned(),
        from: asked.peer,
        route: None,
        pool: None,
        ending: Ending::refused(Refusal::NoRoute, ""),
        routes: Vec::new(),
        pools: Vec::new(),
    };
    let mut head = RequestHead::default();
    match head.parse(asked.wire, &asked.listener.head_limits) {
        Ok(true) => {}
        Ok(false) => {
            told.ending = Ending::refused(Refusal::BadRequest(400), "the head has no end");
            return told;
        }
        Err(error) => {
            told.ending = Ending::refused(Refusal::BadRequest(error.status()), error.label());
            return told;
        }
    }
    if head.method == Method::Connect {
        told.ending = Ending::refused(Refusal::MethodRefused, "CONNECT");
        return told;
    }
    let name = head.host_name.of(asked.wire);
    let host = String::from_utf8_lossy(name.strip_suffix(b".").unwrap_or(name)).to_ascii_lowercase();
    let view = View {
        head: &head,
        wire: asked.wire,
        host: &host,
        client: asked.client,
        https: headers::is_https(&head, asked.wire, asked.listener, asked.peer),
    };
    let found = judge(asked.snapshot, asked.listener, &view, &mut told.routes);
    let visit = Visit {
        snapshot: asked.snapshot,
        listener: asked.listener,
        peer: asked.peer,
        now: asked.now,
        what: What::Request { head: &head, wire: asked.wire, host: &host },
    };
    let mut rng = Rng::seeded(asked.seed);
    match asked.listener.router.find(&asked.snapshot.tunnels, &view) {
        Some(Found::Tunnels(tunnels)) => tunnels_first(&visit, &host, tunnels, &mut rng, &mut told),
        Some(Found::Route(_)) | None => {
            if let Some(route) = found {
                if let Some(why) = route.refuses(asked.client) {
                    told.route = Some(route.name.to_string());
                    told.ending = Ending::refused(Refusal::ClientRefused, why);
                    return told;
                }
                if let Some(redirect) = &route.redirect {
                    let location = redirect::location(redirect, &host, &head, asked.wire);
                    // A query may be secret.
                    let shown = location.split(|byte| *byte == b'?').next().unwrap_or_default();
                    told.route = Some(route.name.to_string());
                    told.ending = Ending::Redirected {
                        status: redirect::status(redirect),
                        location: String::from_utf8_lossy(shown).into_owned(),
                    };
                    return told;
                }
                many(&visit, &route, &mut rng, &mut told);
            } else if asked.snapshot.tunnels.is_away(&host, asked.now) {
                told.ending = Ending::refused(Refusal::TunnelAway, "its last tunnel went a moment ago");
            }
        }
    }
    told
}

/// No route of the file, but tunnels that claim the host serve it.
fn tunnels_first(
    visit: &Visit<'_>,
    host: &str,
    tunnels: &TunnelRoute,
    rng: &mut Rng,
    told: &mut Explanation,
) {
    let name = visit.snapshot.tunnels.route.name.to_string();
    for route in told.routes.iter_mut().filter(|route| route.verdict == Verdict::Matched.label()) {
        let less = Verdict::LessSpecific(name.as_str().into());
        (route.verdict, route.why) = (less.label().to_owned(), less.to_string());
    }
    let mut conditions = Vec::new();
    if !tunnels.location.is_empty() {
        conditions.push(format!("path {}…", tunnels.location));
    }
    if !tunnels.user.is_empty() {
        conditions.push(format!("basic-auth user {}", tunnels.user));
    }
    told.routes.insert(
        0,
        RouteView {
            route: name.clone(),
            verdict: Verdict::Matched.label().to_owned(),
            why: format!("tunnels claim {host}"),
            conditions: conditions.join(", "),
        },
    );
    let pool = &tunnels.split.pool;
    let view = pool::explain(visit, pool, rng);
    (told.route, told.pool, told.ending) = (Some(name), Some(view.pool.clone()), view.ending.clone());
    told.pools.push(view::PoolView { weight: 1, percent: 100.0, drawn: true, ..view });
}

/// Judges all routes; the one that serves the request or the connection.
fn judge(
    snapshot: &Snapshot,
    listener: &Listener,
    request: &impl Request,
    told: &mut Vec<RouteView>,
) -> Option<Arc<Route>> {
    let judged = listener.router.judge(request);
    told.extend(judged.iter().map(|one| RouteView {
        route: one.route.name.to_string(),
        verdict: one.verdict.label().to_owned(),
        why: one.verdict.to_string(),
        conditions: one.route.conditions(),
    }));
    let elsewhere = |route: &&Arc<Route>| !judged.iter().any(|one| Arc::ptr_eq(&one.route, route));
    told.extend(snapshot.routes.iter().filter(elsewhere).map(|route| RouteView {
        route: route.name.to_string(),
        verdict: "listener".to_owned(),
        why: format!("not served on listener {}", listener.name),
        conditions: route.conditions(),
    }));
    judged.into_iter().find(|one| one.verdict == Verdict::Matched).map(|one| one.route)
}

/// The pools of a route, one of which is drawn.
fn many(visit: &Visit<'_>, route: &Arc<Route>, rng: &mut Rng, told: &mut Explanation) {
    told.route = Some(route.name.to_string());
    let drawn = route.split(|below| rng.below(below));
    for split in &route.splits {
        let is_drawn = drawn.is_some_and(|drawn| std::ptr::eq(drawn, split));
        let view = pool::explain(visit, &split.pool, rng);
        if is_drawn {
            told.pool = Some(view.pool.clone());
            told.ending = view.ending.clone();
        }
        let percent =
            candidates::tidy(f64::from(split.weight) / f64::from(route.total_weight.max(1)) * 100.0);
        told.pools.push(view::PoolView { weight: split.weight, percent, drawn: is_drawn, ..view });
    }
    if drawn.is_none() {
        told.ending = Ending::refused(Refusal::NoEndpoint, "all pools of the route weigh 0");
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
