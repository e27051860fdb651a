//! A listener's settings as the data plane reads them. Sockets belong to [`crate::data::listener`].

use std::sync::Arc;

use frp_gateway_config::model::{Http2, ListenerLimits, ListenerTimeouts, Place, Protocol, Together};
use ipnet::IpNet;

use super::{frps::FrpsHandle, gate::Gate, pool::Pool, router::Router};
use crate::{
    control::relays::Relays,
    http1::HeadLimits,
    telemetry::{shard::Shards, stats::ListenerShard},
    tls::TlsSlot,
};

/// Everything a connection needs to know of the listener it came through.
#[derive(Debug)]
pub struct Listener {
    /// Name: label in metrics and logs.
    pub name: Arc<str>,
    /// Index into [`super::Snapshot::listeners`]; stable as long as the listener exists.
    pub slot: usize,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Where everything goes that no route takes.
    pub pool: Option<Arc<Pool>>,
    /// Settings of an `frp` listener; `Some` exactly there.
    pub frp: Option<Arc<FrpPart>>,
    /// What ends TLS here; always there on `https`, on `frp` if it has certificates.
    pub tls: Option<TlsSlot>,
    /// `https`: slot of the `tls_passthrough` listener with the same address. Names that it knows are passed through.
    pub passthrough: Option<usize>,
    /// HTTP/2, if it is spoken.
    pub http2: Option<Http2>,
    /// Routes served here.
    pub router: Arc<Router>,
    /// Peers that begin each connection with a PROXY protocol header, and must.
    pub proxy_protocol: Vec<IpNet>,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Deadlines.
    pub timeouts: ListenerTimeouts,
    /// Bounds.
    pub limits: ListenerLimits,
    /// Bound on requests in flight.
    pub gate: Option<Gate>,
    /// The bounds the parser applies (from `limits`).
    pub head_limits: HeadLimits,
    /// Per-worker counters; survive reloads.
    pub stats: Arc<Shards<ListenerShard>>,
}

/// What an `frp` listener needs to know beyond that.
#[derive(Debug)]
pub struct FrpPart {
    /// Where clients are placed, in the order of the file.
    pub frps: Vec<Arc<FrpsHandle>>,
    /// The rule that places them.
    pub place: Place,
    /// Which of them stay together.
    pub together: Together,
    /// Who is relayed where.
    pub relays: Arc<Relays>,
}
