//! What a request can rely on, each stream of an HTTP/2 connection can: it waits for a tunnel, stays at its endpoint, is logged,
//! and is sent elsewhere if this isn't the connection for it. Real frps and frpc; needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/raw.rs"]
mod raw;
#[path = "common/takeover.rs"]
mod takeover;
#[path = "common/tls.rs"]
mod tls;
#[path = "common/ways.rs"]
mod ways;

use std::{collections::BTreeSet, convert::Infallible};

use bytes::Bytes;
use frp_gateway_loadtest::{
    demo::DemoApp,
    lab::{Proxy, until},
};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
};
use raw::{App, Site, gateway};
use takeover::{SOON, app};
use tls::{Authority, dial};
use tokio::{io::AsyncWriteExt, time::timeout};
use ways::{Body, Ground, HOST, Speech, Visitor, Way, nothing, text};

fn proxy(app: &DemoApp, host: &str) -> Proxy {
    Proxy::http("web", app.addr(), &[host])
}

fn to(host: &str, path: &str) -> Request<Body> {
    Request::get(format!("https://{host}{path}")).body(nothing()).expect("a request")
}

fn name(response: &Response<Incoming>) -> &str {
    response.headers().get("x-app").and_then(|name| name.to_str().ok()).unwrap_or_default()
}

async fn held(ground: &Ground) -> f64 {
    // Of the tunnels' own pools, and of the vhost ports that stand behind them or alone.
    let mut all = 0.0;
    for pool in ["pool=\"auto\"", "pool=\"default\"", "pool=\"all\""] {
        let held = ground.world.gateway().metric("frp_gateway_pool_held", &[pool]).await.ok().flatten();
        all += held.unwrap_or_default();
    }
    all
}

async fn until_held(ground: &Ground, count: f64) {
    until(&format!("{count} to be held"), SOON, async || {
        let now = held(ground).await;
        ((now - count).abs() < 0.5).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", ground.world.gateway().log()));
}

async fn until_away(ground: &Ground, at: usize) {
    until("the tunnel to be gone", SOON, async || ground.world.tunnels(at).await.is_empty().then_some(()))
        .await
        .expect("it goes");
}

/// A tunnel for [`HOST`] at one frps, one for another host at the other, and an HTTP/2 connection.
async fn two_hosts(way: Way) -> (Ground, [DemoApp; 2], Visitor) {
    let apps = [app("one"), app("other")];
    let proxies = vec![proxy(&apps[0], HOST), proxy(&apps[1], "other.test")];
    let ground = Ground::start(way, &["a", "b"], proxies, "hold: 60s").await;
    let mut visitor = ground.visitor(Speech::Http2Tls).await;
    for host in [HOST, "other.test"] {
        let answer = visitor.send(to(host, "/")).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{way:?}, {host}");
    }
    (ground, apps, visitor)
}

#[tokio::test]
async fn streams_wait_for_their_tunnel_while_others_of_the_connection_go_on_and_resets_are_dropped() {
    for way in Way::ALL {
        let (mut ground, apps, visitor) = two_hosts(way).await;
        ground.frpc[0].kill9();
        until_away(&ground, 0).await;
        let before = apps[0].requests();
        let ask = |n: usize| {
            let mut visitor = visitor.twin();
            tokio::spawn(async move {
                let response = visitor.send(to(HOST, &format!("/echo?n={n}"))).await.expect("an answer");
                (response.status().as_u16(), text(response).await)
            })
        };
        let mut waiting: Vec<_> = (0..20).map(ask).collect();
        until_held(&ground, 20.0).await;
        for round in 0..10 {
            let answer = timeout(SOON, visitor.twin().send(to("other.test", "/"))).await.expect("at once");
            assert_eq!(answer.expect("an answer").status(), 200, "{way:?}, round {round}");
        }
        // Whoever drops a stream resets it.
        let dropped: Vec<_> = waiting.drain(..8).collect();
        dropped.iter().for_each(tokio::task::JoinHandle::abort);
        until_held(&ground, 12.0).await;
        assert_eq!(apps[0].requests(), before, "{way:?}: nothing has been sent");
        let _back = ground.world.frpc_unready(0, "alice", vec![proxy(&apps[0], HOST)]);
        for (n, stream) in waiting.into_iter().enumerate() {
            let (status, said) = timeout(SOON, stream).await.expect("in time").expect("no panic");
            assert_eq!(status, 200, "{way:?}: {said}");
            assert!(said.contains(&format!("/echo?n={}\"", n + 8)), "{way:?}: its own answer: {said}");
        }
        assert_eq!(apps[0].requests(), before + 12, "{way:?}: each once, those that were reset never");
        let line = ground.logged("/echo?n=19").await;
        assert!(line["held_ms"].as_f64() > Some(0.0) && line["protocol"] == "HTTP/2", "{line}");
        assert!(held(&ground).await < 0.5, "{way:?}");
    }
}

#[tokio::test]
async fn thousands_of_small_messages_wait_for_their_tunnel_and_end_no_connection() {
    const MESSAGES: usize = 6000;
    let way = Way::ALL[0];
    let (mut ground, apps, visitor) = two_hosts(way).await;
    ground.frpc[0].kill9();
    until_away(&ground, 0).await;
    let upload = |method: &str| {
        let messages =
            (0..MESSAGES).map(|n| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{n:05}")))));
        let body = BodyExt::boxed(StreamBody::new(futures_util::stream::iter(messages)));
        let request = Request::builder().method(method).uri(format!("https://{HOST}/echo")).body(body);
        let mut twin = visitor.twin();
        tokio::spawn(
            async move { text(twin.send(request.expect("a request")).await.expect("an answer")).await },
        )
    };
    let waiting = [upload("POST"), upload("PUT")];
    until_held(&ground, 2.0).await;
    for _ in 0..10 {
        let answer = timeout(SOON, visitor.twin().send(to("other.test", "/"))).await.expect("at once");
        assert_eq!(answer.expect("the connection lives").status(), 200);
    }
    let _back = ground.world.frpc_unready(0, "alice", vec![proxy(&apps[0], HOST)]);
    for waiting in waiting {
        let said = timeout(SOON, waiting).await.expect("in time").expect("no panic");
        let said: serde_json::Value =
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!(said["body_length"], MESSAGES * 5, "{said}");
    }
}

#[tokio::test]
async fn a_session_stays_by_a_cookie_that_comes_in_crumbs() {
    for way in Way::ALL {
        let apps = [app("one"), app("two")];
        let proxies = apps.iter().map(|app| proxy(app, HOST)).collect();
        let pool = "affinity: { cookie: { key: 0123456789abcdef0123456789abcdef } }";
        let ground = Ground::start(way, &["a", "b"], proxies, pool).await;
        let visitor = ground.visitor(Speech::Http2Tls).await;
        let mut met = BTreeSet::new();
        let (mut session, mut at) = (String::new(), String::new());
        until("a new visitor to come to either", SOON, async || {
            let answer = visitor.twin().send(to(HOST, "/")).await.ok()?;
            at = name(&answer).to_owned();
            let cookie = answer.headers().get("set-cookie")?.to_str().ok()?;
            assert!(cookie.contains("Secure"), "{way:?}: the visitor speaks HTTPS: {cookie}");
            session = cookie.split(';').next()?.to_owned();
            met.insert(at.clone());
            (met.len() == 2).then_some(())
        })
        .await
        .unwrap_or_else(|error| panic!("{way:?}: {error}, {met:?}"));
        for round in 0..20 {
            let mut request = to(HOST, "/echo");
            for crumb in ["first=1", &session, "last=2"] {
                request.headers_mut().append("cookie", crumb.parse().expect("a value"));
            }
            let answer = visitor.twin().send(request).await.expect("an answer");
            assert_eq!((name(&answer), answer.headers().get("set-cookie")), (&*at, None), "{way:?}, {round}");
            let said: serde_json::Value = serde_json::from_str(&text(answer).await).expect("JSON");
            let fields = said["headers"].as_array().expect("a list");
            let cookies: Vec<_> = fields.iter().filter(|field| field[0] == "cookie").collect();
            assert_eq!(cookies.len(), 1, "{way:?}: one field (RFC 9113 §8.2.3): {said}");
            let cookie = cookies[0][1].as_str().expect("text");
            assert!(cookie.starts_with("first=1; ") && cookie.ends_with("; last=2"), "{way:?}: {cookie}");
        }
    }
}

#[tokio::test]
async fn the_access_log_tells_the_protocol_and_the_bytes_of_each_stream() {
    for way in Way::ALL {
        let apps = [app("one")];
        let ground = Ground::start(way, &["a"], vec![proxy(&apps[0], HOST)], "hold: off").await;
        let paths = ["/bytes/0", "/bytes/1", "/bytes/100000", "/bytes/3000000", "/status/404"];
        let mut sizes = Vec::new();
        for speech in Speech::ALL {
            let mut visitor = ground.visitor(speech).await;
            for path in paths.into_iter().chain(["/bytes/100000?chunked=1"]) {
                let mark = if path.contains('?') { '&' } else { '?' };
                let path = format!("{path}{mark}{speech:?}");
                let answer = visitor.ask("GET", &path, nothing()).await.expect("an answer");
                let status = answer.status().as_u16();
                let size = answer.into_body().collect().await.expect("whole").to_bytes().len() as u64;
                sizes.push((speech, path, status, size));
            }
        }
        // Lines are written together, now and then: they are looked for when all has been asked.
        for (speech, path, status, size) in sizes {
            let line = ground.logged(&path).await;
            let protocol = if speech == Speech::Http2Tls { "HTTP/2" } else { "HTTP/1.1" };
            let told = (&line["protocol"], &line["status"]);
            assert_eq!(told, (&protocol.into(), &status.into()), "{way:?}, {path}: {line}");
            let bytes = line["bytes"].as_u64().expect("a number");
            // The framing of chunks counts.
            let most = if path.contains("chunked") { size + 1000 } else { size };
            assert!((size..=most).contains(&bytes), "{way:?}, {path}: {size} bytes: {line}");
        }
    }
}

/// The status and class of a request for `host` over this connection.
async fn judged(visitor: &mut Visitor, host: &str) -> (u16, String) {
    let request = match visitor.speech() {
        Speech::Http1 | Speech::Http1Tls => {
            Request::get("/").header("host", host).body(nothing()).expect("a request")
        }
        Speech::Http2Tls => to(host, "/"),
    };
    let answer = timeout(SOON, visitor.send(request)).await.expect("in time").expect("an answer");
    let class = answer.headers().get("x-frp-gateway").and_then(|class| class.to_str().ok());
    let told = (answer.status().as_u16(), class.unwrap_or_default().to_owned());
    drop(answer.into_body().collect().await.expect("whole"));
    told
}

fn class(status: u16, class: &str) -> (u16, String) {
    (status, class.to_owned())
}

#[tokio::test]
async fn hosts_that_a_certificate_is_not_for_are_misdirected_where_unknown_names_are_refused() {
    let authority = Authority::new();
    let (one, two) =
        (authority.issue("one", &["app.test", "*.app.test"]), authority.issue("two", &["other.test"]));
    let app = app("one");
    let hosts = ["app.test", "www.app.test", "other.test"];
    let site = Site::start("a", vec![Proxy::http("web", app.addr(), &hosts)]).await;
    let listener = |name: &str, more: &str| {
        format!(
            "{{ name: {name}, bind: \"127.0.0.1:0\", protocol: https, tls: {{ certificates: [{one}, {two}]{more} }} }}"
        )
    };
    let listeners = [listener("strict", ", unknown_name: refuse"), listener("mild", "")];
    let gateway = gateway(&[site.entry(true)], &[&listeners[0], &listeners[1]], "").await;
    let strict = gateway.listener("strict").await.expect("it listens");
    let mild = gateway.listener("mild").await.expect("it listens");
    for speech in [Speech::Http1Tls, Speech::Http2Tls] {
        let open = async |address, name: &str| {
            let config = authority.visitor(&[speech.alpn().expect("TLS")]);
            let stream = dial(address, name, &config).await.expect("a handshake");
            Visitor::over(speech, stream).await
        };
        let mut visitor = open(strict, "app.test").await;
        for _ in 0..2 {
            assert_eq!(judged(&mut visitor, "app.test").await, class(200, ""), "{speech:?}");
            assert_eq!(
                judged(&mut visitor, "www.app.test").await,
                class(200, ""),
                "{speech:?}: one certificate"
            );
            assert_eq!(judged(&mut visitor, "APP.test:8443").await, class(200, ""), "{speech:?}");
            let other = judged(&mut visitor, "other.test").await;
            assert_eq!(
                other,
                class(421, "misdirected"),
                "{speech:?}: another's, and the connection lives on"
            );
        }
        let mut visitor = open(strict, "other.test").await;
        assert_eq!(judged(&mut visitor, "other.test").await, class(200, ""), "{speech:?}");
        assert_eq!(judged(&mut visitor, "app.test").await, class(421, "misdirected"), "{speech:?}");
        // Elsewhere a visitor that has looked away from the certificate is served, as by most servers.
        let mut visitor = open(mild, "app.test").await;
        for host in hosts {
            assert_eq!(judged(&mut visitor, host).await, class(200, ""), "{speech:?}, {host}");
        }
        assert_eq!(judged(&mut visitor, "nobody.test").await, class(404, "no_tunnel"), "{speech:?}");
    }
}

#[tokio::test]
async fn hosts_whose_tls_ends_elsewhere_are_misdirected_even_if_a_route_is_for_everyone() {
    let authority = Authority::new();
    let pair = authority.issue("wild", &["app.test", "*.app.test"]);
    let app = app("one");
    // What it says doesn't matter: nobody gets there by a request.
    let own = App::start(|mut stream| tokio::spawn(async move { drop(stream.shutdown().await) })).await;
    let proxies = vec![
        Proxy::http("web", app.addr(), &["app.test"]),
        Proxy::https("own", own.address, &["own.app.test"]),
    ];
    let site = Site::start("a", proxies).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let listeners = [
        format!("{{ name: secure, bind: \"{port}\", protocol: https, tls: {{ certificates: [{pair}] }} }}"),
        format!("{{ name: sni, bind: \"{port}\", protocol: tls_passthrough }}"),
    ];
    let rest =
        "pools: [ { name: all } ]\nroutes: [ { pool: all, listeners: secure } ]\ntunnels: { serve: true }";
    let gateway = gateway(&[site.entry(true)], &[&listeners[0], &listeners[1]], rest).await;
    for speech in [Speech::Http1Tls, Speech::Http2Tls] {
        let config = authority.visitor(&[speech.alpn().expect("TLS")]);
        let stream = dial(port, "app.test", &config).await.expect("a handshake");
        let mut visitor = Visitor::over(speech, stream).await;
        assert_eq!(judged(&mut visitor, "app.test").await, class(200, ""), "{speech:?}");
        // A browser would reuse the connection, since its certificate is for *.app.test.
        until("the https tunnel", SOON, async || {
            (judged(&mut visitor, "own.app.test").await == class(421, "misdirected")).then_some(())
        })
        .await
        .expect("it is sent elsewhere");
        assert_eq!(
            judged(&mut visitor, "app.test").await,
            class(200, ""),
            "{speech:?}: the connection lives on"
        );
    }
    drop(gateway);
}

#[tokio::test]
async fn a_host_that_wants_certificates_gets_them_over_connections_to_others_too() {
    let authority = Authority::new();
    let pair = authority.issue("app", &["app.test", "admin.test"]);
    let app = app("one");
    let site = Site::start("a", vec![Proxy::http("web", app.addr(), &["app.test", "admin.test"])]).await;
    let trust = authority.path("ca.pem");
    let listener = format!(
        "{{ name: secure, bind: \"127.0.0.1:0\", protocol: https, tls: {{ certificates: [{pair}], client_auth: {{ mode: optional, \
         trust: \"{}\" }} }} }}",
        trust.display()
    );
    let rest = "pools: [ { name: all } ]\nroutes:\n  - { match: { host: admin.test }, client: required, pool: all }\n  - { pool: all }";
    let gateway = gateway(&[site.entry(true)], &[&listener], rest).await;
    let address = gateway.listener("secure").await.expect("it listens");
    for speech in [Speech::Http1Tls, Speech::Http2Tls] {
        let config = authority.visitor(&[speech.alpn().expect("TLS")]);
        let mut visitor = Visitor::over(speech, dial(address, "app.test", &config).await.expect("in")).await;
        assert_eq!(judged(&mut visitor, "app.test").await, class(200, ""), "{speech:?}");
        assert_eq!(judged(&mut visitor, "admin.test").await, class(403, "client_refused"), "{speech:?}");
        assert_eq!(judged(&mut visitor, "app.test").await, class(200, ""), "{speech:?}");
    }
}
