//! Why a route was found and the others were not. Read by `explain`, never by requests.

use std::{fmt, sync::Arc};

use frp_gateway_config::model::{DomainPattern, Identity};

use super::{Path, Request, Route, Router, Value, parameters};

/// What was found out about one route.
#[derive(Debug)]
pub struct Judged {
    /// The route.
    pub route: Arc<Route>,
    /// The verdict.
    pub verdict: Verdict,
}

/// What became of a route for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It serves the request.
    Matched,
    /// It would, but this one, which precedes it, does.
    LessSpecific(Arc<str>),
    /// It is for these hosts.
    Host(Vec<String>),
    /// It is for other paths.
    Path(String),
    /// It is for these methods.
    Method(Vec<String>),
    /// This header field is absent, or none of its values fits.
    Header {
        /// Its name.
        name: String,
        /// The request has one of that name.
        present: bool,
    },
    /// This query parameter is absent, or its value doesn't fit.
    Query {
        /// Its name.
        name: String,
        /// The request has one of that name.
        present: bool,
    },
    /// It is for visitors who come without TLS.
    Https,
    /// It is for other clients, by their certificates.
    Client {
        /// The client has shown one.
        present: bool,
    },
}

impl Verdict {
    /// One word: `matched`, or which condition failed.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::LessSpecific(_) => "less_specific",
            Self::Host(_) => "host",
            Self::Path(_) => "path",
            Self::Method(_) => "method",
            Self::Header { .. } => "header",
            Self::Query { .. } => "query",
            Self::Https => "https",
            Self::Client { .. } => "client",
        }
    }
}

/// A short sentence. Never a value of a header or parameter, neither the request's nor the expected one: both may be secret.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |present: &bool| if *present { "has another value" } else { "is absent" };
        match self {
            Self::Matched => f.write_str("matched"),
            Self::LessSpecific(other) => write!(f, "less specific than {other}"),
            Self::Host(hosts) => write!(f, "host: only {}", hosts.join(", ")),
            Self::Path(path) => write!(f, "path: only {path}"),
            Self::Method(methods) => write!(f, "method: only {}", methods.join(", ")),
            Self::Header { name, present } => write!(f, "header {name} {}", value(present)),
            Self::Query { name, present } => write!(f, "query {name} {}", value(present)),
            Self::Https => f.write_str("https: it sends there who isn't there yet"),
            Self::Client { present: true } => f.write_str("client: the certificate is another's"),
            Self::Client { present: false } => f.write_str("client: no certificate was shown"),
        }
    }
}

impl Router {
    /// Every route that is filed here, in order of precedence for this request: those of its host first, then the rest by
    /// name. At most one is [`Verdict::Matched`], and it is what [`Router::find`] finds. O(routes).
    #[must_use]
    pub fn judge(&self, request: &impl Request) -> Vec<Judged> {
        let host = request.host();
        let wildcards = host.match_indices('.').filter_map(|(dot, _)| self.wildcard.get(&host[dot..]));
        let asked = self.exact.get(host).into_iter().chain(wildcards).chain([&self.any]).flatten();
        let mut judged: Vec<Judged> = Vec::new();
        let mut winner = None;
        for route in asked {
            if judged.iter().any(|one| Arc::ptr_eq(&one.route, route)) {
                continue;
            }
            let verdict = match (route.misfit(request), &winner) {
                (Some(misfit), _) => misfit,
                (None, Some(winner)) => Verdict::LessSpecific(Arc::clone(winner)),
                (None, None) => {
                    winner = Some(Arc::clone(&route.name));
                    Verdict::Matched
                }
            };
            judged.push(Judged { route: Arc::clone(route), verdict });
        }
        let of_host = judged.len();
        for route in self.exact.values().chain(self.wildcard.values()).flatten() {
            if !judged.iter().any(|one| Arc::ptr_eq(&one.route, route)) {
                let verdict = Verdict::Host(self.hosts_of(route));
                judged.push(Judged { route: Arc::clone(route), verdict });
            }
        }
        judged[of_host..].sort_by(|one, other| one.route.name.cmp(&other.route.name));
        judged
    }

    /// The hosts that a route is filed under, in order.
    fn hosts_of(&self, route: &Arc<Route>) -> Vec<String> {
        let has = |list: &[Arc<Route>]| list.iter().any(|other| Arc::ptr_eq(other, route));
        let exact = self.exact.iter().filter(|(_, list)| has(list)).map(|(host, _)| host.to_string());
        let wild = self.wildcard.iter().filter(|(_, list)| has(list)).map(|(suffix, _)| format!("*{suffix}"));
        let mut hosts: Vec<String> = exact.chain(wild).collect();
        hosts.sort();
        hosts
    }
}

impl Route {
    /// The first condition other than the host that doesn't hold; `None` when the route fits.
    fn misfit(&self, request: &impl Request) -> Option<Verdict> {
        if !self.path.fits(request.path()) {
            return Some(Verdict::Path(self.path.to_string()));
        }
        if !self.methods.is_empty() && !self.methods.iter().any(|method| **method == *request.method()) {
            return Some(Verdict::Method(self.methods.iter().map(|method| text(method)).collect()));
        }
        for condition in &self.headers {
            let mut present = false;
            let fits = request.any_header(&condition.name, &mut |value| {
                present = true;
                condition.value.fits(value)
            });
            if !fits {
                return Some(Verdict::Header { name: text(&condition.name), present });
            }
        }
        for condition in &self.query {
            let found =
                parameters(request.query().unwrap_or_default()).find(|(name, _)| *name == &*condition.name);
            if !found.is_some_and(|(_, value)| condition.value.fits(value)) {
                return Some(Verdict::Query { name: text(&condition.name), present: found.is_some() });
            }
        }
        if !self.fits_client(request) {
            return Some(Verdict::Client { present: request.client().is_some() });
        }
        if !self.fits_connection(request) {
            return Some(Verdict::Https);
        }
        None
    }

    /// What it asks of a request beside the host, in words; empty when anything will do.
    #[must_use]
    pub fn conditions(&self) -> String {
        let mut all = Vec::new();
        if !matches!(&self.path, Path::Prefix(prefix) if prefix.is_empty()) {
            all.push(format!("path {}", self.path));
        }
        if !self.methods.is_empty() {
            let methods: Vec<_> = self.methods.iter().map(|method| text(method)).collect();
            all.push(format!("method {}", methods.join(" or ")));
        }
        let mut values = |what: &str, conditions: &[super::Condition]| {
            for condition in conditions {
                let how = match condition.value {
                    Value::Present => " present",
                    Value::Exact(_) | Value::Regex(_) => "",
                };
                all.push(format!("{what} {}{how}", text(&condition.name)));
            }
        };
        values("header", &self.headers);
        values("query", &self.query);
        if !self.clients.is_empty() {
            all.push(format!("client {}", shown(&self.clients)));
        }
        all.join(", ")
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "= {}", text(path)),
            // Stored with anchors; shown as it was written.
            Self::Regex(regex) => {
                let shown = regex.as_str();
                let inner = shown.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$"));
                write!(f, "~ {}", inner.unwrap_or(shown))
            }
            Self::Prefix(path) if path.is_empty() => f.write_str("/…"),
            Self::Prefix(path) => write!(f, "{}/…", text(path)),
        }
    }
}

/// As the file writes them.
fn shown(clients: &[Identity]) -> String {
    let word = |client: &Identity| match client {
        Identity::Uri(pattern) => pattern.0.clone(),
        Identity::Dns(DomainPattern::Any) => "dns:*".to_owned(),
        Identity::Dns(DomainPattern::Exact(name)) => format!("dns:{name}"),
        Identity::Dns(DomainPattern::Below(suffix)) => format!("dns:*.{}", suffix.trim_start_matches('.')),
        Identity::CommonName(pattern) => format!("cn:{}", pattern.0),
    };
    clients.iter().map(word).collect::<Vec<_>>().join(" or ")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
