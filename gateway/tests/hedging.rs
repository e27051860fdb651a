//! A second attempt beside a slow one: one answer reaches the visitor, the other leaves nothing behind.

#[path = "common/apps.rs"]
mod apps;
mod common;

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    time::{Duration, Instant},
};

use apps::{App, POST, ask, ask_once, frps, metric, reply, setup, start, with_cookie};
use common::{Endpoint, Wire, eventually, get, ok};
use frp_gateway_loadtest::lab::Gateway;
use tokio::task::JoinSet;

/// As many second attempts as are wanted.
const FREELY: &str = "budget: { percent: 100%, floor: 1000 }";

fn members(all: &[&Endpoint]) -> Vec<String> {
    all.iter().zip(["e0", "e1", "e2"]).map(|(e, name)| frps(name, e.address, "")).collect()
}

/// A pool whose first attempts go to e0. (Workers begin their turns anywhere.)
const FIRST: &str = ", frps: [e0, { name: e1, priority: 1 }]";

/// A pool's `retry:` that begins a second attempt after this time.
fn after(time: &str, budget: &str) -> String {
    format!(", retry: {{ hedge: {{ after: {time}, {budget} }} }}")
}

async fn hedges(gateway: &Gateway) -> String {
    metric(gateway, "pool_hedges_total", &[]).await.to_string()
}

async fn nothing_in_flight(gateway: &Gateway) {
    eventually("nothing is in flight", async || {
        metric(gateway, "endpoint_in_flight", &[]).await.to_string() == "0"
    })
    .await;
}

/// Answers with its name after so many milliseconds; notes requests, and `"gone"` when its connection ends before.
async fn after_ms(name: &'static str, milliseconds: u64) -> Endpoint {
    Endpoint::scripted(move |mut wire, _, notes| async move {
        while let Some(request) = wire.request().await {
            notes.add(request);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(milliseconds)) => {}
                _ = wire.is_ended() => {
                    notes.add("gone");
                    return;
                }
            }
            if !wire.try_send(ok(name)).await {
                return;
            }
        }
    })
    .await
}

/// Its connections end without an answer after so many milliseconds.
async fn breaking_after_ms(milliseconds: u64) -> Endpoint {
    Endpoint::scripted(move |mut wire, _, notes| async move {
        let Some(request) = wire.request().await else { return };
        notes.add(request);
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    })
    .await
}

#[tokio::test]
async fn a_slow_endpoint_is_overtaken_and_let_go() {
    let (slow, fast) = (after_ms("slow", 9000).await, after_ms("fast", 0).await);
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let rest = format!("access_log: {{ output: {} }}\n", log.display());
    let text = setup(1, &members(&[&slow, &fast]), "", &format!("{FIRST}{}", after("50ms", FREELY)), &rest);
    let (gateway, address) = start(&text).await;
    let begun = Instant::now();
    let answer = ask_once(address, &get("/")).await;
    let took = begun.elapsed();
    assert_eq!((answer.status, answer.body.as_str()), (200, "fast"));
    assert!(took >= Duration::from_millis(45) && took < Duration::from_secs(5), "{took:?}");
    eventually("the slow one is let go", async || slow.seen().len() == 2).await;
    assert_eq!(slow.seen()[1], "gone");
    nothing_in_flight(&gateway).await;
    assert_eq!(hedges(&gateway).await, "1");
    assert_eq!(metric(&gateway, "pool_picks_total", &[r#"reason="hedge""#]).await.to_string(), "1");
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("the access log is written", async || lines().contains('\n')).await;
    let line: serde_json::Value = serde_json::from_str(&lines()).expect("a line of JSON");
    assert_eq!((&line["pick"], &line["endpoint"]), (&"hedge".into(), &"e1".into()), "{line}");
    assert_eq!((&line["attempts"], &line["status"]), (&2.into(), &200.into()), "{line}");
}

#[tokio::test]
async fn what_may_not_be_repeated_has_no_second_attempt() {
    let all = [after_ms("a", 300).await, after_ms("b", 300).await];
    let (gateway, address) =
        start(&setup(1, &members(&[&all[0], &all[1]]), "", &after("20ms", FREELY), "")).await;
    for n in 1..=3 {
        assert_eq!(ask_once(address, POST).await.status, 200);
        assert_eq!(all[0].seen().len() + all[1].seen().len(), n, "one request each");
    }
    assert_eq!(hedges(&gateway).await, "0");
}

#[tokio::test]
async fn a_put_whose_body_is_at_hand_has_one_with_the_whole_body() {
    let (slow, fast) = (after_ms("slow", 9000).await, after_ms("fast", 0).await);
    let (_gateway, address) =
        start(&setup(1, &members(&[&slow, &fast]), "", &format!("{FIRST}{}", after("50ms", FREELY)), ""))
            .await;
    let put = "PUT /thing HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(ask_once(address, put).await.body, "fast");
    assert!(fast.seen()[0].ends_with("\r\n\r\nbody"), "{}", fast.seen()[0]);
}

#[tokio::test]
async fn the_budget_bounds_second_attempts() {
    for (budget, most) in
        [("budget: { percent: 0%, floor: 0 }", 0.0), ("budget: { percent: 10%, floor: 0 }", 10.0)]
    {
        let all = [after_ms("a", 12).await, after_ms("b", 12).await];
        let text = setup(1, &members(&[&all[0], &all[1]]), "", &after("2ms", budget), "");
        let (gateway, address) = start(&text).await;
        let mut visitor = Wire::connect(address).await;
        for _ in 0..100 {
            assert_eq!(ask(&mut visitor, &get("/")).await.status, 200);
        }
        let made = metric(&gateway, "pool_hedges_total", &[]).await;
        assert!(made <= most && made >= most / 2.0, "{budget}: {made}");
        nothing_in_flight(&gateway).await;
    }
}

#[tokio::test]
async fn when_both_answer_the_visitor_gets_one_answer_and_the_next_is_right() {
    // Both take about as long: either may win.
    let all = [after_ms("a", 60).await, after_ms("b", 10).await];
    let (gateway, address) =
        start(&setup(1, &members(&[&all[0], &all[1]]), "", &after("50ms", FREELY), "")).await;
    let mut visitor = Wire::connect(address).await;
    for n in 0..20 {
        let answer = ask(&mut visitor, &get("/")).await;
        assert_eq!(answer.status, 200, "request {n}: {}", answer.head);
        assert!(matches!(answer.body.as_str(), "a" | "b"), "request {n}: {}", answer.body);
    }
    visitor.send("GET /last HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").await;
    let all = visitor.all().await;
    assert_eq!(all.matches("HTTP/1.1 200").count(), 1, "{all}");
    nothing_in_flight(&gateway).await;
}

/// The body that belongs to a request: as long as its token says, up to 200 kB.
fn body_of(token: &str) -> String {
    let chance = chance(token, "size");
    let size = if chance.is_multiple_of(3) { chance % 200_000 } else { chance % 2000 };
    token.repeat(usize::try_from(size).expect("small") / token.len() + 1)
}

fn chance(token: &str, what: &str) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one((token, what))
}

/// Answers with [`body_of`] the path, in parts and with pauses that token and name decide.
async fn erratic(name: &'static str) -> Endpoint {
    Endpoint::scripted(move |mut wire, _, _| async move {
        while let Some(request) = wire.request().await {
            let token = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
            let chance = chance(&token, name);
            let answer = ok(&body_of(&token)).into_bytes();
            let cut = usize::try_from(chance % 97).expect("small").min(answer.len());
            tokio::time::sleep(Duration::from_micros(chance / 97 % 8000)).await;
            // Some cut in the middle of the head, some behind it.
            if !wire.try_send(&answer[..cut]).await {
                return;
            }
            if chance.is_multiple_of(2) {
                tokio::time::sleep(Duration::from_micros(chance / 1024 % 4000)).await;
            }
            if !wire.try_send(&answer[cut..]).await {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn five_hundred_interleavings_never_mix_answers() {
    let all = [erratic("a").await, erratic("b").await, erratic("c").await];
    let text = setup(2, &members(&[&all[0], &all[1], &all[2]]), "", &after("2ms", FREELY), "");
    let (gateway, address) = start(&text).await;
    let mut visitors = JoinSet::new();
    for v in 0..10 {
        visitors.spawn(async move {
            let mut visitor = Wire::connect(address).await;
            for round in 0..10 {
                let tokens: Vec<_> = (0..5).map(|n| format!("v{v}r{round}n{n}.")).collect();
                // All five at once: answers come in order, each to its request.
                visitor.send(tokens.iter().map(|token| get(&format!("/{token}"))).collect::<String>()).await;
                for token in &tokens {
                    let answer = reply(&mut visitor, false).await;
                    assert_eq!(answer.status, 200, "{token}: {}", answer.head);
                    let (got, want) = (answer.body, body_of(token));
                    let start = &got[..got.len().min(30)];
                    assert!(
                        got == want,
                        "{token} got {} bytes that begin {start:?}, not {}",
                        got.len(),
                        want.len()
                    );
                }
            }
        });
    }
    visitors.join_all().await;
    let made = metric(&gateway, "pool_hedges_total", &[]).await;
    assert!(made >= 100.0, "the test tests nothing: {made} second attempts");
    nothing_in_flight(&gateway).await;
}

#[tokio::test]
async fn when_the_first_breaks_the_second_serves() {
    let (first, second) = (breaking_after_ms(150).await, after_ms("second", 400).await);
    let retry = "retry: { attempts: 1, hedge: { after: 50ms }, budget: { percent: 0%, floor: 0 } }";
    let pool = &format!("{FIRST}, {retry}");
    let (gateway, address) = start(&setup(1, &members(&[&first, &second]), "", pool, "")).await;
    let answer = ask_once(address, &get("/")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "second"), "{}", answer.head);
    assert_eq!((first.seen().len(), second.seen().len()), (1, 1), "each was asked once");
    nothing_in_flight(&gateway).await;
}

#[tokio::test]
async fn when_the_first_turns_out_to_lack_the_tunnel_the_second_serves() {
    const MARK: &str = "no such tunnel here";
    let page = format!(
        "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{MARK}",
        MARK.len()
    );
    let first = App::answering("first", move |_| {
        let page = page.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(150)).await;
            page
        }
    })
    .await;
    let second = after_ms("second", 400).await;
    let marked = format!(", not_found_marker: \"{MARK}\"");
    let frps = [frps("e0", first.address, &marked), frps("e1", second.address, &marked)];
    let (gateway, address) =
        start(&setup(1, &frps, "", &format!("{FIRST}{}", after("50ms", FREELY)), "")).await;
    let answer = ask_once(address, &get("/")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "second"), "{}", answer.head);
    assert_eq!((first.seen().len(), second.seen().len()), (1, 1), "each was asked once");
    assert_eq!(metric(&gateway, "endpoint_absent_total", &[]).await.to_string(), "1");
    nothing_in_flight(&gateway).await;
}

#[tokio::test]
async fn when_the_second_breaks_the_first_still_serves() {
    let (first, second) = (after_ms("first", 400).await, breaking_after_ms(0).await);
    let (gateway, address) =
        start(&setup(1, &members(&[&first, &second]), "", &format!("{FIRST}{}", after("50ms", FREELY)), ""))
            .await;
    let answer = ask_once(address, &get("/")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "first"), "{}", answer.head);
    assert_eq!((first.seen().len(), second.seen().len()), (1, 1), "each was asked once");
    nothing_in_flight(&gateway).await;
}

#[tokio::test]
async fn when_both_break_the_visitor_is_told_whose_fault_it_was() {
    let all = [breaking_after_ms(200).await, breaking_after_ms(200).await];
    let (gateway, address) =
        start(&setup(1, &members(&[&all[0], &all[1]]), "", &after("50ms", FREELY), "")).await;
    let answer = ask_once(address, &get("/")).await;
    assert_eq!((answer.status, answer.class()), (502, "upstream_broken"), "{}", answer.head);
    nothing_in_flight(&gateway).await;
}

#[tokio::test]
async fn a_request_bound_to_a_session_stays_alone() {
    let all = [after_ms("a", 300).await, after_ms("b", 300).await];
    let cookie = "affinity: { cookie: { key: 0123456789abcdef0123456789abcdef } }";
    let pool = format!(", {cookie}{}", after("20ms", FREELY));
    let (gateway, address) = start(&setup(1, &members(&[&all[0], &all[1]]), "", &pool, "")).await;
    let first = ask_once(address, &get("/")).await;
    let before = hedges(&gateway).await;
    assert_eq!(before, "1", "who has no session yet is hedged");
    let session = first.session().expect("a cookie");
    for n in 0..3 {
        let answer = ask_once(address, &with_cookie(&session)).await;
        assert_eq!((&answer.body, answer.session()), (&first.body, None), "request {n}");
    }
    assert_eq!(hedges(&gateway).await, before);
}

#[tokio::test]
async fn a_second_attempt_ends_with_the_first_bytes_for_the_visitor() {
    let first = Endpoint::scripted(|mut wire, _, _| async move {
        wire.request().await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
        // The other half never comes.
        wire.all().await;
    })
    .await;
    let second = after_ms("second", 60_000).await;
    let (gateway, address) =
        start(&setup(1, &members(&[&first, &second]), "", &format!("{FIRST}{}", after("50ms", FREELY)), ""))
            .await;
    let mut visitor = Wire::connect(address).await;
    visitor.send(get("/")).await;
    assert!(visitor.head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(visitor.bytes(4).await, b"half");
    eventually("the second one is let go", async || second.seen().len() == 2).await;
    assert_eq!(second.seen()[1], "gone");
    let at =
        async |name: &str| metric(&gateway, "endpoint_in_flight", &[&format!("endpoint=\"{name}\"")]).await;
    assert_eq!((at("e0").await.to_string(), at("e1").await.to_string()), ("1".into(), "0".into()));
    visitor.reset();
    nothing_in_flight(&gateway).await;
}

#[tokio::test]
async fn a_visitor_who_leaves_takes_both_attempts_along() {
    for first in [after_ms("first", 60_000).await, breaking_after_ms(150).await] {
        let second = after_ms("second", 60_000).await;
        let text =
            setup(1, &members(&[&first, &second]), "", &format!("{FIRST}{}", after("50ms", FREELY)), "");
        let (gateway, address) = start(&text.replace("timeout: 30s", "timeout: off")).await;
        let mut visitor = Wire::connect(address).await;
        visitor.send(get("/")).await;
        eventually("both are asked", async || !second.seen().is_empty() && !first.seen().is_empty()).await;
        tokio::time::sleep(Duration::from_millis(250)).await; // the first one of the second round breaks meanwhile
        visitor.reset();
        nothing_in_flight(&gateway).await;
        assert_eq!(second.seen().last().map(String::as_str), Some("gone"));
    }
}

#[tokio::test]
async fn with_one_member_there_is_no_second_attempt() {
    let lone = after_ms("lone", 200).await;
    let (gateway, address) = start(&setup(1, &members(&[&lone]), "", &after("20ms", FREELY), "")).await;
    assert_eq!(ask_once(address, &get("/")).await.body, "lone");
    assert_eq!((lone.seen().len(), hedges(&gateway).await.as_str()), (1, "0"));
}

#[tokio::test]
async fn a_second_attempt_respects_the_limits() {
    let (slow, other) = (after_ms("slow", 400).await, after_ms("other", 400).await);
    let pool = format!(", limits: {{ in_flight: 1 }}{}", after("50ms", FREELY));
    let (gateway, address) = start(&setup(1, &members(&[&slow, &other]), "", &pool, "")).await;
    // One member is busy with a request that has no second attempt; the other's has nowhere to go.
    let (mut one, mut two) = (Wire::connect(address).await, Wire::connect(address).await);
    one.send(POST).await;
    eventually("the first is busy", async || slow.seen().len() + other.seen().len() == 1).await;
    two.send(get("/")).await;
    assert_eq!(reply(&mut one, false).await.status, 200);
    assert_eq!(reply(&mut two, false).await.status, 200);
    assert_eq!(hedges(&gateway).await, "0");
    nothing_in_flight(&gateway).await;
}
