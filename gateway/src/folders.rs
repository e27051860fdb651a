//! Files that change: noticing it.
//!
//! Editors write a new file and rename it, Kubernetes swaps a symlink two levels up, certbot replaces a symlink, `echo >`
//! writes in place. So the *folders* are watched, that of the name and that of the file it leads to, and a burst of events is
//! waited out. Whether something is different is for the caller to see; whoever can't live with a blind watch polls as well.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::Notify, time::timeout};

/// Quiet time after the last event before anybody looks.
const DEBOUNCE: Duration = Duration::from_millis(75);
/// Never wait longer than this for quiet.
const MAX_DEBOUNCE: Duration = Duration::from_millis(500);

/// A watch on the folders of some files.
#[derive(Debug)]
pub struct Folders {
    happened: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Default for Folders {
    fn default() -> Self {
        Self::new()
    }
}

impl Folders {
    /// Of no files. What happened before is looked at once: the first [`Self::changed`] returns at once.
    #[must_use]
    pub fn new() -> Self {
        let happened = Arc::new(Notify::new());
        happened.notify_one();
        let wake = Arc::clone(&happened);
        // Our own reads must not wake us.
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                wake.notify_one();
            }
        });
        let watcher =
            watcher.inspect_err(|error| tracing::warn!(%error, "cannot watch files; they are polled")).ok();
        Self { happened, watcher, watched: BTreeSet::new() }
    }

    /// Watches the folders of these files and, of links, those they lead to now; no others.
    pub fn follow<'a>(&mut self, files: impl IntoIterator<Item = &'a Path>) {
        let Some(watcher) = &mut self.watcher else { return };
        let parent = |path: &Path| match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            Some(_) | None => PathBuf::from("."),
        };
        let mut wanted = BTreeSet::new();
        for path in files {
            wanted.insert(parent(path));
            if let Ok(real) = path.canonicalize() {
                wanted.insert(parent(&real));
            }
        }
        for gone in self.watched.difference(&wanted) {
            // The folder may be gone already, and the watch with it.
            drop(watcher.unwatch(gone));
        }
        wanted.retain(|folder| {
            self.watched.contains(folder)
                || watcher
                    .watch(folder, RecursiveMode::NonRecursive)
                    .inspect_err(|error| tracing::debug!(%error, folder = %folder.display(), "cannot watch"))
                    .is_ok()
        });
        self.watched = wanted;
    }

    /// Forgets what is watched: [`Self::follow`] begins anew. For when the watch was blind, since a folder was replaced.
    pub fn forget(&mut self) {
        self.watched.clear();
    }

    /// Waits until something happened in a folder and it is quiet again, at most `longest` for it to begin. Whether something did.
    pub async fn changed(&self, longest: Duration) -> bool {
        let woken = timeout(longest, self.happened.notified()).await.is_ok();
        if woken {
            let quiet = async { while timeout(DEBOUNCE, self.happened.notified()).await.is_ok() {} };
            // Late is as good as quiet: a file that is written all the time is read now and then.
            drop(timeout(MAX_DEBOUNCE, quiet).await);
        }
        woken
    }
}
