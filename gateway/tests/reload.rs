//! The configuration changes while visitors are served: every way a file changes is noticed, what is wrong changes nothing,
//! and nobody's request or connection suffers.

mod common;
#[path = "common/fleet.rs"]
mod fleet;

use std::{
    env, fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::{Endpoint, PATIENCE, Wire, field, get, ok, status};
use fleet::{Load, metric};
use frp_gateway_loadtest::{
    demo::DemoApp,
    http::{self, Connection, empty},
    lab::{Gateway, until},
};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::{client_async, tungstenite::Message};

/// Sooner than the slow poll that helps a blind watch: what is shown is the watch.
const BEFORE_THE_POLL: Duration = Duration::from_secs(3);

async fn start(text: &str) -> Gateway {
    Gateway::start(env!("CARGO_BIN_EXE_frp-gateway"), text).await.expect("the gateway starts")
}

fn frps(name: &str, address: SocketAddr) -> String {
    format!("{{ name: {name}, host: 127.0.0.1, vhost_http_port: {} }}", address.port())
}

/// `POST /api/v1/reload`.
async fn reload(gateway: &Gateway) -> (u16, Value) {
    let request = http::request("POST", "gateway", "/api/v1/reload").body(empty());
    let reply = http::send(gateway.admin(), request).await.expect("the API answers");
    let value = reply.json().unwrap_or_else(|error| Value::String(format!("{error}: {}", reply.text())));
    (reply.status, value)
}

/// Writes `text` and has it in force when it returns.
async fn apply(gateway: &Gateway, text: &str) {
    gateway.edit(text).expect("written");
    let (code, said) = reload(gateway).await;
    assert_eq!(code, 200, "{said}");
}

/// Waits for a line with `text`; the log is written behind the scenes.
async fn logs(gateway: &Gateway, text: &str) {
    let outcome = until(text, PATIENCE, async || gateway.log().contains(text).then_some(())).await;
    assert!(outcome.is_ok(), "{text:?} isn't logged:\n{}", gateway.log());
}

async fn generation(gateway: &Gateway) -> u64 {
    gateway.api("/api/v1/config").await.expect("the API answers")["generation"].as_u64().expect("a number")
}

/// The body of `GET /` for `host`.
async fn said(address: SocketAddr, host: &str) -> String {
    http::get(address, host, "/").await.expect("an answer").text()
}

/// Two endpoints, `old` and `new`, and a gateway whose only route leads to `old`.
struct Choice {
    _endpoints: [Endpoint; 2],
    gateway: Gateway,
    address: SocketAddr,
}

impl Choice {
    async fn start() -> Self {
        let endpoints = [Endpoint::answering(ok("old")).await, Endpoint::answering(ok("new")).await];
        let text = format!(
            "runtime: {{ workers: 2 }}\nfrps: [{}, {}]\nlisteners: [{{ name: web, bind: \"127.0.0.1:0\" }}]\n\
             pools: [{{ name: old, frps: [e0] }}, {{ name: new, frps: [e1] }}]\nroutes: [{{ pool: old }}]\n",
            frps("e0", endpoints[0].address),
            frps("e1", endpoints[1].address)
        );
        let gateway = start(&text).await;
        let address = gateway.listener("web").await.expect("a listener");
        assert_eq!(said(address, "app.test").await, "old");
        Self { _endpoints: endpoints, gateway, address }
    }

    /// The file's text with the route turned to `pool`.
    fn turned_to(&self, pool: &str) -> String {
        let text = fs::read_to_string(self.gateway.file()).expect("readable");
        let at = text.find("routes: [{ pool: ").expect("a route") + "routes: [{ pool: ".len();
        format!("{}{pool}{}", &text[..at], &text[at + 3..])
    }

    async fn says(&self, pool: &str) {
        let begun = Instant::now();
        let turned = async || (said(self.address, "app.test").await == pool).then_some(());
        let outcome = until(&format!("requests to go to {pool}"), PATIENCE, turned).await;
        assert!(outcome.is_ok(), "{outcome:?}\n{}", self.gateway.log());
        let took = begun.elapsed();
        assert!(
            took < BEFORE_THE_POLL,
            "noticed after {took:?}: the watch was blind\n{}",
            self.gateway.log()
        );
    }
}

#[tokio::test]
async fn a_file_renamed_into_place_is_noticed() {
    let choice = Choice::start().await;
    for pool in ["new", "old", "new"] {
        choice.gateway.edit(&choice.turned_to(pool)).expect("renamed");
        choice.says(pool).await;
    }
    assert_eq!(generation(&choice.gateway).await, 4, "one step for each change");
}

#[tokio::test]
async fn a_file_written_in_place_is_noticed() {
    let choice = Choice::start().await;
    for pool in ["new", "old", "new"] {
        fs::write(choice.gateway.file(), choice.turned_to(pool)).expect("written");
        choice.says(pool).await;
    }
    assert_eq!(
        metric(&choice.gateway, "frp_gateway_config_last_reload_successful", &[]).await.to_string(),
        "1"
    );
}

/// `folder/NAME/gateway.yaml`, and `folder/..data` swapped over to it as the kubelet does.
fn mount(folder: &Path, name: &str, text: &str) {
    fs::create_dir(folder.join(name)).expect("a folder");
    fs::write(folder.join(name).join("gateway.yaml"), text).expect("written");
    symlink(name, folder.join("..data_tmp")).expect("a link");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("swapped");
}

#[tokio::test]
async fn a_kubernetes_symlink_swap_is_noticed() {
    let choice = Choice::start().await;
    let file = choice.gateway.file();
    let folder = file.parent().expect("a folder").to_owned();
    mount(&folder, "..2026_1", &choice.turned_to("old"));
    symlink("..data/gateway.yaml", folder.join("link")).expect("a link");
    fs::rename(folder.join("link"), &file).expect("the file becomes a link");
    for (n, pool) in [(2, "new"), (3, "old"), (4, "new")] {
        mount(&folder, &format!("..2026_{n}"), &choice.turned_to(pool));
        fs::remove_dir_all(folder.join(format!("..2026_{}", n - 1)))
            .expect("the kubelet removes the old one");
        choice.says(pool).await;
    }
    assert!(!choice.gateway.log().contains("reload refused"), "{}", choice.gateway.log());
}

#[tokio::test]
async fn a_link_to_a_file_elsewhere_is_followed() {
    let choice = Choice::start().await;
    let (elsewhere, file) = (tempfile::tempdir().expect("a folder"), choice.gateway.file());
    let real = elsewhere.path().join("real.yaml");
    let link = file.with_file_name("link");
    fs::write(&real, choice.turned_to("new")).expect("written");
    symlink(&real, &link).expect("a link");
    fs::rename(link, file).expect("the file becomes a link");
    choice.says("new").await;
    for pool in ["old", "new"] {
        // The lab keeps the log beside the file, so the last reload's own line wakes the watch once more. Not to be helped
        // by that, the change comes later.
        tokio::time::sleep(Duration::from_millis(700)).await;
        fs::write(&real, choice.turned_to(pool)).expect("written");
        choice.says(pool).await;
    }
}

/// A gateway with a secret in a file, which no watch sees, and the admin API that gets to know the secret.
async fn with_secret(folder: &Path) -> (Gateway, Endpoint) {
    fs::write(folder.join("secret"), "one").expect("written");
    let listing = r#"{"code":200,"msg":"success","data":{"total":0,"page":1,"pageSize":200,"items":[]}}"#;
    let admin =
        Endpoint::answering(ok(listing).replace("\r\n\r\n", "\r\nContent-Type: application/json\r\n\r\n"))
            .await;
    let text = format!(
        "runtime: {{ workers: 1 }}\nfrps:\n  - {{ name: e0, host: 127.0.0.1, vhost_http_port: 9, admin: {{ url: \
         \"http://{}\", password: \"file:{}\", interval: 1h }} }}\nlisteners: [{{ name: web, bind: \"127.0.0.1:0\" }}]\n",
        admin.address,
        folder.join("secret").display()
    );
    let gateway = start(&text).await;
    assert!(knows(&admin, "YWRtaW46b25l"), "{:?}", admin.seen()); // admin:one
    (gateway, admin)
}

fn knows(admin: &Endpoint, credentials: &str) -> bool {
    admin.seen().iter().any(|request| request.contains(credentials))
}

#[tokio::test]
async fn sighup_reads_everything_again_secrets_in_files_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut gateway, admin) = with_secret(folder.path()).await;
    fs::write(folder.path().join("secret"), "two").expect("written");
    gateway.sighup();
    let used = async || knows(&admin, "YWRtaW46dHdv").then_some(()); // admin:two
    until("the new secret to be used", PATIENCE, used).await.expect("SIGHUP reloads");
    assert_eq!(generation(&gateway).await, 2);
}

#[tokio::test]
async fn the_api_reloads_and_says_what_came_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (gateway, admin) = with_secret(folder.path()).await;
    let (code, said) = reload(&gateway).await;
    assert_eq!((code, &said["result"], &said["generation"]), (200, &"unchanged".into(), &1.into()), "{said}");
    fs::write(folder.path().join("secret"), "two").expect("written");
    let (code, said) = reload(&gateway).await;
    assert_eq!((code, &said["result"], &said["generation"]), (200, &"changed".into(), &2.into()), "{said}");
    let used = async || knows(&admin, "YWRtaW46dHdv").then_some(());
    until("the new secret to be used", PATIENCE, used).await.expect("the new password is in force");
    fs::remove_file(folder.path().join("secret")).expect("removed");
    let (code, said) = reload(&gateway).await;
    assert_eq!((code, &said["result"], &said["generation"]), (422, &"refused".into(), &2.into()), "{said}");
    assert!(said["diagnostics"].to_string().contains("frps[0].admin.password"), "{said}");
    assert!(!said.to_string().contains("two"), "a secret is never shown: {said}");
}

#[tokio::test]
async fn a_broken_file_leaves_the_old_state_in_force_and_says_so_everywhere() {
    let choice = Choice::start().await;
    let gateway = &choice.gateway;
    let mut kept = Connection::open(choice.address).await.expect("connected");
    let mut ask = async || {
        let request = http::request("GET", "app.test", "/").body(empty());
        kept.send(request).await.expect("the connection stays").text()
    };
    let successful = async |wanted: f64| {
        until("the metric to follow", PATIENCE, async || {
            let seen = metric(gateway, "frp_gateway_config_last_reload_successful", &[]).await;
            ((seen - wanted).abs() < 0.5).then_some(())
        })
        .await
        .unwrap_or_else(|error| panic!("last_reload_successful {wanted}: {error}\n{}", gateway.log()));
    };
    let good = choice.turned_to("new");
    successful(1.0).await;
    for (broken, trace) in [
        (good.replace("pool: new", "pool: nowhere"), "routes[0].pool"),
        (good.replace("name: web, ", "name: web, bindd: 1, "), "bindd"),
        (good.replace("frps: [", "frps: [["), "error[yaml-syntax]"),
        (String::new(), "error[empty-file]"),
    ] {
        match broken.as_str() {
            "" => fs::write(gateway.file(), "").expect("emptied in place"),
            broken => gateway.edit(broken).expect("renamed into place"),
        }
        successful(0.0).await;
        assert_eq!(ask().await, "old", "{broken}");
        let view = gateway.api("/api/v1/config").await.expect("the API answers");
        assert_eq!((&view["last_reload"], &view["generation"]), (&"refused".into(), &1.into()), "{view}");
        assert!(view["diagnostics"].as_array().is_some_and(|all| !all.is_empty()), "{view}");
        logs(gateway, trace).await;
        logs(gateway, "reload refused").await;
        let (code, said) = reload(gateway).await;
        assert_eq!((code, &said["result"]), (422, &"refused".into()), "{said}");
        // Back to what is in force: nothing new, and fine again.
        gateway.edit(&good.replace("pool: new", "pool: old")).expect("written");
        successful(1.0).await;
    }
    gateway.edit(&good).expect("written");
    choice.says("new").await;
    assert_eq!(ask().await, "new", "the kept connection follows");
    let view = gateway.api("/api/v1/config").await.expect("the API answers");
    assert_eq!(
        (&view["last_reload"], &view["diagnostics"]),
        (&"ok".into(), &Value::Array(Vec::new())),
        "{view}"
    );
    assert_eq!(view["generation"], 2, "{view}");
}

/// One text of listeners, frps, pools and routes, each a list in flow style.
fn text(listeners: &[&str], frps: &[String], pools: &[&str], routes: &[&str]) -> String {
    format!(
        "runtime: {{ workers: 2 }}\nlisteners: [{}]\nfrps: [{}]\npools: [{}]\nroutes: [{}]\n",
        listeners.join(", "),
        frps.join(", "),
        pools.join(", "),
        routes.join(", ")
    )
}

const WEB: &str = "{ name: web, bind: \"127.0.0.1:0\" }";
const POOL: &str = "{ name: p, frps: all }";
const ROUTE: &str = "{ name: r, pool: p }";

#[tokio::test]
async fn listeners_come_move_change_and_go_while_others_serve() {
    let endpoint = Endpoint::answering(ok("yes")).await;
    let fleet = [frps("e0", endpoint.address)];
    let with = |listeners: &[&str]| text(listeners, &fleet, &[POOL], &[ROUTE]);
    let gateway = start(&with(&[WEB])).await;
    let web = gateway.listener("web").await.expect("a listener");
    let mut kept = Wire::connect(web).await;

    apply(&gateway, &with(&[WEB, "{ name: more, bind: \"127.0.0.1:0\" }"])).await;
    let more = gateway.listener("more").await.expect("added");
    assert_eq!(said(more, "app.test").await, "yes");

    apply(&gateway, &with(&[WEB, "{ name: more, bind: \"127.0.0.1:0\", limits: { body_bytes: 10 } }"])).await;
    assert_eq!(gateway.listener("more").await.expect("still there"), more, "a limit moves no address");
    let request = http::request("POST", "app.test", "/").body(http::full("more than ten bytes"));
    assert_eq!(http::send(more, request).await.expect("an answer").status, 413, "the new limit is in force");

    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    apply(&gateway, &with(&[WEB, &format!("{{ name: more, bind: \"{free}\" }}")])).await;
    assert_eq!(
        (gateway.listener("more").await.expect("moved"), said(free, "app.test").await),
        (free, "yes".into())
    );
    refuses(more).await;

    apply(&gateway, &with(&[WEB])).await;
    refuses(free).await;
    gateway.listener("more").await.expect_err("it is gone from the API");
    kept.send(get("/")).await;
    assert_eq!(
        kept.response(false).await.1,
        b"yes",
        "the connection of the first listener outlived all that"
    );
    assert_eq!(gateway.listener("web").await.expect("still there"), web);
}

async fn refuses(address: SocketAddr) {
    let refused = async || TcpStream::connect(address).await.is_err().then_some(());
    until(&format!("{address} to refuse"), PATIENCE, refused).await.expect("nobody listens there");
}

#[tokio::test]
async fn routes_come_change_and_go() {
    let (one, two) = (Endpoint::answering(ok("one")).await, Endpoint::answering(ok("two")).await);
    let fleet = [frps("e0", one.address), frps("e1", two.address)];
    let pools = ["{ name: p, frps: [e0] }", "{ name: q, frps: [e1] }"];
    let with = |routes: &[&str]| text(&[WEB], &fleet, &pools, routes);
    let at_a = "{ name: a, match: { host: a.test }, pool: p }";
    let gateway = start(&with(&[at_a])).await;
    let web = gateway.listener("web").await.expect("a listener");
    let class = async |host: &str| {
        let reply = http::get(web, host, "/").await.expect("an answer");
        reply.header("x-frp-gateway").map_or(reply.text(), str::to_owned)
    };
    assert_eq!((class("a.test").await, class("b.test").await), ("one".into(), "no_route".into()));
    apply(&gateway, &with(&[at_a, "{ name: b, match: { host: b.test }, pool: q }"])).await;
    assert_eq!((class("a.test").await, class("b.test").await), ("one".into(), "two".into()), "added");
    apply(&gateway, &with(&["{ name: a, match: { host: a.test }, pool: q }"])).await;
    assert_eq!(
        (class("a.test").await, class("b.test").await),
        ("two".into(), "no_route".into()),
        "changed, removed"
    );
}

#[tokio::test]
async fn frps_and_pools_come_change_and_go() {
    let [one, two, three] = [
        Endpoint::answering(ok("one")).await,
        Endpoint::answering(ok("two")).await,
        Endpoint::answering(ok("three")).await,
    ];
    let gateway = start(&text(&[WEB], &[frps("e0", one.address)], &[POOL], &[ROUTE])).await;
    let web = gateway.listener("web").await.expect("a listener");
    let answers = async || {
        let mut answers = Vec::new();
        for _ in 0..8 {
            answers.push(said(web, "app.test").await);
        }
        answers.sort();
        answers.dedup();
        answers
    };
    assert_eq!(answers().await, ["one"]);
    let with = |second: SocketAddr, pools: &[&str], route| {
        text(&[WEB], &[frps("e0", one.address), frps("e1", second)], pools, &[route])
    };
    apply(&gateway, &with(two.address, &[POOL], ROUTE)).await;
    assert_eq!(answers().await, ["one", "two"], "an frps was added");
    apply(&gateway, &with(three.address, &[POOL], ROUTE)).await;
    assert_eq!(answers().await, ["one", "three"], "its port was changed");
    let weightless = ["{ name: p, frps: [{ name: e0, weight: 0 }, e1], balance: random }"];
    apply(&gateway, &with(three.address, &weightless, ROUTE)).await;
    assert_eq!(answers().await, ["three"], "weight and policy were changed");
    let pools = [POOL, "{ name: q, frps: [e0] }"];
    apply(&gateway, &with(three.address, &pools, "{ name: r, pool: q }")).await;
    assert_eq!(answers().await, ["one"], "a pool was added and takes the route");
    apply(&gateway, &text(&[WEB], &[frps("e1", three.address)], &[POOL], &[ROUTE])).await;
    assert_eq!(answers().await, ["three"], "pool and frps were removed");
    let metrics = gateway.get("/metrics").await.expect("metrics").text();
    assert!(!metrics.contains("endpoint=\"e0\""), "series of what is gone are gone:\n{metrics}");
}

#[tokio::test]
async fn a_reload_that_needs_a_taken_port_is_refused_as_a_whole_and_names_the_listener() {
    let (one, two) = (Endpoint::answering(ok("one")).await, Endpoint::answering(ok("two")).await);
    let fleet = [frps("e0", one.address), frps("e1", two.address)];
    let pools = ["{ name: p, frps: [e0] }", "{ name: q, frps: [e1] }"];
    let gateway = start(&text(&[WEB], &fleet, &pools, &["{ name: r, pool: p }"])).await;
    let web = gateway.listener("web").await.expect("a listener");
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let busy = format!("{{ name: busy, bind: \"{}\" }}", taken.local_addr().expect("bound"));
    let wanted = text(
        &[WEB, "{ name: fresh, bind: \"127.0.0.1:0\" }", &busy],
        &fleet,
        &pools,
        &["{ name: r, pool: q }"],
    );
    gateway.edit(&wanted).expect("written");
    let (code, refused) = reload(&gateway).await;
    assert_eq!(code, 422, "{refused}");
    let why = refused["diagnostics"].to_string();
    assert!(why.contains("\\\"busy\\\"") && why.contains("listeners[2].bind"), "{why}");
    logs(&gateway, "listener \"busy\" cannot listen on").await;
    assert_eq!(said(web, "app.test").await, "one", "nothing of it is in force");
    let listeners = gateway.api("/api/v1/listeners").await.expect("the API answers");
    assert_eq!(listeners.as_array().map(Vec::len), Some(1), "{listeners}");
    drop(taken);
    let (code, said_now) = reload(&gateway).await;
    assert_eq!((code, &said_now["result"]), (200, &"changed".into()), "{said_now}");
    assert_eq!(said(gateway.listener("busy").await.expect("now it is there"), "app.test").await, "two");
    assert_eq!(said(gateway.listener("fresh").await.expect("this one, too"), "app.test").await, "two");
}

/// The n-th configuration of the storm. Neighbours always differ.
fn storm_text(n: usize, apps: &[DemoApp; 3]) -> String {
    let mut listeners =
        vec![format!("{{ name: web, bind: \"127.0.0.1:0\", timeouts: {{ header: {}s }} }}", 10 + n % 7)];
    if n % 2 == 1 {
        listeners.push("{ name: extra, bind: \"127.0.0.1:0\" }".into());
    }
    let mut fleet = vec![frps("e0", apps[0].addr()), frps("e1", apps[1].addr())];
    if n.is_multiple_of(3) {
        fleet.push(frps("e2", apps[2].addr())); // comes and goes, with requests and WebSockets on it
    }
    let balance = ["round_robin", "least_request", "random"][n / 4 % 3];
    let health = if n % 6 == 2 { ", health: { tcp: {}, interval: 100ms }" } else { "" };
    let mut pools =
        vec![format!("{{ name: p, frps: all, balance: {balance}, keepalive: {}s{health} }}", 30 + n % 5)];
    let mut routes = vec!["{ name: r, match: { host: app.test }, pool: p }".to_owned()];
    if n % 4 == 1 {
        pools.push(format!("{{ name: q, frps: [{{ name: e0, weight: {} }}] }}", 1 + n % 9));
        routes.push("{ name: s, match: { host: other.test }, pools: [p, q] }".into());
    }
    let as_str =
        |list: &[String]| list.iter().map(String::as_str).map(str::to_owned).collect::<Vec<_>>().join(", ");
    format!(
        "runtime: {{ workers: 2 }}\nlisteners: [{}]\nfrps: [{}]\npools: [{}]\nroutes: [{}]\n",
        as_str(&listeners),
        as_str(&fleet),
        as_str(&pools),
        as_str(&routes)
    )
}

/// Speaks on one WebSocket until told to stop; how often it was answered, or what broke.
async fn chat(address: SocketAddr, ended: Arc<AtomicBool>) -> Result<usize, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut socket, _) =
        client_async("ws://app.test/ws", stream).await.map_err(|error| error.to_string())?;
    let mut pace = interval(Duration::from_millis(100));
    let mut count = 0;
    while !ended.load(SeqCst) {
        pace.tick().await;
        let message = Message::text(format!("message {count}"));
        socket.send(message.clone()).await.map_err(|error| format!("after {count}: {error}"))?;
        match timeout(PATIENCE, socket.next()).await {
            Ok(Some(Ok(echo))) if echo == message => count += 1,
            other => return Err(format!("after {count}: {other:?}")),
        }
    }
    Ok(count)
}

/// One upload, a thousand bytes every 50 ms until told to stop; what the application got of how much.
async fn slow_upload(address: SocketAddr, ended: Arc<AtomicBool>) -> (Value, Vec<u8>) {
    let mut wire = Wire::connect(address).await;
    wire.send("POST /echo HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut pace = interval(Duration::from_millis(50));
    let mut sent = Vec::new();
    while !ended.load(SeqCst) {
        pace.tick().await;
        let block = vec![sent.len().to_le_bytes()[1]; 1000];
        wire.send([b"3e8\r\n", &block[..], b"\r\n"].concat()).await;
        sent.extend(block);
    }
    wire.send("0\r\n\r\n").await;
    let (head, body) = wire.response(false).await;
    assert_eq!(status(&head), 200, "{head}");
    assert!(field(&head, "x-app").is_some(), "{head}");
    (serde_json::from_slice(&body).expect("JSON"), sent)
}

/// By the system's own account.
fn resident_mib(gateway: &Gateway) -> f64 {
    let text = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a number");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib / 1024.0
}

#[tokio::test]
async fn a_storm_of_reloads_costs_no_request_no_connection_and_no_memory() {
    let long = env::var_os("FRP_GATEWAY_LONG_TESTS").is_some_and(|value| value == "1");
    let (reloads, limit) = if long { (500, Duration::from_secs(60)) } else { (150, Duration::from_secs(20)) };
    let apps = ["a", "b", "c"].map(|name| DemoApp::start(name).expect("an application"));
    apps.iter().for_each(|app| app.set_delay(Duration::from_millis(3)));
    let gateway = start(&storm_text(0, &apps)).await;
    let address = gateway.listener("web").await.expect("a listener");

    let ended = Arc::<AtomicBool>::default();
    let sockets: Vec<_> = (0..20).map(|_| tokio::spawn(chat(address, Arc::clone(&ended)))).collect();
    let upload = tokio::spawn(slow_upload(address, Arc::clone(&ended)));
    let upgraded = async || {
        let open = metric(&gateway, "frp_gateway_connections_upgraded", &["listener=\"web\""]).await;
        (open > 19.5).then_some(())
    };
    until("20 WebSockets to be open", PATIENCE, upgraded).await.expect("all are open");
    let load = Load::start(address, "app.test", "/", 8);
    load.more(100).await;

    let begun = Instant::now();
    let mut pace = interval(limit.mul_f64(0.9) / reloads);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut early, mut slowest) = (0.0, Duration::ZERO);
    for n in 1..=reloads {
        pace.tick().await;
        let asked = Instant::now();
        apply(&gateway, &storm_text(n as usize, &apps)).await;
        slowest = slowest.max(asked.elapsed());
        if n == 30 {
            early = resident_mib(&gateway);
        }
    }
    let took = begun.elapsed();
    load.more(50).await;
    let late = resident_mib(&gateway);
    let generation = generation(&gateway).await;
    let open = metric(&gateway, "frp_gateway_connections_upgraded", &["listener=\"web\""]).await;
    ended.store(true, SeqCst);
    let tally = load.stop().await;
    let mut messages = 0;
    for socket in sockets {
        messages +=
            socket.await.expect("no panic").unwrap_or_else(|broken| panic!("a WebSocket broke: {broken}"));
    }
    let (got, sent) = upload.await.expect("the upload is answered");
    eprintln!(
        "{reloads} reloads in {took:.1?} (slowest {slowest:.1?}): {} GETs {:?}, {} failed; {messages} WebSocket \
         messages, {open} of 20 open; upload of {} bytes; RSS {early:.1} MiB after 30, {late:.1} MiB at the end",
        tally.total(),
        tally.served,
        tally.failed.len(),
        sent.len()
    );
    assert!(tally.failed.is_empty(), "{} failed: {:?}", tally.failed.len(), tally.failed);
    assert_eq!(open.to_string(), "20", "WebSockets open at the end");
    assert_eq!(
        (&got["body_length"], &got["body_crc32"]),
        (&sent.len().into(), &crc32fast::hash(&sent).into()),
        "the slow upload arrived whole: {got}"
    );
    assert_eq!(generation, u64::from(reloads) + 1, "each reload took effect");
    assert!(took < limit, "{reloads} reloads took {took:?}");
    assert!(late - early < 8.0, "resident memory grew from {early:.1} to {late:.1} MiB");
}
