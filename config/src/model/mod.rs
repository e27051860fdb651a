//! What the gateway reads: every default applied, every reference resolved by name and checked.
//!
//! A value of [`Config`] only comes out of [`crate::load`] when the whole file is right, so nothing here is
//! an `Option` that means "use the default"; an `Option` means "the thing is absent".

mod pool;
mod tls;
mod tunnels;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

pub use self::pool::{
    AdaptiveLimit, Affinity, AffinityCookie, Backoff, Balance, Budget, Carries, Health, HealthCheck, Hedge,
    Hold, Limits, Locality, Outlier, Pool, PoolMember, ProxyHeader, Queue, Retry, SameSite, Secure,
    SuccessRatio,
};
pub use self::tls::{
    Acme, Certificate, Challenge, ClientAuth, ClientAuthMode, ClientRule, Hsts, Http2, Identity, ListenerTls,
    OnDemand, PoolProtocol, PoolTls, Redirect, TlsVersion, UnknownName,
};
pub use self::tunnels::{
    Agent, ClaimRule, Claims, DomainPattern, FrpsPlugin, MetadataKey, Pattern, Plugin, Takeover,
    TakeoverRule, TunnelSelector, Tunnels,
};
use crate::secret::Secret;

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Zone that the gateway itself stands in; `None` = no zone is nearer than another.
    pub zone: Option<String>,
    /// The operator's side: metrics, health, API.
    pub admin: Admin,
    /// Threads, shutdown, file descriptors.
    pub runtime: Runtime,
    /// Where one JSON line per request goes.
    pub access_log: AccessLog,
    /// The fleet of FRP servers, in file order. Names are unique.
    pub frps: Vec<Frps>,
    /// Bound addresses, in file order. Names are unique, and so are addresses, but that one `https` and one
    /// `tls_passthrough` listener may have the same.
    pub listeners: Vec<Listener>,
    /// Pools, in file order. Names are unique.
    pub pools: Vec<Pool>,
    /// Routes, in file order (the last tie-break of precedence). Names are unique.
    pub routes: Vec<Route>,
    /// The listener that frps and agents call; `None` = we are nobody's plugin.
    pub plugin: Option<Plugin>,
    /// Which proxies become private tcp ports.
    pub takeover: Takeover,
    /// Who may claim what.
    pub claims: Claims,
    /// Tunnels as routes by themselves.
    pub tunnels: Tunnels,
    /// Where one JSON line per login, claim, refusal, takeover and loss goes.
    pub audit: AccessLog,
    /// What `frp-gateway agent` does; the gateway itself doesn't read it.
    pub agent: Option<Agent>,
    /// Certificates that renew themselves; `None` = all are files.
    pub acme: Option<Acme>,
}

impl Config {
    /// The `tls_passthrough` listener that has the address of this `https` listener.
    #[must_use]
    pub fn passthrough_beside(&self, listener: &Listener) -> Option<&Listener> {
        let is_https = listener.protocol == Protocol::Https;
        self.listeners.iter().find(|other| {
            is_https && other.protocol == Protocol::TlsPassthrough && other.bind == listener.bind
        })
    }

    /// Whether a listener has sockets of its own: a `tls_passthrough` one with the address of an `https` one is served by that.
    #[must_use]
    pub fn has_own_sockets(&self, listener: &Listener) -> bool {
        listener.protocol != Protocol::TlsPassthrough
            || !self
                .listeners
                .iter()
                .any(|other| other.protocol == Protocol::Https && other.bind == listener.bind)
    }
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Address of `/metrics`, `/healthz`, `/readyz` and the API. Default `127.0.0.1:9900`.
    pub listen: SocketAddr,
    /// Bearer token of the API; required when `listen` is not a loopback address.
    pub token: Option<Secret>,
}

/// Process-wide settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Runtime {
    /// Data-plane threads, fixed at start. 0 (the default) = the number of usable cores, which the gateway finds out.
    pub workers: usize,
    /// How long a drain (SIGTERM, an upgrade, a removed listener) may take. Default 30 s.
    pub drain_timeout: Duration,
    /// How long SIGTERM only turns readiness off, before the drain begins. Default 0.
    pub drain_delay: Duration,
    /// How long an upgrade waits for the new process. Default 60 s.
    pub upgrade_timeout: Duration,
}

/// Destination of the access log. Default off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// No access log.
    #[default]
    Off,
    /// JSON lines on standard output.
    Stdout,
    /// JSON lines appended to a file (re-opened on SIGHUP).
    File(PathBuf),
}

/// One FRP server.
#[derive(Debug, Clone, PartialEq)]
pub struct Frps {
    /// Unique name: label in metrics and logs.
    pub name: String,
    /// IP address or DNS name.
    pub host: String,
    /// Zone, for locality.
    pub zone: Option<String>,
    /// Labels, by which pools can select it.
    pub labels: BTreeMap<String, String>,
    /// `bindPort` of frps.
    pub control_port: Option<u16>,
    /// Its `auth.token`: a login that knows it may replace an older connection of its client. `None` = nobody may.
    pub token: Option<Secret>,
    /// `vhostHTTPPort` of frps: what vhost pools send to.
    pub vhost_http_port: Option<u16>,
    /// `vhostHTTPSPort` of frps: where pools of TLS routes pass connections through.
    pub vhost_https_port: Option<u16>,
    /// It is being emptied: no new clients, no new requests where others can serve, its clients move away.
    pub drain: bool,
    /// Relative share in every pool that does not say otherwise. Default 1; 0 = no new traffic.
    pub weight: u32,
    /// Most requests in flight through it, over all pools and tunnels; `None` = unbounded (default).
    pub in_flight: Option<u32>,
    /// Most open connections to it for visitors, kept ones included, over all pools and tunnels; `None` = unbounded
    /// (default).
    pub connections: Option<u32>,
    /// The admin API, when it may be asked which tunnels are live.
    pub admin: Option<FrpsAdmin>,
    /// It calls us (or an agent) as its server plugin; `None` = its tunnels are used as they are. Needs `admin`.
    pub plugin: Option<FrpsPlugin>,
    /// Where its tunnels' ports are reached (`proxyBindAddr`): IP address or DNS name. Default `host`.
    pub tunnel_host: String,
    /// Its `subDomainHost`, lower case; `None` = as its admin API tells.
    pub subdomain_host: Option<String>,
    /// Text that this server's `custom404Page` contains and no application's page does. With it, only a 404
    /// that contains it is taken for frps's own.
    pub not_found_marker: Option<String>,
}

/// How to reach the admin API (`webServer`) of an frps.
#[derive(Debug, Clone, PartialEq)]
pub struct FrpsAdmin {
    /// `http://host:port` without a path.
    pub url: String,
    /// Basic-auth user.
    pub user: String,
    /// Basic-auth password.
    pub password: Secret,
    /// Time between two listings. Default 2 s, at least 100 ms.
    pub interval: Duration,
}

/// One bound address.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Unique name: label in metrics and logs.
    pub name: String,
    /// Address; port 0 lets the system choose (the log and the API tell which).
    pub bind: SocketAddr,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Where everything goes that no route takes: `tcp` and `udp` (required there), `tls_passthrough`. `None` elsewhere.
    pub pool: Option<String>,
    /// Peers that send a PROXY protocol header first, and must; from others it isn't read. Empty (default) = nobody.
    /// Never on `udp`.
    pub proxy_protocol: Vec<IpNet>,
    /// Settings of an `frp` listener; `Some` exactly there.
    pub frp: Option<FrpListener>,
    /// Certificates, where TLS ends here: always on `https`, on `frp` if they are given. `None` elsewhere.
    pub tls: Option<ListenerTls>,
    /// HTTP/2: on `https` unless it is off, on `http` (prior knowledge) if it is on. `None` elsewhere.
    pub http2: Option<Http2>,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed and extended, not replaced. Default none.
    pub trusted_proxies: Vec<IpNet>,
    /// Deadlines on the visitor's side.
    pub timeouts: ListenerTimeouts,
    /// Bounds on what a visitor may send.
    pub limits: ListenerLimits,
}

/// Protocol of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP without TLS: HTTP/1, and HTTP/2 by prior knowledge if [`Listener::http2`] is on.
    Http,
    /// HTTP behind TLS that ends here. May share its address with one `tls_passthrough` listener: names that this one knows
    /// are passed through.
    Https,
    /// Bytes, one pool.
    Tcp,
    /// TLS that ends behind us: routed by the server name of the ClientHello.
    TlsPassthrough,
    /// Datagrams, one pool.
    Udp,
    /// Control connections of frpc.
    Frp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Http, Self::Https, Self::Tcp, Self::TlsPassthrough, Self::Udp, Self::Frp];

    /// As the file writes it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::TlsPassthrough => "tls_passthrough",
            Self::Udp => "udp",
            Self::Frp => "frp",
        }
    }

    /// What a pool must carry that this listener sends to; `None` = it sends to no pool.
    #[must_use]
    pub const fn carries(self) -> Option<Carries> {
        match self {
            Self::Http | Self::Https => Some(Carries::Http),
            Self::Tcp => Some(Carries::Tcp),
            Self::TlsPassthrough => Some(Carries::Tls),
            Self::Udp => Some(Carries::Udp),
            Self::Frp => None,
        }
    }
}

/// Where an `frp` listener puts the frpc that dial it.
#[derive(Debug, Clone, PartialEq)]
pub struct FrpListener {
    /// Names of the frps with a `control_port` that clients are placed on, in file order. At least one.
    pub frps: Vec<String>,
    /// The rule that places a client.
    pub place: Place,
    /// Which clients are kept on one frps: visitors of stcp, sudp and xtcp must be where their provider is.
    pub together: Together,
}

/// The rule that places a client on an frps. Weights apply to all; health, zone and drain go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Fewest live tunnels per weight (as the admin APIs tell), then fewest clients. Default.
    LeastTunnels,
    /// Fewest clients of this gateway per weight.
    LeastClients,
    /// By hash of the client's source address.
    SourceIp,
}

/// Which clients are kept on one frps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Together {
    /// Each is placed for itself. Default.
    Nobody,
    /// Clients of one user, where the login can be read (plain, or TLS that ends here); else of one source address.
    User,
    /// Clients of one source address.
    SourceIp,
}

/// Deadlines on the visitor's side. All positive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTimeouts {
    /// From the first byte of a head to its end. Default 10 s.
    pub header: Duration,
    /// Keep-alive connection without a request. Default 75 s.
    pub idle: Duration,
    /// While a body flows or an upgraded connection is open: no byte in either direction. Default 5 min.
    pub stream_idle: Duration,
}

/// Bounds on what a visitor may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Request line and fields together, bytes. Default 32 KiB, 1 KiB to 1 MiB.
    pub head_bytes: usize,
    /// Request line, bytes. Default 8 KiB; at most `head_bytes`.
    pub request_line_bytes: usize,
    /// Number of header fields. Default 100, 1 to 1,000.
    pub headers: usize,
    /// Largest request body, bytes; `None` = unbounded (default).
    pub body_bytes: Option<u64>,
    /// Open connections; more are accepted and closed at once. Default 100,000.
    pub connections: usize,
    /// Requests in flight; more are answered 503 at once. `None` = unbounded (default).
    pub in_flight: Option<u32>,
}

/// match → weighted pools.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Unique name: label in metrics and logs. Default `route-N`, N = position from 0.
    pub name: String,
    /// What a request must look like. All given conditions hold together.
    pub matches: RouteMatch,
    /// Where it goes; weights are shares. At least one, unless [`Self::redirect`].
    pub pools: Vec<WeightedPool>,
    /// Visitors who come without TLS are sent elsewhere; others don't match the route. `None` = they are served by
    /// `pools`.
    pub redirect: Option<Redirect>,
    /// Browsers shall come by https from now on; `None` = nothing is said.
    pub hsts: Option<Hsts>,
    /// Only clients whose certificate is trusted ([`ListenerTls::client_auth`]) are served. `None` = everybody is.
    pub client: Option<ClientRule>,
    /// Longest wait for a response head, over all attempts; `None` = unbounded (`off`). Default 30 s.
    pub timeout: Option<Duration>,
    /// Names of the listeners this route is served on; empty = all.
    pub listeners: Vec<String>,
    /// Most requests in flight; more are answered 503 at once. `None` = unbounded (default).
    pub in_flight: Option<u32>,
}

/// A pool and its share of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedPool {
    /// Name of an entry of [`Config::pools`].
    pub name: String,
    /// Share; default 1; 0 = none.
    pub weight: u32,
}

/// Conditions on a request.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    /// Any of these hosts; empty = every host.
    pub hosts: Vec<HostMatch>,
    /// Condition on the path. Default `Prefix("/")`.
    pub path: PathMatch,
    /// Any of these methods (upper-case); empty = every method.
    pub methods: Vec<String>,
    /// All of these header fields.
    pub headers: Vec<ValueMatch>,
    /// All of these query parameters.
    pub query: Vec<ValueMatch>,
    /// The client's certificate is for one of these identities; empty = whatever it is for, or none.
    pub client: Vec<Identity>,
}

/// Condition on the host. Lower-case, without port or trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostMatch {
    /// This name alone.
    Exact(String),
    /// `*.suffix`: one or more labels before `suffix` (stored without `*.`).
    Wildcard(String),
}

/// Condition on the path (without the query; compared byte for byte, never decoded).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// The path is exactly this.
    Exact(String),
    /// On a segment boundary: `/api` matches `/api` and `/api/x`, not `/apix`.
    Prefix(String),
    /// The whole path matches this regular expression (anchored at both ends); checked to compile.
    Regex(String),
}

/// Condition on a named value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueMatch {
    /// Name of the header (lower-case) or query parameter (as written).
    pub name: String,
    /// What its value must be.
    pub value: ValueKind,
}

/// What a named value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueKind {
    /// Exactly this.
    Exact(String),
    /// The whole value matches this regular expression; checked to compile.
    Regex(String),
    /// The name is there, whatever its value.
    Present,
}
