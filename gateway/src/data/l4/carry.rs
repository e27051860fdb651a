//! A connection is given to a member of a pool, and carried to its end.
//!
//! As long as nothing of the visitor's has been sent, or nothing but a ClientHello, another member may take it: a refused
//! connect costs nothing, an endpoint that ends the connection without a byte costs one of `retry.attempts`, but never the
//! budget: nobody did any work. frps accepts before
//! it knows whether the tunnel's application is there, so the latter is how a dead one shows.

use std::{
    cell::Cell,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use frp_gateway_config::model::Carries;
use lb_algos::Tick;
use tokio::{io::ReadBuf, net::TcpStream};

use super::{
    client_hello::{self, Alert},
    proxy_header,
    pump::{Broken, Pump},
    tally::Tally,
};
use crate::{
    clock,
    data::{
        absent::Scope,
        affinity::key,
        buffer::Buffer,
        connect::{self, NoLink},
        connection::Connection,
        exchange::{Body, Stop},
        hold::{Away, Hold, Line, Waited},
        io::{until, while_moving, write_both},
        line::{self, Chosen},
        outcome,
        pick::{self, Knowledge},
        reason::Why,
        stream::{ReadSide, reset_on_close},
        upstream::IdleConnections,
        worker::Worker,
    },
    error::Refusal,
    snapshot::{Gate, InFlight, Member, OpenConnection, Outcome, Pool, Snapshot},
    telemetry::stats::{End, Failure},
};

/// Where a connection is to go.
#[derive(Debug)]
pub struct Errand {
    /// The pool.
    pub pool: Arc<Pool>,
    /// frps known to have the name that is asked for.
    pub holders: Vec<u32>,
    /// Bound on the connections of its route.
    pub gate: Option<Gate>,
}

/// A visitor's socket that is reset when it is dropped, unless the connection ended well: what was sent must not look whole.
#[derive(Debug)]
pub struct Resetting {
    /// The socket.
    pub stream: TcpStream,
    well: bool,
}

impl Resetting {
    /// A socket that is in use.
    #[must_use]
    pub const fn new(stream: TcpStream) -> Self {
        Self { stream, well: false }
    }

    /// The connection ended as its two sides wanted.
    pub const fn ends_well(&mut self) {
        self.well = true;
    }
}

impl Drop for Resetting {
    fn drop(&mut self) {
        if !self.well {
            reset_on_close(&self.stream);
        }
    }
}

/// An endpoint's socket, the same.
struct Reached {
    socket: TcpStream,
    /// Falls with it.
    #[expect(dead_code, reason = "held for its end")]
    open: OpenConnection,
    well: bool,
}

impl Drop for Reached {
    fn drop(&mut self) {
        if !self.well {
            reset_on_close(&self.socket);
        }
    }
}

/// How one member took it.
enum Try {
    /// It was carried; how it ended is in the tally.
    Over,
    /// No byte came, and nothing was sent that may not be sent again.
    Silent(Failure),
    /// Its frps has no such tunnel.
    Absent,
}

/// Gives the connection to a member of the pool that `find` says, and stays with it; waits (`hold`) while there is none that
/// could take it. `name`: the server that its TLS asks for, or nothing. `opening`: bytes of the visitor that were read already.
pub async fn serve(
    connection: &Connection,
    name: &str,
    visitor: &mut Resetting,
    mut opening: Buffer,
    tally: &mut Tally<'_>,
    find: impl Fn(&Snapshot, &mut Tally<'_>) -> Result<Errand, Away>,
) {
    let worker = &*connection.worker;
    let whose = "limits.in_flight of the listener";
    let Ok(_in_listener) = line::admit(tally.listener.gate.as_ref(), worker.id, whose) else {
        tally.refuse(Refusal::Overloaded, whose);
        worker.buffers.give_back(opening);
        return;
    };
    let mut hold = Hold::default();
    let half_closed = Cell::new(false);
    let stop = loop {
        let snapshot = worker.snapshot();
        let errand = find(&snapshot, tally);
        let pool = errand.as_ref().ok().map(|errand| Arc::clone(&errand.pool));
        let scope = pool.as_ref().map(|pool| worker.absences.borrow().scope(pool.number(), name, b"/"));
        let stop = match (errand, scope) {
            (Ok(errand), Some(scope)) => {
                tally.pool = Some(errand.pool.name.to_string());
                let whose = "limits.in_flight of the route";
                let _in_route = match line::admit(errand.gate.as_ref(), worker.id, whose) {
                    Ok(inside) => inside,
                    Err(stop) => break Some(stop),
                };
                let key = key::by_address(&errand.pool, || connection.peer);
                let search = Search { worker, errand: &errand, scope, key };
                match run(connection, &search, visitor, &mut opening, tally).await {
                    Ok(()) => break None,
                    Err(stop) => stop,
                }
            }
            (Err(away), _) => Stop::Away(away),
            (Ok(_), None) => break None,
        };
        let Stop::Away(away) = stop else { break Some(stop) };
        let line = Line {
            rules: pool.as_ref().map_or(snapshot.tunnels.hold, |pool| pool.hold),
            pool: pool.as_deref(),
            stats: pool.as_ref().map_or(&snapshot.tunnel_stats.pool, |pool| &pool.stats),
            deadline: None,
            request_begun: tally.begun,
            half_closed: &half_closed,
            scope,
            may_knock: true,
        };
        // A name that nobody has had lately isn't waited for.
        let line = if away.refusal == Refusal::NoRoute { Line { rules: None, ..line } } else { line };
        let body = Body { at_hand: 0, upload: None };
        let mut from_visitor = ReadSide::Plain(visitor.stream.split().0);
        match hold.wait(worker, away, line, (&body, &mut from_visitor, &mut opening)).await {
            Waited::LookAgain => {}
            Waited::Over(stop) => break Some(stop),
        }
    };
    match stop {
        None => {}
        Some(Stop::VisitorGone) => tally.end = Some(End::VisitorReset),
        Some(Stop::Refused(refusal, detail) | Stop::Away(Away { refusal, detail, .. })) => {
            tally.refuse(refusal, detail);
        }
    }
    worker.buffers.give_back(opening);
}

/// Tries the members of one pool.
async fn run(
    connection: &Connection,
    search: &Search<'_>,
    visitor: &mut Resetting,
    opening: &mut Buffer,
    tally: &mut Tally<'_>,
) -> Result<(), Stop> {
    let (worker, pool) = (search.worker, &*search.errand.pool);
    let stats = pool.stats.of(worker.id);
    worker.with_policy(pool, |state| state.count_request(pool, clock::now()));
    let (mut tried, mut drawn, mut absent) = (Vec::new(), 0, 0);
    let mut crowded = false;
    loop {
        let chosen = match search.choose(&tried) {
            Chosen::Full => search.wait(&tried, |cx| poll_gone(visitor, cx)).await,
            Chosen::Member(index, why, slot) => Ok((index, why, slot)),
            Chosen::Nobody | Chosen::SessionAway => Err(search.nobody_left(&tried, absent)),
        };
        let (index, why, slot) = chosen.inspect_err(|_| stats.exhausted.inc())?;
        let member = &pool.members[index];
        if !std::mem::take(&mut crowded) {
            if tally.attempts > 0 {
                stats.retries.inc();
            }
            tally.attempts += 1;
            line::count_pick(worker, pool, why);
        }
        tally.why = why;
        tally.endpoint = Some(member.endpoint.label().to_owned());
        let begun = clock::now();
        let (socket, open) = match connect::open_socket(worker, pool, member, None).await {
            Ok(opened) => opened,
            Err(NoLink::Crowded) => {
                crowded = true;
                continue;
            }
            Err(NoLink::Starved) => {
                return Err(Stop::Refused(Refusal::Overloaded, "out of descriptors or ports"));
            }
            Err(NoLink::Failed(failure)) => {
                search.failed(member, failure, begun);
                tried.push(index);
                continue;
            }
        };
        tally.connected.get_or_insert(tally.begun.elapsed());
        let attempt = Attempt { connection, search, member, slot, begun };
        match attempt.carry(Reached { socket, open, well: false }, visitor, opening, tally).await {
            Try::Over => return Ok(()),
            Try::Silent(failure) => {
                search.failed(member, failure, begun);
                drawn += 1;
                if drawn > pool.retry.attempts {
                    stats.exhausted.inc();
                    return Err(Stop::Refused(Refusal::UpstreamBroken, failure.label()));
                }
            }
            Try::Absent => {
                absent += 1;
                member.endpoint.stats.of(worker.id).absent.inc();
                search.leave_out(member, pool.absent_timeout);
            }
        }
        tried.push(index);
    }
}

/// The search for a member.
pub(super) struct Search<'a> {
    pub(super) worker: &'a Worker,
    pub(super) errand: &'a Errand,
    pub(super) scope: Scope,
    /// Hash of what it is to stay with ([`key::by_address`]).
    pub(super) key: Option<u64>,
}

impl<'a> Search<'a> {
    /// A slot at a member that is not among `tried`.
    pub(super) fn choose(&self, tried: &[usize]) -> Chosen<'a> {
        let pool = &self.errand.pool;
        if pool.limited && !pool.queue.is_empty() {
            return Chosen::Full;
        }
        self.look(tried, pool.limits.in_flight)
    }

    fn look(&self, tried: &[usize], in_flight: Option<u32>) -> Chosen<'a> {
        let (worker, pool) = (self.worker, &*self.errand.pool);
        // It always connects anew: a request's kept connection, which is none of ours, must not pass for room.
        let none_idle = IdleConnections::default();
        line::take_slot(worker.id, pool, in_flight, || {
            let absences = worker.absences.borrow();
            let known = Knowledge {
                tried,
                holders: &self.errand.holders,
                absences: &absences,
                idle: Some(&none_idle),
                scope: self.scope,
                cautious: false,
                key: self.key,
                in_flight,
                now: clock::now(),
            };
            let picked = worker
                .with_policy(pool, |state| pick::pick(state, pool, known, &mut worker.rng.borrow_mut()));
            line::picked(picked)
        })
    }

    /// Waits in the pool's line; `gone` says when the visitor has left.
    pub(super) async fn wait(
        &self,
        tried: &[usize],
        gone: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Result<(usize, Why, InFlight<'a>), Stop> {
        line::wait(self.worker, &self.errand.pool, None, None, |limit| self.look(tried, limit), gone).await
    }

    /// Why nobody can have it any more.
    pub(super) fn nobody_left(&self, tried: &[usize], absent: usize) -> Stop {
        let refusal = match (absent, tried.len()) {
            (0, 0) => Refusal::NoEndpoint,
            (0, _) => Refusal::ConnectFailed,
            // A dead frps may be the one that has it.
            (absent, tried) if absent < tried || !self.errand.holders.is_empty() => Refusal::TunnelAway,
            _ => return Stop::Refused(Refusal::NoTunnel, ""),
        };
        Stop::Away(Away::new(refusal, ""))
    }

    /// Counts a failure, and sends the next connection elsewhere.
    pub(super) fn failed(&self, member: &Member, failure: Failure, begun: Tick) {
        member.endpoint.stats.of(self.worker.id).failures[failure as usize].inc();
        let now = clock::now();
        outcome::record(self.worker, &self.errand.pool, member, Outcome::GatewayError, now.since(begun), now);
        if !matches!(failure, Failure::ConnectRefused | Failure::ConnectTimeout) {
            self.leave_out(member, self.errand.pool.fail_timeout);
        }
    }

    fn leave_out(&self, member: &Member, time: Duration) {
        let now = clock::now();
        let until = now.saturating_add(time);
        self.worker.absences.borrow_mut().leave_out(self.scope, member.endpoint.number, now, until);
    }
}

/// Whether the visitor has left: who has finished sending may still wait for bytes, who resets has gone.
fn poll_gone(visitor: &Resetting, cx: &mut Context<'_>) -> Poll<()> {
    match visitor.stream.poll_peek(cx, &mut ReadBuf::new(&mut [0])) {
        Poll::Ready(Err(_)) => Poll::Ready(()),
        Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
    }
}

/// One member has it.
struct Attempt<'a> {
    connection: &'a Connection,
    search: &'a Search<'a>,
    member: &'a Member,
    /// Falls with it.
    #[expect(dead_code, reason = "held for its end")]
    slot: InFlight<'a>,
    begun: Tick,
}

impl Attempt<'_> {
    async fn carry(
        self,
        mut reached: Reached,
        visitor: &mut Resetting,
        opening: &mut Buffer,
        tally: &mut Tally<'_>,
    ) -> Try {
        let (worker, pool) = (self.search.worker, &*self.search.errand.pool);
        let idle = tally.listener.timeouts.stream_idle;
        let mut header = Vec::new();
        // A vhost port wants a ClientHello first.
        let takes_header = pool.carries != Carries::Tls || self.member.endpoint.id.tunnel.is_some();
        let version = self.member.proxy_protocol.or(pool.proxy_protocol).filter(|_| takes_header);
        if let Some(version) = version {
            let (from, to) = self.connection.addresses(&visitor.stream);
            proxy_header::encode(version, from, to, &mut header);
        }
        // 1. What is at hand.
        let said = opening.filled();
        // A ClientHello alone makes nothing happen; other bytes may.
        let repeatable = match pool.carries {
            Carries::Tls => client_hello::is_handshake_only(said),
            Carries::Http | Carries::Tcp | Carries::Udp => said.is_empty(),
        };
        let mut sent = 0;
        let deadline = Some(Instant::now() + idle);
        if !header.is_empty() || !said.is_empty() {
            let written = write_both(&mut reached.socket, &header, said, &mut sent);
            if !matches!(until(deadline, written).await, Ok(Ok(()))) {
                return self.silent(Failure::Reset, repeatable, tally);
            }
        }
        // 2. Whoever speaks first. Until the visitor does, another member could still have it.
        let spoken = until(deadline, first(&reached.socket, &visitor.stream)).await;
        let mut down = Pump::default();
        if spoken == Ok(First::Endpoint) {
            let mut answer = worker.buffers.small();
            match poll_fn(|cx| answer.poll_fill(cx, &mut reached.socket)).await {
                Ok(1..) if pool.carries == Carries::Tls && self.is_no_such_name(answer.filled()) => {
                    worker.buffers.give_back(answer);
                    return Try::Absent;
                }
                Ok(1..) => self.answered(self.begun),
                Ok(0) | Err(_) => {
                    worker.buffers.give_back(answer);
                    return self.silent(Failure::ClosedEarly, repeatable, tally);
                }
            }
            down = Pump::with(answer);
        }
        // 3. From here on it is this member's.
        let ahead = opening.len() as u64;
        worker.buffers.give_back(std::mem::take(opening));
        let mut relay = Relay { attempt: &self, up: Pump::default(), down, known: false, asked: None };
        relay.known = relay.down.read() > 0;
        let sides = (&mut visitor.stream, &mut reached.socket);
        let end = relay.run(sides, idle, |up, down| tally.bytes = (ahead + up, down)).await;
        relay.up.release(&worker.buffers);
        relay.down.release(&worker.buffers);
        tally.end = Some(end);
        if end == End::Closed {
            visitor.ends_well();
            reached.well = true;
        }
        Try::Over
    }

    /// No byte came.
    fn silent(&self, failure: Failure, repeatable: bool, tally: &mut Tally<'_>) -> Try {
        if repeatable {
            return Try::Silent(failure);
        }
        self.search.failed(self.member, failure, self.begun);
        tally.end = Some(End::EndpointReset);
        Try::Over
    }

    /// Whether this is what frps says to a name that it has no tunnel for.
    fn is_no_such_name(&self, answer: &[u8]) -> bool {
        self.member.endpoint.id.tunnel.is_none() && Alert::UnrecognizedName.is_all_of(answer)
    }

    /// The first byte came; `asked`: since when it was due.
    fn answered(&self, asked: Tick) {
        let (worker, now) = (self.search.worker, clock::now());
        let (pool, member) = (&*self.search.errand.pool, self.member);
        outcome::record(worker, pool, member, Outcome::Success, now.since(asked), now);
        if pool.members.len() > 1 {
            worker.absences.borrow_mut().confirm(self.search.scope, member.endpoint.number);
        }
    }
}

/// Who has something to say first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Endpoint,
    Visitor,
}

async fn first(endpoint: &TcpStream, visitor: &TcpStream) -> First {
    // A fresh socket counts as ready until it has been read, so the kernel is asked. An error is found by the read that follows.
    let has_news = |cx: &mut Context<'_>, stream: &TcpStream| {
        stream.poll_peek(cx, &mut ReadBuf::new(&mut [0])).is_ready()
    };
    poll_fn(|cx| match (has_news(cx, endpoint), has_news(cx, visitor)) {
        (true, _) => Poll::Ready(First::Endpoint),
        (false, true) => Poll::Ready(First::Visitor),
        (false, false) => Poll::Pending,
    })
    .await
}

/// Both directions of a connection that a member has.
struct Relay<'a> {
    attempt: &'a Attempt<'a>,
    up: Pump,
    down: Pump,
    /// What the first byte, or its absence, says about the member has been recorded.
    known: bool,
    /// When the visitor's first byte was sent on.
    asked: Option<Tick>,
}

impl Relay<'_> {
    /// Moves bytes to the end; `moved_so_far` is told how many each time.
    async fn run(
        &mut self,
        (visitor, endpoint): (&mut TcpStream, &mut TcpStream),
        idle: Duration,
        mut moved_so_far: impl FnMut(u64, u64),
    ) -> End {
        let worker = self.attempt.search.worker;
        let (mut from_visitor, mut to_visitor) = visitor.split();
        let (mut from_endpoint, mut to_endpoint) = endpoint.split();
        let end = while_moving(idle, |cx, moved| {
            let up = self.up.poll(cx, &worker.buffers, &mut from_visitor, &mut to_endpoint, moved);
            if self.asked.is_none() && self.up.read() > 0 {
                self.asked = Some(clock::now());
            }
            let down = self.down.poll(cx, &worker.buffers, &mut from_endpoint, &mut to_visitor, moved);
            self.learn(down.is_ready());
            moved_so_far(self.up.written(), self.down.written());
            match (up, down) {
                (Poll::Ready(Err(Broken(_))), _) => Poll::Ready(End::VisitorReset),
                (_, Poll::Ready(Err(Broken(_)))) => Poll::Ready(End::EndpointReset),
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(End::Closed),
                // Nobody takes the answer: whatever the visitor still sends is for nobody.
                (_, Poll::Ready(Ok(()))) if self.down.is_deaf() => Poll::Ready(End::VisitorReset),
                _ => Poll::Pending,
            }
        });
        end.await.unwrap_or(End::Idle)
    }

    /// The member's first byte tells how fast it is; an end without any, before the visitor's, that something is wrong.
    fn learn(&mut self, over: bool) {
        if self.known {
            return;
        }
        if self.down.read() > 0 {
            self.known = true;
            self.attempt
                .answered(self.asked.map_or(self.attempt.begun, |asked| asked.max(self.attempt.begun)));
        } else if over && !self.up.has_ended() {
            self.known = true;
            self.attempt.search.failed(self.attempt.member, Failure::ClosedEarly, self.attempt.begun);
        } else if over {
            self.known = true;
        }
    }
}
