//! Field lines.

use super::{
    error::HeadError,
    span::{HeadLimits, Span},
    token::{is_token, is_value},
};

/// One field line.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// As sent.
    pub name: Span,
    /// Without the white space around it.
    pub value: Span,
    /// Which name it is, if one we care for.
    pub known: Known,
    /// It ends at this hop (RFC 9110 §7.6.1): by its nature, or because Connection names it.
    pub hop: bool,
}

/// Names that the gateway treats in some way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Any other name.
    Other,
    /// `Host`
    Host,
    /// `Connection`
    Connection,
    /// `Content-Length`
    ContentLength,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `TE`
    Te,
    /// `Trailer`
    Trailer,
    /// `Upgrade`
    Upgrade,
    /// `Keep-Alive`
    KeepAlive,
    /// `Proxy-Connection`
    ProxyConnection,
    /// `Expect`
    Expect,
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `X-Forwarded-Proto`
    XForwardedProto,
    /// `X-Forwarded-Host`
    XForwardedHost,
    /// `X-Forwarded-Port`
    XForwardedPort,
    /// `X-Real-IP`
    XRealIp,
    /// `Forwarded`
    Forwarded,
    /// `Via`
    Via,
    /// `Accept-Encoding`
    AcceptEncoding,
    /// `Content-Type`
    ContentType,
    /// `Date`
    Date,
    /// `User-Agent`
    UserAgent,
    /// `HTTP2-Settings`
    Http2Settings,
}

impl Known {
    /// Recognises a name: its length first, then at most three comparisons.
    fn of(name: &[u8]) -> Self {
        let candidates: &[(&[u8], Self)] = match name.len() {
            2 => &[(b"te", Self::Te)],
            3 => &[(b"via", Self::Via)],
            4 => &[(b"host", Self::Host), (b"date", Self::Date)],
            6 => &[(b"expect", Self::Expect)],
            7 => &[(b"upgrade", Self::Upgrade), (b"trailer", Self::Trailer)],
            9 => &[(b"forwarded", Self::Forwarded), (b"x-real-ip", Self::XRealIp)],
            10 => &[
                (b"connection", Self::Connection),
                (b"user-agent", Self::UserAgent),
                (b"keep-alive", Self::KeepAlive),
            ],
            12 => &[(b"content-type", Self::ContentType)],
            14 => &[(b"content-length", Self::ContentLength), (b"http2-settings", Self::Http2Settings)],
            15 => &[(b"accept-encoding", Self::AcceptEncoding), (b"x-forwarded-for", Self::XForwardedFor)],
            16 => &[
                (b"proxy-connection", Self::ProxyConnection),
                (b"x-forwarded-host", Self::XForwardedHost),
                (b"x-forwarded-port", Self::XForwardedPort),
            ],
            17 => &[
                (b"transfer-encoding", Self::TransferEncoding),
                (b"x-forwarded-proto", Self::XForwardedProto),
            ],
            _ => return Self::Other,
        };
        candidates
            .iter()
            .find(|(candidate, _)| name.eq_ignore_ascii_case(candidate))
            .map_or(Self::Other, |(_, known)| *known)
    }

    /// Ends at this hop by its nature. `Trailer` goes on: it announces what the forwarded body carries.
    fn is_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::TransferEncoding
                | Self::Te
                | Self::Upgrade
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Http2Settings
        )
    }
}

/// Finds the end of the line that begins at `at`: `Some(position of CR)`, or `None` when it isn't there yet.
///
/// # Errors
/// CR and LF that don't stand together, NUL and other control bytes.
pub(super) fn line_end(buffer: &[u8], at: usize) -> Result<Option<usize>, HeadError> {
    let Some(found) = memchr::memchr2(b'\r', b'\n', &buffer[at..]) else { return Ok(None) };
    let cr = at + found;
    match (buffer[cr], buffer.get(cr + 1)) {
        (b'\n', _) => Err(HeadError::BareLf),
        (_, None) => Ok(None),
        (_, Some(b'\n')) => Ok(Some(cr)),
        (_, Some(_)) => Err(HeadError::BareCr),
    }
}

/// Reads field lines from `at` to the empty line: `Some(position after it)`.
///
/// # Errors
/// Anything RFC 9112 §5 doesn't allow, and what exceeds `limits`.
pub(super) fn parse(
    buffer: &[u8],
    mut at: usize,
    limits: &HeadLimits,
    fields: &mut Vec<Field>,
) -> Result<Option<usize>, HeadError> {
    loop {
        let Some(end) = line_end(buffer, at)? else {
            let line = &buffer[at..];
            if buffer.len() > limits.head_bytes {
                return Err(HeadError::HeadTooLarge);
            }
            // A line that cannot become a field is refused without waiting for its end.
            if matches!(line.first(), Some(b' ' | b'\t')) {
                return Err(HeadError::ObsFold);
            }
            return Ok(None);
        };
        if end + 2 > limits.head_bytes {
            return Err(HeadError::HeadTooLarge);
        }
        if end == at {
            return Ok(Some(end + 2));
        }
        if fields.len() == limits.fields {
            return Err(HeadError::TooManyFields);
        }
        fields.push(field(buffer, at, end)?);
        at = end + 2;
    }
}

/// One line.
fn field(buffer: &[u8], start: usize, end: usize) -> Result<Field, HeadError> {
    let line = &buffer[start..end];
    if matches!(line[0], b' ' | b'\t') {
        return Err(HeadError::ObsFold);
    }
    let colon = memchr::memchr(b':', line).ok_or(HeadError::NoColon)?;
    let name = &line[..colon];
    if !is_token(name) {
        return Err(match name.last() {
            Some(b' ' | b'\t') => HeadError::SpaceBeforeColon,
            _ => HeadError::FieldName,
        });
    }
    let value = &line[colon + 1..];
    if !is_value(value) {
        return Err(HeadError::ControlByte);
    }
    let leading = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let trailing = value[leading..].iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let known = Known::of(name);
    if known == Known::Other && is_lookalike(name) {
        return Err(HeadError::LookalikeName);
    }
    Ok(Field {
        name: Span::new(start, start + colon),
        value: Span::new(start + colon + 1 + leading, end - trailing),
        known,
        hop: known.is_hop(),
    })
}

/// Some servers map `_` to `-`, and would see framing that we didn't.
fn is_lookalike(name: &[u8]) -> bool {
    let lookalike = |real: &[u8]| {
        name.iter()
            .zip(real)
            .all(|(byte, real)| byte.eq_ignore_ascii_case(real) || (*byte == b'_' && *real == b'-'))
    };
    match name.len() {
        14 => lookalike(b"content-length"),
        17 => lookalike(b"transfer-encoding"),
        _ => false,
    }
}

/// Marks the fields that Connection names, and tells which options it has.
///
/// # Errors
/// It names a field whose loss would change the message's meaning or framing.
pub(super) fn mark_hops(buffer: &[u8], fields: &mut [Field]) -> Result<Options, HeadError> {
    let mut options = Options::default();
    for index in 0..fields.len() {
        if fields[index].known != Known::Connection {
            continue;
        }
        for token in fields[index].value.of(buffer).split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            if token.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else if !token.is_empty() {
                if !is_token(token) {
                    return Err(HeadError::ConnectionNominates);
                }
                match Known::of(token) {
                    Known::Host
                    | Known::ContentLength
                    | Known::Expect
                    | Known::XForwardedFor
                    | Known::XForwardedProto
                    | Known::XForwardedHost
                    | Known::XForwardedPort
                    | Known::XRealIp
                    | Known::Forwarded
                    | Known::Via => return Err(HeadError::ConnectionNominates),
                    _ => {}
                }
                for field in &mut *fields {
                    field.hop |= field.name.of(buffer).eq_ignore_ascii_case(token);
                }
            }
        }
    }
    Ok(options)
}

/// Options of the Connection field.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Options {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}
