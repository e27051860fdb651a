//! A message means the same however the network cuts it, and whatever follows it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "corpus/http1/invariants.rs"]
mod invariants;
#[path = "corpus/http1/table.rs"]
mod table;

use std::fmt::Write as _;

use frp_gateway::http1::{Chunk, ChunkedDecoder, Field, Method, RequestHead, ResponseHead, Scan, Span};
use invariants::LIMITS;

#[test]
fn valid_requests_mean_what_the_golden_file_says_at_every_cut() {
    let cases = table::read("valid_requests.txt", 0);
    assert!(cases.len() >= 30, "only {} cases found", cases.len());
    let mut golden = String::new();
    for case in cases {
        let head =
            invariants::request(&case.bytes).unwrap_or_else(|error| panic!("line {}: {error}", case.line));
        let head = head.unwrap_or_else(|| panic!("line {}: incomplete", case.line));
        // A head that was used before, fed byte by byte, with the next message behind it at the end.
        let mut reused = RequestHead::default();
        for end in 0..head.len {
            assert_eq!(reused.parse(&case.bytes[..end], &LIMITS), Ok(false), "line {} at {end}", case.line);
        }
        for next in [&b"GET"[..], b"\0", b"\r\n", b"\n"] {
            let bytes = [&case.bytes[..head.len], next].concat();
            assert_eq!(reused.parse(&bytes, &LIMITS), Ok(true), "line {} before {next:?}", case.line);
            assert_eq!(format!("{reused:?}"), format!("{head:?}"), "line {} before {next:?}", case.line);
        }
        let show = |span: Span| span.of(&case.bytes).escape_ascii().to_string();
        writeln!(
            golden,
            "{}: {:?} {:?} {:?} path={} query={:?} host={} name={} {:?}{}{}{} len={} hop=[{}]",
            case.line,
            head.method,
            head.form,
            head.version,
            brief(&show(head.path)),
            head.query.map(show),
            show(head.host),
            show(head.host_name),
            head.body,
            if head.keep_alive { " keep-alive" } else { " close" },
            if head.upgrade { " upgrade" } else { "" },
            if head.expect_continue { " expect" } else { "" },
            head.len,
            hops(&head.fields, &case.bytes),
        )
        .unwrap();
    }
    compare("valid_requests.golden.txt", &golden);
}

#[test]
fn valid_responses_mean_what_the_golden_file_says_at_every_cut() {
    let cases = table::read("valid_responses.txt", 1);
    assert!(cases.len() >= 20, "only {} cases found", cases.len());
    let mut golden = String::new();
    for case in cases {
        let method = match &*case.words[0] {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "CONNECT" => Method::Connect,
            other => panic!("line {}: {other}", case.line),
        };
        let head = invariants::response(&case.bytes, method)
            .unwrap_or_else(|error| panic!("line {}: {error}", case.line));
        let head = head.unwrap_or_else(|| panic!("line {}: incomplete", case.line));
        let mut reused = ResponseHead::default();
        for end in 0..head.len {
            assert_eq!(
                reused.parse(&case.bytes[..end], &LIMITS, method),
                Ok(false),
                "line {} at {end}",
                case.line
            );
        }
        for next in [&b"HTTP"[..], b"\0", b"\r\n", b"\n"] {
            let bytes = [&case.bytes[..head.len], next].concat();
            assert_eq!(reused.parse(&bytes, &LIMITS, method), Ok(true), "line {} before {next:?}", case.line);
            assert_eq!(format!("{reused:?}"), format!("{head:?}"), "line {} before {next:?}", case.line);
        }
        writeln!(
            golden,
            "{}: {:?} {} \"{}\" {:?} {}{} len={} hop=[{}]",
            case.line,
            head.version,
            head.status,
            head.reason.of(&case.bytes).escape_ascii(),
            head.body,
            if head.keep_alive { "keep-alive" } else { "close" },
            if head.upgrade { " upgrade" } else { "" },
            head.len,
            hops(&head.fields, &case.bytes),
        )
        .unwrap();
    }
    compare("valid_responses.golden.txt", &golden);
}

#[test]
fn valid_chunked_bodies_have_their_payload_at_every_cut() {
    let cases = table::read("valid_chunked.txt", 1);
    assert!(cases.len() >= 12, "only {} cases found", cases.len());
    for case in cases {
        let payload = if case.words[0] == "-" { vec![] } else { table::unescape(&case.words[0]) };
        for next in [&b""[..], b"GET / HTTP/1.1\r\n", b"\0", b"\r\n"] {
            let bytes = [&case.bytes, next].concat();
            let decoded =
                invariants::chunked(&bytes).unwrap_or_else(|error| panic!("line {}: {error}", case.line));
            let expected =
                invariants::Decoded { payload: payload.clone(), consumed: case.bytes.len(), done: true };
            assert_eq!(decoded, expected, "line {} before {next:?}", case.line);
        }
        for end in 0..case.bytes.len() {
            let decoded = invariants::chunked(&case.bytes[..end])
                .unwrap_or_else(|error| panic!("line {}: {error}", case.line));
            assert!(
                !decoded.done && payload.starts_with(&decoded.payload),
                "line {} at {end}: {decoded:?}",
                case.line
            );
        }
    }
}

#[test]
fn a_chunked_body_cut_in_two_anywhere_is_the_same_body_read_by_next_and_by_scan() {
    for case in table::read("valid_chunked.txt", 1) {
        let payload = if case.words[0] == "-" { vec![] } else { table::unescape(&case.words[0]) };
        let whole = case.bytes.len();
        for cut in 0..=whole {
            let (mut next, mut scan) = (ChunkedDecoder::default(), ChunkedDecoder::default());
            let (mut at, mut scanned, mut out, mut done) = (0, 0, vec![], false);
            for here in [cut, whole] {
                loop {
                    let input = &case.bytes[at..here];
                    match next.next(input) {
                        Ok(Chunk::Data(n)) => {
                            out.extend_from_slice(&input[..n]);
                            at += n;
                        }
                        Ok(Chunk::Framing(n)) => at += n,
                        Ok(Chunk::NeedMore) => break,
                        Ok(Chunk::Done) => {
                            done = true;
                            break;
                        }
                        Err(error) => panic!("line {} cut at {cut}: {error}", case.line),
                    }
                }
                let part = scan.scan(&case.bytes[scanned..here]);
                let expected = Scan { consumed: at - scanned, done };
                assert_eq!(part, Ok(expected), "line {} cut at {cut}, up to {here}", case.line);
                scanned = at;
            }
            assert_eq!((out, at, done), (payload.clone(), whole, true), "line {} cut at {cut}", case.line);
        }
    }
}

/// Names of the hop-by-hop fields.
fn hops(fields: &[Field], bytes: &[u8]) -> String {
    let names =
        fields.iter().filter(|field| field.hop).map(|field| field.name.of(bytes).escape_ascii().to_string());
    names.collect::<Vec<_>>().join(" ")
}

fn brief(text: &str) -> String {
    if text.len() > 60 { format!("{}…({})", &text[..20], text.len()) } else { text.to_owned() }
}

/// Compares with the committed file; `UPDATE_GOLDEN=1` writes it.
fn compare(file: &str, text: &str) {
    let path = format!("{}/tests/corpus/http1/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    for (golden, now) in golden.lines().zip(text.lines()) {
        assert_eq!(golden, now, "{file} differs; if that is meant, run with UPDATE_GOLDEN=1");
    }
    assert_eq!(golden.lines().count(), text.lines().count(), "{file}: number of lines");
}
