//! The process while it serves, and how it ends.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Ending,
    admin_server::Admin,
    give_way, pass_on,
    signals::{Ask, Signals},
    successor::{self, Program, Successor},
    upgrade::{Outcome, Refusal},
};
use crate::{
    control::{Event, Handle, task::Process},
    data::{
        access_log::AccessLogHandle,
        worker::{Leaving, Workers},
    },
    frps::plugin::PluginState,
    snapshot::Published,
    telemetry::audit::AuditHandle,
};

/// How long answers of the admin listener that are under way may take at the end.
const ADMIN_WAIT: Duration = Duration::from_secs(2);

/// The process while it serves, and its end.
pub(super) struct Life {
    pub(super) handle: Handle,
    pub(super) workers: Arc<Workers>,
    pub(super) published: Published,
    pub(super) process: Process,
    pub(super) plugin: Arc<PluginState>,
    pub(super) access_log: AccessLogHandle,
    pub(super) audit: AuditHandle,
    pub(super) admin: Admin,
    pub(super) signals: Signals,
    pub(super) program: Result<Program, String>,
    pub(super) asked: mpsc::Receiver<oneshot::Sender<Outcome>>,
    /// The process that serves instead of this one.
    pub(super) successor: Option<Successor>,
}

impl Life {
    /// Carries out what signals and the API ask for, until one means the end.
    pub(super) async fn until_end(&mut self) -> Leaving {
        // At most one, and ended with us: a new process that nobody waits for is killed.
        let mut upgrade: JoinSet<Result<Successor, Refusal>> = JoinSet::new();
        let mut asker: Option<oneshot::Sender<Outcome>> = None;
        loop {
            tokio::select! {
                ask = self.signals.next() => match ask {
                    Ask::End => return Leaving::Closing,
                    Ask::Reload => self.reload(),
                    Ask::Upgrade if upgrade.is_empty() => self.upgrade("SIGUSR2", &mut upgrade),
                    Ask::Upgrade => tracing::warn!("SIGUSR2: {}", Refusal::Busy),
                },
                Some(answer) = self.asked.recv() => {
                    if upgrade.is_empty() {
                        self.upgrade("API", &mut upgrade);
                        asker = Some(answer);
                    } else {
                        // Who asked may have gone away.
                        drop(answer.send(Err(Refusal::Busy)));
                    }
                }
                Some(done) = upgrade.join_next() => {
                    let done = done.unwrap_or_else(|panicked| Err(io::Error::other(panicked).into()));
                    let outcome = match done {
                        Ok(successor) => Ok(self.hand_on(successor).await),
                        Err(refusal) => Err(refusal),
                    };
                    if let Err(refusal) = &outcome {
                        tracing::error!("upgrade failed, this process serves on: {refusal}");
                        self.audit.asked_with("upgrade_failed", &refusal.to_string());
                        self.process.supervisor.status("serving; the last upgrade failed");
                    }
                    let done = outcome.is_ok();
                    if let Some(answer) = asker.take() {
                        drop(answer.send(outcome));
                    }
                    if done {
                        return Leaving::HandedOver;
                    }
                }
            }
        }
    }

    fn reload(&self) {
        self.access_log.reopen();
        self.audit.reopen();
        // Not awaited here: a full inbox must not keep SIGTERM waiting.
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.request_reload("SIGHUP").await });
    }

    fn upgrade(&self, why: &'static str, running: &mut JoinSet<Result<Successor, Refusal>>) {
        tracing::info!(why, "upgrade begins");
        self.audit.asked_with("upgrade", why);
        self.process.supervisor.status("upgrading");
        let (program, sockets) = (self.program.clone(), self.process.sockets.clone());
        let control = self.handle.clone();
        let serves = self.process.gate.is_open();
        let within = self.handle.state().config.as_ref().map(|config| config.runtime.upgrade_timeout);
        running.spawn(async move {
            if !serves {
                return Err(Refusal::NotServing("doesn't serve yet"));
            }
            let program = program.map_err(Refusal::NoProgram)?;
            successor::start(&program, &sockets, &control, within.unwrap_or_default()).await
        });
    }

    /// Another process serves: it is the service now.
    async fn hand_on(&mut self, mut successor: Successor) -> u32 {
        let pid = successor.pid;
        successor.leave();
        self.successor = Some(successor);
        self.process.supervisor.hand_on(pid);
        self.audit.asked_with("upgraded", &format!("pid {pid}"));
        tracing::info!(pid, "upgraded: the new process serves, this one ends");
        self.admin.leave().await;
        pid
    }

    pub(super) async fn end(mut self, leaving: Leaving) -> Ending {
        self.asked.close();
        self.handle.send(Event::DrainBegan).await;
        let config = self.handle.state().config.clone();
        let (delay, within) = config
            .as_ref()
            .map(|config| (config.runtime.drain_delay, config.runtime.drain_timeout))
            .unwrap_or_default();
        if leaving == Leaving::Closing {
            self.audit.asked("draining");
            self.process.supervisor.stopping("draining");
            if !delay.is_zero() {
                tracing::info!(?delay, "not ready any more, draining begins later");
                tokio::select! {
                    () = sleep(delay) => {}
                    () = self.signals.end() => return self.cut(),
                }
            }
        }
        // Before anything is closed: then the accept loops' handles are the last of this process.
        self.process.sockets.release_all();
        if let Some(successor) = &self.successor {
            self.plugin.leave();
            give_way().await; // what was heard until now is known then
            successor.tell(&self.handle.memory().await).await;
        }
        tracing::info!(connections = self.workers.connections(), ?within, "draining");
        let workers = Arc::clone(&self.workers);
        let drained = drained(&workers, within, leaving, self.successor.as_ref(), &self.published);
        tokio::select! {
            () = drained => {}
            () = cut_short(&mut self.signals, leaving) => return self.cut(),
        }
        if leaving == Leaving::HandedOver {
            // Whoever asked for the upgrade is still to read the answer.
            drop(timeout(ADMIN_WAIT, self.admin.ended()).await);
        }
        self.last_lines();
        tracing::info!("stopped");
        Ending::Drained
    }

    /// Threads that may write lines end with the process, and then nobody writes what is still in the queues.
    fn last_lines(&self) {
        self.access_log.flush();
        self.audit.flush();
    }

    fn cut(&self) -> Ending {
        self.last_lines();
        tracing::warn!(connections = self.workers.connections(), "second signal, stopped without drain");
        Ending::Cut
    }
}

/// Lets visitors' exchanges end. After an upgrade clients pass to the new process meanwhile, and this one ends when the last of them
/// has gone.
async fn drained(
    workers: &Workers,
    within: Duration,
    leaving: Leaving,
    successor: Option<&Successor>,
    published: &Published,
) {
    let (told, served) = oneshot::channel();
    let visitors = async {
        let cut = workers.drain(within, leaving).await;
        if cut > 0 {
            tracing::warn!(cut, "drain timed out");
        }
        drop(told);
    };
    let clients = async {
        if let Some(successor) = successor {
            let relays = Arc::clone(&published.load().relays);
            pass_on::clients(successor, workers, &relays, served).await;
        }
    };
    tokio::join!(visitors, clients);
}

/// A signal during the drain. After an upgrade the first one asks for what is done already: it may be meant for the new
/// process, as systemd sends it to both.
async fn cut_short(signals: &mut Signals, leaving: Leaving) {
    if leaving == Leaving::HandedOver {
        signals.end().await;
    }
    signals.end().await;
}
