//! What `explain` says is what happens next, and the access log says it in the same words.

#![allow(clippy::panic, reason = "helpers of tests are outside of them")]

#[path = "common/apps.rs"]
mod apps;
#[path = "common/cli.rs"]
mod cli;
mod common;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use apps::{App, Reply, apply, ask, ask_once, frps, gated, get_with, named, setup, start, with_cookie};
use cli::{run, text};
use common::{Endpoint, Wire, eventually, get, ok};
use frp_gateway_loadtest::lab::Gateway;
use serde_json::Value;
use tokio::net::TcpListener;

/// What `explain http://app.test/` with these arguments answers.
fn explain(gateway: &Gateway, more: &[&str]) -> Value {
    let output = run(gateway, &[&["explain", "http://app.test/", "--format", "json"], more].concat());
    let said = text(&output.stdout);
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", text(&output.stderr)))
}

/// Endpoint, reason and among of the pick.
fn pick(told: &Value) -> (String, String, String) {
    let word = |name: &str| told["ending"][name].as_str().unwrap_or("-").to_owned();
    (word("endpoint"), word("reason"), word("among"))
}

/// Why this endpoint isn't eligible; empty if it is.
fn why_not<'a>(told: &'a Value, endpoint: &str) -> &'a str {
    let all = told["pools"][0]["candidates"].as_array().expect("candidates");
    let one = all.iter().find(|one| one["endpoint"] == endpoint).expect("a candidate");
    one["why_not"].as_str().unwrap_or_default()
}

/// Everything known against this endpoint.
fn verdicts(told: &Value, endpoint: &str) -> String {
    let all = told["pools"][0]["candidates"].as_array().expect("candidates");
    all.iter().find(|one| one["endpoint"] == endpoint).expect("a candidate")["verdicts"].to_string()
}

/// A folder and the file in it that access-log lines go to.
struct Log(tempfile::TempDir);

impl Log {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("access.log")
    }

    fn yaml(&self) -> String {
        format!("access_log: {{ output: {} }}\n", self.path().display())
    }

    /// The n-th line, from 0, as soon as it is there: endpoint, reason and among.
    async fn line(&self, n: usize) -> (String, String, String) {
        let read = || std::fs::read_to_string(self.path()).unwrap_or_default();
        eventually("a line is logged", async || read().lines().count() > n).await;
        let line: Value = serde_json::from_str(read().lines().nth(n).unwrap_or_default()).expect("JSON");
        let word = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
        (word("endpoint"), word("pick"), word("among"))
    }
}

async fn three() -> [Endpoint; 3] {
    [named("e0").await, named("e1").await, named("e2").await]
}

fn entries(endpoints: &[&Endpoint]) -> Vec<String> {
    let entry = |(n, one): (usize, &&Endpoint)| frps(&format!("e{n}"), one.address, "");
    endpoints.iter().enumerate().map(entry).collect()
}

#[tokio::test]
async fn a_key_goes_where_explain_says_and_the_access_log_says_the_same() {
    for balance in ["maglev", "ring_hash", "round_robin"] {
        let ([a, b, c], log) = (three().await, Log::new());
        let pool = format!(", balance: {balance}, affinity: {{ header: x-user }}");
        let (gateway, address) = start(&setup(2, &entries(&[&a, &b, &c]), "", &pool, &log.yaml())).await;
        let mut told_picks = Vec::new();
        for user in 0..12 {
            let told = explain(&gateway, &["-H", &format!("X-User: user-{user}")]);
            assert_eq!(told["ending"]["certain"], true, "{balance} {user}: {told}");
            let reply = ask_once(address, &get_with("/", &format!("X-User: user-{user}\r\n"))).await;
            assert_eq!(pick(&told).0, reply.body, "{balance} {user}: {told}");
            told_picks.push(pick(&told));
        }
        for (user, told) in told_picks.iter().enumerate() {
            assert_eq!(*told, log.line(user).await, "{balance} {user}");
        }
        let seen: BTreeSet<_> = told_picks.into_iter().map(|(endpoint, ..)| endpoint).collect();
        assert!(seen.len() > 1, "{balance}: twelve users, and all at {seen:?}");
    }
}

#[tokio::test]
async fn the_least_loaded_gets_the_next_request() {
    let ((busy, gate), idle, log) = (gated("e0").await, named("e1").await, Log::new());
    let yaml = setup(1, &entries(&[&busy, &idle]), "", ", balance: least_request", &log.yaml());
    let (gateway, address) = start(&yaml).await;
    // Equals are drawn by chance, so it may take some requests until one is at the busy one and stays.
    let mut waits = Wire::connect(address).await;
    loop {
        let before = idle.seen().len();
        waits.send(get("/")).await;
        eventually("it arrives", async || gate.running() > 0 || idle.seen().len() > before).await;
        if gate.running() > 0 {
            break;
        }
        waits.response(false).await;
    }
    let before = idle.seen().len();
    let told = explain(&gateway, &[]);
    assert_eq!(pick(&told), ("e1".into(), "least_loaded".into(), "all".into()), "{told}");
    assert_eq!((&told["ending"]["certain"], &told["ending"]["of"]), (&true.into(), &2.into()));
    assert_eq!(told["pools"][0]["candidates"][0]["score"], 1.0);
    assert_eq!(ask_once(address, &get("/")).await.body, "e1");
    assert_eq!(idle.seen().len(), before + 1);
    gate.release(1);
    waits.response(false).await;
}

#[tokio::test]
async fn the_clearly_cheapest_gets_the_next_request() {
    let (slow, fast, log) = (App::answering("e0", late).await, named("e1").await, Log::new());
    let members = [frps("e0", slow.address, ""), frps("e1", fast.address, "")];
    let (gateway, address) = start(&setup(1, &members, "", ", balance: peak_ewma", &log.yaml())).await;
    let mut visitor = Wire::connect(address).await;
    // A worker's first 19 picks hold no probe.
    for asked in 0..18 {
        let told = explain(&gateway, &[]);
        let all = told["pools"][0]["candidates"].as_array().expect("candidates");
        let known = all.iter().all(|one| !one["latency_ms"].is_null());
        let reply = ask(&mut visitor, &get("/")).await;
        if known {
            assert_eq!(pick(&told), ("e1".into(), "cheapest".into(), "all".into()), "{told}");
            assert_eq!((reply.body.as_str(), &told["ending"]["certain"]), ("e1", &true.into()), "{told}");
            assert_eq!(log.line(asked).await, pick(&told));
            return;
        }
    }
    panic!("18 requests, and one of two newcomers got none");
}

async fn late(_request: String) -> String {
    tokio::time::sleep(Duration::from_millis(80)).await;
    ok("e0")
}

#[tokio::test]
async fn a_session_stays_where_explain_says_and_its_cookie_is_not_repeated() {
    let ([a, b, c], log) = (three().await, Log::new());
    let key = ", affinity: { cookie: { key: 0123456789abcdef0123456789abcdef } }";
    let (gateway, address) = start(&setup(1, &entries(&[&a, &b, &c]), "", key, &log.yaml())).await;
    let first: Reply = ask_once(address, &get("/")).await;
    let cookie = first.session().expect("the first answer sets the cookie");
    let told = explain(&gateway, &["-H", &format!("Cookie: {cookie}")]);
    assert_eq!(pick(&told), (first.body.clone(), "session".into(), "all".into()), "{told}");
    let value = cookie.trim_start_matches("gw=");
    assert!(!told.to_string().contains(value), "{told}");
    assert_eq!(ask_once(address, &with_cookie(&cookie)).await.body, first.body);
    assert_eq!(log.line(1).await, pick(&told));
    let other = run(&gateway, &["explain", "http://app.test/", "-H", &format!("Cookie: {cookie}")]);
    let said = text(&other.stdout);
    assert!(said.contains("(session cookie)") && !said.contains(value), "{said}");
}

#[tokio::test]
async fn each_verdict_is_told_as_the_reason_and_the_rest_serves() {
    let sick = Endpoint::answering("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").await;
    let ((full, gate), spare, good) = (gated("e2").await, named("e3").await, named("e4").await);
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let members = [
        frps("e0", sick.address, ""),
        frps("e1", gone, ""),
        frps("e2", full.address, ""),
        frps("e3", spare.address, ", weight: 0"),
        frps("e4", good.address, ""),
    ];
    // The gated one is filled first, while nothing else could serve.
    let with = |more: &str| {
        setup(
            1,
            &members,
            "",
            &format!(", balance: least_request, fail_timeout: 1m, limits: {{ in_flight: 1 }}{more}"),
            "",
        )
    };
    let only_full = with(", frps: [e2]");
    let (gateway, address) = start(&only_full).await;
    let mut waits = Wire::connect(address).await;
    waits.send(get("/")).await;
    eventually("it is full", async || gate.running() == 1).await;
    let outlier = ", frps: all, outlier: { consecutive_failures: 1, max_ejected: 100%, base_ejection: 5m }";
    apply(&gateway, &with(outlier)).await;
    // Who is met first is found out: the dead one is down, the sick one ejected.
    let mut visitor = Wire::connect(address).await;
    eventually("both are found out", async || {
        ask(&mut visitor, &get("/")).await;
        let told = explain(&gateway, &[]);
        why_not(&told, "e0") == "ejected" && verdicts(&told, "e1").contains("down for")
    })
    .await;
    let told = explain(&gateway, &[]);
    assert!(
        ["down", "ejected"].contains(&why_not(&told, "e1")),
        "its refused connects speak against it: {told}"
    );
    assert_eq!(why_not(&told, "e2"), "at its limit (1 of 1 in flight)");
    assert_eq!((why_not(&told, "e3"), why_not(&told, "e4")), ("weight 0", ""));
    assert_eq!((pick(&told).0.as_str(), &told["ending"]["certain"]), ("e4", &true.into()), "{told}");
    assert_eq!(ask(&mut visitor, &get("/")).await.body, "e4");
    // Health checks find the sick one unhealthy, which says more than that it is ejected.
    let health = ", frps: [e0, e4], health: { http: { host: app.test, path: / }, interval: 100ms, timeout: 100ms, fall: 1 }";
    apply(&gateway, &with(health)).await;
    eventually("the check fails", async || why_not(&explain(&gateway, &[]), "e0") == "unhealthy").await;
    gate.release(9);
    waits.response(false).await;
}

#[tokio::test]
async fn a_request_that_nobody_serves_ends_with_1_and_says_why_no_route_does() {
    let e0 = named("e0").await;
    let text_of = |output: &Output| text(&output.stdout);
    let yaml = setup(1, &entries(&[&e0]), "", "", "").replace(
        "{ name: r, pool: p, timeout: 30s }",
        "{ name: r, match: { host: app.test, path: /api, method: POST, headers: { x-v: \"hush\" } }, pool: p }",
    );
    let (gateway, address) = start(&yaml).await;
    for (arguments, why) in [
        (&["http://other.test/"][..], "host: only app.test"),
        (&["http://app.test/"], "path: only /api/…"),
        (&["http://app.test/api"], "method: only POST"),
        (&["http://app.test/api", "-X", "POST"], "header x-v is absent"),
        (&["http://app.test/api", "-X", "POST", "-H", "X-V: 1"], "header x-v has another value"),
    ] {
        let output = run(&gateway, &[&["explain"], arguments].concat());
        let said = text_of(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let first = said.lines().next().unwrap_or_default();
        assert!(first.ends_with("→ 404 no_route (No route leads to this host and path.)"), "{said}");
        assert!(said.contains(why) && !said.contains("hush"), "{why}: {said}");
    }
    let refused = ask_once(address, &get("/api")).await;
    assert_eq!((refused.status, refused.class()), (404, "no_route"));
    let served = run(&gateway, &["explain", "app.test/api/x", "-X", "POST", "-H", "X-V: hush"]);
    assert_eq!(served.status.code(), Some(0), "{}", text_of(&served));
    assert!(text_of(&served).starts_with("POST http://app.test/api/x → route r → pool p → e0 ("));
}

#[tokio::test]
async fn what_cannot_be_asked_ends_with_2_and_a_remedy() {
    let e0 = named("e0").await;
    let token = "admin: { listen: \"@ADMIN@\", token: correct-horse-battery }\n";
    let yaml = setup(1, &entries(&[&e0]), "", "", token);
    let gateway = Gateway::start(env!("CARGO_BIN_EXE_frp-gateway"), &yaml).await.expect("the gateway starts");
    let config = gateway.file().display().to_string();
    let binary = |arguments: &[&str], token: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_frp-gateway"));
        command.args(arguments).env_remove("FRP_GATEWAY_ADMIN").env_remove("FRP_GATEWAY_CONFIG");
        command.env_remove("FRP_GATEWAY_TOKEN").envs(token.map(|token| ("FRP_GATEWAY_TOKEN", token)));
        let output = command.output().expect("it runs");
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let admin = gateway.admin().to_string();
    for command in [&["explain", "http://app.test/"][..], &["status", "-i", "100ms"]] {
        let with = |more: &[&str], token| binary(&[command, more].concat(), token);
        assert_eq!(with(&["--config", &config], None).0, Some(0), "address and token are the file's");
        assert_eq!(with(&["--admin", &admin], Some("correct-horse-battery")).0, Some(0));
        assert_eq!(with(&["--admin", &admin, "--token", "correct-horse-battery"], None).0, Some(0));
        let (code, said) = with(&["--admin", &admin], None);
        assert!(
            code == Some(2) && said.contains("wants a token") && said.contains("FRP_GATEWAY_TOKEN"),
            "{said}"
        );
        let (code, said) = with(&["--admin", &admin], Some("wrong"));
        assert!(code == Some(2) && said.contains("wants another token"), "{said}");
        let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
        let (code, said) = with(&["--admin", &nobody.to_string()], None);
        assert!(code == Some(2) && said.contains("Is the gateway running?"), "{said}");
        assert!(!said.contains("correct-horse"), "{said}");
    }
    let (code, said) = binary(&["explain", "http://app.test/", "-c", &config, "--listener", "wep"], None);
    assert!(
        code == Some(2) && said.contains("no http listener is called \"wep\"") && said.contains("web ("),
        "{said}"
    );
    let (code, said) = binary(&["explain", "http://app.test/", "-H", "nonsense"], None);
    assert!(code == Some(2) && said.contains("NAME: VALUE"), "{said}");
}

#[tokio::test]
async fn status_shows_rates_and_shares_of_the_interval() {
    let (heavy, light) = (Endpoint::answering(ok("e0")).await, named("e1").await);
    let members = [frps("e0", heavy.address, ", weight: 3"), frps("e1", light.address, "")];
    let (gateway, address) = start(&setup(1, &members, "", "", "")).await;
    let admin = gateway.admin().to_string();
    let mut watched = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_frp-gateway"));
        command.args(["status", "--format", "json", "--interval", "500ms", "--admin", &admin]);
        command.output().expect("it runs")
    });
    let (mut visitor, request) = (Wire::connect(address).await, get("/"));
    let output = loop {
        tokio::select! {
            biased;
            output = &mut watched => break output.expect("it ends"),
            reply = ask(&mut visitor, &request) => assert_eq!(reply.status, 200),
        }
    };
    let said = text(&output.stdout);
    let report: Value =
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", text(&output.stderr)));
    let pool = &report["pools"][0];
    let of = |n: usize, name: &str| pool["members"][n][name].as_f64().unwrap_or(-1.0);
    assert!((of(0, "share") + of(1, "share") - 100.0).abs() < 0.01, "{report}");
    assert!((of(0, "share") - 75.0).abs() < 2.0, "3 : 1 in turns: {report}");
    let rate = pool["requests_per_second"].as_f64().unwrap_or_default();
    assert!(
        rate > 1.0 && (of(0, "requests_per_second") + of(1, "requests_per_second") - rate).abs() < 0.01,
        "{report}"
    );
    let shown = text(&run(&gateway, &["status", "-i", "100ms"]).stdout);
    assert!(shown.contains("pool p, round_robin: ") && !shown.contains('\x1b'), "{shown}");
}
