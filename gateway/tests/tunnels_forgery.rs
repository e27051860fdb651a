//! What the plugin listener does with calls that no frps made, what it counts and says of them, and what happens while it is frozen. Real
//! frps and frpc; needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/takeover.rs"]
mod takeover;

use std::time::Duration;

use frp_gateway_loadtest::{
    http,
    lab::{Proxy, until},
};
use takeover::{SOON, World, app, secret, until_frpc_says};

async fn metric(world: &World, name: &str, labels: &[&str]) -> f64 {
    world.gateway().metric(name, labels).await.expect("metrics").unwrap_or_default()
}

/// Waits until a counter has grown by `by`.
async fn until_grown(world: &World, name: &str, labels: &[&str], from: f64, by: f64) {
    until(&format!("{name} {labels:?} to grow by {by}"), SOON, async || {
        (metric(world, name, labels).await >= from + by - 0.5).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", world.gateway().log()));
}

async fn call(world: &World, path: &str, body: String) -> Result<http::Reply, String> {
    let request = http::request("POST", "plugin", path).header("content-type", "application/json");
    http::send(world.plugin, request.body(http::full(body))).await.map_err(|error| error.to_string())
}

fn path(op: &str) -> String {
    format!("/frps/{}?version=0.1.0&op={op}", secret("a"))
}

#[tokio::test]
async fn a_wrong_path_or_token_is_counted_and_never_repeated_in_the_log() {
    let world = World::start(&["a"], "").await;
    let denied = ["reason=\"path\""];
    let name = "frp_gateway_plugin_denied_total";
    let before = metric(&world, name, &denied).await;
    let attempts =
        ["/frps/guessed-secret-of-nobody", "/frps/", "/", "/agent", "/frps/secret-of-frps-a-", "/metrics"];
    for wrong in attempts {
        let reply = call(&world, wrong, "{}".into()).await.expect("an answer");
        assert_eq!((reply.status, reply.body.len()), (404, 0), "{wrong} is told apart by nothing");
    }
    let report = http::request("POST", "plugin", "/agent").header("authorization", "Bearer guessed-token");
    let reply = http::send(world.plugin, report.body(http::full("{}"))).await.expect("an answer");
    assert_eq!(reply.status, 404);
    until_grown(&world, name, &denied, before, 7.0).await;
    let log = world.gateway().log();
    assert!(!log.contains("guessed"), "{log}");
}

#[tokio::test]
async fn a_claim_that_frps_never_made_is_counted_lapses_and_blocks_nobody() {
    let world = World::start(&["a"], "").await;
    let (name, lapsed) = ("frp_gateway_tunnel_events_total", ["event=\"lapsed\""]);
    let before = metric(&world, name, &lapsed).await;
    let claim = |user: &str, proxy: &str| {
        format!(
            r#"{{"version":"0.1.0","op":"NewProxy","content":{{"user":{{"user":"{user}"}},"proxy_name":"{proxy}","proxy_type":"http","custom_domains":["app.test"]}}}}"#
        )
    };
    for _ in 0..3 {
        let reply = call(&world, &path("NewProxy"), claim("eve", "eve.web")).await.expect("an answer");
        assert_eq!(reply.status, 200);
    }
    // The host isn't eve's for having been asked for: the rightful one registers meanwhile, and serves.
    let ours = app("app");
    let _frpc = world.frpc(0, "u", vec![Proxy::http("web", ours.addr(), &["app.test"])]).await;
    assert_eq!(world.get("app.test", "/").await.app(), Some("app"));
    until_grown(&world, name, &lapsed, before, 1.0).await;
    world.until_logged("tunnel was announced but never came up").await;
    assert_eq!(world.tunnels(0).await, ["u.web"]);
    for _ in 0..10 {
        assert_eq!(world.get("app.test", "/").await.app(), Some("app"));
    }
}

#[tokio::test]
async fn a_registration_that_is_replayed_moves_no_tunnel() {
    let world = World::start(&["a"], "").await;
    let (ours, theirs) = (app("app"), app("eve"));
    let _frpc = world.frpc(0, "u", vec![Proxy::http("web", ours.addr(), &["app.test"])]).await;
    let _eve = world.frpc(0, "eve", vec![Proxy::tcp("raw", theirs.addr(), 0)]).await;
    // The very call again and again, as somebody who has seen one could: what frps lists decides.
    let again = r#"{"version":"0.1.0","op":"NewProxy","content":{"user":{"user":"u"},"proxy_name":"u.web","proxy_type":"http","custom_domains":["app.test","stolen.test"]}}"#;
    let closing =
        r#"{"version":"0.1.0","op":"CloseProxy","content":{"user":{"user":"u"},"proxy_name":"u.web"}}"#;
    let raw = r#"{"version":"0.1.0","op":"NewProxy","content":{"user":{"user":"eve"},"proxy_name":"eve.raw","proxy_type":"http","custom_domains":["app.test"]}}"#;
    for n in 0..30 {
        for (op, body) in [("NewProxy", again), ("CloseProxy", closing), ("NewProxy", raw)] {
            assert_eq!(call(&world, &path(op), body.into()).await.expect("an answer").status, 200);
        }
        let reply = world.get("app.test", "/").await;
        assert_eq!(reply.app(), Some("app"), "round {n}: {}", reply.text());
        assert_eq!(world.get("stolen.test", "/").await.app(), None, "round {n}");
    }
    assert_eq!(theirs.requests(), 0);
}

#[tokio::test]
async fn what_is_no_call_is_refused_counted_and_harms_nobody() {
    let world = World::start(&["a"], "").await;
    let ours = app("app");
    let _frpc = world.frpc(0, "u", vec![Proxy::http("web", ours.addr(), &["app.test"])]).await;
    let (name, invalid) = ("frp_gateway_plugin_calls_total", ["op=\"NewProxy\"", "result=\"invalid\""]);
    let before = metric(&world, name, &invalid).await;
    let bodies =
        ["", "nonsense", "{}", "[]", "null", r#"{"content":null}"#, r#"{"content":{"proxy_name":7}}"#];
    for body in bodies {
        let reply = call(&world, &path("NewProxy"), body.into()).await.expect("an answer");
        let said: serde_json::Value = reply.json().unwrap_or_else(|_| panic!("{body:?}: {}", reply.text()));
        assert_eq!(said["reject"], true, "{body:?} is not let through unseen: {said}");
    }
    until_grown(&world, name, &invalid, before, 7.0).await;
    for size in [256 * 1024 + 1, 4 * 1024 * 1024] {
        let reply = call(&world, &path("NewProxy"), "x".repeat(size)).await;
        assert!(reply.as_ref().map_or(true, |reply| reply.status == 413), "{size}: {reply:?}");
    }
    // Deep nesting, no stack.
    let deep = format!(r#"{{"content":{}{}}}"#, "[".repeat(60_000), "]".repeat(60_000));
    let reply = call(&world, &path("NewProxy"), deep).await.expect("an answer");
    assert!(reply.text().contains("\"reject\":true"), "{}", reply.text());
    assert_eq!(world.get("app.test", "/").await.app(), Some("app"));
    let second = app("second");
    let _second = world.frpc(0, "v", vec![Proxy::http("web", second.addr(), &["second.test"])]).await;
    assert_eq!(world.get("second.test", "/").await.app(), Some("second"), "frps is still answered");
}

#[tokio::test]
async fn an_frpc_that_registers_while_the_gateway_is_frozen_serves_when_it_thaws() {
    let mut world = World::start(&["a"], "").await;
    let (ours, late) = (app("app"), app("late"));
    let _frpc = world.frpc(0, "u", vec![Proxy::http("web", ours.addr(), &["app.test"])]).await;
    world.gateway.as_mut().expect("it runs").sigstop();
    let waiting = world.frpc_unready(0, "v", vec![Proxy::http("web", late.addr(), &["late.test"])]);
    until_frpc_says(&waiting, "try to connect to server").await;
    assert!(!waiting.log().contains("start proxy success"), "it waits for an answer:\n{}", waiting.log());
    world.gateway.as_mut().expect("it runs").sigcont();
    // frpc gives up a login after ten seconds and tries again; a thaw before that is in time.
    until("the late one to serve", Duration::from_secs(40), async || {
        (world.get("late.test", "/").await.app() == Some("late")).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", waiting.log()));
    assert_eq!(world.get("app.test", "/").await.app(), Some("app"));
}

#[tokio::test]
async fn exhausted_ports_are_told_to_operator_and_metrics_and_never_to_visitors_of_others() {
    let world = World::with(&["a"], "", |options| options.tunnel_ports(2)).await;
    let (name, lapsed) = ("frp_gateway_tunnel_events_total", ["event=\"lapsed\""]);
    let apps = [app("app0"), app("app1"), app("app2")];
    let tunnel = |n: usize| vec![Proxy::http("web", apps[n].addr(), &[&format!("h{n}.test")])];
    let _zero = world.frpc(0, "u0", tunnel(0)).await;
    let mut one = world.frpc(0, "u1", tunnel(1)).await;
    let before = metric(&world, name, &lapsed).await;
    let refused = world.frpc_unready(0, "u2", tunnel(2));
    until_frpc_says(&refused, "start error").await;
    until_grown(&world, name, &lapsed, before, 1.0).await;
    world.until_logged("is allowPorts of frps exhausted?").await;
    for n in 0..2 {
        let reply = world.get(&format!("h{n}.test"), "/").await;
        assert_eq!(reply.app(), Some(&*format!("app{n}")), "{}", reply.text());
    }
    let reply = world.get("h2.test", "/").await;
    assert_eq!((reply.app(), reply.header("x-frp-gateway").is_some()), (None, true), "{}", reply.text());
    // One leaves: a new frpc at once, the refused one with its next try.
    one.kill9();
    drop(refused);
    let _two = world.frpc(0, "u2", tunnel(2)).await;
    assert_eq!(world.get("h2.test", "/").await.app(), Some("app2"));
    assert_eq!(world.get("h1.test", "/").await.app(), None, "never the one who has its port now");
}
