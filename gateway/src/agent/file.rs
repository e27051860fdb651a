//! The configuration file of an agent, read again whenever it changed or SIGHUP came. Helper threads read it: a file system that
//! hangs must not keep frps waiting for its answers.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    signal::unix::Signal,
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::Own;
use crate::control::{Fault, reload::Content};

/// How often the file is looked at. A changed one counts when two looks agree: it may be in the middle of being written.
const LOOK: Duration = Duration::from_millis(500);

/// What a reading gave: a configuration, or everything that is wrong with it.
pub(super) type Reading = Result<Own, Vec<Fault>>;

/// Watches the file until dropped.
#[derive(Debug)]
pub(super) struct Watched {
    readings: mpsc::Receiver<Reading>,
    task: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    /// `seen`: what the configuration in force was read from.
    pub(super) fn start(path: &Path, seen: Content, hang_up: Signal) -> Self {
        let (sender, readings) = mpsc::channel(1);
        Self { readings, task: tokio::spawn(watch(path.to_owned(), seen, hang_up, sender)) }
    }

    /// The next reading. Never ends while nothing changes. Cancel safe.
    pub(super) async fn next(&mut self) -> Reading {
        match self.readings.recv().await {
            Some(reading) => reading,
            None => std::future::pending().await,
        }
    }
}

async fn watch(path: PathBuf, mut seen: Content, mut hang_up: Signal, readings: mpsc::Sender<Reading>) {
    let mut before = seen;
    loop {
        let asked = timeout(LOOK, hang_up.recv()).await.is_ok();
        let file = path.clone();
        let Ok(now) = spawn_blocking(move || Content::of(&file)).await else { return };
        let settled = now != seen && now == before;
        before = now;
        if !asked && !settled {
            continue;
        }
        seen = now;
        let file = path.clone();
        let Ok(reading) = spawn_blocking(move || super::read(&file)).await else { return };
        if readings.send(reading).await.is_err() {
            return;
        }
    }
}
