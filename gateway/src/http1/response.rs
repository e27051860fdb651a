//! Response heads.

use super::{
    error::{HeadError, Stop},
    field::{Field, Line, line_end, read_line, unexpected},
    framing::Gathered,
    request::{Method, Version},
    span::{HeadLimits, Span},
    token::end_of_value,
};

/// A parsed response head. Its spans lie in the buffer it was parsed from.
#[derive(Debug, Default)]
pub struct ResponseHead {
    /// The endpoint's version.
    pub version: Version,
    /// 100 to 999.
    pub status: u16,
    /// Reason phrase, possibly empty.
    pub reason: Span,
    /// All field lines in order.
    pub fields: Vec<Field>,
    /// How the body is framed.
    pub body: ResponseBody,
    /// The connection may be used again.
    pub keep_alive: bool,
    /// The protocol changes now: 101 with `Upgrade` and `Connection: upgrade`, in 1.1. A 101 without them is nothing one
    /// may act on.
    pub upgrade: bool,
    /// Length of the head, bytes.
    pub len: usize,
}

/// How a response's body is framed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResponseBody {
    /// There is none (to HEAD; 1xx, 204, 304; 2xx to CONNECT), even if Content-Length says how long it would be.
    #[default]
    None,
    /// Content-Length.
    Length(u64),
    /// Chunked coding.
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

impl ResponseHead {
    /// Reads the head of an answer to a `method` request from the start of `buffer`; `false` = more bytes are needed.
    ///
    /// As [`RequestHead::parse`](super::RequestHead::parse), but without mercy for an empty line before it. A reason
    /// phrase may be missing, and then the space before it too.
    ///
    /// # Errors
    /// The head is malformed, ambiguous or too large. The connection cannot be used on.
    pub fn parse(&mut self, buffer: &[u8], limits: &HeadLimits, method: Method) -> Result<bool, HeadError> {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
        let window = limits.window(buffer);
        match self.read(window, limits, method) {
            Ok(()) => Ok(true),
            Err(Stop::Bad(error)) => Err(error),
            Err(Stop::NeedMore) if window.len() == limits.head_bytes => Err(HeadError::HeadTooLarge),
            Err(Stop::NeedMore) => Ok(false),
        }
    }

    fn read(&mut self, buffer: &[u8], limits: &HeadLimits, method: Method) -> Result<(), Stop> {
        let longest = limits.line_bytes.saturating_add(2);
        let line = &buffer[..buffer.len().min(longest)];
        let mut at = self.status_line(line).map_err(|stop| match stop {
            Stop::NeedMore if line.len() == longest => HeadError::LineTooLong.into(),
            stop => stop,
        })?;
        let mut gathered = Gathered::default();
        loop {
            match read_line(buffer, at)? {
                Line::Field(field, next) => {
                    if self.fields.len() >= limits.fields {
                        return Err(HeadError::TooManyFields.into());
                    }
                    gathered.add(self.version, field.known, field.value.of(buffer))?;
                    self.fields.push(field);
                    at = next;
                }
                Line::End(end) => {
                    self.len = end;
                    break;
                }
            }
        }
        gathered.mark_nominated(buffer, &mut self.fields);
        self.body = self.framing(&gathered, method)?;
        self.keep_alive = self.body != ResponseBody::UntilClose && gathered.keep_alive(self.version);
        self.upgrade = self.status == 101 && gathered.upgrade(self.version);
        Ok(())
    }

    /// `version SP status [SP reason] CRLF`; returns where the fields begin.
    fn status_line(&mut self, line: &[u8]) -> Result<usize, Stop> {
        self.version = Version::read(line, 0)?;
        if line.get(8) != Some(&b' ') {
            return Err(unexpected(line, 8, HeadError::FirstLine));
        }
        for at in 9..12 {
            let digit = line.get(at).filter(|byte| byte.is_ascii_digit() && (at > 9 || **byte != b'0'));
            let Some(digit) = digit else { return Err(unexpected(line, at, HeadError::Status)) };
            self.status = self.status * 10 + u16::from(digit - b'0');
        }
        if line.get(12) != Some(&b' ') {
            self.reason = Span::new(12, 12);
            return line_end(line, 12, HeadError::Status);
        }
        let end = end_of_value(line, 13);
        self.reason = Span::new(13, end);
        line_end(line, end, HeadError::ControlByte)
    }

    /// RFC 9112 §6.3, without the cases where parsers differ.
    fn framing(&self, gathered: &Gathered, method: Method) -> Result<ResponseBody, HeadError> {
        let bodyless = self.status < 200 || self.status == 204;
        if bodyless && gathered.chunked {
            return Err(HeadError::TransferEncodingForbidden);
        }
        // RFC 9110 §8.6: a length where no content can be is a server's slip when it is 0, a trap when it isn't.
        if bodyless && gathered.length.is_some_and(|length| length > 0) {
            return Err(HeadError::ContentLengthForbidden);
        }
        let tunnel = method == Method::Connect && (200..300).contains(&self.status);
        Ok(match (gathered.length, gathered.chunked) {
            _ if bodyless || tunnel || self.status == 304 || method == Method::Head => ResponseBody::None,
            (_, true) => ResponseBody::Chunked,
            (Some(length), false) => ResponseBody::Length(length),
            (None, false) => ResponseBody::UntilClose,
        })
    }
}
