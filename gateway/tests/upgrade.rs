//! The gateway replaces itself, and no visitor notices: nobody is refused, reset or left without an answer. What can't
//! be upgraded to changes nothing.

#![expect(clippy::unwrap_used, reason = "helpers of tests are outside of them")]

mod common;
#[path = "common/generations.rs"]
mod generations;
#[path = "common/takeover.rs"]
mod takeover;
#[path = "common/visitors.rs"]
mod visitors;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use common::{Endpoint, Wire, get, ok, status};
use frp_gateway_loadtest::{
    http,
    lab::{Gateway, GatewayOptions, Proxy, Relay, Weather, until},
};
use generations::{Successors, runs, signal, started};
use rustix::process::Signal;
use serde_json::Value;
use takeover::{World, app};
use tokio::process::Command;
use visitors::{SOON, Visitors};

const BINARY: &str = env!("CARGO_BIN_EXE_frp-gateway");

async fn waits_for(what: &str, gateway: &Gateway, mut condition: impl AsyncFnMut() -> bool) {
    let reached = until(what, SOON, async || condition().await.then_some(())).await;
    assert!(reached.is_ok(), "never happened: {what}\n{}", gateway.log());
}

/// How often `text` has been logged, by all generations.
fn logged(gateway: &Gateway, text: &str) -> usize {
    gateway.log().matches(text).count()
}

/// `frp-gateway upgrade`, against the gateway's admin port: exit code, what it prints, what it complains about.
async fn upgrade(gateway: &Gateway) -> (Option<i32>, String, String) {
    let admin = format!("http://{}", gateway.admin());
    let output = Command::new(BINARY).args(["upgrade", "--admin", &admin]).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Upgrades; the new process's id.
async fn upgraded(gateway: &Gateway, all: &mut Successors) -> u32 {
    let (code, said, wrong) = upgrade(gateway).await;
    let new = started(gateway);
    all.0.clone_from(&new);
    assert_eq!(code, Some(0), "{said}{wrong}\n{}", gateway.log());
    let new = *new.last().unwrap();
    assert!(said.starts_with(&format!("upgraded: process {new} serves, ")), "{said}");
    new
}

fn config(endpoint: &Endpoint, runtime: &str, listeners: &str) -> String {
    format!(
        "runtime: {{ drain_timeout: 5s, {runtime} }}\n\
         frps: [ {{ name: e0, host: 127.0.0.1, vhost_http_port: {} }} ]\n\
         listeners: [ {listeners} ]\n",
        endpoint.address.port()
    )
}

const WEB: &str = "{ name: web, bind: \"127.0.0.1:0\" }";

async fn start(yaml: &str) -> (Gateway, SocketAddr) {
    started_with(GatewayOptions::new(BINARY, yaml)).await
}

async fn started_with(options: GatewayOptions) -> (Gateway, SocketAddr) {
    let gateway = Gateway::start_with(options).await.expect("the gateway starts");
    let web = gateway.listener("web").await.expect("a listener");
    (gateway, web)
}

/// A copy of the program that a test may do anything with.
fn copy(folder: &Path) -> PathBuf {
    let path = folder.join("frp-gateway");
    fs::copy(BINARY, &path).unwrap();
    path
}

/// Puts a script where the program was, by rename.
fn replace(program: &Path, script: &str) {
    let new = program.with_extension("new");
    fs::write(&new, script).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, program).unwrap();
}

#[tokio::test]
async fn two_sigusr2_in_a_row_fail_no_request_and_refuse_no_connection() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let (mut gateway, web) = start(&config(&endpoint, "workers: 2", WEB)).await;
    let mut all = Successors::default();
    let visitors = Visitors::start(web, "app.test", 8, 8);
    visitors.more(500).await;
    let mut serving = gateway.pid();
    for generation in 1..=2 {
        assert!(signal(serving, Signal::USR2));
        waits_for("the new process to serve", &gateway, async || {
            all.0 = started(&gateway);
            logged(&gateway, "this process serves now") == generation
        })
        .await;
        serving = *all.0.last().unwrap();
        visitors.more(500).await;
    }
    let exit = gateway.wait_exit(SOON).await.expect("the first process ends");
    assert_eq!(exit.code(), Some(0), "{}", gateway.log());
    waits_for("the second process to end", &gateway, async || !runs(all.0[0])).await;
    visitors.more(500).await;
    let tally = visitors.stop().await;
    assert_eq!(tally.failed, Vec::<String>::new(), "{tally:?}\n{}", gateway.log());
    assert!(runs(serving) && all.0.len() == 2, "{:?}", all.0);
    println!("{tally:?}");
    // The last one is an ordinary gateway.
    assert!(signal(serving, Signal::TERM));
    waits_for("the third process to end", &gateway, async || !runs(serving)).await;
    assert_eq!(logged(&gateway, "drain timed out"), 0, "{}", gateway.log());
}

#[tokio::test]
async fn the_program_now_found_at_the_path_is_started_and_the_command_says_which_process_serves() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let folder = tempfile::tempdir().unwrap();
    let program = copy(folder.path());
    let (mut gateway, web) =
        started_with(GatewayOptions::new(&program, &config(&endpoint, "workers: 1", WEB))).await;
    let mut all = Successors::default();
    // Another one that says so, and is the gateway.
    replace(&program, &format!("#!/bin/sh\necho the replaced program starts >&2\nexec {BINARY} \"$@\"\n"));
    let new = upgraded(&gateway, &mut all).await;
    assert_eq!(logged(&gateway, "the replaced program starts"), 1, "{}", gateway.log());
    assert_eq!(gateway.wait_exit(SOON).await.expect("the old process ends").code(), Some(0));
    let reply = http::get(web, "app.test", "/").await.expect("an answer");
    assert_eq!((reply.status, runs(new)), (200, true), "{}", gateway.log());
}

#[tokio::test]
async fn an_answer_under_way_is_streamed_to_its_end_by_the_old_process() {
    let endpoint = Endpoint::scripted(|mut wire, _, notes| async move {
        while let Some(request) = wire.request().await {
            if !request.starts_with("GET /slow") {
                wire.try_send(ok("quick")).await;
                continue;
            }
            wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf-").await;
            notes.add("half");
            while notes.count() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            wire.try_send("there").await;
        }
    })
    .await;
    let (mut gateway, web) = start(&config(&endpoint, "workers: 1", WEB)).await;
    let mut all = Successors::default();
    let mut slow = Wire::connect(web).await;
    slow.send(get("/slow")).await;
    let head = slow.head().await;
    assert_eq!((status(&head), slow.bytes(5).await), (200, b"half-".to_vec()));
    upgraded(&gateway, &mut all).await;
    assert_eq!(http::get(web, "app.test", "/").await.expect("an answer").text(), "quick");
    assert!(runs(gateway.pid()), "it has work to do");
    let mut go = Wire::connect(endpoint.address).await;
    go.send(get("/slow")).await; // the second note
    assert_eq!(slow.bytes(5).await, b"there");
    assert!(slow.is_ended().await, "an old process keeps no connection");
    assert_eq!(gateway.wait_exit(SOON).await.expect("it ends").code(), Some(0), "{}", gateway.log());
}

#[tokio::test]
async fn a_wrong_file_leaves_the_old_process_in_service_and_says_what_is_wrong() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let good = config(&endpoint, "workers: 2", WEB);
    let (gateway, web) = start(&good).await;
    let mut all = Successors::default();
    let visitors = Visitors::start(web, "app.test", 4, 4);
    visitors.more(200).await;
    gateway.edit(&good.replace("workers: 2", "workers: many")).unwrap();
    let (code, said, wrong) = upgrade(&gateway).await;
    all.0 = started(&gateway);
    assert_eq!((code, &*said), (Some(1), ""), "{wrong}");
    assert!(wrong.contains("not upgraded") && wrong.contains("runtime.workers"), "{wrong}");
    // What is only wrong once it takes effect: an address that somebody else has.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let second = format!("{WEB}, {{ name: more, bind: \"{}\" }}", taken.local_addr().unwrap());
    gateway.edit(&good.replace(WEB, &second)).unwrap();
    let (code, _, wrong) = upgrade(&gateway).await;
    all.0 = started(&gateway);
    assert_eq!(code, Some(1), "{wrong}");
    assert!(wrong.contains("listeners[1].bind"), "{wrong}");
    for &pid in &all.0 {
        waits_for("the new process to end", &gateway, async || !runs(pid)).await;
    }
    visitors.more(200).await;
    gateway.edit(&good).unwrap();
    upgraded(&gateway, &mut all).await;
    visitors.more(200).await;
    let tally = visitors.stop().await;
    assert_eq!(tally.failed, Vec::<String>::new(), "{}", gateway.log());
    assert_eq!(all.0.len(), 3, "{:?}", all.0);
}

#[tokio::test]
async fn a_program_that_is_missing_ends_hangs_or_knows_nothing_leaves_the_old_process_in_service() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let folder = tempfile::tempdir().unwrap();
    let program = copy(folder.path());
    let yaml = config(&endpoint, "workers: 1, upgrade_timeout: 1s", WEB);
    let (gateway, web) = started_with(GatewayOptions::new(&program, &yaml)).await;
    let mut all = Successors::default();
    let visitors = Visitors::start(web, "app.test", 2, 2);
    fs::remove_file(&program).unwrap();
    let (code, _, wrong) = upgrade(&gateway).await;
    assert_eq!(code, Some(1), "{wrong}");
    assert!(wrong.contains("cannot be started: No such file"), "{wrong}");
    for (script, why) in [
        ("#!/bin/sh\nexit 7\n", "exit status: 7"),
        ("#!/bin/sh\nexec sleep 600\n", "within 1s (runtime.upgrade_timeout)"),
        ("#!/bin/sh\nexec sleep 600 <&-\n", "within 1s (runtime.upgrade_timeout)"),
    ] {
        replace(&program, script);
        let (code, _, wrong) = upgrade(&gateway).await;
        all.0 = started(&gateway);
        assert_eq!(code, Some(1), "{script}: {wrong}");
        assert!(wrong.contains(why), "{script}: {wrong}");
        let pid = *all.0.last().unwrap();
        waits_for("the new process to end", &gateway, async || !runs(pid)).await;
    }
    visitors.more(100).await;
    let tally = visitors.stop().await;
    assert_eq!(tally.failed, Vec::<String>::new(), "{}", gateway.log());
    assert_eq!((all.0.len(), gateway.get("/readyz").await.unwrap().status), (3, 200));
}

#[tokio::test]
async fn there_is_one_upgrade_at_a_time_and_sigterm_ends_the_process_that_is_only_starting() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let folder = tempfile::tempdir().unwrap();
    let program = copy(folder.path());
    let (mut gateway, _) =
        started_with(GatewayOptions::new(&program, &config(&endpoint, "workers: 1", WEB))).await;
    replace(&program, "#!/bin/sh\nexec sleep 600\n");
    assert!(signal(gateway.pid(), Signal::USR2));
    let mut all = Successors::default();
    waits_for("the new process to start", &gateway, async || {
        all.0 = started(&gateway);
        all.0.len() == 1
    })
    .await;
    let (code, _, wrong) = upgrade(&gateway).await;
    assert_eq!(code, Some(1), "{wrong}");
    assert!(wrong.contains("an upgrade is under way already"), "{wrong}");
    gateway.sigterm();
    assert_eq!(gateway.wait_exit(SOON).await.expect("it ends").code(), Some(0), "{}", gateway.log());
    waits_for("the new process to end", &gateway, async || !runs(all.0[0])).await;
}

#[tokio::test]
async fn workers_and_listeners_may_change_with_an_upgrade() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let yaml = |workers: usize, more: &str| {
        let listeners = format!("{WEB}, {{ name: {more}, bind: \"127.0.0.1:0\" }}");
        config(&endpoint, &format!("workers: {workers}"), &listeners)
    };
    let (gateway, web) = start(&yaml(2, "first")).await;
    let first = gateway.listener("first").await.unwrap();
    let mut all = Successors::default();
    let visitors = Visitors::start(web, "app.test", 6, 6);
    visitors.more(200).await;
    // Only a process that starts reads `workers`; the listener is replaced by a reload or by the upgrade, whichever is first.
    for (workers, more) in [(4, "second"), (1, "third"), (3, "fourth")] {
        gateway.edit(&yaml(workers, more)).unwrap();
        upgraded(&gateway, &mut all).await;
        assert_eq!(gateway.listener("web").await.unwrap(), web);
        let added = gateway.listener(more).await.unwrap();
        assert_eq!(http::get(added, "app.test", "/").await.expect("an answer").status, 200);
        visitors.more(300).await;
    }
    waits_for("a removed listener to be closed", &gateway, async || {
        tokio::net::TcpStream::connect(first).await.is_err()
    })
    .await;
    let tally = visitors.stop().await;
    assert_eq!(tally.failed, Vec::<String>::new(), "{}", gateway.log());
}

#[tokio::test]
async fn tunnels_are_known_before_the_new_process_serves_and_frps_finds_its_plugin() {
    let mut world = World::start(&["a"], "tunnels: { serve: true }").await;
    let apps = [app("one"), app("two")];
    let _first = world.frpc(0, "u1", vec![Proxy::http("web", apps[0].addr(), &["one.test"])]).await;
    let mut all = Successors::default();
    let visitors = Visitors::start(world.web, "one.test", 4, 4);
    visitors.more(200).await;
    for _ in 0..2 {
        upgraded(world.gateway(), &mut all).await;
        visitors.more(200).await;
    }
    // The hook is answered by the new process: its frps kept connections to the old one.
    let begun = Instant::now();
    let _second = world.frpc(0, "u2", vec![Proxy::http("web", apps[1].addr(), &["two.test"])]).await;
    assert_eq!(world.get("two.test", "/").await.app(), Some("two"), "after {:?}", begun.elapsed());
    let tally = visitors.stop().await;
    assert_eq!(tally.failed, Vec::<String>::new(), "{}", world.gateway().log());
    let exit = world.gateway.as_mut().unwrap().wait_exit(SOON).await.expect("the first process ends");
    assert_eq!(exit.code(), Some(0));
}

#[tokio::test]
async fn tunnels_of_an_frps_whose_admin_api_is_silent_are_served_by_the_new_process_too() {
    let mut world = World::fleet(&["a"], "tunnels: { serve: true }", |options| options).await;
    let admin = world.frps[0].admin();
    let relay = Relay::start(admin).await.expect("a relay");
    world.instead = vec![
        (format!("http://{admin}"), format!("http://{}", relay.address())),
        ("password: lab }".into(), "password: lab, interval: 200ms }".into()),
    ];
    world.start_gateway().await;
    let app = app("one");
    let _frpc = world.frpc(0, "u1", vec![Proxy::http("web", app.addr(), &["one.test"])]).await;
    let mut all = Successors::default();
    // A whole listing after the tunnel came: what is known isn't in doubt.
    let listed = async || {
        let frps = world.gateway().api("/api/v1/frps").await.expect("the API answers");
        frps[0]["last_listing_at"].as_u64()
    };
    let before = listed().await;
    waits_for("a later listing", world.gateway(), async || listed().await > before).await;
    relay.turn(Weather::Refused);
    let visitors = Visitors::start(world.web, "one.test", 4, 4);
    visitors.more(200).await;
    for _ in 0..2 {
        upgraded(world.gateway(), &mut all).await;
        visitors.more(200).await;
    }
    let log = world.gateway().log();
    assert!(log.contains("frps does not list its tunnels, the last listing stays in use"), "{log}");
    relay.turn(Weather::Clear);
    world.until_logged("frps lists its tunnels frps=a tunnels=1").await;
    let tally = visitors.stop().await;
    assert_eq!(tally.failed, Vec::<String>::new(), "{}", world.gateway().log());
}

#[tokio::test]
async fn a_host_whose_tunnel_is_away_is_still_nobody_elses_for_the_new_process() {
    let world = World::start(&["a"], "tunnels: { serve: true }").await;
    let app = app("one");
    let mut frpc = world.frpc(0, "u1", vec![Proxy::http("web", app.addr(), &["one.test"])]).await;
    frpc.kill9();
    waits_for("the tunnel to be gone", world.gateway(), async || world.tunnels(0).await.is_empty()).await;
    let mut all = Successors::default();
    upgraded(world.gateway(), &mut all).await;
    let web = world.web;
    let waiting = tokio::spawn(async move { http::get(web, "one.test", "/").await });
    assert_eq!(world.get("other.test", "/").await.status, 404, "nobody ever had that one");
    let _frpc = world.frpc(0, "u1", vec![Proxy::http("web", app.addr(), &["one.test"])]).await;
    let reply = waiting.await.unwrap().expect("an answer");
    assert_eq!((reply.status, reply.app()), (200, Some("one")), "{}", world.gateway().log());
}

#[tokio::test]
async fn an_old_process_that_is_killed_in_the_midst_leaves_its_sockets_and_their_visitors_to_the_new_one() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let folder = tempfile::tempdir().unwrap();
    let program = copy(folder.path());
    let (mut gateway, web) =
        started_with(GatewayOptions::new(&program, &config(&endpoint, "workers: 2", WEB))).await;
    let go = folder.path().join("go");
    let waits = format!("while ! [ -e {} ]; do sleep 0.02; done", go.display());
    replace(&program, &format!("#!/bin/sh\n{waits}\nexec {BINARY} \"$@\"\n"));
    assert!(signal(gateway.pid(), Signal::USR2));
    let mut all = Successors::default();
    waits_for("the new process to start", &gateway, async || {
        all.0 = started(&gateway);
        all.0.len() == 1
    })
    .await;
    // What is sent over the channel is sent at once.
    tokio::time::sleep(Duration::from_millis(300)).await;
    gateway.kill9();
    let mut waiting = Wire::connect(web).await; // nobody accepts, nobody refuses
    waiting.send(get("/")).await;
    fs::write(&go, "").unwrap();
    assert_eq!(status(&waiting.head().await), 200, "{}", gateway.log());
    assert_eq!(logged(&gateway, "the old process is gone, going on without it"), 1, "{}", gateway.log());
}

#[tokio::test]
async fn an_frps_that_an_operator_empties_is_emptied_by_the_new_process_too() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let (gateway, _) = start(&config(&endpoint, "workers: 1", WEB)).await;
    let post = http::request("POST", "gateway", "/api/v1/frps/e0/drain").body(http::empty());
    assert_eq!(http::send(gateway.admin(), post).await.expect("an answer").status, 200);
    let mut all = Successors::default();
    for _ in 0..2 {
        upgraded(&gateway, &mut all).await;
        let told = gateway.api("/api/v1/drains").await.expect("the API answers");
        assert!(told["drains"]["e0"].is_object(), "{told}\n{}", gateway.log());
    }
}

#[tokio::test]
async fn an_upgrade_is_audited() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit.log");
    let program = copy(folder.path());
    let yaml = format!("{}audit: {}\n", config(&endpoint, "workers: 1", WEB), audit.display());
    let (gateway, _) = started_with(GatewayOptions::new(&program, &yaml)).await;
    let mut all = Successors::default();
    replace(&program, "#!/bin/sh\nexit 7\n");
    assert_eq!(upgrade(&gateway).await.0, Some(1));
    replace(&program, &format!("#!/bin/sh\nexec {BINARY} \"$@\"\n"));
    upgraded(&gateway, &mut all).await;
    let events = || -> Vec<String> {
        let text = fs::read_to_string(&audit).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.map(|line| line["event"].as_str().unwrap().to_owned()).collect()
    };
    let wanted = ["upgrade", "upgrade_failed", "upgrade", "upgraded"];
    waits_for("the lines", &gateway, async || {
        events().iter().filter(|event| event.starts_with("upgrade")).eq(wanted)
    })
    .await;
}
