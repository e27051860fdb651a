//! An frps as a place for clients: where its control port is, and what is known of it at the moment.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use frp_gateway_config::secret::Secret;

use lb_algos::Tick;

use super::endpoint::Host;
use crate::{control::place::Backlog, frp_wire::Proof};

/// First time out after a failed connect; doubles up to [`MOST_DOUBLINGS`] times.
const TIME_OUT: Duration = Duration::from_millis(500);
/// So at most 16 s: a dead frps costs a refused connect each time it is tried again, a frozen one two seconds.
const MOST_DOUBLINGS: u32 = 5;

/// One configured frps.
#[derive(Debug)]
pub struct FrpsHandle {
    /// What outlives the snapshot.
    pub live: Arc<FrpsLive>,
    /// Share of clients; 0 = no new ones.
    pub weight: u32,
    /// Zone, for locality.
    pub zone: Option<Arc<str>>,
    /// It is being emptied: the file, or an operator, wants it so.
    pub drain: bool,
}

/// What is known of one frps, as long as its name, host and control port stay the same.
#[derive(Debug)]
pub struct FrpsLive {
    /// Name: label in metrics and logs.
    pub name: Arc<str>,
    /// Where its control port is.
    pub host: Arc<Host>,
    /// `bindPort`; `None` = no client can be placed here.
    pub control_port: Option<u16>,
    /// Its `auth.token`, when it was told; an empty one is none.
    token: ArcSwapOption<Secret>,
    /// Nanosecond tick until which nobody is placed here after a failed connect; 0 = none.
    down_until: AtomicU64,
    failures: AtomicU32,
    clients: AtomicU32,
    backlog: Mutex<Backlog>,
}

impl FrpsLive {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(name: Arc<str>, host: &str, control_port: Option<u16>) -> Self {
        Self {
            name,
            host: Arc::new(Host::new(host.into())),
            control_port,
            token: ArcSwapOption::empty(),
            down_until: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            clients: AtomicU32::new(0),
            backlog: Mutex::default(),
        }
    }

    /// From now on this is its `auth.token`.
    pub fn set_token(&self, token: Option<&Secret>) {
        self.token.store(token.cloned().map(Arc::new));
    }

    /// Whether a login shows that it knows the token. `false` while we don't know it ourselves.
    #[must_use]
    pub fn is_token_of(&self, proof: &Proof, now: SystemTime) -> bool {
        self.token.load().as_ref().is_some_and(|token| proof.is_of(token.expose(), now))
    }

    /// Addresses of the control port. Empty: not resolved yet, or there is none.
    #[must_use]
    pub fn control_addresses(&self) -> Vec<SocketAddr> {
        let Some(port) = self.control_port else { return Vec::new() };
        self.host.addresses.load().iter().map(|ip| SocketAddr::new(*ip, port)).collect()
    }

    /// Whether a failed connect keeps clients away at `now`.
    #[must_use]
    pub fn is_down(&self, now: Tick) -> bool {
        self.down_until.load(Relaxed) > now.as_nanos()
    }

    /// It did not take a client: nobody is placed here for 0.5 s, doubled with each failure in a row up to 16 s. Returns whether
    /// this is news.
    pub fn failed(&self, now: Tick) -> bool {
        let was_down = self.is_down(now);
        // Many that fail at once are one failure.
        if !was_down {
            let doublings = self.failures.fetch_add(1, Relaxed).min(MOST_DOUBLINGS);
            let out = u64::try_from(TIME_OUT.as_nanos()).unwrap_or(u64::MAX) << doublings;
            self.down_until.store(now.as_nanos().saturating_add(out), Relaxed);
        }
        !was_down
    }

    /// It took a client: the past is forgotten. Returns whether this is news.
    pub fn succeeded(&self) -> bool {
        let failures = self.failures.swap(0, Relaxed);
        self.down_until.store(0, Relaxed);
        failures > 0
    }

    /// Clients relayed to it now.
    #[must_use]
    pub fn clients(&self) -> u32 {
        self.clients.load(Relaxed)
    }

    /// Live tunnels as last listed, and clients that were placed since and may have none listed yet.
    #[must_use]
    pub fn tunnels(&self) -> u32 {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner).load()
    }

    /// A client was placed here.
    pub(crate) fn placed(&self, client: u64, now: Tick) {
        self.clients.fetch_add(1, Relaxed);
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner).placed(client, now);
    }

    /// It left.
    pub(crate) fn left(&self, client: u64) {
        self.clients.fetch_sub(1, Relaxed);
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner).left(client);
    }

    /// A complete listing, begun at `begun`, has so many tunnels.
    pub fn listed(&self, begun: Tick, tunnels: usize) {
        let tunnels = u32::try_from(tunnels).unwrap_or(u32::MAX);
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner).listed(begun, tunnels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_at_once_are_one_and_those_in_a_row_keep_clients_away_for_longer() {
        let frps = FrpsLive::new("a".into(), "127.0.0.1", Some(7000));
        let at = |ms: u64| Tick::from_nanos(ms * 1_000_000);
        assert!(frps.failed(at(1)) && !frps.failed(at(2)) && !frps.failed(at(3)));
        assert!(frps.is_down(at(500)) && !frps.is_down(at(501)));
        assert!(frps.failed(at(501)));
        assert!(frps.is_down(at(1500)) && !frps.is_down(at(1501)));
        assert!(frps.succeeded() && !frps.succeeded() && !frps.is_down(at(502)));
        assert_eq!(frps.control_addresses(), ["127.0.0.1:7000".parse().unwrap()]);
    }
}
