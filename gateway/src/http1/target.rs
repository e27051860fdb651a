//! The request target and Host.

use super::{
    error::HeadError,
    request::{Method, TargetForm},
    span::Span,
    token::{NAME, end_of},
};

/// A target taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) form: TargetForm,
    pub(super) path: Span,
    pub(super) query: Option<Span>,
    pub(super) authority: Option<Authority>,
    /// The port that the authority means when it has none.
    pub(super) default_port: Option<u16>,
}

/// `name[:port]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Authority {
    pub(super) whole: Span,
    /// Without the port; an IPv6 address in its brackets.
    pub(super) name: Span,
    port: Option<u16>,
}

impl Authority {
    /// Whether both mean the same, with names in any case and the scheme's port spelled out or not.
    pub(super) fn is_same(self, other: Self, buffer: &[u8], default_port: Option<u16>) -> bool {
        self.name.of(buffer).eq_ignore_ascii_case(other.name.of(buffer))
            && self.port.or(default_port) == other.port.or(default_port)
    }
}

/// Takes the target apart; its bytes have been checked, and it isn't empty.
///
/// # Errors
/// It is in none of the four forms of RFC 9112 §3.2, or in one that the method forbids.
pub(super) fn parse(buffer: &[u8], span: Span, method: Method) -> Result<Target, HeadError> {
    let target = span.of(buffer);
    let (start, end) = (span.start as usize, span.end as usize);
    let plain = Target {
        form: TargetForm::Origin,
        path: Span::new(end, end),
        query: None,
        authority: None,
        default_port: None,
    };
    if method == Method::Connect {
        let authority = authority(buffer, span).filter(|authority| authority.port.is_some());
        return Ok(Target {
            form: TargetForm::Authority,
            authority: Some(authority.ok_or(HeadError::Target)?),
            ..plain
        });
    }
    if target.first() == Some(&b'/') {
        let (path, query) = split_query(buffer, start, end);
        return Ok(Target { path, query, ..plain });
    }
    if target == b"*" {
        let allowed = method == Method::Options;
        return allowed
            .then_some(Target { form: TargetForm::Asterisk, path: span, ..plain })
            .ok_or(HeadError::Target);
    }
    let (scheme, default_port) = [(&b"http://"[..], 80), (b"https://", 443)]
        .into_iter()
        .find(|(scheme, _)| {
            target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })
        .ok_or(HeadError::Target)?;
    let begin = start + scheme.len();
    let length = buffer[begin..end].iter().position(|byte| matches!(byte, b'/' | b'?'));
    let stop = length.map_or(end, |length| begin + length);
    let authority = authority(buffer, Span::new(begin, stop)).ok_or(HeadError::Target)?;
    let (mut path, query) = split_query(buffer, stop, end);
    if path.is_empty() {
        // RFC 9112 §3.2.1: it means "/". One stands right before the authority.
        path = Span::new(begin - 1, begin);
    }
    Ok(Target {
        form: TargetForm::Absolute,
        path,
        query,
        authority: Some(authority),
        default_port: Some(default_port),
    })
}

fn split_query(buffer: &[u8], start: usize, end: usize) -> (Span, Option<Span>) {
    match memchr::memchr(b'?', &buffer[start..end]) {
        Some(at) => (Span::new(start, start + at), Some(Span::new(start + at + 1, end))),
        None => (Span::new(start, end), None),
    }
}

/// Takes `name[:port]` or `[v6][:port]` apart; `None` when it is neither.
///
/// Stricter than RFC 3986: no user info, no `%`, no sub-delims, no zone, no empty name, no empty port.
pub(super) fn authority(buffer: &[u8], whole: Span) -> Option<Authority> {
    let text = whole.of(buffer);
    let length = if text.first() == Some(&b'[') {
        let close = memchr::memchr(b']', text)?;
        let address = std::str::from_utf8(&text[1..close]).ok()?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        close + 1
    } else {
        end_of(NAME, text, 0)
    };
    if length == 0 {
        return None;
    }
    let port = match &text[length..] {
        [] => None,
        [b':', digits @ ..] if matches!(digits.len(), 1..=5) && digits.iter().all(u8::is_ascii_digit) => {
            let port = digits.iter().fold(0u32, |port, digit| port * 10 + u32::from(digit - b'0'));
            Some(u16::try_from(port).ok()?)
        }
        _ => return None,
    };
    let start = whole.start as usize;
    Some(Authority { whole, name: Span::new(start, start + length), port })
}
