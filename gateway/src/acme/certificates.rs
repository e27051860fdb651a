//! The certificates that came from the authority, where handshakes find them.

use std::{
    collections::HashMap,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use frp_gateway_config::model::Certificate;
use rustls::sign::CertifiedKey;
use tokio::sync::mpsc;

use super::{
    proofs::Proofs,
    stats::{Ended, Stats},
    storage::Stored,
};
use crate::tls::{
    MoreCertificates,
    pair::{Bytes, Pair},
    view::CertificateView,
};

/// Names asked for that may wait to be looked at; what comes beyond is asked for again.
const WISHES: usize = 128;

/// What shows where a certificate is from.
pub const SOURCE: &str = "acme";

/// A certificate in force.
#[derive(Debug, Clone)]
pub struct Held {
    /// It, and its key.
    pub pair: Arc<Pair>,
    /// User of FRP in whose share it counts.
    pub user: Option<Arc<str>>,
    /// Why it hasn't been renewed, if that was tried.
    pub fault: Option<String>,
}

impl Held {
    /// What was kept, if it is whole.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(stored: &Stored, now: SystemTime) -> Result<Self, String> {
        let files = Certificate { cert: PathBuf::from(SOURCE), key: PathBuf::from(SOURCE), ocsp: None };
        let bytes = Bytes::new(stored.chain.clone().into_bytes(), stored.key.clone().into_bytes());
        let pair = Pair::new(&files, &bytes, now).map_err(|wrong| wrong.why)?;
        if !pair.leaf.names.contains(&stored.name) {
            return Err(format!("it is for {}, not for {}", pair.leaf.names.join(", "), stored.name));
        }
        Ok(Self { pair: Arc::new(pair), user: stored.user.as_deref().map(Into::into), fault: None })
    }
}

/// By name.
pub type Map = HashMap<Arc<str>, Held, foldhash::fast::RandomState>;

/// Where handshakes find certificates. Reading is wait-free.
#[derive(Debug)]
pub struct Certificates {
    held: ArcSwap<Map>,
    listeners: ArcSwap<Vec<String>>,
    proofs: Arc<Proofs>,
    stats: Arc<Stats>,
    /// When the first is due to be renewed, Unix seconds; 0 = never.
    next_renewal: AtomicU64,
    wishes: mpsc::Sender<Box<str>>,
}

impl Certificates {
    /// None yet; the other end hears of names that were asked for in vain.
    #[must_use]
    pub fn new(proofs: Arc<Proofs>, stats: Arc<Stats>) -> (Self, mpsc::Receiver<Box<str>>) {
        let (wishes, wished) = mpsc::channel(WISHES);
        let (held, listeners, next_renewal) = (ArcSwap::default(), ArcSwap::default(), AtomicU64::new(0));
        (Self { held, listeners, proofs, stats, next_renewal, wishes }, wished)
    }

    /// All of them.
    #[must_use]
    pub fn held(&self) -> Arc<Map> {
        self.held.load_full()
    }

    /// Puts these in force, for handshakes to come.
    pub fn put(&self, held: Map) {
        self.held.store(Arc::new(held));
    }

    /// When the first of them is due to be renewed.
    pub fn set_next_renewal(&self, at: Option<SystemTime>) {
        let at = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs());
        self.next_renewal.store(at, Relaxed);
    }

    /// Who serves them.
    pub fn set_listeners(&self, listeners: Vec<String>) {
        self.listeners.store(Arc::new(listeners));
    }
}

impl MoreCertificates for Certificates {
    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let held = self.held.load();
        match held.get(name) {
            Some(held) => Some(Arc::clone(&held.pair.certified)),
            None => {
                // The handshake doesn't wait, nor does whoever comes when there is no room.
                if self.wishes.capacity() > 0 {
                    drop(self.wishes.try_send(name.into()));
                }
                None
            }
        }
    }

    fn challenge(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.proofs.certificate(name)
    }

    fn look_for_challenge<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.proofs.look_for(name))
    }

    fn orders(&self) -> Vec<(&'static str, u64)> {
        Ended::ALL.iter().map(|ended| (ended.word(), self.stats.of(*ended))).collect()
    }

    fn next_renewal(&self) -> Option<SystemTime> {
        let at = self.next_renewal.load(Relaxed);
        (at > 0).then(|| UNIX_EPOCH + Duration::from_secs(at))
    }

    fn shown(&self) -> Vec<CertificateView> {
        let (held, now) = (self.held.load(), SystemTime::now());
        let listeners = self.listeners.load();
        let of =
            |held: &Held| CertificateView::of(&held.pair, Vec::clone(&listeners), held.fault.clone(), now);
        let mut shown: Vec<_> = held.values().map(of).collect();
        shown.sort_by(|one, other| one.name.cmp(&other.name));
        shown
    }
}
