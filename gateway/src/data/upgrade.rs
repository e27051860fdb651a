//! After `101 Switching Protocols`: bytes in both directions until both have ended.

use std::{pin::Pin, task::Poll};

use tokio::io::AsyncWrite;

use super::{
    buffer::Buffer,
    connection::Next,
    exchange::{Report, Request},
    frames::{CLOSE_RESTART, Frames, Tap},
    io::{while_moving, write_both},
    relay::{Framing, Relay, RelayError},
    stream::{ReadSide, Stream, WriteSide},
};
use crate::{
    http1::{Known, RequestHead},
    snapshot::Endpoint,
};

/// Whether the visitor asks for HTTP/2 in clear text. That is never passed on: what follows would bypass the routes
/// (h2c smuggling). The request is served as HTTP/1.1, which RFC 9110 §7.8 allows.
#[must_use]
pub fn is_h2c(head: &RequestHead, wire: &[u8]) -> bool {
    head.fields
        .iter()
        .filter(|field| field.known == Known::Upgrade)
        .any(|field| field.value.of(wire).to_ascii_lowercase().windows(3).any(|token| token == b"h2c"))
}

/// Both sockets.
#[derive(Debug)]
pub struct Sides<'a> {
    /// The visitor's.
    pub visitor: &'a mut Stream,
    /// The endpoint's.
    pub endpoint: &'a mut Stream,
    /// Whose it is.
    pub whose: &'a Endpoint,
}

/// Whether a WebSocket is asked for.
#[must_use]
pub fn is_websocket(head: &RequestHead, wire: &[u8]) -> bool {
    head.fields
        .iter()
        .any(|field| field.known == Known::Upgrade && field.value.of(wire).eq_ignore_ascii_case(b"websocket"))
}

/// Carries an upgraded connection to its end. After `head` in `wire` is what the visitor sent ahead, `incoming` is what the endpoint
/// did. A WebSocket whose tunnel is moved ends with a Close frame.
pub async fn run(
    request: &Request<'_>,
    sides: Sides<'_>,
    (head, wire): (&RequestHead, &[u8]),
    homeward: &[u8],
    incoming: Buffer,
    report: &mut Report,
) -> Next {
    let early = &wire[head.len..];
    let mut frames = is_websocket(head, wire).then(Frames::default);
    let whose = sides.whose;
    let worker = &*request.connection.worker;
    let idle = request.listener.timeouts.stream_idle;
    let (mut from_visitor, mut to_visitor) = sides.visitor.split();
    let (mut from_endpoint, mut to_endpoint) = sides.endpoint.split();
    let mut sent = 0;
    if write_both(&mut to_visitor, homeward, &[], &mut sent).await.is_err() {
        return Next::Close;
    }
    let mut ahead = worker.buffers.small();
    if ahead.append(early) < early.len() {
        ahead.grow(early.len());
        let have = ahead.len();
        ahead.append(&early[have..]);
    }
    let stats = request.listener.stats.of(worker.id);
    stats.upgraded.inc();
    let mut up = Direction::new(Relay::new(Framing::UntilClose, ahead, 0, None));
    let mut down = Direction::new(Relay::new(Framing::UntilClose, incoming, 0, None));
    let end = while_moving(idle, |cx, moved| {
        let up_end = up.poll(cx, &worker.buffers, &mut from_visitor, &mut to_endpoint, None, moved);
        let frames = frames.as_mut().map(|frames| (frames, whose));
        let down_end = down.poll(cx, &worker.buffers, &mut from_endpoint, &mut to_visitor, frames, moved);
        // Who has been told goodbye needs nothing more from us.
        if down.farewell > 0 && down_end.is_ready() {
            return Poll::Ready(true);
        }
        match (up_end, down_end) {
            (Poll::Ready(Err(())), _) | (_, Poll::Ready(Err(()))) => Poll::Ready(false),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(true),
            _ => Poll::Pending,
        }
    })
    .await;
    stats.upgraded.dec();
    report.bytes = down.relay.read();
    worker.buffers.give_back(up.relay.into_rest());
    let farewell = down.farewell > 0;
    worker.buffers.give_back(down.relay.into_rest());
    match end {
        // Whatever the visitor still sends must not reset the goodbye away.
        Ok(true) if farewell => Next::Linger,
        Ok(true) => Next::Close,
        // Broken or silent for too long: the end must not look like one that was meant.
        Ok(false) | Err(_) => Next::Reset,
    }
}

/// One direction; its end is passed on as a half-close.
struct Direction {
    relay: Relay,
    shut: bool,
    /// Bytes of [`CLOSE_RESTART`] that were sent.
    farewell: usize,
}

impl Direction {
    fn new(relay: Relay) -> Self {
        Self { relay, shut: false, farewell: 0 }
    }

    fn poll(
        &mut self,
        cx: &mut std::task::Context<'_>,
        buffers: &super::buffer::Buffers,
        from: &mut ReadSide<'_>,
        to: &mut WriteSide<'_>,
        mut frames: Option<(&mut Frames, &Endpoint)>,
        moved: &mut u64,
    ) -> Poll<Result<(), ()>> {
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        let mut tap = Tap { sink: &mut *to, frames: frames.as_mut().map(|(frames, _)| &mut **frames) };
        let relayed = match self.farewell {
            0 => std::task::ready!(self.relay.poll(cx, buffers, from, &mut tap, moved)),
            _ => Ok(()),
        };
        // Cut because its tunnel moves: the visitor shall know that it may come back at once.
        let moves = frames.is_some_and(|(frames, whose)| {
            (whose.is_leaving() || whose.is_gone())
                && frames.may_close()
                && !matches!(relayed, Err(RelayError::Sink(_)))
        });
        while (moves || self.farewell > 0) && self.farewell < CLOSE_RESTART.len() {
            let rest = &CLOSE_RESTART[self.farewell..];
            match std::task::ready!(Pin::new(&mut *to).poll_write(cx, rest)) {
                Ok(n) if n > 0 => self.farewell += n,
                Ok(_) | Err(_) => return Poll::Ready(Err(())),
            }
        }
        let relayed = if self.farewell > 0 { Ok(()) } else { relayed };
        match relayed {
            Ok(()) => {
                let shut = Pin::new(to).poll_shutdown(cx);
                self.shut = shut.is_ready();
                shut.map(|end| end.map_err(|_broken| ()))
            }
            Err(_) => Poll::Ready(Err(())),
        }
    }
}
