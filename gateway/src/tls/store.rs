//! The certificates in force, and how a configuration or a changed file becomes the next ones.
//!
//! A configuration is staged, which can fail and changes nothing, and settled, which can't fail. A file that changes is
//! swapped by [`Store::look`]. Both may run at the same time: what `look` read is only put in force where nothing else was
//! meanwhile, and what `settle` puts in force too late the next look sees.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use frp_gateway_config::model::{Certificate, Config, ListenerTls, UnknownName};
use tokio::sync::Notify;

use super::{
    client,
    clients::Watched,
    keeper::{Prints, Suspect},
    more::MoreCertificates,
    names::Names,
    outbound::{Begun, Outbound},
    pair::{Bytes, Pair, Wrong},
    terminator::{InForce, More, Settings, Terminator},
    view::CertificateView,
};

/// Something wrong with the TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFault {
    /// Key in the configuration.
    pub key: String,
    /// The file, and what is wrong with it.
    pub message: String,
}

/// How often files were swapped, and how often not, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Certificates that took the place of their predecessor without a reload.
    pub swapped: u64,
    /// Files that were refused.
    pub refused: u64,
}

/// All certificates of the process.
#[derive(Debug, Default)]
pub struct Store {
    inner: Mutex<Inner>,
    more: Arc<More>,
    /// Other files are in use than before.
    pub(super) other_files: Notify,
    /// Who was let in may not be any more, or whom we speak TLS to.
    pub(super) clients_changed: Notify,
    swapped: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) pairs: HashMap<Certificate, Held>,
    pub(super) listeners: BTreeMap<String, Ended>,
    pub(super) suspects: HashMap<Certificate, Suspect>,
    /// Pools whose members are spoken to by TLS.
    pub(super) pools: BTreeMap<String, Begun>,
}

/// A certificate in force.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) pair: Arc<Pair>,
    /// How the files looked when they were read.
    pub(super) prints: Prints,
    /// Days-left mark that was told last.
    pub(super) told: Option<u64>,
}

/// A listener that ends TLS.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) terminator: Arc<Terminator>,
    certificates: Vec<Certificate>,
    unknown: UnknownName,
    acme: bool,
    pub(super) settings: Settings,
    /// The files that judge clients.
    pub(super) clients: Option<Watched>,
}

impl Ended {
    fn names(&self, pairs: &HashMap<Certificate, Held>, now: SystemTime) -> Names {
        let all = self.certificates.iter().filter_map(|files| Some(Arc::clone(&pairs.get(files)?.pair)));
        Names::new(all.collect(), self.unknown, self.acme, now)
    }
}

/// What a configuration comes to. Dropping it leaves everything as it was.
#[derive(Debug)]
pub struct Staged {
    pairs: HashMap<Certificate, Held>,
    listeners: Vec<(String, Ended, Arc<InForce>)>,
    pools: BTreeMap<String, Begun>,
    now: SystemTime,
}

impl Staged {
    /// What ends TLS, by the name of the listener.
    pub fn terminators(&self) -> impl Iterator<Item = (&str, &Arc<Terminator>)> {
        self.listeners.iter().map(|(name, ended, _)| (name.as_str(), &ended.terminator))
    }
}

impl Staged {
    /// How pools speak TLS to their members, by the name of the pool.
    pub fn outbounds(&self) -> impl Iterator<Item = (&str, &Arc<Outbound>)> {
        self.pools.iter().map(|(name, begun)| (name.as_str(), &begun.outbound))
    }
}

impl Store {
    /// From now on certificates that no file covers come from there, at listeners with `acme: true`.
    pub fn set_more(&self, more: Arc<dyn MoreCertificates>) {
        self.more.set(more);
    }

    /// Whether a listener with `acme: true` has no file for this name (lower case).
    #[must_use]
    pub fn lacks(&self, name: &str) -> bool {
        self.inner().listeners.values().any(|ended| ended.acme && !ended.terminator.knows(name))
    }

    /// Reads what a configuration names, and what is in force no second time unless it has changed. Blocks on files.
    ///
    /// `strict`: a certificate that isn't in force yet must be valid now. Not at start: a gateway that can't start serves
    /// nobody.
    ///
    /// # Errors
    /// Every file that can't be used.
    pub fn stage(&self, config: &Config, strict: bool, now: SystemTime) -> Result<Staged, Vec<TlsFault>> {
        let (in_force, known) = {
            let inner = self.inner();
            let terminators: HashMap<_, _> = inner
                .listeners
                .iter()
                .map(|(name, ended)| (name.clone(), (Arc::clone(&ended.terminator), ended.clients.clone())))
                .collect();
            (inner.pairs.clone(), terminators)
        };
        let mut reader = Reader { in_force, strict, now, read: HashMap::new() };
        let (mut listeners, mut faults) = (Vec::new(), Vec::new());
        for (index, listener) in config.listeners.iter().enumerate() {
            let Some(tls) = &listener.tls else { continue };
            let key = format!("listeners[{index}].tls");
            let whole = reader.read_all(tls, &key, &mut faults);
            let before = known.get(&listener.name);
            let watched = tls
                .client_auth
                .as_ref()
                .map(|auth| Watched::read(auth, before.and_then(|(_, clients)| clients.as_ref()), now));
            let clients = match watched.transpose() {
                Ok(clients) => clients,
                Err(wrong) => {
                    let of = |wrong: client::Wrong| TlsFault {
                        key: format!("{key}.client_auth.{}", wrong.key),
                        message: wrong.message,
                    };
                    faults.extend(wrong.into_iter().map(of));
                    continue;
                }
            };
            if !whole {
                continue;
            }
            let gate = clients.as_ref().map(|clients| Arc::clone(&clients.gate));
            let settings = Settings::of(listener, tls, gate);
            match self.terminator(&settings, before.map(|(terminator, _)| terminator)) {
                Ok((terminator, server)) => {
                    let (certificates, unknown, acme) =
                        (tls.certificates.clone(), tls.unknown_name, tls.acme);
                    let ended = Ended { terminator, certificates, unknown, acme, settings, clients };
                    listeners.push((listener.name.clone(), ended, server));
                }
                Err(error) => faults.push(TlsFault { key, message: error.to_string() }),
            }
        }
        let in_force = self.inner().pools.clone();
        let mut pools = BTreeMap::new();
        for (index, pool) in config.pools.iter().enumerate() {
            let Some(tls) = &pool.tls else { continue };
            match Begun::read(tls, in_force.get(&pool.name), now) {
                Ok(begun) => drop(pools.insert(pool.name.clone(), begun)),
                Err(wrong) => {
                    let of = |wrong: client::Wrong| TlsFault {
                        key: format!("pools[{index}].tls.{}", wrong.key),
                        message: wrong.message,
                    };
                    faults.extend(wrong.into_iter().map(of));
                }
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let pairs = reader.read.into_iter().filter_map(|(files, read)| Some((files, read.ok()?))).collect();
        Ok(Staged { pairs, listeners, pools, now })
    }

    fn terminator(
        &self,
        settings: &Settings,
        known: Option<&Arc<Terminator>>,
    ) -> Result<(Arc<Terminator>, Arc<InForce>), rustls::Error> {
        if let Some(known) = known {
            return Ok((Arc::clone(known), known.prepare(settings)?));
        }
        let none = Names::new(Vec::new(), UnknownName::Refuse, false, SystemTime::UNIX_EPOCH);
        let terminator = Arc::new(Terminator::new(settings, none, Arc::clone(&self.more))?);
        let server = terminator.in_force();
        Ok((terminator, server))
    }

    /// Puts it in force, for handshakes to come, and tells the log what is odd about new certificates.
    pub fn settle(&self, staged: Staged) {
        let Staged { mut pairs, listeners, pools, now } = staged;
        let mut inner = self.inner();
        for (files, held) in &mut pairs {
            let before = inner.pairs.get(files);
            held.told =
                before.filter(|before| before.pair.digest == held.pair.digest).and_then(|before| before.told);
            if before.is_none_or(|before| before.pair.digest != held.pair.digest) {
                warn(&held.pair, now);
            }
        }
        inner.suspects.retain(|files, _| pairs.contains_key(files));
        let same =
            inner.pairs.len() == pairs.len() && pairs.keys().all(|files| inner.pairs.contains_key(files));
        inner.pairs = pairs;
        pools.values().for_each(|begun| begun.outbound.put(Arc::clone(&begun.spoken)));
        let others = !pools.is_empty() || !inner.pools.is_empty();
        let mut judged_anew = pools.iter().any(|(name, begun)| {
            inner.pools.get(name).is_some_and(|before| !Arc::ptr_eq(&before.spoken, &begun.spoken))
        });
        inner.pools = pools;
        for (name, ended, _) in &listeners {
            let before = inner.listeners.get(name).and_then(|before| before.clients.as_ref());
            if let Some(clients) = &ended.clients
                && before.is_none_or(|before| !Arc::ptr_eq(&before.gate, &clients.gate))
            {
                judged_anew = true;
                clients.warn(name);
            }
        }
        inner.listeners = listeners
            .into_iter()
            .map(|(name, ended, server)| {
                // Names first: a client that is asked for more than before must not be served by less.
                ended.terminator.put_names(ended.names(&inner.pairs, now));
                ended.terminator.put(server);
                (name, ended)
            })
            .collect();
        drop(inner);
        if judged_anew {
            self.clients_changed.notify_one();
        }
        if !same || others || judged_anew {
            self.other_files.notify_one();
        }
    }

    /// Puts these in the place of those that are in force still; the others are left alone. Whether a certificate changed.
    pub(super) fn swap(&self, swaps: Vec<(Arc<Pair>, Held)>, now: SystemTime) -> bool {
        let mut inner = self.inner();
        let mut changed: Vec<Certificate> = Vec::new();
        for (old, new) in swaps {
            let files = new.pair.files.clone();
            let Some(held) = inner.pairs.get_mut(&files).filter(|held| Arc::ptr_eq(&held.pair, &old)) else {
                continue;
            };
            if !Arc::ptr_eq(&new.pair, &old) {
                changed.push(files.clone());
            }
            let fresh = new.pair.digest != old.digest;
            *held = new;
            inner.suspects.remove(&files);
            if fresh {
                self.swapped.fetch_add(1, Relaxed);
                let pair = &inner.pairs[&files].pair;
                let listeners = inner.serving(&files);
                tracing::info!(
                    name = pair.leaf.primary_name(),
                    listeners = listeners.join(", "),
                    file = %files.cert.display(),
                    days_left = pair.leaf.seconds_left(now).div_euclid(86_400),
                    "certificate swapped"
                );
                warn(pair, now);
            }
        }
        if changed.is_empty() {
            return false;
        }
        for ended in inner.listeners.values() {
            if ended.certificates.iter().any(|files| changed.contains(files)) {
                ended.terminator.put_names(ended.names(&inner.pairs, now));
            }
        }
        true
    }

    /// Says that what is in the files now isn't taken.
    pub(super) fn refuse(&self, files: &Certificate, wrong: &Wrong) {
        self.refused.fetch_add(1, Relaxed);
        let listeners = self.inner().serving(files);
        tracing::warn!(
            listeners = listeners.join(", "),
            file = %wrong.path.display(),
            reason = wrong.why,
            "certificate refused; the old one stays in force"
        );
    }

    /// Every file in use.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let inner = self.inner();
        let of =
            |files: &Certificate| [Some(files.cert.clone()), Some(files.key.clone()), files.ocsp.clone()];
        let clients = inner.listeners.values().filter_map(|ended| ended.clients.as_ref());
        let clients = clients.flat_map(|clients| clients.paths().to_vec());
        let pools = inner.pools.values().flat_map(|begun| begun.paths().to_vec());
        inner.pairs.keys().flat_map(of).flatten().chain(clients).chain(pools).collect()
    }

    /// Returns when clients that were let in have to be judged again: what judges them has changed since the last time.
    pub async fn clients_changed(&self) {
        self.clients_changed.notified().await;
    }

    /// Counts what is in files and isn't taken.
    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Counts what was swapped.
    pub(super) fn count_swapped(&self) {
        self.swapped.fetch_add(1, Relaxed);
    }

    /// How often files were swapped or refused.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { swapped: self.swapped.load(Relaxed), refused: self.refused.load(Relaxed) }
    }

    /// How orders of certificates at run time have ended, by words for metrics.
    #[must_use]
    pub fn orders(&self) -> Vec<(&'static str, u64)> {
        self.more.get().map_or_else(Vec::new, |more| more.orders())
    }

    /// When the first certificate that comes at run time is due to be renewed; in the past while that doesn't succeed.
    #[must_use]
    pub fn next_renewal(&self) -> Option<SystemTime> {
        self.more.get()?.next_renewal()
    }

    /// Certificates as operators see them: those of files in the order of their paths, then others.
    #[must_use]
    pub fn shown(&self, now: SystemTime) -> Vec<CertificateView> {
        let inner = self.inner();
        let mut files: Vec<_> = inner.pairs.keys().collect();
        files.sort();
        let of_file = |files: &Certificate| {
            let fault = inner
                .suspects
                .get(files)
                .filter(|suspect| suspect.told)
                .map(|suspect| suspect.wrong.to_string());
            CertificateView::of(&inner.pairs[files].pair, inner.serving(files), fault, now)
        };
        let mut shown: Vec<_> = files.into_iter().map(of_file).collect();
        drop(inner);
        shown.extend(self.more.get().into_iter().flat_map(|more| more.shown()));
        shown
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing in there is half done when a holder panics.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Listeners that serve it.
    pub(super) fn serving(&self, files: &Certificate) -> Vec<String> {
        let serves = |ended: &Ended| ended.certificates.contains(files);
        self.listeners.iter().filter(|(_, ended)| serves(ended)).map(|(name, _)| name.clone()).collect()
    }
}

/// What is odd about a certificate that is in force from now on.
fn warn(pair: &Pair, now: SystemTime) {
    for warning in &pair.warnings {
        tracing::warn!("{warning}");
    }
    if let Err(wrong) = pair.timely(now) {
        tracing::warn!(file = %wrong.path.display(), reason = wrong.why, "a certificate is served that clients will refuse");
    }
}

/// Reads each pair once, however many listeners name it.
struct Reader {
    in_force: HashMap<Certificate, Held>,
    strict: bool,
    now: SystemTime,
    read: HashMap<Certificate, Result<Held, Wrong>>,
}

impl Reader {
    /// Whether all could be had.
    fn read_all(&mut self, tls: &ListenerTls, key: &str, faults: &mut Vec<TlsFault>) -> bool {
        let before = faults.len();
        for (index, files) in tls.certificates.iter().enumerate() {
            if !self.read.contains_key(files) {
                let read = self.read_one(files);
                self.read.insert(files.clone(), read);
            }
            if let Err(wrong) = &self.read[files] {
                let key = format!("{key}.certificates[{index}].{}", wrong.part.word());
                faults.push(TlsFault { key, message: wrong.to_string() });
            }
        }
        faults.len() == before
    }

    fn read_one(&self, files: &Certificate) -> Result<Held, Wrong> {
        let prints = Prints::of(files, self.now);
        let bytes = Bytes::read(files)?;
        if let Some(held) = self.in_force.get(files).filter(|held| held.pair.digest == bytes.digest()) {
            return Ok(Held { prints, ..held.clone() });
        }
        let pair = Pair::new(files, &bytes, self.now)?;
        if self.strict {
            pair.timely(self.now)?;
        }
        Ok(Held { pair: Arc::new(pair), prints, told: None })
    }
}

#[cfg(test)]
mod tests;
