//! Connections that are asked about: `tcp://HOST:PORT`, `udp://HOST:PORT`, `tls://NAME[:PORT]`, or a listener's name alone.

use std::net::IpAddr;

use axum::http::Uri;
use frp_gateway_config::model::Protocol;

use super::{Ask, Fault, Listeners};

/// A connection as a visitor would make it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) protocol: Protocol,
    /// The server that its TLS asks for; empty = none.
    pub(super) name: String,
    /// Of the URL, where it names them.
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    /// To be shown.
    pub(super) url: String,
}

impl Line {
    /// The connection that `ask` means; `None` when it means a request.
    pub(super) fn of(ask: &Ask, listeners: &Listeners<'_>) -> Result<Option<Self>, Fault> {
        let protocol =
            match ask.url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
                Some("tcp") => Protocol::Tcp,
                Some("udp") => Protocol::Udp,
                Some("tls") => Protocol::TlsPassthrough,
                Some(_) => return Ok(None),
                // The listener says what comes in there.
                None => match ask.listener.as_deref().and_then(|name| listeners.protocol(name)) {
                    Some(protocol @ (Protocol::Tcp | Protocol::Udp | Protocol::TlsPassthrough)) => protocol,
                    Some(Protocol::Http | Protocol::Https | Protocol::Frp) | None => return Ok(None),
                },
            };
        if !ask.headers.is_empty() || ask.method != "GET" {
            return Err(Fault::new(format!(
                "a connection ({}) has no method and no headers",
                scheme(protocol)
            )));
        }
        let (host, port) = if ask.url.is_empty() { (None, None) } else { place(&ask.url, protocol)? };
        // Who connects to an address asks for no name.
        let name = match (&host, protocol) {
            (Some(host), Protocol::TlsPassthrough) if bare(host).parse::<IpAddr>().is_err() => {
                host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
            }
            (
                _,
                Protocol::Http
                | Protocol::Https
                | Protocol::Tcp
                | Protocol::TlsPassthrough
                | Protocol::Udp
                | Protocol::Frp,
            ) => String::new(),
        };
        let mut url = format!("{}://{}", scheme(protocol), host.as_deref().unwrap_or_default());
        if let Some(port) = port {
            url += &format!(":{port}");
        }
        if host.is_none() {
            url += ask.listener.as_deref().unwrap_or_default();
        }
        Ok(Some(Self { protocol, name, host, port, url }))
    }
}

/// What a URL of this protocol begins with.
pub(super) const fn scheme(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Https => "https",
        Protocol::Tcp => "tcp",
        Protocol::TlsPassthrough => "tls",
        Protocol::Udp => "udp",
        Protocol::Frp => "frp",
    }
}

/// An IPv6 address without its brackets.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Host and port of a URL that has nothing else.
fn place(url: &str, protocol: Protocol) -> Result<(Option<String>, Option<u16>), Fault> {
    let scheme = scheme(protocol);
    let wrong = |why: &str| {
        let example =
            if protocol == Protocol::TlsPassthrough { "shop.example.com:443" } else { "127.0.0.1:6000" };
        Fault::new(format!("url: {why}, e.g. {scheme}://{example}"))
    };
    let text = if url.contains("://") { url.to_owned() } else { format!("{scheme}://{url}") };
    let uri: Uri = text.parse().map_err(|error| wrong(&format!("{error}")))?;
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return Err(wrong("it names no host"));
    };
    if authority.as_str().contains('@') {
        return Err(wrong("no user and password, please"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("a connection has no path"));
    }
    // `host:` and `host:99999` have no port that could be read, and mean one.
    let port = uri.port_u16();
    if port.is_none() && authority.as_str() != authority.host() {
        return Err(wrong("its port is none"));
    }
    Ok((Some(authority.host().to_owned()), port))
}
