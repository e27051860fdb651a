//! The single writer: takes events one by one, reduces, runs effects, publishes.
//!
//! A step is a transaction. What can fail runs first and changes nothing in force; if it fails, the old state stays and
//! the failure becomes an event of its own. Everything after that can't fail.

mod memory;

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    io,
    net::{SocketAddr, TcpListener},
    os::fd::AsFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use frp_gateway_config::model::Config;
use lb_algos::{Rng, Tick};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep_until},
};

use super::{
    announce::{announce, warn},
    clients::joined,
    compile::{Compiled, Fleet, Identities, TunnelIdentities, chosen, compile, is_asked_for, shown},
    directory::{Touched, carried_at},
    effect::{Effect, Notice, ProbeKey, TunnelEvent},
    event::{Event, Memory},
    gate::Gate,
    migration::{Migrations, Mover},
    pulse,
    reducer::{Step, reduce},
    reload::{self, Accepted},
    resolve::Resolver,
    state::{Fault, Fixed, FrpsState, Now, State},
};
use crate::{
    acme::{self, Acme},
    clock,
    data::{
        access_log::AccessLogHandle,
        listener::{self, Bound},
        sockets::{self, Kind, Label, Sockets},
        worker::Workers,
    },
    frps::{
        ask::Ask,
        decide::Rules,
        plugin::{self, PluginState},
        poller::Poller,
    },
    health::{
        active::{self, Probed},
        outlier,
    },
    snapshot::{Published, Route, Snapshot, Tunnels},
    telemetry::{audit::AuditHandle, supervisor::Supervisor},
    tls::{self, store::Staged},
};

/// Events that may wait; senders wait then.
const INBOX: usize = 256;
/// How often what removed listeners hold is looked after.
const TIDY: Duration = Duration::from_secs(5);
/// Changes of tunnels within this time become one snapshot. The first of them isn't kept waiting.
const GATHER: Duration = Duration::from_millis(20);

/// How often it is looked whether the listeners may open, while they may not.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where others read the present [`State`].
pub type Board = Arc<ArcSwap<State>>;

/// What the rest of the process has of the control plane.
#[derive(Debug, Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Message>,
    board: Board,
    certificates: Arc<tls::Store>,
    acme: Acme,
}

/// What came of a reload.
#[derive(Debug, Clone, PartialEq)]
pub enum ReloadResult {
    /// A new configuration is in force.
    Changed {
        /// Its number.
        generation: u64,
    },
    /// The configuration is what it was.
    Unchanged {
        /// Its number.
        generation: u64,
    },
    /// The old one stays.
    Refused(Vec<Fault>),
}

#[derive(Debug)]
enum Message {
    Event(Event),
    Reload { why: &'static str, done: Option<oneshot::Sender<ReloadResult>> },
    Memory(oneshot::Sender<Memory>),
    Remember(Memory, oneshot::Sender<()>),
}

impl Handle {
    /// Where the present state is.
    #[must_use]
    pub fn board(&self) -> Board {
        Arc::clone(&self.board)
    }

    /// The certificates of listeners.
    #[must_use]
    pub fn certificates(&self) -> &Arc<tls::Store> {
        &self.certificates
    }

    /// Certificates that renew themselves.
    #[must_use]
    pub const fn acme(&self) -> &Acme {
        &self.acme
    }

    /// The present state.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.board.load_full()
    }

    /// Sends an event; `false` when the control plane is gone.
    pub async fn send(&self, event: Event) -> bool {
        self.inbox.send(Message::Event(event)).await.is_ok()
    }

    /// What is known of the fleet; nothing when the control plane is gone.
    pub async fn memory(&self) -> Memory {
        let (tell, told) = oneshot::channel();
        match self.inbox.send(Message::Memory(tell)).await {
            Ok(()) => told.await.unwrap_or_default(),
            Err(_gone) => Memory::default(),
        }
    }

    /// Goes by what the process before us knew: its doubts in any case, its tunnels and hosts where we know nothing
    /// ourselves. In force when this returns.
    pub async fn remember(&self, memory: Memory) {
        let (done, wait) = oneshot::channel();
        if self.inbox.send(Message::Remember(memory, done)).await.is_ok() {
            // An error means that the control plane is gone.
            drop(wait.await);
        }
    }

    /// Asks for a reload without waiting for it; `false` when the control plane is gone.
    pub async fn request_reload(&self, why: &'static str) -> bool {
        self.inbox.send(Message::Reload { why, done: None }).await.is_ok()
    }

    /// Reloads; `None` when the control plane is gone.
    pub async fn reload(&self, why: &'static str) -> Option<ReloadResult> {
        let (done, wait) = oneshot::channel();
        self.inbox.send(Message::Reload { why, done: Some(done) }).await.ok()?;
        wait.await.ok()
    }
}

/// What the control plane works on.
#[derive(Debug)]
pub struct Parts {
    /// The configuration file.
    pub path: PathBuf,
    /// What can't change any more.
    pub fixed: Fixed,
    /// Where snapshots go.
    pub published: Published,
    /// The data plane.
    pub workers: Arc<Workers>,
    /// The access log.
    pub access_log: AccessLogHandle,
    /// The audit log.
    pub audit: AuditHandle,
    /// Clients that can be moved, and how that goes.
    pub migrations: Arc<Migrations>,
}

/// What ties the control plane to the process it runs in. By default: nothing was given, nobody is told.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Sockets that were given, and those to be given on.
    pub sockets: Sockets,
    /// Whether visitors may be let in yet.
    pub gate: Gate,
    /// systemd.
    pub supervisor: Supervisor,
}

/// The single writer.
#[derive(Debug)]
pub struct Control {
    parts: Parts,
    process: Process,
    state: State,
    identities: Identities,
    tunnels: TunnelIdentities,
    /// Hosts that changed since the last publish.
    touched: Touched,
    published_at: Instant,
    resolver: Resolver,
    handle: Handle,
    inbox: mpsc::Receiver<Message>,
    /// By frps: what asks its admin API, and what feels its pulse.
    pollers: HashMap<String, [Running; 2]>,
    probes: HashMap<ProbeKey, Running>,
    watches: HashMap<String, Running>,
    movers: HashMap<String, Running>,
    /// Listings that are not in force yet, with the time they began.
    listed: Vec<(String, Tick)>,
    /// Bound, and not accepted on yet.
    unopened: Vec<(String, Vec<Bound>)>,
    opened: bool,
    plugin: Option<Arc<PluginState>>,
    /// Configured address of the plugin listener, and what serves it.
    plugin_server: Option<(SocketAddr, Running)>,
    /// Probes of tunnels: they come and go with them.
    tunnel_probes: HashMap<ProbeKey, (bool, Running)>,
    /// The configuration has changed: what probes do may be another thing.
    probes_are_old: bool,
    seeds: RandomState,
    spawned: u64,
    /// Until it runs.
    acme_inbox: Option<acme::Inbox>,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a step needs before it may take effect. Dropping it undoes everything.
#[derive(Default)]
struct Prepared {
    compiled: Option<Compiled>,
    sockets: Vec<(String, Vec<Bound>)>,
    /// The plugin listener, where it is to be a new one.
    plugin: Option<tokio::net::TcpListener>,
}

impl Control {
    /// A control plane without a configuration.
    #[must_use]
    pub fn new(parts: Parts) -> (Self, Handle) {
        let (sender, inbox) = mpsc::channel(INBOX);
        let (acme, acme_inbox) = Acme::new();
        let state = State::new(parts.fixed.clone());
        let handle = Handle {
            inbox: sender,
            board: Arc::new(ArcSwap::from_pointee(state.clone())),
            certificates: Arc::default(),
            acme,
        };
        handle.certificates.set_more(Arc::clone(&handle.acme.certificates) as _);
        let control = Self {
            identities: Identities::new(parts.fixed.workers),
            tunnels: TunnelIdentities::new(parts.fixed.workers),
            touched: Touched::new(),
            published_at: Instant::now(),
            parts,
            process: Process::default(),
            state,
            resolver: Resolver::default(),
            handle: handle.clone(),
            inbox,
            pollers: HashMap::new(),
            probes: HashMap::new(),
            watches: HashMap::new(),
            movers: HashMap::new(),
            listed: Vec::new(),
            unopened: Vec::new(),
            opened: false,
            plugin: None,
            plugin_server: None,
            tunnel_probes: HashMap::new(),
            probes_are_old: false,
            seeds: RandomState::new(),
            spawned: 0,
            acme_inbox: Some(acme_inbox),
        };
        (control, handle)
    }

    /// What frps and agents are answered by.
    pub fn set_plugin(&mut self, plugin: Arc<PluginState>) {
        self.plugin = Some(plugin);
    }

    /// Which process this is part of. To be called before [`Self::start`].
    pub fn set_process(&mut self, process: Process) {
        self.process = process;
    }

    /// Puts the first configuration in force: binds, publishes, opens.
    ///
    /// # Errors
    /// Everything that could not be had; nothing runs then.
    pub async fn start(&mut self, first: Accepted) -> Result<(), Vec<Fault>> {
        warn(&first.warnings);
        self.apply(Event::ConfigLoaded { config: first.config }).await
    }

    /// Runs until aborted.
    pub async fn run(mut self) {
        let names = self.resolver.clone().keep_resolving(Arc::clone(&self.parts.published));
        let _names = Running(tokio::spawn(names).abort_handle());
        let keep = tls::keeper::keep(Arc::clone(&self.handle.certificates));
        let _certificates = Running(tokio::spawn(keep).abort_handle());
        let (certificates, workers) =
            (Arc::clone(&self.handle.certificates), Arc::clone(&self.parts.workers));
        let judge = async move {
            loop {
                certificates.clients_changed().await;
                workers.judge_clients();
            }
        };
        let _judge = Running(tokio::spawn(judge).abort_handle());
        let _acme = self.run_acme();
        let mut tidy = interval(TIDY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Said from here, since it is this loop that must not hang.
        let watchdog = self.process.supervisor.watchdog();
        let mut alive = interval(watchdog.unwrap_or(TIDY).max(Duration::from_millis(1)));
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(Message::Event(event)) => self.apply_or_refuse(event).await,
                    // Whoever asked may have gone away.
                    Some(Message::Memory(tell)) => drop(tell.send(self.memory())),
                    Some(Message::Remember(memory, done)) => {
                        self.remember(memory).await;
                        done.send(()).ok();
                    }
                    Some(Message::Reload { why, done }) => {
                        let result = self.reload(why).await;
                        if let Some(done) = done {
                            // Whoever asked may have gone away.
                            drop(done.send(result));
                        }
                    }
                    None => return,
                },
                // Tunnels that flap by the hundred cost a snapshot every so often, not one each.
                () = sleep_until((self.published_at + GATHER).into()), if !self.touched.is_empty() => {
                    self.publish_tunnels();
                    self.show();
                }
                () = tokio::time::sleep(LOOK_AGAIN), if !self.process.gate.is_open() || !self.unopened.is_empty() => {}
                _ = tidy.tick() => self.tidy(),
                _ = alive.tick(), if watchdog.is_some() => self.process.supervisor.alive(),
            }
            self.open_when_known();
        }
    }

    fn run_acme(&mut self) -> Option<Running> {
        let inbox = self.acme_inbox.take()?;
        let parts = acme::manager::Parts {
            acme: self.handle.acme.clone(),
            board: self.handle.board(),
            store: Arc::clone(&self.handle.certificates),
            audit: self.parts.audit.clone(),
            rng: self.rng(),
        };
        Some(Running(tokio::spawn(acme::manager::run(parts, inbox)).abort_handle()))
    }

    async fn reload(&mut self, why: &'static str) -> ReloadResult {
        tracing::debug!(why, "reload begins");
        if self.state.draining {
            return ReloadResult::Refused(vec![Fault::plain("draining", "process", "it is shutting down")]);
        }
        self.process.supervisor.reloading();
        let result = self.read_and_apply().await;
        self.process.supervisor.reloaded(match &result {
            ReloadResult::Refused(_) => "serving; the last reload was refused",
            ReloadResult::Changed { .. } | ReloadResult::Unchanged { .. } => "serving",
        });
        result
    }

    async fn read_and_apply(&mut self) -> ReloadResult {
        let path = self.parts.path.clone();
        let loaded = tokio::task::spawn_blocking(move || reload::load(&path)).await;
        let event = match loaded {
            Ok(Ok(accepted)) => {
                if self.state.config.as_ref() != Some(&accepted.config) {
                    warn(&accepted.warnings);
                }
                Event::ConfigLoaded { config: accepted.config }
            }
            Ok(Err(faults)) => Event::ConfigRefused { faults },
            Err(panicked) => {
                let fault = Fault::plain("internal", "configuration", &format!("cannot be read: {panicked}"));
                Event::ConfigRefused { faults: vec![fault] }
            }
        };
        let before = self.state.generation;
        self.apply_or_refuse(event).await;
        let generation = self.state.generation;
        match &self.state.reloads.faults {
            faults if !faults.is_empty() => ReloadResult::Refused(faults.clone()),
            _ if generation == before => ReloadResult::Unchanged { generation },
            _ => ReloadResult::Changed { generation },
        }
    }

    async fn apply_or_refuse(&mut self, event: Event) {
        if let Err(faults) = self.apply(event).await {
            let refused = self.apply(Event::ConfigRefused { faults }).await;
            debug_assert!(refused.is_ok(), "a refusal has no effect that can fail");
        }
    }

    /// One step: all of it, or nothing and why.
    async fn apply(&mut self, event: Event) -> Result<(), Vec<Fault>> {
        let begun = Instant::now();
        let now = Now { tick: clock::now(), wall: SystemTime::now() };
        if let Event::FrpsListed { frps, begun, .. } = &event {
            self.listed.push((frps.clone(), *begun));
        }
        if let Event::TunnelClaimed { frps, by_agent, .. } | Event::TunnelClosing { frps, by_agent, .. } =
            &event
        {
            self.tunnels.watch(frps).heard(*by_agent);
        }
        if let Event::FrpsRemembered(known) = &event
            && self.state.frps.get(&known.frps).is_some_and(|frps| frps.server == known.server)
        {
            self.tunnels.watch(&known.frps).remember(known.calls_us, known.doubted, now.tick);
        }
        let certificates = match &event {
            Event::ConfigLoaded { config } => Some(self.stage_certificates(config, now.wall).await?),
            _ => None,
        };
        let listed = match &event {
            Event::FrpsListed { frps, begun, .. } => Some((frps.clone(), *begun)),
            _ => None,
        };
        let Step { mut state, effects } = reduce(&self.state, event, now);
        if let Some(certificates) = &certificates {
            self.identities.prepare_tls(certificates.terminators());
            self.identities.prepare_outbounds(certificates.outbounds());
        }
        let mut prepared = self.prepare(&mut state, &effects, now).await?;
        self.state = state;
        if let Some((frps, begun)) = listed {
            self.count_tunnels(&frps, begun);
        }
        let mut sockets = std::mem::take(&mut prepared.sockets);
        let mut compiled = prepared.compiled.take();
        for effect in effects {
            match effect {
                Effect::Bind { .. } | Effect::SwitchAccessLog(_) | Effect::SwitchAudit(_) => {} // prepared
                Effect::Publish => {
                    if let Some(compiled) = compiled.take() {
                        self.probes_are_old = true;
                        self.serve_plugin(prepared.plugin.take());
                        self.publish(compiled);
                        self.unopened.append(&mut sockets);
                        self.open_when_known();
                    }
                }
                Effect::PublishTunnels(touched) => {
                    self.touched.extend(touched);
                    // Who reads "ready" may connect at once, so nothing waits while nobody is told yet.
                    let starting = self.handle.board.load().readiness(now.tick).is_err();
                    if starting || self.published_at.elapsed() >= GATHER {
                        self.publish_tunnels();
                    }
                }
                Effect::Look { frps, names, claimed } => {
                    let watch = self.tunnels.watch(&frps);
                    watch.doubt(now.tick);
                    watch.ask(Ask::Look { names, claimed });
                }
                Effect::Close { listener } => {
                    if let Some(slot) = self.identities.listener_slot(&listener) {
                        self.process.sockets.release(&sockets::listener(&listener));
                        self.parts.workers.close(slot, self.drain_timeout());
                        tracing::info!(%listener, "closed");
                    }
                }
                Effect::StopPoller { frps } => {
                    self.tunnels.watch(&frps).set_poller(None);
                    drop(self.pollers.remove(&frps));
                }
                Effect::StartPoller { frps, server, admin } => {
                    let (asks, asked) = mpsc::unbounded_channel();
                    let watch = self.tunnels.watch(&frps);
                    watch.set_poller(Some(asks));
                    let rng = self.rng();
                    let (control, name) = (self.handle.clone(), frps.clone());
                    let poll = Poller { frps: name, server, admin, control, asked, rng }.run();
                    let pulse =
                        pulse::watch(frps.clone(), self.handle.board(), Arc::clone(&self.parts.published));
                    let both = [tokio::spawn(poll).abort_handle(), tokio::spawn(pulse).abort_handle()];
                    self.pollers.insert(frps, both.map(Running));
                }
                Effect::StopProbe(key) => drop(self.probes.remove(&key)),
                Effect::StartProbe(key, h2c, health) => {
                    if let Some(probed) = self.identities.probed(&key.pool, &key.endpoint, h2c) {
                        let probe = active::probe(probed, health, self.rng());
                        self.probes.insert(key, Running(tokio::spawn(probe).abort_handle()));
                    }
                }
                Effect::StopWatch { pool } => drop(self.watches.remove(&pool)),
                Effect::StartWatch { pool } => {
                    let watch = outlier::watch(pool.clone(), Arc::clone(&self.parts.published));
                    self.watches.insert(pool, Running(tokio::spawn(watch).abort_handle()));
                }
                Effect::StopMigration { frps } => {
                    drop(self.movers.remove(&frps));
                    self.parts.migrations.forget(&frps);
                    tracing::info!(%frps, "drain ends");
                }
                Effect::StartMigration { frps } => {
                    let empty = self.mover().empty(frps.clone());
                    self.movers.insert(frps, Running(tokio::spawn(empty).abort_handle()));
                }
                Effect::Log(notice) => self.announce(&notice, begun.elapsed()),
            }
        }
        if let Some(certificates) = certificates {
            self.identities.settle_tls(certificates.terminators());
            self.identities.settle_outbounds(certificates.outbounds());
            self.handle.certificates.settle(certificates);
        }
        self.show();
        Ok(())
    }

    /// Reads the certificates that a configuration names, on a thread of their own: there may be a thousand.
    async fn stage_certificates(&self, config: &Arc<Config>, now: SystemTime) -> Result<Staged, Vec<Fault>> {
        let (store, config) = (Arc::clone(&self.handle.certificates), Arc::clone(config));
        let strict = self.state.config.is_some();
        let staged = tokio::task::spawn_blocking(move || store.stage(&config, strict, now)).await;
        let staged = staged.map_err(|panicked| {
            vec![Fault::plain("internal", "listeners", &format!("certificates cannot be read: {panicked}"))]
        })?;
        staged.map_err(|faults| {
            let fault = |fault: tls::store::TlsFault| Fault::plain("certificate", &fault.key, &fault.message);
            faults.into_iter().map(fault).collect()
        })
    }

    fn mover(&self) -> Mover {
        Mover {
            migrations: Arc::clone(&self.parts.migrations),
            board: self.handle.board(),
            published: Arc::clone(&self.parts.published),
            audit: self.parts.audit.clone(),
        }
    }

    /// Tells those who place clients how many tunnels an frps has.
    fn count_tunnels(&self, frps: &str, begun: Tick) {
        let tunnels = self.state.frps.get(frps).map_or(0, FrpsState::tunnels);
        let present = self.parts.published.load();
        if let Some(handle) = present.frps.iter().find(|handle| *handle.live.name == *frps) {
            handle.live.listed(begun, tunnels);
            // While few are unknown it can be told who is who.
            drop(joined(&present.relays, &self.state, frps));
        }
    }

    /// Lets others read the state, once what it says is served: who reads "ready" there may connect at once.
    fn show(&mut self) {
        if self.touched.is_empty() {
            // Only now: whoever asks whether a port is still the tunnel's may go by it.
            for (frps, begun) in std::mem::take(&mut self.listed) {
                self.tunnels.watch(&frps).listed(begun);
            }
            self.handle.board.store(Arc::new(self.state.clone()));
            self.handle.acme.look();
        }
    }

    /// Does what can fail. What is in force stays as it is.
    async fn prepare(
        &mut self,
        state: &mut State,
        effects: &[Effect],
        now: Now,
    ) -> Result<Prepared, Vec<Fault>> {
        let mut prepared = Prepared::default();
        if effects.contains(&Effect::Publish)
            && let Some(config) = &state.config
        {
            let fleet = Fleet { config, directory: &state.directory, now: now.tick };
            let mut compiled = compile(fleet, state.generation, &mut self.tunnels, &self.identities)
                .map_err(|error| vec![Fault::plain("internal", "configuration", &error.to_string())])?;
            compiled.snapshot.tunnel_hosts = self.tunnels.hosts_of(config);
            self.resolver.resolve_new(&compiled.snapshot).await;
            prepared.compiled = Some(compiled);
        }
        if effects.contains(&Effect::Publish)
            && let Some(plugin) = state.config.as_ref().and_then(|config| config.plugin.as_ref())
            && self.plugin.is_some()
            && self.plugin_server.as_ref().is_none_or(|(address, _)| *address != plugin.listen)
        {
            let bound = self.plugin_listener(plugin.listen);
            prepared.plugin = Some(bound.map_err(|error| {
                let message = format!("the plugin listener cannot listen on {}: {error}", plugin.listen);
                vec![Fault::plain("bind", "plugin.listen", &message)]
            })?);
        }
        // Sockets on an address that we serve already share its visitors from the moment they are bound, so giving them
        // up would reset some: they come last, when nothing else can fail any more.
        let ours = self.addresses_in_force();
        let (shared, fresh): (Vec<_>, Vec<_>) = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Bind { listener, address, kind, key } => Some((listener, (*address, *kind), key)),
                _ => None,
            })
            .partition(|(_, at, _)| ours.contains(at));
        let workers = self.parts.workers.count();
        let mut bind = |(name, at, key): (&String, (SocketAddr, Kind), &String)| match self
            .process
            .sockets
            .take(&sockets::listener(name), at.1, at.0)
            .map_or_else(
                || listener::bind(at.0, at.1, workers, ours.contains(&at)),
                |given| Ok((given.label.address, listener::adopt(given.label.kind, given.sockets, workers)?)),
            ) {
            Ok((real, sockets)) => {
                state.addresses.insert(name.clone(), real);
                prepared.sockets.push((name.clone(), sockets));
                None
            }
            Err(error) => {
                let message = format!("listener {name:?} cannot listen on {}: {error}", at.0);
                Some(Fault::plain("bind", key, &message))
            }
        };
        let mut faults: Vec<_> = fresh.into_iter().filter_map(&mut bind).collect();
        if faults.is_empty() {
            self.switch_access_log(effects)?;
            faults.extend(shared.into_iter().filter_map(bind));
        }
        if faults.is_empty() { Ok(prepared) } else { Err(faults) }
    }

    /// The plugin listener's socket: the one given, or a new one.
    fn plugin_listener(&self, bind: SocketAddr) -> io::Result<tokio::net::TcpListener> {
        let given = self.process.sockets.take(sockets::PLUGIN, Kind::Stream, bind);
        let socket = match given.and_then(|given| given.sockets.into_iter().next()) {
            Some(given) => TcpListener::from(given),
            None => TcpListener::bind(bind)?,
        };
        socket.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(socket)
    }

    /// What we are bound to.
    fn addresses_in_force(&self) -> HashSet<(SocketAddr, Kind)> {
        let listeners = self.state.config.iter().flat_map(|config| &config.listeners);
        listeners
            .filter_map(|one| Some((*self.state.addresses.get(&one.name)?, Kind::of(one.protocol))))
            .collect()
    }

    fn switch_access_log(&self, effects: &[Effect]) -> Result<(), Vec<Fault>> {
        for effect in effects {
            if let Effect::SwitchAudit(target) = effect {
                let switched = self.parts.audit.switch(target);
                switched.map_err(|error| vec![Fault::plain("audit", "audit", &error.to_string())])?;
            }
            if let Effect::SwitchAccessLog(target) = effect {
                let switched = self.parts.access_log.switch(target);
                switched
                    .map_err(|error| vec![Fault::plain("access-log", "access_log", &error.to_string())])?;
            }
        }
        Ok(())
    }

    /// Puts the rules for plugin calls in force, and a new listener in place of the old one.
    fn serve_plugin(&mut self, listener: Option<tokio::net::TcpListener>) {
        let (Some(plugin), Some(config)) = (&self.plugin, &self.state.config) else { return };
        plugin.rules.store(Rules::new(config).map(Arc::new));
        plugin.allow.store(config.plugin.as_ref().map(|plugin| Arc::new(plugin.allow.clone())));
        match (&config.plugin, listener) {
            (None, _) => {
                self.process.sockets.release(sockets::PLUGIN);
                self.plugin_server = None;
            }
            (Some(_), None) => {}
            (Some(settings), Some(listener)) => {
                if let Ok(address) = listener.local_addr() {
                    tracing::info!(%address, "plugin listener listening");
                    let name = sockets::PLUGIN.to_owned();
                    let label = Label { name, kind: Kind::Stream, bind: Some(settings.listen), address };
                    self.hold(label, std::slice::from_ref(&listener));
                }
                let (gate, plugin) = (self.process.gate.clone(), Arc::clone(plugin));
                let serve = async move {
                    // While another process serves, it knows more of who has which domain.
                    gate.allowed().await;
                    plugin::serve(listener, plugin).await;
                };
                self.plugin_server = Some((settings.listen, Running(tokio::spawn(serve).abort_handle())));
            }
        }
    }

    fn publish(&mut self, Compiled { mut snapshot, identities, settlement }: Compiled) {
        let now = clock::now();
        self.identities = identities;
        if let Some(config) = &self.state.config {
            self.tunnels.follow(config);
            let fleet = Fleet { config, directory: &self.state.directory, now };
            let route = Arc::new(Route::of_tunnels(config.tunnels.timeout));
            let mut tunnels = self.tunnels.all(fleet, route);
            tunnels.follow(&self.parts.published.load().tunnels, now);
            snapshot.tunnels = Arc::new(tunnels);
            snapshot.tunnel_hosts = self.tunnels.hosts_of(config);
            snapshot.tunnel_stats = self.tunnels.stats();
        }
        snapshot.proofs = Arc::clone(&self.handle.acme.proofs);
        self.touched.clear();
        self.published_at = Instant::now();
        self.parts.published.store(Arc::new(snapshot));
        self.parts.workers.news();
        settlement.apply(now);
        // New rules and new members are looked at now, not within a second.
        self.parts.published.load().pools.iter().for_each(|pool| pool.bell.notify_one());
        self.probe_tunnels();
    }

    /// Accepts on new sockets. At the start, tunnels that are not known yet would make hosts look like nobody's: visitors wait
    /// in the accept queue until every admin API has answered, or 5 s.
    fn open_when_known(&mut self) {
        let Some(config) = &self.state.config else { return };
        let by_tunnels = config.tunnels.serve || config.pools.iter().any(|pool| pool.tunnels.is_some());
        let waits = by_tunnels && !self.opened && self.state.readiness(clock::now()).is_err();
        if self.process.gate.is_held() || (waits && !self.state.draining) {
            return;
        }
        if !self.unopened.is_empty() {
            self.opened = true;
            let sockets = std::mem::take(&mut self.unopened);
            self.open(sockets);
        }
        self.process.gate.open();
    }

    /// How long connections of a listener that is gone may go on.
    fn drain_timeout(&self) -> Duration {
        self.state.config.as_ref().map_or(Duration::ZERO, |config| config.runtime.drain_timeout)
    }

    /// Accepts on new sockets. A listener that moved leaves its old ones.
    fn open(&self, sockets: Vec<(String, Vec<Bound>)>) {
        for (name, sockets) in sockets {
            let Some(slot) = self.identities.listener_slot(&name) else { continue };
            if let Some(&address) = self.state.addresses.get(&name) {
                let mut listeners = self.state.config.iter().flat_map(|config| &config.listeners);
                let listener = listeners.find(|one| one.name == name);
                let kind = listener.map_or(Kind::Stream, |one| Kind::of(one.protocol));
                let (name, bind) = (sockets::listener(&name), listener.map(|one| one.bind));
                self.hold(Label { name, kind, bind, address }, &sockets);
            }
            // For a listener that is new this closes nothing.
            self.parts.workers.close(slot, self.drain_timeout());
            self.parts.workers.open(slot, sockets);
            if let Some(address) = self.state.addresses.get(&name) {
                tracing::info!(listener = %name, %address, "listening");
            }
        }
    }

    /// Keeps handles on the sockets of a listener, to be given on.
    fn hold(&self, label: Label, sockets: &[impl AsFd]) {
        let name = label.name.clone();
        if let Err(error) = self.process.sockets.hold(label, sockets.iter()) {
            tracing::error!(%name, %error, "no handle on a listener can be had: an upgrade would leave it out");
        }
    }

    /// Publishes the hosts that changed. Everything else is shared with the snapshot before.
    fn publish_tunnels(&mut self) {
        let Some(config) = self.state.config.clone() else { return };
        if self.selections_changed(&config) {
            self.recompile();
            return;
        }
        let fleet = Fleet { config: &config, directory: &self.state.directory, now: clock::now() };
        let present = self.parts.published.load();
        let mut tunnels = Tunnels::clone(&present.tunnels);
        tunnels.forget_away(fleet.now);
        let mut lost = Vec::new();
        for key in std::mem::take(&mut self.touched).into_iter().filter(|key| is_asked_for(key)) {
            let host = self.tunnels.host(fleet, &key);
            let known = present.tunnels.get(&key).map_or(&[][..], |known| &known.losers);
            lost.extend(
                host.iter()
                    .flat_map(|host| &host.losers)
                    .filter(|loser| !known.contains(loser))
                    .map(|(frps, name)| (Arc::clone(frps), Arc::clone(name), Arc::clone(&key))),
            );
            tunnels.set(&key, host, fleet.now);
        }
        self.store(tunnels);
        self.tell_conflicts(&lost);
    }

    /// Publishes the present snapshot with these tunnels.
    fn store(&mut self, tunnels: Tunnels) {
        let present = self.parts.published.load();
        self.published_at = Instant::now();
        self.parts.published.store(Arc::new(Snapshot {
            generation: present.generation,
            listeners: present.listeners.clone(),
            routes: present.routes.clone(),
            pools: present.pools.clone(),
            tunnel_hosts: present.tunnel_hosts.clone(),
            tunnel_stats: self.tunnels.stats(),
            tunnels: Arc::new(tunnels),
            frps: present.frps.clone(),
            relays: Arc::clone(&present.relays),
            proofs: Arc::clone(&present.proofs),
        }));
        self.parts.workers.news();
    }

    /// Tells which tunnels lost a claim to somebody else.
    fn tell_conflicts(&self, lost: &[(Arc<str>, Arc<str>, Arc<str>)]) {
        for (frps, name, key) in lost {
            let loser = self.state.frps.get(&**frps).and_then(|known| known.table.get(name));
            let Some(loser) = loser else { continue };
            let owner = self.state.directory.claimants(key).iter().find(|other| other.user() != loser.user());
            let reason = owner
                .map(|owner| format!("{} of user {:?} was there before", owner.proxy.name, owner.user()));
            let notice = Notice::Tunnel {
                event: TunnelEvent::Conflict,
                frps: frps.to_string(),
                name: name.to_string(),
                user: loser.user().to_owned(),
                domains: vec![shown(key)],
                way: loser.way.word(),
                reason,
            };
            self.announce(&notice, Duration::ZERO);
        }
    }

    fn announce(&self, notice: &Notice, took: Duration) {
        announce(notice, took);
        self.parts.audit.notice(notice);
    }

    /// Whether a configured pool of tunnels has other members now.
    fn selections_changed(&self, config: &Config) -> bool {
        let present = self.parts.published.load();
        config.pools.iter().zip(&present.pools).any(|(pool, compiled)| {
            let Some(selector) = &pool.tunnels else { return false };
            if !self.touched.iter().any(|key| carried_at(key) == pool.carries) {
                return false;
            }
            let chosen = chosen(&self.state.directory, pool.carries, selector, &config.claims);
            !self.tunnels.is_made_of(compiled, &chosen, config)
        })
    }

    /// The same configuration with the tunnels there are now.
    fn recompile(&mut self) {
        let Some(config) = self.state.config.clone() else { return };
        let fleet = Fleet { config: &config, directory: &self.state.directory, now: clock::now() };
        // What is over is over at once, also for requests that hold the snapshot before.
        self.tunnels.tidy(fleet);
        match compile(fleet, self.state.generation, &mut self.tunnels, &self.identities) {
            Ok(compiled) => self.publish(compiled),
            Err(error) => tracing::error!(%error, "the configuration in force does not compile again"),
        }
    }

    /// Probes what is in configured pools of tunnels now, and nothing else.
    fn probe_tunnels(&mut self) {
        let Some(config) = self.state.config.clone() else { return };
        let present = self.parts.published.load_full();
        let mut before = std::mem::take(&mut self.tunnel_probes);
        for (pool, compiled) in config.pools.iter().zip(&present.pools) {
            let (Some(_), Some(health)) = (&pool.tunnels, &pool.health) else { continue };
            for member in &compiled.members {
                let key = ProbeKey { pool: pool.name.clone(), endpoint: member.endpoint.id.clone() };
                let h2c = member.speaks_h2c(compiled);
                let fits = |(asks, _): &(bool, Running)| *asks == h2c && !self.probes_are_old;
                let running = before.remove(&key).filter(fits).unwrap_or_else(|| {
                    let probed = Probed {
                        pool: pool.name.clone(),
                        endpoint: Arc::clone(&member.endpoint),
                        h2c,
                        member: Arc::clone(&member.state),
                        bell: Arc::clone(&compiled.bell),
                    };
                    let probe = active::probe(probed, health.clone(), self.rng());
                    (h2c, Running(tokio::spawn(probe).abort_handle()))
                });
                self.tunnel_probes.insert(key, running);
            }
        }
        self.probes_are_old = false;
    }

    /// Lets go of what removed listeners hold, once their visitors are gone, and of tunnels that are gone.
    fn tidy(&mut self) {
        let Some(config) = self.state.config.clone() else { return };
        self.tunnels.tidy(Fleet { config: &config, directory: &self.state.directory, now: clock::now() });
        if self.identities.has_retired() {
            self.recompile();
        }
    }

    /// Chance for one task. Needn't be good, only different.
    fn rng(&mut self) -> Rng {
        self.spawned += 1;
        Rng::seeded(self.seeds.hash_one(self.spawned))
    }
}

#[cfg(test)]
mod tests;
