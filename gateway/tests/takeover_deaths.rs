//! Somebody dies or freezes in the middle of requests: what may have run isn't run again, what can't have is, and a restart waits for nobody
//! for long. Real frps and frpc; needs `frp-lab/build`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test shows why, and a good one what it measured"
)]

#[path = "common/takeover.rs"]
mod takeover;
#[path = "common/watch.rs"]
mod watch;

use std::time::{Duration, Instant};

use frp_gateway_loadtest::{
    demo::DemoApp,
    http::{self, Reply},
    lab::{Frpc, LabError, Proxy, until},
};
use takeover::{SOON, World, app};
use tokio::task::JoinHandle;
use watch::Watch;

fn tunnel(app: &DemoApp, host: &str) -> Vec<Proxy> {
    vec![Proxy::http("web", app.addr(), &[host])]
}

/// Two twins on two frps.
async fn twins() -> (World, [DemoApp; 2], [Frpc; 2]) {
    let world = World::start(&["a", "b"], "").await;
    let apps = [app("app0"), app("app0")];
    let clients = [
        world.frpc(0, "u", tunnel(&apps[0], "h0.test")).await,
        world.frpc(1, "u", tunnel(&apps[1], "h0.test")).await,
    ];
    (world, apps, clients)
}

/// So many requests at once, which the application answers only after a second.
fn slow(world: &World, method: &'static str, count: usize) -> Vec<JoinHandle<Result<Reply, LabError>>> {
    let web = world.web;
    let ask = move || http::request(method, "h0.test", "/slow?ms=1000").body(http::full("once"));
    (0..count).map(|_| tokio::spawn(async move { http::send(web, ask()).await })).collect()
}

async fn until_arrived(apps: &[DemoApp], count: u64) {
    until("all requests to arrive", SOON, async || {
        (apps.iter().map(DemoApp::requests).sum::<u64>() >= count).then_some(())
    })
    .await
    .expect("they arrive");
}

#[tokio::test]
async fn a_post_in_flight_at_a_dying_frps_or_frpc_is_not_sent_again() {
    for victim in ["frps", "frpc"] {
        let (mut world, apps, mut clients) = twins().await;
        let asked = slow(&world, "POST", 20);
        until_arrived(&apps, 20).await;
        let there = apps[0].requests();
        assert!(there > 0, "some are at the victim");
        if victim == "frps" {
            world.frps[0].kill9();
        } else {
            clients[0].kill9();
        }
        let mut served = 0;
        for request in asked {
            let reply = request.await.expect("no panic").expect("an answer");
            match (reply.status, reply.header("x-frp-gateway")) {
                (200, None) => served += 1,
                (502, Some("may_have_run" | "upstream_broken")) => {}
                other => panic!("{victim}: {other:?} {}", reply.text()),
            }
        }
        let run: u64 = apps.iter().map(DemoApp::requests).sum();
        println!("{victim}: {served} of 20 served, {there} were at the victim, {run} arrived in all");
        assert_eq!(run, 20, "{victim}: each POST reached an application once");
        assert!(served >= 20 - there, "{victim}: those at the twin are untouched: {served}");
    }
}

#[tokio::test]
async fn a_get_in_flight_at_a_dying_frps_or_frpc_is_answered_by_the_twin() {
    for victim in ["frps", "frpc"] {
        let (mut world, apps, mut clients) = twins().await;
        let asked = slow(&world, "GET", 20);
        until_arrived(&apps, 20).await;
        if victim == "frps" {
            world.frps[0].kill9();
        } else {
            clients[0].kill9();
        }
        for request in asked {
            let reply = request.await.expect("no panic").expect("an answer");
            assert_eq!(reply.status, 200, "{victim}: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn a_killed_frpc_that_comes_back_is_served_at_once_and_its_twin_meanwhile() {
    let (world, apps, mut clients) = twins().await;
    let watch = Watch::start(world.web, 1);
    watch.more(200).await;
    for round in 0..3 {
        clients[0].kill9();
        let before = apps[0].requests();
        watch.more(100).await;
        clients[0].restart().await.expect("frpc starts again");
        let begun = Instant::now();
        until("it to serve again", SOON, async || (apps[0].requests() > before + 10).then_some(()))
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", world.gateway().log()));
        println!("round {round}: serves again {:?} after its tunnel was up", begun.elapsed());
    }
    let seen = watch.end().await;
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["served"], "no GET failed: {seen:?}");
}

#[tokio::test]
async fn a_restarted_gateway_waits_five_seconds_at_most_for_a_frozen_frps_and_serves_the_others() {
    let mut world = World::start(&["a", "b"], "").await;
    let apps = [app("app0"), app("app1")];
    let _zero = world.frpc(0, "u0", tunnel(&apps[0], "h0.test")).await;
    let _one = world.frpc(1, "u1", tunnel(&apps[1], "h1.test")).await;
    world.frps[0].sigstop();
    world.gateway.take();
    let begun = Instant::now();
    world.start_gateway().await;
    let ready = begun.elapsed();
    println!("ready {ready:?} after the start, with one frps frozen");
    assert!(ready < Duration::from_secs(7), "{ready:?}");
    assert_eq!(world.get("h1.test", "/").await.app(), Some("app1"), "at the first request");
    // Nothing is known of it: whatever becomes of this one, it is nobody else's.
    let web = world.web;
    let early = tokio::spawn(async move { http::get(web, "h0.test", "/").await });
    world.frps[0].sigcont();
    until("the other to be served", SOON, async || {
        (world.get("h0.test", "/").await.app() == Some("app0")).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", world.gateway().log()));
    let early = early.await.expect("no panic").expect("an answer");
    assert!(early.app().is_none_or(|app| app == "app0"), "{}", early.text());
}
