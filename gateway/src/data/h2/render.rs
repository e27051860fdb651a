//! A stream's request as the head of an HTTP/1.1 request, by the rules of RFC 9113 §8.
//!
//! What is ambiguous is refused here or by the strict parser that reads the rendered head; nothing is repaired.

use base64::{Engine, prelude::BASE64_STANDARD};
use h2::ext::Protocol;
use http::{HeaderMap, Method, Request, header};

/// How the body of the rendered request is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// By the length that the head names; the h2 crate sees to it that it is right.
    Length,
    /// Chunked.
    Chunked,
    /// Bytes, after the answer has agreed to change the protocol.
    Raw,
}

/// The request makes no sense, or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Appends the head to `out`. `nonce` is for the key of a WebSocket's handshake.
///
/// # Errors
/// See [`Malformed`]. `out` may have been written to.
pub fn head<B>(
    request: &Request<B>,
    ended: bool,
    nonce: [u8; 16],
    out: &mut Vec<u8>,
) -> Result<Framing, Malformed> {
    let fields = request.headers();
    let protocol = request.extensions().get::<Protocol>();
    let websocket = match protocol.map(Protocol::as_str) {
        None => false,
        Some("websocket") => true,
        Some(_) => return Err(Malformed("unknown :protocol")),
    };
    let host = host(request)?;
    if websocket {
        out.extend_from_slice(b"GET ");
    } else {
        out.extend_from_slice(request.method().as_str().as_bytes());
        out.push(b' ');
    }
    match request.uri().path_and_query() {
        Some(target) => out.extend_from_slice(target.as_str().as_bytes()),
        None if *request.method() == Method::CONNECT => out.extend_from_slice(host),
        None => return Err(Malformed("no :path")),
    }
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(host);
    out.extend_from_slice(b"\r\n");
    let mut cookie = false;
    for (name, value) in fields {
        match *name {
            header::HOST => continue,
            // Crumbs are one field in HTTP/1 (RFC 9113 §8.2.3): written below.
            header::COOKIE => {
                cookie = true;
                continue;
            }
            header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE => {
                return Err(Malformed("a field of HTTP/1 connections"));
            }
            _ => {}
        }
        line(out, name.as_str(), value.as_bytes());
    }
    if cookie {
        out.extend_from_slice(b"cookie: ");
        for (index, crumb) in fields.get_all(header::COOKIE).iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b"; ");
            }
            out.extend_from_slice(crumb.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    let framing = if websocket {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ");
        out.extend_from_slice(BASE64_STANDARD.encode(nonce).as_bytes());
        out.extend_from_slice(b"\r\n");
        Framing::Raw
    } else if ended {
        // Whoever says 0 has no body either.
        Framing::None
    } else if fields.contains_key(header::CONTENT_LENGTH) {
        Framing::Length
    } else {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        Framing::Chunked
    };
    out.extend_from_slice(b"\r\n");
    Ok(framing)
}

/// Trailers as they end a chunked body, after the last chunk's line.
pub fn trailers(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        line(out, name.as_str(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// `:authority`, or `host` where there is none; both must be the same.
fn host<B>(request: &Request<B>) -> Result<&[u8], Malformed> {
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().map(http::HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Malformed("two Host fields"));
    }
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(Malformed(":authority and Host differ"))
        }
        (Some(authority), _) if authority.contains(&b'@') => Err(Malformed("user information in :authority")),
        (Some(one), _) | (None, Some(one)) => Ok(one),
        (None, None) => Err(Malformed("no :authority")),
    }
}

#[cfg(test)]
mod tests;
