//! When things go wrong around the tunnels. Real frps and frpc; needs `frp-lab/build`.

#[path = "common/takeover.rs"]
mod takeover;

use std::time::Duration;

use frp_gateway_loadtest::{
    http,
    lab::{Proxy, until},
};
use takeover::{SOON, World, app, secret, until_frpc_says};

#[tokio::test]
async fn a_frozen_frps_is_stale_and_its_twin_serves() {
    let rest = "tunnels: { pool: { retry: { per_try_timeout: 300ms, attempts: 2 }, balance: peak_ewma } }";
    let mut world = World::start(&["a", "b"], rest).await;
    let (one, two) = (app("app"), app("app"));
    let _one = world.frpc(0, "u", vec![Proxy::http("web", one.addr(), &["app.test"])]).await;
    let _two = world.frpc(1, "u", vec![Proxy::http("web", two.addr(), &["app.test"])]).await;
    for _ in 0..10 {
        assert_eq!(world.get("app.test", "/").await.status, 200);
    }
    world.frps[0].sigstop();
    for n in 0..40 {
        let reply = world.get("app.test", "/").await;
        assert_eq!(reply.status, 200, "request {n}: {}", reply.text());
    }
    world.until_logged("frps does not list its tunnels").await;
    let stale =
        world.gateway().metric("frp_gateway_frps_listing_stale", &["frps=\"a\""]).await.expect("metrics");
    assert_eq!(stale, Some(1.0));
    assert_eq!(world.tunnels(0).await, ["u.web"], "what was known stays");
    world.frps[0].sigcont();
    world.until_logged("frps lists its tunnels frps=a").await;
}

#[tokio::test]
async fn without_its_admin_api_the_known_tunnels_go_on() {
    // The password is wrong from the second configuration on.
    let world = World::start(&["a"], "").await;
    let app = app("app");
    let _frpc = world.frpc(0, "u", vec![Proxy::http("web", app.addr(), &["app.test"])]).await;
    assert_eq!(world.get("app.test", "/").await.app(), Some("app"));
    // What has happened is known by a whole listing.
    let listed = async || world.gateway().api("/api/v1/frps").await.ok()?[0]["last_listing_at"].as_f64();
    let first = listed().await.expect("it was listed");
    until("another listing", SOON, async || listed().await.filter(|at| *at >= first + 2.0))
        .await
        .expect("there is one");
    let wrong = world.yaml().replace("password: lab", "password: wrong");
    world.gateway().edit(&wrong).expect("the file is written");
    world.until_logged("it refuses the user or password").await;
    for _ in 0..10 {
        let reply = world.get("app.test", "/").await;
        assert_eq!(reply.app(), Some("app"), "{}", reply.text());
    }
    assert!(!world.gateway().log().contains("password: wrong") && !world.gateway().log().contains("lab\""));
}

#[tokio::test]
async fn an_exhausted_port_range_is_told_and_the_others_serve() {
    let world = World::with(&["a"], "", |options| options.tunnel_ports(2)).await;
    let app = app("app");
    let proxies =
        (0..3).map(|n| Proxy::http(&format!("p{n}"), app.addr(), &[&format!("h{n}.test")])).collect();
    let frpc = world.frpc_unready(0, "u", proxies);
    until_frpc_says(&frpc, "port").await;
    world.until_logged("is allowPorts of frps exhausted?").await;
    let mut served = 0;
    for n in 0..3 {
        served += usize::from(world.get(&format!("h{n}.test"), "/").await.app() == Some("app"));
    }
    assert_eq!(served, 2);
}

#[tokio::test]
async fn forged_replayed_and_oversized_plugin_calls_change_nothing() {
    let world = World::start(&["a"], "").await;
    let app = app("app");
    let _frpc = world.frpc(0, "u", vec![Proxy::http("web", app.addr(), &["app.test"])]).await;
    let call = async |path: &str, body: String| {
        http::send(world.plugin, http::request("POST", "plugin", path).body(http::full(body))).await
    };
    let right = format!("/frps/{}?version=0.1.0&op=", secret("a"));
    // A close that frps never sent: the tunnel is looked at, and it is there.
    let close =
        r#"{"version":"0.1.0","op":"CloseProxy","content":{"user":{"user":"u"},"proxy_name":"u.web"}}"#;
    for _ in 0..50 {
        let reply = call(&format!("{right}CloseProxy"), close.into()).await.expect("an answer");
        assert_eq!(reply.status, 200);
        assert_eq!(world.get("app.test", "/").await.app(), Some("app"), "it serves on");
    }
    // A claim that frps never makes: never live, never served.
    let claim = r#"{"version":"0.1.0","op":"NewProxy","content":{"user":{"user":"eve"},"proxy_name":"eve.web","proxy_type":"http","custom_domains":["eve.test"]}}"#;
    assert_eq!(call(&format!("{right}NewProxy"), claim.into()).await.expect("an answer").status, 200);
    world.until_logged("tunnel was announced but never came up").await;
    assert_eq!(world.get("eve.test", "/").await.app(), None);
    // Wrong path, wrong operation, too much.
    assert_eq!(
        call("/frps/secret-of-frps-b-1?op=CloseProxy", close.into()).await.expect("an answer").status,
        404
    );
    let strange = call(&format!("{right}Surprise"), "{}".into()).await.expect("an answer");
    assert!(strange.text().contains("\"reject\":true"), "{}", strange.text());
    let huge = call(&format!("{right}NewProxy"), "x".repeat(300 * 1024)).await;
    assert!(huge.is_err() || huge.is_ok_and(|reply| reply.status == 413));
    assert_eq!(world.get("app.test", "/").await.app(), Some("app"));
}

#[tokio::test]
async fn two_proxies_that_race_for_one_name_leave_the_winner_served() {
    let world = World::start(&["a"], "").await;
    let (one, two) = (app("one"), app("two"));
    let clients = [&one, &two]
        .map(|app| world.frpc_unready(0, "u", vec![Proxy::http("web", app.addr(), &["app.test"])]));
    let winner = until("one of them to be up", SOON, async || {
        world.get("app.test", "/").await.app().map(ToOwned::to_owned)
    })
    .await
    .expect("one serves");
    until("the other to be refused", SOON, async || {
        clients.iter().any(|frpc| frpc.log().contains("already exists")).then_some(())
    })
    .await
    .expect("frps refuses the second");
    for _ in 0..20 {
        assert_eq!(world.get("app.test", "/").await.app(), Some(&*winner));
    }
}

#[tokio::test]
async fn an_application_that_is_down_is_not_a_tunnel_that_is_gone() {
    let world = World::start(&["a"], "").await;
    let app = app("app");
    let address = app.addr();
    let _frpc = world.frpc(0, "u", vec![Proxy::http("web", address, &["app.test"])]).await;
    assert_eq!(world.get("app.test", "/").await.app(), Some("app"));
    app.stop();
    let reply =
        tokio::time::timeout(Duration::from_secs(10), world.get("app.test", "/")).await.expect("an answer");
    assert_eq!(reply.status, 502, "{}", reply.text());
    assert_eq!(reply.header("x-frp-gateway"), Some("upstream_broken"));
    let app = frp_gateway_loadtest::demo::DemoApp::start_on(address, "app").expect("it starts again");
    until("it to serve", SOON, async || (world.get("app.test", "/").await.status == 200).then_some(()))
        .await
        .expect("it serves");
    drop(app);
}
