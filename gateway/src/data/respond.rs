//! The way back: the endpoint's answer to the visitor, and what becomes of both connections.

use std::task::{Context, Poll};

use lb_algos::Tick;

use super::{
    attempt::{self, Attempt, Ending},
    buffer::{Buffer, Buffers},
    connection::Next,
    exchange::{Body, Report, Scratch, Stop},
    headers::{self, Homeward},
    io::{Elapsed, poll_write_both, while_moving},
    relay::{Framing, Relay, RelayError},
    stream::{ReadSide, Stream, WriteSide},
    upstream::Link,
    watch::Watch,
};
use crate::{
    clock,
    error::Refusal,
    http1::{ChunkedDecoder, ResponseBody, Version},
    telemetry::stats::Failure,
};

/// Bytes of a body that are copied behind the head to be sent with it.
const LITTLE: usize = 4 * 1024;

/// An answer whose head has been read.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The attempt that brought it.
    pub attempt: &'a Attempt<'a>,
    /// The endpoint's connection.
    pub link: Link,
    /// The head and what followed it.
    pub incoming: Buffer,
    /// When the head had come.
    pub heard_at: Tick,
    /// The visitor's direction.
    pub watch: Watch<'a>,
    /// The endpoint has stopped taking the request.
    pub deaf: bool,
}

/// Sends the answer to the visitor.
pub async fn run(
    mut answer: Answer<'_>,
    body: &mut Body,
    visitor: &mut Stream,
    buffer: &mut Buffer,
    scratch: &mut Scratch,
    report: &mut Report,
) -> Ending {
    let attempt = answer.attempt;
    let request = attempt.request;
    let (worker, listener) = (&*request.connection.worker, request.listener);
    let Scratch { request: head, response, homeward, set_cookie, .. } = scratch;
    let (mut framing, until_close) = match response.body {
        ResponseBody::None => (Framing::Length(0), false),
        ResponseBody::Length(length) => (Framing::Length(length), false),
        ResponseBody::Chunked => (Framing::Chunked(ChunkedDecoder::default()), false),
        ResponseBody::UntilClose => (Framing::UntilClose, true),
    };
    let strip = response.body == ResponseBody::Chunked && head.version == Version::Http10;
    let upload_over = body.is_over();
    // Without our framing around it, only the end of the connection tells the visitor where the body ends.
    let ends_by_close = until_close || strip;
    let keep_alive = head.keep_alive
        && upload_over
        && !ends_by_close
        && !answer.watch.is_half_closed()
        && !request.connection.presence.closing.get();
    let first = &answer.incoming.filled()[response.len..];
    let checked = if strip { Ok((0, false)) } else { framing.advance(first) };
    let Ok((at_hand, whole)) = checked else {
        attempt.member.endpoint.stats.of(worker.id).failures[Failure::InvalidResponse as usize].inc();
        return Ending::Stopped(Stop::Refused(Refusal::UpstreamInvalid, "chunked"));
    };
    let hsts = super::http::hsts(request.connection, listener, request.route, buffer, head);
    headers::response(
        homeward,
        response,
        answer.incoming.filled(),
        Homeward {
            version: head.version,
            keep_alive,
            strip,
            set_cookie,
            rewrite: attempt.member.rewrite(),
            hsts,
        },
    );
    (report.status, report.member) = (response.status, Some(attempt.index));
    report.grpc_status = answer.link.stream.grpc_status();
    // The head and what came with it leave in one write. Little is copied behind the head: a write of two parts costs the
    // kernel more than that.
    let head_len = homeward.len();
    let mut behind = &first[..at_hand];
    if at_hand <= LITTLE && matches!(visitor, Stream::Plain(_)) {
        homeward.extend_from_slice(behind);
        behind = &[];
    }
    let (mut from_visitor, mut to_visitor) = visitor.split();
    let mut sent = 0;
    let written = while_moving(listener.timeouts.stream_idle, |cx, moved| {
        let before = sent;
        let done = poll_write_both(cx, &mut to_visitor, homeward, behind, &mut sent);
        *moved += (sent - before) as u64;
        done
    })
    .await;
    report.bytes = sent.saturating_sub(head_len) as u64;
    if !matches!(written, Ok(Ok(()))) {
        return Ending::Stopped(Stop::VisitorGone);
    }
    answer.incoming.consume(response.len + at_hand);
    let mut over_at = answer.heard_at;
    let rest = if whole {
        answer.incoming
    } else {
        // The rest of the body flows, and the rest of the request with it.
        let mut download = Relay::new(framing, answer.incoming, 0, None);
        if strip {
            download = download.stripped();
        }
        let (mut from_endpoint, mut to_endpoint) = answer.link.stream.split();
        let mut uploading = !upload_over && !answer.deaf;
        let flow = while_moving(listener.timeouts.stream_idle, |cx, moved| {
            if uploading {
                let upload =
                    poll_upload(cx, body, &worker.buffers, &mut from_visitor, &mut to_endpoint, moved);
                match upload {
                    Poll::Ready(Upload::Over) => uploading = false,
                    Poll::Ready(Upload::VisitorGone) => return Poll::Ready(Flow::VisitorGone),
                    Poll::Pending => {}
                }
            } else if body.upload.is_none() && answer.watch.poll(cx, &mut from_visitor, buffer).is_ready() {
                return Poll::Ready(Flow::VisitorGone);
            }
            download.poll(cx, &worker.buffers, &mut from_endpoint, &mut to_visitor, moved).map(
                |end| match end {
                    Ok(()) => Flow::Whole,
                    Err(RelayError::Sink(_)) => Flow::VisitorGone,
                    Err(error) => Flow::Broken(error),
                },
            )
        })
        .await;
        report.bytes += download.read();
        report.grpc_status = answer.link.stream.grpc_status();
        match flow {
            // The visitor has been told by the last words; the endpoint broke all the same.
            Ok(Flow::Whole) if answer.link.stream.is_mended() => remember_cut(attempt),
            Ok(Flow::Whole) => {}
            Ok(Flow::VisitorGone) => return Ending::Stopped(Stop::VisitorGone),
            Ok(Flow::Broken(error)) => {
                tracing::debug!(endpoint = attempt.member.endpoint.label(), ?error, "response cut");
                return cut(attempt, ends_by_close);
            }
            Err(Elapsed) => return cut(attempt, ends_by_close),
        }
        over_at = clock::now();
        download.into_rest()
    };
    let over = body.is_over();
    // A connection with bytes beyond the answer would give them to somebody else.
    if response.keep_alive && over && !until_close && rest.is_empty() {
        attempt::keep(attempt, answer.link, over_at);
    }
    worker.buffers.give_back(rest);
    Ending::Done(match () {
        () if keep_alive && over => Next::KeepAlive,
        () if over => Next::Close,
        () => Next::Linger,
    })
}

/// The answer had begun: the connection is cut so that it can't look whole.
fn cut(attempt: &Attempt<'_>, ends_by_close: bool) -> Ending {
    remember_cut(attempt);
    // Where the end of the connection ends the body, an ordinary end would be a lie.
    Ending::Done(if ends_by_close { Next::Reset } else { Next::Close })
}

/// Counts an answer that broke, and sends the next request elsewhere.
fn remember_cut(attempt: &Attempt<'_>) {
    let worker = &*attempt.request.connection.worker;
    attempt.member.endpoint.stats.of(worker.id).failures[Failure::Truncated as usize].inc();
    attempt.request.listener.stats.of(worker.id).aborted.inc();
    let now = clock::now();
    let until = now.saturating_add(attempt.request.split.pool.fail_timeout);
    worker.absences.borrow_mut().leave_out(attempt.request.scope, attempt.member.endpoint.number, now, until);
}

enum Flow {
    Whole,
    VisitorGone,
    Broken(RelayError),
}

enum Upload {
    /// Complete, or the endpoint wants no more of it: its answer decides.
    Over,
    VisitorGone,
}

fn poll_upload(
    cx: &mut Context<'_>,
    body: &mut Body,
    buffers: &Buffers,
    from_visitor: &mut ReadSide<'_>,
    to_endpoint: &mut WriteSide<'_>,
    moved: &mut u64,
) -> Poll<Upload> {
    let Some(upload) = &mut body.upload else { return Poll::Ready(Upload::Over) };
    upload.poll(cx, buffers, from_visitor, to_endpoint, moved).map(|end| match end {
        Ok(()) | Err(RelayError::Sink(_)) => Upload::Over,
        // A request that turns out malformed in the middle ends here as well; the answer has begun.
        Err(_) => Upload::VisitorGone,
    })
}
