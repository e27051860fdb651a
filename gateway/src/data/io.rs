//! Waiting and writing on sockets, with deadlines.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::AsyncWrite;

/// Ends a wait at `deadline` (never, when `None`).
///
/// # Errors
/// `Elapsed` when the deadline came first.
pub async fn until<F: Future>(deadline: Option<Instant>, wait: F) -> Result<F::Output, Elapsed> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), wait).await.map_err(|_elapsed| Elapsed),
        None => Ok(wait.await),
    }
}

/// Ends a wait at `deadline` (never, when `None`), which is reckoned only if there is something to wait for: most writes,
/// and reads of what is known to have come, are over at once, and need neither the time nor a timer.
///
/// # Errors
/// `Elapsed` when the deadline came first.
pub async fn unless_done<F: Future>(
    deadline: impl FnOnce() -> Option<Instant>,
    wait: F,
) -> Result<F::Output, Elapsed> {
    let mut wait = pin!(wait);
    match poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx))).await {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => until(deadline(), wait).await,
    }
}

/// The earlier of two deadlines, if there is any.
#[must_use]
pub fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// A deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// Writes two slices one after the other, in as few calls as the socket allows, and flushes.
///
/// `sent` tells how many bytes left so far, also when this fails.
///
/// # Errors
/// Those of the socket; `WriteZero` when it takes nothing.
pub async fn write_both<W: AsyncWrite + Unpin>(
    to: &mut W,
    first: &[u8],
    second: &[u8],
    sent: &mut usize,
) -> io::Result<()> {
    poll_fn(|cx| poll_write_both(cx, to, first, second, sent)).await
}

/// Poll form of [`write_both`].
///
/// # Errors
/// As [`write_both`].
pub fn poll_write_both<W: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    to: &mut W,
    first: &[u8],
    second: &[u8],
    sent: &mut usize,
) -> Poll<io::Result<()>> {
    while *sent < first.len() + second.len() {
        let written = if *sent >= first.len() {
            ready!(Pin::new(&mut *to).poll_write(cx, &second[*sent - first.len()..]))?
        } else if second.is_empty() {
            ready!(Pin::new(&mut *to).poll_write(cx, &first[*sent..]))?
        } else {
            let parts = [IoSlice::new(&first[*sent..]), IoSlice::new(second)];
            ready!(Pin::new(&mut *to).poll_write_vectored(cx, &parts))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        *sent += written;
    }
    Pin::new(to).poll_flush(cx)
}

/// Repeats a wait of at most `idle` for as long as bytes move: `moved` is read before and after each wait.
///
/// # Errors
/// `Elapsed` when nothing moved for a whole `idle`.
pub async fn while_moving<T>(
    idle: Duration,
    mut moved: impl FnMut(&mut Context<'_>, &mut u64) -> Poll<T>,
) -> Result<T, Elapsed> {
    let mut total = 0;
    loop {
        let before = total;
        let step = poll_fn(|cx| moved(cx, &mut total));
        match unless_done(|| Some(Instant::now() + idle), step).await {
            Ok(done) => return Ok(done),
            Err(_elapsed) if total == before => return Err(Elapsed),
            Err(_elapsed) => {}
        }
    }
}
