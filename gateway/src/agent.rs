//! `frp-gateway agent`: answers one frps as its server plugin while gateways may be down, and tells them what it heard.
//!
//! Stateless: an answer is a function of the call and the policy file, so it is the one a gateway would have given (but for
//! conflicts with tunnels of other servers, which the gateways settle). What it tells is a hint; a gateway that misses it finds
//! the tunnel with its next listing. Hence no queue on disk.
//!
//! One thread answers, and everything that could keep it waiting is elsewhere: the file is read by helper threads ([`file`]), the
//! gateways (`forward`) and the admin API of frps (`host`) have tasks of their own.

mod file;
mod forward;
mod host;

use std::{path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use frp_gateway_config::model::{self, Config};
use tokio::{
    net::TcpListener,
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    time::sleep,
};

use self::{file::Watched, forward::Gateways, host::SubdomainHost};
use crate::{
    control::{
        Fault,
        reload::{self, Content},
    },
    frps::{
        decide::Rules,
        plugin::{self, HEARD_CAP, PluginState, PluginStats, Told},
    },
    lifecycle::{Ending, StartError},
};

/// How long calls that are under way at the end may take. frps sends a call in one piece.
const GRACE: Duration = Duration::from_millis(300);
/// How long telling the gateways may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The configuration as far as this agent is concerned: its own frps alone.
#[derive(Debug)]
struct Own {
    config: Config,
    agent: model::Agent,
}

/// Runs the agent until a signal ends it.
///
/// # Errors
/// See [`StartError`].
pub fn run(path: &Path) -> Result<Ending, StartError> {
    // Before reading: a change in between is then seen as one.
    let seen = Content::of(path);
    let own = read(path).map_err(StartError::Config)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "runtime", source })?;
    let ending = runtime.block_on(serve(path, seen, own));
    // A file system or a resolver that hangs is not waited for.
    runtime.shutdown_background();
    ending
}

/// Reads the file. Blocks.
fn read(path: &Path) -> Result<Own, Vec<Fault>> {
    let accepted = reload::load(path)?;
    let Some(agent) = accepted.config.agent.clone() else {
        let message =
            "this file has no agent section; write agent: { frps: NAME, gateways: [\"http://HOST:9901\"] }";
        return Err(vec![Fault::plain("no-agent", "agent", message)]);
    };
    let mut config = (*accepted.config).clone();
    config.frps.retain(|frps| frps.name == agent.frps);
    Ok(Own { config, agent })
}

async fn serve(path: &Path, seen: Content, own: Own) -> Result<Ending, StartError> {
    let system = |what| move |source| StartError::System { what, source };
    let mut ends = Ends::new().map_err(system("signal handlers"))?;
    let hang_up = signal(SignalKind::hangup()).map_err(system("signal handlers"))?;
    let address = own.agent.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|source| StartError::Agent { address, source })?;
    let address = listener.local_addr().map_err(system("plugin listener"))?;
    let host = SubdomainHost::follow(&own.config);
    let (state, mut told) = plugin_state(&host);
    apply(&state, &own.config);
    let gateways = Gateways::start(&own.agent);
    let server = tokio::spawn(plugin::serve(listener, Arc::clone(&state)));
    let edits = Watched::start(path, seen, hang_up);
    tracing::info!(frps = %own.agent.frps, %address, gateways = own.agent.gateways.len(), "agent started");
    let mut agent = Agent { own, state, gateways, host, edits, warned_of_reports: false };
    agent.until_end(&mut told, &mut ends).await;

    tracing::info!("agent stops");
    server.abort(); // closes the listener
    let Agent { state, gateways, .. } = agent;
    drop(state); // connections hold it, too: once the last is gone, nothing more is heard
    tokio::select! {
        () = last_words(told, gateways) => {
            tracing::info!("agent stopped");
            Ok(Ending::Drained)
        }
        () = ends.signalled() => {
            tracing::warn!("second signal, agent stopped at once");
            Ok(Ending::Cut)
        }
    }
}

fn plugin_state(host: &SubdomainHost) -> (Arc<PluginState>, mpsc::Receiver<Told>) {
    let (heard, told) = mpsc::channel(HEARD_CAP);
    let state = PluginState {
        rules: ArcSwapOption::empty(),
        allow: ArcSwapOption::empty(),
        stats: PluginStats::default(),
        subdomain_host: host.known(),
        // Those of other servers are known to the gateways alone, which settle them.
        conflict: Box::new(|_| None),
        heard,
        leaving: watch::Sender::new(false),
    };
    (Arc::new(state), told)
}

fn apply(state: &PluginState, config: &Config) {
    state.rules.store(Rules::new(config).map(Arc::new));
    state.allow.store(config.plugin.as_ref().map(|plugin| Arc::new(plugin.allow.clone())));
}

/// Answers the calls that are under way, and tells what was heard to the end.
async fn last_words(mut told: mpsc::Receiver<Told>, gateways: Gateways) {
    let grace = sleep(GRACE);
    tokio::pin!(grace);
    loop {
        tokio::select! {
            biased;
            told = told.recv() => match told {
                Some(told) => gateways.tell(&told.heard),
                None => break,
            },
            () = &mut grace => break,
        }
    }
    let untold = gateways.finish(LAST_WORDS).await;
    if untold > 0 {
        tracing::warn!(untold, "gateways were not told everything; they will find out by listing");
    }
}

/// What runs until the end.
struct Agent {
    own: Own,
    state: Arc<PluginState>,
    gateways: Gateways,
    host: SubdomainHost,
    edits: Watched,
    warned_of_reports: bool,
}

impl Agent {
    async fn until_end(&mut self, told: &mut mpsc::Receiver<Told>, ends: &mut Ends) {
        loop {
            tokio::select! {
                () = ends.signalled() => return,
                edit = self.edits.next() => match edit {
                    Ok(new) => self.reload(new),
                    Err(faults) => refuse(&faults),
                },
                told = told.recv() => match told {
                    Some(told) => self.tell(&told),
                    None => return,
                },
            }
        }
    }

    fn tell(&mut self, told: &Told) {
        if !told.by_agent {
            self.gateways.tell(&told.heard);
        } else if !self.warned_of_reports {
            // Passed on it could come back, and go round for ever.
            self.warned_of_reports = true;
            tracing::warn!("an agent reports to this agent: agent.gateways should name gateways");
        }
    }

    fn reload(&mut self, new: Own) {
        if new.agent.listen != self.own.agent.listen {
            let (running, configured) = (self.own.agent.listen, new.agent.listen);
            tracing::warn!(key = "agent.listen", %running, %configured, "a change of this key needs a restart");
        }
        self.host.change(&self.own.config, &new.config);
        self.gateways.change(&new.agent);
        apply(&self.state, &new.config);
        // What is bound stays, and is what the next file is compared with.
        let listen = self.own.agent.listen;
        self.own = new;
        self.own.agent.listen = listen;
        tracing::info!("reloaded");
    }
}

fn refuse(faults: &[Fault]) {
    for fault in faults {
        tracing::error!("{}", fault.text);
    }
    tracing::error!(errors = faults.len(), "reload refused, the old configuration stays in force");
}

/// Signals that end the process.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn signalled(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
