//! The request path. Numbered as in `docs/request-path.md`.
//!
//! [`exchange`] reads one request, decides, and drives attempts until one of them answers the visitor or none is left.
//! One attempt is in [`super::attempt`], the way back in [`super::respond`].

use std::{future::poll_fn, time::Instant};

use lb_algos::Tick;
use tokio::net::TcpStream;

use super::{
    absent::Scope,
    access_log,
    answer::{self, About},
    attempt::{self, Attempt, Ending},
    buffer::{Buffer, LARGE, SMALL},
    connection::{Connection, Next},
    exchange::{Body, Report, Request, Scratch, Stop},
    io::{Elapsed, until},
    pick::{self, Knowledge},
    relay::{Framing, Relay},
    worker::Worker,
};
use crate::{
    clock,
    error::Refusal,
    http1::{ChunkedDecoder, Method, RequestBody, RequestHead},
    snapshot::{Listener, Pool, Route, Snapshot, Split, router},
    telemetry::stats::class_of,
};

/// Serves one request. `buffer` holds the first bytes of it, and afterwards the first bytes of the next one.
pub async fn exchange(
    connection: &Connection,
    snapshot: &Snapshot,
    listener: &Listener,
    stream: &mut TcpStream,
    buffer: &mut Buffer,
    scratch: &mut Scratch,
) -> Next {
    let worker = &*connection.worker;
    scratch.host.clear();
    // 1. The head, under strict rules.
    let end = read_head(stream, buffer, &mut scratch.request, listener).await;
    let begun = Instant::now();
    if let Err(stop) = end {
        return match stop {
            Stop::VisitorGone => Next::Close,
            Stop::Refused(refusal, detail) => {
                let about = About { detail, ..About::unrouted(refusal, new_id(worker)) };
                answer::send(connection, listener, stream, about).await;
                Next::Linger
            }
        };
    }
    // 2. The body's framing, and whatever of it is here already.
    let mut body = Body { at_hand: 0, upload: None };
    let (mut route, mut split) = (None, None);
    let mut report = Report::default();
    let result = match plan_body(&scratch.request, buffer, listener) {
        Err(stop) => Err(stop),
        Ok(planned) => {
            body = planned;
            // 3. Where it goes.
            match find_route(worker, listener, buffer, scratch) {
                Err(stop) => Err(stop),
                Ok((found, chosen)) => {
                    (route, split) = (Some(found), Some(chosen));
                    let path = scratch.request.path.of(buffer.filled());
                    let scope = worker.absences.borrow().scope(chosen.pool.slot, &scratch.host, path);
                    let request =
                        Request { connection, snapshot, listener, begun, route: found, split: chosen, scope };
                    serve(&request, &mut body, stream, buffer, scratch, &mut report).await
                }
            }
        }
    };
    // 8. Our own answer, where no endpoint gave one.
    let next = match result {
        Ok(next) => next,
        Err(Stop::VisitorGone) => {
            listener.stats.of(worker.id).visitor_gone.inc();
            Next::Close
        }
        Err(Stop::Refused(refusal, detail)) => {
            let well_framed = !matches!(refusal, Refusal::BadRequest(_) | Refusal::BodyTooLarge);
            let keep_alive = well_framed
                && body.is_over()
                && scratch.request.keep_alive
                && !connection.presence.closing.get();
            let about = About {
                refusal,
                host: &scratch.host,
                route: route.map_or("", |route: &Route| &route.name),
                pool: split.map_or("", |split: &Split| &split.pool.name),
                detail,
                head_only: scratch.request.method == Method::Head,
                keep_alive,
                request_id: new_id(worker),
            };
            (report.status, report.refusal) = (refusal.status(), Some(refusal));
            report.request_id = Some(about.request_id);
            match answer::send(connection, listener, stream, about).await {
                true if keep_alive => Next::KeepAlive,
                true => Next::Linger,
                false => Next::Close,
            }
        }
    };
    // 9. What is left of it: counters, the log line, the first bytes of the next request.
    count(worker, begun, split, &report);
    access_log::write(connection, listener, route, split, begun, buffer.filled(), scratch, &report);
    match body.upload {
        Some(upload) => {
            let rest = upload.into_rest();
            worker.buffers.give_back(std::mem::replace(buffer, rest));
        }
        None => buffer.consume(scratch.request.len + body.at_hand),
    }
    next
}

/// Reads until a head is complete.
async fn read_head(
    stream: &mut TcpStream,
    buffer: &mut Buffer,
    head: &mut RequestHead,
    listener: &Listener,
) -> Result<(), Stop> {
    let mut deadline = None;
    loop {
        if !buffer.is_empty() {
            match head.parse(buffer.filled(), &listener.head_limits) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return Err(Stop::Refused(Refusal::BadRequest(error.status()), error.label())),
            }
            if buffer.is_full() {
                // The parser bounds heads by `limits.head_bytes`, so this ends.
                let larger = (buffer.capacity() * 2).max(LARGE);
                buffer.grow(larger);
            }
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + listener.timeouts.header);
        match until(Some(deadline), poll_fn(|cx| buffer.poll_fill(cx, stream))).await {
            Ok(Ok(n)) if n > 0 => {}
            Ok(Ok(_) | Err(_)) => return Err(Stop::VisitorGone),
            Err(Elapsed) if buffer.is_empty() => return Err(Stop::VisitorGone),
            Err(Elapsed) => return Err(Stop::Refused(Refusal::HeadTimeout, "")),
        }
    }
}

/// Checks what of the body has arrived with the head. Nothing of a request leaves before this has passed.
fn plan_body(head: &RequestHead, buffer: &Buffer, listener: &Listener) -> Result<Body, Stop> {
    let limit = listener.limits.body_bytes;
    let mut framing = match head.body {
        RequestBody::None | RequestBody::Length(0) => return Ok(Body { at_hand: 0, upload: None }),
        RequestBody::Length(length) if limit.is_some_and(|limit| length > limit) => {
            return Err(Stop::Refused(Refusal::BodyTooLarge, "content-length"));
        }
        RequestBody::Length(length) => Framing::Length(length),
        RequestBody::Chunked => Framing::Chunked(ChunkedDecoder::default()),
    };
    let arrived = &buffer.filled()[head.len..];
    let (at_hand, whole) =
        framing.advance(arrived).map_err(|error| Stop::Refused(Refusal::BadRequest(400), error.label()))?;
    if limit.is_some_and(|limit| at_hand as u64 > limit) {
        return Err(Stop::Refused(Refusal::BodyTooLarge, "chunked"));
    }
    if whole {
        return Ok(Body { at_hand, upload: None });
    }
    let mut rest = Buffer::default();
    if arrived.len() > at_hand {
        // The first bytes of a chunk line that isn't complete yet.
        rest.grow(SMALL.max(arrived.len() - at_hand));
        rest.append(&arrived[at_hand..]);
    }
    Ok(Body { at_hand, upload: Some(Relay::new(framing, rest, at_hand as u64, limit)) })
}

/// Finds the route and draws a pool.
fn find_route<'a>(
    worker: &Worker,
    listener: &'a Listener,
    buffer: &Buffer,
    scratch: &mut Scratch,
) -> Result<(&'a Route, &'a Split), Stop> {
    let wire = buffer.filled();
    let head = &scratch.request;
    let name = head.host_name.of(wire);
    let name = name.strip_suffix(b".").unwrap_or(name);
    scratch.host.extend(name.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    if head.method == Method::Connect {
        return Err(Stop::Refused(Refusal::MethodRefused, "CONNECT"));
    }
    if name.is_empty() {
        return Err(Stop::Refused(Refusal::BadRequest(400), "no_host"));
    }
    let view = View { head, wire, host: &scratch.host };
    let route = listener.router.find(&view).ok_or(Stop::Refused(Refusal::NoRoute, ""))?;
    let split = route
        .split(|below| worker.rng.borrow_mut().below(below))
        .ok_or(Stop::Refused(Refusal::NoEndpoint, "all pools of the route weigh 0"))?;
    Ok((route, split))
}

/// 4.–7. Attempts, one after the other, each at another member.
async fn serve(
    request: &Request<'_>,
    body: &mut Body,
    stream: &mut TcpStream,
    buffer: &mut Buffer,
    scratch: &mut Scratch,
    report: &mut Report,
) -> Result<Next, Stop> {
    let worker = &*request.connection.worker;
    let pool = &*request.split.pool;
    let deadline = request.route.timeout.map(|timeout| request.begun + timeout);
    scratch.tried.clear();
    scratch.holders.clear();
    if !request.snapshot.tunnels.is_empty() {
        let path = String::from_utf8_lossy(scratch.request.path.of(buffer.filled()));
        request.snapshot.tunnels.holders(&scratch.host, &path, |frps| scratch.holders.push(frps));
    }
    let mut drawn = 0; // attempts that count against `retry.attempts`
    let (mut absent, mut broken) = (0, None);
    loop {
        // 4. A member.
        let now = clock::now();
        let Some(index) = pick_member(worker, pool, scratch, request.scope, now) else {
            pool.stats.of(worker.id).exhausted.inc();
            return Err(out_of_members(request, scratch, absent, broken));
        };
        let member = &pool.members[index];
        if report.attempts > 0 {
            pool.stats.of(worker.id).retries.inc();
        }
        report.attempts += 1;
        // 5.–7. Send, and answer the visitor.
        let attempt = Attempt {
            request,
            member,
            index,
            deadline,
            // Somebody who is not known to have the tunnel is asked before the body leaves, because a request that
            // may have run must not be repeated.
            ask_first: !scratch.request.method.is_idempotent()
                && scratch.request.body != RequestBody::None
                && scratch.request.body != RequestBody::Length(0)
                && !scratch.request.expect_continue
                && !scratch.holders.contains(&member.frps)
                && !worker.absences.borrow().is_confirmed(request.scope, member.endpoint.number),
        };
        match attempt::run(&attempt, body, stream, buffer, scratch, report).await {
            Ending::Done(next) => return Ok(next),
            Ending::Stopped(stop) => return Err(stop),
            Ending::Absent => absent += 1,
            Ending::Unreached => broken = Some((Refusal::ConnectFailed, "connect")),
            Ending::Failed(refusal, detail) => {
                drawn += 1;
                broken = Some((refusal, detail));
                if drawn > pool.retry_attempts || deadline.is_some_and(|deadline| Instant::now() >= deadline)
                {
                    pool.stats.of(worker.id).exhausted.inc();
                    return Err(Stop::Refused(refusal, detail));
                }
            }
        }
        scratch.tried.push(index);
    }
}

fn pick_member(worker: &Worker, pool: &Pool, scratch: &Scratch, scope: Scope, now: Tick) -> Option<usize> {
    let absences = worker.absences.borrow();
    let head = &scratch.request;
    let known = Knowledge {
        tried: &scratch.tried,
        holders: &scratch.holders,
        absences: &absences,
        scope,
        cautious: !head.method.is_idempotent()
            && matches!(head.body, RequestBody::None | RequestBody::Length(0)),
        now,
    };
    worker.with_policy(pool, |state| pick::pick(state, pool, known, &mut worker.rng.borrow_mut()))
}

/// What the visitor is told when every member has been tried or is out.
///
/// "No such tunnel" is only certain when every member said so; a dead frps may be the one that has it.
fn out_of_members(
    request: &Request<'_>,
    scratch: &Scratch,
    absent: usize,
    broken: Option<(Refusal, &'static str)>,
) -> Stop {
    let members = request.split.pool.members.iter().filter(|member| member.weight > 0).count();
    match broken {
        _ if absent > 0 && (absent < members || !scratch.holders.is_empty()) => {
            Stop::Refused(Refusal::TunnelAway, "")
        }
        _ if absent > 0 => Stop::Refused(Refusal::NoTunnel, ""),
        Some((refusal, detail)) => Stop::Refused(refusal, detail),
        None => Stop::Refused(Refusal::NoEndpoint, "every endpoint is down, unhealthy or weighs 0"),
    }
}

fn count(worker: &Worker, begun: Instant, split: Option<&Split>, report: &Report) {
    let (Some(split), Some(member)) = (split, report.member) else { return };
    if let Some(requests) = split.stats.requests.get(member) {
        requests.of(worker.id).by_class[class_of(report.status)].inc();
    }
    let nanoseconds = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    split.stats.latency.of(worker.id).observe_ns(nanoseconds);
}

fn new_id(worker: &Worker) -> u64 {
    worker.rng.borrow_mut().next_u64()
}

/// A parsed head as the router looks at it.
struct View<'a> {
    head: &'a RequestHead,
    wire: &'a [u8],
    host: &'a str,
}

impl router::Request for View<'_> {
    fn host(&self) -> &str {
        self.host
    }

    fn path(&self) -> &[u8] {
        self.head.path.of(self.wire)
    }

    fn query(&self) -> Option<&[u8]> {
        self.head.query.map(|query| query.of(self.wire))
    }

    fn method(&self) -> &[u8] {
        self.head.method_span.of(self.wire)
    }

    fn any_header(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.head.fields.iter().any(|field| {
            field.name.of(self.wire).eq_ignore_ascii_case(name) && test(field.value.of(self.wire))
        })
    }
}
