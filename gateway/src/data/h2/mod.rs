//! HTTP/2 from visitors (RFC 9113): one task per connection reads and writes its frames, one per stream serves its request.
//!
//! A stream is a conversation in HTTP/1 ([`visit::Visit`]), so that every request takes the one request path. Streams of a
//! connection are balanced each for itself. Framing, flow control and their limits are the h2 crate's; what it would write one
//! frame at a time is gathered ([`gather::Gather`]), and who floods us with what it doesn't count is cut off
//! ([`guard::Guard`]).

pub mod gather;
pub mod guard;
pub mod render;
pub mod visit;

use std::{future::poll_fn, pin::pin, rc::Rc, sync::Arc, task::Poll, time::Duration};

use ::h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use ::http::Request;
use bytes::Bytes;
use frp_gateway_config::model::Http2;
use tokio::{task::JoinSet, time::Instant};

use self::{gather::Gather, visit::Visit};
use super::{
    buffer::Buffer,
    connection::{Connection, Next},
    http,
    stream::Stream,
};
use crate::snapshot::Listener;

/// Bytes of a request's body that a visitor may send before they are taken: enough for 100 ms at 20 Mbit/s.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all streams of a connection together, which bounds the memory that one connection can take.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What small DATA frames that wait for a slow application may cost (256 bytes less their length, each): 16,000 messages of a
/// few bytes. Each takes some 200 bytes of ours, so a connection takes 3 MiB at most. Beyond that it ends, all its streams with
/// it; the h2 crate's own 2,000 are what a stream of gRPC sends in a second.
const SMALL_FRAMES: usize = 4 * 1024 * 1024;
/// Bytes of answers that wait for the visitor's window, per stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a visitor resets before we have looked at them (rapid reset, CVE-2023-44487), and those that we have reset
/// and remember.
const RESETS: usize = 64;
/// Streams that we reset for a visitor's mistakes in the whole life of a connection. How fast is [`guard`]'s.
const MISTAKES: usize = 1024;
/// Streams that we have reset are remembered for this long: frames may be on their way.
const RESET_MEMORY: Duration = Duration::from_secs(5);

/// What an HTTP/2 connection begins with (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection whose visitor speaks HTTP/2 until it ends. `ahead` has been read already.
pub async fn serve(connection: Connection, stream: Stream, ahead: Buffer, settings: &Http2) {
    let connection = Rc::new(connection);
    let listener = Arc::clone(connection.listener());
    let gather = Gather::new(stream, ahead);
    let handshake = server::Builder::new()
        .max_concurrent_streams(settings.max_streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(listener.limits.head_bytes).unwrap_or(u32::MAX))
        .data_frame_budget(SMALL_FRAMES)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESETS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(Some(MISTAKES))
        .reset_stream_duration(RESET_MEMORY)
        .enable_connect_protocol()
        .handshake::<_, Bytes>(gather.clone());
    connection.presence.idle.set(true);
    let shaken = tokio::time::timeout(listener.timeouts.header, gather::sending(&gather, handshake)).await;
    let Ok(Ok(mut frames)) = shaken else { return };
    let mut streams = JoinSet::new();
    let mut idle = pin!(tokio::time::sleep(listener.timeouts.header.min(listener.timeouts.idle)));
    let mut phase = Phase::Open;
    let end = poll_fn(|cx| {
        loop {
            while let Poll::Ready(Some(_)) = streams.poll_join_next(cx) {
                if streams.is_empty() {
                    let wait = if phase == Phase::Open { listener.timeouts.idle } else { LAST_WORDS };
                    idle.as_mut().reset(Instant::now() + wait);
                }
            }
            connection.presence.idle.set(streams.is_empty());
            let told = connection.presence.closing.get() || connection.presence.is_leaving(cx);
            let late = (streams.is_empty() || phase == Phase::Over) && idle.as_mut().poll(cx).is_ready();
            let next = match phase {
                Phase::Open | Phase::Leaving if gather.is_flooded() => {
                    frames.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    Phase::Over
                }
                Phase::Open if told || late => {
                    frames.graceful_shutdown();
                    Phase::Leaving
                }
                // A visitor who doesn't answer the last PING isn't waited for.
                Phase::Leaving if late => {
                    frames.abrupt_shutdown(Reason::NO_ERROR);
                    Phase::Over
                }
                // Nor is one who takes nothing.
                Phase::Over if late => return Poll::Ready(Ok(())),
                Phase::Open | Phase::Leaving | Phase::Over => phase,
            };
            if next != phase {
                phase = next;
                idle.as_mut().reset(Instant::now() + LAST_WORDS);
                continue;
            }
            match frames.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    streams.spawn_local(one(Rc::clone(&connection), request, respond));
                    connection.presence.idle.set(false);
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending if gather.is_flooded() && phase != Phase::Over => {}
                Poll::Pending => {
                    if let Poll::Ready(Err(error)) = gather.poll_send(cx) {
                        tracing::debug!(%error, "the visitor takes nothing any more");
                        return Poll::Ready(Ok(()));
                    }
                    return Poll::Pending;
                }
            }
        }
    })
    .await;
    let peer = connection.peer;
    let calmed =
        |error: &::h2::Error| error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
    if gather.is_flooded() || end.as_ref().is_err_and(calmed) {
        listener.stats.of(connection.worker.id).http2_floods.inc();
        tracing::debug!(%peer, listener = %listener.name, "HTTP/2 connection ended: a flood of frames");
    } else if let Err(error) = end {
        tracing::debug!(%peer, %error, "HTTP/2 connection ended");
    }
    // The last frames say why.
    drop(tokio::time::timeout(LAST_WORDS, gather.finish()).await);
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It takes requests.
    Open,
    /// The visitor has been told to send no more (GOAWAY).
    Leaving,
    /// Nothing is served any more; the visitor may take the last frames.
    Over,
}

/// Longest wait for a visitor to take the last frames.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves one stream.
async fn one(connection: Rc<Connection>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let worker = Rc::clone(&connection.worker);
    let visit = match Visit::new(request, respond) {
        Ok(visit) => visit,
        Err(mut respond) => {
            respond.send_reset(Reason::PROTOCOL_ERROR);
            return;
        }
    };
    let mut stream = Stream::from(visit);
    let snapshot = worker.snapshot();
    let present = snapshot.listeners.get(connection.slot()).and_then(Option::as_ref);
    let listener: &Arc<Listener> = present.unwrap_or(connection.listener());
    let mut buffer = worker.buffers.small();
    let mut scratch = worker.take_scratch();
    let next =
        Box::pin(http::exchange(&connection, &snapshot, listener, &mut stream, &mut buffer, &mut scratch))
            .await;
    worker.give_back(scratch);
    worker.buffers.give_back(buffer);
    finish(stream, next).await;
}

/// Ends a stream as its exchange ended.
async fn finish(mut stream: Stream, next: Next) {
    match next {
        Next::KeepAlive | Next::Close | Next::Linger => {
            use tokio::io::AsyncWriteExt as _;
            // What isn't whole is reset when it is dropped.
            drop(stream.shutdown().await);
            // So is a request that doesn't end in time after its answer. Mostly it has ended long ago: no timer for that.
            if let Stream::Shared(visit) = &stream {
                let ended = poll_fn(|cx| Poll::Ready(visit.borrow_mut().poll_rest(cx).is_ready())).await;
                if !ended {
                    let rest = poll_fn(|cx| visit.borrow_mut().poll_rest(cx));
                    drop(tokio::time::timeout(LAST_WORDS, rest).await);
                }
            }
        }
        Next::Reset => stream.reset_on_close(),
    }
}
