//! Response heads.

use super::{
    error::HeadError,
    field::{self, Field},
    framing::{self, Declared},
    request::{Method, Version},
    span::{HeadLimits, Span},
    token::is_value,
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
    /// The protocol changes now (101).
    pub upgrade: bool,
    /// Length of the head, bytes.
    pub len: usize,
}

/// How a response's body is framed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResponseBody {
    /// There is none (HEAD, 1xx, 204, 304).
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
    /// Reads the head of an answer to `method` from the start of `buffer`; `false` = more bytes are needed.
    ///
    /// # Errors
    /// The head is malformed, ambiguous or too large. The connection cannot be used on.
    pub fn parse(&mut self, buffer: &[u8], limits: &HeadLimits, method: Method) -> Result<bool, HeadError> {
        self.fields.clear();
        let Some(line_end) = field::line_end(buffer, 0)? else {
            if buffer.len() > limits.line_bytes {
                return Err(HeadError::LineTooLong);
            }
            let beginning = b"HTTP/1.";
            let shown = buffer.len().min(beginning.len());
            if buffer[..shown] != beginning[..shown] {
                return Err(HeadError::FirstLine);
            }
            return Ok(false);
        };
        if line_end > limits.line_bytes {
            return Err(HeadError::LineTooLong);
        }
        self.status_line(buffer, line_end)?;
        let Some(len) = field::parse(buffer, line_end + 2, limits, &mut self.fields)? else {
            return Ok(false);
        };
        self.len = len;
        self.understand(buffer, method)?;
        Ok(true)
    }

    /// `version SP status SP reason`; the last space may be missing when there is no reason.
    fn status_line(&mut self, buffer: &[u8], end: usize) -> Result<(), HeadError> {
        let line = &buffer[..end];
        let (Some(version), Some(b' ')) = (line.get(..8), line.get(8)) else {
            return Err(HeadError::FirstLine);
        };
        self.version = Version::of(version).ok_or(HeadError::Version)?;
        let digits = line.get(9..12).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let digits = digits.ok_or(HeadError::Status)?;
        self.status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        if self.status < 100 {
            return Err(HeadError::Status);
        }
        self.reason = match line.get(12) {
            None => Span::new(end, end),
            Some(b' ') => Span::new(13, end),
            Some(_) => return Err(HeadError::Status),
        };
        if !is_value(self.reason.of(buffer)) {
            return Err(HeadError::ControlByte);
        }
        Ok(())
    }

    fn understand(&mut self, buffer: &[u8], method: Method) -> Result<(), HeadError> {
        let options = field::mark_hops(buffer, &mut self.fields)?;
        let declared = framing::declared(buffer, &self.fields)?;
        let bodyless = self.status < 200 || self.status == 204;
        if declared == Declared::Chunked && (bodyless || self.version == Version::Http10) {
            return Err(HeadError::TransferEncodingForbidden);
        }
        // RFC 9110 §8.6: a length where no body can be is a server's slip when it is 0, a trap when it isn't.
        if bodyless && matches!(declared, Declared::Length(length) if length > 0) {
            return Err(HeadError::ContentLength);
        }
        self.body = match declared {
            _ if bodyless || self.status == 304 || method == Method::Head => ResponseBody::None,
            Declared::Length(length) => ResponseBody::Length(length),
            Declared::Chunked => ResponseBody::Chunked,
            Declared::Nothing => ResponseBody::UntilClose,
        };
        self.keep_alive = self.body != ResponseBody::UntilClose
            && !options.close
            && (self.version == Version::Http11 || options.keep_alive);
        self.upgrade = self.status == 101;
        Ok(())
    }
}
