//! A listener's settings as the data plane reads them. Sockets belong to [`crate::data::listener`].

use std::sync::Arc;

use frp_gateway_config::model::{ListenerLimits, ListenerTimeouts};
use ipnet::IpNet;

use super::{gate::Gate, router::Router};
use crate::{
    http1::HeadLimits,
    telemetry::{shard::Shards, stats::ListenerShard},
};

/// Everything a connection needs to know of the listener it came through.
#[derive(Debug)]
pub struct Listener {
    /// Name: label in metrics and logs.
    pub name: Arc<str>,
    /// Index into [`super::Snapshot::listeners`]; stable as long as the listener exists.
    pub slot: usize,
    /// Routes served here.
    pub router: Arc<Router>,
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
