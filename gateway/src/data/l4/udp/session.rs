//! What one visitor sends from one address, and what comes back.
//!
//! The member is asked from a socket of the session's own, connected to it: so answers need no address, and the kernel tells
//! by an error that nobody listens there (ICMP). The member is then given up, and the next one gets what was not answered:
//! the last datagram sent to the dead one, and whatever came since. Otherwise a session stays with its member for as long as
//! that is one.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    pin::pin,
    rc::Rc,
    sync::{Arc, Weak},
    task::Poll,
    time::{Duration, Instant},
};

use lb_algos::Tick;
use socket2::{SockAddr, SockRef};
use tokio::{
    io::{Interest, Ready},
    net::UdpSocket,
    sync::Notify,
    time::{sleep, sleep_until},
};

use super::{BATCH, Place};
use crate::{
    clock,
    data::{
        affinity::key,
        connect::{self, NoLink},
        connection::Connection,
        exchange::Stop,
        hold::Away,
        l4::{
            carry::{Errand, Search},
            tally::Tally,
        },
        line::{self, Chosen},
        outcome,
        worker::Worker,
    },
    error::Refusal,
    snapshot::{Endpoint, InFlight, Listener, Member, OpenConnection, Outcome, Snapshot},
    telemetry::stats::{End, Failure},
};

/// Datagrams that wait while a session has no member, and their bytes: what is more is dropped.
const WAITING: usize = 16;
const WAITING_BYTES: usize = 64 * 1024;
/// The last datagram is remembered, to be sent again, if it is no longer than this. FRP cuts longer ones anyway.
const REMEMBERED: usize = 2048;
/// After all members have failed, the source is not listened to for this long: its next datagrams would find the same.
const PAUSE: Duration = Duration::from_millis(200);

/// What the reader of the listener's socket and the session's task share.
#[derive(Debug)]
pub struct Session {
    listener: Arc<Listener>,
    state: RefCell<State>,
    /// When a datagram came or went.
    heard: Cell<Instant>,
    /// Its member is to be given up.
    parting: Notify,
    /// Bytes to the member, and to the visitor.
    bytes: (Cell<u64>, Cell<u64>),
}

#[derive(Debug, Default)]
struct State {
    upstream: Option<Upstream>,
    /// What has no member yet.
    waiting: VecDeque<Box<[u8]>>,
    waiting_bytes: usize,
    /// Nobody serves it.
    over: bool,
}

/// The member that has the session.
#[derive(Debug)]
struct Upstream {
    socket: Rc<UdpSocket>,
    endpoint: Arc<Endpoint>,
    /// The snapshot in which it was a member when last looked at.
    known: Weak<Snapshot>,
    /// Sent last and not answered.
    last: Vec<u8>,
    /// Why it is to be given up.
    parting: Option<Parting>,
}

/// Why a session leaves a member.
#[derive(Debug)]
enum Parting {
    /// No datagram went either way for `timeouts.stream_idle`.
    Idle,
    /// It is no member any more.
    Gone,
    /// Nobody listens there.
    Failed(io::Error),
}

impl Session {
    /// A session that has sent nothing.
    #[must_use]
    pub fn new(listener: Arc<Listener>) -> Self {
        Self {
            listener,
            state: RefCell::default(),
            heard: Cell::new(Instant::now()),
            parting: Notify::new(),
            bytes: Default::default(),
        }
    }

    /// A datagram of the visitor's: sent on, or kept until there is a member, or dropped.
    pub fn take(&self, worker: &Worker, datagram: &[u8]) {
        self.heard.set(Instant::now());
        let state = &mut *self.state.borrow_mut();
        if let Some(upstream) = &mut state.upstream {
            if upstream.parting.is_none() && !upstream.is_member(worker, &self.listener) {
                upstream.parting = Some(Parting::Gone);
                self.parting.notify_one();
            }
            if upstream.parting.is_none() && self.send(worker, upstream, datagram) {
                return;
            }
        }
        if state.over
            || state.waiting.len() >= WAITING
            || state.waiting_bytes + datagram.len() > WAITING_BYTES
        {
            self.count_dropped(worker, 1);
        } else {
            state.waiting_bytes += datagram.len();
            state.waiting.push_back(datagram.into());
        }
    }

    /// Sends a datagram to the member; `false` = there is nobody, which is noted.
    fn send(&self, worker: &Worker, upstream: &mut Upstream, datagram: &[u8]) -> bool {
        // Past the reactor: a fresh socket isn't known to be writable yet.
        match SockRef::from(&*upstream.socket).send(datagram) {
            Ok(_) => {
                self.bytes.0.set(self.bytes.0.get() + datagram.len() as u64);
                upstream.last.clear();
                if datagram.len() <= REMEMBERED {
                    upstream.last.extend_from_slice(datagram);
                }
            }
            Err(error) if says_nobody(&error) => {
                upstream.parting = Some(Parting::Failed(error));
                self.parting.notify_one();
                return false;
            }
            // A full socket, or a datagram too long for the way.
            Err(_) => self.count_dropped(worker, 1),
        }
        true
    }

    /// The session is this member's; what has waited goes there.
    fn attach(&self, worker: &Worker, mut upstream: Upstream) {
        let state = &mut *self.state.borrow_mut();
        while upstream.parting.is_none()
            && let Some(datagram) = state.waiting.pop_front()
        {
            if self.send(worker, &mut upstream, &datagram) {
                state.waiting_bytes -= datagram.len();
            } else {
                state.waiting.push_front(datagram);
            }
        }
        state.upstream = Some(upstream);
    }

    /// The session is nobody's.
    fn detach(&self, why: &Parting) {
        let state = &mut *self.state.borrow_mut();
        let Some(upstream) = state.upstream.take() else { return };
        let last = upstream.last;
        // Who is gone may have got it; where nobody listens, nobody has.
        if matches!(why, Parting::Failed(_)) && !last.is_empty() {
            state.waiting_bytes += last.len();
            state.waiting.push_front(last.into());
        }
    }

    /// Nobody serves it: what waits, and what comes, is dropped.
    fn give_up(&self, worker: &Worker) {
        let state = &mut *self.state.borrow_mut();
        state.over = true;
        self.count_dropped(worker, state.waiting.len() as u64);
        state.waiting.clear();
    }

    fn count_dropped(&self, worker: &Worker, count: u64) {
        self.listener.stats.of(worker.id).datagrams_dropped.add(count);
    }
}

impl Upstream {
    /// Whether it still is what the listener leads to, and not known to be frozen. Looks for it only when something was
    /// published.
    fn is_member(&mut self, worker: &Worker, listener: &Listener) -> bool {
        if self.endpoint.is_gone() || self.endpoint.is_frozen() {
            return false;
        }
        let snapshot = worker.snapshot();
        if self.known.as_ptr() == Arc::as_ptr(&snapshot) {
            return true;
        }
        self.known = Arc::downgrade(&snapshot);
        // A listener that is gone leaves its sessions as they are.
        let Some(present) = snapshot.listeners.get(listener.slot).and_then(Option::as_ref) else {
            return true;
        };
        let number = self.endpoint.number;
        present
            .pool
            .as_ref()
            .is_some_and(|pool| pool.members.iter().any(|member| member.endpoint.number == number))
    }
}

/// Whether an error of a connected socket tells that no datagram gets there.
fn says_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}

/// Serves a session to its end.
pub async fn serve(connection: Connection, place: Place) {
    let listener = Arc::clone(&place.session.listener);
    let tally = Tally::new(&connection, &listener, Instant::now());
    let mut course = Course { place: &place, tally };
    match course.run(&connection).await {
        Ok(()) => course.tally.end = Some(End::Idle),
        Err(Stop::VisitorGone) => course.tally.end = Some(End::VisitorReset),
        Err(Stop::Refused(refusal, detail) | Stop::Away(Away { refusal, detail, .. })) => {
            course.tally.refuse(refusal, detail);
            place.session.give_up(&connection.worker);
            sleep(PAUSE).await;
        }
    }
}

/// A session as its task drives it.
struct Course<'a> {
    place: &'a Place,
    tally: Tally<'a>,
}

impl Drop for Course<'_> {
    fn drop(&mut self) {
        let (sent, received) = &self.place.session.bytes;
        self.tally.bytes = (sent.get(), received.get());
    }
}

/// A member that was reached, and what is held for it.
struct Reached<'a> {
    member: &'a Member,
    socket: Rc<UdpSocket>,
    begun: Tick,
    #[expect(dead_code, reason = "held for their end")]
    held: (InFlight<'a>, OpenConnection),
}

impl Course<'_> {
    /// Gives the session to one member after the other, until it is idle or nobody is left.
    async fn run(&mut self, connection: &Connection) -> Result<(), Stop> {
        let (worker, session) = (&*connection.worker, &self.place.session);
        let gate = session.listener.gate.as_ref();
        let _in_listener = line::admit(gate, worker.id, "limits.in_flight of the listener")?;
        // Those that failed since the last answer.
        let mut failed: Vec<u64> = Vec::new();
        loop {
            let pool = {
                let snapshot = worker.snapshot();
                let present = snapshot.listeners.get(session.listener.slot).and_then(Option::as_ref);
                present.unwrap_or(&session.listener).pool.clone()
            };
            let pool = pool.ok_or(Stop::Refused(Refusal::NoRoute, "the listener has no pool"))?;
            if self.tally.attempts == 0 {
                worker.with_policy(&pool, |state| state.count_request(&pool, clock::now()));
            }
            self.tally.pool = Some(pool.name.to_string());
            let scope = worker.absences.borrow().scope(pool.number(), "", b"/");
            let key = key::by_address(&pool, || connection.peer);
            let errand = Errand { pool, holders: Vec::new(), gate: None };
            let search = Search { worker, errand: &errand, scope, key };
            let members = errand.pool.members.iter().enumerate();
            let tried = members.filter(|(_, member)| failed.contains(&member.endpoint.number));
            let reached = self.reach(&search, tried.map(|(index, _)| index).collect()).await?;
            let endpoint = Arc::clone(&reached.member.endpoint);
            let known = Arc::downgrade(&worker.snapshot());
            let socket = Rc::clone(&reached.socket);
            let number = endpoint.number;
            session.attach(worker, Upstream { socket, endpoint, known, last: Vec::new(), parting: None });
            let (parting, answered) = self.stay(&search, &reached).await;
            session.detach(&parting);
            if answered {
                failed.clear();
            }
            match parting {
                Parting::Idle => return Ok(()),
                Parting::Gone => {}
                Parting::Failed(error) => {
                    let (pool, endpoint) = (&*errand.pool, &reached.member.endpoint);
                    connect::failed(worker, pool, endpoint, Failure::ConnectRefused, &error);
                    search.failed(reached.member, Failure::ConnectRefused, reached.begun);
                    failed.push(number);
                }
            }
        }
    }

    /// Picks a member and opens a socket to it.
    async fn reach<'s>(&mut self, search: &Search<'s>, mut tried: Vec<usize>) -> Result<Reached<'s>, Stop> {
        let (worker, pool) = (search.worker, &*search.errand.pool);
        let stats = pool.stats.of(worker.id);
        loop {
            let chosen = match search.choose(&tried) {
                Chosen::Full => search.wait(&tried, |_| Poll::Pending).await,
                Chosen::Member(index, why, slot) => Ok((index, why, slot)),
                Chosen::Nobody | Chosen::SessionAway => Err(search.nobody_left(&tried, 0)),
            };
            let (index, why, slot) = chosen.inspect_err(|_| stats.exhausted.inc())?;
            let member = &pool.members[index];
            let begun = clock::now();
            match connect::open_datagrams(worker, pool, &member.endpoint).await {
                Ok((socket, open)) => {
                    if self.tally.attempts > 0 {
                        stats.retries.inc();
                    }
                    self.tally.attempts += 1;
                    self.tally.why = why;
                    self.tally.endpoint = Some(member.endpoint.label().to_owned());
                    line::count_pick(worker, pool, why);
                    return Ok(Reached { member, socket: Rc::new(socket), begun, held: (slot, open) });
                }
                Err(NoLink::Crowded) => {}
                Err(NoLink::Starved) => {
                    return Err(Stop::Refused(Refusal::Overloaded, "out of descriptors or ports"));
                }
                Err(NoLink::Failed(failure)) => {
                    search.failed(member, failure, begun);
                    tried.push(index);
                }
            }
        }
    }

    /// Passes on what the member answers, until it is to be given up; says whether it answered.
    async fn stay(&mut self, search: &Search<'_>, reached: &Reached<'_>) -> (Parting, bool) {
        let session = &self.place.session;
        let idle = session.listener.timeouts.stream_idle;
        let mut answered = false;
        let mut alarm = pin!(sleep_until((session.heard.get() + idle).into()));
        loop {
            let found = tokio::select! {
                biased;
                () = session.parting.notified() => {
                    session.state.borrow_mut().upstream.as_mut().and_then(|upstream| upstream.parting.take())
                }
                ready = reached.socket.ready(Interest::READABLE | Interest::ERROR) => match ready {
                    Ok(ready) => {
                        let (parting, some) = self.pass_on(ready, &reached.socket);
                        if some && !std::mem::replace(&mut answered, true) {
                            self.learn(search, reached);
                        }
                        parting
                    }
                    Err(error) => Some(Parting::Failed(error)),
                },
                () = &mut alarm => {
                    let end = session.heard.get() + idle;
                    alarm.as_mut().reset(end.into());
                    (end <= Instant::now()).then_some(Parting::Idle)
                }
            };
            if let Some(parting) = found {
                return (parting, answered);
            }
        }
    }

    /// Answers that have come go to the visitor, from the address it sent to.
    fn pass_on(&self, ready: Ready, socket: &UdpSocket) -> (Option<Parting>, bool) {
        let (desk, session) = (&self.place.desk, &self.place.session);
        let answer = &mut **desk.answer.borrow_mut();
        let visitor = SockAddr::from(self.place.source);
        let mut some = false;
        for _ in 0..BATCH {
            match socket.try_recv(answer) {
                Ok(length) => {
                    some = true;
                    match SockRef::from(&desk.socket).send_to(&answer[..length], &visitor) {
                        Ok(_) => session.bytes.1.set(session.bytes.1.get() + length as u64),
                        Err(_) => session.count_dropped(&desk.worker, 1),
                    }
                }
                Err(error) if says_nobody(&error) => return (Some(Parting::Failed(error)), some),
                Err(_) => break,
            }
        }
        if some {
            session.heard.set(Instant::now());
            if let Some(upstream) = &mut session.state.borrow_mut().upstream {
                upstream.last.clear();
            }
        }
        if ready.is_error() {
            // Taken, so the reactor need not tell of it again.
            let error = socket.take_error();
            drop(socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into())));
            if let Ok(Some(error)) = error
                && says_nobody(&error)
            {
                return (Some(Parting::Failed(error)), some);
            }
        }
        (None, some)
    }

    /// The member is there, and this fast.
    fn learn(&mut self, search: &Search<'_>, reached: &Reached<'_>) {
        let (worker, pool, now) = (search.worker, &*search.errand.pool, clock::now());
        self.tally.connected.get_or_insert(self.tally.begun.elapsed());
        connect::succeeded(pool, &reached.member.endpoint);
        outcome::record(worker, pool, reached.member, Outcome::Success, now.since(reached.begun), now);
    }
}
