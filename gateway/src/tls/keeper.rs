//! Files of certificates that change: noticed, checked and swapped, without a reload.
//!
//! A certificate and its key are two files, and nobody writes both at once: as long as they don't belong together the old
//! ones stay, and only after some time is that an error.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use frp_gateway_config::model::Certificate;

use super::{
    pair::{Bytes, Pair, Wrong},
    store::{Held, Store},
};
use crate::folders::Folders;

/// Time between two looks without any event.
const POLL: Duration = Duration::from_secs(5);
/// The same while something is wrong that may pass.
const POLL_SUSPECT: Duration = Duration::from_millis(200);
/// How long a certificate may wait for its key, and a key for its certificate.
const PAIR_WAIT: Duration = Duration::from_secs(10);
/// How long a file may be unreadable or half written.
pub(super) const WRITE_WAIT: Duration = Duration::from_secs(1);
/// A file that was written less than this before it was read may be written again without looking different.
const RACY: Duration = Duration::from_secs(2);
/// Days left at which the log warns.
const MARKS: [u64; 4] = [1, 3, 7, 14];

/// How files look from outside. Unknown = they have to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prints([Option<Print>; 3]);

/// How one file looks from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Print {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Print {
    /// `None` = that can't be relied on: the file has to be read.
    pub(super) fn of(path: &Path, now: SystemTime) -> Option<Self> {
        let data = std::fs::metadata(path).ok()?;
        let settled = now.duration_since(data.modified().ok()?).is_ok_and(|age| age >= RACY);
        settled.then(|| Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

impl Prints {
    /// Of these files. To be taken before they are read.
    pub(super) fn of(files: &Certificate, now: SystemTime) -> Self {
        let print = |path: &Path| Print::of(path, now);
        Self([print(&files.cert), print(&files.key), files.ocsp.as_deref().and_then(print)])
    }

    /// Whether the files are surely as they were.
    fn are(&self, earlier: &Self, files: &Certificate) -> bool {
        let wanted = if files.ocsp.is_some() { 3 } else { 2 };
        self.0[..wanted].iter().all(Option::is_some) && self == earlier
    }
}

/// Files whose content isn't taken, perhaps for a moment only.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    /// Of the content; `None` = it can't be read.
    pub(super) digest: Option<u64>,
    since: Instant,
    pub(super) wrong: Wrong,
    /// The log knows.
    pub(super) told: bool,
}

/// What came of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// Something was swapped.
    pub changed: bool,
    /// Something is wrong that may pass: look again soon.
    pub again: bool,
}

impl Store {
    /// Looks at every file once and swaps what has changed. `at` is `now` by the clock that doesn't jump. Blocks on files.
    ///
    pub fn look(&self, now: SystemTime, at: Instant) -> Looked {
        let all: Vec<(Certificate, Held, bool)> = {
            let inner = self.inner();
            let pairs = inner.pairs.iter();
            pairs
                .map(|(files, held)| (files.clone(), held.clone(), inner.suspects.contains_key(files)))
                .collect()
        };
        let mut swaps = Vec::new();
        for (files, held, suspect) in all {
            let prints = Prints::of(&files, now);
            if !suspect && prints.are(&held.prints, &files) {
                if held.pair.stapled.is_over(now) {
                    tracing::warn!(file = ?files.ocsp, "the OCSP response expired; nothing is stapled");
                    swaps.push((
                        Arc::clone(&held.pair),
                        Held { pair: Arc::new(held.pair.unstapled()), ..held },
                    ));
                }
                continue;
            }
            match read(&files, &held, now) {
                Ok(pair) => swaps.push((Arc::clone(&held.pair), Held { pair, prints, told: held.told })),
                Err((digest, wrong)) => self.suspect(&files, digest, wrong, at),
            }
        }
        let changed = self.swap(swaps, now);
        self.remind(now);
        let (clients, pools) = (self.look_at_clients(now, at), self.look_at_pools(now, at));
        let again =
            self.inner().suspects.values().any(|suspect| !suspect.told) || clients.again || pools.again;
        Looked { changed: changed || clients.changed || pools.changed, again }
    }

    fn suspect(&self, files: &Certificate, digest: Option<u64>, wrong: Wrong, at: Instant) {
        let mut inner = self.inner();
        if !inner.pairs.contains_key(files) {
            return;
        }
        let known =
            inner.suspects.remove(files).filter(|known| known.digest == digest && known.wrong == wrong);
        let mut suspect = known.unwrap_or(Suspect { digest, since: at, wrong, told: false });
        let patience = if suspect.wrong.mismatch { PAIR_WAIT } else { WRITE_WAIT };
        let tell = !suspect.told && at.saturating_duration_since(suspect.since) >= patience;
        suspect.told |= tell;
        let wrong = tell.then(|| suspect.wrong.clone());
        inner.suspects.insert(files.clone(), suspect);
        drop(inner);
        if let Some(wrong) = wrong {
            self.refuse(files, &wrong);
        }
    }

    /// Warns of certificates that expire soon, once at each mark.
    fn remind(&self, now: SystemTime) {
        let mut inner = self.inner();
        let mut due = Vec::new();
        for (files, held) in &mut inner.pairs {
            let seconds = held.pair.leaf.seconds_left(now);
            let days = u64::try_from(seconds.div_euclid(86_400)).unwrap_or(0);
            let mark = if seconds < 0 { Some(0) } else { MARKS.into_iter().find(|mark| days < *mark) };
            if let Some(mark) = mark
                && held.told.is_none_or(|told| mark < told)
            {
                due.push((files.clone(), mark, days, Arc::clone(&held.pair)));
            }
            held.told = mark;
        }
        for (files, mark, days, pair) in due {
            let listeners = inner.serving(&files).join(", ");
            let (name, file) = (pair.leaf.primary_name(), files.cert.display());
            if mark == 0 {
                tracing::warn!(name, listeners, %file, "a certificate has expired");
            } else {
                tracing::warn!(name, listeners, %file, days_left = days, "a certificate expires soon");
            }
        }
    }
}

/// What is in the files now: the same, or something newer that may be served.
fn read(files: &Certificate, held: &Held, now: SystemTime) -> Result<Arc<Pair>, (Option<u64>, Wrong)> {
    let bytes = Bytes::read(files).map_err(|wrong| (None, wrong))?;
    let digest = bytes.digest();
    if held.pair.digest == digest && !held.pair.stapled.is_over(now) {
        return Ok(Arc::clone(&held.pair));
    }
    let pair = Pair::new(files, &bytes, now).map_err(|wrong| (Some(digest), wrong))?;
    if digest != held.pair.digest {
        pair.timely(now).map_err(|wrong| (Some(digest), wrong))?;
    }
    Ok(Arc::new(pair))
}

/// Keeps what is in force as the files are. Runs until aborted.
pub async fn keep(store: Arc<Store>) {
    let (mut folders, mut woken) = (Folders::new(), true);
    loop {
        let files = store.files();
        if files.is_empty() {
            store.other_files.notified().await;
            continue;
        }
        let looking = Arc::clone(&store);
        let looked = tokio::task::spawn_blocking(move || {
            folders.follow(files.iter().map(AsRef::as_ref));
            let looked = looking.look(SystemTime::now(), Instant::now());
            if looked.changed && !woken {
                // The watch was blind: a folder may have been replaced. Watch anew.
                folders.forget();
            }
            (folders, looked.again)
        });
        let again = match looked.await {
            Ok((back, again)) => {
                folders = back;
                again
            }
            Err(error) => {
                tracing::error!(%error, "looking at certificates failed");
                folders = Folders::new();
                true
            }
        };
        let longest = if again { POLL_SUSPECT } else { POLL };
        tokio::select! {
            event = folders.changed(longest) => woken = event,
            () = store.other_files.notified() => woken = true,
        }
    }
}

#[cfg(test)]
mod tests;
