//! The configuration file: reading it, and noticing that it changed.
//!
//! The [`Folders`] of the file are watched, and what counts is whether the bytes differ. A slow poll finds what the watch
//! can't see (network file systems, a folder that was replaced).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use frp_gateway_config::{Resolver, Severity, model::Config};

use super::{state::Fault, task::Handle};
use crate::folders::Folders;

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
    let mut folders = Folders::new();
    loop {
        folders.follow([path.as_path()]);
        let woken = folders.changed(POLL).await;
        let now = look(&path).await;
        if now != seen {
            seen = now;
            if !woken {
                // The watch was blind: its folder may have been replaced. Watch anew.
                folders.forget();
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

#[cfg(test)]
mod tests;
