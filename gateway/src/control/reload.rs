//! The configuration file: reading it, and noticing that it changed.
//!
//! Editors write a new file and rename it, Kubernetes swaps a symlink two levels up, `echo >` writes in place. So the
//! *folder* is watched, a burst of events is waited out, and what counts is whether the bytes differ. A slow poll finds
//! what the watch can't see (network file systems, a folder that was replaced).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use frp_gateway_config::{Resolver, Severity, model::Config};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::Notify, time::timeout};

use super::{state::Fault, task::Handle};

/// Quiet time after the last event before the file is read.
const DEBOUNCE: Duration = Duration::from_millis(75);
/// Never wait longer than this for quiet.
const MAX_DEBOUNCE: Duration = Duration::from_millis(500);
/// Time between two looks without any event.
const POLL: Duration = Duration::from_secs(5);
/// A file that can't be read may be in the middle of a rename: looked at so often again before that is an error.
const MISSING_LOOKS: u32 = 10;
const MISSING_PAUSE: Duration = Duration::from_millis(50);

/// `${NAME}` from the environment and `file:` references from the file system.
#[derive(Debug, Clone, Copy)]
pub struct System;

impl Resolver for System {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|error| error.to_string())
    }
}

/// A configuration that is right, with what is legal but surely unmeant.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The configuration.
    pub config: Arc<Config>,
    /// Warnings.
    pub warnings: Vec<Fault>,
}

/// Reads and checks the file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> Result<Accepted, Vec<Fault>> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![Fault::plain("unreadable-file", &name, &error.to_string())])?;
    let loaded = frp_gateway_config::load(&text, &name, &System);
    let faults = loaded.diagnostics.iter().map(Fault::of).collect();
    match loaded.config {
        Some(mut config) => {
            if config.runtime.workers == 0 {
                config.runtime.workers = usable_cores();
            }
            Ok(Accepted { config: Arc::new(config), warnings: faults })
        }
        None => Err(faults),
    }
}

/// What `runtime.workers` is when the file doesn't say: the cores this process may use (affinity and cgroup quota).
fn usable_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Fault {
    /// What the configuration says of itself.
    #[must_use]
    pub fn of(diagnostic: &frp_gateway_config::Diagnostic) -> Self {
        Self {
            text: diagnostic.to_string(),
            is_warning: diagnostic.severity == Severity::Warning,
            diagnostic: serde_json::to_value(diagnostic).unwrap_or(serde_json::Value::Null),
        }
    }

    /// A fault that only shows when a configuration takes effect. `key` is where to look.
    #[must_use]
    pub fn plain(code: &str, key: &str, message: &str) -> Self {
        Self {
            text: format!("{key}: error[{code}]: {message}"),
            is_warning: false,
            diagnostic: serde_json::json!({
                "severity": "error", "code": code, "path": key, "message": message,
            }),
        }
    }
}

/// Tells `control` to reload whenever the file's bytes differ from those seen before. Runs until the control plane is
/// gone; `seen` is what the configuration in force was read from.
pub async fn watch(path: PathBuf, mut seen: Content, control: Handle) {
    let changed = Arc::new(Notify::new());
    let (mut watcher, mut folders) = (start_watcher(&changed), BTreeSet::new());
    changed.notify_one(); // what happened before the watch began is looked at once
    loop {
        follow_folders(watcher.as_mut(), &path, &mut folders);
        let woken = timeout(POLL, changed.notified()).await.is_ok();
        if woken {
            settle(&changed).await;
        }
        let now = look(&path).await;
        if now != seen {
            seen = now;
            if !woken {
                // The watch was blind: its folder may have been replaced. Watch anew.
                folders.clear();
            }
            if !control.request_reload("file changed").await {
                return;
            }
        }
    }
}

/// What a file holds, as far as a change is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A hash of the bytes.
    Bytes(u64),
    /// It can't be read.
    Unreadable,
}

impl Content {
    /// Of the file at `path` now.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        use std::hash::{DefaultHasher, Hasher};
        std::fs::read(path).map_or(Self::Unreadable, |bytes| {
            let mut hasher = DefaultHasher::new(); // fixed keys: equal bytes, equal hash
            hasher.write(&bytes);
            Self::Bytes(hasher.finish())
        })
    }
}

async fn look(path: &Path) -> Content {
    for _ in 0..MISSING_LOOKS {
        match Content::of(path) {
            Content::Unreadable => tokio::time::sleep(MISSING_PAUSE).await,
            bytes @ Content::Bytes(_) => return bytes,
        }
    }
    Content::Unreadable
}

/// Waits until no event came for [`DEBOUNCE`].
async fn settle(changed: &Notify) {
    let quiet = async { while timeout(DEBOUNCE, changed.notified()).await.is_ok() {} };
    // Late is as good as quiet: a file that is written all the time is read now and then.
    drop(timeout(MAX_DEBOUNCE, quiet).await);
}

fn start_watcher(changed: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let changed = Arc::clone(changed);
    // Our own reads must not wake us.
    let wake = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            changed.notify_one();
        }
    };
    notify::recommended_watcher(wake)
        .inspect_err(
            |error| tracing::warn!(%error, every = ?POLL, "cannot watch files; the configuration is polled"),
        )
        .ok()
}

/// Watches the file's folder and, if it is a link, the folder it leads to now.
fn follow_folders(watcher: Option<&mut RecommendedWatcher>, path: &Path, watched: &mut BTreeSet<PathBuf>) {
    let Some(watcher) = watcher else { return };
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    let mut wanted = BTreeSet::from([parent(path)]);
    if let Ok(real) = path.canonicalize() {
        wanted.insert(parent(&real));
    }
    for gone in watched.difference(&wanted) {
        // The folder may be gone already, and the watch with it.
        drop(watcher.unwatch(gone));
    }
    wanted.retain(|folder| {
        watched.contains(folder)
            || watcher
                .watch(folder, RecursiveMode::NonRecursive)
                .inspect_err(|error| tracing::debug!(%error, folder = %folder.display(), "cannot watch"))
                .is_ok()
    });
    *watched = wanted;
}

#[cfg(test)]
mod tests;
