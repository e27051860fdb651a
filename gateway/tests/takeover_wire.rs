//! What is more than one request and one answer, through a plain frps and through the takeover: upgrades, streams, trailers, the visitor's
//! fields byte by byte. Every difference is here by name. Real frps and frpc of both versions; needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

mod common;
#[path = "common/takeover.rs"]
mod takeover;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use common::{Wire, field, status};
use frp_gateway_loadtest::{
    demo::DemoApp,
    http,
    lab::{Frpc, FrpcOptions, Frps, FrpsOptions, Proxy, Version},
};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use takeover::{SOON, World, app};
use tokio::net::TcpStream;
use tokio_tungstenite::{client_async, tungstenite::Message};

const VERSIONS: [Version; 2] = [Version::V071, Version::V061];

/// The same application behind a plain frps and behind one whose tunnels are taken over.
struct Pair {
    plain: Frps,
    world: World,
    _clients: [Frpc; 2],
    _app: DemoApp,
}

impl Pair {
    async fn start(version: Version) -> Self {
        let app = app("app");
        let mut plain = Frps::start(FrpsOptions::new("plain").version(version)).await.expect("frps starts");
        let world = World::with(&["a"], "", |options| options.version(version)).await;
        let client = |frps: &Frps| {
            let options = FrpcOptions::new(frps).user("u");
            proxies(app.addr()).into_iter().fold(options, FrpcOptions::proxy)
        };
        let one = Frpc::start(client(&plain)).await.expect("frpc starts");
        let two = Frpc::start(client(&world.frps[0])).await.expect("frpc starts");
        let names = one.proxy_names();
        plain.wait_online(&names.iter().map(String::as_str).collect::<Vec<_>>(), SOON).await.expect("live");
        world.until_known(0, &two.proxy_names()).await;
        Self { plain, world, _clients: [one, two], _app: app }
    }

    fn plain(&self) -> SocketAddr {
        self.plain.http()
    }

    fn ours(&self) -> SocketAddr {
        self.world.web
    }
}

fn proxies(app: SocketAddr) -> Vec<Proxy> {
    vec![
        Proxy::http("web", app, &["app.test"]),
        Proxy::http("rewrite", app, &["rewrite.test"]).line("hostHeaderRewrite = \"inner.test\""),
        Proxy::http("sets", app, &["sets.test"])
            .line("requestHeaders.set.x-forwarded-proto = \"https\"")
            .line("requestHeaders.set.x-forwarded-for = \"8.8.8.8\"")
            .line("requestHeaders.set.x-real-ip = \"8.8.4.4\"")
            .line("requestHeaders.set.authorization = \"Bearer of-frpc\"")
            .line("requestHeaders.set.user-agent = \"frpc\"")
            .line("responseHeaders.set.content-type = \"text/x-frpc\"")
            .line("responseHeaders.set.x-app = \"renamed\"")
            .line("responseHeaders.set.server = \"frpc\""),
    ]
}

/// What `/echo` saw: its fields by name, in order of appearance.
fn fields(seen: &Value) -> BTreeMap<String, Vec<String>> {
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in seen["headers"].as_array().expect("a list") {
        let text = |at: usize| pair[at].as_str().expect("text").to_owned();
        fields.entry(text(0)).or_default().push(text(1));
    }
    fields
}

/// Sends `head` (the lines after the request line end in CR LF, the last one too) and returns what `/echo` saw.
async fn echo(address: SocketAddr, request: &str) -> Value {
    let mut visitor = Wire::connect(address).await;
    visitor.send(request).await;
    let (head, body) = visitor.response(false).await;
    assert_eq!(status(&head), 200, "{request:?}: {head}{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{request:?}: {error} in {head}"))
}

/// What the application saw of the same request by both ways.
async fn both(pair: &Pair, request: &str) -> (Value, Value) {
    (echo(pair.plain(), request).await, echo(pair.ours(), request).await)
}

#[tokio::test]
async fn websockets_and_the_first_event_of_a_stream_pass_as_through_the_vhost() {
    for version in VERSIONS {
        let pair = Pair::start(version).await;
        let mut handshakes = Vec::new();
        for address in [pair.plain(), pair.ours()] {
            let stream = TcpStream::connect(address).await.expect("it listens");
            let (mut socket, response) = client_async("ws://app.test/ws", stream).await.expect("the upgrade");
            let of_response = |name: &str| response.headers().get(name).is_some();
            handshakes.push((response.status(), of_response("upgrade"), of_response("x-app")));
            for message in [Message::text("hello"), Message::binary(vec![7; 200_000]), Message::text("")] {
                socket.send(message.clone()).await.expect("sent");
                let back = tokio::time::timeout(SOON, socket.next()).await.expect("in time");
                assert!(back.expect("open").expect("valid") == message, "{version:?} at {address}");
            }
            socket.close(None).await.expect("closed");

            let begun = Instant::now();
            let mut visitor = Wire::connect(address).await;
            visitor
                .send("GET /sse?n=2&ms=5000 HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: identity\r\n\r\n")
                .await;
            let first = visitor.until(b"data: 1\n\n").await;
            assert!(first.ends_with(b"data: 1\n\n"), "{}", String::from_utf8_lossy(&first));
            assert!(begun.elapsed() < Duration::from_secs(4), "{version:?}: held back {:?}", begun.elapsed());
        }
        assert_eq!(handshakes[0], handshakes[1], "{version:?}");
    }
}

#[tokio::test]
async fn bodies_pass_in_pieces_and_answers_without_a_length() {
    for version in VERSIONS {
        let pair = Pair::start(version).await;
        let chunked = "POST /echo HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n\
                       5\r\nhello\r\n1;ext=1\r\n \r\n5\r\nworld\r\n0\r\n\r\n";
        let (theirs, ours) = both(&pair, chunked).await;
        for seen in [&theirs, &ours] {
            assert_eq!(seen["body_length"], 11, "{version:?}: {seen}");
            assert_eq!(seen["body_error"], Value::Null, "{version:?}: {seen}");
            assert_eq!(fields(seen).get("transfer-encoding"), Some(&vec!["chunked".into()]), "{seen}");
        }
        assert_eq!(theirs["body_crc32"], ours["body_crc32"]);
        let path = "/bytes/300000?chunked=1";
        let (theirs, ours) = (
            http::get(pair.plain(), "app.test", path).await.expect("an answer"),
            http::get(pair.ours(), "app.test", path).await.expect("an answer"),
        );
        assert_eq!((theirs.status, theirs.body.len()), (ours.status, ours.body.len()), "{version:?}");
        assert!(ours.header("content-length").is_none());
        // Broken off by the application: nobody makes a whole answer of half of one.
        for address in [pair.plain(), pair.ours()] {
            let broken = http::get(address, "app.test", "/cut/20000").await;
            assert!(broken.is_err(), "{version:?} at {address}: {broken:?}");
        }
        // HEAD announces what GET would send, and the connection goes on.
        for address in [pair.plain(), pair.ours()] {
            let mut visitor = Wire::connect(address).await;
            visitor
                .send("HEAD /bytes/1000 HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: identity\r\n\r\n")
                .await;
            let (head, _) = visitor.response(true).await;
            assert_eq!((status(&head), field(&head, "content-length")), (200, Some("1000")), "{version:?}");
            visitor.send("GET /count HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: identity\r\n\r\n").await;
            assert_eq!(status(&visitor.response(false).await.0), 200, "{version:?}");
        }
    }
}

#[tokio::test]
async fn fields_arrive_as_often_and_in_the_order_in_which_they_were_sent() {
    for version in VERSIONS {
        let pair = Pair::start(version).await;
        let request = "GET /echo?x=1 HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: identity\r\nX-A: 1\r\nx-b: b\r\nX-a: 2\r\n\
                       X-Empty:\r\nX-Spaces: a  b\r\nX-Latin: caf\u{e9}\r\nAccept: a\r\nAccept: b\r\nIf-None-Match: \"x\"\r\nX-A: 3\r\n\r\n";
        let (theirs, ours) = both(&pair, request).await;
        let (theirs, ours) = (fields(&theirs), fields(&ours));
        assert_eq!(ours["x-a"], ["1", "2", "3"], "{version:?}");
        for name in [
            "x-a",
            "x-b",
            "x-empty",
            "x-spaces",
            "x-latin",
            "accept",
            "if-none-match",
            "host",
            "accept-encoding",
        ] {
            assert_eq!(ours.get(name), theirs.get(name), "{version:?}: {name}");
        }
        let only =
            |one: &BTreeMap<String, Vec<String>>, other: &BTreeMap<String, Vec<String>>| -> Vec<String> {
                one.keys().filter(|name| !other.contains_key(*name)).cloned().collect()
            };
        println!(
            "{version:?}: only by vhost {:?}, only by takeover {:?}",
            only(&theirs, &ours),
            only(&ours, &theirs)
        );
        let added = only(&ours, &theirs);
        let allowed = ["via", "forwarded"];
        assert!(added.iter().all(|name| allowed.contains(&&**name)), "{version:?}: we add {added:?}");
        assert_eq!(only(&theirs, &ours), Vec::<String>::new(), "{version:?}: what frps adds is there");
    }
}

#[tokio::test]
async fn who_asked_and_for_what_is_told_to_the_application() {
    for version in VERSIONS {
        let pair = Pair::start(version).await;
        let request = |host: &str, more: &str| {
            format!("GET /echo HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: identity\r\n{more}\r\n")
        };
        // An honest visitor: the same.
        for host in ["app.test", "rewrite.test"] {
            let (theirs, ours) = both(&pair, &request(host, "")).await;
            for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "host"] {
                assert_eq!(
                    fields(&ours).get(name),
                    fields(&theirs).get(name),
                    "{version:?}: {name} at {host}"
                );
            }
            assert_eq!(fields(&ours)["x-forwarded-for"], ["127.0.0.1"]);
        }
        // One who forges. Allowed difference: what he says doesn't count, by vhost it does.
        let forged = "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\nX-Real-IP: 9.9.9.9\r\n";
        let (theirs, ours) = both(&pair, &request("app.test", forged)).await;
        let (theirs, ours) = (fields(&theirs), fields(&ours));
        assert_eq!(theirs["x-forwarded-for"].join(", "), "9.9.9.9, 127.0.0.1", "{version:?}");
        assert_eq!(ours["x-forwarded-for"], ["127.0.0.1"], "{version:?}");
        assert_eq!(
            (&ours["x-forwarded-proto"], &ours["x-forwarded-host"]),
            (&vec!["http".into()], &vec!["app.test".into()])
        );
        assert!(
            !ours.values().flatten().any(|value| value.contains("9.9.9.9") || value.contains("evil")),
            "{ours:?}"
        );
        // What frpc sets is set last, whatever it is.
        let (theirs, ours) =
            both(&pair, &request("sets.test", "Authorization: Bearer mine\r\nUser-Agent: me\r\n")).await;
        let (theirs, ours) = (fields(&theirs), fields(&ours));
        for name in ["x-forwarded-proto", "x-forwarded-for", "x-real-ip", "authorization", "user-agent"] {
            assert_eq!(ours.get(name), theirs.get(name), "{version:?}: {name}, which frpc sets");
        }
        let (theirs, ours) = (
            http::get(pair.plain(), "sets.test", "/").await.expect("an answer"),
            http::get(pair.ours(), "sets.test", "/").await.expect("an answer"),
        );
        for name in ["content-type", "x-app", "server"] {
            assert_eq!(ours.header(name), theirs.header(name), "{version:?}: {name} of the answer");
        }
    }
}

#[tokio::test]
async fn what_the_vhost_spoils_is_whole() {
    for version in VERSIONS {
        let pair = Pair::start(version).await;
        // Trailers of a request: by vhost the name stays and the value is lost.
        let trailers = "POST /echo HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: identity\r\nTE: trailers\r\nTrailer: x-sum\r\n\
                        Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 42\r\n\r\n";
        let (theirs, ours) = both(&pair, trailers).await;
        assert_ne!(
            theirs["trailers"],
            serde_json::json!([["x-sum", "42"]]),
            "{version:?}: frps spoils it no more"
        );
        assert_eq!(ours["trailers"], serde_json::json!([["x-sum", "42"]]), "{version:?}: {ours}");
        // Nobody asks for gzip in the visitor's name.
        let plainly = "GET /echo HTTP/1.1\r\nHost: app.test\r\n\r\n";
        let mut asked = Wire::connect(pair.plain()).await;
        asked.send("GET /echo HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").await;
        assert!(asked.all().await.contains("gzip"), "{version:?}: frps spoils it no more");
        assert_eq!(fields(&echo(pair.ours(), plainly).await).get("accept-encoding"), None, "{version:?}");
        // One 100, not two.
        let expects = "POST /echo HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: identity\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
        for (address, wanted) in [(pair.plain(), 2), (pair.ours(), 1)] {
            let mut visitor = Wire::connect(address).await;
            visitor.send(expects).await;
            let first = visitor.head().await;
            assert_eq!(status(&first), 100, "{version:?}: {first}");
            visitor.send("abc").await;
            let rest = visitor.all().await;
            let continued = 1 + rest.matches("100 Continue").count();
            assert_eq!(continued, wanted, "{version:?} at {address}: {rest}");
            assert!(rest.contains("\"body_length\":3"), "{version:?}: {rest}");
        }
        // A query that Go's parser doesn't like.
        let query = "/echo?b=2&a=1;c=3&d=%zz&e=~+x";
        let request = format!("GET {query} HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: identity\r\n\r\n");
        let (theirs, ours) = both(&pair, &request).await;
        assert_ne!(theirs["target"], query, "{version:?}: frps spoils it no more");
        assert_eq!(ours["target"], query, "{version:?}");
        // An application that closes without an answer: not a page that says "not found".
        let (theirs, ours) = (
            http::get(pair.plain(), "app.test", "/abort").await.expect("an answer"),
            http::get(pair.ours(), "app.test", "/abort").await.expect("an answer"),
        );
        assert_eq!((theirs.status, ours.status), (404, 502), "{version:?}");
    }
}

#[tokio::test]
async fn odd_forms_of_a_request_are_understood_alike() {
    for version in VERSIONS {
        let pair = Pair::start(version).await;
        for request in [
            "GET http://app.test/echo?x=1 HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: identity\r\n\r\n",
            "GET http://APP.test:80/echo HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: identity\r\n\r\n",
            "GET /echo HTTP/1.0\r\nHost: app.test\r\nAccept-Encoding: identity\r\n\r\n",
            "GET /echo HTTP/1.0\r\nHost: app.test\r\nAccept-Encoding: identity\r\nConnection: keep-alive\r\n\r\n",
            "PURGE /echo HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: identity\r\n\r\n",
            "GET /echo//a/./b/../c?q HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: identity\r\n\r\n",
            "GET /echo/%E2%82%AC%20%2F HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: identity\r\n\r\n",
        ] {
            let mut seen = Vec::new();
            for address in [pair.plain(), pair.ours()] {
                let mut visitor = Wire::connect(address).await;
                visitor.send(request).await;
                let (head, body) = visitor.response(false).await;
                let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
                // Allowed difference: frps hands on an absolute target as it came, the gateway in origin form (RFC 9112 §3.2.1).
                let target = body["target"].as_str().map(|target| {
                    let origin = target.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
                    origin.map_or_else(|| target.to_owned(), |(_, rest)| format!("/{rest}"))
                });
                // Allowed difference: the answer to HTTP/1.0 says HTTP/1.1 (RFC 9110 §2.5) and ends the connection, asked to keep it or not.
                let ends = request.contains("HTTP/1.0") && !request.contains("keep-alive");
                let ended = ends && visitor.is_ended().await;
                seen.push((
                    status(&head),
                    ended == ends,
                    body["method"].clone(),
                    target,
                    body["version"].clone(),
                    body["headers"].as_array().map(|_| fields(&body).remove("host")),
                ));
            }
            assert_eq!(seen[1], seen[0], "{version:?}: {request:?}");
        }
    }
}
