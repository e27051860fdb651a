//! Requests for a known host whose tunnels are away wait, and are sent when one is back: bounded in time, number and bytes, in order,
//! never for strangers, never twice. Real frps and frpc; needs `frp-lab/build`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test shows why, and a good one what it measured"
)]

#[path = "common/takeover.rs"]
mod takeover;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use frp_gateway_loadtest::{
    demo::DemoApp,
    http::{self, Reply},
    lab::{Proxy, until},
};
use takeover::{SOON, World, app};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

fn tunnel(app: &DemoApp, host: &str) -> Vec<Proxy> {
    vec![Proxy::http("web", app.addr(), &[host])]
}

async fn until_away(world: &World, at: usize) {
    until("the tunnel to be gone", SOON, async || world.tunnels(at).await.is_empty().then_some(()))
        .await
        .expect("it goes");
}

async fn held(world: &World) -> f64 {
    // Of the tunnels' own pools, and of the vhost ports behind them.
    let mut all = 0.0;
    for pool in ["pool=\"auto\"", "pool=\"default\"", "pool=\"all\""] {
        let held = world.gateway().metric("frp_gateway_pool_held", &[pool]).await.ok().flatten();
        all += held.unwrap_or_default();
    }
    all
}

async fn until_held(world: &World, count: f64) {
    until(&format!("{count} to be held"), SOON, async || {
        let now = held(world).await;
        ((now - count).abs() < 0.5).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", world.gateway().log()));
}

fn ask(web: SocketAddr, method: &'static str, body: &'static str) -> JoinHandle<Reply> {
    tokio::spawn(async move {
        let request = http::request(method, "h0.test", "/").body(http::full(body));
        http::send(web, request).await.expect("an answer")
    })
}

#[tokio::test]
async fn requests_wait_for_a_tunnel_that_comes_back_and_are_sent_once() {
    let world = World::start(&["a", "b"], "").await;
    let apps = [app("app0"), app("app1")];
    let mut first = world.frpc(0, "u", tunnel(&apps[0], "h0.test")).await;
    assert_eq!(world.get("h0.test", "/").await.app(), Some("app0"));
    first.kill9();
    until_away(&world, 0).await;
    let asked: Vec<_> =
        (0..40).map(|n| ask(world.web, if n % 2 == 0 { "POST" } else { "GET" }, "once")).collect();
    until_held(&world, 40.0).await;
    let stranger = Instant::now();
    assert_eq!(world.get("nobody.test", "/").await.status, 404, "a stranger's host isn't waited for");
    assert!(stranger.elapsed() < Duration::from_millis(500), "{:?}", stranger.elapsed());
    // It comes back on another frps.
    let _second = world.frpc_unready(1, "u", tunnel(&apps[1], "h0.test"));
    for request in asked {
        let reply = request.await.expect("no panic");
        assert_eq!((reply.status, reply.app()), (200, Some("app1")), "{}", reply.text());
    }
    assert_eq!(apps[1].requests(), 40, "each was sent once");
    assert!(held(&world).await < 0.5, "none waits any more");
}

#[tokio::test]
async fn a_wait_ends_in_time_with_503_and_says_when_to_come_back() {
    let world =
        World::start(&["a"], "pools: [ { name: default, hold: { time: 700ms, requests: 3 } } ]").await;
    let apps = [app("app0")];
    let mut client = world.frpc(0, "u", tunnel(&apps[0], "h0.test")).await;
    client.kill9();
    until_away(&world, 0).await;
    let begun = Instant::now();
    let asked: Vec<_> = (0..3).map(|_| ask(world.web, "GET", "")).collect();
    until_held(&world, 3.0).await;
    let over = Instant::now();
    let reply = ask(world.web, "GET", "").await.expect("no panic");
    assert_eq!(reply.status, 503, "the fourth isn't kept waiting");
    assert!(over.elapsed() < Duration::from_millis(300), "{:?}", over.elapsed());
    for request in asked {
        let reply = request.await.expect("no panic");
        assert_eq!(
            (reply.status, reply.header("x-frp-gateway")),
            (503, Some("tunnel_away")),
            "{}",
            reply.text()
        );
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
        assert!(reply.text().contains("h0.test"), "{}", reply.text());
        let id = reply.header("x-request-id").expect("a request id");
        assert!(reply.text().contains(&format!("request id: {id}")), "{id}: {}", reply.text());
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(690) && took < Duration::from_secs(3), "{took:?}");
    let metric = async |name: &str| {
        world.gateway().metric(name, &["pool=\"default\""]).await.expect("metrics").unwrap_or_default()
    };
    assert!((metric("frp_gateway_pool_hold_expired_total").await - 3.0).abs() < 0.5);
    assert!((metric("frp_gateway_pool_hold_refused_total").await - 1.0).abs() < 0.5);
}

#[tokio::test]
async fn hold_off_answers_at_once() {
    let world =
        World::start(&["a"], "tunnels: { pool: { hold: off } }\npools: [ { name: default, hold: off } ]")
            .await;
    let apps = [app("app0")];
    let mut client = world.frpc(0, "u", tunnel(&apps[0], "h0.test")).await;
    client.kill9();
    until_away(&world, 0).await;
    let begun = Instant::now();
    assert_eq!(world.get("h0.test", "/").await.status, 503);
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_visitor_who_leaves_is_forgotten_and_bytes_are_bounded() {
    let world = World::start(&["a"], "pools: [ { name: default, hold: { time: 20s, bytes: 4KiB } } ]").await;
    let apps = [app("app0")];
    let mut client = world.frpc(0, "u", tunnel(&apps[0], "h0.test")).await;
    client.kill9();
    until_away(&world, 0).await;
    let mut visitor = TcpStream::connect(world.web).await.expect("it listens");
    let large = format!("GET / HTTP/1.1\r\nHost: h0.test\r\nX-Large: {}\r\n\r\n", "x".repeat(3000));
    visitor.write_all(large.as_bytes()).await.expect("it reads");
    until_held(&world, 1.0).await;
    let mut other = TcpStream::connect(world.web).await.expect("it listens");
    other.write_all(large.as_bytes()).await.expect("it reads");
    let mut answer = [0; 12];
    other.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 503", "both together are more than may wait");
    // An end right after a request is a visitor who has merely finished sending.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(visitor);
    until_held(&world, 0.0).await;
    // Now there is room again.
    let small = ask(world.web, "GET", "");
    until_held(&world, 1.0).await;
    let _back = world.frpc_unready(0, "u", tunnel(&apps[0], "h0.test"));
    assert_eq!(small.await.expect("no panic").status, 200);
    assert_eq!(apps[0].requests(), 1, "the one who left was not served");
}

#[tokio::test]
async fn who_came_first_is_served_first() {
    let world = World::start(&["a"], "").await;
    let apps = [app("app0")];
    let mut client = world.frpc(0, "u", tunnel(&apps[0], "h0.test")).await;
    client.kill9();
    until_away(&world, 0).await;
    let mut asked = Vec::new();
    for n in 0..12 {
        asked.push(tokio::spawn({
            let web = world.web;
            async move {
                let request = http::request("GET", "h0.test", &format!("/?n={n}")).body(http::empty());
                (n, http::send(web, request).await.expect("an answer"), Instant::now())
            }
        }));
        until_held(&world, f64::from(n + 1)).await;
    }
    let _back = world.frpc_unready(0, "u", tunnel(&apps[0], "h0.test"));
    let mut served = Vec::new();
    for request in asked {
        let (n, reply, at) = request.await.expect("no panic");
        assert_eq!(reply.status, 200);
        served.push((at, n));
    }
    let (first, last) = (served.iter().min().expect("some").0, served.iter().max().expect("some").0);
    println!("12 held requests were all answered within {:?} of each other", last - first);
    assert!(last - first < Duration::from_secs(1), "none is left behind: {served:?}");
}

#[tokio::test]
async fn an_application_that_breaks_every_request_is_not_waited_for() {
    let world = World::start(&["a"], "").await;
    let apps = [app("app0")];
    let _client = world.frpc(0, "u", tunnel(&apps[0], "h0.test")).await;
    assert_eq!(world.get("h0.test", "/").await.status, 200);
    let begun = Instant::now();
    let reply = world.get("h0.test", "/abort").await;
    assert_eq!(reply.status, 502, "{}", reply.text());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_vhost_pool_waits_for_servers_that_are_down() {
    let mut world = World::fleet(&["a"], "", |options| options).await;
    let apps = [app("app0")];
    world.rest = "takeover: { http: false }\npools: [ { name: all } ]\nroutes: [ { pool: all } ]\ntunnels: { serve: false }".into();
    world.start_gateway().await;
    let client = world.frpc(0, "u", tunnel(&apps[0], "h0.test")).await;
    assert_eq!(world.get("h0.test", "/").await.status, 200);
    world.frps[0].kill9();
    let web = world.web;
    let asked: Vec<_> = (0..10).map(|_| ask(web, "GET", "")).collect();
    let posted = ask(web, "POST", "once");
    until_held(&world, 11.0).await;
    world.frps[0].restart().await.expect("frps is back");
    for request in asked {
        let reply = request.await.expect("no panic");
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    // A vhost's 404 doesn't tell whether a request has run: then it isn't sent again.
    let reply = posted.await.expect("no panic");
    let class = reply.header("x-frp-gateway").unwrap_or_default();
    assert!(reply.status == 200 || class == "may_have_run", "{}", reply.text());
    drop(client);
}
