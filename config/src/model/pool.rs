//! A pool: its members, the rule that picks, what keeps bad members out, what bounds the work.

use std::time::Duration;

use super::TunnelSelector;
use super::tls::{PoolProtocol, PoolTls};
use crate::secret::Secret;

/// A set of endpoints under one policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Unique name: label in metrics and logs.
    pub name: String,
    /// What is sent to it, by what leads to it: routes of http listeners or none (`Http`), routes of `tls_passthrough`
    /// listeners (`Tls`), a `tcp` or `udp` listener.
    pub carries: Carries,
    /// Members, in file order. Each names an frps that has the port that [`Pool::carries`] needs: `vhost_http_port`,
    /// `vhost_https_port`, or [`PoolMember::port`]. Empty with [`Pool::tunnels`].
    pub frps: Vec<PoolMember>,
    /// The members are the live tunnels that fit, each for itself, of the type that [`Pool::carries`] says; `None` = the
    /// pool is made of [`Pool::frps`].
    pub tunnels: Option<TunnelSelector>,
    /// The rule that picks. Default `round_robin`.
    pub balance: Balance,
    /// `peak_ewma`: time in which what is known of a latency fades to 1/e. Default 2 s.
    pub latency_decay: Duration,
    /// Hashing (`maglev`, `ring_hash`, keyed affinity): most in-flight requests of a member, in percent of its fair share,
    /// at least 100; `None` = unbounded. Default 125.
    pub hash_bound: Option<u32>,
    /// Preference of one visitor for one endpoint; `None` = none.
    pub affinity: Option<Affinity>,
    /// Time in which a member that joins or comes back grows to its full weight; `None` = at once.
    pub slow_start: Option<Duration>,
    /// Preference for the gateway's own zone.
    pub locality: Locality,
    /// Under this share of healthy members, percent of their number, health is ignored. 0 = never (default).
    pub panic_threshold: u32,
    /// Active health checks; `None` = none.
    pub health: Option<Health>,
    /// Ejection of members by what real traffic shows; `None` = none.
    pub outlier: Option<Outlier>,
    /// Bounds per member.
    pub limits: Limits,
    /// Retry rules.
    pub retry: Retry,
    /// Requests wait for a member while there is none that can serve; `None` = never.
    pub hold: Option<Hold>,
    /// PROXY protocol header that begins each connection to a member: `Tcp` and `Tls` alone. `None` = none.
    pub proxy_protocol: Option<ProxyHeader>,
    /// What is spoken to the members: `Http` alone. A tunnel may say otherwise for itself (`gw_protocol`).
    pub protocol: PoolProtocol,
    /// TLS to the members: pools of frps that carry `Http` alone. `None` = none.
    pub tls: Option<PoolTls>,
    /// Deadline of one TCP connect. Default 2 s.
    pub connect_timeout: Duration,
    /// How long an unused connection to an endpoint is kept. Default 60 s.
    pub keepalive: Duration,
    /// How long an endpoint stays out after a refused or timed-out connect (doubles up to 8 ×). Default 1 s.
    pub fail_timeout: Duration,
    /// How long an endpoint stays out for a host and path where its frps said "no such tunnel". Default 5 s.
    pub absent_timeout: Duration,
}

/// One member of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolMember {
    /// Name of an entry of [`super::Config::frps`].
    pub frps: String,
    /// Share within this pool; defaults to the frps's own weight. 0 = no new traffic.
    pub weight: u32,
    /// `tcp` and `udp`: the remote port on this frps; the pool's `port` unless it says otherwise. `None` elsewhere.
    pub port: Option<u16>,
    /// 0 (default) is used first; members of a higher number stand by until no lower one is eligible. At most 7.
    pub priority: u32,
}

/// What is sent to a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carries {
    /// HTTP requests: http tunnels, or vhost http ports.
    Http,
    /// TLS connections that nobody here opens: https tunnels, or vhost https ports.
    Tls,
    /// Connections: tcp tunnels.
    Tcp,
    /// Datagrams: udp tunnels.
    Udp,
}

impl Carries {
    /// As error messages and the API write it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// How long, and how many, requests wait for a tunnel that is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Longest wait of one request. Default 3 s.
    pub time: Duration,
    /// Most requests that wait for one pool at a time. Default 1,000.
    pub requests: u32,
    /// Most bytes of heads and bodies that they hold together. Default 16 MiB.
    pub bytes: u64,
}

/// Version of the PROXY protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The rule that picks (`balance:`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin.
    RoundRobin,
    /// Weighted random.
    Random,
    /// Fewest requests in flight per weight.
    LeastRequest,
    /// Lowest latency × in-flight per weight.
    PeakEwma,
    /// Consistent hashing by a table (Maglev).
    Maglev,
    /// Consistent hashing on a ring (ketama).
    RingHash,
}

/// Preference of one visitor for one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Affinity {
    /// A cookie names the endpoint.
    Cookie(AffinityCookie),
    /// Hash of this header field (lower-case name).
    Header(String),
    /// Hash of this query parameter (as written).
    Query(String),
    /// Hash of the visitor's address, cut to these prefix lengths.
    SourceIp {
        /// Bits of an IPv4 address, 1 to 32. Default 32.
        ipv4_prefix: u8,
        /// Bits of an IPv6 address, 1 to 128. Default 64: one site.
        ipv6_prefix: u8,
    },
}

/// Affinity by an encrypted cookie. It names nothing that a visitor could read or forge.
#[derive(Debug, Clone, PartialEq)]
pub struct AffinityCookie {
    /// Name of the cookie. Default `gw`.
    pub name: String,
    /// Secret that seals new cookies; the same in all gateways that stand in for each other. At least 32 characters.
    pub key: Secret,
    /// The secret before: its cookies are still believed, and sealed anew.
    pub old_key: Option<Secret>,
    /// Longest life of a session; `None` = until the browser is closed.
    pub ttl: Option<Duration>,
    /// A session unused for this long ends; `None` = never.
    pub idle: Option<Duration>,
    /// `Path` of the cookie. Default `/`.
    pub path: String,
    /// `Domain` of the cookie; `None` = the host alone.
    pub domain: Option<String>,
    /// `Secure` of the cookie. Default auto.
    pub secure: Secure,
    /// `HttpOnly` of the cookie. Default true.
    pub http_only: bool,
    /// `SameSite` of the cookie. Default lax.
    pub same_site: SameSite,
    /// Whether a request whose endpoint is gone gets 503 rather than another endpoint. Default false.
    pub strict: bool,
}

/// When a cookie is `Secure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secure {
    /// When the visitor speaks HTTPS (to us, or to a trusted proxy in front of us).
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// `SameSite` of a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Not on requests of other sites, but on links from them.
    Lax,
    /// Not on requests from other sites.
    Strict,
    /// On all; browsers then want `Secure`.
    None,
}

/// Preference for the gateway's own zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locality {
    /// Zones don't matter (default).
    Ignore,
    /// Members of the gateway's zone serve as long as they can.
    Prefer {
        /// The zone serves everything while its eligible weight × this, in percent, is at least its whole weight; below, the
        /// rest goes to other zones in proportion. At least 100. Default 140.
        spill: u32,
    },
}

/// Active health checks.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// What a probe does.
    pub check: HealthCheck,
    /// Time between two probes. Default 2 s.
    pub interval: Duration,
    /// Time between two probes while the last result speaks against the verdict. Default a quarter of `interval`.
    pub fast_interval: Duration,
    /// Each interval is lengthened or shortened by up to this, percent. Default 10.
    pub jitter: u32,
    /// Deadline of one probe. Default 1 s.
    pub timeout: Duration,
    /// Successes in a row that bring an endpoint back. Default 2.
    pub rise: u32,
    /// Failures in a row that take it out. Default 3.
    pub fall: u32,
}

/// What a health probe does.
#[derive(Debug, Clone, PartialEq)]
pub enum HealthCheck {
    /// A TCP connect.
    Tcp,
    /// An HTTP request; status and body decide.
    Http {
        /// `Host` of the probe, so that it goes through a tunnel.
        host: String,
        /// Path and query, begins with `/`. Default `/`.
        path: String,
        /// Statuses that count as healthy, inclusive ranges. Default 200–399.
        expect: Vec<(u16, u16)>,
        /// Text that the first 64 KiB of the body must contain; `None` = the body is not looked at.
        body: Option<String>,
    },
    /// A call of the gRPC health protocol (`grpc.health.v1.Health/Check`), over HTTP/2 in clear; `SERVING` is healthy.
    Grpc {
        /// `:authority` of the call. Default `localhost`.
        host: String,
        /// The service asked about. Default empty: the server as a whole.
        service: String,
    },
}

/// Ejection of members by what real traffic shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlier {
    /// Failures in a row (5xx but 501 and 505, or a broken attempt) that eject; 0 = never. Default 5.
    pub consecutive_failures: u32,
    /// Gateway errors in a row (502, 503, 504, or a broken attempt) that eject; 0 = never. Default 3.
    pub consecutive_gateway_errors: u32,
    /// Ejection by the share of successes; `None` = none.
    pub success_ratio: Option<SuccessRatio>,
    /// A member whose mean latency over `window` is this many times (in percent, at least 150) the median of the others is
    /// ejected; `None` = none (default).
    pub latency_factor: Option<u32>,
    /// What ratios and means are taken over. Default 10 s.
    pub window: Duration,
    /// First time out. Grows by itself with each ejection. Default 10 s.
    pub base_ejection: Duration,
    /// Longest time out. Default 5 min.
    pub max_ejection: Duration,
    /// Most members out at once, percent of their number, but one may always be out where there are two. Default 50.
    pub max_ejected: u32,
}

/// Ejection by the share of successes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuccessRatio {
    /// A member under this, percent, is ejected, if the others together do better. Default 80.
    pub minimum: u32,
    /// Requests in the window without which nothing is concluded. Default 20.
    pub min_requests: u32,
}

/// Bounds per member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most open connections to one endpoint; `None` = unbounded.
    pub connections: Option<u32>,
    /// Most requests in flight at one endpoint; `None` = unbounded.
    pub in_flight: Option<u32>,
    /// Where requests wait while every eligible endpoint is at its limit.
    pub queue: Queue,
    /// A limit of requests in flight that follows the latency; `None` = none.
    pub adaptive: Option<AdaptiveLimit>,
}

/// A bounded queue, one per pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Most waiting requests; more get 503 at once. 0 = no queue. Default 1,000.
    pub size: u32,
    /// Longest wait. Default 1 s.
    pub timeout: Duration,
}

/// Bounds of an adaptive limit of requests in flight per endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveLimit {
    /// Never below. Default 4.
    pub min: u32,
    /// Never above. Default 1,000.
    pub max: u32,
}

/// Retry rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Attempts after the first; 0 = never. Default 2.
    pub attempts: u32,
    /// Deadline for the response head of one attempt; `None` = only the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// Statuses (inclusive ranges) of answers to idempotent requests that are thrown away and asked for elsewhere.
    /// Default none.
    pub on: Vec<(u16, u16)>,
    /// Retries allowed. Attempts that never reached an endpoint don't draw on it. Default 20 %, floor 3 a second.
    pub budget: Budget,
    /// Wait before a retry that draws on the budget.
    pub backoff: Backoff,
    /// A second attempt of an idempotent request before the first has failed; `None` = never.
    pub hedge: Option<Hedge>,
}

/// A share of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Percent of the requests of the last ten seconds.
    pub percent: u32,
    /// This many a second are allowed however few requests there are.
    pub floor: u32,
}

/// Waits that double, with full jitter: each is drawn between 0 and its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Bound of the first wait. 0 = no wait. Default 25 ms.
    pub base: Duration,
    /// Bound of every wait. Default 250 ms.
    pub max: Duration,
}

/// Hedging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedge {
    /// Wait for the response head before the second attempt begins.
    pub after: Duration,
    /// Second attempts allowed. Default 10 %, floor 1 a second.
    pub budget: Budget,
}
