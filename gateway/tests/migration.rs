//! An frps is emptied under load, and filled again: no request that ends within the deadline fails, WebSockets end properly, and what can't be
//! moved is named. Real frps and frpc; needs `frp-lab/build`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test shows why, and a good one what it measured"
)]

#[path = "common/clients.rs"]
mod clients;
#[path = "common/control.rs"]
mod control;
#[path = "common/ledger.rs"]
mod ledger;
#[path = "common/takeover.rs"]
mod takeover;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use clients::{command, fleet, served};
use control::Site;
use frp_gateway_loadtest::{
    http,
    lab::{Proxy, until},
};
use futures_util::{SinkExt, StreamExt};
use ledger::{Ledger, visit};
use takeover::SOON;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, protocol::frame::coding::CloseCode},
};

const CLIENTS: usize = 6;

fn spread(all: &[(&str, usize)]) -> BTreeMap<String, usize> {
    all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn an_frps_is_drained_and_filled_again_under_load_and_no_request_fails() {
    let site = Site::start(&["a", "b", "c"], "place: least_clients", "").await;
    let ledger = Ledger::default();
    let _clients = fleet(&site, &ledger, CLIENTS).await;
    let (account, (took, told)) = visit(site.world.web, CLIENTS, 500, async {
        tokio::time::sleep(Duration::from_millis(500)).await; // load before it begins
        let begun = Instant::now();
        let (code, text) = command(&site, &["drain", "a", "--wait"]).await;
        assert_eq!(code, 0, "{text}");
        let took = begun.elapsed();
        assert_eq!(site.spread().await, spread(&[("b", 3), ("c", 3)]));
        let (code, text) = command(&site, &["undrain", "a"]).await;
        assert_eq!(code, 0, "{text}");
        let (code, text) = command(&site, &["rebalance"]).await;
        assert_eq!(code, 0, "{text}");
        (took, text)
    })
    .await;
    account.settle("drained and filled again", &ledger);
    println!("drained within {took:?}; then {told}");
    assert!(account.failed.is_empty(), "{:#?}\n{}", account.failed, site.world.gateway().log());
    assert_eq!(account.told, 0, "nothing was cut\n{}", site.world.gateway().log());
    assert_eq!(site.spread().await, spread(&[("a", 2), ("b", 2), ("c", 2)]));
}

#[tokio::test]
async fn a_long_request_ends_before_its_client_moves_and_others_are_served_meanwhile() {
    let site = Site::start(&["a", "b"], "", "").await;
    let slow = takeover::app("slow");
    let proxy = Proxy::http("web", slow.addr(), &["h0.test"]);
    let _client = site.frpc(site.options("u0", vec![proxy])).await;
    served(&site, "h0.test").await;
    let from = site.clients().await[0].1.clone();
    let web = site.world.web;
    let long = tokio::spawn(async move { http::get(web, "h0.test", "/slow?ms=5000").await });
    until("it to arrive", SOON, async || (slow.requests() >= 2).then_some(())).await.expect("it does");
    let arguments = ["drain", &from, "--wait"];
    let waited = command(&site, &arguments);
    let visits = async {
        let (mut longest, mut count) = (Duration::ZERO, 0);
        while !long.is_finished() {
            let begun = Instant::now();
            let reply = http::get(web, "h0.test", "/").await.expect("an answer");
            assert_eq!(reply.status, 200, "{}", reply.text());
            (longest, count) = (longest.max(begun.elapsed()), count + 1);
        }
        (longest, count)
    };
    let ((code, text), (longest, count)) = tokio::join!(waited, visits);
    assert_eq!(code, 0, "{text}");
    let reply = long.await.expect("no panic").expect("an answer");
    assert_eq!(reply.status, 200, "the long one was let end: {}", reply.text());
    println!("{count} others were served meanwhile, the longest wait was {longest:?}");
    assert!(longest < Duration::from_secs(3), "nobody waits longer than the hold: {longest:?}");
    let to = site.clients().await[0].1.clone();
    assert_ne!(from, to);
    served(&site, "h0.test").await;
}

#[tokio::test]
async fn a_websocket_ends_with_a_close_frame_at_the_deadline_and_may_come_back_at_once() {
    let mut site = Site::start(&["a", "b"], "", "").await;
    site.world
        .instead
        .push(("runtime: { workers: 2 }".into(), "runtime: { workers: 2, drain_timeout: 2s }".into()));
    site.world.gateway.take();
    site.world.start_gateway().await;
    let app = takeover::app("app");
    let proxy = Proxy::http("web", app.addr(), &["h0.test"]);
    let _client = site.frpc(site.options("u0", vec![proxy])).await;
    served(&site, "h0.test").await;
    let from = site.clients().await[0].1.clone();
    let stream = TcpStream::connect(site.world.web).await.expect("it listens");
    let (mut socket, _) = client_async("ws://h0.test/ws", stream).await.expect("a WebSocket");
    socket.send(Message::text("hello")).await.expect("it is open");
    assert_eq!(socket.next().await.expect("open").expect("a message"), Message::text("hello"));
    let begun = Instant::now();
    let (code, text) = command(&site, &["drain", &from]).await;
    assert_eq!(code, 0, "{text}");
    let end = tokio::time::timeout(SOON, socket.next()).await.expect("it ends").expect("a frame, not an end");
    match end.expect("a frame, not a broken connection") {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Restart, "{frame:?}"),
        other => panic!("{other:?}"),
    }
    let took = begun.elapsed();
    println!("closed {took:?} after the drain began, deadline 2 s");
    assert!(took >= Duration::from_millis(1900), "not before the deadline: {took:?}");
    served(&site, "h0.test").await;
    let stream = TcpStream::connect(site.world.web).await.expect("it listens");
    let (mut socket, _) = client_async("ws://h0.test/ws", stream).await.expect("a WebSocket again");
    socket.send(Message::text("again")).await.expect("it is open");
    assert_eq!(socket.next().await.expect("open").expect("a message"), Message::text("again"));
}

#[tokio::test]
async fn clients_that_did_not_come_through_the_gateway_are_named_as_unmovable() {
    let site = Site::start(&["a", "b"], "", "").await;
    let app = takeover::app("app");
    let direct = site.world.frpc(0, "direct", vec![Proxy::http("web", app.addr(), &["h0.test"])]).await;
    let (code, text) = command(&site, &["drain", "a", "--wait"]).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("direct.web") && text.contains("unmovable"), "{text}");
    served(&site, "h0.test").await;
    let (code, text) = command(&site, &["drain", "nobody"]).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("frps here: a, b"), "{text}");
    drop(direct);
}
