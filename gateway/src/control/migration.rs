//! Moves the clients of one frps to others: one at a time, each when its requests have ended, so that no visitor notices.
//!
//! frps has no way to send a client away. But a client that came through one of our `frp` listeners holds its one control connection
//! through us: cut it, and the frpc logs in again at once, through the same listener, which places it elsewhere. So for each client: send nothing
//! new to its tunnels (to twins, or hold), let what is in flight end, cut, wait until the tunnels are up elsewhere.

mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use self::plan::{belongs, endpoints, is_unmovable};
use super::{
    directory::{Phase, Tunnel},
    task::Board,
};
use crate::{
    snapshot::{Endpoint, Published},
    telemetry::audit::AuditHandle,
};

/// Longest wait for a client that was cut to be up elsewhere.
const APPEAR: Duration = Duration::from_secs(10);
/// How often in-flight counts and the directory are looked at while a client moves.
const LOOK: Duration = Duration::from_millis(5);
/// How often it is looked whether there is somebody to move.
const IDLE: Duration = Duration::from_millis(500);
/// Pause after a move that failed, and between the moves of a rebalance.
const PAUSE: Duration = Duration::from_secs(1);
/// A client that is back on its frps so long has its tunnels from this time, even if they are listed as before.
const DOUBT: Duration = Duration::from_secs(3);
/// Between clients that are brought over and have no tunnels to wait for.
const PACE: Duration = Duration::from_millis(50);
/// Without a twin, new requests are held no longer than this for those in flight to end; then they go on for a while.
const WINDOW: Duration = Duration::from_millis(1500);

/// A client whose control connection goes through us.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    /// Number of the relayed connection.
    pub id: u64,
    /// Where it dials from.
    pub peer: SocketAddr,
    /// User of FRP; `None` = not known yet.
    pub user: Option<String>,
    /// `clientID`, or the run id of a client without one: a secret.
    pub client_id: Option<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, peer, user, client_id: _ } = self;
        f.debug_struct("Client")
            .field("id", id)
            .field("peer", peer)
            .field("user", user)
            .finish_non_exhaustive()
    }
}

/// The clients that can be moved.
pub trait Clients: Send + Sync + fmt::Debug {
    /// Those of one frps.
    fn of(&self, frps: &str) -> Vec<Client>;

    /// Closes a client's control connection; `false` when it is gone already.
    fn cut(&self, id: u64) -> bool;
}

/// Nobody comes through us.
#[derive(Debug, Default)]
pub struct NoClients;

impl Clients for NoClients {
    fn of(&self, _: &str) -> Vec<Client> {
        Vec::new()
    }

    fn cut(&self, _: u64) -> bool {
        false
    }
}

/// How the emptying of one frps stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// `moving`, `drained`, or `unmovable`: what is left can't be moved.
    pub state: String,
    /// Clients moved so far.
    pub moved: u64,
    /// Clients that did not come up elsewhere in time.
    pub failed: u64,
    /// Requests and connections that were cut because they did not end in time.
    pub cut: u64,
    /// Clients still to be moved.
    pub left: usize,
    /// Tunnels whose client did not come through an `frp` listener.
    pub unmovable: Vec<String>,
}

/// How a rebalance stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebalance {
    /// It goes on.
    pub running: bool,
    /// Clients moved so far.
    pub moved: u64,
    /// Why it stopped before all was even.
    pub error: Option<String>,
}

/// What all migrations share.
#[derive(Debug)]
pub struct Migrations {
    clients: Arc<dyn Clients>,
    progress: Mutex<BTreeMap<String, Progress>>,
    rebalance: Mutex<Option<Rebalance>>,
}

impl Migrations {
    /// Over these clients.
    #[must_use]
    pub fn new(clients: Arc<dyn Clients>) -> Self {
        Self { clients, progress: Mutex::default(), rebalance: Mutex::default() }
    }

    /// How each stands, by frps.
    #[must_use]
    pub fn progress(&self) -> BTreeMap<String, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets one that was stopped.
    pub fn forget(&self, frps: &str) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).remove(frps);
    }

    /// How the last rebalance stands; `None` = there was none.
    #[must_use]
    pub fn last_rebalance(&self) -> Option<Rebalance> {
        self.rebalance.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins one, unless one is going on: then `false`.
    #[must_use]
    pub fn begin_rebalance(&self) -> bool {
        let mut last = self.rebalance.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|last| last.running) {
            return false;
        }
        *last = Some(Rebalance { running: true, ..Rebalance::default() });
        true
    }

    fn note_rebalance(&self, change: impl FnOnce(&mut Rebalance)) {
        let mut last = self.rebalance.lock().unwrap_or_else(PoisonError::into_inner);
        change(last.get_or_insert_default());
    }

    fn note(&self, frps: &str, change: impl FnOnce(&mut Progress)) {
        let mut all = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(frps.to_owned()).or_default());
    }
}

/// What moves clients.
#[derive(Debug, Clone)]
pub struct Mover {
    /// Who can be moved.
    pub migrations: Arc<Migrations>,
    /// Where the directory is.
    pub board: Board,
    /// Where the endpoints are.
    pub published: Published,
    /// The audit log.
    pub audit: AuditHandle,
}

type Tunnels = BTreeMap<Arc<str>, Arc<Tunnel>>;

/// What came of one move.
#[derive(Debug, PartialEq, Eq)]
enum Moved {
    /// Its tunnels are up on this frps.
    To(String),
    /// It had no tunnels, or none that is known: it is gone from here.
    Gone,
    /// It didn't come up elsewhere in time.
    Lost,
}

/// One move.
struct Move {
    /// What the client had where it was.
    tunnels: Tunnels,
    /// Requests that were cut.
    cut: u32,
    came: Moved,
}

/// While it exists nothing new is sent to these endpoints.
struct Leaving(Vec<Arc<Endpoint>>);

impl Leaving {
    fn set(&self, leaving: bool) {
        self.0.iter().for_each(|endpoint| endpoint.set_leaving(leaving));
    }

    fn in_flight(&self) -> u32 {
        self.0.iter().map(|endpoint| endpoint.in_flight()).sum()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.set(false);
    }
}

impl Mover {
    /// Empties `frps` until aborted: clients that come later are moved too.
    pub async fn empty(self, frps: String) {
        tracing::info!(%frps, "drain begins");
        self.migrations.forget(&frps);
        // Of clients that were moved: frps may list them for a moment still.
        let mut gone = Tunnels::new();
        let mut told = "";
        loop {
            let clients = self.migrations.clients.of(&frps);
            let mut unmovable = self.unmovable(&frps, &clients);
            unmovable
                .retain(|tunnel| gone.get(&*tunnel.proxy.name).is_none_or(|old| old.proxy != tunnel.proxy));
            let unmovable: Vec<_> = unmovable.iter().map(|tunnel| tunnel.proxy.name.clone()).collect();
            let state = match (clients.is_empty(), unmovable.is_empty()) {
                (false, _) => "moving",
                (true, true) => "drained",
                (true, false) => "unmovable",
            };
            if state != told {
                match state {
                    "drained" => tracing::info!(%frps, "drained"),
                    "unmovable" => tracing::warn!(
                        %frps,
                        tunnels = ?unmovable,
                        "what is left did not come through an frp listener and can't be moved: point its frpc at one, or stop it"
                    ),
                    _ => {}
                }
                told = state;
            }
            self.migrations.note(&frps, |progress| {
                state.clone_into(&mut progress.state);
                progress.left = clients.len();
                progress.unmovable = unmovable;
            });
            // Those that are known first: the others may have just begun to log in.
            let next = clients.iter().find(|client| client.client_id.is_some()).or(clients.first());
            let Some(client) = next else {
                tokio::time::sleep(IDLE).await;
                continue;
            };
            let Move { tunnels, cut, came } = self.moved(&frps, client, self.deadline()).await;
            self.migrations.note(&frps, |progress| {
                progress.cut += u64::from(cut);
                match came {
                    Moved::To(_) | Moved::Gone => progress.moved += 1,
                    Moved::Lost => progress.failed += 1,
                }
            });
            match came {
                Moved::To(_) | Moved::Gone => gone.extend(tunnels),
                Moved::Lost => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Brings those here that the process before this one relays still and can't hand on: one at a time, each when its requests here
    /// have ended. They come back to this process, to any frps. That process has no visitors any more.
    pub async fn fetch(&self) {
        let deadline = self.deadline();
        loop {
            let relays = Arc::clone(&self.published.load().relays);
            let Some(next) = relays.elsewhere().into_iter().next() else { return };
            let known =
                self.migrations.clients.of(&next.frps).into_iter().find(|client| client.id == next.id);
            let client =
                known.unwrap_or(Client { id: next.id, peer: next.peer, user: None, client_id: None });
            // All together have as long as one has otherwise.
            let moved = self.moved(&next.frps, &client, deadline.max(Instant::now() + WINDOW)).await;
            if moved.came == Moved::Gone {
                tokio::time::sleep(PACE).await;
            }
        }
    }

    /// When requests under way have had their time.
    fn deadline(&self) -> Instant {
        let timeout = self.board.load().config.as_ref().map(|config| config.runtime.drain_timeout);
        Instant::now() + timeout.unwrap_or_default()
    }

    /// Moves clients from where there are more than their share, until none has, or a move fails.
    pub async fn rebalance(&self) {
        let ended = self.even_out().await;
        let moved = self.migrations.last_rebalance().unwrap_or_default().moved;
        match &ended {
            Ok(()) => tracing::info!(moved, "rebalanced"),
            Err(error) => tracing::warn!(moved, %error, "rebalance stopped"),
        }
        self.migrations.note_rebalance(|last| {
            last.running = false;
            last.error = ended.err();
        });
    }

    async fn even_out(&self) -> Result<(), String> {
        loop {
            let Some((frps, client)) = self.surplus() else { return Ok(()) };
            match self.moved(&frps, &client, self.deadline()).await.came {
                Moved::To(to) if to == frps => {
                    return Err(format!(
                        "a client of {frps} came back there: its listener's rule (place, together) wants it so"
                    ));
                }
                Moved::Lost => {
                    return Err(format!("a client of {frps} did not come up elsewhere within {APPEAR:?}"));
                }
                Moved::To(_) | Moved::Gone => self.migrations.note_rebalance(|last| last.moved += 1),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The frps with the largest surplus of clients, and one of them; `None` = nobody has one.
    fn surplus(&self) -> Option<(String, Client)> {
        let config = self.board.load().config.clone()?;
        let able: Vec<_> = config
            .frps
            .iter()
            .filter(|frps| frps.control_port.is_some() && !frps.drain && frps.weight > 0)
            .map(|frps| (frps.name.clone(), frps.weight, self.migrations.clients.of(&frps.name)))
            .collect();
        let counts: Vec<(u32, usize)> = able.iter().map(|(_, weight, all)| (*weight, all.len())).collect();
        let (name, _, clients) = &able[plan::largest_surplus(&counts)?];
        Some((name.clone(), clients.first()?.clone()))
    }

    fn unmovable(&self, frps: &str, clients: &[Client]) -> Vec<Arc<Tunnel>> {
        let state = self.board.load();
        let Some(known) = state.frps.get(frps) else { return Vec::new() };
        let tunnels = known.table.values().filter(|tunnel| is_unmovable(tunnel, clients));
        tunnels.map(Arc::clone).collect()
    }

    async fn moved(&self, frps: &str, client: &Client, deadline: Instant) -> Move {
        let begun = Instant::now();
        let before: Tunnels = {
            let state = self.board.load();
            let table = state.frps.get(frps).map(|known| known.table.clone()).unwrap_or_default();
            let theirs = table.iter().filter(|(_, tunnel)| belongs(tunnel, client));
            theirs.map(|(name, tunnel)| (Arc::clone(name), Arc::clone(tunnel))).collect()
        };
        let names: BTreeSet<Arc<str>> = before.keys().cloned().collect();
        let (all, twins) = endpoints(&self.published.load(), frps, &names);
        let leaving = Leaving(all);
        let in_flight = wait_for_the_last(&leaving, twins, deadline).await;
        self.migrations.clients.cut(client.id);
        let moved = self.appears(frps, client, &before).await;
        drop(leaving);
        let (user, tunnels, took) =
            (client.user.as_deref().unwrap_or_default(), names.len(), begun.elapsed());
        match &moved {
            Moved::To(to) => {
                tracing::info!(%frps, %to, user, tunnels, cut = in_flight, ?took, "client moved");
                self.audit.moved(frps, to, user, tunnels);
            }
            Moved::Gone => {
                tracing::info!(%frps, user, cut = in_flight, ?took, "client without tunnels sent away")
            }
            Moved::Lost => {
                tracing::warn!(%frps, user, tunnels, cut = in_flight, ?took, "client sent away did not come up elsewhere");
                self.audit.moved(frps, "", user, tunnels);
            }
        }
        Move { tunnels: before, cut: in_flight, came: moved }
    }

    /// Waits until the tunnels are up on another frps, or on this one again.
    async fn appears(&self, frps: &str, client: &Client, before: &Tunnels) -> Moved {
        let begun = Instant::now();
        let mut left: BTreeSet<&Arc<str>> = BTreeSet::new();
        loop {
            if before.is_empty()
                && !self.migrations.clients.of(frps).iter().any(|other| other.id == client.id)
            {
                return Moved::Gone;
            }
            if !before.is_empty() {
                let state = self.board.load();
                let live = |at: &str, name: &Arc<str>| {
                    let tunnel = state.frps.get(at)?.table.get(name)?;
                    (tunnel.phase == Phase::Live).then_some(tunnel)
                };
                let up = |at: &str| before.keys().all(|name| live(at, name).is_some());
                left.extend(before.keys().filter(|name| live(frps, name).is_none()));
                // What was there before the cut may be listed for a moment still.
                let renewed = |(name, old): (&Arc<str>, &Arc<Tunnel>)| {
                    left.contains(name) || live(frps, name).is_some_and(|tunnel| tunnel.proxy != old.proxy)
                };
                if let Some(to) = state.frps.keys().find(|other| *other != frps && up(other)) {
                    return Moved::To(to.clone());
                }
                if up(frps)
                    && (before.iter().all(renewed) || begun.elapsed() >= DOUBT)
                    && self.migrations.clients.of(frps).iter().any(|other| is_same(other, client))
                {
                    return Moved::To(frps.to_owned());
                }
            }
            if begun.elapsed() >= APPEAR {
                return Moved::Lost;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The same client on another connection.
fn is_same(one: &Client, other: &Client) -> bool {
    one.id != other.id
        && one.client_id.is_some()
        && (&one.user, &one.client_id) == (&other.user, &other.client_id)
}

/// Keeps new requests away until none is in flight, or `deadline`. Returns how many are left.
async fn wait_for_the_last(leaving: &Leaving, twins: bool, deadline: Instant) -> u32 {
    loop {
        leaving.set(true);
        let window = if twins { deadline } else { deadline.min(Instant::now() + WINDOW) };
        while leaving.in_flight() > 0 && Instant::now() < window {
            tokio::time::sleep(LOOK).await;
        }
        if leaving.in_flight() == 0 || Instant::now() >= deadline {
            return leaving.in_flight();
        }
        // Visitors have waited long enough for somebody's long request: they go first, and it is tried again.
        leaving.set(false);
        tokio::time::sleep(WINDOW.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
}
