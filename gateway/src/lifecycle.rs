//! The life of the process: start in order, signals, drain.
//!
//! Start: read the file (all errors, exit 2) → descriptor limit → admin listener → data-plane threads → compile, bind,
//! publish, accept ([`Control::start`]) → watch the file. Whatever fails ends the process before a visitor is let in.
//!
//! SIGHUP reloads and re-opens the access log. SIGTERM or SIGINT: not ready, stop accepting, let exchanges end within
//! `runtime.drain_timeout`, exit 0. A second one: exit at once.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    admin::{self, App},
    clock,
    control::{
        Event, Fault, Handle, hooks,
        migration::{Migrations, Mover, NoClients},
        reload::{self, Accepted, Content},
        state::Fixed,
        task::{Control, Parts},
    },
    data::{access_log::AccessLogHandle, worker::Workers},
    snapshot::Published,
    telemetry::{audit::AuditHandle, metrics::collect::Metrics},
};

/// Why the process ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error("the configuration is wrong")]
    Config(Vec<Fault>),
    /// The configuration is right, but something it names can't be had.
    #[error("the configuration cannot take effect")]
    Effect(Vec<Fault>),
    /// The admin address can't be had.
    #[error("admin.listen: cannot listen on {address}: {source}")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The agent's address can't be had.
    #[error("agent.listen: cannot listen on {address}: {source}")]
    Agent {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system refuses a thread, a runtime or a signal handler.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The table of metrics is malformed.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The control plane ended by itself.
    #[error("the control plane ended: {0}")]
    Control(tokio::task::JoinError),
}

/// How the process was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Drained, or as far as the time allowed.
    Drained,
    /// A second signal cut the drain short.
    Cut,
}

/// Runs the gateway until a signal ends it.
///
/// # Errors
/// See [`StartError`].
pub fn run(path: &Path) -> Result<Ending, StartError> {
    let started = clock::now();
    // Before reading: a change in between is then seen as one.
    let seen = Content::of(path);
    let first = reload::load(path).map_err(StartError::Config)?;
    raise_descriptor_limit();
    let runtime = Builder::new_current_thread().enable_all().build().map_err(system("control runtime"))?;
    let ending = runtime.block_on(serve(path, first, seen, started));
    // Look-ups and the like that still run on helper threads are not waited for.
    runtime.shutdown_background();
    ending
}

async fn serve(
    path: &Path,
    first: Accepted,
    seen: Content,
    started: lb_algos::Tick,
) -> Result<Ending, StartError> {
    let mut signals = Signals::new().map_err(system("signal handlers"))?;
    let config = &first.config;
    let (address, workers) = (config.admin.listen, config.runtime.workers);
    let admin = TcpListener::bind(address).await.map_err(|source| StartError::Admin { address, source })?;
    let published = Published::default();
    let access_log = AccessLogHandle::off();
    let audit = AuditHandle::off();
    let workers = Workers::start(workers, &published, &access_log).map_err(system("data-plane threads"))?;
    let workers = Arc::new(workers);
    let migrations = Arc::new(Migrations::new(Arc::new(NoClients)));
    let (mut control, handle) = Control::new(Parts {
        path: path.to_owned(),
        fixed: Fixed { workers: workers.count(), admin: address, started },
        published: Arc::clone(&published),
        workers: Arc::clone(&workers),
        access_log: access_log.clone(),
        audit: audit.clone(),
        migrations: Arc::clone(&migrations),
    });
    let (plugin, told) = hooks::plugin_state(&handle.board());
    control.set_plugin(Arc::clone(&plugin));
    tokio::spawn(hooks::pass_on(told, handle.clone(), audit.clone()));
    let metrics = Metrics::new(
        Arc::clone(&published),
        handle.board(),
        access_log.clone(),
        Some((Arc::clone(&plugin), audit.clone())),
    )?;
    let mover =
        Mover { migrations, board: handle.board(), published: Arc::clone(&published), audit: audit.clone() };
    let app = App { control: handle.clone(), published, metrics: Arc::new(metrics), mover };
    let address = admin.local_addr().map_err(system("admin listener"))?;
    tracing::info!(%address, "admin listening");
    tokio::spawn(async move { axum::serve(admin, admin::router(app)).await });
    control.start(first).await.map_err(StartError::Effect)?;
    let control = tokio::spawn(control.run());
    tokio::spawn(reload::watch(path.to_owned(), seen, handle.clone()));
    tracing::info!(version = %env!("CARGO_PKG_VERSION"), workers = workers.count(), "started");
    tokio::select! {
        () = signals.until_end(&handle, &access_log, &audit) => {}
        ended = control => {
            // Visitors would be served by a configuration that nobody can change any more: better be restarted.
            return ended.map_or_else(|error| Err(StartError::Control(error)), |()| Ok(Ending::Drained));
        }
    }
    audit.asked("draining");
    drain(&workers, &handle, &mut signals).await
}

async fn drain(workers: &Workers, handle: &Handle, signals: &mut Signals) -> Result<Ending, StartError> {
    handle.send(Event::DrainBegan).await;
    let within =
        handle.state().config.as_ref().map(|config| config.runtime.drain_timeout).unwrap_or_default();
    tracing::info!(connections = workers.connections(), ?within, "draining");
    tokio::select! {
        cut = workers.drain(within) => {
            if cut > 0 {
                tracing::warn!(cut, "drain timed out");
            }
            tracing::info!("stopped");
            Ok(Ending::Drained)
        }
        () = signals.end() => {
            tracing::warn!(connections = workers.connections(), "second signal, stopped without drain");
            Ok(Ending::Cut)
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// A signal that ends the process.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The same; carries out reloads meanwhile.
    async fn until_end(&mut self, handle: &Handle, access_log: &AccessLogHandle, audit: &AuditHandle) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    access_log.reopen();
                    audit.reopen();
                    // Not awaited here: a full inbox must not keep SIGTERM waiting.
                    let handle = handle.clone();
                    tokio::spawn(async move { handle.request_reload("SIGHUP").await });
                }
            }
        }
    }
}

/// Each visitor takes two descriptors; the soft limit is often 1,024 where the hard one is half a million.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(from = limit.current, to = limit.maximum, "descriptor limit raised"),
        Err(error) => tracing::warn!(%error, current = limit.current, "descriptor limit cannot be raised"),
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}
