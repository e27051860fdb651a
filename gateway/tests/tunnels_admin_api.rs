//! The admin API of an frps refuses, lies, mumbles, or says nothing: what is known serves on, what isn't is never guessed. Real frps and
//! frpc; needs `frp-lab/build`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::float_cmp,
    clippy::needless_range_loop,
    reason = "a failed test shows why, and a good one what it measured"
)]

#[path = "common/takeover.rs"]
mod takeover;
#[path = "common/watch.rs"]
mod watch;

use std::time::{Duration, Instant};

use frp_gateway_loadtest::{
    demo::DemoApp,
    lab::{Proxy, Relay, Version, Weather, until},
};
use takeover::{SHORT_HOLD, SOON, World, app, until_frpc_says};
use watch::Watch;

/// A frps with so many ports, whose admin API the gateway reaches through a relay and lists every 200 ms.
async fn behind_a_relay(version: Version, ports: u16) -> (World, Relay) {
    let mut world =
        World::fleet(&["a"], SHORT_HOLD, |options| options.version(version).tunnel_ports(ports)).await;
    let admin = world.frps[0].admin();
    let relay = Relay::start(admin).await.expect("a relay");
    world.instead = vec![
        (format!("http://{admin}"), format!("http://{}", relay.address())),
        ("password: lab }".into(), "password: lab, interval: 200ms }".into()),
    ];
    world.start_gateway().await;
    (world, relay)
}

fn tunnel(n: usize, app: &DemoApp) -> Proxy {
    Proxy::http("web", app.addr(), &[&format!("h{n}.test")])
}

fn says(status: &str, body: &str) -> Weather {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    Weather::Says(head + body)
}

/// Every way to say nothing useful, and what the log calls it.
fn bad_weather() -> Vec<(&'static str, Weather, &'static str)> {
    vec![
        ("wrong password", says("401 Unauthorized", ""), "it refuses the user or password (status 401)"),
        ("an error", says("500 Internal Server Error", "{}"), "it answers with status 500"),
        ("a redirect", says("302 Found", ""), "it answers with status 302"),
        ("no JSON", says("200 OK", "<html>hello</html>"), "not what an frps sends"),
        ("other JSON", says("200 OK", "{}"), "not what an frps sends"),
        ("no data", says("200 OK", r#"{"code":200,"msg":"success","data":null}"#), "not what an frps sends"),
        ("cut JSON", says("200 OK", r#"{"code":200,"msg":"success","data":{"total":1,"#), "not what an frps"),
        ("no HTTP", Weather::Says("SSH-2.0-x\r\n".into()), "no answer"),
        ("refused", Weather::Refused, "no answer"),
        ("silence", Weather::Silent, "no answer within 5s"),
    ]
}

async fn stale(world: &World) -> Option<f64> {
    world.gateway().metric("frp_gateway_frps_listing_stale", &["frps=\"a\""]).await.expect("metrics")
}

async fn until_stale(world: &World, wanted: f64, why: &str) {
    until(&format!("the listing to be stale or fresh ({wanted}): {why}"), SOON, async || {
        stale(world).await.filter(|stale| (stale - wanted).abs() < 0.5).map(drop)
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", world.gateway().log()));
}

/// Waits until a listing that began after this call has come: nothing is in doubt then.
async fn until_listed_anew(world: &World) {
    let listed = async || world.gateway().api("/api/v1/frps").await.ok()?[0]["last_listing_at"].as_f64();
    let before = listed().await.unwrap_or_default();
    until("a listing", SOON, async || listed().await.filter(|at| *at >= before + 1.0)).await.expect("one");
}

async fn bad_days(version: Version) {
    let (world, relay) = behind_a_relay(version, 8).await;
    let ours = app("app0");
    let _frpc = world.frpc(0, "u0", vec![tunnel(0, &ours)]).await;
    for (name, weather, reason) in bad_weather() {
        until_listed_anew(&world).await;
        let told = world.gateway().log().len();
        relay.turn(weather);
        until_stale(&world, 1.0, name).await;
        for n in 0..10 {
            let reply = world.get("h0.test", "/").await;
            assert_eq!(reply.app(), Some("app0"), "{name}, request {n}: {}", reply.text());
        }
        let known = world.gateway().api("/api/v1/tunnels").await.expect("the API");
        assert_eq!(
            (&known[0]["name"], &known[0]["stale"]),
            (&"u0.web".into(), &true.into()),
            "{name}: {known}"
        );
        let log = world.gateway().log().split_off(told);
        let lines: Vec<_> =
            log.lines().filter(|line| line.contains("frps does not list its tunnels")).collect();
        assert!(
            lines.len() == 1 && lines[0].contains(reason),
            "{name} is told once as {reason:?}: {lines:#?}"
        );
        relay.turn(Weather::Clear);
        until_stale(&world, 0.0, name).await;
        assert_eq!(world.get("h0.test", "/").await.app(), Some("app0"), "after {name}");
    }
    let events = world.gateway().metric("frp_gateway_tunnel_events_total", &["event=\"gone\""]).await;
    assert_eq!(events.expect("metrics").unwrap_or_default(), 0.0, "nothing was gone at any time");
}

#[tokio::test]
async fn what_is_known_serves_through_every_fault_of_the_admin_api_of_frp_0_71() {
    bad_days(Version::V071).await;
}

#[tokio::test]
async fn what_is_known_serves_through_every_fault_of_the_admin_api_of_frp_0_61() {
    bad_days(Version::V061).await;
}

/// The port changes hands while the gateway can't see it.
async fn blind(version: Version, weather: &Weather, name: &str) {
    let (world, relay) = behind_a_relay(version, 1).await;
    let apps = [app("app0"), app("app1")];
    let mut first = world.frpc(0, "u0", vec![tunnel(0, &apps[0])]).await;
    let watch = Watch::start(world.web, 2);
    watch.more(100).await;
    relay.turn(weather.clone());
    until_stale(&world, 1.0, name).await;
    watch.more(100).await;
    first.kill9();
    let second = world.frpc_unready(0, "u1", vec![tunnel(1, &apps[1])]);
    until_frpc_says(&second, "start proxy success").await;
    watch.look_around(300).await;
    assert_eq!(world.get("h0.test", "/").await.app(), None, "{name}: its tunnel is gone");
    watch.all_right(&format!("{version:?}, {name}, while the gateway can't see"));
    relay.turn(Weather::Clear);
    let begun = Instant::now();
    watch.more(100).await; // those of h1: h0 has no tunnel
    let took = begun.elapsed();
    watch.all_right(&format!("{version:?}, {name}, when the API is back"));
    println!("{version:?}, {name}: served {took:?} after the API was back; {:?}", watch.end().await);
}

#[tokio::test]
async fn a_port_that_changes_hands_unseen_is_never_a_wrong_route() {
    for (name, weather, _) in bad_weather() {
        if !matches!(name, "an error" | "refused" | "silence") {
            continue;
        }
        blind(Version::V071, &weather, name).await;
    }
    blind(Version::V061, &Weather::Refused, "refused").await;
}

#[tokio::test]
async fn a_slow_admin_api_delays_and_loses_nothing() {
    let (world, relay) = behind_a_relay(Version::V071, 8).await;
    let apps = [app("app0"), app("app1"), app("app2")];
    let _first = world.frpc(0, "u0", vec![tunnel(0, &apps[0])]).await;
    relay.turn(Weather::Late(Duration::from_millis(300)));
    let mut clients = Vec::new();
    for n in 1..3 {
        let frpc = world.frpc_unready(0, &format!("u{n}"), vec![tunnel(n, &apps[n])]);
        until_frpc_says(&frpc, "start proxy success").await;
        let begun = Instant::now();
        until("the new tunnel to serve", SOON, async || {
            (world.get(&format!("h{n}.test"), "/").await.app() == Some(&*format!("app{n}"))).then_some(())
        })
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", world.gateway().log()));
        println!("every answer 300 ms late: served after {:?}", begun.elapsed());
        clients.push(frpc);
    }
    for n in 0..30 {
        let reply = world.get(&format!("h{}.test", n % 3), "/").await;
        assert_eq!(reply.app(), Some(&*format!("app{}", n % 3)), "{}", reply.text());
    }
    assert_eq!(stale(&world).await, Some(0.0), "slow is not silent");
    let lapsed = world.gateway().metric("frp_gateway_tunnel_events_total", &["event=\"lapsed\""]).await;
    assert_eq!(lapsed.expect("metrics").unwrap_or_default(), 0.0);
}
