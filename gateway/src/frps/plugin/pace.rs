//! A deadline for the head of a request that begins with its first byte.
//!
//! hyper's own deadline counts the silence before a head, too: short, it would close the kept connections of an frps, and a
//! close that crosses its next call refuses a proxy for 30 seconds; long, it lets a slow head hold a connection.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::{Sleep, sleep};

/// Whose turn it is on one connection. Even: a head is awaited; odd: we read its body, or answer.
///
/// It counts rather than toggles: a whole call can pass between two reads, and the deadline of its head must not stay.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicU64);

/// It is our turn, until this is dropped.
#[derive(Debug)]
pub(super) struct Answering(Arc<Turn>);

impl Turn {
    /// A head is complete.
    #[must_use]
    pub(super) fn answering(self: &Arc<Self>) -> Answering {
        self.0.fetch_add(1, Relaxed);
        Answering(Arc::clone(self))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Relaxed);
    }
}

/// A connection whose reads fail with [`io::ErrorKind::TimedOut`] once a head has taken too long.
#[derive(Debug)]
pub(super) struct Paced<I> {
    io: I,
    turn: Arc<Turn>,
    patience: Duration,
    /// Of the head that has begun, and the turn it belongs to.
    deadline: Option<(u64, Pin<Box<Sleep>>)>,
}

impl<I> Paced<I> {
    /// `patience`: from the first byte of a head to its last.
    pub(super) fn new(io: I, turn: Arc<Turn>, patience: Duration) -> Self {
        Self { io, turn, patience, deadline: None }
    }
}

impl<I: Read + Unpin> Read for Paced<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let turn = this.turn.0.load(Relaxed);
        if this.deadline.as_ref().is_some_and(|(of, _)| *of != turn) {
            this.deadline = None;
        }
        if let Some((_, deadline)) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        // hyper reads again until nothing is left, which then polls this deadline.
        if matches!(read, Poll::Ready(Ok(()))) && turn.is_multiple_of(2) && this.deadline.is_none() {
            this.deadline = Some((turn, Box::pin(sleep(this.patience))));
        }
        read
    }
}

impl<I: Write + Unpin> Write for Paced<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    // Both passed on: with them head and body leave in one packet.
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}
