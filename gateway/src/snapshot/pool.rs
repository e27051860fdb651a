//! A pool as the data plane reads it: members, policy, deadlines.

use std::{sync::Arc, time::Duration};

use lb_algos::{PolicyKind, Prepared};

use frp_gateway_config::model;

use super::{endpoint::Endpoint, gate::Gate, member::MemberState, queue::WaitQueue};
use crate::{
    data::affinity::Sealer,
    frps::{BasicAuth, Rewrite},
    telemetry::{
        shard::Shards,
        stats::{PoolShard, RequestShard},
    },
};

/// One compiled pool. Immutable; what changes lives in the members.
#[derive(Debug)]
pub struct Pool {
    /// Name: label in metrics and logs.
    pub name: Arc<str>,
    /// Stable over reloads as long as a pool of this name exists: workers keep policy state by it.
    pub slot: usize,
    /// Changes whenever members, weights or the policy do: workers then rebuild their policy state.
    pub revision: u64,
    /// What is sent here.
    pub carries: model::Carries,
    /// PROXY protocol header that begins each connection to a member.
    pub proxy_protocol: Option<model::ProxyHeader>,
    /// What is spoken to its members.
    pub protocol: model::PoolProtocol,
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
    /// Retry rules.
    pub retry: model::Retry,
    /// How long requests wait while every member is away.
    pub hold: Option<model::Hold>,
    /// Time in which a member that joins or comes back grows to its full weight.
    pub slow_start: Option<Duration>,
    /// Time in which what is known of a latency fades to 1/e.
    pub latency_decay: Duration,
    /// Preference for the gateway's own zone.
    pub locality: model::Locality,
    /// Under this share of healthy members, percent of their number, health is ignored; 0 = never.
    pub panic_threshold: u32,
    /// Ejection rules.
    pub outlier: Option<model::Outlier>,
    /// Bounds per member.
    pub limits: model::Limits,
    /// Preference of one visitor for one endpoint.
    pub affinity: Option<model::Affinity>,
    /// Some members stand by, or zones matter: picks go by tiers.
    pub tiered: bool,
    /// The rule's word.
    pub balance: model::Balance,
    /// Tables that all workers share.
    pub prepared: Prepared,
    /// How requests with a key are picked, where the policy doesn't hash.
    pub keyed: Option<(PolicyKind, Prepared)>,
    /// Seals affinity cookies.
    pub sealer: Option<Arc<Sealer>>,
    /// Data-plane threads: budgets are divided among them.
    pub workers: u32,
    /// Any limit of [`Pool::limits`] is set.
    pub limited: bool,
    /// Where requests wait while every eligible member is at its limit.
    pub queue: Arc<WaitQueue>,
    /// Rung when a member has failed often enough in a row that the outlier watch should look at once.
    pub bell: Arc<tokio::sync::Notify>,
    /// Per-worker counters; survive reloads.
    pub stats: Arc<Shards<PoolShard>>,
    /// Made of the tunnels that claim a host, without a configured pool. Its slot is one of a series of its own.
    pub auto: bool,
    /// Its members are what claims the host (`tunnels:`, or [`Pool::auto`]): whoever is in it has the tunnel.
    pub of_tunnels: bool,
    /// Some member wants visitors to authenticate.
    pub guarded: bool,
}

impl Pool {
    /// What is remembered of a pool is remembered under this: its slot, apart for the two series.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.slot * 2 + self.auto as usize
    }

    /// Most requests that may be in flight at `member`.
    #[must_use]
    pub fn in_flight_limit(&self, member: &Member) -> u32 {
        self.limits.in_flight.unwrap_or(u32::MAX).min(member.state.limit())
    }
}

/// What drain adds to a priority: more than any that can be configured.
pub const DRAINING: u32 = 1 << 20;

/// An endpoint in one pool.
#[derive(Debug, Clone)]
pub struct Member {
    /// The live endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Share in this pool; 0 = no new traffic.
    pub weight: u32,
    /// What this pool has learnt about it; survives reloads.
    pub state: Arc<MemberState>,
    /// 0 is used first; higher ones stand by. Those of an frps in drain stand by for all others ([`DRAINING`] more).
    pub priority: u32,
    /// Zone of its frps.
    pub zone: Option<Arc<str>>,
    /// Whether that is the gateway's own zone.
    pub local: bool,
    /// Stable over restarts and the same in every gateway: hash of frps name, host and port. What affinity cookies name.
    pub key: u64,
    /// Text by which this frps's own 404 page is known for sure.
    pub not_found_marker: Option<Arc<[u8]>>,
    /// Index of the frps in [`super::Snapshot::tunnels`].
    pub frps: u32,
    /// Bound on requests in flight through its frps.
    pub gate: Option<Gate>,
    /// Bound on open connections to its frps, idle ones included.
    pub connections: Option<Gate>,
    /// It is a tunnel's own port: what frps's vhost would do is ours to do. `None` = the vhost port.
    pub tunnel: Option<Arc<Direct>>,
    /// PROXY protocol header that begins each connection, in place of what the pool says.
    pub proxy_protocol: Option<model::ProxyHeader>,
    /// What is spoken to it, in place of what the pool says.
    pub protocol: Option<model::PoolProtocol>,
}

impl Member {
    /// Whether requests of `pool` go to it over HTTP/2, sharing connections.
    #[must_use]
    pub fn speaks_h2c(&self, pool: &Pool) -> bool {
        match self.protocol.unwrap_or(pool.protocol) {
            model::PoolProtocol::H1 => false,
            model::PoolProtocol::H2c => true,
        }
    }

    /// Basic authentication that it wants of visitors.
    #[must_use]
    pub fn auth(&self) -> Option<&BasicAuth> {
        self.tunnel.as_ref()?.auth.as_ref()
    }

    /// What is to be changed in messages; `None` = nothing.
    #[must_use]
    pub fn rewrite(&self) -> Option<&Rewrite> {
        self.tunnel.as_ref().map(|tunnel| &tunnel.rewrite).filter(|rewrite| !rewrite.is_empty())
    }
}

/// A tunnel that was taken over, as a member of a pool.
#[derive(Debug)]
pub struct Direct {
    /// What frps would have changed in messages.
    pub rewrite: Rewrite,
    /// What visitors have to know.
    pub auth: Option<BasicAuth>,
    /// Answers by status class; tunnels beyond the cap share one.
    pub answers: Arc<Shards<RequestShard>>,
}
