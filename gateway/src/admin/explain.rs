//! `POST /api/v1/explain`: what would become of a request. Nothing is sent anywhere.

use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::App;
use frp_gateway_config::model::Protocol;

use crate::{
    clock,
    control::state::State as ControlState,
    data::explain::{Asked, explain as explain_request},
    snapshot::{Listener, Snapshot},
};

/// The question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// `http://host[:port]/path?query`; the scheme may be left out.
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
        let head = Head::of(&ask)?;
        let listener = listener(&state, &snapshot, ask.listener.as_deref(), head.port)?;
        Ok(explain_request(&Asked {
            snapshot: &snapshot,
            listener,
            method: &ask.method,
            url: &head.url,
            wire: &head.wire,
            peer: ask.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            now: clock::now(),
            seed: RandomState::new().hash_one(0),
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
            _ => return Err(not_a_url("the scheme must be http or https")),
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
        Ok(Self { wire: wire.into_bytes(), url, port: uri.port_u16().unwrap_or(default) })
    }
}

/// The listener that is meant: the one named, or the one on that port, or the only one.
fn listener<'a>(
    state: &ControlState,
    snapshot: &'a Snapshot,
    name: Option<&str>,
    port: u16,
) -> Result<&'a Arc<Listener>, Fault> {
    // One that was removed stays in the snapshot until its visitors are gone. Requests are seen on http listeners alone.
    let configured = |listener: &&Arc<Listener>| {
        let mut all = state.config.iter().flat_map(|config| &config.listeners);
        all.any(|known| *known.name == *listener.name && known.protocol == Protocol::Http)
    };
    let all: Vec<_> = snapshot.listeners.iter().flatten().filter(configured).collect();
    let address = |listener: &Listener| state.addresses.get(&*listener.name);
    let choices = || {
        let told = |listener: &&Arc<Listener>| match address(listener) {
            Some(address) => format!("{} ({address})", listener.name),
            None => listener.name.to_string(),
        };
        all.iter().map(told).collect()
    };
    if let Some(name) = name {
        return all.iter().find(|listener| &*listener.name == name).copied().ok_or_else(|| Fault {
            error: format!("no http listener is called {name:?}"),
            choices: choices(),
        });
    }
    let on_port: Vec<_> =
        all.iter().filter(|listener| address(listener).is_some_and(|at| at.port() == port)).collect();
    match (on_port.as_slice(), all.as_slice()) {
        ([only], _) => Ok(only),
        (_, [only]) => Ok(only),
        (_, []) => Err(Fault::new("there is no http listener")),
        ([], _) => Err(Fault {
            error: format!("no listener is on port {port}: say which one is meant"),
            choices: choices(),
        }),
        (_, _) => Err(Fault {
            error: format!("several listeners are on port {port}: say which one is meant"),
            choices: choices(),
        }),
    }
}

#[cfg(test)]
mod tests;
