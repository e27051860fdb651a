//! A pool as the data plane reads it: members, policy, deadlines.

use std::{sync::Arc, time::Duration};

use lb_algos::PolicyKind;

use super::endpoint::{Endpoint, Verdict};
use crate::telemetry::{shard::Shards, stats::PoolShard};

/// One compiled pool. Immutable; what changes lives in the members.
#[derive(Debug)]
pub struct Pool {
    /// Name: label in metrics and logs.
    pub name: Arc<str>,
    /// Stable over reloads as long as a pool of this name exists: workers keep policy state by it.
    pub slot: usize,
    /// Changes whenever members, weights or the policy do: workers then rebuild their policy state.
    pub revision: u64,
    /// The rule that picks.
    pub policy: PolicyKind,
    /// In file order.
    pub members: Vec<Member>,
    /// Deadline of one TCP connect.
    pub connect_timeout: Duration,
    /// How long an unused upstream connection is kept.
    pub keepalive: Duration,
    /// First time out after a failed connect.
    pub fail_timeout: Duration,
    /// Time out for a host and path after frps said "no such tunnel".
    pub absent_timeout: Duration,
    /// Attempts after the first.
    pub retry_attempts: u32,
    /// Deadline of one attempt's response head.
    pub per_try_timeout: Option<Duration>,
    /// Per-worker counters; survive reloads.
    pub stats: Arc<Shards<PoolShard>>,
}

/// An endpoint in one pool.
#[derive(Debug, Clone)]
pub struct Member {
    /// The live endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Share in this pool; 0 = no new traffic.
    pub weight: u32,
    /// What this pool's health checks say; survives reloads.
    pub verdict: Arc<Verdict>,
    /// Text by which this frps's own 404 page is known for sure.
    pub not_found_marker: Option<Arc<[u8]>>,
    /// Index of the frps in [`super::Snapshot::tunnels`].
    pub frps: u32,
}
