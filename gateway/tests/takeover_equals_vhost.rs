//! The same requests through a plain frps and through the takeover: what application and visitor see is the same, but for the
//! differences that `docs/takeover.md` lists. Real frps and frpc of both versions; needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/takeover.rs"]
mod takeover;

use std::collections::BTreeMap;

use frp_gateway_loadtest::{
    http::{self, Reply},
    lab::{Frpc, FrpcOptions, Frps, FrpsOptions, Proxy, Version},
};
use serde_json::Value;
use takeover::{SOON, World, app};

/// Fields that the way adds or writes anew: what they say is in `docs/takeover.md`.
const OF_THE_WAY: [&str; 8] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-real-ip", // forged, unless a trusted proxy wrote it
    "via",
    "accept-encoding", // frps asks for gzip in the visitor's name
    "connection",
    "trailer",
];

/// One request of the set.
struct Case {
    name: &'static str,
    method: &'static str,
    host: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: usize,
}

const fn get(name: &'static str, host: &'static str, path: &'static str) -> Case {
    Case { name, method: "GET", host, path, headers: &[], body: 0 }
}

const CASES: &[Case] = &[
    get("the first of two domains", "one.test", "/echo"),
    get("the second", "two.test", "/echo"),
    get("upper case and a port", "ONE.test:80", "/echo"),
    get("the subdomain", "sub.lab.test", "/echo"),
    get("a wildcard", "deep.er.wild.test", "/echo"),
    get("not the bare name of a wildcard", "wild.test", "/echo"),
    get("a location", "split.test", "/status/201"),
    get("a location is a plain prefix", "split.test", "/status/2010"),
    get("the other location", "split.test", "/echo"),
    get("the longest of nested locations", "split.test", "/echo/deeper"),
    get("no location fits", "split.test", "/nothing"),
    get("nobody's host", "nobody.test", "/echo"),
    get("the application's own 404", "one.test", "/status/404"),
    get("a 500 of the application", "one.test", "/status/500"),
    get("204 without a body", "one.test", "/status/204"),
    get("host rewrite and header sets", "rewrite.test", "/echo"),
    Case {
        headers: &[("x-set", "of the visitor"), ("x-other", "stays"), ("user-agent", "me")],
        ..get("a header set replaces the visitor's", "rewrite.test", "/echo")
    },
    get("no credentials", "guarded.test", "/echo"),
    Case {
        headers: &[("authorization", "Basic Y2Fyb2w6eA==")],
        ..get("wrong ones", "guarded.test", "/echo")
    },
    Case { headers: &[("authorization", "Bearer x")], ..get("another scheme", "guarded.test", "/echo") },
    Case {
        headers: &[("authorization", "Basic Y2Fyb2w6czNjcmV0")],
        ..get("the right ones", "guarded.test", "/echo")
    },
    Case { headers: &[("authorization", "Basic ZGF2ZTp4")], ..get("routed by user", "byuser.test", "/echo") },
    Case {
        headers: &[("authorization", "Basic ZXZlOng=")],
        ..get("by another user", "byuser.test", "/echo")
    },
    get("by no user", "byuser.test", "/echo"),
    Case { method: "POST", body: 10, ..get("a small body", "one.test", "/echo") },
    Case { method: "PUT", body: 3_000_000, ..get("a large body", "one.test", "/echo") },
    Case { method: "DELETE", ..get("DELETE", "one.test", "/echo") },
    Case { method: "PATCH", body: 100, ..get("PATCH", "one.test", "/echo") },
    Case { method: "OPTIONS", ..get("OPTIONS", "one.test", "/echo") },
    Case { method: "HEAD", ..get("HEAD", "one.test", "/bytes/1000") },
    get("a large answer", "one.test", "/bytes/3000000"),
    get("server-sent events", "one.test", "/sse?n=5&ms=5"),
    get("trailers of the answer", "one.test", "/trailers"),
    get("a query", "one.test", "/echo?b=2&a=1&a=%20x"),
    get("an encoded path", "one.test", "/echo/../%2e%2e//x%2Fy"),
    get("encryption and compression", "crypt.test", "/echo"),
    Case { method: "POST", body: 100_000, ..get("a body through both", "crypt.test", "/echo") },
    Case {
        headers: &[("x-real-ip", "9.9.9.9"), ("accept", "*/*")],
        ..get("odd fields", "one.test", "/echo")
    },
    Case { headers: &[("cookie", "a=1; b=2"), ("x-a", "1")], ..get("cookies", "one.test", "/echo") },
];

fn proxies(app: std::net::SocketAddr) -> Vec<Proxy> {
    vec![
        Proxy::http("two-domains", app, &["one.test", "two.test"]),
        Proxy::new("sub", "http", app).line("subdomain = \"sub\""),
        Proxy::http("wild", app, &["*.wild.test"]),
        Proxy::http("split", app, &["split.test"]).locations(&["/status", "/echo", "/echo/deep"]),
        Proxy::http("rewrite", app, &["rewrite.test"])
            .line("hostHeaderRewrite = \"inner.test\"")
            .line("requestHeaders.set.x-set = \"of frpc\"")
            .line("responseHeaders.set.x-answer = \"of frpc\""),
        Proxy::http("guarded", app, &["guarded.test"])
            .line("httpUser = \"carol\"")
            .line("httpPassword = \"s3cret\""),
        Proxy::http("byuser", app, &["byuser.test"]).line("routeByHTTPUser = \"dave\""),
        Proxy::http("crypt", app, &["crypt.test"])
            .line("transport.useEncryption = true")
            .line("transport.useCompression = true"),
    ]
}

async fn ask(address: std::net::SocketAddr, case: &Case) -> Reply {
    let mut request = http::request(case.method, case.host, case.path).header("accept-encoding", "identity");
    for (name, value) in case.headers {
        request = request.header(*name, *value);
    }
    let body = if case.body == 0 { http::empty() } else { http::full(vec![b'x'; case.body]) };
    http::send(address, request.body(body)).await.unwrap_or_else(|error| panic!("{}: {error}", case.name))
}

/// What the visitor sees, and what the application saw where it tells.
fn seen(reply: &Reply) -> (u16, BTreeMap<String, String>, Value) {
    let of_the_server = |name: &str| {
        OF_THE_WAY.contains(&name) || ["date", "content-length", "transfer-encoding"].contains(&name)
    };
    let headers = reply
        .headers
        .iter()
        .filter(|(name, _)| !of_the_server(name.as_str()))
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let mut body = reply.json().unwrap_or_else(|_| Value::from(reply.body.len()));
    if let Some(fields) = body.get_mut("headers").and_then(Value::as_array_mut) {
        fields.retain(|field| !OF_THE_WAY.contains(&field[0].as_str().unwrap_or_default()));
        fields.sort_by_key(ToString::to_string);
    }
    (reply.status, headers, body)
}

async fn both_ways(version: Version) {
    let app = app("app");
    let mut plain =
        Frps::start(FrpsOptions::new("plain").version(version).line("subDomainHost = \"lab.test\""))
            .await
            .expect("frps starts");
    let world = World::with(&["a"], "", |options| options.version(version)).await;
    let options = |frps: &Frps| {
        let options = FrpcOptions::new(frps).user("u");
        proxies(app.addr()).into_iter().fold(options, FrpcOptions::proxy)
    };
    let one = Frpc::start(options(&plain)).await.expect("frpc starts");
    let two = Frpc::start(options(&world.frps[0])).await.expect("frpc starts");
    let names = two.proxy_names();
    plain
        .wait_online(&one.proxy_names().iter().map(String::as_str).collect::<Vec<_>>(), SOON)
        .await
        .expect("live");
    world.until_known(0, &names).await;
    // Nothing is served by the vhost of the frps that has us for a plugin.
    let direct = http::get(world.frps[0].http(), "one.test", "/echo").await.expect("an answer");
    assert_eq!((direct.status, direct.app()), (404, None), "it was taken over");

    let mut compared = 0;
    for case in CASES {
        let (theirs, ours) = (ask(plain.http(), case).await, ask(world.web, case).await);
        let (theirs_seen, ours_seen) = (seen(&theirs), seen(&ours));
        let name = case.name;
        if theirs.app().is_none() {
            // Answers of frps and of the gateway itself: the status is the same, and whose it is can be told.
            assert_eq!(ours.status, theirs.status, "{name}: {}", ours.text());
            assert!(ours.app().is_none() && ours.header("x-frp-gateway").is_some(), "{name}");
            assert_eq!(ours.header("www-authenticate"), theirs.header("www-authenticate"), "{name}");
        } else {
            assert_eq!(ours_seen, theirs_seen, "{name}");
            if ours.json().is_err() {
                assert_eq!(ours.body, theirs.body, "{name}");
            }
            assert_eq!(ours.trailers, theirs.trailers, "{name}");
            compared += 1;
        }
    }
    assert!(compared >= 25, "{compared} answers of the application were compared");

    // What frps spoils, and the gateway doesn't.
    let case = get("a query with a semicolon", "one.test", "/echo?b=2&a=1;c=3&d=%zz&e=~+x");
    let target =
        |reply: &Reply| reply.json().expect("JSON")["target"].as_str().unwrap_or_default().to_owned();
    assert_ne!(target(&ask(plain.http(), &case).await), case.path, "frps loses parameters");
    assert_eq!(target(&ask(world.web, &case).await), case.path);
}

#[tokio::test]
async fn application_and_visitor_see_the_same_with_frp_0_71() {
    both_ways(Version::V071).await;
}

#[tokio::test]
async fn application_and_visitor_see_the_same_with_frp_0_61() {
    both_ways(Version::V061).await;
}
