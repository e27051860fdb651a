use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use frp_gateway_config::model::{Health, HealthCheck};
use http::HeaderMap;
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use super::*;
use crate::{
    frps::ask::Registration,
    health::active::once,
    snapshot::{Endpoint, EndpointId},
};

/// Longest wait for anything; only a failing test waits so long.
const SOON: Duration = Duration::from_secs(30);

/// What an application answers: fields, messages, trailers.
type Script = fn(&str) -> (&'static [(&'static str, &'static str)], Option<Vec<u8>>, Option<&'static str>);

/// The port of a tunnel.
fn endpoint(address: SocketAddr) -> Endpoint {
    let (host, port) = (address.ip().to_string().into(), address.port());
    let tunnel = Registration { name: "rpc".into(), port, sealed: "s".into(), started: "1".into() };
    Endpoint::new(
        EndpointId { frps: "a".into(), host, port, tunnel: Some(Arc::new(tunnel)), tls: None },
        1,
        1,
    )
}

fn health(check: HealthCheck, timeout: Duration) -> Health {
    let interval = Duration::from_secs(1);
    Health { check, interval, fast_interval: interval, jitter: 0, timeout, rise: 1, fall: 1 }
}

fn grpc(service: &str) -> HealthCheck {
    HealthCheck::Grpc { host: "app.test".into(), service: service.into() }
}

/// `HealthCheckResponse`, as servers write it.
fn response(message: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0][..], &[u8::try_from(message.len()).expect("short")], message].concat()
}

/// An application that reads the service asked about, and answers by the script.
async fn app(script: Script) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("one");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut frames = h2::server::handshake(socket).await.expect("a handshake");
                while let Some(Ok((request, mut respond))) = frames.accept().await {
                    tokio::spawn(async move {
                        let (head, mut body) = request.into_parts();
                        assert_eq!((head.method.as_str(), head.uri.path()), ("POST", METHOD));
                        assert_eq!(head.uri.authority().map(|a| a.as_str()), Some("app.test"));
                        assert_eq!(
                            (&head.headers["te"], &head.headers["grpc-timeout"]),
                            (&"trailers".parse().expect("one"), &"5000m".parse().expect("one"))
                        );
                        let asked = body.data().await.expect("a message").expect("a message");
                        let service = asked.get(7..).unwrap_or_default();
                        let (fields, message, status) = script(std::str::from_utf8(service).expect("text"));
                        let mut head = http::Response::new(());
                        for (name, value) in fields {
                            head.headers_mut().insert(*name, value.parse().expect("a value"));
                        }
                        let over = message.is_none() && status.is_none();
                        let mut send = respond.send_response(head, over).expect("sent");
                        if let Some(message) = message {
                            send.send_data(Bytes::from(message), status.is_none()).expect("sent");
                        }
                        if let Some(status) = status {
                            let mut trailers = HeaderMap::new();
                            trailers.insert("grpc-status", status.parse().expect("a value"));
                            send.send_trailers(trailers).expect("sent");
                        }
                    });
                }
            });
        }
    });
    address
}

async fn asked(script: Script, service: &str) -> Result<(), ProbeFailure> {
    once(&endpoint(app(script).await), true, &health(grpc(service), Duration::from_secs(5))).await
}

#[tokio::test]
async fn what_an_application_says_of_itself_decides() {
    let script: Script = |service| match service {
        "" | "shop.Orders" => (&[], Some(response(&[8, 1])), Some("0")),
        "down" => (&[], Some(response(&[8, 2])), Some("0")),
        "unsaid" => (&[], Some(response(&[])), Some("0")),
        "unknown" => (&[], Some(response(&[8, 3])), Some("0")),
        "missing" => (&[("grpc-status", "5")], None, None),
        "none" => (&[("grpc-status", "12"), ("grpc-message", "no such method")], None, None),
        "late" => (&[], Some(response(&[8, 1])), Some("14")),
        other => panic!("{other}"),
    };
    let status = |status, said: &str| Err(ProbeFailure::NotServing(Refused::Status(status, said.into())));
    let serving = |status| Err(ProbeFailure::NotServing(Refused::Serving(status)));
    for (service, expected, words) in [
        ("", Ok(()), ""),
        ("shop.Orders", Ok(()), ""),
        ("down", serving(2), "it says NOT_SERVING"),
        ("unsaid", serving(0), "it says UNKNOWN"),
        ("unknown", serving(3), "it says SERVICE_UNKNOWN"),
        ("missing", status(5, ""), "it knows no such service (grpc-status 5)"),
        ("none", status(12, "no such method"), "it has no grpc.health.v1.Health (grpc-status 12)"),
        ("late", status(14, ""), "grpc-status 14"),
    ] {
        let result = asked(script, service).await;
        let said = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
        assert_eq!((result, said.as_str()), (expected, words), "{service}");
    }
}

#[tokio::test]
async fn what_cannot_be_understood_is_no_success() {
    let scripts: [(&str, Script); 7] = [
        ("no trailers: not gRPC", |_| (&[], Some(response(&[8, 1])), None)),
        ("no trailers: not gRPC", |_| (&[], None, None)),
        ("grpc-status is no number", |_| (&[], Some(response(&[8, 1])), Some("fine"))),
        ("a compressed answer", |_| (&[], Some(vec![1, 0, 0, 0, 2, 8, 1]), Some("0"))),
        ("an answer that isn't one message", |_| (&[], Some(vec![0, 0, 0, 0, 9, 8, 1]), Some("0"))),
        ("an answer without a message", |_| (&[], None, Some("0"))),
        ("a long answer", |_| (&[], Some(vec![0; LONGEST + 1]), Some("0"))),
    ];
    for (words, script) in scripts {
        assert_eq!(asked(script, "").await, Err(ProbeFailure::Broken(words.into())));
    }
}

#[tokio::test]
async fn an_application_that_does_not_speak_http_2_is_told_from_one_that_breaks() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let one = endpoint(listener.local_addr().expect("one"));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            // As nginx, Apache and others answer what they don't know. The rest of it is read, so nothing resets it.
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.expect("sent");
            tokio::spawn(async move { socket.read_to_end(&mut Vec::new()).await });
        }
    });
    let patience = Duration::from_secs(5);
    let up = || HealthCheck::Http {
        host: "app.test".into(),
        path: "/".into(),
        expect: vec![(200, 299)],
        body: None,
    };
    for check in [grpc(""), up()] {
        let result = once(&one, true, &health(check, patience)).await;
        assert_eq!(result, Err(ProbeFailure::NoHttp2));
    }
    // hyper itself says no more of this than "http2 error".
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let one = endpoint(listener.local_addr().expect("one"));
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.expect("a probe");
        let mut frames = h2::server::handshake(socket).await.expect("a handshake");
        while let Some(Ok((_request, mut respond))) = frames.accept().await {
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
        }
    });
    let result = once(&one, true, &health(grpc(""), patience)).await;
    let said = "http2 error: stream error received: unexpected internal error encountered";
    assert_eq!(result, Err(ProbeFailure::Broken(said.into())));
}

#[tokio::test]
async fn a_probe_that_hears_nothing_ends_in_time_and_leaves_no_connection_behind() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let one = endpoint(silent.local_addr().expect("one"));
    let accepted = tokio::spawn(async move {
        let (mut socket, _) = silent.accept().await.expect("a probe");
        socket.read_to_end(&mut Vec::new()).await
    });
    let patience = health(grpc(""), Duration::from_millis(50));
    assert_eq!(once(&one, true, &patience).await, Err(ProbeFailure::Timeout(patience.timeout)));
    let ended = timeout(SOON, accepted).await.expect("the connection ends").expect("no panic");
    assert!(ended.is_ok(), "it ends in order: {ended:?}");
}

#[tokio::test]
async fn a_probe_says_goodbye() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let one = endpoint(listener.local_addr().expect("one"));
    let served = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.expect("a probe");
        let mut frames = h2::server::handshake(socket).await.expect("a handshake");
        while let Some(call) = frames.accept().await {
            let (_request, mut respond) = call?;
            let mut send = respond.send_response(http::Response::new(()), false)?;
            send.send_data(response(&[8, 1]).into(), false)?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", 0.into());
            send.send_trailers(trailers)?;
        }
        Ok::<_, h2::Error>(())
    });
    assert_eq!(once(&one, true, &health(grpc(""), Duration::from_secs(5))).await, Ok(()));
    let ended = timeout(SOON, served).await.expect("the connection ends").expect("no panic");
    assert!(ended.is_ok(), "servers log what ends otherwise: {ended:?}");
}

#[tokio::test]
async fn what_only_the_vhost_reaches_is_not_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut one = endpoint(listener.local_addr().expect("one"));
    one.id.tunnel = None;
    let result = once(&one, true, &health(grpc(""), Duration::from_secs(5))).await;
    assert_eq!(result, Err(ProbeFailure::Vhost));
}

#[tokio::test]
async fn http_is_asked_in_http_2_where_that_is_spoken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("one");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut frames = h2::server::handshake(socket).await.expect("HTTP/2 from the first byte");
                while let Some(Ok((request, mut respond))) = frames.accept().await {
                    assert_eq!(request.uri().to_string(), "http://app.test/up?now");
                    let mut send = respond.send_response(http::Response::new(()), false).expect("sent");
                    send.send_data("all is well".into(), true).expect("sent");
                }
            });
        }
    });
    let check = |text: &str| HealthCheck::Http {
        host: "app.test".into(),
        path: "/up?now".into(),
        expect: vec![(200, 299)],
        body: Some(text.into()),
    };
    let ask = async |text| once(&endpoint(address), true, &health(check(text), Duration::from_secs(5))).await;
    assert_eq!(ask("is well").await, Ok(()));
    assert_eq!(ask("is lost").await, Err(ProbeFailure::Body));
}

#[test]
fn a_message_has_its_prefix_and_its_field() {
    assert_eq!(request_for(""), [0, 0, 0, 0, 0]);
    assert_eq!(request_for("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    let long = request_for(&"x".repeat(300));
    assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
}

#[test]
fn fields_that_are_not_known_are_passed_over_and_the_last_status_counts() {
    let other = [0x10, 0x96, 1, 0x1a, 2, 9, 9, 0x21, 0, 0, 0, 0, 0, 0, 0, 0, 0x2d, 0, 0, 0, 0];
    assert_eq!(status_in(&[&other[..], &[8, 1]].concat()), Some(1));
    assert_eq!(status_in(&[8, 2, 8, 1]), Some(1));
    assert_eq!(status_in(&[]), Some(0));
    for broken in [&[8][..], &[8, 0x80], &[0x0a, 5, 1], &[0x0b], &[0xff; 11]] {
        assert_eq!(status_in(broken), None, "{broken:?}");
    }
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _verdict = serving(&bytes);
        let _status = status_in(&bytes);
    }

    #[test]
    fn numbers_are_read_as_they_are_written(value: u64) {
        let mut wire = Vec::new();
        put_varint(&mut wire, value);
        prop_assert_eq!(take_varint(&mut &wire[..]), Some(value));
    }
}
