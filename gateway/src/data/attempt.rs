//! One attempt: a connection, the request on it, the wait for a response head.
//!
//! It always knows which bytes left. Another attempt follows only when the visitor has got nothing and either nothing
//! was sent, or the method is idempotent and all that was sent is still at hand.

use std::{cell::Cell, future::poll_fn, time::Instant};

use lb_algos::Tick;

use super::{
    absent::{self, Suspicion},
    attempts,
    buffer::Buffer,
    connect,
    connect::NoLink,
    connection::Next,
    exchange::{Body, Report, Request, Scratch, Stop},
    h2c::Untouched,
    headers::{self, Onward},
    io::{unless_done, until, write_both},
    outcome, respond, session,
    stream::Stream,
    upgrade,
    upstream::Link,
    wait::{Broken, Evidence, Progress, Wait, stall},
    watch::Watch,
};
use crate::{
    clock,
    error::Refusal,
    http1::{HeadLimits, RequestHead, Version},
    snapshot::{Gate, InFlight, Member},
    telemetry::stats::Failure,
};

/// Bounds on response heads.
const RESPONSE_LIMITS: HeadLimits = HeadLimits { head_bytes: 64 * 1024, line_bytes: 8 * 1024, fields: 200 };

/// What an attempt is to do.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// Where it goes.
    pub member: &'a Member,
    /// Its index in the pool.
    pub index: usize,
    /// When the visitor's patience (the route's `timeout`) ends.
    pub deadline: Option<Instant>,
    /// Hold the body back until the endpoint says `100 Continue`.
    pub ask_first: bool,
    /// An answer whose status is in `retry.on` may be thrown away.
    pub may_reject: bool,
    /// A second attempt may begin beside this one.
    pub may_hedge: bool,
    /// Hash of what the request is to stay with.
    pub key: Option<u64>,
    /// The visitor has finished sending, and waits.
    pub half_closed: &'a Cell<bool>,
    /// When it began: what the endpoint takes is reckoned from here.
    pub begun: Tick,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Ending {
    /// The visitor has an answer.
    Done(Next),
    /// The visitor gets none from any endpoint.
    Stopped(Stop),
    /// frps has no such tunnel. Free of charge.
    Absent,
    /// No connection. Free of charge.
    Unreached,
    /// It broke, and may be repeated elsewhere.
    Failed(Refusal, &'static str),
    /// An answer that the pool wants asked for elsewhere; the budget has been drawn on.
    Rejected,
    /// Every connection that the endpoint may have is taken.
    Crowded,
    /// The endpoint refused it before doing anything. It may be repeated, whatever its method, there too.
    Declined,
}

/// A connection to an endpoint in use.
#[derive(Debug)]
pub struct Upstream {
    /// The socket.
    pub link: Link,
    /// It has served before.
    pub reused: bool,
}

/// How one try on one connection ended.
enum Try {
    Ended(Ending),
    /// A kept connection turned out dead before a byte came back, and the request may be sent again.
    Stale,
}

/// Runs one attempt.
///
/// `in_flight` is the slot it holds.
pub async fn run<'a>(
    attempt: &Attempt<'a>,
    mut in_flight: InFlight<'a>,
    body: &mut Body,
    visitor: &mut Stream,
    buffer: &mut Buffer,
    scratch: &mut Scratch,
    report: &mut Report,
) -> Ending {
    let endpoint = &attempt.member.endpoint;
    let worker = &*attempt.request.connection.worker;
    let stats = endpoint.stats.of(worker.id);
    let surely = !scratch.request.method.is_idempotent() || body.upload.is_some();
    let mut kept = match attempt.member.speaks_h2c(&attempt.request.split.pool) {
        true => worker.idle.shared.join(endpoint.number),
        false => worker.idle.take(endpoint.number, attempt.begun, surely),
    };
    loop {
        let upstream = match kept.take() {
            Some(link) => {
                stats.reuses.inc();
                Upstream { link, reused: true }
            }
            // What is seldom done lies on the heap: every exchange is moved with all that it may come to.
            None => match Box::pin(connect(attempt)).await {
                Ok(link) => Upstream { link, reused: false },
                Err(NoLink::Crowded) => return Ending::Crowded,
                Err(NoLink::Starved) => {
                    return Ending::Stopped(Stop::Refused(
                        Refusal::Overloaded,
                        "out of descriptors or ports",
                    ));
                }
                Err(NoLink::Failed(failure)) => {
                    stats.failures[failure as usize].inc();
                    outcome::failed(attempt, attempt.begun);
                    return Ending::Unreached;
                }
            },
        };
        match once(attempt, upstream, &mut in_flight, body, visitor, buffer, scratch, report).await {
            Try::Ended(ending) => return ending,
            Try::Stale => {}
        }
    }
}

/// Opens a connection; keeps the endpoint's record.
pub(super) async fn connect(attempt: &Attempt<'_>) -> Result<Link, NoLink> {
    let (worker, pool) = (&*attempt.request.connection.worker, &*attempt.request.split.pool);
    connect::open(worker, pool, attempt.member, attempt.deadline).await
}

#[expect(clippy::too_many_arguments, reason = "everything that one exchange works on")]
async fn once<'a>(
    attempt: &Attempt<'a>,
    mut upstream: Upstream,
    in_flight: &mut InFlight<'a>,
    body: &mut Body,
    visitor: &mut Stream,
    buffer: &mut Buffer,
    scratch: &mut Scratch,
    report: &mut Report,
) -> Try {
    let request = attempt.request;
    let worker = &*request.connection.worker;
    let listener = request.listener;
    let Scratch { request: head, onward, .. } = scratch;
    let mut upgrade = head.upgrade && body.upload.is_none() && !upgrade::is_h2c(head, buffer.filled());
    if upgrade && matches!(upstream.link.stream, Stream::Shared(_)) {
        // Nothing else can be changed to there; the request is served without.
        upgrade = upgrade::is_websocket(head, buffer.filled());
        if upgrade && !upstream.link.stream.takes_websockets() {
            let refused = Stop::Refused(Refusal::NoWebSocket, "no extended CONNECT (RFC 8441)");
            return Try::Ended(Ending::Stopped(refused));
        }
    }
    headers::request(
        onward,
        head,
        buffer.filled(),
        Onward {
            listener,
            peer: request.connection.peer,
            client: request.connection.client().map(|client| &**client),
            upgrade,
            hide_cookie: request.split.pool.sealer.as_ref().map(|sealer| sealer.name()),
            ask_first: attempt.ask_first,
            rewrite: attempt.member.rewrite(),
            direct: attempt.member.tunnel.is_some(),
        },
    );
    // 5. Send the head and what of the body is at hand, in one write.
    let mut sent = 0;
    let payload = if attempt.ask_first { 0 } else { body.at_hand };
    let payload = &buffer.filled()[head.len..head.len + payload];
    let (_, mut to_endpoint) = upstream.link.stream.split();
    let written =
        unless_done(|| stall(listener), write_both(&mut to_endpoint, onward, payload, &mut sent)).await;
    let progress = Progress {
        asking: attempt.ask_first,
        deaf: !matches!(written, Ok(Ok(()))),
        sent: !attempt.ask_first && body.upload.is_none(),
        sent_at: attempt.begun,
        evidence: if sent == 0 { Evidence::NothingSent } else { Evidence::Silence },
        untouched: None,
        continued: false,
        watch: Watch::new(request.begun, attempt.half_closed),
        moved: 0,
    };
    // 6. Wait for a response head, while the rest of the body flows.
    let mut wait = Wait::new(attempt, upstream, progress, body, upgrade);
    if wait.progress.evidence == Evidence::NothingSent {
        return failed(&wait, body, head, Failure::Reset);
    }
    loop {
        match wait.more(in_flight, body, visitor, buffer, scratch, report).await {
            Ok(()) => {}
            Err(Broken::Failed(failure)) => return failed(&wait, body, &scratch.request, failure),
            Err(Broken::Stopped(stop)) => return Try::Ended(Ending::Stopped(stop)),
        }
        let Scratch { request: head, response, homeward, tried, session, set_cookie, .. } = scratch;
        let attempt = wait.attempt;
        // Interim heads may follow each other in one read.
        loop {
            match response.parse(wait.incoming.filled(), &RESPONSE_LIMITS, head.method) {
                Ok(false) => {
                    if wait.incoming.is_full() {
                        let larger = wait.incoming.capacity() * 2;
                        wait.incoming.grow(larger);
                    }
                    break;
                }
                Ok(true) => {}
                Err(error) => {
                    let (endpoint, fault) = (attempt.member.endpoint.label(), error.label());
                    tracing::debug!(endpoint, fault, "invalid response head");
                    return failed(&wait, body, head, Failure::InvalidResponse);
                }
            }
            match response.status {
                101 if upgrade && response.upgrade => {
                    worker.absences.borrow_mut().confirm(request.scope, attempt.member.endpoint.number);
                    outcome::answered(&attempt, response, wait.incoming.filled(), wait.progress.sent_at);
                    session::write_for(set_cookie, *session, &attempt, head, buffer.filled());
                    let rewrite = attempt.member.rewrite();
                    headers::interim(homeward, response, wait.incoming.filled(), set_cookie, rewrite);
                    wait.incoming.consume(response.len);
                    (report.status, report.member) = (101, Some(attempt.index));
                    let whose = &*attempt.member.endpoint;
                    let sides = upgrade::Sides { visitor, endpoint: &mut wait.upstream.link.stream, whose };
                    let asked = (&*head, buffer.filled());
                    let relayed = upgrade::run(request, sides, asked, homeward, wait.incoming, report);
                    let next = Box::pin(relayed).await;
                    return Try::Ended(Ending::Done(next));
                }
                101 => return failed(&wait, body, head, Failure::InvalidResponse),
                100..200 => {
                    // frps repeats the 100 of the application.
                    let wanted = head.version == Version::Http11
                        && (response.status != 100 || (head.expect_continue && !wait.progress.continued));
                    if wanted {
                        wait.progress.continued |= response.status == 100;
                        headers::interim(homeward, response, wait.incoming.filled(), &[], None);
                        let mut sent = 0;
                        let write = write_both(visitor, homeward, &[], &mut sent);
                        if !matches!(until(stall(listener), write).await, Ok(Ok(()))) {
                            return Try::Ended(Ending::Stopped(Stop::VisitorGone));
                        }
                    }
                    let go_on = response.status == 100 && wait.progress.asking;
                    wait.incoming.consume(response.len);
                    if go_on && let Err(failure) = wait.send_body(body, buffer, head).await {
                        return failed(&wait, body, head, failure);
                    }
                    if wait.incoming.is_empty() {
                        break;
                    }
                }
                _ => {
                    // 6a. frps's own 404 is no answer.
                    let marker = attempt.member.not_found_marker.as_deref();
                    let wire = wait.incoming.filled();
                    let suspicion = match attempt.member.tunnel {
                        None => absent::suspect(response, wire, head.method, marker),
                        // frps's vhost has no part in it.
                        Some(_) => Suspicion::None,
                    };
                    let length = match suspicion {
                        Suspicion::None => None,
                        Suspicion::Likely => Some(0),
                        Suspicion::Body(length) => {
                            let whole = response.len + length;
                            if whole > wait.incoming.capacity() {
                                wait.incoming.grow(whole + 1);
                            }
                            while wait.incoming.len() < whole {
                                let (from_endpoint, incoming) =
                                    (&mut wait.upstream.link.stream, &mut wait.incoming);
                                let fill = poll_fn(|cx| incoming.poll_fill(cx, from_endpoint));
                                match until(wait.deadline.or(stall(listener)), fill).await {
                                    Ok(Ok(n)) if n > 0 => {}
                                    _ => {
                                        return failed(&wait, body, head, Failure::Truncated);
                                    }
                                }
                            }
                            absent::is_page(&wait.incoming.filled()[response.len..whole], marker)
                                .then_some(length)
                        }
                    };
                    let deaf = wait.progress.deaf;
                    if let Some(length) = length {
                        // A second attempt under way may still save the request.
                        match Box::pin(wait.rescue(visitor, buffer, in_flight, report)).await {
                            Ok(true) => {
                                lacks_it(&attempt);
                                break;
                            }
                            Ok(false) => {}
                            Err(stop) => return Try::Ended(Ending::Stopped(stop)),
                        }
                        let clean = response.keep_alive
                            && wait.progress.sent
                            && !deaf
                            && wait.incoming.len() == response.len + length;
                        worker.buffers.give_back(wait.incoming);
                        return page(
                            &attempt,
                            clean.then_some(wait.upstream.link),
                            body,
                            head,
                            &wait.progress,
                        );
                    }
                    let heard_at =
                        outcome::answered(&attempt, response, wait.incoming.filled(), wait.progress.sent_at);
                    // 6b. Nor is one that the pool wants from somebody else.
                    if attempt.may_reject
                        && body.is_retained()
                        && outcome::is_rejected(&attempt, response.status, tried)
                        && attempts::may_retry(request)
                    {
                        request.split.pool.stats.of(worker.id).rejected.inc();
                        worker.buffers.give_back(wait.incoming);
                        return Try::Ended(Ending::Rejected);
                    }
                    // 7. The answer goes to the visitor; a second attempt is let go, with its connection and slot.
                    wait.drop_rival();
                    if request.split.pool.members.len() > 1 || !head.method.is_idempotent() {
                        worker.absences.borrow_mut().confirm(request.scope, attempt.member.endpoint.number);
                    }
                    session::write_for(set_cookie, *session, &attempt, head, buffer.filled());
                    let answer = respond::Answer {
                        attempt: &attempt,
                        link: wait.upstream.link,
                        incoming: wait.incoming,
                        heard_at,
                        watch: wait.progress.watch,
                        deaf,
                    };
                    let ending = respond::run(answer, body, visitor, buffer, scratch, report).await;
                    return Try::Ended(ending);
                }
            }
        }
    }
}

/// An attempt broke: count it, remember it, and say whether the request may be sent again.
fn failed(wait: &Wait<'_>, body: &Body, head: &RequestHead, failure: Failure) -> Try {
    let (progress, reused) = (&wait.progress, wait.upstream.reused);
    let repeatable = progress.asking || (head.method.is_idempotent() && body.is_retained());
    let closed = matches!(failure, Failure::Reset | Failure::ClosedEarly);
    // The endpoint says that it has done nothing, whatever was sent; the body has to be here still.
    match progress.untouched.filter(|_| body.is_retained()) {
        Some(Untouched::Closing) => return Try::Stale,
        Some(Untouched::Refused) => {
            remember_failure(&wait.attempt, failure);
            return Try::Ended(Ending::Declined);
        }
        None => {}
    }
    match progress.evidence {
        // The other side closed a kept connection while we were taking it: nobody's fault.
        Evidence::NothingSent if reused => return Try::Stale,
        Evidence::Silence if reused && closed && repeatable => return Try::Stale,
        Evidence::NothingSent | Evidence::Silence | Evidence::Heard => {}
    }
    remember(&wait.attempt, progress.sent_at, failure);
    let refusal = match failure {
        Failure::ResponseTimeout => Refusal::UpstreamTimeout,
        Failure::InvalidResponse => Refusal::UpstreamInvalid,
        Failure::ConnectRefused | Failure::ConnectTimeout | Failure::TunnelChanged | Failure::Tls => {
            Refusal::ConnectFailed
        }
        Failure::Reset | Failure::ClosedEarly | Failure::Truncated => Refusal::UpstreamBroken,
    };
    Try::Ended(match progress.evidence {
        Evidence::NothingSent => Ending::Unreached,
        Evidence::Silence if repeatable => Ending::Failed(refusal, failure.label()),
        Evidence::Silence | Evidence::Heard => Ending::Stopped(Stop::Refused(refusal, failure.label())),
    })
}

fn remember_failure(attempt: &Attempt<'_>, failure: Failure) {
    let worker = &*attempt.request.connection.worker;
    attempt.member.endpoint.stats.of(worker.id).failures[failure as usize].inc();
}

/// Counts a failure, and sends the next request elsewhere.
pub(super) fn remember(attempt: &Attempt<'_>, sent_at: Tick, failure: Failure) {
    let (endpoint, worker) = (&attempt.member.endpoint, &*attempt.request.connection.worker);
    endpoint.stats.of(worker.id).failures[failure as usize].inc();
    outcome::failed(attempt, sent_at);
    let now = clock::now();
    let until = now.saturating_add(attempt.request.split.pool.fail_timeout);
    worker.absences.borrow_mut().leave_out(attempt.request.scope, endpoint.number, now, until);
}

/// frps said that it has no such tunnel: leave it out for this host and path for a while.
fn lacks_it(attempt: &Attempt<'_>) {
    let (request, endpoint) = (attempt.request, &attempt.member.endpoint);
    let worker = &*request.connection.worker;
    endpoint.stats.of(worker.id).absent.inc();
    let now = clock::now();
    let until = now.saturating_add(request.split.pool.absent_timeout);
    worker.absences.borrow_mut().leave_out(request.scope, endpoint.number, now, until);
}

/// Keeps a connection whose exchange is over for the next one.
///
/// Other workers can't use it. So under a limit of connections each keeps no more than its share: what one worker has
/// idle must not leave another without any.
/// `over_at`: when it was over.
pub(super) fn keep(attempt: &Attempt<'_>, link: Link, over_at: Tick) {
    let (worker, pool) = (&*attempt.request.connection.worker, &*attempt.request.split.pool);
    if matches!(link.stream, Stream::Shared(_)) {
        // The stream is over; its connection is kept where it was.
        return;
    }
    let number = attempt.member.endpoint.number;
    let share = pool.limits.connections.map(|limit| limit / pool.workers.max(1));
    // Nor may idle connections alone ever fill an frps: other tunnels would find no room until those were too old.
    if Gate::is_full(attempt.member.connections.as_ref()) {
        return;
    }
    if share.is_none_or(|share| worker.idle.count(number) < share as usize) {
        worker.idle.put(number, link, over_at.saturating_add(pool.keepalive));
    }
}

/// What becomes of a request to which frps said so.
fn page(
    attempt: &Attempt<'_>,
    reusable: Option<Link>,
    body: &Body,
    head: &RequestHead,
    progress: &Progress<'_>,
) -> Try {
    lacks_it(attempt);
    if let Some(link) = reusable {
        keep(attempt, link, clock::now());
    }
    let unsent = progress.asking || progress.evidence == Evidence::NothingSent;
    Try::Ended(if unsent || (head.method.is_idempotent() && body.is_retained()) {
        Ending::Absent
    } else {
        Ending::Stopped(Stop::Refused(Refusal::MayHaveRun, "frps page"))
    })
}
