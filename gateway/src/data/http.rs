//! The request path. Numbered as in `docs/request-path.md`.
//!
//! [`exchange`] reads one request and decides where it goes. Who serves it and how often it is tried is in
//! [`super::attempts`], one attempt in [`super::attempt`], the way back in [`super::respond`].

use std::{cell::Cell, future::poll_fn, time::Instant};

use super::{
    access_log,
    answer::{self, About},
    attempts, auth,
    buffer::{Buffer, LARGE, SMALL},
    connection::{Connection, Next},
    exchange::{Body, Report, Request, Scratch, Stop},
    grpc, headers,
    hold::{Away, Hold, Line, Waited},
    io::{Elapsed, earlier, unless_done},
    line, misdirected, proof, redirect,
    relay::{Framing, Relay},
    stream::Stream,
    worker::Worker,
};
use crate::{
    clock,
    error::Refusal,
    http1::{ChunkedDecoder, Method, RequestBody, RequestHead},
    snapshot::{Found, Listener, Route, Snapshot, Split, router},
    telemetry::stats::class_of,
    tls::ClientIdentity,
};

/// Serves one request. `buffer` holds the first bytes of it, and afterwards the first bytes of the next one.
pub async fn exchange(
    connection: &Connection,
    snapshot: &Snapshot,
    listener: &Listener,
    stream: &mut Stream,
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
            Stop::Refused(refusal, detail) | Stop::Away(Away { refusal, detail, suspect: _ }) => {
                let about = About { detail, ..About::unrouted(refusal, new_id(worker)) };
                Box::pin(answer::send(connection, listener, stream, about)).await;
                Next::Linger
            }
        };
    }
    // 2. The body's framing, and whatever of it is here already.
    let mut inbound = Inbound {
        body: Body { at_hand: 0, upload: None },
        begun,
        expires: None,
        hold: Hold::default(),
        half_closed: Cell::new(false),
    };
    inbound.expires = grpc::timeout(&scratch.request, buffer.filled()).map(|timeout| begun + timeout);
    let mut report = Report { http2: matches!(stream, Stream::Shared(_)), ..Report::default() };
    let refused = match plan_body(&scratch.request, buffer, listener) {
        Ok(body) => {
            inbound.body = body;
            None
        }
        Err(stop) => Some(stop),
    };
    // Who waits for a tunnel goes on under the newest state.
    let mut newer;
    let first_listener = listener;
    let (mut snapshot, mut listener) = (snapshot, listener);
    let mut refused = refused;
    // 2a. Authorities that look for a proof that a name is ours.
    let proved = match refused {
        None if proof::is_asked_for(&scratch.request, buffer.filled()) && inbound.body.is_over() => {
            Box::pin(prove(connection, (snapshot, listener), stream, (buffer, scratch), begun, &mut report))
                .await
        }
        _ => None,
    };
    let next = loop {
        if let Some(next) = proved {
            break next;
        }
        let round = round(
            connection,
            (snapshot, listener),
            refused.take(),
            stream,
            buffer,
            scratch,
            &mut inbound,
            &mut report,
        );
        match round.await {
            Some(next) => break next,
            None => {
                newer = worker.snapshot();
                snapshot = &newer;
                listener = match snapshot.listeners.get(first_listener.slot) {
                    Some(Some(listener)) => listener,
                    Some(None) | None => first_listener,
                };
            }
        }
    };
    match inbound.body.upload {
        Some(upload) => {
            let rest = upload.into_rest();
            worker.buffers.give_back(std::mem::replace(buffer, rest));
        }
        None => buffer.consume(scratch.request.len + inbound.body.at_hand),
    }
    next
}

/// Answers an authority; `None` = the token is nobody's here, and the request one like all others.
async fn prove(
    connection: &Connection,
    (snapshot, listener): (&Snapshot, &Listener),
    stream: &mut Stream,
    (buffer, scratch): (&Buffer, &mut Scratch),
    begun: Instant,
    report: &mut Report,
) -> Option<Next> {
    let path = scratch.request.path.of(buffer.filled());
    let proof = snapshot.proofs.answer(path, connection.peer).await?;
    read_host(scratch, buffer.filled());
    let head_only = scratch.request.method == Method::Head;
    let keep_alive = scratch.request.keep_alive && !connection.presence.closing.get();
    let next = proof::send(&proof, head_only, keep_alive, stream).await;
    report.status = 200;
    access_log::write(connection, listener, None, None, begun, buffer.filled(), scratch, report);
    Some(next)
}

/// What an exchange has of its visitor, over all rounds.
struct Inbound {
    body: Body,
    begun: Instant,
    expires: Option<Instant>,
    hold: Hold,
    half_closed: Cell<bool>,
}

/// Finds a place for the request and serves it; `None` = it has waited for a tunnel, and is to be looked at again.
#[expect(clippy::too_many_arguments, reason = "everything that one exchange works on")]
async fn round(
    connection: &Connection,
    (snapshot, listener): (&Snapshot, &Listener),
    refused: Option<Stop>,
    stream: &mut Stream,
    buffer: &mut Buffer,
    scratch: &mut Scratch,
    inbound: &mut Inbound,
    report: &mut Report,
) -> Option<Next> {
    let worker = &*connection.worker;
    let Inbound { body, begun, expires, hold, half_closed } = inbound;
    let (begun, expires) = (*begun, *expires);
    scratch.host.clear();
    let (mut route, mut split, mut waits_under) = (None, None, None);
    // 2b. As many as the listener may have at once.
    let in_listener = match refused {
        Some(stop) => Err(stop),
        None => line::admit(listener.gate.as_ref(), worker.id, "limits.in_flight of the listener"),
    };
    // 3. Where it goes.
    let found = in_listener.and_then(|in_listener| {
        let (found, chosen) = find_route(connection, snapshot, listener, buffer, scratch)?;
        route = Some(found);
        let in_route = line::admit(found.gate.as_ref(), worker.id, "limits.in_flight of the route")?;
        match found.refuses(connection.client().map(|client| &**client)) {
            Some(why) => Err(Stop::Refused(Refusal::ClientRefused, why)),
            None => Ok((found, chosen, (in_listener, in_route))),
        }
    });
    let result = match found {
        Err(stop) => Err(stop),
        Ok((found, None, _inside)) => {
            let keep_alive =
                body.is_over() && scratch.request.keep_alive && !connection.presence.closing.get();
            Ok(Box::pin(redirect::send(found, stream, (scratch, buffer), keep_alive, report)).await)
        }
        Ok((found, Some(chosen), _inside)) => {
            split = Some(chosen);
            let path = scratch.request.path.of(buffer.filled());
            let scope = worker.absences.borrow().scope(chosen.pool.number(), &scratch.host, path);
            waits_under = Some(scope);
            let request = Request {
                connection,
                snapshot,
                listener,
                begun,
                expires,
                route: found,
                split: chosen,
                scope,
                held: hold.has_begun(),
                half_closed,
            };
            attempts::serve(&request, body, stream, buffer, scratch, report).await
        }
    };
    // 7a. Nobody can take it: it waits.
    let result = match result {
        Err(Stop::Away(away)) => {
            let timeout = route.unwrap_or(&snapshot.tunnels.route).timeout;
            let line = Line {
                rules: split.map_or(snapshot.tunnels.hold, |split| split.pool.hold),
                pool: split.map(|split| &*split.pool),
                stats: split.map_or(&snapshot.tunnel_stats.pool, |split| &split.pool.stats),
                deadline: earlier(timeout.map(|timeout| begun + timeout), expires),
                request_begun: begun,
                half_closed,
                scope: waits_under,
                may_knock: split.is_some_and(|split| split.pool.of_tunnels)
                    || scratch.request.method.is_idempotent()
                    || !matches!(scratch.request.body, RequestBody::None | RequestBody::Length(0)),
            };
            let waited = Box::pin(hold.wait(worker, away, line, (body, &mut stream.split().0, buffer))).await;
            report.held = hold.since();
            match waited {
                Waited::LookAgain => return None,
                Waited::Over(stop) => Err(stop),
            }
        }
        result => result,
    };
    // 8. Our own answer, where no endpoint gave one.
    let next = match result {
        Ok(next) => next,
        Err(Stop::VisitorGone) => {
            listener.stats.of(worker.id).visitor_gone.inc();
            Next::Close
        }
        Err(Stop::Refused(refusal, detail) | Stop::Away(Away { refusal, detail, suspect: _ })) => {
            let well_framed = !matches!(refusal, Refusal::BadRequest(_) | Refusal::BodyTooLarge);
            let keep_alive = well_framed
                && body.is_over()
                && scratch.request.keep_alive
                && !connection.presence.closing.get();
            let grpc = grpc::is_grpc(&scratch.request, buffer.filled()).then(|| match expires {
                Some(expires) if Instant::now() >= expires => grpc::DEADLINE_EXCEEDED,
                Some(_) | None => grpc::status_of(refusal),
            });
            let about = About {
                refusal,
                grpc,
                host: &scratch.host,
                route: route.map_or("", |route: &Route| &route.name),
                pool: split.map_or("", |split: &Split| &split.pool.name),
                detail,
                head_only: scratch.request.method == Method::Head,
                keep_alive,
                fields: route
                    .map_or(&[], |route| hsts(connection, listener, route, buffer, &scratch.request)),
                request_id: new_id(worker),
            };
            (report.status, report.refusal) = (grpc.map_or(refusal.status(), |_| 200), Some(refusal));
            report.grpc_status = grpc;
            report.request_id = Some(about.request_id);
            match Box::pin(answer::send(connection, listener, stream, about)).await {
                true if keep_alive => Next::KeepAlive,
                true => Next::Linger,
                false => Next::Close,
            }
        }
    };
    // 9. What is left of it: counters, the log line, the first bytes of the next request.
    count(worker, begun, split, report);
    access_log::write(connection, listener, route, split, begun, buffer.filled(), scratch, report);
    Some(next)
}

/// Reads until a head is complete.
async fn read_head(
    stream: &mut Stream,
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
        let late = || Some(*deadline.get_or_insert_with(|| Instant::now() + listener.timeouts.header));
        match unless_done(late, poll_fn(|cx| buffer.poll_fill(cx, stream))).await {
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

/// What the answer tells browsers about coming by https: nothing, unless they did.
pub(super) fn hsts<'a>(
    connection: &Connection,
    listener: &Listener,
    route: &'a Route,
    buffer: &Buffer,
    head: &RequestHead,
) -> &'a [u8] {
    let https = !route.hsts.is_empty() && headers::is_https(head, buffer.filled(), listener, connection.peer);
    if https { &route.hsts } else { &[] }
}

/// Finds the route and draws a pool; no pool where the route sends visitors elsewhere.
fn find_route<'a>(
    connection: &Connection,
    snapshot: &'a Snapshot,
    listener: &'a Listener,
    buffer: &Buffer,
    scratch: &mut Scratch,
) -> Result<(&'a Route, Option<&'a Split>), Stop> {
    let worker = &*connection.worker;
    let wire = buffer.filled();
    read_host(scratch, wire);
    let head = &scratch.request;
    if head.method == Method::Connect {
        return Err(Stop::Refused(Refusal::MethodRefused, "CONNECT"));
    }
    if scratch.host.is_empty() {
        return Err(Stop::Refused(Refusal::BadRequest(400), "no_host"));
    }
    misdirected::check(connection, snapshot, listener, &scratch.host)?;
    let view = View {
        head,
        wire,
        host: &scratch.host,
        client: connection.client().map(|client| &**client),
        https: headers::is_https(head, wire, listener, connection.peer),
    };
    let found = listener.router.find(&snapshot.tunnels, &view);
    let route = match found {
        Some(Found::Route(route)) => route,
        Some(Found::Tunnels(tunnels)) => return Ok((&snapshot.tunnels.route, Some(&tunnels.split))),
        None if snapshot.tunnels.is_away(view.host, clock::now()) => {
            let away = Away::new(Refusal::TunnelAway, "its last tunnel went a moment ago");
            return Err(Stop::Away(away));
        }
        None => return Err(Stop::Refused(Refusal::NoRoute, "")),
    };
    if route.redirect.is_some() {
        return Ok((route, None));
    }
    let split = route
        .split(|below| worker.rng.borrow_mut().below(below))
        .ok_or(Stop::Refused(Refusal::NoEndpoint, "all pools of the route weigh 0"))?;
    Ok((route, Some(split)))
}

/// The host that is asked for: lower case, without a final dot.
fn read_host(scratch: &mut Scratch, wire: &[u8]) {
    let name = scratch.request.host_name.of(wire);
    let name = name.strip_suffix(b".").unwrap_or(name);
    scratch.host.clear();
    scratch.host.extend(name.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
}

fn count(worker: &Worker, begun: Instant, split: Option<&Split>, report: &Report) {
    let (Some(split), Some(member)) = (split, report.member) else { return };
    let class = class_of(report.status);
    split.stats.requests.get(member).unwrap_or(&split.stats.rest).of(worker.id).by_class[class].inc();
    if let Some(tunnel) = split.pool.members.get(member).and_then(|member| member.tunnel.as_ref()) {
        tunnel.answers.of(worker.id).by_class[class].inc();
    }
    let nanoseconds = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    split.stats.latency.of(worker.id).observe_ns(nanoseconds);
}

fn new_id(worker: &Worker) -> u64 {
    worker.rng.borrow_mut().next_u64()
}

/// A parsed head as the router looks at it.
pub(super) struct View<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) wire: &'a [u8],
    pub(super) host: &'a str,
    pub(super) client: Option<&'a ClientIdentity>,
    pub(super) https: bool,
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

    fn is_basic_user(&self, user: &str) -> bool {
        auth::is_user(user, self.head, self.wire)
    }

    fn client(&self) -> Option<&ClientIdentity> {
        self.client
    }

    fn is_https(&self) -> bool {
        self.https
    }
}
