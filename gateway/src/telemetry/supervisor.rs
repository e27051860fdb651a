//! What systemd is told, by the protocol of `sd_notify(3)`: readiness, reloads, the end, the watchdog. Without
//! `NOTIFY_SOCKET` in the environment nobody is told anything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use sd_notify::NotifyState;

/// The service manager. Clones are handles on the same.
#[derive(Debug, Clone, Default)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    listens: AtomicBool,
    /// It knows that we serve.
    ready: AtomicBool,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// That of this process, by its environment.
    #[must_use]
    pub fn of_process() -> Self {
        let listens = std::env::var_os("NOTIFY_SOCKET").is_some();
        let watchdog = sd_notify::watchdog_enabled().filter(|period| listens && !period.is_zero());
        Self(Arc::new(Inner { listens: listens.into(), ready: false.into(), watchdog }))
    }

    /// How often [`Self::alive`] is to be said: twice in the time after which we count as hung.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.0.watchdog.map(|period| period / 2)
    }

    /// What goes on, for `systemctl status`.
    pub fn status(&self, text: &str) {
        self.tell(&[NotifyState::Status(text)]);
    }

    /// Visitors are served.
    pub fn ready(&self, status: &str) {
        self.0.ready.store(true, Relaxed);
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A reload has begun. Says nothing before [`Self::ready`].
    pub fn reloading(&self) {
        if self.0.ready.load(Relaxed)
            && let Ok(now) = NotifyState::monotonic_usec_now()
        {
            self.tell(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]);
        }
    }

    /// A reload has ended, one way or the other.
    pub fn reloaded(&self, status: &str) {
        if self.0.ready.load(Relaxed) {
            self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
        }
    }

    /// The control plane works.
    pub fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// The process is ending.
    pub fn stopping(&self, status: &str) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// The service is process `pid` from now on. We say nothing any more: our end is not the service's.
    pub fn hand_on(&self, pid: u32) {
        self.tell(&[NotifyState::MainPid(pid)]);
        self.0.listens.store(false, Relaxed);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if !self.0.listens.load(Relaxed) {
            return;
        }
        if let Err(error) = sd_notify::notify(states) {
            tracing::warn!(%error, "the service manager cannot be told (NOTIFY_SOCKET)");
        }
    }
}
