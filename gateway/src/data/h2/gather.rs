//! Writes of one turn in one go.
//!
//! The h2 crate writes and flushes frame by frame. Here they gather, and leave when the connection's task has nothing more to
//! do: answers of several streams then share a system call and a TLS record.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, IoSlice},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::guard::Guard;
use crate::data::{buffer::Buffer, stream::Stream};

/// Bytes that may wait here. More wait in the streams' buffers.
const MOST: usize = 64 * 1024;
/// An empty buffer above this is given back.
const KEEP: usize = 16 * 1024;

/// A connection whose writes are gathered; both clones are the same connection, polled by one task.
#[derive(Debug, Clone)]
pub struct Gather(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    stream: Stream,
    /// Was read before.
    ahead: Buffer,
    waiting: Vec<u8>,
    /// Leading bytes of `waiting` that are sent.
    sent: usize,
    guard: Guard,
}

impl Gather {
    /// Gathers for this connection, of which `ahead` was read before.
    #[must_use]
    pub fn new(stream: Stream, ahead: Buffer) -> Self {
        let guard = Guard::new(Instant::now());
        Self(Rc::new(RefCell::new(Inner { stream, ahead, waiting: Vec::new(), sent: 0, guard })))
    }

    /// Whether the visitor has sent too many frames that bring nothing. Nothing more is read then.
    #[must_use]
    pub fn is_flooded(&self) -> bool {
        self.0.borrow().guard.is_flooded()
    }

    /// Sends what has gathered.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }

    /// Sends the rest, and ends our direction.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn finish(&self) -> io::Result<()> {
        poll_fn(|cx| {
            let mut inner = self.0.borrow_mut();
            ready!(inner.poll_send(cx))?;
            Pin::new(&mut inner.stream).poll_shutdown(cx)
        })
        .await
    }
}

/// Runs `work`, and sends whatever it has written each time it waits.
pub async fn sending<F: Future>(gather: &Gather, work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => {
            // An error shows at the next read or write.
            drop(gather.poll_send(cx));
            Poll::Pending
        }
    })
    .await
}

impl Inner {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.waiting.len() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        self.sent = 0;
        self.waiting.clear();
        if self.waiting.capacity() > KEEP {
            self.waiting = Vec::new();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn take(&mut self, bytes: &[u8]) {
        self.guard.goes(bytes, Instant::now);
        self.waiting.extend_from_slice(bytes);
    }

    /// Makes room for at least one byte.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.len() < MOST { Poll::Ready(Ok(())) } else { self.poll_send(cx) }
    }
}

impl AsyncRead for Gather {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        if inner.guard.is_flooded() {
            // The connection's task asks for that after each turn, so nobody needs to be woken.
            return Poll::Pending;
        }
        let before = into.filled().len();
        if inner.ahead.is_empty() {
            ready!(Pin::new(&mut inner.stream).poll_read(cx, into))?;
        } else {
            let n = into.remaining().min(inner.ahead.len());
            into.put_slice(&inner.ahead.filled()[..n]);
            inner.ahead.consume(n);
            if inner.ahead.is_empty() {
                inner.ahead = Buffer::default();
            }
        }
        inner.guard.came(&into.filled()[before..], Instant::now);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gather {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_room(cx))?;
        inner.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_room(cx))?;
        parts.iter().for_each(|part| inner.take(part));
        Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The connection's task flushes ([`Gather::poll_send`]): not after every frame.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}
