//! Cookies as text: the `Cookie` field of a request, the `Set-Cookie` line of an answer (RFC 6265).

use frp_gateway_config::model::{AffinityCookie, SameSite, Secure};

/// The values of the cookies called `name` in a `Cookie` field, in order, without white space and quotes around them.
///
/// Tolerant, as browsers and applications differ: any white space between the pairs, empty pairs, pairs without `=`.
/// Names are compared case-sensitively (RFC 6265 §5.3). Which value to believe is the caller's choice: an application on
/// a neighbouring path or domain may have set a cookie of the same name.
pub fn cookie_values<'a>(header_value: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    pairs(header_value).filter_map(move |pair| value_of(pair, name))
}

/// Appends `header_value` without the pairs called `name`; the others stay byte for byte. Returns whether any is left;
/// if not, nothing is appended, and the field should go altogether.
pub fn strip(header_value: &[u8], name: &[u8], out: &mut Vec<u8>) -> bool {
    let begin = out.len();
    let mut left = false;
    for (index, pair) in pairs(header_value).enumerate() {
        if value_of(pair, name).is_some() {
            continue;
        }
        if out.len() > begin {
            out.push(b';');
            out.extend_from_slice(pair);
        } else {
            // It moves up to the beginning, where no space belongs.
            out.extend_from_slice(if index == 0 { pair } else { pair.trim_ascii_start() });
        }
        left |= !trim(pair).is_empty();
    }
    if !left {
        out.truncate(begin);
    }
    left
}

/// What stands between semicolons, white space included.
fn pairs(header_value: &[u8]) -> impl Iterator<Item = &[u8]> {
    header_value.split(|byte| *byte == b';')
}

/// The value of `pair` if it is called `name`.
fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = memchr::memchr(b'=', pair)?;
    if trim(&pair[..at]) != name {
        return None;
    }
    let value = trim(&pair[at + 1..]);
    Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

/// A `Set-Cookie` line, written out as far as it is the same for every visitor.
#[derive(Debug)]
pub(super) struct SetCookie {
    /// `Set-Cookie: gw=`
    head: Box<[u8]>,
    /// `; Path=/; Domain=example.com`
    scope: Box<[u8]>,
    secure: Secure,
    /// `; HttpOnly; SameSite=Lax` and the line's end.
    tail: Box<[u8]>,
}

impl SetCookie {
    /// Name, path and domain stand as they are configured: the configuration has checked that they can.
    pub(super) fn new(config: &AffinityCookie) -> Self {
        let mut scope = format!("; Path={}", config.path);
        if let Some(domain) = &config.domain {
            scope.push_str("; Domain=");
            scope.push_str(domain);
        }
        let same_site = match config.same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
            SameSite::None => "None",
        };
        let http_only = if config.http_only { "; HttpOnly" } else { "" };
        Self {
            head: format!("Set-Cookie: {}=", config.name).into_bytes().into(),
            scope: scope.into_bytes().into(),
            secure: config.secure,
            tail: format!("{http_only}; SameSite={same_site}\r\n").into_bytes().into(),
        }
    }

    /// Appends the line; `value` appends the cookie's value. `max_age`: seconds; `None` = until the browser is closed.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        value: impl FnOnce(&mut Vec<u8>),
        max_age: Option<u64>,
        secure_connection: bool,
    ) {
        out.extend_from_slice(&self.head);
        value(out);
        out.extend_from_slice(&self.scope);
        if let Some(seconds) = max_age {
            out.extend_from_slice(b"; Max-Age=");
            out.extend_from_slice(itoa::Buffer::new().format(seconds).as_bytes());
        }
        let secure = match self.secure {
            Secure::Auto => secure_connection,
            Secure::Always => true,
            Secure::Never => false,
        };
        if secure {
            out.extend_from_slice(b"; Secure");
        }
        out.extend_from_slice(&self.tail);
    }
}
