//! Visitors who are to come another way: by https.

use std::{io::Write as _, time::Duration};

use frp_gateway_config::model::Redirect;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{
    buffer::Buffer,
    connection::Next,
    exchange::{Report, Scratch},
    headers::OWN_ANSWER,
};
use crate::{
    http1::{Method, RequestHead, TargetForm},
    snapshot::Route,
};

/// Longest wait for a visitor to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What `x-frp-gateway` says of it.
const CLASS: &str = "redirect";

/// Tells the visitor where to go.
pub async fn send<S: AsyncWrite + Unpin>(
    route: &Route,
    stream: &mut S,
    (scratch, buffer): (&Scratch, &Buffer),
    keep_alive: bool,
    report: &mut Report,
) -> Next {
    let Some(redirect) = &route.redirect else { return Next::Close };
    let status = status(redirect);
    let location = location(redirect, &scratch.host, &scratch.request, buffer.filled());
    let text = render(status, &location, scratch.request.method == Method::Head, keep_alive);
    report.status = status;
    match timeout(PATIENCE, stream.write_all(&text)).await {
        Ok(Ok(())) if keep_alive => Next::KeepAlive,
        Ok(Ok(())) => Next::Linger,
        Ok(Err(_)) | Err(_) => Next::Close,
    }
}

/// Status of the answer.
#[must_use]
pub fn status(redirect: &Redirect) -> u16 {
    match redirect {
        Redirect::Https { status, .. } => *status,
    }
}

/// Where to: the same host, path and query. `host` is lower case, without port.
#[must_use]
pub fn location(redirect: &Redirect, host: &str, head: &RequestHead, wire: &[u8]) -> Vec<u8> {
    let Redirect::Https { port, .. } = redirect;
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(b"https://");
    out.extend_from_slice(host.as_bytes());
    if let Some(port) = port.filter(|port| *port != 443) {
        write!(out, ":{port}").expect("writing to a Vec cannot fail");
    }
    match head.form {
        TargetForm::Origin => out.extend_from_slice(head.target.of(wire)),
        TargetForm::Absolute => {
            out.extend_from_slice(if head.path.is_empty() { b"/" } else { head.path.of(wire) });
            if let Some(query) = head.query {
                out.push(b'?');
                out.extend_from_slice(query.of(wire));
            }
        }
        TargetForm::Authority | TargetForm::Asterisk => out.push(b'/'),
    }
    out
}

fn render(status: u16, location: &[u8], head_only: bool, keep_alive: bool) -> Vec<u8> {
    let reason = match status {
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        _ => "Redirect",
    };
    let body = format!("{status} {reason}\nPlease come by https.\n");
    let mut out = Vec::with_capacity(256 + location.len());
    let head = write!(
        out,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         {OWN_ANSWER}: {CLASS}\r\nLocation: ",
        body.len()
    );
    head.expect("writing to a Vec cannot fail");
    out.extend_from_slice(location);
    out.extend_from_slice(b"\r\n");
    if !keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if !head_only {
        out.extend_from_slice(body.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::HeadLimits;

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 4096, line_bytes: 2048, fields: 20 };

    fn sent(redirect: &Redirect, line: &str) -> String {
        let wire = format!("{line} HTTP/1.1\r\nHost: Shop.Test:8080\r\n\r\n");
        let mut head = RequestHead::default();
        assert!(head.parse(wire.as_bytes(), &LIMITS).expect("well formed"));
        let host = String::from_utf8_lossy(head.host_name.of(wire.as_bytes())).to_ascii_lowercase();
        String::from_utf8(location(redirect, &host, &head, wire.as_bytes())).expect("ascii")
    }

    #[test]
    fn host_path_and_query_are_kept_and_the_port_is_the_new_one() {
        let to = |port| Redirect::Https { port, status: 308 };
        assert_eq!(sent(&to(None), "GET /a%20b?c=d&e"), "https://shop.test/a%20b?c=d&e");
        assert_eq!(sent(&to(Some(8443)), "GET /"), "https://shop.test:8443/");
        assert_eq!(sent(&to(Some(443)), "POST /x?"), "https://shop.test/x?");
        assert_eq!(sent(&to(None), "GET http://shop.test:8080/x?y"), "https://shop.test/x?y");
        assert_eq!(sent(&to(None), "GET //evil.test/x"), "https://shop.test//evil.test/x");
        assert_eq!(sent(&to(None), "OPTIONS *"), "https://shop.test/");
    }

    #[test]
    fn the_answer_says_where_to_and_its_length_is_true() {
        let text = String::from_utf8(render(308, b"https://a.test/", false, true)).expect("ascii");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{head}");
        assert!(head.contains("\r\nLocation: https://a.test/"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        assert!(render(301, b"https://a.test/", true, false).ends_with(b"Connection: close\r\n\r\n"));
    }
}
