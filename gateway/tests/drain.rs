//! SIGTERM: whoever sends visitors here learns it first, nobody who was let in is let down, and the end comes in time.

mod common;
#[path = "common/visitors.rs"]
mod visitors;

use std::time::{Duration, Instant};

use common::{Endpoint, Wire, field, get, ok, status};
use frp_gateway_loadtest::{
    http,
    lab::{Gateway, until},
};
use tokio::net::TcpStream;
use visitors::{SOON, Visitors};

async fn start(endpoint: &Endpoint, runtime: &str) -> (Gateway, std::net::SocketAddr) {
    let yaml = format!(
        "runtime: {{ workers: 2, {runtime} }}\n\
         frps: [ {{ name: e0, host: 127.0.0.1, vhost_http_port: {} }} ]\n\
         listeners: [ {{ name: web, bind: \"127.0.0.1:0\" }} ]\n",
        endpoint.address.port()
    );
    let gateway = Gateway::start(env!("CARGO_BIN_EXE_frp-gateway"), &yaml).await.expect("the gateway starts");
    let web = gateway.listener("web").await.expect("a listener");
    (gateway, web)
}

#[tokio::test]
async fn readiness_goes_first_so_that_a_balancer_that_asks_for_it_loses_no_request() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let (mut gateway, web) = start(&endpoint, "drain_delay: 1s, drain_timeout: 5s").await;
    let visitors = Visitors::start(web, "app.test", 6, 6);
    visitors.more(300).await;
    let begun = Instant::now();
    gateway.sigterm();
    // The balancer asks from time to time.
    let unready = until("readiness to go", SOON, async || {
        gateway.get("/readyz").await.ok().filter(|reply| reply.status == 503)
    });
    let said = unready.await.expect("it goes").text();
    let noticed = begun.elapsed();
    assert_eq!(said, "shutting down\n");
    visitors.more(100).await; // it is still sent some
    let tally = visitors.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "too late to show anything: {:?}", begun.elapsed());
    assert_eq!(tally.failed, Vec::<String>::new(), "noticed after {noticed:?}\n{}", gateway.log());
    let exit = gateway.wait_exit(SOON).await.expect("it ends");
    assert_eq!((exit.code(), begun.elapsed() >= Duration::from_secs(1)), (Some(0), true));
    assert!(TcpStream::connect(web).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_second_signal_ends_the_delay() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let (mut gateway, _) = start(&endpoint, "drain_delay: 60s").await;
    gateway.sigterm();
    let logged =
        until("the delay", SOON, async || gateway.log().contains("draining begins later").then_some(()));
    logged.await.expect("it waits");
    gateway.sigterm();
    assert_eq!(gateway.wait_exit(SOON).await.expect("it ends").code(), Some(0), "{}", gateway.log());
}

#[tokio::test]
async fn kept_connections_are_told_to_close_and_idle_ones_are_closed() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let (mut gateway, web) = start(&endpoint, "drain_timeout: 20s").await;
    let (mut busy, mut idle) = (Wire::connect(web).await, Wire::connect(web).await);
    for wire in [&mut busy, &mut idle] {
        wire.send(get("/")).await;
        let (head, _) = wire.response(false).await;
        assert_eq!((status(&head), field(&head, "connection")), (200, None), "{head}");
    }
    let begun = Instant::now();
    gateway.sigterm();
    let refused = until("connections to be refused", SOON, async || TcpStream::connect(web).await.err());
    refused.await.expect("they are");
    busy.send(get("/")).await;
    let (head, _) = busy.response(false).await;
    assert_eq!((status(&head), field(&head, "connection")), (200, Some("close")), "{head}");
    assert!(busy.is_ended().await && idle.is_ended().await, "both end");
    assert_eq!(gateway.wait_exit(SOON).await.expect("it ends").code(), Some(0), "{}", gateway.log());
    assert!(begun.elapsed() < Duration::from_secs(10), "not by the timeout: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_request_that_arrives_just_before_its_idle_connection_is_closed_is_answered() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let (mut gateway, web) = start(&endpoint, "drain_timeout: 20s").await;
    let mut kept = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::connect(web).await;
        wire.send(get("/")).await;
        assert_eq!(status(&wire.response(false).await.0), 200);
        kept.push(wire);
    }
    gateway.sigterm();
    let refused = until("connections to be refused", SOON, async || TcpStream::connect(web).await.err());
    refused.await.expect("they are");
    // It sees the requests and the time to close at once.
    gateway.sigstop();
    for wire in &mut kept {
        wire.send(get("/")).await;
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    gateway.sigcont();
    for wire in &mut kept {
        let (head, _) = wire.response(false).await;
        assert_eq!((status(&head), field(&head, "connection")), (200, Some("close")), "{head}");
    }
    assert_eq!(gateway.wait_exit(SOON).await.expect("it ends").code(), Some(0), "{}", gateway.log());
}

#[tokio::test]
async fn a_stream_that_never_ends_is_cut_at_the_timeout() {
    let endpoint = Endpoint::scripted(|mut wire, _, _| async move {
        wire.request().await;
        while wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nbegun").await {
            std::future::pending::<()>().await;
        }
    })
    .await;
    let (mut gateway, web) = start(&endpoint, "drain_timeout: 1s").await;
    let mut stream = Wire::connect(web).await;
    stream.send(get("/")).await;
    assert_eq!(status(&stream.head().await), 200);
    assert_eq!(stream.bytes(5).await, b"begun");
    let begun = Instant::now();
    gateway.sigterm();
    assert!(stream.is_ended().await, "it isn't waited for");
    assert_eq!(gateway.wait_exit(SOON).await.expect("it ends").code(), Some(0), "{}", gateway.log());
    let took = begun.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert!(gateway.log().contains("drain timed out"), "{}", gateway.log());
    // The admin listener answered to the end, and not longer.
    assert!(http::get(gateway.admin(), "gateway", "/readyz").await.is_err());
}
