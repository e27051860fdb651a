//! Two users want one host and nobody could refuse the second: the older one serves, the other is never routed to, and goes unserved until
//! the host is free. Real frps and frpc; needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/takeover.rs"]
mod takeover;

use std::collections::BTreeSet;

use frp_gateway_loadtest::lab::{ADMIN_PASSWORD, Frpc, FrpcOptions, Frps, FrpsOptions, Proxy, TOKEN, until};
use serde_json::Value;
use takeover::{KEY, SOON, World, app, secret};

/// `a` asks the gateway; `b` has no plugin, so nobody can refuse anything there.
async fn half_asked(rest: &str) -> (World, Frps) {
    let mut world = World::fleet(&["a"], rest, |options| options).await;
    let other = Frps::start(FrpsOptions::new("b")).await.expect("frps starts");
    world.instead = vec![("frps:\n".into(), format!("frps:\n  - {}\n", other.yaml()))];
    world.start_gateway().await;
    (world, other)
}

async fn known(world: &World, user: &str) -> Value {
    let path = format!("/api/v1/tunnels?user={user}&host=app.test&state=live");
    world.gateway().api(&path).await.expect("the API answers")[0].clone()
}

async fn until_known_of(world: &World, user: &str) -> Value {
    until(&format!("{user}'s tunnel to be known"), SOON, async || {
        Some(known(world, user).await).filter(|tunnel| !tunnel.is_null())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", world.gateway().log()))
}

/// Who answers the host in `count` requests.
async fn answering(world: &World, count: usize) -> BTreeSet<String> {
    let mut apps = BTreeSet::new();
    for _ in 0..count {
        let reply = world.get("app.test", "/").await;
        apps.insert(reply.app().map_or_else(|| format!("nobody ({})", reply.status), ToOwned::to_owned));
    }
    apps
}

#[tokio::test]
async fn a_claim_that_nobody_could_refuse_is_settled_for_the_older_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let audit = folder.path().join("audit.log");
    let (world, other) = half_asked(&format!("audit: {}", audit.display())).await;
    let (ours, theirs) = (app("alice"), app("bob"));
    let proxy = |app: &frp_gateway_loadtest::demo::DemoApp| Proxy::http("web", app.addr(), &["app.test"]);
    let mut alice = world.frpc(0, "alice", vec![proxy(&ours)]).await;
    assert_eq!(answering(&world, 5).await, BTreeSet::from(["alice".into()]));
    let _bob =
        Frpc::start(FrpcOptions::new(&other).user("bob").proxy(proxy(&theirs))).await.expect("frpc starts");
    let loser = until_known_of(&world, "bob").await;
    assert_eq!(loser["conflict"], true, "{loser}");
    assert_eq!(known(&world, "alice").await["conflict"], false);
    assert_eq!(answering(&world, 30).await, BTreeSet::from(["alice".into()]));
    assert_eq!(theirs.requests(), 0, "nothing was sent to the loser");
    world.until_logged("tunnel claims what another user has").await;
    let conflicts = world.gateway().metric("frp_gateway_tunnel_conflicts", &[]).await.expect("metrics");
    assert_eq!(conflicts, Some(1.0));

    // The older one leaves: the other may serve.
    alice.kill9();
    until("bob to serve", SOON, async || {
        (answering(&world, 1).await == BTreeSet::from(["bob".into()])).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", world.gateway().log()));
    let told = ours.requests();
    // And now it is the older one.
    let again = world.frpc_unready(0, "alice", vec![proxy(&ours)]);
    takeover::until_frpc_says(&again, "app.test is claimed by user").await;
    assert_eq!(answering(&world, 20).await, BTreeSet::from(["bob".into()]));
    assert_eq!(ours.requests(), told, "nothing was sent to her any more");

    let text = until("the conflict in the audit log", SOON, async || {
        let text = std::fs::read_to_string(&audit).ok()?;
        (text.contains("\"event\":\"conflict\"") && text.contains("\"event\":\"claim_refused\""))
            .then_some(text)
    })
    .await
    .expect("both are told");
    let line = text.lines().find(|line| line.contains("\"event\":\"conflict\"")).expect("a line");
    let line: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((&line["user"], &line["frps"]), (&"bob".into(), &"b".into()), "{line}");
}

#[tokio::test]
async fn a_restarted_gateway_settles_it_the_same_way() {
    let (mut world, other) = half_asked("").await;
    let (ours, theirs) = (app("alice"), app("bob"));
    let proxy = |app: &frp_gateway_loadtest::demo::DemoApp| Proxy::http("web", app.addr(), &["app.test"]);
    let _alice = world.frpc(0, "alice", vec![proxy(&ours)]).await;
    let since = known(&world, "alice").await["since"].as_u64().expect("a time");
    // frps tells whole seconds: whoever starts in the next one is younger beyond doubt.
    until("another second", SOON, async || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        (now.as_secs() > since).then_some(())
    })
    .await
    .expect("time passes");
    let _bob =
        Frpc::start(FrpcOptions::new(&other).user("bob").proxy(proxy(&theirs))).await.expect("frpc starts");
    until_known_of(&world, "bob").await;
    for round in 0..3 {
        world.gateway.take();
        world.start_gateway().await;
        assert_eq!(answering(&world, 20).await, BTreeSet::from(["alice".into()]), "restart {round}");
    }
    assert_eq!(theirs.requests(), 0, "nothing was ever sent to the loser");
}

#[tokio::test]
async fn a_seal_of_another_frps_makes_no_tunnel_of_ours() {
    let mut world = World::fleet(&["a"], "", |options| options).await;
    // It asks nobody, although the gateway has a secret for it: an operator who does one server at a time.
    let other = Frps::start(FrpsOptions::new("b")).await.expect("frps starts");
    let entry = other.yaml();
    let entry = entry.strip_suffix(" }").expect("flow style").to_owned();
    world.instead =
        vec![("frps:\n".into(), format!("frps:\n  - {entry}, plugin: {{ secret: {} }} }}\n", secret("b")))];
    world.start_gateway().await;
    let (ours, theirs) = (app("alice"), app("eve"));
    let alice = world.frpc(0, "alice", vec![Proxy::http("web", ours.addr(), &["app.test"])]).await;
    // Whoever reads the admin API has the seal.
    let listed = world.frps[0].admin_get("/api/v2/proxies?status=online").await.expect("the API answers");
    let seal = listed["data"]["items"][0]["spec"]["tcp"]["annotations"]["frp-gateway/claim"]
        .as_str()
        .unwrap_or_else(|| panic!("no seal: {listed}"))
        .to_owned();
    let forged = |user: &str| {
        let proxy = Proxy::tcp("web", theirs.addr(), 0)
            .line(&format!("annotations.\"frp-gateway/claim\" = {seal:?}"));
        FrpcOptions::new(&other).user(user).proxy(proxy)
    };
    let _same = Frpc::start(forged("alice")).await.expect("frpc starts");
    let _eve = Frpc::start(forged("eve")).await.expect("frpc starts");
    until("both to be known", SOON, async || {
        let known = world.gateway().api("/api/v1/tunnels?frps=b&state=live").await.ok()?;
        (known.as_array()?.len() == 2).then_some(())
    })
    .await
    .expect("they are listed");
    for _ in 0..20 {
        assert_eq!(world.get("app.test", "/").await.app(), Some("alice"));
    }
    drop(alice);
    until("the host to be away", SOON, async || {
        (world.get("app.test", "/").await.status == 503).then_some(())
    })
    .await
    .expect("it goes");
    for _ in 0..20 {
        assert_eq!(world.get("app.test", "/").await.app(), None, "a copied seal serves nothing");
    }
    assert_eq!(theirs.requests(), 0);
    world.until_logged("tunnel is not served as it asks").await;
}

#[tokio::test]
async fn no_run_id_password_or_key_is_told_anywhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let audit = folder.path().join("audit.log");
    let rest = format!(
        "audit: {}\nclaims: {{ rules: [ {{ users: alice, token: token-of-alice-1 }} ] }}",
        audit.display()
    );
    let world = World::start(&["a"], &rest).await;
    let ours = app("alice");
    let proxy = Proxy::http("web", ours.addr(), &["app.test"])
        .line("httpUser = \"carol\"")
        .line("httpPassword = \"password-of-carol\"")
        .metadata("gw_weight", "0x7");
    let options =
        FrpcOptions::new(&world.frps[0]).user("alice").line("metadatas.gw_token = \"token-of-alice-1\"");
    let frpc = Frpc::start(options.proxy(proxy.group("g", "key-of-the-group"))).await.expect("frpc starts");
    world.until_known(0, &frpc.proxy_names()).await;
    assert_eq!(world.get("app.test", "/").await.status, 401);
    let clients = world.frps[0].admin_get("/api/v2/clients").await.expect("the API answers");
    let run_id = clients["data"]["items"][0]["runID"].as_str().expect("a run id").to_owned();
    drop(frpc);
    let text = until("the loss in the audit log", SOON, async || {
        std::fs::read_to_string(&audit).ok().filter(|text| text.contains("\"event\":\"gone\""))
    })
    .await
    .expect("it is written");
    let mut told = vec![("the audit log", text), ("the log", world.gateway().log())];
    for path in ["/api/v1/tunnels", "/api/v1/frps", "/api/v1/status", "/api/v1/config", "/metrics"] {
        told.push((path, world.gateway().get(path).await.expect("an answer").text()));
    }
    assert!(run_id.len() >= 16, "{run_id}");
    let path_secret = secret("a");
    for what in [
        &*run_id,
        "token-of-alice-1",
        "password-of-carol",
        "key-of-the-group",
        TOKEN,
        KEY,
        &*path_secret,
        "agent-token-of-tests",
    ] {
        for (place, text) in &told {
            assert!(!text.contains(what), "{what} is in {place}:\n{text}");
        }
    }
    assert!(ADMIN_PASSWORD == "lab", "too short to be searched for");
}
