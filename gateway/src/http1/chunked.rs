//! Chunked transfer coding (RFC 9112 §7.1), strictly.

use super::{
    field::{self, Known},
    span::HeadLimits,
    token::is_value,
};

/// Longest chunk line: size, extensions, CRLF.
const MAX_LINE: usize = 256;
/// Extension bytes of a whole body: nobody needs them, floods are made of them.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Bounds on trailers.
const TRAILER_LIMITS: HeadLimits = HeadLimits { head_bytes: 16 * 1024, line_bytes: 8 * 1024, fields: 64 };

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.label())]
pub enum ChunkError {
    /// The size is not 1 to 16 hex digits, or too large.
    Size,
    /// Something else than CRLF where a line or a chunk ends.
    LineEnd,
    /// Extensions with bytes they must not have, or too many.
    Extension,
    /// A chunk line is too long.
    LineTooLong,
    /// Trailers are malformed, too large, or hold a field that must not come late.
    Trailer,
}

impl ChunkError {
    /// Stable name, for logs.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Size => "chunk_size",
            Self::LineEnd => "chunk_line_end",
            Self::Extension => "chunk_extension",
            Self::LineTooLong => "chunk_line_too_long",
            Self::Trailer => "trailer",
        }
    }
}

impl ChunkedDecoder {
    /// Says what the bytes at the start of `input` are. The caller takes that many away before the next call.
    ///
    /// # Errors
    /// The framing is broken; the connection cannot be used on.
    pub fn next(&mut self, input: &[u8]) -> Result<Chunk, ChunkError> {
        match self.state {
            State::Line => self.line(input),
            State::Data(left) => {
                if input.is_empty() {
                    return Ok(Chunk::NeedMore);
                }
                let n = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                self.state = match left - n as u64 {
                    0 => State::DataEnd,
                    left => State::Data(left),
                };
                Ok(Chunk::Data(n))
            }
            State::DataEnd => match input {
                [b'\r', b'\n', ..] => {
                    self.state = State::Line;
                    Ok(Chunk::Framing(2))
                }
                [] | [b'\r'] => Ok(Chunk::NeedMore),
                _ => Err(ChunkError::LineEnd),
            },
            State::Trailers => self.trailers(input),
            State::Done => Ok(Chunk::Done),
        }
    }

    /// Checks as much of `input` as is complete.
    ///
    /// # Errors
    /// As [`Self::next`].
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

    fn line(&mut self, input: &[u8]) -> Result<Chunk, ChunkError> {
        let digits = input.iter().take(17).take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > 16 || (digits == 0 && !input.is_empty()) {
            return Err(ChunkError::Size);
        }
        let after = &input[digits..];
        let extension = match after.first() {
            None => return Ok(Chunk::NeedMore),
            Some(b'\r') => 0,
            // No white space before the semicolon: some parsers skip it, some do not.
            Some(b';') => match after.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
                Some(length) => length,
                None if input.len() > MAX_LINE => return Err(ChunkError::LineTooLong),
                None => return Ok(Chunk::NeedMore),
            },
            Some(b'\n') => return Err(ChunkError::LineEnd),
            Some(_) => return Err(ChunkError::Size),
        };
        if digits + extension > MAX_LINE {
            return Err(ChunkError::LineTooLong);
        }
        match after[extension..] {
            [b'\r', b'\n', ..] => {}
            [b'\r'] => return Ok(Chunk::NeedMore),
            _ => return Err(ChunkError::LineEnd),
        }
        self.extensions += extension;
        if !is_value(&after[..extension]) || self.extensions > MAX_EXTENSIONS {
            return Err(ChunkError::Extension);
        }
        let size = input[..digits].iter().fold(0u64, |size, digit| (size << 4) | u64::from(hex(*digit)));
        if i64::try_from(size).is_err() {
            return Err(ChunkError::Size);
        }
        self.state = if size == 0 { State::Trailers } else { State::Data(size) };
        Ok(Chunk::Framing(digits + extension + 2))
    }

    /// Trailers are taken as a whole: what is forwarded of them has been read to the end.
    fn trailers(&mut self, input: &[u8]) -> Result<Chunk, ChunkError> {
        let mut fields = Vec::new();
        let end =
            field::parse(input, 0, &TRAILER_LIMITS, &mut fields).map_err(|_fault| ChunkError::Trailer)?;
        let Some(end) = end else { return Ok(Chunk::NeedMore) };
        if fields.iter().any(|field| is_forbidden(field.known, field.name.of(input))) {
            return Err(ChunkError::Trailer);
        }
        self.state = State::Done;
        Ok(Chunk::Framing(end))
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Fields that change framing, routing or trust must not come late (RFC 9110 §6.5.1).
fn is_forbidden(known: Known, name: &[u8]) -> bool {
    match known {
        Known::Other => [&b"authorization"[..], b"cookie", b"set-cookie", b"proxy-authorization", b"range"]
            .iter()
            .any(|forbidden| name.eq_ignore_ascii_case(forbidden)),
        Known::Date | Known::UserAgent | Known::AcceptEncoding => false,
        Known::Host
        | Known::Connection
        | Known::ContentLength
        | Known::TransferEncoding
        | Known::Te
        | Known::Trailer
        | Known::Upgrade
        | Known::KeepAlive
        | Known::ProxyConnection
        | Known::Expect
        | Known::XForwardedFor
        | Known::XForwardedProto
        | Known::XForwardedHost
        | Known::XForwardedPort
        | Known::XRealIp
        | Known::Forwarded
        | Known::Via
        | Known::ContentType
        | Known::Http2Settings => true,
    }
}
