//! One attempt: a connection, the request on it, the wait for a response head.
//!
//! It always knows which bytes left. Another attempt follows only when the visitor has got nothing and either nothing
//! was sent, or the method is idempotent and all that was sent is still at hand.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::net::{
    TcpStream,
    tcp::{ReadHalf, WriteHalf},
};

use super::{
    absent::{self, Suspicion},
    buffer::{Buffer, Buffers},
    connection::Next,
    exchange::{Body, Report, Request, Scratch, Stop},
    headers::{self, Onward},
    io::{Elapsed, until, write_both},
    relay::RelayError,
    respond, upgrade, upstream,
    watch::Watch,
};
use crate::{
    clock,
    error::Refusal,
    http1::{HeadLimits, RequestHead, Version},
    snapshot::{Listener, Member},
    telemetry::stats::{EndpointShard, Failure},
};

/// Longest wait for `100 Continue` before the body is sent all the same. frps itself answers at once, without asking the
/// application; an endpoint that says nothing by then doesn't know the expectation.
const ASK_FIRST: Duration = Duration::from_millis(300);
/// When the endpoint stops taking the request, a response may already be on its way.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Bounds on response heads.
const RESPONSE_LIMITS: HeadLimits = HeadLimits { head_bytes: 64 * 1024, line_bytes: 8 * 1024, fields: 200 };

/// What an attempt is to do.
#[derive(Debug)]
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
}

/// A connection to an endpoint in use.
#[derive(Debug)]
struct Upstream {
    stream: TcpStream,
    /// It has served before.
    reused: bool,
}

/// How one try on one connection ended.
enum Try {
    Ended(Ending),
    /// A kept connection turned out dead before a byte came back, and the request may be sent again.
    Stale,
}

/// What is known when a try breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// Not one byte of the request left.
    NothingSent,
    /// Nothing came back.
    Silence,
    /// Bytes of an answer came.
    Heard,
}

/// Runs one attempt.
pub async fn run(
    attempt: &Attempt<'_>,
    body: &mut Body,
    visitor: &mut TcpStream,
    buffer: &mut Buffer,
    scratch: &mut Scratch,
    report: &mut Report,
) -> Ending {
    let endpoint = &attempt.member.endpoint;
    let worker = &*attempt.request.connection.worker;
    let stats = endpoint.stats.of(worker.id);
    let _in_flight = endpoint.begin();
    let surely = !scratch.request.method.is_idempotent() || body.upload.is_some();
    let mut kept = worker.idle.take(endpoint.number, clock::now(), surely);
    loop {
        let upstream = match kept.take() {
            Some(stream) => {
                stats.reuses.inc();
                Upstream { stream, reused: true }
            }
            None => match connect(attempt, stats).await {
                Ok(stream) => Upstream { stream, reused: false },
                Err(failure) => {
                    stats.failures[failure as usize].inc();
                    return Ending::Unreached;
                }
            },
        };
        match once(attempt, upstream, body, visitor, buffer, scratch, report).await {
            Try::Ended(ending) => return ending,
            Try::Stale => {}
        }
    }
}

/// Opens a connection; keeps the endpoint's record.
async fn connect(attempt: &Attempt<'_>, stats: &EndpointShard) -> Result<TcpStream, Failure> {
    let endpoint = &attempt.member.endpoint;
    let pool = &attempt.request.split.pool;
    let addresses = endpoint.addresses.load_full();
    match upstream::connect(&addresses, pool.connect_timeout, attempt.deadline).await {
        Ok(stream) => {
            stats.connects.inc();
            if endpoint.connect_succeeded() {
                tracing::info!(endpoint = endpoint.label(), pool = &*pool.name, "endpoint up");
            }
            Ok(stream)
        }
        Err((_, error)) if upstream::is_ours(&error) => {
            if let Some(suppressed) = attempt.request.connection.worker.may_complain("out of resources") {
                tracing::error!(
                    endpoint = endpoint.label(),
                    %error,
                    suppressed,
                    "cannot open a connection; raise LimitNOFILE or the range of local ports"
                );
            }
            Err(Failure::ConnectRefused)
        }
        Err((failure, error)) => {
            if endpoint.connect_failed(clock::now(), pool.fail_timeout)
                && let Some(suppressed) = attempt.request.connection.worker.may_complain("endpoint down")
            {
                tracing::warn!(
                    endpoint = endpoint.label(),
                    pool = &*pool.name,
                    reason = failure.label(),
                    %error,
                    suppressed,
                    "endpoint down"
                );
            }
            Err(failure)
        }
    }
}

/// How far the request has got.
#[derive(Debug)]
struct Progress {
    /// The body waits for `100 Continue`.
    asking: bool,
    /// The endpoint takes no more bytes.
    deaf: bool,
    /// The request has been sent to its end.
    sent: bool,
    /// What came back.
    evidence: Evidence,
    /// The visitor has been told to continue.
    continued: bool,
    /// The visitor's direction.
    watch: Watch,
    /// Bytes of the body moved.
    moved: u64,
}

async fn once(
    attempt: &Attempt<'_>,
    mut upstream: Upstream,
    body: &mut Body,
    visitor: &mut TcpStream,
    buffer: &mut Buffer,
    scratch: &mut Scratch,
    report: &mut Report,
) -> Try {
    let request = attempt.request;
    let worker = &*request.connection.worker;
    let listener = request.listener;
    let reused = upstream.reused;
    let Scratch { request: head, response, onward, homeward, .. } = scratch;
    let upgrade = head.upgrade && body.upload.is_none() && !upgrade::is_h2c(head, buffer.filled());
    headers::request(
        onward,
        head,
        buffer.filled(),
        Onward { listener, peer: request.connection.peer, upgrade, ask_first: attempt.ask_first },
    );
    // 5. Send the head and what of the body is at hand, in one write.
    let mut sent = 0;
    let payload = if attempt.ask_first { 0 } else { body.at_hand };
    let payload = &buffer.filled()[head.len..head.len + payload];
    let (mut from_endpoint, mut to_endpoint) = upstream.stream.split();
    let written = until(stall(listener), write_both(&mut to_endpoint, onward, payload, &mut sent)).await;
    let mut progress = Progress {
        asking: attempt.ask_first,
        deaf: !matches!(written, Ok(Ok(()))),
        sent: !attempt.ask_first && body.upload.is_none(),
        evidence: if sent == 0 { Evidence::NothingSent } else { Evidence::Silence },
        continued: false,
        watch: Watch::new(request.begun),
        moved: 0,
    };
    if progress.evidence == Evidence::NothingSent {
        return failed(attempt, reused, body, head, &progress, Failure::Reset);
    }
    // 6. Wait for a response head, while the rest of the body flows.
    let mut incoming = worker.buffers.small();
    let mut deadline = wait_limit(attempt, body, &progress);
    loop {
        let (mut from_visitor, mut to_visitor) = visitor.split();
        let before = progress.moved;
        let limit = deadline.or_else(|| stall(listener).filter(|_| !progress.sent));
        let event = until(
            limit,
            poll_fn(|cx| {
                let visitor = (&mut from_visitor, &mut *buffer);
                let endpoint = (&mut from_endpoint, &mut to_endpoint, &mut incoming);
                poll_event(cx, &mut progress, body, &worker.buffers, visitor, endpoint)
            }),
        )
        .await;
        match event {
            Ok(Event::Read) => progress.evidence = Evidence::Heard,
            Ok(Event::VisitorGone) => return Try::Ended(Ending::Stopped(Stop::VisitorGone)),
            Ok(Event::UploadDone) => {
                progress.sent = true;
                deadline = wait_limit(attempt, body, &progress);
                continue;
            }
            Ok(Event::UploadFailed(error)) => match blame(&error) {
                Some(stop) => return Try::Ended(Ending::Stopped(stop)),
                None => {
                    progress.deaf = true;
                    deadline = wait_limit(attempt, body, &progress);
                    continue;
                }
            },
            Ok(Event::Broken) => return failed(attempt, reused, body, head, &progress, Failure::Reset),
            Ok(Event::Ended) => return failed(attempt, reused, body, head, &progress, Failure::ClosedEarly),
            Err(Elapsed) if progress.asking => {
                // No word: send the body all the same.
                if let Err(failure) = send_body(&mut to_endpoint, &mut progress, body, buffer, head).await {
                    return failed(attempt, reused, body, head, &progress, failure);
                }
                deadline = wait_limit(attempt, body, &progress);
                continue;
            }
            Err(Elapsed) if deadline.is_none() && progress.moved > before => continue,
            Err(Elapsed) if deadline.is_none() => {
                return Try::Ended(Ending::Stopped(Stop::Refused(Refusal::BodyTimeout, "")));
            }
            Err(Elapsed) => return failed(attempt, reused, body, head, &progress, Failure::ResponseTimeout),
        }
        // Interim heads may follow each other in one read.
        loop {
            match response.parse(incoming.filled(), &RESPONSE_LIMITS, head.method) {
                Ok(false) => {
                    if incoming.is_full() {
                        let larger = incoming.capacity() * 2;
                        incoming.grow(larger);
                    }
                    break;
                }
                Ok(true) => {}
                Err(error) => {
                    let (endpoint, fault) = (attempt.member.endpoint.label(), error.label());
                    tracing::debug!(endpoint, fault, "invalid response head");
                    return failed(attempt, reused, body, head, &progress, Failure::InvalidResponse);
                }
            }
            match response.status {
                101 if upgrade && response.upgrade => {
                    worker.absences.borrow_mut().confirm(request.scope, attempt.member.endpoint.number);
                    headers::interim(homeward, response, incoming.filled());
                    incoming.consume(response.len);
                    (report.status, report.member) = (101, Some(attempt.index));
                    let early = buffer.filled()[head.len..].to_vec();
                    let sides = upgrade::Sides { visitor, endpoint: &mut upstream.stream };
                    let next = upgrade::run(request, sides, homeward, &early, incoming, report).await;
                    return Try::Ended(Ending::Done(next));
                }
                101 => return failed(attempt, reused, body, head, &progress, Failure::InvalidResponse),
                100..200 => {
                    // frps repeats the 100 of the application.
                    let wanted = head.version == Version::Http11
                        && (response.status != 100 || (head.expect_continue && !progress.continued));
                    if wanted {
                        progress.continued |= response.status == 100;
                        headers::interim(homeward, response, incoming.filled());
                        let mut sent = 0;
                        let write = write_both(&mut to_visitor, homeward, &[], &mut sent);
                        if !matches!(until(stall(listener), write).await, Ok(Ok(()))) {
                            return Try::Ended(Ending::Stopped(Stop::VisitorGone));
                        }
                    }
                    let go_on = response.status == 100 && progress.asking;
                    incoming.consume(response.len);
                    if go_on {
                        let send = send_body(&mut to_endpoint, &mut progress, body, buffer, head);
                        if let Err(failure) = send.await {
                            return failed(attempt, reused, body, head, &progress, failure);
                        }
                        deadline = wait_limit(attempt, body, &progress);
                    }
                    if incoming.is_empty() {
                        break;
                    }
                }
                _ => {
                    // 6a. frps's own 404 is no answer.
                    let marker = attempt.member.not_found_marker.as_deref();
                    let length = match absent::suspect(response, incoming.filled(), head.method, marker) {
                        Suspicion::None => None,
                        Suspicion::Likely => Some(0),
                        Suspicion::Body(length) => {
                            let whole = response.len + length;
                            if whole > incoming.capacity() {
                                incoming.grow(whole + 1);
                            }
                            while incoming.len() < whole {
                                let fill = poll_fn(|cx| incoming.poll_fill(cx, &mut from_endpoint));
                                match until(deadline.or(stall(listener)), fill).await {
                                    Ok(Ok(n)) if n > 0 => {}
                                    _ => {
                                        return failed(
                                            attempt,
                                            reused,
                                            body,
                                            head,
                                            &progress,
                                            Failure::Truncated,
                                        );
                                    }
                                }
                            }
                            absent::is_page(&incoming.filled()[response.len..whole], marker).then_some(length)
                        }
                    };
                    let deaf = progress.deaf;
                    if let Some(length) = length {
                        let clean = response.keep_alive
                            && progress.sent
                            && !deaf
                            && incoming.len() == response.len + length;
                        worker.buffers.give_back(incoming);
                        return page(attempt, clean.then_some(upstream.stream), body, head, &progress);
                    }
                    // 7. The answer goes to the visitor.
                    if request.split.pool.members.len() > 1 || !head.method.is_idempotent() {
                        worker.absences.borrow_mut().confirm(request.scope, attempt.member.endpoint.number);
                    }
                    let answer = respond::Answer {
                        attempt,
                        stream: upstream.stream,
                        incoming,
                        watch: progress.watch,
                        deaf,
                    };
                    let ending = respond::run(answer, body, visitor, buffer, scratch, report).await;
                    return Try::Ended(ending);
                }
            }
        }
    }
}

/// What happened while waiting for a response head.
enum Event {
    Read,
    Ended,
    Broken,
    UploadDone,
    UploadFailed(RelayError),
    VisitorGone,
}

/// One look at both sides.
fn poll_event(
    cx: &mut Context<'_>,
    progress: &mut Progress,
    body: &mut Body,
    buffers: &Buffers,
    (from_visitor, buffer): (&mut ReadHalf<'_>, &mut Buffer),
    (from_endpoint, to_endpoint, incoming): (&mut ReadHalf<'_>, &mut WriteHalf<'_>, &mut Buffer),
) -> Poll<Event> {
    // The answer first: when it is there, nothing else matters.
    match incoming.poll_fill(cx, from_endpoint) {
        Poll::Ready(Ok(0)) => return Poll::Ready(Event::Ended),
        Poll::Ready(Ok(_)) => return Poll::Ready(Event::Read),
        Poll::Ready(Err(_)) => return Poll::Ready(Event::Broken),
        Poll::Pending => {}
    }
    match &mut body.upload {
        Some(upload) if !progress.sent && !progress.deaf && !progress.asking => {
            match upload.poll(cx, buffers, from_visitor, to_endpoint, &mut progress.moved) {
                Poll::Ready(Ok(())) => Poll::Ready(Event::UploadDone),
                Poll::Ready(Err(error)) => Poll::Ready(Event::UploadFailed(error)),
                Poll::Pending => Poll::Pending,
            }
        }
        Some(_) => Poll::Pending,
        None => progress.watch.poll(cx, from_visitor, buffer).map(|()| Event::VisitorGone),
    }
}

/// The body was held back; now what is at hand of it goes, and the rest may flow.
async fn send_body(
    to_endpoint: &mut WriteHalf<'_>,
    progress: &mut Progress,
    body: &Body,
    buffer: &Buffer,
    head: &RequestHead,
) -> Result<(), Failure> {
    progress.asking = false;
    progress.sent = body.upload.is_none();
    let mut sent = 0;
    let payload = &buffer.filled()[head.len..head.len + body.at_hand];
    let limit = Some(Instant::now() + LAST_WORDS);
    match until(limit, write_both(to_endpoint, payload, &[], &mut sent)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(Elapsed) => Err(Failure::Reset),
    }
}

/// Until when to wait for the next event; `None` = for as long as the body flows.
fn wait_limit(attempt: &Attempt<'_>, body: &Body, progress: &Progress) -> Option<Instant> {
    let now = Instant::now();
    if progress.deaf {
        return Some(now + LAST_WORDS);
    }
    if progress.asking {
        return Some(now + ASK_FIRST);
    }
    if !progress.sent {
        return None;
    }
    // A request that took its time to arrive gives the endpoint its full time from now.
    let whole = match body.upload {
        Some(_) => attempt.request.route.timeout.map(|timeout| now + timeout),
        None => attempt.deadline,
    };
    let per_try = attempt.request.split.pool.per_try_timeout.map(|timeout| now + timeout);
    match (whole, per_try) {
        (Some(whole), Some(per_try)) => Some(whole.min(per_try)),
        (whole, per_try) => whole.or(per_try),
    }
}

/// When a socket that takes or gives nothing is given up.
fn stall(listener: &Listener) -> Option<Instant> {
    Some(Instant::now() + listener.timeouts.stream_idle)
}

/// Whose fault a broken upload is; `None` = the endpoint's.
fn blame(error: &RelayError) -> Option<Stop> {
    match error {
        RelayError::Source(_) | RelayError::SourceEnded => Some(Stop::VisitorGone),
        RelayError::Invalid(error) => Some(Stop::Refused(Refusal::BadRequest(400), error.label())),
        RelayError::TooLarge => Some(Stop::Refused(Refusal::BodyTooLarge, "chunked")),
        RelayError::Sink(_) => None,
    }
}

/// An attempt broke: count it, remember it, and say whether the request may be sent again.
fn failed(
    attempt: &Attempt<'_>,
    reused: bool,
    body: &Body,
    head: &RequestHead,
    progress: &Progress,
    failure: Failure,
) -> Try {
    let endpoint = &attempt.member.endpoint;
    let worker = &*attempt.request.connection.worker;
    let repeatable = progress.asking || (head.method.is_idempotent() && body.is_retained());
    let closed = matches!(failure, Failure::Reset | Failure::ClosedEarly);
    match progress.evidence {
        // The other side closed a kept connection while we were taking it: nobody's fault.
        Evidence::NothingSent if reused => return Try::Stale,
        Evidence::Silence if reused && closed && repeatable => return Try::Stale,
        Evidence::NothingSent | Evidence::Silence | Evidence::Heard => {}
    }
    endpoint.stats.of(worker.id).failures[failure as usize].inc();
    // The next request goes elsewhere.
    let now = clock::now();
    let until = now.saturating_add(attempt.request.split.pool.fail_timeout);
    worker.absences.borrow_mut().leave_out(attempt.request.scope, endpoint.number, now, until);
    let refusal = match failure {
        Failure::ResponseTimeout => Refusal::UpstreamTimeout,
        Failure::InvalidResponse => Refusal::UpstreamInvalid,
        Failure::ConnectRefused | Failure::ConnectTimeout => Refusal::ConnectFailed,
        Failure::Reset | Failure::ClosedEarly | Failure::Truncated => Refusal::UpstreamBroken,
    };
    Try::Ended(match progress.evidence {
        Evidence::NothingSent => Ending::Unreached,
        Evidence::Silence if repeatable => Ending::Failed(refusal, failure.label()),
        Evidence::Silence | Evidence::Heard => Ending::Stopped(Stop::Refused(refusal, failure.label())),
    })
}

/// frps said that it has no such tunnel: leave it out for this host and path for a while.
fn page(
    attempt: &Attempt<'_>,
    reusable: Option<TcpStream>,
    body: &Body,
    head: &RequestHead,
    progress: &Progress,
) -> Try {
    let request = attempt.request;
    let (endpoint, worker, pool) =
        (&attempt.member.endpoint, &*request.connection.worker, &*request.split.pool);
    endpoint.stats.of(worker.id).absent.inc();
    let now = clock::now();
    let until = now.saturating_add(pool.absent_timeout);
    worker.absences.borrow_mut().leave_out(request.scope, endpoint.number, now, until);
    if let Some(stream) = reusable {
        worker.idle.put(endpoint.number, stream, now.saturating_add(pool.keepalive));
    }
    let unsent = progress.asking || progress.evidence == Evidence::NothingSent;
    Try::Ended(if unsent || (head.method.is_idempotent() && body.is_retained()) {
        Ending::Absent
    } else {
        Ending::Stopped(Stop::Refused(Refusal::MayHaveRun, "frps page"))
    })
}
