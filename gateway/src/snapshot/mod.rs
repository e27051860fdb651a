//! One immutable, compiled state of everything a request needs, published by one writer.
//!
//! A request loads the snapshot once and keeps it to its end, so it never sees half a reload. Whatever must survive
//! a reload (in-flight counts, verdicts, counters) hangs on an identity ([`endpoint::EndpointId`], a pool's or
//! listener's name) and is shared by `Arc` between snapshots.

pub mod endpoint;
pub mod frps;
pub mod gate;
pub mod listener;
pub mod member;
pub mod pool;
pub mod queue;
pub mod router;
pub mod tunnels;

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{acme::Proofs, control::relays::Relays, telemetry::stats::TunnelStats};

pub use self::{
    endpoint::{Endpoint, EndpointId, Guard, Host, InFlight, OpenConnection},
    frps::{FrpsHandle, FrpsLive},
    gate::{Gate, Held, Inside},
    listener::{FrpPart, Listener},
    member::{MemberState, Outcome},
    pool::{Direct, Member, Pool},
    queue::WaitQueue,
    router::{Found, Route, Router, Split},
    tunnels::Tunnels,
};

/// A compiled state.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Number of the configuration it came from; grows with every accepted reload.
    pub generation: u64,
    /// By [`Listener::slot`]; `None` where a listener went away.
    pub listeners: Vec<Option<Arc<Listener>>>,
    /// All routes, in file order.
    pub routes: Vec<Arc<Route>>,
    /// All pools, in file order.
    pub pools: Vec<Arc<Pool>>,
    /// Which frps holds which host, as far as their admin APIs tell, and the routes that tunnels are by themselves.
    pub tunnels: Arc<Tunnels>,
    /// Where the tunnels' ports are.
    pub tunnel_hosts: Vec<Arc<Host>>,
    /// What tunnels count.
    pub tunnel_stats: Arc<TunnelStats>,
    /// All configured frps as places for clients, in file order.
    pub frps: Vec<Arc<FrpsHandle>>,
    /// Who is relayed where. The same in all snapshots of a process that serves.
    pub relays: Arc<Relays>,
    /// What proves to authorities that names are ours. The same in all snapshots of a process that serves.
    pub proofs: Arc<Proofs>,
}

impl Snapshot {
    /// Pools that tunnels make by themselves, one for each of their routes.
    pub fn tunnel_pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.tunnels.iter().flat_map(|(_, host)| &host.routes).map(|route| &route.split.pool)
    }

    /// All pools: those of the file, then those of tunnels.
    pub fn every_pool(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.iter().chain(self.tunnel_pools())
    }
}

/// Where the writer stores and the workers load snapshots.
pub type Published = Arc<ArcSwap<Snapshot>>;
