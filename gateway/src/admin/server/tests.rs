//! The admin side in process, over real HTTP.

use serde_json::{Value, json};

use super::*;
use crate::{
    admin::testing::Admin,
    control::testing::{until, yaml},
};

fn with_token() -> String {
    yaml("").replace("listen: \"127.0.0.1:0\"", "listen: \"127.0.0.1:0\", token: \"correct-horse-battery\"")
}

#[tokio::test]
async fn listeners_tell_the_address_that_is_really_bound() {
    let admin = Admin::start(&yaml("")).await;
    let listeners = admin.json("/api/v1/listeners").await;
    assert_eq!(listeners[0]["name"], "web");
    assert_eq!(listeners[0]["protocol"], "http");
    let address: std::net::SocketAddr = listeners[0]["address"].as_str().unwrap().parse().unwrap();
    assert_ne!(address.port(), 0);
}

#[tokio::test]
async fn pools_tell_the_live_state_of_their_members() {
    let admin = Admin::start(&yaml("")).await;
    let snapshot = admin.rig.published.load_full();
    let _guard = snapshot.pools[0].members[0].endpoint.begin();
    let pools = admin.json("/api/v1/pools").await;
    assert_eq!(pools[0]["balance"], "round_robin");
    let member = &pools[0]["members"][0];
    assert_eq!(member["addresses"], json!(["127.0.0.1:8001"]));
    assert_eq!((&member["in_flight"], &member["healthy"]), (&json!(1), &json!(true)));
}

#[tokio::test]
async fn a_refused_reload_shows_what_is_wrong_until_it_is_right() {
    let admin = Admin::start(&yaml("")).await;
    std::fs::write(admin.rig.path(), yaml("").replace("frps: [a]", "frps: [b]")).unwrap();
    let (status, body) = admin.ask("POST", "/api/v1/reload", None).await;
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &answer["result"], &answer["generation"]), (422, &json!("refused"), &json!(1)));
    let config = admin.json("/api/v1/config").await;
    assert_eq!(config["last_reload"], "refused");
    assert_eq!(config["diagnostics"], answer["diagnostics"]);
    assert!(config["diagnostics"][0]["line"].as_u64() > Some(0), "{config}");
    assert!(admin.get("/metrics").await.1.contains("frp_gateway_config_last_reload_successful 0\n"));
    std::fs::write(admin.rig.path(), yaml("")).unwrap();
    let (status, body) = admin.ask("POST", "/api/v1/reload", None).await;
    assert!(status == 200 && body.contains("\"unchanged\""), "{body}");
    assert_eq!(admin.json("/api/v1/config").await["diagnostics"], json!([]));
    assert!(admin.get("/metrics").await.1.contains("frp_gateway_config_last_reload_successful 1\n"));
}

#[tokio::test]
async fn with_a_token_only_the_supervisors_probes_are_open() {
    let admin = Admin::start(&with_token()).await;
    for path in ["/metrics", "/api/v1/listeners", "/api/v1/config", "/api/v1/frps", "/api/v1/pools"] {
        assert_eq!(admin.get(path).await.0, 401, "{path} without");
        assert_eq!(
            admin.ask("GET", path, Some("correct-horse-batter")).await.0,
            401,
            "{path} with a wrong one"
        );
        assert_eq!(admin.ask("GET", path, Some("correct-horse-battery")).await.0, 200, "{path} with it");
    }
    assert_eq!(admin.ask("POST", "/api/v1/reload", None).await.0, 401);
    assert_eq!((admin.get("/healthz").await.0, admin.get("/readyz").await.0), (200, 200));
}

#[tokio::test]
async fn no_answer_holds_a_secret() {
    let text = with_token().replace(
        "vhost_http_port: 8001",
        "vhost_http_port: 8001, admin: { url: \"http://127.0.0.1:1\", user: operator, password: hush-hush }",
    );
    let admin = Admin::start(&text).await;
    for path in
        ["/metrics", "/api/v1/listeners", "/api/v1/config", "/api/v1/frps", "/api/v1/pools", "/readyz"]
    {
        let (_, body) = admin.ask("GET", path, Some("correct-horse-battery")).await;
        assert!(!body.contains("hush-hush") && !body.contains("correct-horse"), "{path}: {body}");
    }
}

#[tokio::test]
async fn readiness_follows_the_first_listing_and_the_drain() {
    let (proceed, wait) = tokio::sync::watch::channel(false);
    let frps = axum::Router::new().route(
        "/api/v2/proxies",
        get(move || {
            let mut wait = wait.clone();
            async move {
                wait.wait_for(|go| *go).await.unwrap();
                axum::Json(json!({"data": {"total": 1, "items": [
                    {"name": "p", "spec": {"http": {"customDomains": ["x.test"]}}, "status": {"phase": "online"}}]}}))
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, frps).await });
    let text = yaml("").replace(
        "vhost_http_port: 8001",
        &format!("vhost_http_port: 8001, admin: {{ url: \"http://{url}\", user: u, password: p }}"),
    );
    let admin = Admin::start(&text).await;
    let (status, reason) = admin.get("/readyz").await;
    assert!(status == 503 && reason.contains("listing of a"), "{status} {reason}");
    assert_eq!(admin.get("/healthz").await.0, 200);
    assert_eq!(admin.json("/api/v1/frps").await[0]["stale"], true);
    proceed.send(true).unwrap();
    until("the tunnels are published", || admin.rig.published.load().tunnels.knows("x.test")).await;
    assert_eq!(admin.get("/readyz").await.0, 200);
    let frps = admin.json("/api/v1/frps").await;
    assert_eq!((&frps[0]["stale"], &frps[0]["tunnels"][0]["domains"]), (&json!(false), &json!(["x.test"])));
    assert!(admin.rig.handle.send(crate::control::Event::DrainBegan).await);
    until("the drain is known", || admin.rig.handle.state().draining).await;
    let (status, reason) = admin.get("/readyz").await;
    assert!(status == 503 && reason.contains("shutting down"), "{status} {reason}");
}
