//! Request heads.

use super::{
    error::{HeadError, Stop},
    field::{Field, Line, line_end, read_line, unexpected},
    framing::Gathered,
    known::Known,
    span::{HeadLimits, Span},
    target::{self, Authority, Target},
    token::{TARGET, TOKEN, end_of},
};

/// Longest method.
const MAX_METHOD: usize = 32;

/// A parsed request head. Its spans lie in the buffer it was parsed from.
#[derive(Debug, Default)]
pub struct RequestHead {
    /// The method, if one we care for.
    pub method: Method,
    /// The method as sent.
    pub method_span: Span,
    /// The target as sent.
    pub target: Span,
    /// Which of the four forms it has.
    pub form: TargetForm,
    /// Path without query; `/` for an absolute target without one, `*` in asterisk form, empty in authority form.
    pub path: Span,
    /// Query without `?`.
    pub query: Option<Span>,
    /// Effective authority with its port, from the target if it has one, else from Host. Empty only in HTTP/1.0 without Host.
    pub host: Span,
    /// `host` without the port; an IPv6 address in its brackets.
    pub host_name: Span,
    /// The visitor's version.
    pub version: Version,
    /// All field lines in order. The memory is reused from head to head.
    pub fields: Vec<Field>,
    /// How the body is framed.
    pub body: RequestBody,
    /// The connection may be used again.
    pub keep_alive: bool,
    /// A protocol change is asked for: `Upgrade` and `Connection: upgrade`, in 1.1.
    pub upgrade: bool,
    /// The visitor asked for `100 Continue`. Expect is ignored in 1.0, and marked as hop-by-hop there.
    pub expect_continue: bool,
    /// Length of the head, bytes, an empty line before it included.
    pub len: usize,
}

/// Methods of RFC 9110 §9.3 and RFC 5789.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    #[default]
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// `TRACE`
    Trace,
    /// `CONNECT`
    Connect,
    /// `PATCH`
    Patch,
    /// Any other; of unknown meaning, so never repeated.
    Other,
}

impl Method {
    fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// Whether it asks for no change of state (RFC 9110 §9.2.1).
    #[must_use]
    pub const fn is_safe(self) -> bool {
        match self {
            Self::Get | Self::Head | Self::Options | Self::Trace => true,
            Self::Post | Self::Put | Self::Delete | Self::Connect | Self::Patch | Self::Other => false,
        }
    }

    /// Whether doing it twice is as doing it once (RFC 9110 §9.2.2).
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        match self {
            Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace => true,
            Self::Post | Self::Connect | Self::Patch | Self::Other => false,
        }
    }
}

/// HTTP/1 versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// `HTTP/1.0`
    Http10,
    /// `HTTP/1.1`
    #[default]
    Http11,
}

impl Version {
    /// Reads `HTTP/1.x` at `at`.
    pub(super) fn read(buffer: &[u8], at: usize) -> Result<Self, Stop> {
        let text = buffer.get(at..).unwrap_or_default();
        if text.starts_with(b"HTTP/1.1") {
            return Ok(Self::Http11);
        }
        if text.starts_with(b"HTTP/1.0") {
            return Ok(Self::Http10);
        }
        for (index, expected) in b"HTTP/0.0".iter().enumerate() {
            let fits = |byte: &u8| byte == expected || (*expected == b'0' && byte.is_ascii_digit());
            if !text.get(index).is_some_and(fits) {
                return Err(unexpected(buffer, at + index, HeadError::FirstLine));
            }
        }
        Err(HeadError::Version.into())
    }
}

/// Forms of a target (RFC 9112 §3.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://authority/path?query`
    Absolute,
    /// `authority`, with CONNECT
    Authority,
    /// `*`, with OPTIONS
    Asterisk,
}

/// How a request's body is framed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RequestBody {
    /// There is none.
    #[default]
    None,
    /// Content-Length says so, possibly 0.
    Length(u64),
    /// Chunked coding.
    Chunked,
}

impl RequestHead {
    /// Reads a head from the start of `buffer`; `false` = more bytes are needed.
    ///
    /// Without state: when more has come, it reads from the start again. One pass over the bytes, no allocation once
    /// `fields` has grown. Only after `Ok(true)` does what it holds have a meaning.
    ///
    /// # Errors
    /// The head is malformed, ambiguous or too large; found at the first byte that shows it, so what comes later changes
    /// nothing about it. The connection cannot be used on.
    pub fn parse(&mut self, buffer: &[u8], limits: &HeadLimits) -> Result<bool, HeadError> {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
        let window = limits.window(buffer);
        match self.read(window, limits) {
            Ok(()) => Ok(true),
            Err(Stop::Bad(error)) => Err(error),
            Err(Stop::NeedMore) if window.len() == limits.head_bytes => Err(HeadError::HeadTooLarge),
            Err(Stop::NeedMore) => Ok(false),
        }
    }

    fn read(&mut self, buffer: &[u8], limits: &HeadLimits) -> Result<(), Stop> {
        // RFC 9112 §2.2: one empty line before the request line is forgiven.
        let start = if buffer.first() == Some(&b'\r') { line_end(buffer, 0, HeadError::BareCr)? } else { 0 };
        let longest = start.saturating_add(limits.line_bytes).saturating_add(2);
        let line = &buffer[..buffer.len().min(longest)];
        let mut at = self.request_line(line, start).map_err(|stop| match stop {
            Stop::NeedMore if line.len() == longest => HeadError::LineTooLong.into(),
            stop => stop,
        })?;
        let target = target::parse(buffer, self.target, self.method)?;
        (self.form, self.path, self.query) = (target.form, target.path, target.query);
        let mut gathered = Gathered::default();
        let mut host = None;
        loop {
            match read_line(buffer, at)? {
                Line::Field(field, next) => {
                    if self.fields.len() >= limits.fields {
                        return Err(HeadError::TooManyFields.into());
                    }
                    self.add(buffer, field, &mut gathered, &mut host)?;
                    at = next;
                }
                Line::End(end) => {
                    self.len = end;
                    break;
                }
            }
        }
        self.settle_host(buffer, &target, host)?;
        gathered.mark_nominated(buffer, &mut self.fields);
        self.body = match (gathered.length, gathered.chunked) {
            (_, true) => RequestBody::Chunked,
            (Some(length), false) => RequestBody::Length(length),
            (None, false) => RequestBody::None,
        };
        self.keep_alive = gathered.keep_alive(self.version);
        self.upgrade = gathered.upgrade(self.version);
        Ok(())
    }

    /// `method SP target SP version CRLF`; returns where the fields begin.
    fn request_line(&mut self, line: &[u8], start: usize) -> Result<usize, Stop> {
        let method_end = part_end(line, start, TOKEN, HeadError::Method)?;
        self.method_span = Span::new(start, method_end);
        let method = self.method_span.of(line);
        self.method = Method::of(method);
        let target_start = method_end + 1;
        let target_end = part_end(line, target_start, TARGET, HeadError::Target)?;
        self.target = Span::new(target_start, target_end);
        let version_start = target_end + 1;
        self.version = Version::read(line, version_start).map_err(|stop| match stop {
            Stop::Bad(HeadError::Version) if method == b"PRI" => HeadError::Http2Preface.into(),
            stop => stop,
        })?;
        line_end(line, version_start + 8, HeadError::FirstLine)
    }

    fn add(
        &mut self,
        buffer: &[u8],
        mut field: Field,
        gathered: &mut Gathered,
        host: &mut Option<Authority>,
    ) -> Result<(), HeadError> {
        let value = field.value.of(buffer);
        match field.known {
            Known::Other => {}
            Known::Host => {
                if host.is_some() {
                    return Err(HeadError::RepeatedHost);
                }
                *host = Some(target::authority(buffer, field.value).ok_or(HeadError::InvalidHost)?);
            }
            Known::Expect if self.version == Version::Http10 => field.hop = true,
            Known::Expect => {
                if self.expect_continue || !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(HeadError::Expectation);
                }
                self.expect_continue = true;
            }
            known => gathered.add(self.version, known, value)?,
        }
        self.fields.push(field);
        Ok(())
    }

    /// RFC 9112 §3.2: exactly one Host in 1.1, and what it says is what an absolute target says.
    fn settle_host(
        &mut self,
        buffer: &[u8],
        target: &Target,
        host: Option<Authority>,
    ) -> Result<(), HeadError> {
        if host.is_none() && self.version == Version::Http11 {
            return Err(HeadError::NoHost);
        }
        if let (Some(host), Some(authority)) = (host, target.authority)
            && !host.is_same(authority, buffer, target.default_port)
        {
            return Err(HeadError::HostMismatch);
        }
        if let Some(effective) = target.authority.or(host) {
            (self.host, self.host_name) = (effective.whole, effective.name);
        }
        Ok(())
    }
}

/// Where the part of the request line that begins at `start` ends: at the one space after it.
fn part_end(line: &[u8], start: usize, class: u8, fault: HeadError) -> Result<usize, Stop> {
    let end = end_of(class, line, start);
    if class == TOKEN && end - start > MAX_METHOD {
        return Err(fault.into());
    }
    match line.get(end) {
        Some(b' ') if end > start => Ok(end),
        Some(b' ') => Err(HeadError::FirstLine.into()),
        // No version, as in HTTP/0.9.
        Some(b'\r') => Err(unexpected(line, end, HeadError::FirstLine)),
        Some(0x16) if end == 0 => Err(HeadError::TlsHandshake.into()),
        _ => Err(unexpected(line, end, fault)),
    }
}
