//! Health checks of applications that speak HTTP/2, end to end: by gRPC and by HTTP, by takeover and where there is none. Real
//! frps and frpc; needs `frp-lab/build`. What gRPC calls get while an application says that it doesn't serve is in `grpc.rs`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/grpc.rs"]
mod grpc;
#[path = "common/takeover.rs"]
mod takeover;

use std::sync::atomic::Ordering::SeqCst;

use frp_gateway_loadtest::lab::{Proxy, until};
use grpc::{App, HOST, Told};
use takeover::{SOON, World, app};

/// A pool of the tunnels of [`HOST`] with this check.
fn pool(check: &str) -> String {
    format!(
        "tunnels: {{ serve: false }}
pools:
  - {{ name: rpc, tunnels: {{ domain: {HOST} }}, health: {{ {check}, interval: 100ms, jitter: 0%, timeout: 2s, fall: 2, rise: 2 }} }}
routes: [ {{ match: {{ host: {HOST} }}, pools: [rpc] }} ]"
    )
}

/// What the checks say of the pool's members, in the order of their names.
async fn healthy(world: &World) -> Vec<bool> {
    let pools = world.gateway().api("/api/v1/pools").await.expect("the API answers");
    let pool = pools.as_array().expect("a list").iter().find(|pool| pool["name"] == "rpc").expect("it");
    let mut members: Vec<_> = pool["members"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|member| (member["endpoint"].to_string(), member["healthy"] == true))
        .collect();
    members.sort();
    members.into_iter().map(|(_, healthy)| healthy).collect()
}

async fn until_healthy(world: &World, expected: &[bool]) {
    until(&format!("the checks to say {expected:?}"), SOON, async || {
        (healthy(world).await == expected).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", world.gateway().log()));
}

/// Lines of the log that say so.
fn told(world: &World, words: &str) -> usize {
    world
        .gateway()
        .log()
        .lines()
        .filter(|line| line.contains("endpoint unhealthy") && line.contains(words))
        .count()
}

/// Waits for the line, which comes a moment after the verdict.
async fn until_told(world: &World, words: &str) {
    until(&format!("one line with {words:?}"), SOON, async || (told(world, words) == 1).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", world.gateway().log()));
}

#[tokio::test]
async fn why_an_application_is_left_out_is_told_once_and_it_comes_back() {
    let world = World::start(&["a", "b"], &pool("grpc: { service: t.T }")).await;
    let apps = [App::start("one").await, App::start("two").await];
    let mut clients = Vec::new();
    for (at, app) in apps.iter().enumerate() {
        let proxy = Proxy::http("rpc", app.address, &[HOST]).metadata("gw_protocol", "h2c");
        clients.push(world.frpc(at, "alice", vec![proxy]).await);
    }
    until_healthy(&world, &[true, true]).await;
    for (says, words) in [
        (Told::Serving(2), "it says NOT_SERVING"),
        (Told::Serving(3), "it says SERVICE_UNKNOWN"),
        (Told::Status(12), "it has no grpc.health.v1.Health (grpc-status 12)"),
        (Told::Status(5), "it knows no such service (grpc-status 5)"),
        (Told::Nothing, "no answer within 2s"),
    ] {
        says.by(&apps[0]);
        until_healthy(&world, &[false, true]).await;
        // As many checks again as made the verdict change nothing.
        let asked = apps[0].asked.load(SeqCst);
        until("more checks", SOON, async || (apps[0].asked.load(SeqCst) >= asked + 3).then_some(()))
            .await
            .expect("they go on");
        let status = world.gateway().api("/api/v1/status").await.expect("the API answers").to_string();
        assert!(status.contains("\"unhealthy\""), "{status}");
        assert_eq!(told(&world, words), 1, "{words}: {}", world.gateway().log());
        Told::Serving(1).by(&apps[0]);
        until_healthy(&world, &[true, true]).await;
    }
    assert_eq!(told(&world, ""), 5, "{}", world.gateway().log());
}

#[tokio::test]
async fn http_checks_speak_http_2_to_a_tunnel_that_says_so_and_http_1_to_the_other() {
    let world = World::start(&["a", "b"], &pool(&format!("http: {{ host: {HOST}, path: / }}"))).await;
    let (h2c, h1) = (App::start("one").await, app("two"));
    let first = Proxy::http("rpc", h2c.address, &[HOST]).metadata("gw_protocol", "h2c");
    let mut clients = vec![world.frpc(0, "alice", vec![first]).await];
    clients.push(world.frpc(1, "alice", vec![Proxy::http("rpc", h1.addr(), &[HOST])]).await);
    let (asked, requests) = (h2c.asked.load(SeqCst), h1.requests());
    until("five checks of each", SOON, async || {
        (h2c.asked.load(SeqCst) >= asked + 5 && h1.requests() >= requests + 5).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", world.gateway().log()));
    assert_eq!((healthy(&world).await, told(&world, "")), (vec![true, true], 0), "{}", world.gateway().log());
    Told::Status(14).by(&h2c);
    until_healthy(&world, &[false, true]).await;
    until_told(&world, "status 503").await;
    Told::Serving(1).by(&h2c);
    until_healthy(&world, &[true, true]).await;
    // The tunnel registers anew and doesn't say it any more: it is asked in HTTP/1.1, which the application doesn't know.
    clients[0].reload(vec![Proxy::http("rpc", h2c.address, &[HOST])]).await.expect("frpc reloads");
    until_healthy(&world, &[false, true]).await;
    clients[0]
        .reload(vec![Proxy::http("rpc", h2c.address, &[HOST]).metadata("gw_protocol", "h2c")])
        .await
        .expect("frpc reloads");
    until_healthy(&world, &[true, true]).await;
}

#[tokio::test]
async fn a_tunnel_that_is_not_taken_over_is_told_apart_from_one_that_does_not_serve() {
    let rest = format!("takeover: {{ http: false }}\n{}", pool("grpc: { service: t.T }"));
    let world = World::start(&["a"], &rest).await;
    let one = App::start("one").await;
    let proxy = Proxy::http("rpc", one.address, &[HOST]).metadata("gw_protocol", "h2c");
    let _client = world.frpc(0, "alice", vec![proxy]).await;
    until_healthy(&world, &[false]).await;
    until_told(&world, "it is reached by its frps's vhost").await;
    assert_eq!(one.asked.load(SeqCst), 0, "what can't arrive isn't sent");
}
