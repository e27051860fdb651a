//! The files that judge clients: noticed when they change, as those of certificates are, and swapped without a reload.
//!
//! What is wrong with them isn't taken, so a list that was cut short lets nobody in again.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use frp_gateway_config::model::ClientAuth;

use super::{
    client::{ClientGate, Wrong, load},
    files::Files,
    keeper::Looked,
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
    files: Files,
}

impl Watched {
    /// Reads the files, or takes what was made of the same ones before.
    pub(super) fn read(
        auth: &ClientAuth,
        before: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, Vec<Wrong>> {
        let files = files(auth, now);
        if let Some(before) =
            before.filter(|before| before.auth == *auth && before.files.hold_the_same(&files))
        {
            return Ok(Self { files, ..before.clone() });
        }
        let loaded = load(auth, &provider(), now)?;
        Ok(Self { auth: auth.clone(), gate: loaded.gate, warnings: loaded.warnings, files })
    }

    /// The files.
    pub(super) fn paths(&self) -> &[PathBuf] {
        self.files.paths()
    }

    /// Tells the log what is odd about them.
    pub(super) fn warn(&self, listener: &str) {
        for warning in &self.warnings {
            tracing::warn!(listener, "{}", warning.message);
        }
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
            if old.files.are_as_they_were(now) {
                continue;
            }
            match Watched::read(&old.auth, Some(&old), now) {
                Ok(new) => looked.changed |= self.swap_clients(&listener, &old, new),
                Err(wrong) => looked.again |= self.suspect_clients(&listener, &old, &wrong, (now, at)),
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
    fn suspect_clients(
        &self,
        listener: &str,
        old: &Watched,
        wrong: &[Wrong],
        (now, at): (SystemTime, Instant),
    ) -> bool {
        let there = files(&old.auth, now);
        let mut inner = self.inner();
        let clients = inner.listeners.get_mut(listener).and_then(|ended| ended.clients.as_mut());
        let Some(clients) = clients.filter(|there| Arc::ptr_eq(&there.gate, &old.gate)) else { return false };
        let doubt = clients.files.suspect(&there, at);
        drop(inner);
        if doubt.tell {
            self.count_refused();
            for wrong in wrong {
                let (key, reason) = (&wrong.key, &wrong.message);
                tracing::warn!(listener, key, reason, "clients are judged as before: a file is refused");
            }
        }
        doubt.again
    }
}

fn files(auth: &ClientAuth, now: SystemTime) -> Files {
    Files::new(auth.trust.iter().chain(&auth.crl).cloned().collect(), now)
}

#[cfg(test)]
mod tests;
