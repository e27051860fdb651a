//! Everything basic with frp 0.71 and 0.61: sharing, the 404 page, the listing, WebSocket, events, large bodies. Real frps
//! and frpc; needs `frp-lab/build`.

mod common;
#[path = "common/fleet.rs"]
mod fleet;

use std::time::{Duration, Instant};

use common::Wire;
use fleet::{Load, SOON, Site, ask, bare, gateway, gist, metric, tunnel};
use frp_gateway_loadtest::{
    http::{empty, full},
    lab::{Frpc, FrpcOptions, Proxy, Version, until},
};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{client_async, tungstenite::Message};

const ONE_POOL: &str = "pools: [{ name: p, frps: all }]\nroutes: [{ pool: p }]";
const MIB_20: usize = 20 * 1024 * 1024;

#[tokio::test]
async fn the_basics_work_with_frp_0_71() {
    basics(Version::V071).await;
}

#[tokio::test]
async fn the_basics_work_with_frp_0_61() {
    basics(Version::V061).await;
}

async fn basics(version: Version) {
    let mut sites = [
        Site::start("a", version, &["app.test"]).await,
        Site::start("b", version, &["app.test", "second.test"]).await,
    ];
    let only = Proxy::http("only", sites[1].app.addr(), &["only.test"]);
    let _only = tunnel(&mut sites[1].frps, only).await;
    requests_are_shared(&sites).await;
    the_page_is_recognised(&sites).await;
    the_listing_is_read(&sites).await;
    let (_gateway, address) =
        gateway(&sites.each_ref().map(|site| bare(site.name, &site.frps)), ONE_POOL).await;
    for _ in 0..2 {
        websocket_echoes(address).await;
        the_first_event_comes_at_once(address).await;
        large_bodies_arrive_whole(address).await;
    }
}

async fn requests_are_shared(sites: &[Site; 2]) {
    let (_gateway, address) =
        gateway(&sites.each_ref().map(|site| bare(site.name, &site.frps)), ONE_POOL).await;
    let load = Load::start(address, "app.test", "/", 4);
    load.more(400).await;
    let tally = load.stop().await;
    assert!(tally.failed.is_empty(), "{:?}", tally.failed);
    let share = tally.of("a") as f64 / tally.total() as f64;
    assert!((0.48..=0.52).contains(&share), "half for each: {:?}", tally.served);
}

async fn the_page_is_recognised(sites: &[Site; 2]) {
    let (gateway, address) =
        gateway(&sites.each_ref().map(|site| bare(site.name, &site.frps)), ONE_POOL).await;
    for n in 0..40 {
        let reply = match n % 2 {
            0 => ask(address, "GET", "only.test", "/", empty()).await,
            _ => ask(address, "POST", "only.test", "/echo", full("hi")).await,
        };
        assert_eq!(gist(&reply), (200, "b", "-"), "request {n}: {}", reply.text());
    }
    let absent = metric(&gateway, "frp_gateway_endpoint_absent_total", &["endpoint=\"a\""]).await;
    assert!(absent >= 1.0, "frps a was never asked: nothing is proved");
    let reply = ask(address, "GET", "nobody.test", "/", empty()).await;
    assert_eq!(gist(&reply), (404, "-", "no_tunnel"), "{}", reply.text());
}

async fn the_listing_is_read(sites: &[Site; 2]) {
    let fast = |site: &Site| site.frps.yaml().replace("password: lab", "password: lab, interval: 100ms");
    let (gateway, address) = gateway(&sites.each_ref().map(fast), ONE_POOL).await;
    let listed = gateway.api("/api/v1/frps").await.expect("the API answers");
    let domains = |index: usize| {
        let tunnels = listed[index]["tunnels"].as_array().cloned().unwrap_or_default();
        let mut domains: Vec<_> = tunnels
            .iter()
            .flat_map(|tunnel| tunnel["domains"].as_array().cloned().unwrap_or_default())
            .filter_map(|domain| Some(domain.as_str()?.to_owned()))
            .collect();
        domains.sort();
        domains
    };
    assert_eq!(domains(0), ["app.test"], "{listed}");
    assert_eq!(domains(1), ["app.test", "only.test", "second.test"], "{listed}");
    // Without a body a POST that goes wrong is not repeated: each must go right at once.
    let goes_to = async |host: &str, app: &str| {
        for n in 0..6 {
            let reply = ask(address, "POST", host, "/", empty()).await;
            assert_eq!(gist(&reply), (200, app, "-"), "{host} {n}: {}", reply.text());
        }
    };
    goes_to("only.test", "b").await;
    goes_to("second.test", "b").await;
    // A tunnel that comes and goes does so in the listing, too.
    let count = async |wanted: f64| {
        until(&format!("{wanted} tunnels of a"), SOON, async || {
            let seen = metric(&gateway, "frp_gateway_frps_tunnels", &["frps=\"a\""]).await;
            ((seen - wanted).abs() < 0.5).then_some(())
        })
        .await
        .expect("the listing follows");
    };
    count(1.0).await;
    let late = Proxy::http("late", sites[0].app.addr(), &["late.test"]);
    let mut late = Frpc::start(FrpcOptions::new(&sites[0].frps).proxy(late)).await.expect("frpc starts");
    count(2.0).await;
    goes_to("late.test", "a").await;
    let absent = metric(&gateway, "frp_gateway_endpoint_absent_total", &[]).await;
    assert!(absent < 0.5, "{absent} pages although the listing is known");
    late.kill9();
    count(1.0).await;
}

async fn websocket_echoes(address: std::net::SocketAddr) {
    let stream = TcpStream::connect(address).await.expect("the gateway listens");
    let (mut socket, response) = client_async("ws://app.test/ws", stream).await.expect("the upgrade");
    assert_eq!(response.status(), 101);
    for message in [
        Message::text("hello"),
        Message::binary(vec![7; 100_000]),
        Message::text("x".repeat(70_000)),
        Message::binary(Vec::new()),
    ] {
        socket.send(message.clone()).await.expect("sent");
        let echo =
            tokio::time::timeout(SOON, socket.next()).await.expect("in time").expect("open").expect("valid");
        assert!(echo == message, "{} bytes came back for {}", echo.len(), message.len());
    }
    socket.close(None).await.expect("closed");
}

async fn the_first_event_comes_at_once(address: std::net::SocketAddr) {
    let begun = Instant::now();
    let mut visitor = Wire::connect(address).await;
    visitor
        .send("GET /sse?n=2&ms=3000 HTTP/1.1\r\nHost: app.test\r\nAccept: text/event-stream\r\n\r\n")
        .await;
    let first = visitor.until(b"data: 1\n\n").await;
    let first = String::from_utf8_lossy(&first);
    assert!(first.ends_with("data: 1\n\n") && first.contains("text/event-stream"), "{first}");
    assert!(begun.elapsed() < Duration::from_secs(2), "held back for {:?}", begun.elapsed());
}

async fn large_bodies_arrive_whole(address: std::net::SocketAddr) {
    let pattern: Vec<u8> = (0..MIB_20).map(|at| at.to_le_bytes()[0]).collect();
    let crc = crc32fast::hash(&pattern);
    let reply = ask(address, "POST", "app.test", "/echo", full(pattern)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let seen = reply.json().expect("JSON");
    assert_eq!((&seen["body_length"], &seen["body_crc32"]), (&MIB_20.into(), &crc.into()), "upload: {seen}");
    for path in ["/bytes/20971520", "/bytes/20971520?chunked=1"] {
        let reply = ask(address, "GET", "app.test", path, empty()).await;
        assert_eq!((reply.status, reply.body.len()), (200, MIB_20), "{path}");
        assert_eq!(crc32fast::hash(&reply.body), crc, "{path}");
    }
}
