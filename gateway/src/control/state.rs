//! All that the control plane knows: a value. The reducer makes the next one; readiness and the API read it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use frp_gateway_config::model::{Config, Frps, FrpsAdmin};
use lb_algos::Tick;
use serde::{Deserialize, Serialize};

use super::directory::{Directory, Table};
use crate::frps::{ProxyKind, seal::Seals};

/// How long readiness waits for the first answer of every admin API.
pub const FIRST_LISTING_WAIT: Duration = Duration::from_secs(5);

/// Most announced tunnels of one frps that are remembered: plugin calls come from strangers too.
pub const MOST_CLAIMED: usize = 10_000;

/// Both clocks, read once per event: `tick` to decide, `wall` to show.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic.
    pub tick: Tick,
    /// For people.
    pub wall: SystemTime,
}

/// Something wrong with a configuration, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fault {
    /// The text of the command line, perhaps over several lines.
    pub text: String,
    /// It alone would not have refused the configuration.
    #[serde(skip)]
    pub is_warning: bool,
    /// The same as data.
    pub diagnostic: serde_json::Value,
}

/// What is fixed when the process starts.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// Data-plane threads that run.
    pub workers: usize,
    /// Address that the admin listener was told to bind.
    pub admin: SocketAddr,
    /// When the process started.
    pub started: Tick,
}

/// A whole state. Cheap to clone: what is large is shared.
#[derive(Debug, Clone)]
pub struct State {
    /// Fixed at start.
    pub fixed: Fixed,
    /// Number of accepted configurations that differed from the one before; 0 before the first.
    pub generation: u64,
    /// What is in force; `None` before the first. An frps that an operator drains has its `drain` set here.
    pub config: Option<Arc<Config>>,
    /// Names of frps that an operator drains.
    pub drains: BTreeSet<String>,
    /// Names of frps that the file drains.
    pub file_drains: BTreeSet<String>,
    /// Addresses that the listeners are really bound to, by name.
    pub addresses: BTreeMap<String, SocketAddr>,
    /// The frps with an admin API, by name.
    pub frps: BTreeMap<String, FrpsState>,
    /// Who claims which host.
    pub directory: Directory,
    /// Opens what was sealed at takeover; `None` = we are nobody's plugin.
    pub seals: Option<Arc<Seals>>,
    /// What has happened to tunnels so far.
    pub counts: TunnelCounts,
    /// How reloads went.
    pub reloads: Reloads,
    /// Shutting down.
    pub draining: bool,
}

/// What has happened to tunnels, since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TunnelCounts {
    /// Plugin calls that announced one.
    pub claimed: u64,
    /// Seen live for the first time.
    pub live: u64,
    /// Live ones that registered anew or changed.
    pub changed: u64,
    /// Said to be closing.
    pub closing: u64,
    /// Gone.
    pub gone: u64,
    /// Announced, and never seen.
    pub lapsed: u64,
}

/// A tunnel that was announced and isn't seen yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// User of FRP.
    pub user: String,
    /// Its type, before any takeover.
    pub kind: ProxyKind,
    /// What it claims.
    pub domains: Vec<String>,
    /// Whether it was taken over.
    pub taken_over: bool,
    /// When.
    pub at: SystemTime,
}

/// What is known from one frps's admin API.
#[derive(Debug, Clone, PartialEq)]
pub struct FrpsState {
    /// The server it belongs to. Another one under the same name starts from nothing.
    pub server: ServerKey,
    /// Its tunnels, as last seen.
    pub table: Table,
    /// Those that were announced. At most [`MOST_CLAIMED`].
    pub claimed: BTreeMap<String, Claimed>,
    /// Its `subDomainHost`, as it tells.
    pub subdomain_host: Option<String>,
    /// It has given a listing.
    pub listed: bool,
    /// When that was.
    pub listed_at: Option<SystemTime>,
    /// Why the last try gave none; `None` when it did, or before the first.
    pub fault: Option<String>,
}

/// What makes an frps the same server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerKey {
    host: String,
    admin_url: String,
}

impl ServerKey {
    /// Of `frps`, asked by `admin`.
    #[must_use]
    pub fn new(frps: &Frps, admin: &FrpsAdmin) -> Self {
        Self { host: frps.host.clone(), admin_url: admin.url.clone() }
    }
}

impl FrpsState {
    /// Nothing is known yet.
    #[must_use]
    pub fn unknown(server: ServerKey) -> Self {
        Self {
            server,
            table: Table::new_sync(),
            claimed: BTreeMap::new(),
            subdomain_host: None,
            listed: false,
            listed_at: None,
            fault: None,
        }
    }

    /// Whether what we use is not what it said last: it fails to answer, or never has.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.fault.is_some() || !self.listed
    }

    /// Number of tunnels that are known.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.table.size()
    }
}

/// How reloads went.
#[derive(Debug, Clone, Default)]
pub struct Reloads {
    /// New configurations in force, the first included.
    pub changed: u64,
    /// Reloads that found nothing new.
    pub unchanged: u64,
    /// Refused configurations.
    pub failed: u64,
    /// When a configuration was last accepted or found unchanged.
    pub last_success: Option<SystemTime>,
    /// When the last try was, whatever came of it.
    pub last_try: Option<SystemTime>,
    /// What was wrong in the last try; empty when it succeeded.
    pub faults: Vec<Fault>,
}

impl State {
    /// Nothing is configured yet.
    #[must_use]
    pub fn new(fixed: Fixed) -> Self {
        Self {
            fixed,
            generation: 0,
            config: None,
            drains: BTreeSet::new(),
            file_drains: BTreeSet::new(),
            addresses: BTreeMap::new(),
            frps: BTreeMap::new(),
            directory: Directory::default(),
            seals: None,
            counts: TunnelCounts::default(),
            reloads: Reloads::default(),
            draining: false,
        }
    }

    /// Whether visitors may be sent here, or why not.
    ///
    /// # Errors
    /// The reason, one sentence.
    pub fn readiness(&self, now: Tick) -> Result<(), String> {
        if self.draining {
            return Err("shutting down".into());
        }
        if self.config.is_none() {
            return Err("no configuration is in force yet".into());
        }
        let silent: Vec<_> =
            self.frps.iter().filter(|(_, frps)| !frps.listed).map(|(name, _)| name.as_str()).collect();
        if !silent.is_empty() && now.since(self.fixed.started) < FIRST_LISTING_WAIT {
            return Err(format!("waiting for the first listing of {}", silent.join(", ")));
        }
        Ok(())
    }
}
