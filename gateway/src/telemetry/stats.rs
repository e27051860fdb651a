//! What is counted, where: the live counters behind `/metrics`. Names and help texts are in
//! [`super::metrics`]; this is the storage, resolved when a snapshot is compiled so that a request looks nothing up.

use std::sync::Arc;

use super::shard::{Counter, Histogram, Shards};
use crate::{
    data::reason::{Among, Because},
    tls::client::UNWELCOME,
};

/// Status class of an answer, as the `class` label.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Index into [`CLASSES`].
#[must_use]
pub fn class_of(status: u16) -> usize {
    usize::from((status / 100).clamp(1, 5) - 1)
}

/// Answers of one endpoint for one route and pool.
#[derive(Debug, Default)]
pub struct RequestShard {
    /// By [`CLASSES`].
    pub by_class: [Counter; CLASSES.len()],
}

/// Everything that one (route, pool) pair counts.
#[derive(Debug)]
pub struct SplitStats {
    /// From the request head's last byte to the response's last byte.
    pub latency: Arc<Shards<Histogram>>,
    /// One per pool member, in the order of `Pool::members`; empty in pools of tunnels.
    pub requests: Vec<Arc<Shards<RequestShard>>>,
    /// Of members without counters of their own: tunnels, which come and go.
    pub rest: Arc<Shards<RequestShard>>,
}

/// What tunnels count that are routes by themselves, and each tunnel for itself.
#[derive(Debug)]
pub struct TunnelStats {
    /// Of all pools without a configuration of their own.
    pub pool: Arc<Shards<PoolShard>>,
    /// Of their routes.
    pub split: Arc<SplitStats>,
    /// Answers of single tunnels, by `FRPS/NAME`, sorted. At most `tunnels.series` of them.
    pub series: Vec<(Arc<str>, Arc<Shards<RequestShard>>)>,
    /// Most series of tunnels: `tunnels.series`.
    pub most: usize,
    /// Answers of all other tunnels.
    pub other: Arc<Shards<RequestShard>>,
}

impl TunnelStats {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let shards = || Arc::new(Shards::new(workers));
        let split =
            SplitStats { latency: Arc::new(Shards::new(workers)), requests: Vec::new(), rest: shards() };
        Self {
            pool: Arc::new(Shards::new(workers)),
            split: Arc::new(split),
            series: Vec::new(),
            most: 100,
            other: shards(),
        }
    }
}

impl Default for TunnelStats {
    fn default() -> Self {
        Self::new(1)
    }
}

/// What one endpoint counts, over all routes.
#[derive(Debug, Default)]
pub struct EndpointShard {
    /// New connections that came up.
    pub connects: Counter,
    /// Exchanges on a kept connection.
    pub reuses: Counter,
    /// By [`FAILURES`].
    pub failures: [Counter; FAILURES.len()],
    /// Answers recognised as frps's own "no such tunnel" page.
    pub absent: Counter,
}

/// Why an attempt failed, as the `reason` label.
pub const FAILURES: [&str; 9] = [
    "connect_refused",
    "connect_timeout",
    "reset",
    "closed_early",
    "response_timeout",
    "invalid_response",
    "truncated",
    "tunnel_changed",
    "tls",
];

/// Index into [`FAILURES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing listens, or no route to it.
    ConnectRefused,
    /// The connect took longer than `connect_timeout`.
    ConnectTimeout,
    /// The connection broke with an error.
    Reset,
    /// The connection ended before a response head.
    ClosedEarly,
    /// No response head in time.
    ResponseTimeout,
    /// What came is not a response that every parser reads alike.
    InvalidResponse,
    /// The body ended before its announced end.
    Truncated,
    /// The port that was connected to is not the tunnel's any more. Nothing was sent.
    TunnelChanged,
    /// The TLS handshake failed, or took too long: it isn't who it should be, or it speaks no TLS. Nothing was sent.
    Tls,
}

impl Failure {
    /// The `reason` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        FAILURES[self as usize]
    }
}

/// What one pool counts.
#[derive(Debug, Default)]
pub struct PoolShard {
    /// Attempts after the first.
    pub retries: Counter,
    /// Requests whose attempts or endpoints ran out.
    pub exhausted: Counter,
    /// Retries not made because the budget was empty.
    pub budget_exhausted: Counter,
    /// Second attempts beside a slow one.
    pub hedges: Counter,
    /// Answers thrown away because of their status (`retry.on`).
    pub rejected: Counter,
    /// Requests that had to wait for a slot.
    pub queued: Counter,
    /// Requests that got none in time, or found the queue full.
    pub overflowed: Counter,
    /// Requests that wait for a tunnel now (the sum over workers is the gauge).
    pub held: Counter,
    /// Bytes of theirs.
    pub held_bytes: Counter,
    /// Requests that waited for a tunnel.
    pub holds: Counter,
    /// Those for which none came in time.
    pub hold_expired: Counter,
    /// Requests that might have waited, but too many did.
    pub hold_refused: Counter,
    /// Why members were picked.
    pub picks: PickStats,
}

/// Picks by [`Because`] and [`Among`].
#[derive(Debug, Default)]
pub struct PickStats {
    /// Indexed by the two, in the order of their `ALL`.
    pub by_reason: [[Counter; Among::ALL.len()]; Because::ALL.len()],
}

/// What one listener counts.
#[derive(Debug, Default)]
pub struct ListenerShard {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections open now (the sum over workers is the gauge).
    pub open: Counter,
    /// Connections closed at once because `limits.connections` was reached.
    pub refused: Counter,
    /// Connections closed because the PROXY protocol header that was due was missing or malformed.
    pub proxy_header_errors: Counter,
    /// HTTP/2 connections closed because they flooded us with frames.
    pub http2_floods: Counter,
    /// Handshakes of an https listener: [`HANDSHAKES`].
    pub handshakes: [Counter; HANDSHAKES.len()],
    /// Clients that weren't let in for their certificate: [`UNWELCOME`].
    pub clients_refused: [Counter; UNWELCOME.len()],
    /// Clients whose connection was cut, since their certificate isn't good any more.
    pub clients_cut: [Counter; UNWELCOME.len()],
    /// Answers that the gateway made itself, by [`crate::error::ERROR_CLASSES`].
    pub own_answers: [Counter; crate::error::ERROR_CLASSES.len()],
    /// Connections that changed protocol and are open now.
    pub upgraded: Counter,
    /// Exchanges that were cut after the response had begun.
    pub aborted: Counter,
    /// Visitors who went away before their answer was complete.
    pub visitor_gone: Counter,
    /// Datagrams of either side that were not sent on.
    pub datagrams_dropped: Counter,
    /// Relayed connections by how they ended: [`ENDS`].
    pub relays: [Counter; ENDS.len()],
    /// Bytes relayed: from visitors, to visitors.
    pub relayed: [Counter; 2],
}

/// How a handshake ended, as the `result` label.
pub const HANDSHAKES: [&str; 5] = ["full", "resumed", "failed", "slow", "gone"];

/// Index into [`HANDSHAKES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// With a certificate.
    Full,
    /// By a ticket of an earlier one.
    Resumed,
    /// One of the sides didn't like what the other said.
    Failed,
    /// Longer than `timeouts.header`.
    Slow,
    /// The visitor went away.
    Gone,
}

/// How a relayed connection ended, as the `end` label.
pub const ENDS: [&str; 6] = ["closed", "idle", "visitor_reset", "endpoint_reset", "cut", "refused"];

/// Index into [`ENDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides ended it.
    Closed,
    /// No byte for `timeouts.stream_idle`.
    Idle,
    /// The visitor reset it, or left.
    VisitorReset,
    /// The endpoint reset it, or stopped taking bytes.
    EndpointReset,
    /// By a drain.
    Cut,
    /// Nobody served it.
    Refused,
}

impl End {
    /// The `end` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        ENDS[self as usize]
    }
}
