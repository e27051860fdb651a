//! A port that was somebody's a moment ago is never taken for his: no request reaches an application other than the one that claimed
//! its host. Real frps and frpc; needs `frp-lab/build`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test shows why, and a good one what it measured"
)]

#[path = "common/takeover.rs"]
mod takeover;
#[path = "common/watch.rs"]
mod watch;

use std::net::SocketAddr;

use frp_gateway_loadtest::{
    demo::DemoApp,
    lab::{Proxy, Version, until},
};
use takeover::{SHORT_HOLD, SOON, World, app, until_frpc_says};
use watch::Watch;

/// Tunnel `n` of its own user, to its own application.
fn tunnel(n: usize, app: &DemoApp) -> Proxy {
    Proxy::http("web", app.addr(), &[&format!("h{n}.test")])
}

/// The port of a tunnel, as the gateway knows it.
async fn port_of(world: &World, host: &str) -> u16 {
    let path = format!("/api/v1/tunnels?state=live&host={host}");
    let known = world.gateway().api(&path).await.expect("the API answers");
    u16::try_from(known[0]["port"].as_u64().unwrap_or_else(|| panic!("no port: {known}"))).expect("a port")
}

/// Two users in turn have the one port that there is, while visitors ask for both.
async fn one_port_for_two(version: Version) {
    let world = World::with(&["a"], SHORT_HOLD, |options| options.version(version).tunnel_ports(1)).await;
    let apps = [app("app0"), app("app1")];
    let mut present = world.frpc(0, "u0", vec![tunnel(0, &apps[0])]).await;
    let port = port_of(&world, "h0.test").await;
    let watch = Watch::start(world.web, 2);
    watch.more(100).await;
    for round in 1..=6 {
        let n = round % 2;
        present.kill9();
        present = world.frpc_unready(0, &format!("u{n}"), vec![tunnel(n, &apps[n])]);
        watch.more(100).await;
        let host = format!("h{n}.test");
        until("the port to be known for the other's", SOON, async || {
            let path = format!("/api/v1/tunnels?state=live&host={host}");
            let known = world.gateway().api(&path).await.ok()?;
            (known[0]["port"].as_u64() == Some(port.into())).then_some(())
        })
        .await
        .unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    println!("{version:?}: {:?}", watch.end().await);
}

#[tokio::test]
async fn the_only_port_goes_from_one_user_to_another_and_back_with_frp_0_71() {
    one_port_for_two(Version::V071).await;
}

#[tokio::test]
async fn the_only_port_goes_from_one_user_to_another_and_back_with_frp_0_61() {
    one_port_for_two(Version::V061).await;
}

#[tokio::test]
async fn a_strange_process_on_the_port_of_a_dead_frps_gets_no_request() {
    let mut world = World::start(&["a"], SHORT_HOLD).await;
    let ours = app("app0");
    let _frpc = world.frpc(0, "u0", vec![tunnel(0, &ours)]).await;
    assert_eq!(world.get("h0.test", "/").await.app(), Some("app0"));
    let at = SocketAddr::from(([127, 0, 0, 1], port_of(&world, "h0.test").await));
    world.frps[0].kill9();
    // At once, before anybody has been refused there.
    let stranger = DemoApp::start_on(at, "stranger").expect("the port is free");
    for n in 0..50 {
        let reply = world.get("h0.test", "/").await;
        assert_eq!(reply.app(), None, "request {n}: {}", reply.text());
    }
    assert_eq!(stranger.requests(), 0, "and none was sent to it");
    stranger.stop();
    world.frps[0].restart().await.expect("frps starts again");
    until("the tunnel to be back", SOON, async || {
        (world.get("h0.test", "/").await.app() == Some("app0")).then_some(())
    })
    .await
    .expect("it serves");
}

#[tokio::test]
async fn a_tcp_proxy_on_the_port_that_an_http_tunnel_had_gets_no_request() {
    let world = World::with(&["a"], SHORT_HOLD, |options| options.tunnel_ports(1)).await;
    let (ours, theirs) = (app("app0"), app("raw"));
    let mut frpc = world.frpc(0, "u0", vec![tunnel(0, &ours)]).await;
    let port = port_of(&world, "h0.test").await;
    let watch = Watch::start(world.web, 1);
    watch.more(100).await;
    frpc.kill9();
    let raw = world.frpc_unready(0, "u1", vec![Proxy::tcp("raw", theirs.addr(), port)]);
    until_frpc_says(&raw, "start proxy success").await;
    watch.look_around(200).await;
    println!("{:?}", watch.end().await);
    assert_eq!(theirs.requests(), 0, "the raw tunnel's application was sent something");
}
