//! What the gateway knows of gRPC over HTTP/2: which requests are, how long they may take, how a refusal is said.
//!
//! gRPC answers with 200 and says in its trailers how it went. An answer that consists of a head alone has them there.

use std::time::Duration;

use crate::{
    error::Refusal,
    http1::{Known, RequestHead, ResponseBody, ResponseHead},
};

/// `UNAVAILABLE`
pub const UNAVAILABLE: u8 = 14;
/// `DEADLINE_EXCEEDED`
pub const DEADLINE_EXCEEDED: u8 = 4;

/// Whether a request is one of gRPC.
#[must_use]
pub fn is_grpc(head: &RequestHead, wire: &[u8]) -> bool {
    head.fields.iter().any(|field| field.known == Known::ContentType && is_grpc_type(field.value.of(wire)))
}

/// Whether a `Content-Type` is that of gRPC: `application/grpc`, alone or followed by `+` or `;`. gRPC-Web is another protocol.
#[must_use]
pub fn is_grpc_type(value: &[u8]) -> bool {
    const NAME: &[u8] = b"application/grpc";
    let Some((start, rest)) = value.split_at_checked(NAME.len()) else { return false };
    start.eq_ignore_ascii_case(NAME) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// How long a request of gRPC may take; `None` = as long as it likes, or it is none.
#[must_use]
pub fn timeout(head: &RequestHead, wire: &[u8]) -> Option<Duration> {
    let field = head.fields.iter().find(|field| {
        field.known == Known::Other && field.name.of(wire).eq_ignore_ascii_case(b"grpc-timeout")
    })?;
    parse_timeout(field.value.of(wire)).filter(|_| is_grpc(head, wire))
}

/// `1` to `8` digits and a unit: `H`, `M`, `S`, `m` (ms), `u` (µs), `n` (ns). Whatever is none says nothing.
#[must_use]
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The status that a refusal has in gRPC. Where the gateway has an HTTP status alone, as gRPC's own mapping has it
/// (`doc/http-grpc-status-mapping.md` of grpc/grpc): 401 → 16, 403 → 7, 404 → 12, 502 and 503 → 14, other 4xx → 13.
#[must_use]
pub const fn status_of(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::BadRequest(_) | Refusal::MethodRefused => 13, // INTERNAL
        Refusal::HeadTimeout | Refusal::BodyTimeout => 1,      // CANCELLED: the visitor stopped sending
        Refusal::BodyTooLarge => 8,                            // RESOURCE_EXHAUSTED
        Refusal::NoRoute | Refusal::NoTunnel | Refusal::Misdirected => 12, // UNIMPLEMENTED: not here
        Refusal::Unauthorized => 16,                           // UNAUTHENTICATED
        Refusal::ClientRefused => 7,                           // PERMISSION_DENIED
        Refusal::UpstreamTimeout => DEADLINE_EXCEEDED,
        Refusal::TunnelAway
        | Refusal::NoEndpoint
        | Refusal::Overloaded
        | Refusal::SessionAway
        | Refusal::ShuttingDown
        | Refusal::ConnectFailed
        | Refusal::UpstreamBroken
        | Refusal::UpstreamInvalid
        | Refusal::MayHaveRun
        | Refusal::NoWebSocket => UNAVAILABLE,
    }
}

/// How gRPC's answer went, where its head says so: it has no body then.
#[must_use]
pub fn status_in(response: &ResponseHead, wire: &[u8]) -> Option<u8> {
    if response.status != 200 || !matches!(response.body, ResponseBody::None | ResponseBody::Length(0)) {
        return None;
    }
    let field = response.fields.iter().find(|field| {
        field.known == Known::Other && field.name.of(wire).eq_ignore_ascii_case(b"grpc-status")
    })?;
    std::str::from_utf8(field.value.of(wire)).ok()?.parse().ok()
}

/// The HTTP status that says of the endpoint's health what this answer says: that of the answer, unless it is one of gRPC
/// without a body and speaks of a fault of the server. What the visitor did wrong, and its deadline, are nobody's fault here.
#[must_use]
pub fn as_http(response: &ResponseHead, wire: &[u8]) -> u16 {
    match status_in(response, wire) {
        Some(UNAVAILABLE) => 503,
        // UNKNOWN, INTERNAL, DATA_LOSS
        Some(2 | 13 | 15) => 500,
        Some(_) | None => response.status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{HeadLimits, Method};

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 4096, line_bytes: 1024, fields: 20 };

    #[test]
    fn a_timeout_has_digits_and_a_unit() {
        for (text, expected) in [
            ("1S", Some(Duration::from_secs(1))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("3u", Some(Duration::from_micros(3))),
            ("2M", Some(Duration::from_secs(120))),
            ("1H", Some(Duration::from_secs(3600))),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("123456789S", None),
            ("-1S", None),
            ("1.5S", None),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn only_grpc_itself_is_grpc() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/GRPC; charset=x", true),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc_type(kind.as_bytes()), expected, "{kind}");
        }
    }

    #[test]
    fn only_faults_of_the_server_in_a_head_without_a_body_count_against_an_endpoint() {
        let judged = |text: &str| {
            let mut head = ResponseHead::default();
            assert!(head.parse(text.as_bytes(), &LIMITS, Method::Post).unwrap(), "{text}");
            as_http(&head, text.as_bytes())
        };
        for (status, expected) in
            [(0, 200), (1, 200), (2, 500), (4, 200), (5, 200), (13, 500), (14, 503), (16, 200)]
        {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\ngrpc-status: {status}\r\n\r\n");
            assert_eq!(judged(&head), expected, "grpc-status {status}");
        }
        let with_body = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\ngrpc-status: 14\r\n\r\n";
        assert_eq!(judged(with_body), 200, "what a head with a body says there isn't gRPC's");
        assert_eq!(judged("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), 404);
    }
}
