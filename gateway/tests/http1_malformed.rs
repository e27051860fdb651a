//! What two parsers could read differently is refused: the tables in `corpus/http1`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "corpus/http1/invariants.rs"]
mod invariants;
#[path = "corpus/http1/table.rs"]
mod table;

use frp_gateway::http1::{HeadError, Method};

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
