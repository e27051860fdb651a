//! Who is relayed where: every connection of an `frp` listener, from the moment it is placed.
//!
//! One lock, held for look-ups and never over an await; visitors' requests don't come here. Placing happens under it, so that
//! clients which dial at once see each other. Run ids are kept as keyed hashes only.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use foldhash::fast::RandomState as FastState;
use frp_gateway_config::model::{Place, Together};
use lb_algos::Tick;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, mpsc};

pub use self::carried::{Carried, Inheritance, Salt};
use super::place::{self, Candidate};
use crate::{
    frp_wire::{Proof, RunId},
    snapshot::{FrpsHandle, FrpsLive},
};

/// A client that replaced another by the token isn't replaced so itself for this long, and as long again each time that is tried: longer
/// than the longest wait of an frpc between two logins.
const CONTESTED: Duration = Duration::from_mins(1);
/// How long it is remembered where a session was after its control connection ended: its last work connections may come later.
const REMEMBERED: Duration = Duration::from_secs(30);
/// A client that was cut dials again within this time.
const LOGS_IN: Duration = Duration::from_secs(3);
/// Sessions that are remembered beyond their connection, at most.
const MOST_REMEMBERED: usize = 65_536;

/// What a relayed connection is, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A client's control connection; with `tcpMux` everything is in it.
    Control,
    /// A control connection without `tcpMux`: work connections come beside it.
    ControlWithoutMux,
    /// A work connection, or one of a visitor.
    Work,
    /// Not told: TLS is passed through, or websocket.
    Opaque,
}

impl Kind {
    /// As the API writes it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Control | Self::ControlWithoutMux => "control",
            Self::Work => "work",
            Self::Opaque => "opaque",
        }
    }

    /// Whether it counts as a client.
    #[must_use]
    pub const fn is_client(self) -> bool {
        !matches!(self, Self::Work)
    }
}

/// Keyed hash of a run id: of use in this process only, and in the one that an upgrade gives the key to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RunHash([u8; 16]);

/// Why a connection was given up before it was relayed, as the `reason` label.
pub const REFUSALS: [&str; 7] = ["slow", "unknown", "too_many", "tls", "no_frps", "gone", "certificate"];

/// Index into [`REFUSALS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No whole first message within `timeouts.header`.
    Slow,
    /// What it sends isn't FRP.
    Unknown,
    /// Too many connections of its source address haven't logged in.
    TooMany,
    /// The TLS handshake failed.
    Tls,
    /// No frps took it.
    NoFrps,
    /// It went away itself.
    Gone,
    /// Its certificate doesn't let it in.
    Certificate,
}

impl Refusal {
    /// The `reason` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        REFUSALS[self as usize]
    }
}

/// One relayed connection, as others see it.
#[derive(Debug, Clone)]
pub struct RelayInfo {
    /// Unique in this process.
    pub id: u64,
    /// Name of the listener it came through.
    pub listener: Arc<str>,
    /// Name of its frps.
    pub frps: Arc<str>,
    /// What it is.
    pub kind: Kind,
    /// Address of the client, or of what is before us.
    pub peer: SocketAddr,
    /// Our side of the connection to frps: the `client_address` of its Login call. `None` until connected.
    pub local: Option<SocketAddr>,
    /// User of FRP, when it could be read or frps has told it. Unverified, as all that a login says.
    pub user: Option<String>,
    /// `clientID`; empty = it has none.
    pub client_id: String,
    /// Its session, when it could be read.
    pub run: Option<RunHash>,
    /// When it was placed.
    pub opened: SystemTime,
    /// TLS ends at the gateway, so the connection can't be handed on as a socket.
    pub tls_ended: bool,
    /// Whose certificate it has shown to the gateway; verified.
    pub certificate: Option<Box<str>>,
}

#[derive(Debug)]
struct Entry {
    info: RelayInfo,
    frps: Arc<FrpsLive>,
    together: Option<Key>,
    counted: bool,
    /// TLS or a websocket hid what it is when it was placed.
    hidden: bool,
    /// The process before this one relays it still, under that number.
    elsewhere: Option<u64>,
    /// When it last replaced another for knowing the token, or was to be replaced after that.
    contested: Option<Tick>,
    cut: Arc<Notify>,
    probe: Arc<Notify>,
}

/// A login, as far as it may replace another.
#[derive(Debug, Clone, Copy)]
pub struct Successor<'a> {
    /// User of FRP, as it says.
    pub user: &'a str,
    /// `clientID`, as it says; empty = none.
    pub client_id: &'a str,
    /// Of its last session, when it had one.
    pub run: Option<RunHash>,
    /// What it shows.
    pub shown: Shown<'a>,
}

/// Whether a login knows a token.
#[derive(Debug, Clone, Copy)]
pub enum Shown<'a> {
    /// It doesn't, or can't be read.
    Nothing,
    /// To be looked at.
    Proof(&'a Proof),
    /// That of the frps of this name; verified.
    Token(&'a str),
}

/// Whom a login would replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rivals {
    /// See [`RelayInfo::id`]; ascending.
    pub ids: Vec<u64>,
    /// At least one of them is cut, because the login knows the token.
    pub cut: bool,
}

/// What keeps clients on one frps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    User(Arc<str>, String),
    Source(Arc<str>, IpAddr),
}

/// What a listener counts, by name of the frps.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Client connections open now.
    pub open: u64,
    /// Connections placed, replays included.
    pub placed: u64,
    /// Connections that went elsewhere because this frps didn't answer them.
    pub replayed: u64,
}

/// Listener and frps.
pub type Pair = (Arc<str>, Arc<str>);

/// Where a session is.
#[derive(Debug)]
struct Session {
    frps: Arc<FrpsLive>,
    /// Its control connection; `None` = that is gone,
    holder: Option<u64>,
    /// since then.
    since: Option<Tick>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<u64, Entry, FastState>,
    by_local: HashMap<(Arc<str>, SocketAddr), u64, FastState>,
    by_key: HashMap<Key, BTreeSet<u64>, FastState>,
    /// Control connections by source address.
    by_source: HashMap<IpAddr, BTreeSet<u64>, FastState>,
    runs: HashMap<RunHash, Session, FastState>,
    /// When a hidden client without `tcpMux` of this address last ended: what comes next is its login.
    ended: HashMap<IpAddr, Tick, FastState>,
    /// Connections that have not logged in.
    waiting: HashMap<IpAddr, u32, FastState>,
    counts: HashMap<Pair, Counts, FastState>,
    refused: HashMap<Arc<str>, [u64; REFUSALS.len()], FastState>,
    /// Key of the hashes.
    salt: Salt,
    /// By their numbers in the process before this one: those that it relays still or has handed on.
    inherited: HashMap<u64, u64, FastState>,
    /// Where that process is told whom to cut.
    beyond: Option<mpsc::UnboundedSender<u64>>,
}

/// All relayed connections.
#[derive(Debug)]
pub struct Relays {
    inner: Mutex<Inner>,
    next: AtomicU64,
}

impl Default for Relays {
    fn default() -> Self {
        Self { inner: Mutex::default(), next: AtomicU64::new(1) }
    }
}

/// What is to be placed.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Name of its listener.
    pub listener: &'a Arc<str>,
    /// Where it may go, in the order of the file.
    pub frps: &'a [Arc<FrpsHandle>],
    /// The rule.
    pub place: Place,
    /// Which clients stay together.
    pub together: Together,
    /// Address of the client.
    pub peer: SocketAddr,
    /// What it is.
    pub kind: Kind,
    /// User of FRP, where its login could be read.
    pub user: Option<&'a str>,
    /// `clientID`.
    pub client_id: &'a str,
    /// Its session, when it named one.
    pub run: Option<RunHash>,
    /// TLS ends here.
    pub tls_ended: bool,
    /// Whose certificate it has shown.
    pub certificate: Option<&'a str>,
    /// It knew the token, and another was cut for that.
    pub replaced: bool,
}

/// Where a connection goes.
#[derive(Debug)]
pub struct Placed {
    /// The frps.
    pub frps: Arc<FrpsLive>,
    /// It can be there only: its session is. No other frps would know it.
    pub only_here: bool,
    /// Another frps is eligible.
    pub has_other: bool,
    /// Falls when this is dropped.
    pub registered: Registered,
}

/// A connection's place in the registry; dropping it takes the connection out.
#[derive(Debug)]
pub struct Registered {
    relays: Arc<Relays>,
    /// See [`RelayInfo::id`].
    pub id: u64,
    /// Rings when the connection is to be cut.
    pub cut: Arc<Notify>,
    /// Rings when it is to be found out whether the client is still there.
    pub probe: Arc<Notify>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.relays.remove(self.id);
    }
}

/// A connection that hasn't logged in.
#[derive(Debug)]
pub struct Waiting {
    relays: Arc<Relays>,
    source: IpAddr,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut inner = self.relays.lock();
        if let Some(count) = inner.waiting.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                inner.waiting.remove(&self.source);
            }
        }
    }
}

impl Relays {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keyed hash of a run id.
    #[must_use]
    pub fn hash(&self, run_id: &RunId) -> RunHash {
        let salt = self.lock().salt.clone();
        let digest = Sha256::new().chain_update(salt.expose()).chain_update(run_id.expose()).finalize();
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        RunHash(hash)
    }

    /// Counts a connection of `source` as not logged in, until the guard is dropped. `None` when there are `most`.
    #[must_use]
    pub fn wait(self: &Arc<Self>, source: IpAddr, most: u32) -> Option<Waiting> {
        let mut inner = self.lock();
        let count = inner.waiting.entry(source).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(inner);
        Some(Waiting { relays: Arc::clone(self), source })
    }

    /// Places a connection and registers it. `tried`: names of frps that it was at. `None` when there is no other.
    ///
    /// Work connections go where their session is: by run id where that can be read, else where the last client without `tcpMux`
    /// of their address is. Clients that belong together go where the first of them lives, while that is eligible. O(frps log frps).
    pub fn place(
        self: &Arc<Self>,
        request: &Request<'_>,
        tried: &[Arc<str>],
        now: Tick,
        wall: SystemTime,
    ) -> Option<Placed> {
        let source = request.peer.ip().to_canonical();
        let mut inner = self.lock();
        let untried: Vec<_> =
            request.frps.iter().filter(|frps| !tried.contains(&frps.live.name)).cloned().collect();
        let candidates: Vec<_> = untried.iter().map(|frps| candidate(frps, now)).collect();
        let key = key(request.listener, request.together, request.kind, request.user, source);
        let session = inner.session(request, source, now);
        let (at, only_here) = match session {
            // Wherever it is: nobody else can serve it.
            Some((session, sure)) => {
                match untried.iter().position(|frps| Arc::ptr_eq(&frps.live, &session)) {
                    Some(at) => (Some(at), sure),
                    None if sure => return None,
                    None => (None, false),
                }
            }
            None => (None, false),
        };
        let together = || {
            let ids = inner.by_key.get(key.as_ref()?)?;
            let homes = ids.iter().filter_map(|id| Some(&inner.entries.get(id)?.frps));
            homes
                .filter_map(|home| untried.iter().position(|frps| Arc::ptr_eq(&frps.live, home)))
                .find(|at| candidates[*at].is_eligible())
        };
        let at = at.or_else(together).or_else(|| {
            let source = lb_algos::stable_hash(&[source.to_string().as_bytes()]);
            place::order(&candidates, request.place, source).first().copied()
        })?;
        let has_other = (0..untried.len()).any(|other| other != at && candidates[other].is_eligible());
        let frps = Arc::clone(&untried[at].live);
        let counts = inner.counts.entry((Arc::clone(request.listener), Arc::clone(&frps.name))).or_default();
        counts.placed += 1;
        let info = RelayInfo {
            id: self.next.fetch_add(1, Relaxed),
            listener: Arc::clone(request.listener),
            frps: Arc::clone(&frps.name),
            kind: request.kind,
            peer: request.peer,
            local: None,
            user: request.user.map(ToOwned::to_owned),
            client_id: request.client_id.to_owned(),
            run: request.run,
            opened: wall,
            tls_ended: request.tls_ended,
            certificate: request.certificate.map(Into::into),
        };
        let mut entry = Entry::new(info, &frps, key, request.kind == Kind::Opaque);
        entry.contested = request.replaced.then_some(now);
        let registered = entry.registered(self);
        inner.enter(entry, now);
        drop(inner);
        Some(Placed { frps, only_here, has_other, registered })
    }

    /// It is connected to its frps from this address.
    pub fn connected(&self, id: u64, local: SocketAddr) {
        let mut inner = self.lock();
        let local = canonical(local);
        let Some(entry) = inner.entries.get_mut(&id) else { return };
        entry.info.local = Some(local);
        let key = (Arc::clone(&entry.info.frps), local);
        inner.by_local.insert(key, id);
    }

    /// Its frps didn't answer; it goes elsewhere.
    pub fn replayed(&self, id: u64) {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get(&id) else { return };
        let key = (Arc::clone(&entry.info.listener), Arc::clone(&entry.info.frps));
        inner.counts.entry(key).or_default().replayed += 1;
    }

    /// Its session was read from frps's answer.
    pub fn logged_in(&self, id: u64, run: RunHash) {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(&id) else { return };
        entry.info.run = Some(run);
        let frps = Arc::clone(&entry.frps);
        inner.runs.insert(run, Session { frps, holder: Some(id), since: None });
    }

    /// What an opaque connection turned out to be.
    pub fn turned_out(&self, id: u64, kind: Kind) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(entry) = inner.entries.get_mut(&id) else { return };
        entry.info.kind = kind;
        let source = entry.info.peer.ip().to_canonical();
        if kind == Kind::ControlWithoutMux {
            inner.ended.remove(&source);
        }
        if kind.is_client() {
            inner.by_source.entry(source).or_default().insert(id);
        } else if std::mem::take(&mut entry.counted) {
            let frps = Arc::clone(&entry.frps);
            let key = (Arc::clone(&entry.info.listener), Arc::clone(&entry.info.frps));
            frps.left(id);
            inner.counts.entry(key).or_default().open -= 1;
        }
    }

    /// Cuts clients without `tcpMux` of this address that aren't where the last of them is: behind TLS their work connections can't be
    /// told apart, so all of them must be in one place. They dial again, and follow. Spares those that came within `fresh`, which may be
    /// in the middle of their login; returns how many it spared.
    pub fn gather(&self, source: IpAddr, now: SystemTime, fresh: Duration) -> usize {
        let inner = self.lock();
        let hidden = || {
            let ids = inner.by_source.get(&source.to_canonical()).into_iter().flatten().rev();
            let all = ids.filter_map(|id| inner.entries.get(id));
            // Where logins can be read, work connections find their way by themselves.
            all.filter(|entry| entry.hidden && entry.info.kind == Kind::ControlWithoutMux)
        };
        let Some(home) = hidden().next().map(|entry| Arc::clone(&entry.frps)) else { return 0 };
        let (mut cut, mut spared) = (0, 0);
        for entry in hidden().filter(|entry| !Arc::ptr_eq(&entry.frps, &home)) {
            if now.duration_since(entry.info.opened).is_ok_and(|age| age >= fresh) {
                inner.cut(entry);
                cut += 1;
            } else {
                spared += 1;
            }
        }
        drop(inner);
        if cut > 0 {
            tracing::info!(
                %source,
                frps = &*home.name,
                clients = cut,
                "clients without tcpMux behind TLS gather on one frps: their work connections can't be told apart"
            );
        }
        spared
    }

    /// frps asks us, as its plugin, about a login from `address`: now we know whose connection that is.
    /// `knows_token`: it has shown that it knows the token of that frps.
    pub fn told(
        &self,
        frps: &str,
        address: &str,
        (user, client_id): (&str, &str),
        knows_token: bool,
    ) -> bool {
        let Ok(address) = address.parse::<SocketAddr>() else { return false };
        let mut inner = self.lock();
        let Some(id) = inner.by_local.get(&(frps.into(), canonical(address))).copied() else { return false };
        let Some(entry) = inner.entries.get_mut(&id) else { return false };
        entry.info.user = Some(user.to_owned());
        client_id.clone_into(&mut entry.info.client_id);
        drop(inner);
        // TLS hid the login: too late to keep it waiting, but its next try will find the way free.
        let shown = if knows_token { Shown::Token(frps) } else { Shown::Nothing };
        let (login, now) = (Successor { user, client_id, run: None, shown }, crate::clock::now());
        if self.rivals(&login, Some(id), now, SystemTime::now()).cut {
            tracing::info!(frps, user, client_id, "an older connection was cut for one that knows the token");
            if let Some(entry) = self.lock().entries.get_mut(&id) {
                entry.contested = Some(now);
            }
        }
        true
    }

    /// Has the clients probed that a login would replace: same user and `clientID`, or same session; but not `but`. frps refuses or
    /// ignores the new one while it believes in the old. O(all connections) for a login with a `clientID`, else O(1).
    ///
    /// A name proves nothing, so nobody is cut for it: only who leaves a probe unacknowledged goes. Who knows the token of the frps where
    /// the old one is has it cut, unless that came in this way itself and was contested within a minute: two that live and have one
    /// name would cut each other for ever.
    #[must_use]
    pub fn rivals(&self, login: &Successor<'_>, but: Option<u64>, now: Tick, time: SystemTime) -> Rivals {
        let Successor { user, client_id, run, shown } = *login;
        let mut inner = self.lock();
        let mut rivals: BTreeSet<u64> =
            run.and_then(|run| inner.runs.get(&run)?.holder).into_iter().collect();
        if !client_id.is_empty() {
            let is_same = |info: &RelayInfo| {
                info.kind.is_client() && info.client_id == client_id && info.user.as_deref() == Some(user)
            };
            // One that another process relays can't be probed.
            let here = inner.entries.values().filter(|entry| entry.elsewhere.is_none());
            let named = here.filter(|entry| is_same(&entry.info));
            rivals.extend(named.map(|entry| entry.info.id));
        }
        rivals.retain(|id| Some(*id) != but);
        let (mut lost, mut cut) = (Vec::new(), false);
        for id in &rivals {
            let Some(entry) = inner.entries.get_mut(id) else { continue };
            let contested = entry.contested.is_some_and(|then| now.since(then) < CONTESTED);
            let knows = match shown {
                Shown::Nothing => false,
                Shown::Proof(proof) => entry.frps.is_token_of(proof, time),
                Shown::Token(frps) => *entry.frps.name == *frps,
            };
            if contested {
                entry.contested = Some(now);
            }
            if knows && !contested {
                lost.push(*id);
            } else {
                entry.probe.notify_one();
            }
        }
        for entry in lost.iter().filter_map(|id| inner.entries.get(id)) {
            inner.cut(entry);
            cut = true;
        }
        drop(inner);
        Rivals { ids: rivals.into_iter().collect(), cut }
    }

    /// Whether any of these is still relayed.
    #[must_use]
    pub fn has_any(&self, ids: &[u64]) -> bool {
        let inner = self.lock();
        ids.iter().any(|id| inner.entries.contains_key(id))
    }

    /// A connection was given up before it was relayed.
    pub fn refused(&self, listener: &Arc<str>, why: Refusal) {
        self.lock().refused.entry(Arc::clone(listener)).or_default()[why as usize] += 1;
    }

    /// All connections, in the order they came.
    #[must_use]
    pub fn all(&self) -> Vec<RelayInfo> {
        let inner = self.lock();
        let mut all: Vec<_> = inner.entries.values().map(|entry| entry.info.clone()).collect();
        drop(inner);
        all.sort_by_key(|info| info.id);
        all
    }

    /// Connections at this frps, in the order they came. O(all connections).
    #[must_use]
    pub fn of(&self, frps: &str) -> Vec<RelayInfo> {
        let mut all = self.all();
        all.retain(|info| *info.frps == *frps);
        all
    }

    /// Clients of this user and `clientID` at this frps, and of this session, where one is given. O(all connections).
    #[must_use]
    pub fn find(&self, frps: &str, user: &str, client_id: &str, run: Option<RunHash>) -> Vec<RelayInfo> {
        let mut all = self.of(frps);
        all.retain(|info| {
            info.kind.is_client()
                && info.user.as_deref() == Some(user)
                && info.client_id == client_id
                && run.is_none_or(|run| info.run == Some(run))
        });
        all
    }

    /// Cuts a connection, both sides; whether there is one. Its frpc dials again at once. One that the process before this one
    /// relays is forgotten here: that process is told.
    pub fn cut(&self, id: u64) -> bool {
        let inner = self.lock();
        let Some(entry) = inner.entries.get(&id) else { return false };
        inner.cut(entry);
        let is_here = entry.elsewhere.is_none();
        drop(inner);
        if !is_here {
            self.remove(id);
        }
        true
    }

    /// What was counted, by listener and frps, sorted.
    #[must_use]
    pub fn counts(&self) -> Vec<(Pair, Counts)> {
        let inner = self.lock();
        let mut all: Vec<_> = inner.counts.iter().map(|(key, counts)| (key.clone(), *counts)).collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// Connections given up, by listener and [`REFUSALS`], sorted.
    #[must_use]
    pub fn refusals(&self) -> Vec<(Arc<str>, [u64; REFUSALS.len()])> {
        let mut all: Vec<_> =
            self.lock().refused.iter().map(|(name, counts)| (Arc::clone(name), *counts)).collect();
        all.sort();
        all
    }

    /// As if something had been placed there.
    #[cfg(test)]
    pub(crate) fn touch(&self, listener: &Arc<str>, frps: &str) {
        self.lock().counts.entry((Arc::clone(listener), frps.into())).or_default();
    }

    fn remove(&self, id: u64) {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.remove(&id) else { return };
        let Entry { info, frps, together, counted, hidden, .. } = entry;
        if hidden && info.kind == Kind::ControlWithoutMux {
            let now = crate::clock::now();
            inner.ended.retain(|_, at| now.since(*at) < LOGS_IN);
            inner.ended.insert(info.peer.ip().to_canonical(), now);
        }
        if counted {
            frps.left(id);
            inner.counts.entry((Arc::clone(&info.listener), Arc::clone(&info.frps))).or_default().open -= 1;
        }
        if let Some(local) = info.local {
            let key = (Arc::clone(&info.frps), local);
            if inner.by_local.get(&key) == Some(&id) {
                inner.by_local.remove(&key);
            }
        }
        if let Some(key) = together {
            forget(&mut inner.by_key, &key, id);
        }
        forget(&mut inner.by_source, &info.peer.ip().to_canonical(), id);
        if let Some(run) = info.run
            && let Some(session) = inner.runs.get_mut(&run)
            && session.holder == Some(id)
        {
            let now = crate::clock::now();
            (session.holder, session.since) = (None, Some(now));
            if inner.runs.len() > MOST_REMEMBERED {
                inner
                    .runs
                    .retain(|_, session| session.since.is_none_or(|since| now.since(since) < REMEMBERED));
            }
        }
    }
}

impl Entry {
    fn new(info: RelayInfo, frps: &Arc<FrpsLive>, together: Option<Key>, hidden: bool) -> Self {
        let (cut, probe) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let counted = info.kind.is_client();
        Self {
            info,
            frps: Arc::clone(frps),
            together,
            counted,
            hidden,
            elsewhere: None,
            contested: None,
            cut,
            probe,
        }
    }

    fn registered(&self, relays: &Arc<Relays>) -> Registered {
        let (cut, probe) = (Arc::clone(&self.cut), Arc::clone(&self.probe));
        Registered { relays: Arc::clone(relays), id: self.info.id, cut, probe }
    }
}

impl Inner {
    /// Counts it, and makes it known by all that it can be found by.
    fn enter(&mut self, entry: Entry, now: Tick) {
        let Entry { info, frps, .. } = &entry;
        if entry.counted {
            frps.placed(info.id, now);
            self.counts.entry((Arc::clone(&info.listener), Arc::clone(&info.frps))).or_default().open += 1;
            if info.kind != Kind::Opaque {
                self.by_source.entry(info.peer.ip().to_canonical()).or_default().insert(info.id);
            }
        }
        if let Some(key) = &entry.together {
            self.by_key.entry(key.clone()).or_default().insert(info.id);
        }
        if let Some(local) = info.local {
            self.by_local.insert((Arc::clone(&info.frps), local), info.id);
        }
        self.entries.insert(info.id, entry);
    }

    /// Has it cut, wherever it is relayed.
    fn cut(&self, entry: &Entry) {
        match (entry.elsewhere, &self.beyond) {
            // Where the other process is gone, so is the connection.
            (Some(there), Some(beyond)) => drop(beyond.send(there)),
            (Some(_), None) => {}
            (None, _) => entry.cut.notify_one(),
        }
    }

    /// Where the session of a work connection is, and whether that is sure. `None`: it is no work connection, or nobody knows.
    fn session(&self, request: &Request<'_>, source: IpAddr, now: Tick) -> Option<(Arc<FrpsLive>, bool)> {
        match request.kind {
            Kind::Control | Kind::ControlWithoutMux => return None,
            Kind::Work => {
                if let Some(session) = request.run.and_then(|run| self.runs.get(&run)) {
                    return Some((Arc::clone(&session.frps), true));
                }
            }
            Kind::Opaque => {}
        }
        let of_source = self.by_source.get(&source)?;
        let last = of_source.iter().rev().filter_map(|id| self.entries.get(id));
        let without_mux: Option<&Entry> =
            last.clone().find(|entry| entry.info.kind == Kind::ControlWithoutMux);
        // One that was cut to be moved must not come back because others are still there.
        let is_draining = |entry: &Entry| {
            request.frps.iter().any(|frps| Arc::ptr_eq(&frps.live, &entry.frps) && frps.drain)
        };
        let logs_in = || self.ended.get(&source).is_some_and(|at| now.since(*at) < LOGS_IN);
        if request.kind == Kind::Opaque && without_mux.is_some_and(is_draining) && logs_in() {
            return None;
        }
        let home = match request.kind {
            Kind::Work => without_mux.or_else(|| last.clone().next()),
            _ => without_mux,
        };
        home.map(|entry| (Arc::clone(&entry.frps), false))
    }
}

fn forget<K: std::hash::Hash + Eq>(map: &mut HashMap<K, BTreeSet<u64>, FastState>, key: &K, id: u64) {
    if let Some(ids) = map.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            map.remove(key);
        }
    }
}

fn candidate(frps: &FrpsHandle, now: Tick) -> Candidate {
    Candidate {
        key: lb_algos::stable_hash(&[frps.live.name.as_bytes()]),
        weight: frps.weight,
        draining: frps.drain,
        down: frps.live.is_down(now),
        tunnels: frps.live.tunnels(),
        clients: frps.live.clients(),
    }
}

fn key(
    listener: &Arc<str>,
    together: Together,
    kind: Kind,
    user: Option<&str>,
    source: IpAddr,
) -> Option<Key> {
    let listener = Arc::clone(listener);
    match (together, user) {
        _ if !kind.is_client() => None,
        (Together::Nobody, _) => None,
        (Together::User, Some(user)) => Some(Key::User(listener, user.to_owned())),
        (Together::User, None) | (Together::SourceIp, _) => Some(Key::Source(listener, source)),
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

mod carried;
#[cfg(test)]
mod tests;
