//! `POST /api/v1/explain`: what would become of a request or of a connection. Nothing is sent anywhere.

mod line;

use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use self::line::Line;
use super::App;
use frp_gateway_config::model::Protocol;

use crate::{
    clock,
    control::state::State as ControlState,
    data::explain::{Asked, Connecting, explain as explain_request, explain_connection},
    snapshot::{Listener, Snapshot},
    tls::ClientIdentity,
};

/// The question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// `http://host[:port]/path?query`; the scheme may be left out. Or a connection: `tcp://host:port`, `udp://host:port`,
    /// `tls://name[:port]`, an address there for one that asks for no name. May be left out where a listener of connections
    /// is named.
    #[serde(default)]
    pub url: String,
    /// Default `GET`.
    #[serde(default = "get")]
    pub method: String,
    /// Pairs of name and value, in order. A `Host` here replaces the URL's.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Who asks; default `127.0.0.1`.
    #[serde(default)]
    pub from: Option<IpAddr>,
    /// Whose certificate is shown: `spiffe://…`, `dns:NAME` or `cn:TEXT`. Default: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Where it comes in; may be left out where the URL's port, or there being only one, tells.
    #[serde(default)]
    pub listener: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// One sentence.
    pub error: String,
    /// What may be said instead, where that is a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
}

impl Fault {
    fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), choices: Vec::new() }
    }
}

/// Explains: 200, or 400 with a [`Fault`] when the question makes no sense.
pub async fn explain(State(app): State<App>, ask: Result<Json<Ask>, JsonRejection>) -> Response {
    let answer = ask.map_err(|rejection| Fault::new(rejection.body_text())).and_then(|Json(ask)| {
        let (state, snapshot) = (app.control.state(), app.published.load_full());
        let listeners = Listeners { state: &state, snapshot: &snapshot };
        let peer = ask.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (now, seed) = (clock::now(), RandomState::new().hash_one(0));
        if let Some(line) = Line::of(&ask, &listeners)? {
            return Ok(explain_connection(&Connecting {
                snapshot: &snapshot,
                listener: listeners.for_line(ask.listener.as_deref(), &line)?,
                name: &line.name,
                url: &line.url,
                peer,
                now,
                seed,
            }));
        }
        if let Some(fault) = ask.listener.as_deref().and_then(|name| listeners.is_not_for_requests(name)) {
            return Err(fault);
        }
        let head = Head::of(&ask)?;
        let listener = listeners.for_request(ask.listener.as_deref(), &head)?;
        let client = ask.client.as_deref().map(|client| {
            ClientIdentity::supposed(client).ok_or_else(|| {
                Fault::new(format!("client: {client:?} is neither spiffe://…, dns:NAME nor cn:TEXT"))
            })
        });
        let client = client.transpose()?;
        Ok(explain_request(&Asked {
            snapshot: &snapshot,
            listener,
            method: &ask.method,
            url: &head.url,
            wire: &head.wire,
            peer,
            client: client.as_ref(),
            now,
            seed,
        }))
    });
    match answer {
        Ok(explanation) => Json(explanation).into_response(),
        Err(fault) => (StatusCode::BAD_REQUEST, Json(fault)).into_response(),
    }
}

/// A request's head as a visitor would send it.
struct Head {
    wire: Vec<u8>,
    /// To be shown: no query.
    url: String,
    port: u16,
    https: bool,
}

impl Head {
    fn of(ask: &Ask) -> Result<Self, Fault> {
        let text = if ask.url.contains("://") { ask.url.clone() } else { format!("http://{}", ask.url) };
        let example = "e.g. http://shop.example.com/api";
        let not_a_url = |why: &str| Fault::new(format!("url: {why}, {example}"));
        let uri: Uri = text.parse().map_err(|error| not_a_url(&format!("{error}")))?;
        let default = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => {
                return Err(not_a_url(
                    "the scheme must be http or https, or tcp, udp or tls for a connection",
                ));
            }
        };
        let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
            return Err(not_a_url("it names no host"));
        };
        if authority.as_str().contains('@') {
            return Err(not_a_url("no user and password, please: send the header they stand for"));
        }
        if Method::from_bytes(ask.method.as_bytes()).is_err() {
            return Err(Fault::new(format!("method: {:?} is none", ask.method)));
        }
        let target = match (ask.method.as_str(), uri.path_and_query()) {
            ("CONNECT", _) => authority.as_str(),
            (_, Some(target)) if target.as_str().starts_with('/') => target.as_str(),
            _ => "/",
        };
        let mut wire = format!("{} {target} HTTP/1.1\r\n", ask.method);
        if !ask.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            wire += &format!("Host: {authority}\r\n");
        }
        for (name, value) in &ask.headers {
            // The value may be a secret: it isn't repeated.
            if HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(value).is_err() {
                return Err(Fault::new(format!("headers: {name:?} is not a header that can be sent")));
            }
            wire += &format!("{name}: {value}\r\n");
        }
        wire += "\r\n";
        let query = if uri.query().is_some() { "?…" } else { "" };
        let url = format!("{}://{authority}{}{query}", uri.scheme_str().unwrap_or("http"), uri.path());
        let https = uri.scheme_str() == Some("https");
        Ok(Self { wire: wire.into_bytes(), url, port: uri.port_u16().unwrap_or(default), https })
    }
}

/// The listeners, to find the one that is meant.
struct Listeners<'a> {
    state: &'a ControlState,
    snapshot: &'a Snapshot,
}

impl<'a> Listeners<'a> {
    /// Those of this protocol. One that was removed stays in the snapshot until its visitors are gone; it isn't meant.
    fn of(&self, protocol: Protocol) -> Vec<&'a Arc<Listener>> {
        let configured = |listener: &&Arc<Listener>| self.protocol(&listener.name) == Some(protocol);
        self.snapshot.listeners.iter().flatten().filter(configured).collect()
    }

    /// What is spoken on the one of this name.
    fn protocol(&self, name: &str) -> Option<Protocol> {
        let mut all = self.state.config.iter().flat_map(|config| &config.listeners);
        all.find(|known| *known.name == *name).map(|known| known.protocol)
    }

    fn address(&self, listener: &Listener) -> Option<SocketAddr> {
        self.state.addresses.get(&*listener.name).copied()
    }

    fn fault(&self, error: String, among: &[&Arc<Listener>]) -> Fault {
        let told = |listener: &&Arc<Listener>| match self.address(listener) {
            Some(address) => format!("{} ({address})", listener.name),
            None => listener.name.to_string(),
        };
        Fault { error, choices: among.iter().map(told).collect() }
    }

    fn named(&self, name: &str, all: &[&'a Arc<Listener>], word: &str) -> Result<&'a Arc<Listener>, Fault> {
        let found = all.iter().find(|listener| &*listener.name == name).copied();
        found.ok_or_else(|| self.fault(format!("no {word} listener is called {name:?}"), all))
    }

    /// Why nobody can ask for a request there; `None` = it serves requests, or there is no such listener.
    fn is_not_for_requests(&self, name: &str) -> Option<Fault> {
        let protocol = self.protocol(name)?;
        let instead = match protocol {
            Protocol::Http | Protocol::Https => return None,
            Protocol::Frp => {
                "clients of FRP are placed there, not routed: `frp-gateway status` shows where".to_owned()
            }
            Protocol::Tcp | Protocol::Udp | Protocol::TlsPassthrough => {
                format!("ask for a connection, {}://HOST:PORT", line::scheme(protocol))
            }
        };
        Some(Fault::new(format!(
            "listener {name:?} is no http listener (protocol: {}): {instead}",
            protocol.word()
        )))
    }

    /// For a request: the one named, or the one on that port, or the only one.
    /// Those of the URL's scheme; of the other one where there is none: something before the gateway may end TLS.
    fn for_request(&self, name: Option<&str>, head: &Head) -> Result<&'a Arc<Listener>, Fault> {
        let (mut all, mut others) = (self.of(Protocol::Http), self.of(Protocol::Https));
        if let Some(name) = name {
            all.append(&mut others);
            return self.named(name, &all, "http");
        }
        if head.https || all.is_empty() {
            std::mem::swap(&mut all, &mut others);
        }
        if all.is_empty() {
            all = others;
        }
        let port = head.port;
        match (self.on_port(&all, port).as_slice(), all.as_slice()) {
            ([only], _) | (_, [only]) => Ok(only),
            (_, []) => Err(Fault::new("there is no http listener")),
            ([], _) => {
                Err(self.fault(format!("no listener is on port {port}: say which one is meant"), &all))
            }
            (_, _) => {
                Err(self.fault(format!("several listeners are on port {port}: say which one is meant"), &all))
            }
        }
    }

    /// For a connection: the one named, or the one on that port. A server name may come in by another port than ours, so there
    /// the only one will do; where the port is all there is, it must be right.
    fn for_line(&self, name: Option<&str>, line: &Line) -> Result<&'a Arc<Listener>, Fault> {
        let (all, word) = (self.of(line.protocol), line.protocol.word());
        if let Some(name) = name {
            return self.named(name, &all, word);
        }
        let by_name = line.protocol == Protocol::TlsPassthrough;
        let Some(port) = line.port.or(by_name.then_some(443)) else {
            let error =
                format!("url: it names no port, e.g. {}://127.0.0.1:6000", line::scheme(line.protocol));
            return Err(self.fault(error, &all));
        };
        let mut on_port = self.on_port(&all, port);
        let host = line.host.as_deref().and_then(|host| line::bare(host).parse::<IpAddr>().ok());
        if on_port.len() > 1 && host.is_some() {
            on_port.retain(|listener| self.address(listener).map(|at| at.ip()) == host);
        }
        match (on_port.as_slice(), all.as_slice()) {
            ([only], _) => Ok(only),
            (_, [only]) if by_name => Ok(only),
            (_, []) => Err(Fault::new(format!("there is no {word} listener"))),
            ([], _) => Err(self.fault(format!("no {word} listener is on port {port}"), &all)),
            (_, _) => Err(self
                .fault(format!("several {word} listeners are on port {port}: say which one is meant"), &all)),
        }
    }

    fn on_port(&self, all: &[&'a Arc<Listener>], port: u16) -> Vec<&'a Arc<Listener>> {
        let is_there =
            |listener: &&&Arc<Listener>| self.address(listener).is_some_and(|at| at.port() == port);
        all.iter().filter(is_there).copied().collect()
    }
}

#[cfg(test)]
mod tests;
