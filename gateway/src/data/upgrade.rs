//! After `101 Switching Protocols`: bytes in both directions until both have ended.

use std::{pin::Pin, task::Poll};

use tokio::{io::AsyncWrite, net::TcpStream};

use super::{
    buffer::Buffer,
    connection::Next,
    exchange::{Report, Request},
    io::{while_moving, write_both},
    relay::{Framing, Relay},
};
use crate::http1::{Known, RequestHead};

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
    pub visitor: &'a mut TcpStream,
    /// The endpoint's.
    pub endpoint: &'a mut TcpStream,
}

/// Carries an upgraded connection to its end. `early` is what the visitor sent ahead, `incoming` what the endpoint did.
pub async fn run(
    request: &Request<'_>,
    sides: Sides<'_>,
    homeward: &[u8],
    early: &[u8],
    incoming: Buffer,
    report: &mut Report,
) -> Next {
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
        let up_end = up.poll(cx, &worker.buffers, &mut from_visitor, &mut to_endpoint, moved);
        let down_end = down.poll(cx, &worker.buffers, &mut from_endpoint, &mut to_visitor, moved);
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
    worker.buffers.give_back(down.relay.into_rest());
    match end {
        Ok(true) => Next::Close,
        // Broken or silent for too long: the end must not look like one that was meant.
        Ok(false) | Err(_) => Next::Reset,
    }
}

/// One direction; its end is passed on as a half-close.
struct Direction {
    relay: Relay,
    shut: bool,
}

impl Direction {
    fn new(relay: Relay) -> Self {
        Self { relay, shut: false }
    }

    fn poll(
        &mut self,
        cx: &mut std::task::Context<'_>,
        buffers: &super::buffer::Buffers,
        from: &mut tokio::net::tcp::ReadHalf<'_>,
        to: &mut tokio::net::tcp::WriteHalf<'_>,
        moved: &mut u64,
    ) -> Poll<Result<(), ()>> {
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        match self.relay.poll(cx, buffers, from, to, moved) {
            Poll::Ready(Ok(())) => {
                let shut = Pin::new(to).poll_shutdown(cx);
                self.shut = shut.is_ready();
                shut.map(|end| end.map_err(|_broken| ()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(())),
            Poll::Pending => Poll::Pending,
        }
    }
}
