//! Relayed connections as one process tells them to the next, at an upgrade.
//!
//! Before the new process lets anybody in it knows all that the old one relays: so a work connection finds its login, clients that
//! belong together meet, and nobody is missing in a listing. Each of these is *elsewhere* until its sockets arrive
//! ([`Relays::adopt`]), or until it is cut there and dials again.

use std::{
    collections::HashSet,
    fmt,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::SystemTime,
};

use frp_gateway_config::model::Together;
use lb_algos::Tick;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Entry, Inner, Kind, Registered, RelayInfo, Relays, RunHash, Session, key};
use crate::snapshot::{FrpsHandle, FrpsLive};

/// Key of the hashes of run ids.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Salt([u8; 32]);

impl Default for Salt {
    /// A random one.
    fn default() -> Self {
        let seeds = std::hash::RandomState::new();
        let mut salt = [0; 32];
        for (at, part) in salt.chunks_exact_mut(8).enumerate() {
            part.copy_from_slice(&std::hash::BuildHasher::hash_one(&seeds, at).to_be_bytes());
        }
        Self(salt)
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(…)")
    }
}

impl Salt {
    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// A relayed connection, as another process can read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    /// Its number in the process that tells it.
    pub id: u64,
    /// Name of the listener it came through.
    pub listener: String,
    /// Name of its frps.
    pub frps: String,
    /// What it is.
    pub kind: Kind,
    /// Address of the client.
    pub peer: SocketAddr,
    /// Our side of the connection to frps.
    pub local: Option<SocketAddr>,
    /// User of FRP, where it is known.
    pub user: Option<String>,
    /// `clientID`; empty = it has none.
    pub client_id: String,
    /// Its session, where that is known.
    pub run: Option<RunHash>,
    /// When it was placed.
    pub opened: SystemTime,
    /// TLS ends at the process that tells it.
    pub tls_ended: bool,
    /// TLS or a websocket hid what it is when it was placed.
    pub hidden: bool,
}

/// What the next process has to know before it lets anybody in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inheritance {
    /// Key of the hashes; `None` = told by a version without this.
    pub salt: Option<Salt>,
    /// All connections, in the order they came.
    pub relays: Vec<Carried>,
    /// Where sessions are, by name of the frps; those included whose control connection has just ended.
    pub runs: Vec<(RunHash, String)>,
}

impl Relays {
    /// What the next process has to know.
    #[must_use]
    pub fn inheritance(&self) -> Inheritance {
        let inner = self.lock();
        let here = inner.entries.values().filter(|entry| entry.elsewhere.is_none());
        let mut relays: Vec<_> = here.map(Carried::of).collect();
        let runs = inner.runs.iter().map(|(run, session)| (*run, session.frps.name.to_string())).collect();
        let salt = Some(inner.salt.clone());
        drop(inner);
        relays.sort_by_key(|carried| carried.id);
        Inheritance { salt, relays, runs }
    }

    /// Goes by what the process before this one tells: its connections are elsewhere from now on; those elsewhere that it doesn't
    /// name have ended. Can be told again. `all` = the frps there are; `together` says it of a listener. What is at others is left out.
    /// O(n log n).
    pub fn inherit(
        &self,
        told: &Inheritance,
        all: &[Arc<FrpsHandle>],
        together: impl Fn(&str) -> Option<Together>,
        now: Tick,
    ) {
        let frps = |name: &str| Some(&all.iter().find(|frps| *frps.live.name == *name)?.live);
        let mut inner = self.lock();
        if let (Some(salt), true) = (&told.salt, inner.inherited.is_empty()) {
            inner.salt = salt.clone();
        }
        for (run, at) in &told.runs {
            if let Some(frps) = frps(at) {
                let session = Session { frps: Arc::clone(frps), holder: None, since: Some(now) };
                inner.runs.entry(*run).or_insert(session);
            }
        }
        let named: HashSet<u64> = told.relays.iter().map(|carried| carried.id).collect();
        for carried in &told.relays {
            if let (Some(frps), Some(together)) = (frps(&carried.frps), together(&carried.listener))
                && !inner.inherited.contains_key(&carried.id)
            {
                self.expect(&mut inner, carried, frps, together, now);
            }
        }
        let ended = |entry: &&Entry| entry.elsewhere.is_some_and(|there| !named.contains(&there));
        let ended: Vec<_> = inner.entries.values().filter(ended).map(|entry| entry.info.id).collect();
        drop(inner);
        ended.into_iter().for_each(|id| self.remove(id));
    }

    /// The sockets of this one have arrived.
    #[must_use]
    pub fn adopt(
        self: &Arc<Self>,
        carried: &Carried,
        frps: &Arc<FrpsLive>,
        together: Together,
        now: Tick,
    ) -> Registered {
        let mut inner = self.lock();
        let id = match inner.inherited.get(&carried.id) {
            Some(id) if inner.entries.contains_key(id) => *id,
            // It came after we were told.
            _ => self.expect(&mut inner, carried, frps, together, now),
        };
        let inner = &mut *inner;
        let entry = inner.entries.get_mut(&id).expect("it was there or has just been entered");
        entry.elsewhere = None;
        // frps may have named it to this process meanwhile.
        if carried.user.is_some() {
            entry.info.user.clone_from(&carried.user);
            entry.info.client_id.clone_from(&carried.client_id);
        }
        if let Some(run) = carried.run.or(entry.info.run) {
            entry.info.run = Some(run);
            let session = Session { frps: Arc::clone(&entry.frps), holder: Some(id), since: None };
            if carried.kind.is_client() {
                inner.runs.insert(run, session);
            }
        }
        entry.registered(self)
    }

    /// As the next process is told of it; `None` when it has ended.
    #[must_use]
    pub fn carried(&self, id: u64) -> Option<Carried> {
        self.lock().entries.get(&id).map(Carried::of)
    }

    /// Clients that the process before this one relays still, in the order they came.
    #[must_use]
    pub fn elsewhere(&self) -> Vec<RelayInfo> {
        let inner = self.lock();
        let there = inner.entries.values().filter(|entry| entry.elsewhere.is_some());
        let mut there: Vec<_> =
            there.filter(|entry| entry.info.kind.is_client()).map(|entry| entry.info.clone()).collect();
        drop(inner);
        there.sort_by_key(|info| info.id);
        there
    }

    /// Where the process before this one is told, by its own numbers, whom to cut.
    pub fn cut_there_by(&self, beyond: mpsc::UnboundedSender<u64>) {
        self.lock().beyond = Some(beyond);
    }

    /// The process before this one has ended, and with it all that it relayed.
    pub fn alone(&self) {
        let mut inner = self.lock();
        inner.beyond = None;
        inner.inherited.clear();
        let there = inner.entries.values().filter(|entry| entry.elsewhere.is_some());
        let there: Vec<_> = there.map(|entry| entry.info.id).collect();
        drop(inner);
        there.into_iter().for_each(|id| self.remove(id));
    }

    fn expect(
        &self,
        inner: &mut Inner,
        carried: &Carried,
        frps: &Arc<FrpsLive>,
        together: Together,
        now: Tick,
    ) -> u64 {
        let id = self.next.fetch_add(1, Relaxed);
        let listener: Arc<str> = carried.listener.as_str().into();
        // As when it was placed: what was hidden then told no user.
        let user = carried.user.as_deref().filter(|_| !carried.hidden);
        let source = carried.peer.ip().to_canonical();
        let key = key(&listener, together, carried.kind, user, source);
        let info = RelayInfo {
            id,
            listener,
            frps: Arc::clone(&frps.name),
            kind: carried.kind,
            peer: carried.peer,
            local: carried.local,
            user: carried.user.clone(),
            client_id: carried.client_id.clone(),
            run: carried.run,
            opened: carried.opened,
            tls_ended: carried.tls_ended,
            // Where TLS ends here, nothing can be handed on.
            certificate: None,
        };
        let entry = Entry { elsewhere: Some(carried.id), ..Entry::new(info, frps, key, carried.hidden) };
        inner.enter(entry, now);
        inner.inherited.insert(carried.id, id);
        id
    }
}

impl Carried {
    fn of(entry: &Entry) -> Self {
        let RelayInfo {
            id,
            listener,
            frps,
            kind,
            peer,
            local,
            user,
            client_id,
            run,
            opened,
            tls_ended,
            certificate: _,
        } = entry.info.clone();
        let (listener, frps, hidden) = (listener.to_string(), frps.to_string(), entry.hidden);
        Self { id, listener, frps, kind, peer, local, user, client_id, run, opened, tls_ended, hidden }
    }
}
