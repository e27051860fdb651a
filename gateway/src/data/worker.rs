//! Data-plane threads: one runtime each, everything a request writes to is the thread's own.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc as std_mpsc,
    },
    task::{Context, Waker},
    thread,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Cache};
use lb_algos::Rng;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Notify, mpsc, oneshot, watch},
    task::{AbortHandle, spawn_local},
};

use super::{
    absent::Absences,
    access_log::AccessLogHandle,
    buffer::Buffers,
    client,
    exchange::Scratch,
    frp::hand_on::{self, Handing, Offer, Parcel},
    hold::Lines,
    l4::udp::Desk,
    listener::{self, Bound, Stop},
    pick::PolicyState,
    upstream::IdleConnections,
};
use crate::{
    clock,
    snapshot::{Published, Snapshot},
    telemetry::{
        audit::AuditHandle,
        shard::{Counter, Shards, WorkerId},
    },
    tls::ClientIdentity,
};

/// How often a worker closes idle upstream connections that are over.
const SWEEP: Duration = Duration::from_secs(2);
/// How often a drain looks whether it is done.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// Idle keep-alive connections are left alone for this long after a drain began: their next request gets its answer
/// with `Connection: close`.
const IDLE_GRACE: Duration = Duration::from_millis(500);

/// What the control plane asks of every worker.
enum Command {
    Open {
        slot: usize,
        socket: Bound,
    },
    Close {
        slot: usize,
        within: Duration,
    },
    Drain {
        within: Duration,
        leaving: Leaving,
        done: oneshot::Sender<u64>,
    },
    /// Something was published: those who wait for it look again.
    News,
    /// Relayed clients offer themselves here.
    HandOn(mpsc::Sender<Offer>),
    /// One that another process has handed on.
    TakeOver(Box<Parcel>),
    /// Whoever is left, ends.
    End(oneshot::Sender<u64>),
    /// What judges clients' certificates has changed.
    Judge,
}

/// What becomes of the listening sockets when everything ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// They are closed; what waits in their queues is answered first.
    Closing,
    /// Another process accepts on them already.
    HandedOver,
}

/// Handle on all data-plane threads. Dropping it ends them.
#[derive(Debug)]
pub struct Workers {
    commands: Vec<mpsc::UnboundedSender<Command>>,
    connections: Arc<Shards<Counter>>,
    background: Arc<Shards<Counter>>,
    /// Who gets the next connection of another process.
    turn: AtomicUsize,
}

impl Workers {
    /// Starts `count` threads that read `published`.
    ///
    /// # Errors
    /// A thread or its runtime can't be made.
    pub fn start(
        count: usize,
        published: &Published,
        access_log: &AccessLogHandle,
        audit: &AuditHandle,
    ) -> io::Result<Self> {
        let connections = Arc::new(Shards::new(count));
        let background = Arc::new(Shards::new(count));
        let mut commands = Vec::with_capacity(count);
        for index in 0..count {
            let (sender, receiver) = mpsc::unbounded_channel();
            let (started, starting) = std_mpsc::channel();
            let published = Arc::clone(published);
            let counters = (Arc::clone(&connections), Arc::clone(&background));
            let (access_log, audit) = (access_log.clone(), audit.clone());
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
                let runtime = match runtime {
                    Ok(runtime) => {
                        drop(started.send(Ok(())));
                        runtime
                    }
                    Err(error) => {
                        drop(started.send(Err(error)));
                        return;
                    }
                };
                let logs = (access_log, audit);
                let worker = Rc::new(Worker::new(WorkerId(index), published, logs, counters));
                runtime.block_on(run(worker, receiver));
            })?;
            starting.recv().map_err(|_gone| io::Error::other("a worker thread ended at start"))??;
            commands.push(sender);
        }
        Ok(Self { commands, connections, background, turn: AtomicUsize::new(0) })
    }

    /// Number of threads.
    #[must_use]
    pub fn count(&self) -> usize {
        self.commands.len()
    }

    /// Begins to accept, the workers in turn on one of `sockets` each; on all of them, however many they are. The snapshot
    /// that has `slot` must be published already.
    pub fn open(&self, slot: usize, sockets: Vec<Bound>) {
        for (worker, socket) in self.commands.iter().cycle().zip(sockets) {
            drop(worker.send(Command::Open { slot, socket }));
        }
    }

    /// Stops accepting on `slot`: what waits in the accept queue is answered, keep-alive connections end after their
    /// exchange, and whatever is left is cut after `within`.
    pub fn close(&self, slot: usize, within: Duration) {
        for worker in &self.commands {
            drop(worker.send(Command::Close { slot, within }));
        }
    }

    /// Tells those who wait for a tunnel that something was published.
    pub fn news(&self) {
        for worker in &self.commands {
            drop(worker.send(Command::News));
        }
    }

    /// Has everybody judged again who has shown a certificate; who isn't good any more is cut.
    pub fn judge_clients(&self) {
        for worker in &self.commands {
            drop(worker.send(Command::Judge));
        }
    }

    /// Ends everything, letting exchanges finish `within` that time. Returns the number of connections cut. Where another process
    /// serves already, clients of an `frp` listener stay, to be handed on: see [`Self::hand_on`], [`Self::end`].
    pub async fn drain(&self, within: Duration, leaving: Leaving) -> u64 {
        self.ask(|done| Command::Drain { within, leaving, done }).await
    }

    /// Has relayed clients offer themselves to another process, those that come later too.
    pub fn hand_on(&self, to: &mpsc::Sender<Offer>) {
        for worker in &self.commands {
            drop(worker.send(Command::HandOn(to.clone())));
        }
    }

    /// Takes a client over from another process.
    pub fn take_over(&self, parcel: Parcel) {
        let turn = self.turn.fetch_add(1, Relaxed) % self.commands.len().max(1);
        if let Some(worker) = self.commands.get(turn) {
            drop(worker.send(Command::TakeOver(Box::new(parcel))));
        }
    }

    /// Cuts whatever is left; how much that was.
    pub async fn end(&self) -> u64 {
        self.ask(Command::End).await
    }

    async fn ask(&self, command: impl Fn(oneshot::Sender<u64>) -> Command) -> u64 {
        let waits: Vec<_> = self
            .commands
            .iter()
            .map(|worker| {
                let (done, wait) = oneshot::channel();
                drop(worker.send(command(done)));
                wait
            })
            .collect();
        let mut all = 0;
        for wait in waits {
            all += wait.await.unwrap_or_default();
        }
        all
    }

    /// Visitor connections open now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.sum(|count| count)
    }

    /// Connections of clients open now, those included that have not logged in.
    #[must_use]
    pub fn clients(&self) -> u64 {
        self.background.sum(|count| count)
    }
}

/// A snapshot as one worker's requests hold it: the outer count is the worker's own.
pub type LocalSnapshot = Rc<Arc<Snapshot>>;

/// What the tasks of one thread share.
#[derive(Debug)]
pub struct Worker {
    /// Which copy of the counters is ours.
    pub id: WorkerId,
    /// Free read buffers.
    pub buffers: Buffers,
    /// Warm upstream connections.
    pub idle: IdleConnections,
    /// Where access-log lines go.
    pub access_log: AccessLogHandle,
    /// Where audit lines go.
    pub audit: AuditHandle,
    /// What was learnt from frps's 404 pages.
    pub absences: RefCell<Absences>,
    /// Randomness for policies and splits.
    pub rng: RefCell<Rng>,
    /// Rung when something was published.
    pub news: Notify,
    /// Requests that wait for a tunnel.
    pub lines: RefCell<Lines>,
    /// Visitors that are being told that there is no room.
    pub told: Cell<u32>,
    published: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    snapshot: RefCell<LocalSnapshot>,
    #[expect(clippy::vec_box, reason = "a connection's task holds and moves a pointer only")]
    scratch: RefCell<Vec<Box<Scratch>>>,
    policies: RefCell<Vec<Option<Box<PolicyState>>>>,
    /// Those of [`Pool::auto`](crate::snapshot::Pool::auto) pools: their slots are a series of their own.
    tunnel_policies: RefCell<Vec<Option<Box<PolicyState>>>>,
    /// Where relayed clients offer themselves to another process.
    pub handing: Handing,
    connections: Arc<Shards<Counter>>,
    background: Arc<Shards<Counter>>,
    open: RefCell<HashMap<u64, (Rc<Presence>, AbortHandle), foldhash::fast::RandomState>>,
    next_connection: Cell<u64>,
    draining: Cell<bool>,
    closed_slots: RefCell<HashSet<usize>>,
    /// Whose datagrams those to an address are.
    datagram_slots: RefCell<HashMap<SocketAddr, usize>>,
    last_complaint: RefCell<HashMap<&'static str, (Instant, u64)>>,
}

/// What the worker knows of one visitor's connection.
#[derive(Debug, Default)]
pub struct Presence {
    /// No exchange is going on.
    pub idle: Cell<bool>,
    /// The connection is to end after its exchange.
    pub closing: Cell<bool>,
    /// It carries the exchanges of others, and ends when nobody else is left.
    background: Cell<bool>,
    slot: Cell<usize>,
    /// Who connected, and whose certificate they have shown.
    pub client: OnceCell<(IpAddr, Arc<ClientIdentity>)>,
    /// It is to end now, if it is idle.
    leaving: Cell<bool>,
    /// Wakes its task to see that.
    waiting: RefCell<Option<Waker>>,
}

impl Presence {
    /// Whether an idle connection is to end now. If not, the task is woken when that changes.
    pub fn is_leaving(&self, cx: &Context<'_>) -> bool {
        if !self.leaving.get() {
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waiting = Some(cx.waker().clone());
            }
        }
        self.leaving.get()
    }

    /// Asks the task to end, if it has ever asked for that ([`Self::is_leaving`]).
    fn leave(&self) -> bool {
        self.leaving.set(true);
        self.waiting.borrow().as_ref().map(Waker::wake_by_ref).is_some()
    }
}

/// Unused scratch kept per worker.
const KEEP_SCRATCH: usize = 64;

impl Worker {
    fn new(
        id: WorkerId,
        published: Published,
        (access_log, audit): (AccessLogHandle, AuditHandle),
        (connections, background): (Arc<Shards<Counter>>, Arc<Shards<Counter>>),
    ) -> Self {
        let seed = foldhash::fast::RandomState::default();
        let seed = std::hash::BuildHasher::hash_one(&seed, id.0);
        Self {
            id,
            buffers: Buffers::default(),
            idle: IdleConnections::default(),
            access_log,
            audit,
            absences: RefCell::default(),
            rng: RefCell::new(Rng::seeded(seed)),
            news: Notify::new(),
            lines: RefCell::default(),
            told: Cell::new(0),
            snapshot: RefCell::new(Rc::new(published.load_full())),
            published: RefCell::new(Cache::new(published)),
            scratch: RefCell::default(),
            policies: RefCell::default(),
            tunnel_policies: RefCell::default(),
            handing: watch::Sender::new(None),
            connections,
            background,
            open: RefCell::default(),
            next_connection: Cell::new(0),
            draining: Cell::new(false),
            closed_slots: RefCell::default(),
            datagram_slots: RefCell::default(),
            last_complaint: RefCell::default(),
        }
    }

    /// The present snapshot. Counted per worker: a count that all workers share would be written by every request.
    pub fn snapshot(&self) -> LocalSnapshot {
        let mut published = self.published.borrow_mut();
        let newest = published.load();
        let mut local = self.snapshot.borrow_mut();
        if !Arc::ptr_eq(&local, newest) {
            *local = Rc::new(Arc::clone(newest));
        }
        Rc::clone(&local)
    }

    /// Working memory for one exchange.
    pub fn take_scratch(&self) -> Box<Scratch> {
        self.scratch.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes working memory back.
    pub fn give_back(&self, scratch: Box<Scratch>) {
        let mut free = self.scratch.borrow_mut();
        if free.len() < KEEP_SCRATCH && scratch.is_modest() {
            free.push(scratch);
        }
    }

    /// Runs `work` on this worker's policy state for `pool`.
    pub fn with_policy<T>(
        &self,
        pool: &crate::snapshot::Pool,
        work: impl FnOnce(&mut PolicyState) -> T,
    ) -> T {
        let mut policies = if pool.auto { &self.tunnel_policies } else { &self.policies }.borrow_mut();
        if policies.len() <= pool.slot {
            policies.resize_with(pool.slot + 1, || None);
        }
        work(policies[pool.slot].get_or_insert_with(|| Box::new(PolicyState::new(pool))))
    }

    /// Whether the process or this listener is shutting down.
    #[must_use]
    pub fn is_closing(&self, slot: usize) -> bool {
        self.draining.get() || self.closed_slots.borrow().contains(&slot)
    }

    /// Which listener has this address, for datagrams.
    #[must_use]
    pub fn datagram_slot(&self, address: SocketAddr) -> Option<usize> {
        self.datagram_slots.borrow().get(&address).copied()
    }

    /// Begins to serve a socket for datagrams.
    fn open_datagrams(self: &Rc<Self>, socket: std::net::UdpSocket, slot: usize) -> Option<Rc<Desk>> {
        match Desk::new(self, socket, slot) {
            Ok(desk) => {
                self.datagram_slots.borrow_mut().insert(desk.address(), slot);
                spawn_local(Rc::clone(&desk).serve());
                Some(desk)
            }
            Err(error) => {
                tracing::error!(%error, "listener unusable");
                None
            }
        }
    }

    /// Registers a connection and its task.
    pub fn enter(&self, slot: usize, task: impl FnOnce(Rc<Presence>, u64) -> AbortHandle) {
        let number = self.next_connection.get();
        self.next_connection.set(number + 1);
        let presence = Rc::new(Presence::default());
        presence.slot.set(slot);
        presence.closing.set(self.is_closing(slot));
        let handle = task(Rc::clone(&presence), number);
        self.connections.of(self.id).inc();
        self.open.borrow_mut().insert(number, (presence, handle));
    }

    /// A connection that is no visitor's, but carries what visitors ask for: a drain ends it last.
    pub fn put_in_background(&self, presence: &Presence) {
        if !presence.background.replace(true) {
            self.connections.of(self.id).dec();
            self.background.of(self.id).inc();
        }
    }

    /// Forgets a connection.
    pub fn leave(&self, number: u64) {
        if let Some((presence, _)) = self.open.borrow_mut().remove(&number) {
            let counters = if presence.background.get() { &self.background } else { &self.connections };
            counters.of(self.id).dec();
        }
    }

    /// Says how often something may be logged: `Some(suppressed since the last time)` at most once a second per `what`.
    pub fn may_complain(&self, what: &'static str) -> Option<u64> {
        let mut all = self.last_complaint.borrow_mut();
        let now = Instant::now();
        match all.get_mut(what) {
            Some((at, suppressed)) if now.duration_since(*at) < Duration::from_secs(1) => {
                *suppressed += 1;
                None
            }
            Some((at, suppressed)) => {
                *at = now;
                Some(std::mem::take(suppressed))
            }
            None => {
                all.insert(what, (now, 0));
                Some(0)
            }
        }
    }

    fn tell_to_close(&self, chosen: impl Fn(&Presence) -> bool) {
        for (presence, _) in self.open.borrow().values() {
            if chosen(presence) {
                presence.closing.set(true);
            }
        }
    }

    /// Numbers of the connections that came through a listener.
    fn open_at(&self, slot: usize) -> Vec<u64> {
        let open = self.open.borrow();
        open.iter()
            .filter(|(_, (presence, _))| presence.slot.get() == slot)
            .map(|(number, _)| *number)
            .collect()
    }

    /// Connections whose client has shown a certificate: number, slot of the listener, who connected, who that is.
    #[must_use]
    pub fn certified(&self) -> Vec<(u64, usize, IpAddr, Arc<ClientIdentity>)> {
        let open = self.open.borrow();
        let of = |(number, (presence, _)): (&u64, &(Rc<Presence>, AbortHandle))| {
            let (peer, client) = presence.client.get()?;
            Some((*number, presence.slot.get(), *peer, Arc::clone(client)))
        };
        open.iter().filter_map(of).collect()
    }

    /// Ends a connection at once.
    pub fn cut_one(&self, number: u64) {
        self.cut_some(&[number]);
    }

    fn cut_some(&self, numbers: &[u64]) {
        let handles: Vec<_> = {
            let open = self.open.borrow();
            numbers.iter().filter_map(|number| open.get(number)).map(|(_, handle)| handle.clone()).collect()
        };
        handles.iter().for_each(AbortHandle::abort);
    }

    /// Ends the idle ones. A request may have arrived that its task hasn't seen yet: so the task is asked, and looks,
    /// where it knows how to.
    fn cut_idle(&self, chosen: impl Fn(&Presence) -> bool) {
        self.cut(|presence| presence.idle.get() && chosen(presence) && !presence.leave());
    }

    fn cut(&self, chosen: impl Fn(&Presence) -> bool) -> u64 {
        let handles: Vec<_> = self
            .open
            .borrow()
            .values()
            .filter(|(presence, _)| chosen(presence))
            .map(|(_, handle)| handle.clone())
            .collect();
        for handle in &handles {
            handle.abort();
        }
        handles.len() as u64
    }

    /// Cuts these, and waits until what they leave behind is in order, as it must be before the process may end: the reset of a
    /// connection that was cut, its line in the access log.
    async fn cut_and_wait(&self, chosen: impl Fn(&Presence) -> bool) -> u64 {
        let cut = self.cut(&chosen);
        while self.has_any(&chosen) {
            tokio::task::yield_now().await;
        }
        cut
    }

    fn has_any(&self, chosen: impl Fn(&Presence) -> bool) -> bool {
        self.open.borrow().values().any(|(presence, _)| chosen(presence))
    }

    fn sweep(&self) {
        let snapshot = self.snapshot();
        let known: HashSet<u64> = snapshot
            .pools
            .iter()
            .flat_map(|pool| pool.members.iter().map(|member| member.endpoint.number))
            .collect();
        let now = clock::now();
        self.idle.sweep(now, |endpoint| known.contains(&endpoint));
        self.absences.borrow_mut().forget_expired(now);
    }
}

async fn run(worker: Rc<Worker>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut stops: HashMap<usize, Vec<Rc<Stop>>> = HashMap::new();
    let mut desks: HashMap<usize, Vec<Rc<Desk>>> = HashMap::new();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            _ = sweep.tick() => {
                worker.sweep();
                continue;
            }
        };
        match command {
            None => return,
            Some(Command::News) => worker.news.notify_waiters(),
            Some(Command::Judge) => drop(spawn_local(client::judge(Rc::clone(&worker)))),
            Some(Command::Open { slot, socket }) => {
                worker.closed_slots.borrow_mut().remove(&slot);
                match socket {
                    Bound::Stream(socket) => {
                        let stop = Rc::new(Stop::default());
                        stops.entry(slot).or_default().push(Rc::clone(&stop));
                        spawn_local(listener::accept(Rc::clone(&worker), socket, slot, stop));
                    }
                    Bound::Datagram(socket) => {
                        desks.entry(slot).or_default().extend(worker.open_datagrams(socket, slot));
                    }
                }
            }
            Some(Command::Close { slot, within }) => {
                for stop in stops.remove(&slot).unwrap_or_default() {
                    stop.stop();
                }
                for desk in desks.remove(&slot).unwrap_or_default() {
                    desk.close(within);
                }
                worker.datagram_slots.borrow_mut().retain(|_, whose| *whose != slot);
                worker.closed_slots.borrow_mut().insert(slot);
                worker.tell_to_close(|presence| presence.slot.get() == slot);
                spawn_local(end_of_listener(Rc::clone(&worker), slot, within));
            }
            Some(Command::Drain { within, leaving, done }) => {
                for stop in stops.drain().flat_map(|(_, stops)| stops) {
                    match leaving {
                        Leaving::Closing => stop.stop(),
                        Leaving::HandedOver => stop.leave(),
                    }
                }
                // Where they stay open, sessions go on.
                if leaving == Leaving::HandedOver {
                    desks.drain().flat_map(|(_, desks)| desks).for_each(|desk| desk.leave());
                }
                spawn_local(drain(Rc::clone(&worker), within, leaving, done));
            }
            Some(Command::HandOn(to)) => drop(worker.handing.send_replace(Some(to))),
            Some(Command::TakeOver(parcel)) => hand_on::unpack(&worker, *parcel),
            Some(Command::End(done)) => {
                let worker = Rc::clone(&worker);
                spawn_local(async move {
                    let cut = worker.cut_and_wait(|_| true).await;
                    report(done, cut);
                });
            }
        }
    }
}

/// Ends the idle connections of a listener that is gone, and the rest of them `within` that time.
async fn end_of_listener(worker: Rc<Worker>, slot: usize, within: Duration) {
    let theirs = worker.open_at(slot);
    let grace = IDLE_GRACE.min(within);
    tokio::time::sleep(grace).await;
    worker.cut_idle(|presence| presence.slot.get() == slot && presence.closing.get());
    tokio::time::sleep(within.saturating_sub(grace)).await;
    worker.cut_some(&theirs);
}

/// Lets exchanges end, then cuts what is left.
async fn drain(worker: Rc<Worker>, within: Duration, leaving: Leaving, done: oneshot::Sender<u64>) {
    worker.draining.set(true);
    worker.tell_to_close(|_| true);
    let is_ours = |presence: &Presence| match leaving {
        Leaving::Closing => true,
        // These can go on elsewhere.
        Leaving::HandedOver => !presence.background.get(),
    };
    let begun = Instant::now();
    let grace = IDLE_GRACE.min(within);
    loop {
        if begun.elapsed() >= grace {
            worker.cut_idle(|_| true);
        }
        // Visitors' requests run through these: not before the last of them, of all workers, has ended.
        if leaving == Leaving::Closing
            && begun.elapsed() >= grace
            && worker.connections.sum(|count| count) == 0
        {
            worker.cut(|presence| presence.background.get());
        }
        if !worker.has_any(is_ours) && begun.elapsed() >= Duration::from_millis(20).min(within) {
            break;
        }
        if begun.elapsed() >= within {
            report(done, worker.cut_and_wait(is_ours).await);
            return;
        }
        tokio::time::sleep(DRAIN_POLL).await;
    }
    report(done, 0);
}

/// Whoever asked may have stopped waiting.
fn report(done: oneshot::Sender<u64>, cut: u64) {
    if done.send(cut).is_err() {
        tracing::debug!("nobody waits for the drain");
    }
}
