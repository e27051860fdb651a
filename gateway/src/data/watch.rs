//! Notices that a visitor has gone while its answer is under way.

use std::{
    cell::Cell,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{buffer::Buffer, stream::ReadSide};

/// A visitor who ends its direction this soon after its request has merely finished sending (`nc -N`, HTTP/1.0
/// clients) and still wants the answer. An end that comes later is a visitor who has gone: both look alike on the
/// wire, and browsers close in mid-wait, not right after sending.
const HALF_CLOSE_GRACE: Duration = Duration::from_millis(200);

/// Watches the visitor's direction after its request is complete.
#[derive(Debug)]
pub struct Watch<'a> {
    begun: Instant,
    half_closed: &'a Cell<bool>,
}

impl<'a> Watch<'a> {
    /// Watches a visitor whose request was complete at `begun`. `half_closed` is one for all waits of a request: who has
    /// finished sending in the first of them has not gone in the second.
    #[must_use]
    pub fn new(begun: Instant, half_closed: &'a Cell<bool>) -> Self {
        Self { begun, half_closed }
    }

    /// Whether the visitor has ended its direction: no further request will come.
    #[must_use]
    pub fn is_half_closed(&self) -> bool {
        self.half_closed.get()
    }

    /// `Ready` when the visitor has gone. Requests that it sends ahead are kept in `buffer` as far as they fit.
    pub fn poll(&mut self, cx: &mut Context<'_>, from: &mut ReadSide<'_>, buffer: &mut Buffer) -> Poll<()> {
        while !self.half_closed.get() && !buffer.is_full() {
            match buffer.poll_fill(cx, from) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(Ok(_)) if self.begun.elapsed() < HALF_CLOSE_GRACE => self.half_closed.set(true),
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }
}
