//! A thing a request can be sent to, with everything that must outlive the snapshot naming it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use frp_gateway_config::model::{self, Carries};
use lb_algos::Tick;

use super::{
    gate::{Gate, Held, Inside},
    queue::WaitQueue,
};
use crate::{
    frps::{ask::Registration, watch::FrpsWatch},
    telemetry::{
        shard::{Padded, Shards, WorkerId},
        stats::EndpointShard,
    },
    tls::Outbound,
};

/// Identity of an endpoint: an frps's vhost port, or the port of one tunnel. A changed address is another endpoint, and so is
/// a tunnel that registered anew: no kept connection of the old one may be used for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId {
    /// Name of the frps.
    pub frps: Arc<str>,
    /// Host as configured (IP or DNS name).
    pub host: Arc<str>,
    /// vhost port, or the tunnel's.
    pub port: u16,
    /// Whose port it is; `None` = a vhost port, or one that the file names: it is never asked whose.
    pub tunnel: Option<Arc<Registration>>,
    /// The pool that speaks TLS to it; `None` = it is spoken to in clear text. No kept connection of another pool may be used then.
    pub tls: Option<Arc<str>>,
}

/// A host that endpoints are at, with the addresses it has.
#[derive(Debug)]
pub struct Host {
    /// IP or DNS name.
    pub name: Arc<str>,
    /// What it resolves to; the resolver replaces them. May be empty: not resolved yet.
    pub addresses: ArcSwap<Vec<IpAddr>>,
}

impl Host {
    /// An IP address is its own address; a name has none yet.
    #[must_use]
    pub fn new(name: Arc<str>) -> Self {
        let addresses = name.parse().map(|ip| vec![ip]).unwrap_or_default();
        Self { name, addresses: ArcSwap::from_pointee(addresses) }
    }

    /// Whether it has to be looked up.
    #[must_use]
    pub fn is_name(&self) -> bool {
        self.name.parse::<IpAddr>().is_err()
    }
}

/// What has to be asked before a fresh connection to a tunnel's port carries a request: the port may belong to somebody else
/// by now.
#[derive(Debug)]
pub struct Guard {
    /// Whose port it is.
    pub registration: Arc<Registration>,
    /// Whom to ask.
    pub watch: Arc<FrpsWatch>,
    /// From when on its frpc may be taken to have it: frps lists a tunnel, and opens its port, before it tells the frpc so,
    /// and a connection that comes sooner is closed without having reached anybody.
    pub settled: Tick,
}

impl EndpointId {
    /// Hash that is the same after a restart and in every gateway. A tunnel's upper half is its name's, so that it is known
    /// again on another frps.
    #[must_use]
    pub fn key(&self) -> u64 {
        if let Some(tunnel) = &self.tunnel {
            let name = lb_algos::stable_hash(&[b"tunnel", tunnel.name.as_bytes()]);
            let here = lb_algos::stable_hash(&[self.frps.as_bytes(), tunnel.name.as_bytes()]);
            return name & !u64::from(u32::MAX) | here & u64::from(u32::MAX);
        }
        lb_algos::stable_hash(&[self.frps.as_bytes(), self.host.as_bytes(), &self.port.to_be_bytes()])
    }

    /// The endpoint of `frps` for what a pool carries: a vhost port, or the remote `port` that a member names. `None` when it
    /// has no such port.
    #[must_use]
    pub fn of(frps: &model::Frps, carries: Carries, port: Option<u16>) -> Option<Self> {
        let (host, port) = match carries {
            Carries::Http => (&frps.host, frps.vhost_http_port?),
            Carries::Tls => (&frps.host, frps.vhost_https_port?),
            Carries::Tcp | Carries::Udp => (&frps.tunnel_host, port?),
        };
        Some(Self {
            frps: frps.name.as_str().into(),
            host: host.as_str().into(),
            port,
            tunnel: None,
            tls: None,
        })
    }

    /// The same, as `pool` speaks to it.
    #[must_use]
    pub fn spoken_to_by(self, pool: &model::Pool) -> Self {
        let tls = pool.tls.as_ref().map(|_| pool.name.as_str().into());
        Self { tls, ..self }
    }

    /// What stays the same when a tunnel registers anew: what is learnt about it belongs to this.
    #[must_use]
    pub fn lasting(&self) -> Self {
        let Some(tunnel) = &self.tunnel else { return self.clone() };
        let nameless = Registration {
            name: tunnel.name.clone(),
            port: 0,
            sealed: String::new(),
            started: String::new(),
        };
        Self {
            frps: Arc::clone(&self.frps),
            host: "".into(),
            port: 0,
            tunnel: Some(Arc::new(nameless)),
            tls: None,
        }
    }
}

/// Live state of one endpoint. Shared by every snapshot and pool that names it.
#[derive(Debug)]
pub struct Endpoint {
    /// Identity.
    pub id: EndpointId,
    /// Process-unique number: what policies and connection pools key on.
    pub number: u64,
    /// Where it is.
    pub host: Arc<Host>,
    /// What is spoken there; `Some` exactly where [`EndpointId::tls`] is.
    pub tls: Option<Arc<Outbound>>,
    /// Asked after each fresh connect; `None` = nobody else can have the port.
    pub guard: Option<Guard>,
    label: Box<str>,
    gone: AtomicBool,
    /// Its tunnel is being moved: nothing new is sent here.
    leaving: AtomicBool,
    /// Its frps is frozen.
    frozen: AtomicBool,
    /// Per-worker counters.
    pub stats: Shards<EndpointShard>,
    in_flight: Padded<AtomicU32>,
    /// Open connections, idle ones included.
    connections: AtomicU32,
    /// Nanosecond tick until which no request is sent here after a failed connect; 0 = none.
    down_until: AtomicU64,
    /// Failed connects in a row; sets how long `down_until` reaches.
    connect_failures: AtomicU32,
}

/// `fail_timeout` doubles at most this many times (so 8 ×).
const MAX_BACKOFF_DOUBLINGS: u32 = 3;

impl Endpoint {
    /// A new endpoint of which nothing is known.
    #[must_use]
    pub fn new(id: EndpointId, number: u64, workers: usize) -> Self {
        let host = Arc::new(Host::new(Arc::clone(&id.host)));
        Self::at(host, id, number, workers, None)
    }

    /// The same, spoken to by TLS.
    #[must_use]
    pub fn over(mut self, tls: Option<Arc<Outbound>>) -> Self {
        self.tls = tls;
        self
    }

    /// As [`Endpoint::new`], at a host that others share.
    #[must_use]
    pub fn at(host: Arc<Host>, id: EndpointId, number: u64, workers: usize, guard: Option<Guard>) -> Self {
        let label = match &id.tunnel {
            Some(tunnel) => format!("{}/{}", id.frps, tunnel.name).into(),
            None => (*id.frps).into(),
        };
        Self {
            host,
            tls: None,
            guard,
            label,
            gone: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            id,
            number,
            stats: Shards::new(workers),
            in_flight: Padded::default(),
            connections: AtomicU32::new(0),
            down_until: AtomicU64::new(0),
            connect_failures: AtomicU32::new(0),
        }
    }

    /// Name in metrics and logs: that of the frps, or `FRPS/TUNNEL`.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Addresses with the port. Empty: not resolved yet.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.host.addresses.load().iter().map(|ip| SocketAddr::new(*ip, self.id.port)).collect()
    }

    /// Its tunnel is gone: kept connections to it are of no use any more.
    pub fn retire(&self) {
        self.gone.store(true, Relaxed);
    }

    /// Whether [`Endpoint::retire`] was called.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// Its tunnel is about to move (or, `false`, isn't after all): while it is, nothing new is sent here.
    pub fn set_leaving(&self, leaving: bool) {
        self.leaving.store(leaving, Relaxed);
    }

    /// Whether its tunnel is about to move.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// Its frps is frozen, or no longer.
    pub fn set_frozen(&self, frozen: bool) {
        self.frozen.store(frozen, Relaxed);
    }

    /// Whether its frps is frozen: nothing that was sent here is answered.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Relaxed)
    }

    /// Whether anything new may be sent here: its tunnel isn't being moved, its frps not frozen.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.is_leaving() && !self.is_frozen()
    }

    /// Requests sent here and not yet ended, over all workers and snapshots.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.0.load(Relaxed)
    }

    /// Counts a request as in flight until the guard is dropped, whatever happens to it.
    #[must_use]
    pub fn begin(&self) -> InFlight<'_> {
        self.in_flight.0.fetch_add(1, Relaxed);
        InFlight { endpoint: self, queue: None, inside: None }
    }

    /// As [`Endpoint::begin`], but never lets more than `limit` be in flight: `None` when they are. When the guard is
    /// dropped, the first in `queue` is told.
    #[must_use]
    pub fn try_begin<'a>(&'a self, limit: u32, queue: &'a WaitQueue) -> Option<InFlight<'a>> {
        let counted = self.in_flight.0.fetch_update(SeqCst, SeqCst, |n| (n < limit).then(|| n + 1));
        counted.ok().map(|_| InFlight { endpoint: self, queue: Some(queue), inside: None })
    }

    /// Open connections, idle ones included, over all workers.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Counts a connection as open until the guard is dropped; `None` when `limit` of them are.
    #[must_use]
    pub fn open_connection(self: &Arc<Self>, limit: Option<u32>) -> Option<OpenConnection> {
        let limit = limit.unwrap_or(u32::MAX);
        let counted = self.connections.fetch_update(SeqCst, SeqCst, |n| (n < limit).then(|| n + 1));
        counted.ok().map(|_| OpenConnection { endpoint: Arc::clone(self), held: None })
    }

    /// Whether a failed connect keeps requests away at `now`.
    #[must_use]
    pub fn is_down(&self, now: Tick) -> bool {
        self.down_until.load(Relaxed) > now.as_nanos()
    }

    /// Until when a failed connect keeps requests away; `None` = it doesn't. May lie in the past.
    #[must_use]
    pub fn down_until(&self) -> Option<Tick> {
        match self.down_until.load(Relaxed) {
            0 => None,
            until => Some(Tick::from_nanos(until)),
        }
    }

    /// A connect failed: stay away for `fail_timeout`, doubled with each further failure up to 8 ×.
    ///
    /// Returns whether this is news (the endpoint was not down).
    pub fn connect_failed(&self, now: Tick, fail_timeout: Duration) -> bool {
        let was_down = self.is_down(now);
        let failures = self.connect_failures.fetch_add(1, Relaxed).min(MAX_BACKOFF_DOUBLINGS);
        let out = u64::try_from(fail_timeout.as_nanos()).unwrap_or(u64::MAX).saturating_mul(1 << failures);
        self.down_until.store(now.as_nanos().saturating_add(out), Relaxed);
        !was_down
    }

    /// A connect came up: the past is forgotten. Returns whether this is news.
    pub fn connect_succeeded(&self) -> bool {
        // The common case must not write to the shared line.
        if self.connect_failures.load(Relaxed) == 0 {
            return false;
        }
        self.connect_failures.store(0, Relaxed);
        self.down_until.swap(0, Relaxed) != 0
    }
}

/// One request in flight; the count falls when this is dropped.
#[derive(Debug)]
pub struct InFlight<'a> {
    endpoint: &'a Endpoint,
    queue: Option<&'a WaitQueue>,
    /// Counts as long as it is here.
    inside: Option<Inside<'a>>,
}

impl<'a> InFlight<'a> {
    /// Counts at the frps too.
    #[must_use]
    pub fn within(mut self, gate: Option<&'a Gate>, worker: WorkerId) -> Self {
        self.inside = gate.map(|gate| gate.enter(worker));
        self
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        match self.queue {
            None => {
                self.endpoint.in_flight.0.fetch_sub(1, Relaxed);
            }
            // Ordered with a request that joins the line and then looks at the count: one of the two sees the other.
            Some(queue) => {
                self.endpoint.in_flight.0.fetch_sub(1, SeqCst);
                queue.wake();
            }
        }
    }
}

/// One open connection; the count falls when this is dropped.
#[derive(Debug)]
pub struct OpenConnection {
    endpoint: Arc<Endpoint>,
    /// Counts as long as it is here.
    held: Option<Held>,
}

impl OpenConnection {
    /// Where it leads.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Counts at the frps too.
    #[must_use]
    pub fn within(mut self, gate: Option<&Gate>, worker: WorkerId) -> Self {
        self.held = gate.map(|gate| gate.hold(worker));
        self
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.endpoint.connections.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Arc<Endpoint> {
        let id = EndpointId { frps: "a".into(), host: "127.0.0.1".into(), port: 80, tunnel: None, tls: None };
        Arc::new(Endpoint::new(id, 1, 2))
    }

    #[test]
    fn in_flight_falls_when_the_guard_is_dropped() {
        let endpoint = endpoint();
        let (one, two) = (endpoint.begin(), endpoint.begin());
        assert_eq!(endpoint.in_flight(), 2);
        drop(one);
        assert_eq!(endpoint.in_flight(), 1);
        drop(two);
        assert_eq!(endpoint.in_flight(), 0);
    }

    #[test]
    fn failed_connects_keep_requests_away_for_longer_each_time_and_success_forgets() {
        let (endpoint, second) = (endpoint(), Duration::from_secs(1));
        let at = |ms: u64| Tick::from_nanos(ms * 1_000_000);
        assert!(endpoint.connect_failed(at(0), second), "first failure is news");
        assert!(endpoint.is_down(at(999)) && !endpoint.is_down(at(1000)));
        assert!(endpoint.connect_failed(at(1000), second));
        assert!(endpoint.is_down(at(2999)) && !endpoint.is_down(at(3000)));
        for _ in 0..40 {
            endpoint.connect_failed(at(3000), second);
        }
        assert!(endpoint.is_down(at(10_999)) && !endpoint.is_down(at(11_000)), "at most 8 ×");
        assert!(endpoint.connect_succeeded(), "being back is news");
        assert!(!endpoint.is_down(at(3001)) && !endpoint.connect_succeeded());
    }
}
