//! Hundreds of tunnels: more than a page of the admin API lists, all known, each with its own application's answer. Real frps and frpc;
//! needs `frp-lab/build`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test shows why, and a good one what it measured"
)]

#[path = "common/takeover.rs"]
mod takeover;

use std::time::Instant;

use frp_gateway_loadtest::{
    demo::DemoApp,
    http::{self, Connection},
    lab::{Proxy, Version, until},
};
use takeover::{SHORT_HOLD, SOON, World, app};

const MANY: usize = 450;

/// How many hosts are served by the application that claims them; panics at a wrong one.
async fn served(world: &World) -> usize {
    let mut connection = Connection::open(world.web).await.expect("it listens");
    let mut served = 0;
    for n in 0..MANY {
        let request = http::request("GET", &format!("h{n}.test"), "/").body(http::empty());
        let reply = connection.send(request).await.expect("an answer");
        if let Some(app) = reply.app() {
            assert_eq!(app, format!("app{}", n % 5), "h{n}.test");
            served += 1;
        }
    }
    served
}

async fn until_all_served(world: &World, what: &str) {
    let begun = Instant::now();
    until("all of them to be served", SOON, async || (served(world).await == MANY).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}\n{}", world.gateway().log()));
    println!("{what}: all {MANY} served after {:?}", begun.elapsed());
}

async fn hundreds(version: Version) {
    let ports = u16::try_from(MANY).expect("few") + 50;
    let mut world =
        World::with(&["a"], SHORT_HOLD, |options| options.version(version).tunnel_ports(ports)).await;
    let apps: Vec<DemoApp> = (0..5).map(|n| app(&format!("app{n}"))).collect();
    let proxies = |apps: &[DemoApp]| {
        (0..MANY)
            .map(|n| Proxy::http(&format!("p{n}"), apps[n % 5].addr(), &[&format!("h{n}.test")]))
            .collect()
    };
    let mut frpc = world.frpc_unready(0, "u", proxies(&apps));
    frpc.wait_running(SOON).await.expect("its tunnels are up");
    until_all_served(&world, &format!("{version:?}: registered")).await;
    let known = world.gateway().metric("frp_gateway_tunnels", &["frps=\"a\"", "state=\"live\""]).await;
    assert_eq!(known.expect("metrics"), Some(450.0));
    world.gateway.take();
    world.start_gateway().await;
    assert_eq!(served(&world).await, MANY, "{version:?}: at the first request after a restart");
    frpc.restart().await.expect("frpc starts again");
    until_all_served(&world, &format!("{version:?}: frpc started anew")).await;
    frpc.kill9();
    until("all of them to be gone", SOON, async || (served(&world).await == 0).then_some(()))
        .await
        .expect("they go");
}

#[tokio::test]
async fn hundreds_of_tunnels_of_one_frpc_are_known_over_pages_and_restarts_with_frp_0_71() {
    hundreds(Version::V071).await;
}

#[tokio::test]
async fn hundreds_of_tunnels_of_one_frpc_are_known_over_restarts_with_frp_0_61() {
    hundreds(Version::V061).await;
}
