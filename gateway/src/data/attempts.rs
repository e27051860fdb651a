//! One request's attempts: who gets the next one, whether there is room, and when to stop. Steps 4.–7.

use std::{
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use frp_gateway_config::model::Affinity;
use lb_algos::{Tick, backoff::backoff};

use super::{
    absent::Absences,
    affinity::key,
    attempt::{self, Attempt, Ending},
    auth,
    buffer::Buffer,
    connection::Next,
    exchange::{Body, Report, Request, Scratch, Stop},
    headers,
    hold::{self, Away},
    io::earlier,
    line::{self, Chosen},
    pick::{self, Keep, Knowledge},
    reason::{Among, Because, Why},
    session,
    stream::Stream,
    watch::Watch,
};
use crate::{
    clock,
    error::Refusal,
    http1::{RequestBody, RequestHead},
    snapshot::{Endpoint, InFlight, Listener, Pool},
};

/// Attempts, one after the other, each at another member, until one answers the visitor or none is left.
///
/// # Errors
/// Why no endpoint's answer reached the visitor.
pub async fn serve(
    request: &Request<'_>,
    body: &mut Body,
    stream: &mut Stream,
    buffer: &mut Buffer,
    scratch: &mut Scratch,
    report: &mut Report,
) -> Result<Next, Stop> {
    let worker = &*request.connection.worker;
    let pool = &*request.split.pool;
    let deadline = request.route.timeout.map(|timeout| request.begun + timeout);
    let deadline = earlier(deadline, request.expires);
    scratch.tried.clear();
    scratch.holders.clear();
    // Whoever is in a pool of tunnels has the tunnel.
    if !pool.of_tunnels && !request.snapshot.tunnels.is_empty() {
        let path = scratch.request.path.of(buffer.filled());
        request.snapshot.tunnels.holders(&scratch.host, path, |frps| scratch.holders.push(frps));
    }
    if pool.guarded {
        leave_out_who_refuses(pool, scratch, buffer.filled())?;
    }
    scratch.session = session::read(pool, &scratch.request, buffer.filled());
    let visitor = (request.listener, request.connection.peer);
    let key = key_of(pool, visitor, &scratch.request, buffer.filled());
    let mut now = clock::tick_of(request.begun);
    worker.with_policy(pool, |state| state.count_request(pool, now));
    let mut drawn = 0; // attempts that count against `retry.attempts`
    let (mut absent, mut broken, mut suspect) = (0, None, None);
    let mut crowded = false;
    loop {
        // 4. A member, and a slot at it.
        let (index, why, in_flight) = match choose(request, scratch, key, now) {
            Chosen::Member(index, why, in_flight) => (index, why, in_flight),
            Chosen::Full => {
                let watch = Watch::new(request.begun, request.half_closed);
                let wait = wait_in_line(request, body, stream, buffer, scratch, key, deadline, watch);
                let admitted = Box::pin(wait).await?;
                // The wait is not the endpoint's doing.
                now = clock::now();
                admitted
            }
            Chosen::Nobody => {
                pool.stats.of(worker.id).exhausted.inc();
                return Err(out_of_members(request, scratch, absent, broken, suspect));
            }
            Chosen::SessionAway => return Err(session_away(pool)),
        };
        let member = &pool.members[index];
        if !std::mem::take(&mut crowded) {
            if report.attempts > 0 {
                pool.stats.of(worker.id).retries.inc();
            }
            report.attempts += 1;
            count_pick(request, why);
        }
        report.why = why;
        // 5.–7. Send, and answer the visitor.
        let idempotent = scratch.request.method.is_idempotent();
        let attempt = Attempt {
            request,
            member,
            index,
            deadline,
            // Somebody who is not known to have the tunnel is asked before the body leaves: a request that may have run
            // must not be repeated, and a body that flows can't be.
            ask_first: (!idempotent || body.upload.is_some())
                && scratch.request.body != RequestBody::None
                && scratch.request.body != RequestBody::Length(0)
                && !scratch.request.expect_continue
                && member.tunnel.is_none()
                && (request.held
                    || !(scratch.holders.contains(&member.frps)
                        || worker.absences.borrow().is_confirmed(request.scope, member.endpoint.number))),
            // Nobody else may answer in a strict session.
            may_reject: idempotent
                && drawn < pool.retry.attempts
                && !pool.retry.on.is_empty()
                && !(why.reason == Because::Session && scratch.session.is_strict()),
            may_hedge: idempotent
                && why.reason != Because::Session
                && drawn < pool.retry.attempts
                && pool.retry.hedge.is_some(),
            key,
            half_closed: request.half_closed,
            begun: now,
        };
        match attempt::run(&attempt, in_flight, body, stream, buffer, scratch, report).await {
            Ending::Done(next) => return Ok(next),
            Ending::Stopped(stop) => return Err(stop),
            Ending::Absent => absent += 1,
            // Somebody took the last connection: look again, at the same member too.
            Ending::Crowded => {
                crowded = true;
                now = clock::now();
                continue;
            }
            Ending::Unreached => (broken, suspect) = (Some((Refusal::ConnectFailed, "connect")), None),
            Ending::Rejected => {
                drawn += 1;
                broken = Some((Refusal::UpstreamBroken, "status"));
                Box::pin(back_off(request, drawn, deadline)).await;
            }
            Ending::Declined => {
                drawn += 1;
                broken = Some((Refusal::UpstreamBroken, "status"));
                if drawn > pool.retry.attempts || !may_retry(request) {
                    pool.stats.of(worker.id).exhausted.inc();
                    return Err(Stop::Refused(Refusal::UpstreamBroken, "refused_stream"));
                }
                Box::pin(back_off(request, drawn, deadline)).await;
                // Where there is nobody else, it may have room a moment later.
                if !pick::has_other(pool, &scratch.tried, index, clock::now()) {
                    now = clock::now();
                    continue;
                }
            }
            // A tunnel that died is nobody's to pay for.
            Ending::Failed(refusal @ Refusal::UpstreamBroken, detail)
                if hold::is_dead(&member.endpoint).await =>
            {
                (broken, suspect) = (Some((refusal, detail)), None);
            }
            Ending::Failed(refusal, detail) => {
                drawn += 1;
                let may_be_dead = refusal == Refusal::UpstreamBroken && pool.hold.is_some();
                broken = Some((refusal, detail));
                suspect = may_be_dead.then(|| Arc::clone(&member.endpoint));
                let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                if drawn > pool.retry.attempts || over || !may_retry(request) {
                    pool.stats.of(worker.id).exhausted.inc();
                    return Err(match suspect {
                        Some(_) if !over => Stop::Away(Away { refusal, detail, suspect }),
                        Some(_) | None => Stop::Refused(refusal, detail),
                    });
                }
                Box::pin(back_off(request, drawn, deadline)).await;
            }
        }
        if !scratch.tried.contains(&index) {
            scratch.tried.push(index);
        }
        now = clock::now();
    }
}

/// Leaves out the members that want other credentials than the visitor's.
fn leave_out_who_refuses(pool: &Pool, scratch: &mut Scratch, wire: &[u8]) -> Result<(), Stop> {
    let Scratch { request: head, tried, .. } = scratch;
    let mut admitted = false;
    for (index, member) in pool.members.iter().enumerate() {
        match member.auth() {
            Some(wanted) if !auth::admits(wanted, head, wire) => tried.push(index),
            Some(_) | None => admitted = true,
        }
    }
    if admitted { Ok(()) } else { Err(Stop::Refused(Refusal::Unauthorized, "")) }
}

/// Picks a member and takes a slot at it. Who comes while others wait gets in line.
fn choose<'a>(request: &Request<'a>, scratch: &mut Scratch, key: Option<u64>, now: Tick) -> Chosen<'a> {
    let pool = &*request.split.pool;
    if pool.limited && !pool.queue.is_empty() {
        return Chosen::Full;
    }
    look(request, scratch, key, pool.limits.in_flight, now)
}

fn look<'a>(
    request: &Request<'a>,
    scratch: &mut Scratch,
    key: Option<u64>,
    in_flight: Option<u32>,
    now: Tick,
) -> Chosen<'a> {
    let pool: &'a Pool = &request.split.pool;
    let worker = request.connection.worker.id;
    line::take_slot(worker, pool, in_flight, || pick_member(request, scratch, key, in_flight, now))
}

fn pick_member<'a>(
    request: &Request<'a>,
    scratch: &mut Scratch,
    key: Option<u64>,
    in_flight: Option<u32>,
    now: Tick,
) -> Result<(usize, Why), Chosen<'a>> {
    let worker = &*request.connection.worker;
    let pool = &*request.split.pool;
    let absences = worker.absences.borrow();
    let Scratch { request: head, tried, holders, session, .. } = scratch;
    let known = knowledge(request, head, (tried, holders), &absences, key, now);
    let known = Knowledge { in_flight, ..known };
    // A session wins over policy, weight and zone.
    if let Some(index) = session.member(pool) {
        match pick::may_keep(pool, index, known) {
            Keep::Yes => return Ok((index, Why { reason: Because::Session, among: Among::All })),
            Keep::Full if session.is_strict() => return Err(Chosen::Full),
            // Only for now: the session stays where it is.
            Keep::Full => session.leave_as_it_is(),
            Keep::Gone if session.is_strict() => return Err(Chosen::SessionAway),
            Keep::Gone => {}
        }
    } else if session.is_lost() && session.is_strict() {
        return Err(Chosen::SessionAway);
    }
    let picked =
        worker.with_policy(pool, |state| pick::pick(state, pool, known, &mut worker.rng.borrow_mut()));
    line::picked(picked)
}

/// What is known of `request` for a pick.
pub(super) fn knowledge<'k>(
    request: &Request<'k>,
    head: &RequestHead,
    (tried, holders): (&'k [usize], &'k [u32]),
    absences: &'k Absences,
    key: Option<u64>,
    now: Tick,
) -> Knowledge<'k> {
    Knowledge {
        tried,
        holders,
        absences,
        idle: Some(&request.connection.worker.idle),
        scope: request.scope,
        cautious: !head.method.is_idempotent()
            && matches!(head.body, RequestBody::None | RequestBody::Length(0)),
        key,
        in_flight: request.split.pool.limits.in_flight,
        now,
    }
}

/// Hash of what the request is to stay with: what the pool's affinity names, else the visitor's address if the policy hashes.
pub(super) fn key_of(
    pool: &Pool,
    (listener, peer): (&Listener, IpAddr),
    head: &RequestHead,
    wire: &[u8],
) -> Option<u64> {
    let value = match &pool.affinity {
        Some(Affinity::Header(name)) => key::header(head, wire, name.as_bytes())?,
        Some(Affinity::Query(name)) => key::query(head.query.map(|query| query.of(wire))?, name.as_bytes())?,
        Some(Affinity::SourceIp { .. } | Affinity::Cookie(_)) | None => {
            return key::by_address(pool, || headers::visitor(head, wire, listener, peer));
        }
    };
    let kind = pool.keyed.as_ref().map_or(pool.policy, |(kind, _)| *kind);
    Some(kind.key_of(value))
}

/// Waits until the pool has room for us.
#[expect(clippy::too_many_arguments, reason = "it stands for an attempt, and works on the same things")]
async fn wait_in_line<'a>(
    request: &Request<'a>,
    body: &Body,
    stream: &mut Stream,
    buffer: &mut Buffer,
    scratch: &mut Scratch,
    key: Option<u64>,
    deadline: Option<Instant>,
    mut watch: Watch<'_>,
) -> Result<(usize, Why, InFlight<'a>), Stop> {
    let pool: &'a Pool = &request.split.pool;
    let bound = scratch.session.member(pool).filter(|_| scratch.session.is_strict());
    let bound = bound.map(|index| pool.members[index].endpoint.number);
    let look = |in_flight| look(request, scratch, key, in_flight, clock::now());
    let gone = |cx: &mut Context<'_>| {
        // A visitor who is still sending is watched by the upload later.
        if body.upload.is_some() {
            return Poll::Pending;
        }
        watch.poll(cx, &mut stream.split().0, buffer)
    };
    line::wait(&request.connection.worker, pool, bound, deadline, look, gone).await
}

/// Draws on the pool's retry budget.
pub(super) fn may_retry(request: &Request<'_>) -> bool {
    let (worker, pool) = (&*request.connection.worker, &*request.split.pool);
    let allowed = worker.with_policy(pool, |state| state.retries.withdraw(clock::now()));
    if !allowed {
        pool.stats.of(worker.id).budget_exhausted.inc();
    }
    allowed
}

async fn back_off(request: &Request<'_>, retry: u32, deadline: Option<Instant>) {
    let rules = request.split.pool.retry.backoff;
    let wait = {
        let mut rng = request.connection.worker.rng.borrow_mut();
        backoff(retry.saturating_sub(1), rules.base, rules.max, &mut rng)
    };
    if !wait.is_zero() {
        let end = Instant::now() + wait;
        let end = deadline.map_or(end, |deadline| deadline.min(end));
        tokio::time::sleep_until(end.into()).await;
    }
}

pub(super) fn count_pick(request: &Request<'_>, why: Why) {
    line::count_pick(&request.connection.worker, &request.split.pool, why);
}

/// A session's tunnel may come back, on another frps too; a server that left the file won't.
fn session_away(pool: &Pool) -> Stop {
    match pool.of_tunnels {
        true => Stop::Away(Away::new(Refusal::SessionAway, "")),
        false => Stop::Refused(Refusal::SessionAway, ""),
    }
}

/// What the visitor is told when every member has been tried or is out.
///
/// "No such tunnel" is only certain when every member said so; a dead frps may be the one that has it.
fn out_of_members(
    request: &Request<'_>,
    scratch: &Scratch,
    absent: usize,
    broken: Option<(Refusal, &'static str)>,
    suspect: Option<Arc<Endpoint>>,
) -> Stop {
    let now = clock::now();
    let away = |refusal, detail| Stop::Away(Away::new(refusal, detail));
    let tunnels = &request.snapshot.tunnels;
    let members = request.split.pool.members.iter().filter(|member| member.weight > 0).count();
    match broken {
        _ if absent > 0 && (absent < members || !scratch.holders.is_empty()) => {
            // Who has no tunnel here, and never had, isn't worth waiting for.
            match tunnels.knows(&scratch.host) || tunnels.is_away(&scratch.host, now) {
                true => away(Refusal::TunnelAway, ""),
                false => Stop::Refused(Refusal::TunnelAway, ""),
            }
        }
        _ if absent > 0 && tunnels.is_away(&scratch.host, now) => {
            away(Refusal::TunnelAway, "its last tunnel went a moment ago")
        }
        _ if absent > 0 => Stop::Refused(Refusal::NoTunnel, ""),
        Some((refusal @ Refusal::ConnectFailed, detail)) => away(refusal, detail),
        // It broke, and is dead, or may be.
        Some((refusal @ Refusal::UpstreamBroken, detail)) if detail != "status" => {
            Stop::Away(Away { refusal, detail, suspect })
        }
        Some((refusal, detail)) => Stop::Refused(refusal, detail),
        None if request.split.pool.members.is_empty() && tunnels.is_away(&scratch.host, now) => {
            away(Refusal::TunnelAway, "its last tunnel went a moment ago")
        }
        None if request.split.pool.members.iter().any(|member| !member.endpoint.is_open()) => {
            away(Refusal::TunnelAway, "its tunnel is being moved, or its frps is frozen")
        }
        None => Stop::Refused(Refusal::NoEndpoint, "every endpoint is down, unhealthy or weighs 0"),
    }
}
