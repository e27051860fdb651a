//! What two parsers could read differently is refused: the tables in `corpus/http1`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "corpus/http1/invariants.rs"]
mod invariants;
#[path = "corpus/http1/table.rs"]
mod table;

use frp_gateway::http1::{HeadError, Method, RequestHead, ResponseHead};
use invariants::LIMITS;

#[test]
fn malformed_requests_are_refused_with_their_status_and_label() {
    let cases = table::read("malformed_requests.txt", 2);
    assert!(cases.len() >= 150, "only {} cases found", cases.len());
    let mut wrong = vec![];
    for case in cases {
        let seen = match invariants::request(&case.bytes) {
            Ok(None) => "incomplete".to_owned(),
            Ok(Some(head)) => format!("accepted: {head:?}"),
            Err(error) => format!("{} {}", error.status(), error.label()),
        };
        if seen != case.words.join(" ") {
            wrong.push(format!("line {}: expected {:?}, got {seen}", case.line, case.words));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn malformed_responses_are_refused_with_their_label() {
    let cases = table::read("malformed_responses.txt", 2);
    assert!(cases.len() >= 50, "only {} cases found", cases.len());
    let mut wrong = vec![];
    for case in cases {
        let method = match &*case.words[0] {
            "HEAD" => Method::Head,
            _ => Method::Get,
        };
        let seen = match invariants::response(&case.bytes, method) {
            Ok(None) => "incomplete".to_owned(),
            Ok(Some(head)) => format!("accepted: {head:?}"),
            Err(error) => error.label().to_owned(),
        };
        if seen != case.words[1] {
            wrong.push(format!("line {}: expected {}, got {seen}", case.line, case.words[1]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn malformed_chunked_bodies_are_refused_with_their_label() {
    let cases = table::read("malformed_chunked.txt", 1);
    assert!(cases.len() >= 50, "only {} cases found", cases.len());
    let mut wrong = vec![];
    for case in cases {
        let seen = match invariants::chunked(&case.bytes) {
            Ok(decoded) => format!("accepted: {decoded:?}"),
            Err(error) => error.label().to_owned(),
        };
        if seen != case.words[0] {
            wrong.push(format!("line {}: expected {}, got {seen}", case.line, case.words[0]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_flood_of_chunk_extensions_is_cut_off() {
    let mut body = Vec::new();
    for _ in 0..200 {
        body.extend_from_slice(format!("1;{}\r\na\r\n", "x".repeat(127)).as_bytes());
    }
    let error = invariants::chunked(&body).expect_err("25 KiB of extensions");
    assert_eq!(error.label(), "chunk_extension");
}

#[test]
fn every_fault_has_a_case_in_the_tables() {
    let mut seen: Vec<_> =
        table::read("malformed_requests.txt", 2).into_iter().map(|case| case.words[1].clone()).collect();
    seen.extend(table::read("malformed_responses.txt", 2).into_iter().map(|case| case.words[1].clone()));
    let missing: Vec<_> =
        HeadError::ALL.iter().filter(|error| !seen.iter().any(|label| label == error.label())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Meant for all recipients, or framing (RFC 9110 §7.6.1).
const END_TO_END: &[&str] = &[
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Expect",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Real-IP",
    "Forwarded",
    "Via",
    "Authorization",
    "Cookie",
    "Set-Cookie",
    "Cache-Control",
    "Content-Type",
    "Content-Encoding",
    "Content-Range",
];

/// End at this hop whether Connection names them or not. (Connection and Transfer-Encoding are not values to play with.)
const HOP_BY_HOP: &[&str] = &[
    "TE",
    "Upgrade",
    "Keep-Alive",
    "Proxy-Connection",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "HTTP2-Settings",
];

/// In the three ways that names are written.
fn spellings(name: &str) -> [String; 3] {
    [name.to_owned(), name.to_ascii_lowercase(), name.to_ascii_uppercase()]
}

#[test]
fn connection_may_name_no_end_to_end_field_and_any_other() {
    let parse = |name: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a, {name}\r\n\r\n");
        let response = format!("HTTP/1.1 200 OK\r\nConnection: x-a, {name}\r\n\r\n");
        let request = invariants::request(request.as_bytes()).map(|head| head.is_some());
        let response = invariants::response(response.as_bytes(), Method::Get).map(|head| head.is_some());
        (request, response)
    };
    let refused = (Err(HeadError::ConnectionNominates), Err(HeadError::ConnectionNominates));
    for name in END_TO_END.iter().flat_map(|name| spellings(name)) {
        assert_eq!(parse(&name), refused, "{name}");
    }
    for name in HOP_BY_HOP.iter().chain(&["close", "Trailer", "Date", "Server", "X-Host", "Hosts"]) {
        assert_eq!(parse(name), (Ok(true), Ok(true)), "{name}");
    }
}

#[test]
fn fields_that_frame_route_authenticate_or_describe_are_refused_as_trailers_and_others_are_not() {
    let decode = |name: &str| {
        let body = format!("1\r\na\r\n0\r\nX-First: 1\r\n{name}: 1\r\n\r\n");
        invariants::chunked(body.as_bytes()).map(|decoded| decoded.done)
    };
    let late = ["Connection", "Trailer", "Range", "Accept-Encoding", "Retry-After"];
    for name in END_TO_END.iter().chain(HOP_BY_HOP).chain(&late).flat_map(|name| spellings(name)) {
        let refusal = decode(&name).expect_err(&name);
        assert_eq!(refusal.label(), "trailer_forbidden", "{name}");
    }
    for name in ["X-Checksum", "Server-Timing", "ETag", "Grpc-Status", "Date", "X-Host"] {
        assert_eq!(decode(name), Ok(true), "{name}");
    }
}

#[test]
fn hop_by_hop_fields_are_marked_unnamed_and_end_to_end_ones_are_not() {
    let is_hop = |name: &str| {
        let bytes = format!("HTTP/1.1 200 OK\r\n{name}: 0\r\n\r\n");
        let head = invariants::response(bytes.as_bytes(), Method::Get).unwrap().unwrap();
        head.fields[0].hop
    };
    for name in HOP_BY_HOP.iter().chain(&["Connection"]).flat_map(|name| spellings(name)) {
        assert!(is_hop(&name), "{name} is passed on");
    }
    for name in END_TO_END.iter().filter(|name| **name != "Transfer-Encoding").chain(&["Trailer", "X-Te"]) {
        assert!(!is_hop(name), "{name} is dropped");
    }
}

/// What becomes of a head, whole and without its last bytes: limits lie there, and `invariants` only samples long heads.
fn verdict(head: &[u8]) -> Result<bool, HeadError> {
    let parse = |bytes: &[u8]| match head.starts_with(b"HTTP/") {
        true => ResponseHead::default().parse(bytes, &LIMITS, Method::Get),
        false => RequestHead::default().parse(bytes, &LIMITS),
    };
    let whole = parse(head);
    for cut in head.len().saturating_sub(48)..head.len() {
        let part = parse(&head[..cut]);
        assert!(
            part == Ok(false) || part == whole,
            "{part:?} at {cut} of {}, {whole:?} at the end",
            head.len()
        );
    }
    whole
}

#[test]
fn a_head_at_a_limit_is_taken_and_one_byte_more_is_refused() {
    let fill = |length: usize| "a".repeat(length);
    for empty_line in ["", "\r\n"] {
        let line = |length: usize| {
            let path = fill(length - "GET / HTTP/1.1".len());
            format!("{empty_line}GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n")
        };
        assert_eq!(verdict(line(LIMITS.line_bytes).as_bytes()), Ok(true), "{empty_line:?}");
        assert_eq!(
            verdict(line(LIMITS.line_bytes + 1).as_bytes()),
            Err(HeadError::LineTooLong),
            "{empty_line:?}"
        );
    }
    let line = |length: usize| format!("HTTP/1.1 200 {}\r\n\r\n", fill(length - "HTTP/1.1 200 ".len()));
    assert_eq!(verdict(line(LIMITS.line_bytes).as_bytes()), Ok(true), "status line");
    assert_eq!(verdict(line(LIMITS.line_bytes + 1).as_bytes()), Err(HeadError::LineTooLong), "status line");
    for start in ["GET / HTTP/1.1\r\nHost: a\r\n", "\r\nGET / HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 200 OK\r\n"]
    {
        let head =
            |length: usize| format!("{start}X: {}\r\n\r\n", fill(length - start.len() - "X: \r\n\r\n".len()));
        assert_eq!(verdict(head(LIMITS.head_bytes).as_bytes()), Ok(true), "{start:?}");
        assert_eq!(
            verdict(head(LIMITS.head_bytes + 1).as_bytes()),
            Err(HeadError::HeadTooLarge),
            "{start:?}"
        );
        let fields = |count: usize| format!("{start}{}\r\n", "X: b\r\n".repeat(count));
        let room = LIMITS.fields - usize::from(start.contains("Host"));
        assert_eq!(verdict(fields(room).as_bytes()), Ok(true), "{start:?}");
        assert_eq!(verdict(fields(room + 1).as_bytes()), Err(HeadError::TooManyFields), "{start:?}");
    }
}
