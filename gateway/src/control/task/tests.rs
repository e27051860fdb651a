//! The writer with its hands: real files, real sockets.

use std::net::TcpStream;

use super::*;
use crate::control::testing::{Rig, until, yaml};

fn address(rig: &Rig, listener: &str) -> SocketAddr {
    rig.handle.state().addresses[listener]
}

fn second(address: &str) -> String {
    yaml(&format!("  - {{ name: second, bind: \"{address}\", protocol: http }}\n"))
}

#[tokio::test]
async fn a_listener_is_added_and_removed_live() {
    let rig = Rig::start(&yaml("")).await;
    let web = address(&rig, "web");
    assert_eq!(rig.reload(&second("127.0.0.1:0")).await, ReloadResult::Changed { generation: 2 });
    let added = address(&rig, "second");
    assert_eq!(address(&rig, "web"), web, "port 0 is not drawn again");
    TcpStream::connect(web).unwrap();
    TcpStream::connect(added).unwrap();
    assert_eq!(rig.reload(&yaml("")).await, ReloadResult::Changed { generation: 3 });
    assert!(!rig.handle.state().addresses.contains_key("second"));
    TcpStream::connect(web).unwrap();
}

#[tokio::test]
async fn an_equal_file_changes_nothing() {
    let rig = Rig::start(&yaml("")).await;
    let before = rig.published.load_full();
    let commented = format!("{}# a comment\n", yaml(""));
    assert_eq!(rig.reload(&commented).await, ReloadResult::Unchanged { generation: 1 });
    assert!(Arc::ptr_eq(&before, &rig.published.load_full()), "not even a new snapshot");
}

#[tokio::test]
async fn a_taken_port_refuses_the_whole_reload_and_names_listener_and_key() {
    let rig = Rig::start(&yaml("")).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let before = rig.published.load_full();
    let text = second(&taken.local_addr().unwrap().to_string()).replace("shop.test", "other.test");
    let ReloadResult::Refused(faults) = rig.reload(&text).await else { panic!("it must be refused") };
    assert_eq!(faults.len(), 1, "{faults:?}");
    let told = &faults[0].text;
    assert!(told.contains("listeners[1].bind") && told.contains("\"second\""), "{told}");
    assert!(Arc::ptr_eq(&before, &rig.published.load_full()), "the old routes stay too");
    let state = rig.handle.state();
    assert_eq!((state.generation, state.reloads.failed), (1, 1));
    assert_eq!(state.reloads.faults, faults, "shown in the API");
    drop(taken);
    assert_eq!(rig.reload(&text).await, ReloadResult::Changed { generation: 2 });
}

#[tokio::test]
async fn a_wrong_file_leaves_the_old_state() {
    let rig = Rig::start(&yaml("")).await;
    let result = rig.reload("listeners: 7\n").await;
    assert!(matches!(&result, ReloadResult::Refused(faults) if !faults.is_empty()), "{result:?}");
    assert_eq!(rig.published.load().generation, 1);
    TcpStream::connect(address(&rig, "web")).unwrap();
}

#[tokio::test]
async fn a_renamed_listener_keeps_its_address() {
    let rig = Rig::start(&yaml("")).await;
    let port = second(&free_address().to_string());
    rig.reload(&port).await;
    let old = address(&rig, "second");
    assert_eq!(rig.reload(&port.replace("second", "renamed")).await, ReloadResult::Changed { generation: 3 });
    assert_eq!(address(&rig, "renamed"), old);
    TcpStream::connect(old).unwrap();
}

#[tokio::test]
async fn hundreds_of_reloads_leave_no_descriptor_behind() {
    let rig = Rig::start(&yaml("")).await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    for n in 0..20 {
        rig.reload(&yaml(&format!("  - {{ name: l{n}, bind: \"127.0.0.1:0\", protocol: http }}\n"))).await;
    }
    let before = descriptors();
    for n in 0..200 {
        rig.reload(&yaml(&format!("  - {{ name: m{n}, bind: \"127.0.0.1:0\", protocol: http }}\n"))).await;
    }
    // Other tests of this process open some, too; a leak would be 400.
    until("sockets are closed", || descriptors() < before + 200).await;
}

/// [`yaml`] with a second frps and these keys in the pool.
fn watched(keys: &str) -> String {
    let second = "vhost_http_port: 8001 }\n  - { name: b, host: 127.0.0.1, vhost_http_port: 8002 }";
    yaml("").replace("vhost_http_port: 8001 }", second).replace("frps: [a]", &format!("frps: [a, b], {keys}"))
}

fn member(rig: &Rig, at: usize) -> Arc<crate::snapshot::MemberState> {
    Arc::clone(&rig.published.load().pools[0].members[at].state)
}

fn break_it(rig: &Rig, at: usize) {
    let pool = Arc::clone(&rig.published.load().pools[0]);
    for _ in 0..3 {
        let worker = crate::telemetry::shard::WorkerId(0);
        let outcome = crate::snapshot::Outcome::GatewayError;
        pool.members[at].state.record(worker, outcome, Duration::ZERO, clock::now(), pool.latency_decay);
    }
    pool.bell.notify_one();
}

#[tokio::test]
async fn a_watch_ejects_and_neither_other_rules_nor_a_pause_of_a_line_readmit() {
    let rig = Rig::start(&watched("outlier: {}")).await;
    break_it(&rig, 1);
    let b = member(&rig, 1);
    until("b is ejected", || b.is_ejected(clock::now())).await;
    let ejected_until = b.ejected_until();
    rig.reload(&watched("outlier: { consecutive_failures: 9, window: 20s }")).await;
    assert!(Arc::ptr_eq(&member(&rig, 1), &b));
    assert_eq!(b.ejected_until(), ejected_until);
    rig.reload(&watched("outlier: {}").replace("frps: [a, b]", "frps: [a]")).await;
    rig.reload(&watched("outlier: {}")).await;
    assert!(Arc::ptr_eq(&member(&rig, 1), &b));
    assert_eq!(b.ejected_until(), ejected_until);
    rig.reload(&watched("retry: { attempts: 1 }")).await;
    assert!(!b.is_ejected(clock::now()), "no rules, no ejection");
}

#[tokio::test]
async fn an_ejected_member_whose_probes_succeed_is_back_long_before_its_time() {
    let app = axum::Router::new().route("/", axum::routing::get(async || "ready"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    let health = "health: { http: { host: app.test, body: ready }, interval: 20ms, timeout: 10s }";
    let text = watched(&format!("outlier: {{ base_ejection: 5m, max_ejection: 5m }}, {health}"))
        .replace("8001", &port.to_string());
    let rig = Rig::start(&text).await;
    break_it(&rig, 0);
    let a = member(&rig, 0);
    until("a was ejected", || a.ejections().any(|(_, count)| count == 1)).await;
    until("a is back", || !a.is_ejected(clock::now())).await;
    assert!(a.since().is_some(), "slowly");
    serving.abort();
}

#[tokio::test]
async fn a_refused_reload_readmits_nobody() {
    let rig = Rig::start(&watched("outlier: {}")).await;
    break_it(&rig, 0);
    let a = member(&rig, 0);
    until("a is ejected", || a.is_ejected(clock::now())).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let more = format!("  - {{ name: second, bind: \"{address}\", protocol: http }}\n");
    let refused = rig.reload(&(watched("retry: { attempts: 1 }") + &more)).await;
    assert!(matches!(refused, ReloadResult::Refused(_)), "{refused:?}");
    assert!(a.is_ejected(clock::now()), "the old rules are in force");
}

#[tokio::test]
async fn who_fails_while_there_are_no_rules_is_out_as_soon_as_there_are() {
    let rig = Rig::start(&watched("outlier: {}")).await;
    rig.reload(&watched("retry: { attempts: 1 }")).await;
    break_it(&rig, 1);
    rig.reload(&watched("outlier: {}")).await;
    until("b is ejected", || member(&rig, 1).is_ejected(clock::now())).await;
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
