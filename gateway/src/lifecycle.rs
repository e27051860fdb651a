//! The life of the process: start in order, signals, upgrade, drain.
//!
//! Start: sockets that are given → the file (all errors, exit 2) → descriptor limit → admin listener → data-plane
//! threads → compile, bind, publish, accept ([`Control::start`]) → watch the file. Whatever fails ends the process before
//! a visitor is let in. Ready, and systemd is told, once every frps has said which tunnels it has.
//!
//! SIGHUP reloads and re-opens the logs. SIGTERM or SIGINT: not ready, for `runtime.drain_delay` nothing else; then stop
//! accepting, let exchanges end within `runtime.drain_timeout`, exit 0. A second one: exit at once.
//!
//! SIGUSR2 or `POST /api/v1/upgrade`: the program is started anew and given the listening sockets themselves
//! (`successor`, `predecessor`, over a `channel`). Both accept from the same queues for a moment, so nobody is
//! refused or reset. Relayed frpc pass on as sockets (`pass_on`, `take_over`). Then the old process drains and exits 0. Until the new one accepts, nothing is final: whatever goes
//! wrong, the old one serves on.

mod activation;
mod admin_server;
mod channel;
mod life;
mod pass_on;
mod predecessor;
mod signals;
mod successor;
mod take_over;
pub mod upgrade;

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{runtime::Builder, time::sleep};

use self::{
    admin_server::Admin, life::Life, predecessor::Predecessor, signals::Signals, successor::Program,
    take_over::TakeOver, upgrade::Upgrades,
};
use crate::{
    admin::App,
    clock,
    control::{
        Fault, Gate, Handle,
        clients::RelayedClients,
        hooks,
        migration::{Migrations, Mover},
        reload::{self, Content},
        state::Fixed,
        task::{Control, Parts, Process},
    },
    data::{
        access_log::AccessLogHandle,
        sockets::{Label, Sockets},
        worker::Workers,
    },
    snapshot::Published,
    telemetry::{audit::AuditHandle, metrics::collect::Metrics, supervisor::Supervisor},
};

/// How often it is looked whether we are ready, while we aren't.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

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
    /// It was told to end before it served.
    #[error("told to end before it was ready")]
    Cancelled,
}

impl StartError {
    /// With everything that is wrong with the configuration.
    #[must_use]
    pub fn whole_text(&self) -> String {
        match self {
            Self::Config(faults) | Self::Effect(faults) => {
                let texts: Vec<_> = faults.iter().map(|fault| fault.text.as_str()).collect();
                format!("{self}\n{}", texts.join("\n"))
            }
            Self::Admin { .. }
            | Self::Agent { .. }
            | Self::System { .. }
            | Self::Metrics(_)
            | Self::Control(_)
            | Self::Cancelled => self.to_string(),
        }
    }
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
    let activated = activation::from_systemd();
    let program = Program::of_process().map_err(|error| error.to_string());
    let runtime = Builder::new_current_thread().enable_all().build().map_err(system("control runtime"))?;
    let ending = runtime.block_on(async {
        let predecessor = Predecessor::of_process().map_err(system("the old process"))?.map(Arc::new);
        let given = match &predecessor {
            Some(predecessor) => predecessor.sockets().await.map_err(system("the old process's sockets"))?,
            None => activated,
        };
        let sockets = Sockets::given(given);
        let ended = serve(path, started, program, sockets, predecessor.clone()).await;
        if let (Err(error), Some(predecessor)) = (&ended, &predecessor) {
            predecessor.failed(error).await;
        }
        ended
    });
    // Look-ups and the like that still run on helper threads are not waited for.
    runtime.shutdown_background();
    ending
}

async fn serve(
    path: &Path,
    started: lb_algos::Tick,
    program: Result<Program, String>,
    sockets: Sockets,
    predecessor: Option<Arc<Predecessor>>,
) -> Result<Ending, StartError> {
    // First of all: a signal without a handler ends the process.
    let mut signals = Signals::new().map_err(system("signal handlers"))?;
    // Before reading: a change in between is then seen as one.
    let seen = Content::of(path);
    let first = reload::load(path).map_err(StartError::Config)?;
    raise_descriptor_limit();
    let config = &first.config;
    let (address, workers) = (config.admin.listen, config.runtime.workers);
    let admin =
        admin_server::listen(&sockets, address).map_err(|source| StartError::Admin { address, source })?;
    let published = Published::default();
    let access_log = AccessLogHandle::off();
    let audit = AuditHandle::off();
    let workers =
        Workers::start(workers, &published, &access_log, &audit).map_err(system("data-plane threads"))?;
    let workers = Arc::new(workers);
    let clients = Arc::new(RelayedClients::new(Arc::clone(&published)));
    let migrations = Arc::new(Migrations::new(Arc::clone(&clients) as _));
    let process = Process {
        sockets: sockets.clone(),
        supervisor: Supervisor::of_process(),
        gate: if predecessor.is_some() { Gate::held() } else { Gate::default() },
    };
    let (mut control, handle) = Control::new(Parts {
        path: path.to_owned(),
        fixed: Fixed { workers: workers.count(), admin: address, started },
        published: Arc::clone(&published),
        workers: Arc::clone(&workers),
        access_log: access_log.clone(),
        audit: audit.clone(),
        migrations: Arc::clone(&migrations),
    });
    clients.know(handle.board());
    let (plugin, told) = hooks::plugin_state(&handle.board());
    control.set_plugin(Arc::clone(&plugin));
    control.set_process(process.clone());
    tokio::spawn(hooks::pass_on(told, handle.clone(), Arc::clone(&published), audit.clone()));
    let metrics = Metrics::new(
        Arc::clone(&published),
        handle.board(),
        access_log.clone(),
        Arc::clone(handle.certificates()),
        Some((Arc::clone(&plugin), audit.clone())),
    )?;
    let mover =
        Mover { migrations, board: handle.board(), published: Arc::clone(&published), audit: audit.clone() };
    let taker = mover.clone();
    let (upgrades, asked) = Upgrades::new();
    let app = App {
        control: handle.clone(),
        published: Arc::clone(&published),
        metrics: Arc::new(metrics),
        mover,
        upgrades,
    };
    let mut admin = Admin::new(admin, app);
    // While another process serves, it is the one to ask.
    if predecessor.is_none() {
        admin.start();
    }
    control.start(first).await.map_err(StartError::Effect)?;
    for untaken in sockets.drop_untaken() {
        tell_untaken(&untaken, predecessor.is_some());
    }
    let mut control = tokio::spawn(control.run());
    tracing::info!(version = %env!("CARGO_PKG_VERSION"), workers = workers.count(), "started");
    if let Some(predecessor) = predecessor {
        tokio::select! {
            () = ready(&handle) => {}
            () = signals.end() => return Err(StartError::Cancelled),
        }
        let memory = tokio::select! {
            memory = predecessor.prepared() => memory.map_err(system("the old process"))?,
            () = signals.end() => return Err(StartError::Cancelled),
        };
        let taking = TakeOver {
            predecessor: Arc::clone(&predecessor),
            handle: handle.clone(),
            workers: Arc::clone(&workers),
            mover: taker,
        };
        // Before anybody is let in: it may belong to one of them.
        let cuts = taking.expect(&memory.relays);
        handle.remember(memory).await;
        process.gate.allow();
        process.gate.opened().await;
        admin.start();
        predecessor.serving().await;
        tracing::info!("upgraded: this process serves now");
        tokio::spawn(taking.run(cuts));
    }
    tokio::spawn(reload::watch(path.to_owned(), seen, handle.clone()));
    tokio::spawn(tell_ready(handle.clone(), process.clone()));
    let mut life = Life {
        handle,
        workers,
        published,
        process,
        plugin,
        access_log,
        audit,
        admin,
        signals,
        program,
        asked,
        successor: None,
    };
    let leaving = tokio::select! {
        leaving = life.until_end() => leaving,
        ended = &mut control => {
            // Visitors would be served by a configuration that nobody can change any more: better be restarted.
            return ended.map_or_else(|error| Err(StartError::Control(error)), |()| Ok(Ending::Drained));
        }
    };
    Ok(life.end(leaving).await)
}

fn tell_untaken(label: &Label, from_old: bool) {
    if from_old {
        tracing::info!(socket = %label, "the old process's socket is not configured any more");
    } else {
        tracing::warn!(
            socket = %label,
            "systemd passed a socket that no listener of the configuration has as its name or address: nobody will \
             be served there"
        );
    }
}

/// Waits until visitors may be sent here.
async fn ready(handle: &Handle) {
    while handle.state().readiness(clock::now()).is_err() {
        sleep(LOOK_AGAIN).await;
    }
}

/// Tells systemd and the log when visitors may be sent here, and are let in.
async fn tell_ready(handle: Handle, process: Process) {
    let mut told = String::new();
    while let Err(why) = handle.state().readiness(clock::now()) {
        if why != told {
            process.supervisor.status(&why);
            told = why;
        }
        sleep(LOOK_AGAIN).await;
    }
    process.gate.opened().await;
    if !handle.state().draining {
        process.supervisor.ready("serving");
        tracing::info!("ready");
    }
}

/// Lets the other tasks of this thread, the only one that serves operators and plugin calls, see what has changed.
async fn give_way() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
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
