use http::Request;

use super::*;

fn rendered(request: http::request::Builder, ended: bool) -> Result<(String, Framing), Malformed> {
    let request = request.body(()).unwrap();
    let mut out = Vec::new();
    let framing = head(&request, ended, [7; 16], &mut out)?;
    Ok((String::from_utf8(out).unwrap(), framing))
}

#[test]
fn a_request_is_one_in_http_1() {
    let request = Request::get("https://app.test/a?b=c").header("accept", "*/*");
    let (text, framing) = rendered(request, true).unwrap();
    assert_eq!(text, "GET /a?b=c HTTP/1.1\r\nHost: app.test\r\naccept: */*\r\n\r\n");
    assert_eq!(framing, Framing::None);
}

#[test]
fn a_body_has_its_length_or_is_chunked() {
    let request = || Request::post("https://app.test/");
    let (text, framing) = rendered(request().header("content-length", "3"), false).unwrap();
    assert_eq!(framing, Framing::Length);
    assert!(text.contains("content-length: 3\r\n") && !text.contains("Transfer-Encoding"), "{text}");
    let (text, framing) = rendered(request(), false).unwrap();
    assert_eq!(framing, Framing::Chunked);
    assert!(text.contains("Transfer-Encoding: chunked\r\n"), "{text}");
}

#[test]
fn crumbs_of_cookies_are_joined() {
    let request = Request::get("https://app.test/").header("cookie", "a=1").header("cookie", "b=2");
    assert!(rendered(request, true).unwrap().0.contains("\r\ncookie: a=1; b=2\r\n"));
}

#[test]
fn what_two_readers_could_read_differently_is_malformed() {
    let url = "https://app.test/";
    for (request, why) in [
        (Request::get(url).header("host", "other.test"), ":authority and Host differ"),
        (Request::get(url).header("host", "app.test").header("host", "app.test"), "two Host fields"),
        (Request::get("/").header("accept", "*/*"), "no :authority"),
        (Request::get(url).header("transfer-encoding", "chunked"), "a field of HTTP/1 connections"),
        (Request::get(url).header("connection", "close"), "a field of HTTP/1 connections"),
        (Request::get("https://user@app.test/"), "user information in :authority"),
    ] {
        assert_eq!(rendered(request, true), Err(Malformed(why)));
    }
}

#[test]
fn an_extended_connect_is_the_handshake_of_a_websocket() {
    let request = Request::connect("https://app.test/chat")
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13");
    let (text, framing) = rendered(request, false).unwrap();
    assert_eq!(framing, Framing::Raw);
    assert!(
        text.starts_with("GET /chat HTTP/1.1\r\nHost: app.test\r\nsec-websocket-version: 13\r\n"),
        "{text}"
    );
    assert!(text.contains("Upgrade: websocket\r\nSec-WebSocket-Key: BwcHBwcHBwcHBwcHBwcHBw==\r\n"), "{text}");
    let request = Request::connect("https://app.test/chat").extension(Protocol::from_static("other"));
    assert_eq!(rendered(request, false), Err(Malformed("unknown :protocol")));
}
