//! A tunnel that a visitor comes to by takeover or through frps's vhost, and visitors of every kind of HTTP.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::panic,
    reason = "each test file uses its own part"
)]

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use frp_gateway_loadtest::lab::{Frpc, Proxy, until};
use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{http1, http2},
    http::request::Builder,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{
    takeover::{SOON, World},
    tls::{Authority, dial},
};

/// The host of every tunnel here.
pub const HOST: &str = "app.test";

/// How a request gets from the gateway to the frpc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Over a port of the tunnel's own.
    Takeover,
    /// Through frps's `vhostHTTPPort`.
    Vhost,
}

impl Way {
    pub const ALL: [Self; 2] = [Self::Takeover, Self::Vhost];
}

/// What a visitor speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    Http1,
    Http1Tls,
    Http2Tls,
}

impl Speech {
    pub const ALL: [Self; 3] = [Self::Http1, Self::Http1Tls, Self::Http2Tls];

    /// What TLS agrees on for it; `None` = it needs none.
    pub const fn alpn(self) -> Option<&'static str> {
        match self {
            Self::Http1 => None,
            Self::Http1Tls => Some("http/1.1"),
            Self::Http2Tls => Some("h2"),
        }
    }

    /// The start of a request in it.
    pub fn request(self, method: &str, path: &str) -> Builder {
        match self {
            Self::Http1 | Self::Http1Tls => Request::builder().method(method).uri(path).header("host", HOST),
            Self::Http2Tls => Request::builder().method(method).uri(format!("https://{HOST}{path}")),
        }
    }

    /// A WebSocket's handshake in it.
    pub fn websocket(self, path: &str) -> Request<Body> {
        let request = match self {
            Self::Http1 | Self::Http1Tls => self
                .request("GET", path)
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            Self::Http2Tls => {
                self.request("CONNECT", path).extension(hyper::ext::Protocol::from_static("websocket"))
            }
        };
        request.header("sec-websocket-version", "13").body(nothing()).expect("a request")
    }
}

/// Body of a request.
pub type Body = BoxBody<Bytes, Infallible>;

pub fn nothing() -> Body {
    Empty::new().boxed()
}

/// One frps, frpc for each proxy, and a gateway that takes them over or leaves them to the vhost.
pub struct Ground {
    pub world: World,
    pub authority: Authority,
    pub secure: SocketAddr,
    pub frpc: Vec<Frpc>,
}

impl Ground {
    /// `frps`: their names. Each has one frpc with the proxy that `proxies` has at its place. `pool`: keys of the pool that all
    /// endpoints are in.
    pub async fn start(way: Way, frps: &[&'static str], proxies: Vec<Proxy>, pool: &str) -> Self {
        let authority = Authority::new();
        let pair = authority.issue("app", &[HOST]);
        let mut world = World::fleet(frps, "", |options| options).await;
        let web = format!("{{ name: web, bind: \"{}\" }}", world.web);
        let secure = format!(
            "{{ name: secure, bind: \"127.0.0.1:0\", protocol: https, tls: {{ certificates: [{pair}] }} }}"
        );
        world.instead.push((web.clone(), format!("{web}\n  - {secure}")));
        world.rest = match way {
            Way::Takeover => format!(
                "tunnels: {{ serve: true, pool: {{ {pool} }} }}\npools: [ {{ name: default, {pool} }} ]\naccess_log: stdout"
            ),
            Way::Vhost => format!(
                "takeover: {{ http: false }}\ntunnels: {{ serve: false }}\n\
                 pools: [ {{ name: all, {pool} }} ]\nroutes: [ {{ pool: all }} ]\naccess_log: stdout"
            ),
        };
        world.start_gateway().await;
        let mut frpc = Vec::new();
        for (at, proxy) in proxies.into_iter().enumerate() {
            frpc.push(world.frpc(at, "alice", vec![proxy]).await);
        }
        let secure = world.gateway().listener("secure").await.expect("it listens");
        Self { world, authority, secure, frpc }
    }

    /// A connection in this speech.
    pub async fn visitor(&self, speech: Speech) -> Visitor {
        let Some(protocol) = speech.alpn() else {
            let stream = TcpStream::connect(self.world.web).await.expect("in");
            stream.set_nodelay(true).expect("a socket");
            return Visitor::over(speech, stream).await;
        };
        let config = self.authority.visitor(&[protocol]);
        let stream = dial(self.secure, HOST, &config).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()), "what was agreed on");
        let mut visitor = Visitor::over(speech, stream).await;
        if speech == Speech::Http2Tls {
            // The first answer comes behind the settings, which say that WebSockets are possible.
            drop(visitor.ask("HEAD", "/settings", nothing()).await);
        }
        visitor
    }

    /// Resident memory of the gateway now, and the most it ever was, MiB: by the system's own account.
    pub fn memory(&self) -> (f64, f64) {
        let path = format!("/proc/{}/status", self.world.gateway().pid());
        let text = std::fs::read_to_string(path).expect("it runs");
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a number");
            let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
            kib / 1024.0
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    /// Waits for a line of the access log with this target, and returns the last one.
    pub async fn logged(&self, target: &str) -> serde_json::Value {
        let fits = |line: &serde_json::Value| line["target"] == target;
        until(&format!("a line for {target}"), SOON, async || {
            let log = self.world.gateway().log();
            log.lines().filter_map(|line| serde_json::from_str(line).ok()).rfind(fits)
        })
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", self.world.gateway().log()))
    }
}

/// A visitor's connection.
pub struct Visitor {
    speech: Speech,
    sender: Sender,
}

enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Visitor {
    /// Speaks it over a connection on which that was agreed.
    pub async fn over<S>(speech: Speech, stream: S) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        let sender = match speech {
            Speech::Http1 | Speech::Http1Tls => {
                let (sender, connection) = http1::handshake(stream).await.expect("HTTP/1");
                tokio::spawn(connection.with_upgrades());
                Sender::One(sender)
            }
            Speech::Http2Tls => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
                tokio::spawn(connection);
                Sender::Two(sender)
            }
        };
        Self { speech, sender }
    }

    pub const fn speech(&self) -> Speech {
        self.speech
    }

    pub async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// The same connection once more, for another stream.
    pub fn twin(&self) -> Self {
        match &self.sender {
            Sender::One(_) => panic!("a connection of HTTP/1 has one request at a time"),
            Sender::Two(sender) => Self { speech: self.speech, sender: Sender::Two(sender.clone()) },
        }
    }

    pub async fn ask(&mut self, method: &str, path: &str, body: Body) -> hyper::Result<Response<Incoming>> {
        let request = self.speech.request(method, path).body(body).expect("a request");
        self.send(request).await
    }
}

/// All of an answer's body.
pub async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}
