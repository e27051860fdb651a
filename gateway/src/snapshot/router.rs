//! host → path → method, headers, query → route. Compiled once, read by every request.
//!
//! Precedence is that of the Kubernetes Gateway API (HTTPRoute): the most specific host, then an exact path, then
//! regular expressions and the longest prefix, then a method condition, then more headers, then more query
//! parameters, then a condition on the client's certificate, then file order. A host whose routes don't match falls through to the less specific one, as in frps.

pub mod why;

use std::{collections::HashMap, sync::Arc, time::Duration};

use frp_gateway_config::model;
use regex::bytes::Regex;

use super::gate::Gate;
use super::{
    pool::Pool,
    tunnels::{TunnelRoute, Tunnels, is_wildcard},
};
use crate::{telemetry::stats::SplitStats, tls::ClientIdentity};

/// A compiled route.
#[derive(Debug)]
pub struct Route {
    /// Name: label in metrics and logs.
    pub name: Arc<str>,
    /// Longest wait for a response head, over all attempts.
    pub timeout: Option<Duration>,
    /// Bound on requests in flight.
    pub gate: Option<Gate>,
    /// Where requests go.
    pub splits: Vec<Split>,
    /// Sum of the splits' weights.
    pub total_weight: u32,
    /// Visitors who come without TLS are sent there; such a route is for nobody else.
    pub redirect: Option<model::Redirect>,
    /// `Strict-Transport-Security`, a whole line for answers by https; or nothing.
    pub hsts: Box<[u8]>,
    /// Only these clients, by certificate; an empty list is every one that has a trusted certificate. `None` = everybody.
    pub client: Option<Box<[model::Identity]>>,
    path: Path,
    methods: Vec<Box<[u8]>>,
    headers: Vec<Condition>,
    query: Vec<Condition>,
    clients: Vec<model::Identity>,
}

/// One pool of a route with its share.
#[derive(Debug)]
pub struct Split {
    /// The pool.
    pub pool: Arc<Pool>,
    /// Share; 0 = none.
    pub weight: u32,
    /// Counters of this route with this pool; survive reloads.
    pub stats: Arc<SplitStats>,
}

#[derive(Debug)]
enum Path {
    Exact(Box<[u8]>),
    Regex(Regex),
    Prefix(Box<[u8]>),
}

#[derive(Debug)]
struct Condition {
    name: Box<[u8]>,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Exact(Box<[u8]>),
    Regex(Regex),
    Present,
}

/// What a route looks at. Implemented by the data plane over the parsed head.
pub trait Request {
    /// Lower case, without port and trailing dot.
    fn host(&self) -> &str;
    /// Without the query.
    fn path(&self) -> &[u8];
    /// Without `?`.
    fn query(&self) -> Option<&[u8]>;
    /// As sent.
    fn method(&self) -> &[u8];
    /// Calls `test` with each value of the header field `name` until one fits.
    fn any_header(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool;
    /// Whether it authenticates (HTTP Basic) as `user`, whatever the password.
    fn is_basic_user(&self, user: &str) -> bool;
    /// Whose certificate its connection has shown; `None` = it has shown none.
    fn client(&self) -> Option<&ClientIdentity>;
    /// Whether the visitor came by TLS, here or at a proxy that is trusted.
    fn is_https(&self) -> bool;
}

/// All routes of one listener.
#[derive(Debug, Default)]
pub struct Router {
    exact: HashMap<Box<str>, Vec<Arc<Route>>, foldhash::fast::RandomState>,
    /// By suffix with its leading dot.
    wildcard: HashMap<Box<str>, Vec<Arc<Route>>, foldhash::fast::RandomState>,
    any: Vec<Arc<Route>>,
    /// Tunnels are routes by themselves here.
    serves_tunnels: bool,
}

/// What serves a request.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    /// A configured route.
    Route(&'a Arc<Route>),
    /// Tunnels that claim the host.
    Tunnels(&'a TunnelRoute),
}

/// A regular expression of the configuration that doesn't compile. The configuration checks this first.
pub type BadRegex = regex::Error;

impl Route {
    /// What all tunnel routes share: the name `auto` and a timeout.
    #[must_use]
    pub fn of_tunnels(timeout: Option<Duration>) -> Self {
        Self {
            name: "auto".into(),
            timeout,
            gate: None,
            splits: Vec::new(),
            total_weight: 0,
            path: Path::Prefix(Box::default()),
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
            redirect: None,
            hsts: Box::default(),
            client: None,
            clients: Vec::new(),
        }
    }

    /// Compiles the conditions of `route`.
    ///
    /// # Errors
    /// A regular expression doesn't compile.
    pub fn compile(route: &model::Route, splits: Vec<Split>, gate: Option<Gate>) -> Result<Self, BadRegex> {
        let conditions =
            |list: &[model::ValueMatch]| list.iter().map(Condition::compile).collect::<Result<_, _>>();
        Ok(Self {
            name: route.name.as_str().into(),
            timeout: route.timeout,
            gate,
            total_weight: splits.iter().fold(0, |sum, split| sum.saturating_add(split.weight)),
            splits,
            path: match &route.matches.path {
                model::PathMatch::Exact(path) => Path::Exact(path.as_bytes().into()),
                model::PathMatch::Prefix(path) => Path::Prefix(path.trim_end_matches('/').as_bytes().into()),
                model::PathMatch::Regex(regex) => Path::Regex(whole(regex)?),
            },
            methods: route.matches.methods.iter().map(|method| method.as_bytes().into()).collect(),
            headers: conditions(&route.matches.headers)?,
            query: conditions(&route.matches.query)?,
            redirect: route.redirect.clone(),
            hsts: route.hsts.as_ref().map(hsts_line).unwrap_or_default(),
            client: route.client.as_ref().map(|rule| rule.allow.clone().into()),
            clients: route.matches.client.clone(),
        })
    }

    /// Whether everything but the host fits.
    fn fits(&self, request: &impl Request) -> bool {
        self.path.fits(request.path())
            && (self.methods.is_empty() || self.methods.iter().any(|method| **method == *request.method()))
            && self.headers.iter().all(|condition| {
                request.any_header(&condition.name, &mut |value| condition.value.fits(value))
            })
            && self.query.iter().all(|condition| {
                parameters(request.query().unwrap_or_default())
                    .find(|(name, _)| *name == &*condition.name)
                    .is_some_and(|(_, value)| condition.value.fits(value))
            })
            && self.fits_connection(request)
    }

    /// Whether what holds for the whole connection fits.
    fn fits_connection(&self, request: &impl Request) -> bool {
        (self.redirect.is_none() || !request.is_https()) && self.fits_client(request)
    }

    fn fits_client(&self, request: &impl Request) -> bool {
        self.clients.is_empty() || request.client().is_some_and(|client| client.is_allowed(&self.clients))
    }

    /// Why a client is not served here by its certificate, or by having none.
    #[must_use]
    pub fn refuses(&self, client: Option<&ClientIdentity>) -> Option<&'static str> {
        let allow = self.client.as_deref()?;
        match client {
            None => Some("no certificate"),
            Some(client) if client.is_allowed(allow) => None,
            Some(_) => Some("not one of those let in"),
        }
    }

    /// Sorts the most specific first.
    fn precedence(&self) -> impl Ord + use<> {
        let (kind, length) = match &self.path {
            Path::Exact(path) => (0, path.len()),
            Path::Regex(regex) => (1, regex.as_str().len()),
            Path::Prefix(path) => (2, path.len()),
        };
        let most = |n: usize| std::cmp::Reverse(n);
        (
            (kind, most(length)),
            self.methods.is_empty(),
            most(self.headers.len()),
            most(self.query.len()),
            self.clients.is_empty(),
        )
    }

    /// Picks a split by its share; `draw(n)` returns a number below `n`. `None` when all shares are 0.
    pub fn split(&self, draw: impl FnOnce(u32) -> u32) -> Option<&Split> {
        if let [only] = self.splits.as_slice() {
            return (only.weight > 0).then_some(only);
        }
        if self.total_weight == 0 {
            return None;
        }
        let mut left = draw(self.total_weight);
        self.splits.iter().find(|split| {
            let chosen = left < split.weight;
            left = left.saturating_sub(split.weight);
            chosen
        })
    }
}

impl Router {
    /// Files `routes` (in file order) under their hosts.
    #[must_use]
    pub fn new(routes: impl IntoIterator<Item = (Vec<model::HostMatch>, Arc<Route>)>) -> Self {
        let mut router = Self::default();
        for (hosts, route) in routes {
            if hosts.is_empty() {
                router.any.push(Arc::clone(&route));
            }
            for host in hosts {
                let list = match host {
                    model::HostMatch::Exact(name) => router.exact.entry(name.into()).or_default(),
                    model::HostMatch::Wildcard(suffix) => {
                        router.wildcard.entry(format!(".{suffix}").into()).or_default()
                    }
                };
                list.push(Arc::clone(&route));
            }
        }
        for list in router.exact.values_mut().chain(router.wildcard.values_mut()).chain([&mut router.any]) {
            list.sort_by_cached_key(|route| route.precedence()); // stable: file order is the last tie-break
        }
        router
    }

    /// Whether tunnels are routes by themselves here.
    #[must_use]
    pub fn serving_tunnels(mut self, serves: bool) -> Self {
        self.serves_tunnels = serves;
        self
    }

    /// What serves a request: the most specific host first; then the more specific path; a configured route on a tie.
    pub fn find<'a>(&'a self, tunnels: &'a Tunnels, request: &impl Request) -> Option<Found<'a>> {
        let by_tunnels = self.serves_tunnels && !tunnels.is_empty();
        self.search(
            request.host(),
            by_tunnels,
            |route| route.fits(request),
            |level| tunnels.route_at(level, request),
        )
    }

    /// What serves a TLS connection whose client asks for `name` (lower case; empty when it asks for none): the most specific
    /// host, a configured route on a tie. `None`: what takes everything else.
    pub fn find_tls<'a>(&'a self, tunnels: &'a Tunnels, name: &str) -> Option<Found<'a>> {
        let by_tunnels = self.serves_tunnels && tunnels.has_tls();
        self.search(name, by_tunnels, |_| true, |level| tunnels.tls_route_at(level))
    }

    fn search<'a>(
        &'a self,
        host: &str,
        by_tunnels: bool,
        fits: impl Fn(&Route) -> bool,
        tunnel: impl Fn(&str) -> Option<&'a TunnelRoute>,
    ) -> Option<Found<'a>> {
        let route = |list: Option<&'a Vec<Arc<Route>>>| list?.iter().find(|route| fits(route));
        let found = better(route(self.exact.get(host)), if by_tunnels { tunnel(host) } else { None });
        if found.is_some() {
            return found;
        }
        if by_tunnels || !self.wildcard.is_empty() {
            for (dot, _) in host.match_indices('.') {
                let suffix = &host[dot..];
                let claimed = if by_tunnels && is_wildcard(suffix) { tunnel(suffix) } else { None };
                let found = better(route(self.wildcard.get(suffix)), claimed);
                if found.is_some() {
                    return found;
                }
            }
        }
        better(route(Some(&self.any)), if by_tunnels { tunnel("*") } else { None })
    }

    /// Number of distinct hosts.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.exact.len() + self.wildcard.len()
    }
}

/// Of two for the same host: the longer path, the configured one on a tie. An exact path and a regular expression are more
/// specific than every prefix.
fn better<'a>(route: Option<&'a Arc<Route>>, tunnels: Option<&'a TunnelRoute>) -> Option<Found<'a>> {
    match (route, tunnels) {
        (None, tunnels) => tunnels.map(Found::Tunnels),
        (Some(route), None) => Some(Found::Route(route)),
        (Some(route), Some(tunnels)) => match &route.path {
            Path::Prefix(prefix) if tunnels.location.trim_end_matches('/').len() > prefix.len() => {
                Some(Found::Tunnels(tunnels))
            }
            Path::Prefix(_) | Path::Exact(_) | Path::Regex(_) => Some(Found::Route(route)),
        },
    }
}

impl Path {
    fn fits(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => path == &**exact,
            Self::Regex(regex) => regex.is_match(path),
            Self::Prefix(prefix) => {
                // The prefix `/` is stored empty and matches `*` (OPTIONS) too.
                prefix.is_empty()
                    || (path.starts_with(prefix) && matches!(path.get(prefix.len()), None | Some(b'/')))
            }
        }
    }
}

impl Condition {
    fn compile(condition: &model::ValueMatch) -> Result<Self, BadRegex> {
        Ok(Self {
            name: condition.name.as_bytes().into(),
            value: match &condition.value {
                model::ValueKind::Exact(value) => Value::Exact(value.as_bytes().into()),
                model::ValueKind::Regex(regex) => Value::Regex(whole(regex)?),
                model::ValueKind::Present => Value::Present,
            },
        })
    }
}

impl Value {
    fn fits(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => value == &**exact,
            Self::Regex(regex) => regex.is_match(value),
            Self::Present => true,
        }
    }
}

/// RFC 6797 §6.1.
fn hsts_line(hsts: &model::Hsts) -> Box<[u8]> {
    let below = if hsts.include_subdomains { "; includeSubDomains" } else { "" };
    let preload = if hsts.preload { "; preload" } else { "" };
    let line = format!("Strict-Transport-Security: max-age={}{below}{preload}\r\n", hsts.max_age.as_secs());
    line.into_bytes().into()
}

/// Anchors at both ends.
fn whole(regex: &str) -> Result<Regex, BadRegex> {
    Regex::new(&format!("^(?:{regex})$"))
}

/// `name=value` pairs as written; a pair without `=` has an empty value.
fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|byte| *byte == b'&').map(|pair| match memchr::memchr(b'=', pair) {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &[] as &[u8]),
    })
}

#[cfg(test)]
mod tests;
