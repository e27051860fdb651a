//! The files that judge clients: noticed when they change, as those of certificates are, and swapped without a reload.
//!
//! What is wrong with them isn't taken, so a list that was cut short lets nobody in again.

use std::{
    hash::{DefaultHasher, Hasher as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

use frp_gateway_config::model::ClientAuth;

use super::{
    client::{ClientGate, Wrong, load},
    keeper::{Looked, Print, WRITE_WAIT},
    provider,
    store::Store,
    terminator::Settings,
};

/// What judges the clients of one listener, and the files it was made of.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    auth: ClientAuth,
    pub(super) gate: Arc<ClientGate>,
    warnings: Vec<Wrong>,
    /// How the files looked when they were read.
    prints: Vec<Option<Print>>,
    digest: Option<u64>,
    /// Content that isn't taken: its digest, since when, and whether the log knows.
    suspect: Option<(Option<u64>, Instant, bool)>,
}

impl Watched {
    /// Reads the files, or takes what was made of the same ones before.
    pub(super) fn read(
        auth: &ClientAuth,
        before: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, Vec<Wrong>> {
        let (prints, digest) = (prints(auth, now), digest(auth));
        if let Some(before) = before.filter(|before| before.auth == *auth && before.digest == digest) {
            return Ok(Self { prints, suspect: None, ..before.clone() });
        }
        let loaded = load(auth, &provider(), now)?;
        let (gate, warnings) = (loaded.gate, loaded.warnings);
        Ok(Self { auth: auth.clone(), gate, warnings, prints, digest, suspect: None })
    }

    /// The files.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        files(&self.auth)
    }

    /// Tells the log what is odd about them.
    pub(super) fn warn(&self, listener: &str) {
        for warning in &self.warnings {
            tracing::warn!(listener, "{}", warning.message);
        }
    }

    fn is_as_it_was(&self, now: SystemTime) -> bool {
        let prints = prints(&self.auth, now);
        self.suspect.is_none() && prints.iter().all(Option::is_some) && prints == self.prints
    }
}

impl Store {
    /// Looks at every file that judges clients and swaps what has changed. Blocks on files.
    pub(super) fn look_at_clients(&self, now: SystemTime, at: Instant) -> Looked {
        let all: Vec<(String, Watched)> = {
            let inner = self.inner();
            let listeners = inner.listeners.iter();
            listeners.filter_map(|(name, ended)| Some((name.clone(), ended.clients.clone()?))).collect()
        };
        let mut looked = Looked { changed: false, again: false };
        for (listener, old) in all {
            if old.is_as_it_was(now) {
                continue;
            }
            match Watched::read(&old.auth, Some(&old), now) {
                Ok(new) => looked.changed |= self.swap_clients(&listener, &old, new),
                Err(wrong) => looked.again |= self.suspect_clients(&listener, &old, &wrong, at),
            }
        }
        if looked.changed {
            self.clients_changed.notify_one();
        }
        looked
    }

    /// Puts it in the place of what is in force still. Whether somebody else is let in now.
    fn swap_clients(&self, listener: &str, old: &Watched, new: Watched) -> bool {
        let mut inner = self.inner();
        let Some(ended) = inner.listeners.get_mut(listener) else { return false };
        let Some(clients) = ended.clients.as_mut().filter(|there| Arc::ptr_eq(&there.gate, &old.gate)) else {
            return false;
        };
        let same = Arc::ptr_eq(&new.gate, &old.gate);
        if !same {
            let settings = Settings { client: Some(Arc::clone(&new.gate)), ..ended.settings.clone() };
            match ended.terminator.prepare(&settings) {
                Ok(prepared) => ended.terminator.put(prepared),
                Err(error) => {
                    tracing::error!(listener, %error, "clients are judged as before");
                    return false;
                }
            }
            ended.settings = settings;
            self.count_swapped();
            tracing::info!(listener, "what clients are judged by has changed");
            new.warn(listener);
        }
        *clients = new;
        !same
    }

    /// Says that what is in the files now isn't taken, once that is no moment's matter. Whether to look again soon.
    fn suspect_clients(&self, listener: &str, old: &Watched, wrong: &[Wrong], at: Instant) -> bool {
        let mut inner = self.inner();
        let clients = inner.listeners.get_mut(listener).and_then(|ended| ended.clients.as_mut());
        let Some(clients) = clients.filter(|there| Arc::ptr_eq(&there.gate, &old.gate)) else { return false };
        let digest = digest(&old.auth);
        let known = clients.suspect.filter(|(known, ..)| *known == digest);
        let (digest, since, told) = known.unwrap_or((digest, at, false));
        let tell = !told && at.saturating_duration_since(since) >= WRITE_WAIT;
        clients.suspect = Some((digest, since, told || tell));
        drop(inner);
        if tell {
            self.count_refused();
            for wrong in wrong {
                let (key, reason) = (&wrong.key, &wrong.message);
                tracing::warn!(listener, key, reason, "clients are judged as before: a file is refused");
            }
        }
        !(told || tell)
    }
}

fn files(auth: &ClientAuth) -> impl Iterator<Item = &PathBuf> {
    auth.trust.iter().chain(&auth.crl)
}

/// To be taken before the files are read.
fn prints(auth: &ClientAuth, now: SystemTime) -> Vec<Option<Print>> {
    files(auth).map(|path| Print::of(path, now)).collect()
}

/// Of their content; `None` = one of them can't be read.
fn digest(auth: &ClientAuth) -> Option<u64> {
    let mut hasher = DefaultHasher::new(); // fixed keys: equal bytes, equal hash
    let mut add = |path: &Path| {
        let bytes = std::fs::read(path).ok()?;
        hasher.write_usize(bytes.len());
        hasher.write(&bytes);
        Some(())
    };
    files(auth).try_for_each(|path| add(path))?;
    Some(hasher.finish())
}
