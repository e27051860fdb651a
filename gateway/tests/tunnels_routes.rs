//! A live tunnel is a route by itself. Real frps and frpc; needs `frp-lab/build`.

#[path = "common/takeover.rs"]
mod takeover;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use frp_gateway_loadtest::lab::{Proxy, until};
use takeover::{SOON, World, app, until_frpc_says};

#[tokio::test]
async fn a_tunnel_is_served_as_soon_as_it_is_up() {
    let world = World::start(&["a"], "").await;
    let app = app("app");
    let unknown = world.get("app.test", "/").await;
    assert_eq!((unknown.status, unknown.app()), (404, None));
    assert!(unknown.header("x-frp-gateway").is_some(), "it is ours: {}", unknown.text());
    let frpc = world.frpc_unready(0, "u", vec![Proxy::http("web", app.addr(), &["app.test"])]);
    until_frpc_says(&frpc, "start proxy success").await;
    let begun = Instant::now();
    until("the tunnel to serve", SOON, async || {
        (world.get("app.test", "/").await.app() == Some("app")).then_some(())
    })
    .await
    .expect("it serves");
    let took = begun.elapsed();
    println!("served {took:?} after frpc said that it is up");
    assert!(took < Duration::from_secs(1), "far below a poll: {took:?}");
    drop(frpc);
    until("the tunnel to be away", SOON, async || {
        (world.get("app.test", "/").await.status == 503).then_some(())
    })
    .await
    .expect("a known host without a tunnel is 503");
}

#[tokio::test]
async fn domains_are_pools_locations_are_routes_and_the_file_wins_ties() {
    let rest = "pools:\n  - { name: v2, tunnels: { domain: app.test, labels: { version: v2 } } }\n  \
                - { name: of-bob, tunnels: { user: \"bo*\", name: \"*.web\" } }\n  - { name: of-b, tunnels: { frps: b } }\n\
                routes:\n  - { match: { host: app.test, path: /new }, pool: v2 }\n  \
                - { match: { host: tie.test }, pool: of-bob }\n  - { match: { host: \"*.w.test\", path: /b }, pool: of-b }";
    let world = World::start(&["a", "b"], rest).await;
    let apps: Vec<_> = ["one", "two", "api", "wild", "bob"].map(app).into();
    let http = |at: usize, name: &str, domains: &[&str]| Proxy::http(name, apps[at].addr(), domains);
    let v2 = |proxy: Proxy| proxy.metadata("gw_label_version", "v2");
    let _clients = [
        world
            .frpc(0, "alice", vec![http(0, "one", &["app.test", "tie.test"]), http(3, "wild", &["*.w.test"])])
            .await,
        world.frpc(1, "alice", vec![v2(http(1, "two", &["app.test"]))]).await,
        world.frpc(0, "carol", vec![http(2, "api", &["app.test"]).locations(&["/api", "/new/er"])]).await,
        world.frpc(0, "bob", vec![http(4, "web", &["bob.test"])]).await,
    ];
    let who = async |host: &str, path: &str| world.get(host, path).await.app().map(ToOwned::to_owned);
    let mut of_app = BTreeSet::new();
    for _ in 0..12 {
        of_app.extend(who("app.test", "/").await);
    }
    assert_eq!(of_app, BTreeSet::from(["one".into(), "two".into()]), "one domain, two frps, one pool");
    let is = async |host: &str, path: &str, app: &str, why: &str| {
        for _ in 0..4 {
            assert_eq!(who(host, path).await.as_deref(), Some(app), "{host}{path}: {why}");
        }
    };
    is("app.test", "/apix", "api", "a location is a plain prefix").await;
    is("app.test", "/new", "two", "a route of the file, and its pool by label").await;
    is("app.test", "/new/er", "api", "the longer path").await;
    is("tie.test", "/", "bob", "on a tie the file wins; its pool by user and name").await;
    is("x.y.w.test", "/", "wild", "a wildcard spans labels").await;
    is("x.y.w.test", "/b", "two", "a longer path at the same host; its pool by frps").await;
    is("bob.test", "/b", "bob", "the more specific host").await;
    assert_eq!(who("w.test", "/").await, None, "never the bare name");
}

#[tokio::test]
async fn a_burst_opens_few_connections_once_it_is_warm() {
    let world = World::start(&["a"], "").await;
    let app = app("app");
    app.set_delay(Duration::from_millis(5));
    let _frpc = world.frpc(0, "u", vec![Proxy::http("web", app.addr(), &["app.test"])]).await;
    let web = world.web;
    let burst = async |rounds: usize| {
        let visitors = (0..50).map(|_| {
            tokio::spawn(async move {
                let mut connection =
                    frp_gateway_loadtest::http::Connection::open(web).await.expect("it listens");
                for _ in 0..rounds {
                    let request = frp_gateway_loadtest::http::request("GET", "app.test", "/");
                    let reply = connection.send(request.body(frp_gateway_loadtest::http::empty())).await;
                    assert_eq!(reply.expect("an answer").status, 200);
                }
            })
        });
        for visitor in visitors.collect::<Vec<_>>() {
            visitor.await.expect("a visitor");
        }
    };
    // What frps counts: work connections that it asked the frpc for.
    let opened = async || {
        world.frps[0].admin_get("/api/proxy/tcp/u.web").await.expect("the API answers")["curConns"].as_u64()
    };
    burst(20).await;
    let warm = opened().await.expect("a number");
    burst(20).await;
    let after = opened().await.expect("a number");
    println!("work connections: {warm} when warm, {after} after a burst of 1,000 requests by 50 visitors");
    assert!(after.saturating_sub(warm) < 20, "{warm} then {after}");
}

#[tokio::test]
async fn api_status_explain_and_metrics_tell_what_is_known_of_a_tunnel() {
    let world = World::start(&["a"], "").await;
    let (one, two) = (app("one"), app("two"));
    let _alice = world
        .frpc(
            0,
            "alice",
            vec![
                Proxy::http("web", one.addr(), &["app.test"])
                    .metadata("gw_weight", "3")
                    .metadata("gw_zone", "seoul")
                    .metadata("gw_label_version", "v2")
                    .metadata("gw_wieght", "5"),
                Proxy::tcp("raw", one.addr(), 0),
            ],
        )
        .await;
    let _guarded = world
        .frpc(0, "bob", vec![Proxy::http("web", two.addr(), &["guarded.test"]).line("httpUser = \"carol\"")])
        .await;
    let tunnels = world.gateway().api("/api/v1/tunnels?host=app.test").await.expect("the API");
    let tunnel = &tunnels[0];
    assert_eq!(tunnels.as_array().map(Vec::len), Some(1), "{tunnels}");
    for (key, value) in
        [("name", "alice.web"), ("user", "alice"), ("kind", "http"), ("state", "live"), ("via", "takeover")]
    {
        assert_eq!(tunnel[key], value, "{tunnel}");
    }
    assert_eq!((&tunnel["weight"], &tunnel["zone"]), (&3.into(), &"seoul".into()), "{tunnel}");
    assert_eq!(tunnel["labels"]["version"], "v2");
    assert!(
        tunnel["port"].is_number() && tunnel["stale"] == false && tunnel["conflict"] == false,
        "{tunnel}"
    );
    assert!(tunnel["faults"][0].as_str().is_some_and(|fault| fault.contains("gw_wieght")), "{tunnel}");
    let raw = world.gateway().api("/api/v1/tunnels?user=alice").await.expect("the API");
    assert_eq!(raw[0]["kind"], "tcp", "every type is in the directory: {raw}");

    assert_eq!(world.get("app.test", "/").await.app(), Some("one"));
    let run = |arguments: &[&str]| {
        let admin = format!("http://{}", world.gateway().admin());
        let output =
            std::process::Command::new(takeover::BINARY).args(arguments).args(["--admin", &admin]).output();
        let output = output.expect("it runs");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let told = run(&["explain", "http://app.test/"]);
    assert!(told.contains("a/alice.web") && told.contains("auto"), "{told}");
    let told = run(&["explain", "http://guarded.test/"]);
    assert!(told.contains("401") && told.contains("credentials"), "{told}");
    let told = run(&["explain", "http://guarded.test/", "-H", "authorization: Basic Y2Fyb2w6"]);
    assert!(told.contains("a/bob.web"), "{told}");
    let told = run(&["status"]);
    assert!(told.contains("auto:app.test") && told.contains("a/alice.web"), "{told}");

    let metric =
        async |name: &str, labels: &[&str]| world.gateway().metric(name, labels).await.expect("metrics");
    assert_eq!(metric("frp_gateway_tunnels", &["frps=\"a\"", "state=\"live\""]).await, Some(2.0));
    assert_eq!(metric("frp_gateway_tunnels", &["frps=\"a\"", "state=\"unserved\""]).await, Some(1.0));
    assert_eq!(
        metric("frp_gateway_tunnel_requests_total", &["tunnel=\"a/alice.web\"", "class=\"2xx\""]).await,
        Some(1.0)
    );
    assert_eq!(
        metric("frp_gateway_requests_total", &["route=\"auto\"", "pool=\"auto\"", "endpoint=\"tunnels\""])
            .await,
        Some(1.0)
    );
    let taken = metric("frp_gateway_plugin_calls_total", &["op=\"NewProxy\"", "result=\"taken_over\""]).await;
    assert_eq!(taken, Some(2.0));
}
