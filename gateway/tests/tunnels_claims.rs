//! Who may claim what: refusals reach the frpc's log, the loser of a conflict serves nothing, and no secret is told. Real frps and
//! frpc; needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/takeover.rs"]
mod takeover;

use frp_gateway_loadtest::lab::{Frpc, FrpcOptions, Proxy, TOKEN, until};
use takeover::{SOON, World, app, until_frpc_says};

#[tokio::test]
async fn refusals_reach_the_frpc_and_the_audit_log_and_tell_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let audit = folder.path().join("audit.log");
    let rest = format!(
        "audit: {}\nclaims:\n  rules:\n    - {{ users: alice, token: token-of-alice-1, domains: \"*.alice.test\", max_weight: 10 }}\n    \
         - {{ users: \"guest-*\", refuse: ask ops for a domain }}",
        audit.display()
    );
    let world = World::start(&["a"], &rest).await;
    let app = app("app");
    let http = |domain: &str| Proxy::http("web", app.addr(), &[domain]);
    let login = |user: &str, proxy: Proxy, token: &str| {
        let line = format!("loginFailExit = true\nmetadatas.gw_token = {token:?}");
        let options = FrpcOptions::new(&world.frps[0]).user(user).proxy(proxy);
        let options =
            if token.is_empty() { options } else { options.line(line.split_once('\n').expect("two").1) };
        Frpc::start_unready(options).expect("frpc starts")
    };
    let right = "token-of-alice-1";
    let says = async |frpc: &Frpc, text: &str| until_frpc_says(frpc, text).await;
    says(&login("alice", http("x.alice.test"), ""), "metadatas.gw_token").await;
    says(&login("alice", http("x.alice.test"), "token-of-mallory"), "gw_token is wrong").await;
    let elsewhere = login("alice", http("shop.test"), right);
    says(&elsewhere, "may not claim shop.test, only *.alice.test").await;
    drop(elsewhere);
    let heavy = login("alice", http("w.alice.test").metadata("gw_weight", "11"), right);
    says(&heavy, "may not claim weight 11, at most 10").await;
    drop(heavy);
    says(&login("guest-7", http("x.test"), ""), "ask ops for a domain").await;
    says(
        &login("bob", Proxy::http("web", app.addr(), &["y.lab.test"]), ""),
        "should not belong to subdomain host",
    )
    .await;
    let _alice = login("alice", http("x.alice.test"), right);
    let served = async |host: &str| world.get(host, "/").await.app() == Some("app");
    until("the allowed one to serve", SOON, async || served("x.alice.test").await.then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", world.gateway().log()));
    assert!(!served("shop.test").await && !served("w.alice.test").await);
    drop(_alice);
    let text = until("the loss in the audit log", SOON, async || {
        let text = std::fs::read_to_string(&audit).ok()?;
        text.contains("\"event\":\"gone\"").then_some(text)
    })
    .await
    .expect("it is written");
    for event in ["login", "login_refused", "claim_refused", "takeover", "live", "gone"] {
        assert!(text.contains(&format!("\"event\":\"{event}\"")), "{event}:\n{text}");
    }
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
        assert!(line["time"].is_string() && line["event"].is_string(), "{line}");
    }
    let log = world.gateway().log();
    for secret in
        [right, "token-of-mallory", TOKEN, "secret-of-frps", "a-key-for-tests", "run_id", "privilege_key"]
    {
        assert!(!text.contains(secret) && !log.contains(secret), "{secret} is told");
    }
}

#[tokio::test]
async fn the_older_user_keeps_a_host_and_the_other_is_never_routed() {
    let world = World::start(&["a", "b"], "").await;
    let (ours, theirs) = (app("alice"), app("bob"));
    let mut alice = world.frpc(0, "alice", vec![Proxy::http("web", ours.addr(), &["app.test"])]).await;
    // Bob asks another frps: FRP itself would let him.
    let bob = world.frpc_unready(1, "bob", vec![Proxy::http("web", theirs.addr(), &["app.test"])]);
    until_frpc_says(&bob, "app.test is claimed by user").await;
    for _ in 0..20 {
        assert_eq!(world.get("app.test", "/").await.app(), Some("alice"));
    }
    alice.kill9();
    // frpc asks again after thirty seconds; a new one at once.
    drop(bob);
    until("alice's tunnel to be gone", SOON, async || world.tunnels(0).await.is_empty().then_some(()))
        .await
        .expect("it goes");
    let _bob = world.frpc(1, "bob", vec![Proxy::http("web", theirs.addr(), &["app.test"])]).await;
    assert_eq!(world.get("app.test", "/").await.app(), Some("bob"), "the host is free again");
}

#[tokio::test]
async fn two_users_serve_one_host_where_policy_lets_them() {
    let world = World::start(&["a", "b"], "claims: { conflicts: share }").await;
    let (ours, theirs) = (app("alice"), app("bob"));
    let _alice = world.frpc(0, "alice", vec![Proxy::http("web", ours.addr(), &["app.test"])]).await;
    let _bob = world.frpc(1, "bob", vec![Proxy::http("web", theirs.addr(), &["app.test"])]).await;
    let shares = world.shares("app.test", 20).await;
    assert_eq!((shares.get("alice"), shares.get("bob")), (Some(&10), Some(&10)), "{shares:?}");
}
