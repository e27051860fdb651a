//! One direction of a relayed connection: bytes read here, written there, never held longer than it takes.
//!
//! A buffer is lent by the worker when bytes have arrived and given back when all are written, so a silent connection costs
//! its two sockets and its task.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::AsyncWrite,
    net::tcp::{ReadHalf, WriteHalf},
};

use crate::data::buffer::{Buffer, Buffers, SMALL};

/// One direction.
#[derive(Debug, Default)]
pub struct Pump {
    buffer: Buffer,
    /// The last read filled all the space there was: a large buffer pays.
    filled_up: bool,
    ended: bool,
    state: State,
    read: u64,
    written: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The end has been passed on.
    Over,
    /// The other side takes nothing any more.
    Deaf,
}

/// The source was reset, or broke otherwise.
#[derive(Debug)]
pub struct Broken(pub io::Error);

impl Pump {
    /// A direction of which `ahead` has been read already.
    #[must_use]
    pub fn with(ahead: Buffer) -> Self {
        Self { read: ahead.len() as u64, buffer: ahead, ..Self::default() }
    }

    /// Bytes read so far.
    #[must_use]
    pub const fn read(&self) -> u64 {
        self.read
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Whether the source has ended.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the sink stopped taking bytes before the source had ended.
    #[must_use]
    pub fn is_deaf(&self) -> bool {
        self.state == State::Deaf
    }

    /// Gives the buffer back.
    pub fn release(&mut self, buffers: &Buffers) {
        buffers.give_back(std::mem::take(&mut self.buffer));
    }

    /// Moves bytes until the end has been passed on as a half-close, the sink takes no more ([`Pump::is_deaf`]), or neither
    /// side is ready. Adds to `moved` for each byte.
    ///
    /// # Errors
    /// The source broke; what was read before may not have been written.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        source: &mut ReadHalf<'_>,
        sink: &mut WriteHalf<'_>,
        moved: &mut u64,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if self.state != State::Open {
                return Poll::Ready(Ok(()));
            }
            if !self.buffer.is_empty() {
                match ready!(Pin::new(&mut *sink).poll_write(cx, self.buffer.filled())) {
                    Ok(n) if n > 0 => {
                        self.buffer.consume(n);
                        self.written += n as u64;
                        *moved += n as u64;
                    }
                    Ok(_) | Err(_) => self.end(State::Deaf, buffers),
                }
                continue;
            }
            if self.ended {
                let shut = ready!(Pin::new(&mut *sink).poll_shutdown(cx));
                self.end(if shut.is_ok() { State::Over } else { State::Deaf }, buffers);
                continue;
            }
            match source.as_ref().poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken(error))),
                Poll::Pending => {
                    self.release(buffers);
                    return Poll::Pending;
                }
            }
            self.make_space(buffers);
            let space = self.buffer.capacity();
            match self.buffer.poll_fill(cx, source) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(n)) => {
                    self.read += n as u64;
                    *moved += n as u64;
                    self.filled_up = n == space;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken(error))),
                Poll::Pending => {
                    self.release(buffers);
                    return Poll::Pending;
                }
            }
        }
    }

    fn make_space(&mut self, buffers: &Buffers) {
        if self.filled_up && self.buffer.capacity() <= SMALL {
            self.release(buffers);
            self.buffer = buffers.large();
        } else if self.buffer.capacity() == 0 {
            self.buffer = buffers.small();
        }
    }

    fn end(&mut self, state: State, buffers: &Buffers) {
        self.state = state;
        self.release(buffers);
    }
}
