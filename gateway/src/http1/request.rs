//! Request heads.

use super::{
    error::HeadError,
    field::{self, Field, Known},
    framing::{self, Declared},
    span::{HeadLimits, Span},
    target,
    token::{is_target, is_token},
};

/// Longest method.
const MAX_METHOD: usize = 32;
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

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
    /// Path without query; empty for an absolute target without one.
    pub path: Span,
    /// Query without `?`.
    pub query: Option<Span>,
    /// Effective authority with port; empty only for HTTP/1.0 without Host.
    pub host: Span,
    /// `host` without the port.
    pub host_name: Span,
    /// The visitor's version.
    pub version: Version,
    /// All field lines in order.
    pub fields: Vec<Field>,
    /// How the body is framed.
    pub body: RequestBody,
    /// The connection may be used again.
    pub keep_alive: bool,
    /// A protocol change is asked for.
    pub upgrade: bool,
    /// The body waits for `100 Continue`.
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
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        match text {
            b"HTTP/1.1" => Some(Self::Http11),
            b"HTTP/1.0" => Some(Self::Http10),
            _ => None,
        }
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
    /// # Errors
    /// The head is malformed, ambiguous or too large; found as soon as the bytes at hand show it. The connection cannot
    /// be used on.
    pub fn parse(&mut self, buffer: &[u8], limits: &HeadLimits) -> Result<bool, HeadError> {
        self.fields.clear();
        // RFC 9112 §2.2: one empty line before the request line is forgiven.
        let start = match buffer {
            [b'\r', b'\n', ..] => 2,
            [b'\r'] => return Ok(false),
            _ => 0,
        };
        let Some(line_end) = field::line_end(buffer, start)? else {
            return Self::check_beginning(&buffer[start..], limits).map(|()| false);
        };
        if line_end - start > limits.line_bytes {
            return Err(HeadError::LineTooLong);
        }
        let method_end = self.request_line(buffer, start, line_end)?;
        let Some(len) = field::parse(buffer, line_end + 2, limits, &mut self.fields)? else {
            return Ok(false);
        };
        self.len = len;
        self.understand(buffer, Span::new(start, method_end))?;
        Ok(true)
    }

    /// Refuses what cannot become a request line, without waiting for its end: TLS, binary protocols, endless lines.
    fn check_beginning(line: &[u8], limits: &HeadLimits) -> Result<(), HeadError> {
        if line.len() > limits.line_bytes {
            return Err(HeadError::LineTooLong);
        }
        let method = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        if line.first() == Some(&b' ') || method > MAX_METHOD || (method > 0 && !is_token(&line[..method])) {
            return Err(HeadError::Method);
        }
        Ok(())
    }

    /// `method SP target SP version`; returns where the method ends.
    fn request_line(&mut self, buffer: &[u8], start: usize, end: usize) -> Result<usize, HeadError> {
        let line = &buffer[start..end];
        if buffer[start..].starts_with(HTTP2_PREFACE) {
            return Err(HeadError::Http2Preface);
        }
        let method_length = memchr::memchr(b' ', line).ok_or(HeadError::FirstLine)?;
        let method = &line[..method_length];
        if !is_token(method) || method.len() > MAX_METHOD {
            return Err(HeadError::Method);
        }
        let version_at = memchr::memrchr(b' ', line).ok_or(HeadError::FirstLine)? + 1;
        if version_at <= method_length + 2 {
            // One space only, or nothing between two.
            return Err(HeadError::FirstLine);
        }
        let version = &line[version_at..];
        if !version.starts_with(b"HTTP/") {
            return Err(HeadError::FirstLine);
        }
        let target = &line[method_length + 1..version_at - 1];
        if !is_target(target) {
            return Err(HeadError::Target);
        }
        self.version = Version::of(version).ok_or(HeadError::Version)?;
        self.method = Method::of(method);
        self.target = Span::new(start + method_length + 1, start + version_at - 1);
        Ok(start + method_length)
    }

    /// What the lines mean together.
    fn understand(&mut self, buffer: &[u8], method: Span) -> Result<(), HeadError> {
        self.method_span = method;
        let target = target::parse(
            buffer,
            self.target.start as usize,
            self.target.end as usize,
            self.method == Method::Connect,
            self.method == Method::Options,
        )?;
        (self.form, self.path, self.query) = (target.form, target.path, target.query);
        self.understand_host(buffer, target.authority)?;
        let options = field::mark_hops(buffer, &mut self.fields)?;
        self.body = match framing::declared(buffer, &self.fields)? {
            Declared::Nothing => RequestBody::None,
            Declared::Length(length) => RequestBody::Length(length),
            Declared::Chunked if self.version == Version::Http10 => {
                return Err(HeadError::TransferEncodingForbidden);
            }
            Declared::Chunked => RequestBody::Chunked,
        };
        let modern = self.version == Version::Http11;
        self.keep_alive = !options.close && (modern || options.keep_alive);
        self.upgrade =
            modern && options.upgrade && self.fields.iter().any(|field| field.known == Known::Upgrade);
        self.expect_continue = false;
        for field in self.fields.iter().filter(|field| field.known == Known::Expect) {
            if !field.value.of(buffer).eq_ignore_ascii_case(b"100-continue") {
                return Err(HeadError::Expectation);
            }
            self.expect_continue = modern;
        }
        Ok(())
    }

    fn understand_host(&mut self, buffer: &[u8], authority: Option<Span>) -> Result<(), HeadError> {
        let mut hosts = self.fields.iter().filter(|field| field.known == Known::Host);
        let host = hosts.next().map(|field| field.value);
        if hosts.next().is_some() {
            return Err(HeadError::RepeatedHost);
        }
        let named = match (host, authority) {
            (Some(host), Some(authority)) => {
                if !host.of(buffer).eq_ignore_ascii_case(authority.of(buffer)) {
                    return Err(HeadError::HostMismatch);
                }
                host
            }
            (Some(host), None) => host,
            (None, _) if self.version == Version::Http11 => return Err(HeadError::NoHost),
            (None, Some(authority)) => authority,
            (None, None) => {
                (self.host, self.host_name) = (Span::default(), Span::default());
                return Ok(());
            }
        };
        self.host = named;
        self.host_name = target::host_name(buffer, named).ok_or(HeadError::InvalidHost)?;
        Ok(())
    }
}
