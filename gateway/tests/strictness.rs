//! What two parsers could read differently gets its status and a closed connection, and nothing of it reaches an endpoint.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;
#[path = "corpus/http1/table.rs"]
mod table;

use common::{Endpoint, Wire, field, gateway, get, ok, status};

/// The bounds that the tables were written for.
const LIMITS: &str = "limits: { head_bytes: 16KiB, request_line_bytes: 4KiB, headers: 64 }";

#[tokio::test]
async fn malformed_requests_get_their_status_and_a_closed_connection_and_nothing_reaches_an_endpoint() {
    let endpoint = Endpoint::answering(ok("reached")).await;
    let (_gateway, address) = gateway(&[&endpoint], "", LIMITS).await;
    let cases = table::read("malformed_requests.txt", 2);
    let mut wrong = Vec::new();
    let mut asked = 0;
    for case in cases {
        let Ok(expected) = case.words[0].parse::<u16>() else { continue };
        asked += 1;
        let mut visitor = Wire::connect(address).await;
        visitor.try_send(&case.bytes).await;
        let all = visitor.all().await; // ends only when the gateway closes
        let class = field(&all, "x-frp-gateway");
        if (status(&all), class) != (expected, Some("bad_request")) {
            wrong.push(format!("line {}: expected {expected}, got {all:?}", case.line));
        }
    }
    assert!(asked >= 150, "only {asked} cases found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(endpoint.connections(), 0, "something reached the endpoint: {:?}", endpoint.seen());
}

#[tokio::test]
async fn bad_chunks_that_come_with_the_head_are_400_and_nothing_reaches_an_endpoint() {
    let endpoint = Endpoint::answering(ok("reached")).await;
    let (_gateway, address) = gateway(&[&endpoint], "", LIMITS).await;
    let cases = table::read("malformed_chunked.txt", 1);
    let mut wrong = Vec::new();
    assert!(cases.len() >= 50, "only {} cases found", cases.len());
    for case in cases.iter().filter(|case| case.bytes.len() < 4000) {
        let mut visitor = Wire::connect(address).await;
        let mut request = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        request.extend_from_slice(&case.bytes);
        visitor.try_send(&request).await;
        let all = visitor.all().await;
        if status(&all) != 400 {
            wrong.push(format!("line {} ({}): {all:?}", case.line, case.words[0]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(endpoint.connections(), 0, "something reached the endpoint: {:?}", endpoint.seen());
}

#[tokio::test]
async fn a_bad_chunk_that_comes_later_ends_both_sides_and_is_not_passed_on() {
    let endpoint = Endpoint::scripted(|mut wire, _, notes| async move {
        notes.add(wire.all().await);
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor.send("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    common::eventually("the request is at the endpoint", async || endpoint.connections() == 1).await;
    visitor.send("3 \r\nevil\r\n").await;
    let (head, _) = visitor.response(false).await;
    assert_eq!((status(&head), field(&head, "x-frp-gateway")), (400, Some("bad_request")), "{head}");
    assert!(visitor.is_ended().await);
    common::eventually("the endpoint's connection ends", async || !endpoint.seen().is_empty()).await;
    let seen = endpoint.seen().remove(0);
    assert!(seen.ends_with("\r\n\r\n3\r\nabc\r\n"), "{seen:?}");
}

#[tokio::test]
async fn a_request_hidden_behind_a_refused_one_is_not_served() {
    let endpoint = Endpoint::answering(ok("reached")).await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    let smuggled =
        "GET /first HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    visitor.try_send(smuggled.to_owned() + &get("/second")).await;
    let all = visitor.all().await;
    assert_eq!(status(&all), 400, "{all}");
    assert_eq!(all.matches("HTTP/1.1").count(), 1, "one answer only: {all}");
    assert_eq!(endpoint.connections(), 0);
}
