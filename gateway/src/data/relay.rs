//! One body on its way: read here, checked, written there, never held.
//!
//! The same machine carries request bodies (visitor → endpoint) and response bodies (endpoint → visitor). It forwards
//! only bytes whose framing it has checked, so a broken chunk line never reaches the other side.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::buffer::{Buffer, Buffers, SMALL};
use crate::http1::{Chunk, ChunkError, ChunkedDecoder};

/// How the end of a body is known.
#[derive(Debug)]
pub enum Framing {
    /// This many more bytes.
    Length(u64),
    /// Chunked coding.
    Chunked(ChunkedDecoder),
    /// The source closes.
    UntilClose,
}

/// Why a body did not arrive whole.
#[derive(Debug)]
pub enum RelayError {
    /// Reading failed.
    Source(io::Error),
    /// The source ended before the body did.
    SourceEnded,
    /// The chunked framing is broken.
    Invalid(ChunkError),
    /// More bytes than allowed.
    TooLarge,
    /// Writing failed.
    Sink(io::Error),
}

/// A body in transit.
#[derive(Debug)]
pub struct Relay {
    framing: Framing,
    buffer: Buffer,
    /// Leading bytes of `buffer` that are checked and may be written.
    ready: usize,
    /// The last byte of the body has been read and checked.
    whole: bool,
    /// Write only the payload, not the chunk framing.
    strip: bool,
    /// Bytes of the body read so far, framing included.
    read: u64,
    limit: Option<u64>,
    /// The last read filled all the space there was: a larger buffer pays.
    filled_up: bool,
    /// Neither read nor checked anything since it was made.
    untouched: bool,
}

impl Framing {
    /// Checks how much of `input` belongs to the body, without consuming it: (bytes, whether that is all of it).
    ///
    /// # Errors
    /// The chunked framing is broken.
    pub fn advance(&mut self, input: &[u8]) -> Result<(usize, bool), ChunkError> {
        match self {
            Self::Length(left) => {
                let n = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= n as u64;
                Ok((n, *left == 0))
            }
            Self::Chunked(decoder) => decoder.scan(input).map(|scan| (scan.consumed, scan.done)),
            Self::UntilClose => Ok((input.len(), false)),
        }
    }
}

impl Relay {
    /// A body whose unread rest is framed by `framing`; `buffer` holds what was read after the checked part.
    #[must_use]
    pub fn new(framing: Framing, buffer: Buffer, already_read: u64, limit: Option<u64>) -> Self {
        let whole = matches!(framing, Framing::Length(0));
        Self {
            framing,
            buffer,
            ready: 0,
            whole,
            strip: false,
            read: already_read,
            limit,
            filled_up: false,
            untouched: true,
        }
    }

    /// Writes the payload only: for peers that don't know chunked coding.
    #[must_use]
    pub fn stripped(mut self) -> Self {
        self.strip = true;
        self
    }

    /// Bytes of the body read so far, framing included.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Whether nothing has been read since it was made, so that all there is to send is still at hand elsewhere.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// Whether the last byte has been written.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.whole && self.ready == 0
    }

    /// What was read beyond the body, to be used for what comes next.
    #[must_use]
    pub fn into_rest(self) -> Buffer {
        self.buffer
    }

    /// Moves bytes until the body is over (`Ready(Ok)`) or neither side is ready. Adds to `moved` for each byte.
    ///
    /// # Errors
    /// See [`RelayError`]. What was checked before has been written as far as the sink took it.
    pub fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        source: &mut R,
        sink: &mut W,
        moved: &mut u64,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            if self.ready > 0 {
                let ready = &self.buffer.filled()[..self.ready];
                let n = ready!(Pin::new(&mut *sink).poll_write(cx, ready)).map_err(RelayError::Sink)?;
                if n == 0 {
                    return Poll::Ready(Err(RelayError::Sink(io::ErrorKind::WriteZero.into())));
                }
                *moved += n as u64;
                self.ready -= n;
                self.buffer.consume(n);
                continue;
            }
            if self.whole {
                return Pin::new(sink).poll_flush(cx).map_err(RelayError::Sink);
            }
            if self.check()? {
                continue;
            }
            // What the sink keeps back doesn't wait for more to come.
            if let Poll::Ready(Err(error)) = Pin::new(&mut *sink).poll_flush(cx) {
                return Poll::Ready(Err(RelayError::Sink(error)));
            }
            self.make_space(buffers);
            let space = self.buffer.capacity() - self.buffer.len();
            let n = ready!(self.buffer.poll_fill(cx, source)).map_err(RelayError::Source)?;
            if n == 0 {
                if matches!(self.framing, Framing::UntilClose) {
                    self.whole = true;
                    continue;
                }
                return Poll::Ready(Err(RelayError::SourceEnded));
            }
            *moved += n as u64;
            self.untouched = false;
            self.filled_up = n == space;
        }
    }

    /// Checks what has been read; whether that made progress.
    fn check(&mut self) -> Result<bool, RelayError> {
        // Stripping, the last framing is consumed before the decoder is asked whether that was the end.
        if self.buffer.is_empty() && !self.strip {
            return Ok(false);
        }
        let (consumed, whole) = if let (true, Framing::Chunked(decoder)) = (self.strip, &mut self.framing) {
            match decoder.next(self.buffer.filled()).map_err(RelayError::Invalid)? {
                Chunk::Data(n) => {
                    self.ready = n;
                    (n, false)
                }
                Chunk::Framing(n) => {
                    self.buffer.consume(n);
                    (n, false)
                }
                Chunk::NeedMore => (0, false),
                Chunk::Done => (0, true),
            }
        } else {
            let (n, whole) = self.framing.advance(self.buffer.filled()).map_err(RelayError::Invalid)?;
            self.ready = n;
            (n, whole)
        };
        self.whole = whole;
        self.read += consumed as u64;
        if self.limit.is_some_and(|limit| self.read > limit) {
            self.ready = 0;
            return Err(RelayError::TooLarge);
        }
        Ok(consumed > 0 || whole)
    }

    fn make_space(&mut self, buffers: &Buffers) {
        if self.buffer.is_empty() && self.filled_up && self.buffer.capacity() <= SMALL {
            buffers.give_back(std::mem::replace(&mut self.buffer, buffers.large()));
        } else if self.buffer.capacity() == 0 {
            self.buffer = buffers.small();
        } else if self.buffer.is_full() {
            // Only an unfinished chunk or trailer line can fill a buffer, and the decoder bounds those.
            let larger = self.buffer.capacity() * 2;
            self.buffer.grow(larger);
        }
    }
}
