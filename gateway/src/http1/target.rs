//! The request target and Host.

use super::{error::HeadError, request::TargetForm, span::Span, token::is_reg_name};

/// A target taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) form: TargetForm,
    pub(super) path: Span,
    pub(super) query: Option<Span>,
    pub(super) authority: Option<Span>,
}

/// Takes `buffer[start..end]` apart; its bytes are checked already.
///
/// # Errors
/// It is in none of the four forms of RFC 9112 §3.2, or in one that the method forbids.
pub(super) fn parse(
    buffer: &[u8],
    start: usize,
    end: usize,
    connect: bool,
    options: bool,
) -> Result<Target, HeadError> {
    let target = &buffer[start..end];
    if connect {
        return Ok(Target {
            form: TargetForm::Authority,
            path: Span::new(end, end),
            query: None,
            authority: Some(Span::new(start, end)),
        });
    }
    if target[0] == b'/' {
        let (path, query) = split_query(buffer, start, end);
        return Ok(Target { form: TargetForm::Origin, path, query, authority: None });
    }
    if target == b"*" && options {
        return Ok(Target {
            form: TargetForm::Asterisk,
            path: Span::new(start, end),
            query: None,
            authority: None,
        });
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.len() > scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme))
        .ok_or(HeadError::Target)?;
    let authority = start + scheme.len();
    let length = buffer[authority..end].iter().position(|byte| matches!(byte, b'/' | b'?'));
    let authority_end = length.map_or(end, |length| authority + length);
    let (path, query) = split_query(buffer, authority_end, end);
    Ok(Target {
        form: TargetForm::Absolute,
        path,
        query,
        authority: Some(Span::new(authority, authority_end)),
    })
}

fn split_query(buffer: &[u8], start: usize, end: usize) -> (Span, Option<Span>) {
    match memchr::memchr(b'?', &buffer[start..end]) {
        Some(at) => (Span::new(start, start + at), Some(Span::new(start + at + 1, end))),
        None => (Span::new(start, end), None),
    }
}

/// The name in an authority `name[:port]` or `[v6][:port]`; `None` when it is neither.
pub(super) fn host_name(buffer: &[u8], authority: Span) -> Option<Span> {
    let text = authority.of(buffer);
    let start = authority.start as usize;
    let name_length = if text.first() == Some(&b'[') {
        let close = memchr::memchr(b']', text)?;
        let address = std::str::from_utf8(&text[1..close]).ok()?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        close + 1
    } else {
        let length = memchr::memchr(b':', text).unwrap_or(text.len());
        if !is_reg_name(&text[..length]) {
            return None;
        }
        length
    };
    match &text[name_length..] {
        [] => {}
        [b':', port @ ..]
            if port.len() <= 5
                && port.iter().all(u8::is_ascii_digit)
                && port.iter().fold(0u32, |n, digit| n * 10 + u32::from(digit - b'0')) <= 65_535 => {}
        _ => return None,
    }
    Some(Span::new(start, start + name_length))
}
