//! Chunked transfer coding (RFC 9112 §7.1), strictly.
//!
//! Payload is never looked at: a chunk of any size costs the same. Lines are read again from their start while they are
//! incomplete; they are bounded.

use std::fmt;

use super::{
    error::{HeadError, Stop},
    field::{Line, read_line},
    token::{VISIBLE, end_of},
};

/// Digits of a chunk size. Leading zeros count.
const MAX_DIGITS: usize = 16;
/// Extensions of one chunk with their semicolons, bytes.
const MAX_EXTENSION: usize = 256;
/// Extensions of a whole body, bytes: nobody needs them, floods are made of them.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Trailer section with its line ends, bytes.
const MAX_TRAILER_BYTES: usize = 16 * 1024;
/// Trailer fields.
const MAX_TRAILERS: usize = 64;

/// Finds its way through a chunked body; keeps its place between calls.
#[derive(Debug, Clone, Default)]
pub struct ChunkedDecoder {
    state: State,
    extensions: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// A chunk line begins.
    #[default]
    Line,
    /// This many payload bytes follow (more than 0).
    Data(u64),
    /// The CRLF after a chunk's payload.
    DataEnd,
    /// Trailers, or the empty line.
    Trailers,
    /// The body is over.
    Done,
}

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// The next n bytes are payload (n > 0).
    Data(usize),
    /// The next n bytes are chunk lines, line ends or trailers (n > 0).
    Framing(usize),
    /// A line is not complete.
    NeedMore,
    /// The body is over; what follows is not part of it.
    Done,
}

/// How far a buffer has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Bytes that belong to the body and are right.
    pub consumed: usize,
    /// The body ends there.
    pub done: bool,
}

/// Broken chunked framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkError {
    /// The size is not 1 to 16 hex digits, or above 2^63 − 1, or something other than `;` or CRLF follows it.
    Size,
    /// Something other than CRLF where a line or a chunk ends.
    LineEnd,
    /// Extensions that are empty, hold anything but visible ASCII, or are too long.
    Extension,
    /// A trailer line is no field line.
    Trailer,
    /// The trailer section is too large.
    TrailersTooLarge,
    /// A field that must not come late (RFC 9110 §6.5.1).
    TrailerForbidden,
}

impl ChunkError {
    /// Stable name, for logs.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Size => "chunk_size",
            Self::LineEnd => "chunk_line_end",
            Self::Extension => "chunk_extension",
            Self::Trailer => "trailer",
            Self::TrailersTooLarge => "trailers_too_large",
            Self::TrailerForbidden => "trailer_forbidden",
        }
    }
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl std::error::Error for ChunkError {}

impl ChunkedDecoder {
    /// Says what the bytes at the start of `input` are. The caller takes that many away before the next call.
    ///
    /// # Errors
    /// The framing is broken, found at the first byte that shows it; the connection cannot be used on.
    pub fn next(&mut self, input: &[u8]) -> Result<Chunk, ChunkError> {
        match self.state {
            State::Line => self.line(input),
            State::Data(_) if input.is_empty() => Ok(Chunk::NeedMore),
            State::Data(left) => {
                let n = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                self.state = match left - n as u64 {
                    0 => State::DataEnd,
                    left => State::Data(left),
                };
                Ok(Chunk::Data(n))
            }
            State::DataEnd => Ok(match line_end(input, 0)? {
                true => {
                    self.state = State::Line;
                    Chunk::Framing(2)
                }
                false => Chunk::NeedMore,
            }),
            State::Trailers => self.trailers(input),
            State::Done => Ok(Chunk::Done),
        }
    }

    /// Checks as much of `input` as is complete: those bytes may be forwarded as they are. Lines are taken whole, and so
    /// is the trailer section.
    ///
    /// # Errors
    /// As [`Self::next`]; none of `input` is to be forwarded then.
    pub fn scan(&mut self, input: &[u8]) -> Result<Scan, ChunkError> {
        let mut consumed = 0;
        loop {
            match self.next(&input[consumed..])? {
                Chunk::Data(n) | Chunk::Framing(n) => consumed += n,
                Chunk::NeedMore => return Ok(Scan { consumed, done: false }),
                Chunk::Done => return Ok(Scan { consumed, done: true }),
            }
        }
    }

    /// `size [;extension]… CRLF`. No white space anywhere: some parsers skip it, some don't.
    fn line(&mut self, input: &[u8]) -> Result<Chunk, ChunkError> {
        let mut size = 0u64;
        let mut digits = 0;
        while let Some(digit) = input.get(digits).and_then(|byte| char::from(*byte).to_digit(16)) {
            if digits == MAX_DIGITS {
                return Err(ChunkError::Size);
            }
            size = (size << 4) | u64::from(digit);
            digits += 1;
        }
        let end = match input.get(digits) {
            None => return Ok(Chunk::NeedMore),
            Some(b'\n') if digits > 0 => return Err(ChunkError::LineEnd),
            Some(b'\r') if digits > 0 => digits,
            Some(b';') if digits > 0 => end_of(VISIBLE, input, digits),
            Some(_) => return Err(ChunkError::Size),
        };
        if i64::try_from(size).is_err() {
            return Err(ChunkError::Size);
        }
        let extension = end - digits;
        if extension > MAX_EXTENSION || self.extensions + extension > MAX_EXTENSIONS {
            return Err(ChunkError::Extension);
        }
        match input.get(end) {
            None => return Ok(Chunk::NeedMore),
            // White space, obs-text, controls; or nothing but the semicolon.
            Some(byte) if !matches!(byte, b'\r' | b'\n') || extension == 1 => {
                return Err(ChunkError::Extension);
            }
            Some(_) if !line_end(input, end)? => return Ok(Chunk::NeedMore),
            Some(_) => {}
        }
        self.extensions += extension;
        self.state = if size == 0 { State::Trailers } else { State::Data(size) };
        Ok(Chunk::Framing(end + 2))
    }

    /// Trailers are taken as a whole: what is forwarded of them has been read to the end.
    fn trailers(&mut self, input: &[u8]) -> Result<Chunk, ChunkError> {
        let window = &input[..input.len().min(MAX_TRAILER_BYTES)];
        let (mut at, mut count) = (0, 0);
        loop {
            match read_line(window, at) {
                Ok(Line::End(end)) => {
                    self.state = State::Done;
                    return Ok(Chunk::Framing(end));
                }
                Ok(Line::Field(field, _)) if field.known.is_forbidden_in_trailers() => {
                    return Err(ChunkError::TrailerForbidden);
                }
                Ok(Line::Field(_, _)) if count == MAX_TRAILERS => return Err(ChunkError::TrailersTooLarge),
                Ok(Line::Field(_, next)) => (at, count) = (next, count + 1),
                Err(Stop::NeedMore) if window.len() == MAX_TRAILER_BYTES => {
                    return Err(ChunkError::TrailersTooLarge);
                }
                Err(Stop::NeedMore) => return Ok(Chunk::NeedMore),
                Err(Stop::Bad(HeadError::LookalikeName)) => return Err(ChunkError::TrailerForbidden),
                Err(Stop::Bad(_)) => return Err(ChunkError::Trailer),
            }
        }
    }
}

/// Whether CRLF stands at `at`; `false` = its beginning does.
fn line_end(input: &[u8], at: usize) -> Result<bool, ChunkError> {
    match input.get(at..).unwrap_or_default() {
        [b'\r', b'\n', ..] => Ok(true),
        [] | [b'\r'] => Ok(false),
        _ => Err(ChunkError::LineEnd),
    }
}
