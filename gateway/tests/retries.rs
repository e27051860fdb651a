//! What is asked for again elsewhere: whose answer the visitor sees in the end, how often, how soon, and who pays for it.

#[path = "common/apps.rs"]
mod apps;
mod common;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use apps::{App, POST, ask, ask_once, frps, metric, named, setup, shares, start};
use common::{Endpoint, Wire, get, ok};

/// An application's own 503, with its name as the body.
fn unwilling(name: &str, more: &str) -> String {
    format!("HTTP/1.1 503 Service Unavailable\r\n{more}Content-Length: {}\r\n\r\n{name}", name.len())
}

fn members(all: &[&Endpoint]) -> Vec<String> {
    all.iter().zip(["e0", "e1", "e2", "e3"]).map(|(e, name)| frps(name, e.address, "")).collect()
}

/// No retry waits, and no budget is short.
const FREELY: &str = "backoff: off, budget: { percent: 100%, floor: 1000 }";

#[tokio::test]
async fn a_member_that_answers_503_is_never_seen_where_others_serve() {
    let (bad, one, two) =
        (Endpoint::answering(unwilling("bad", "")).await, named("one").await, named("two").await);
    let pool = format!(", retry: {{ on: [503], {FREELY} }}");
    let (gateway, address) = start(&setup(1, &members(&[&bad, &one, &two]), "", &pool, "")).await;
    let mut visitor = Wire::connect(address).await;
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        for n in 0..6 {
            let request = format!("{method} / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n");
            let reply = ask(&mut visitor, &request).await;
            assert_eq!(reply.status, 200, "{method} {n}: {}", reply.head);
        }
    }
    let rejected = metric(&gateway, "pool_rejected_total", &[]).await;
    assert!((1.0..=bad.seen().len() as f64).contains(&rejected), "{rejected} of {}", bad.seen().len());
    assert_eq!(metric(&gateway, "pool_retries_total", &[]).await.to_string(), rejected.to_string());
}

#[tokio::test]
async fn an_answer_with_a_large_body_is_thrown_away_as_well() {
    let large = format!("HTTP/1.1 503 No\r\nContent-Length: 300000\r\n\r\n{}", "x".repeat(300_000));
    let (bad, good) = (Endpoint::answering(large).await, named("good").await);
    let pool = format!(", retry: {{ on: [503], {FREELY} }}");
    let (_gateway, address) = start(&setup(1, &members(&[&bad, &good]), "", &pool, "")).await;
    assert_eq!(shares(address, ["good"], 10).await, [10]);
}

#[tokio::test]
async fn a_post_gets_the_503_it_was_answered_and_is_sent_once() {
    let bad = [Endpoint::answering(unwilling("a", "")).await, Endpoint::answering(unwilling("b", "")).await];
    let pool = format!(", retry: {{ on: [503], {FREELY} }}");
    let (_gateway, address) = start(&setup(1, &members(&[&bad[0], &bad[1]]), "", &pool, "")).await;
    for n in 1..=6 {
        let reply = ask_once(address, POST).await;
        assert_eq!((reply.status, reply.class()), (503, ""), "POST {n}: {}", reply.head);
        assert_eq!(bad[0].seen().len() + bad[1].seen().len(), n, "one request each");
    }
}

#[tokio::test]
async fn when_all_answer_503_the_visitor_gets_an_applications_own() {
    let bad = [
        Endpoint::answering(unwilling("own-0", "")).await,
        Endpoint::answering(unwilling("own-1", "")).await,
        Endpoint::answering(unwilling("own-2", "")).await,
        Endpoint::answering(unwilling("own-3", "")).await,
    ];
    for (attempts, most) in [(2, 3), (10, 4)] {
        let pool = format!(", retry: {{ on: [503], attempts: {attempts}, {FREELY} }}");
        let before: usize = bad.iter().map(|endpoint| endpoint.seen().len()).sum();
        let members = members(&[&bad[0], &bad[1], &bad[2], &bad[3]]);
        let (_gateway, address) = start(&setup(1, &members, "", &pool, "")).await;
        let reply = ask_once(address, &get("/")).await;
        assert_eq!((reply.status, reply.class()), (503, ""), "{}", reply.head);
        assert!(reply.body.starts_with("own-"), "{}", reply.body);
        let after: usize = bad.iter().map(|endpoint| endpoint.seen().len()).sum();
        assert_eq!(after - before, most, "attempts: {attempts}: each member is asked once at most");
    }
}

#[tokio::test]
async fn a_member_that_fails_half_the_time_never_costs_more_than_the_budget() {
    const REQUESTS: usize = 2000;
    let fail = Arc::new(Mutex::new(false));
    let half = App::answering("half", move |_| {
        let mut fail = fail.lock().expect("not poisoned");
        *fail = !*fail;
        let answer = if *fail { unwilling("half", "") } else { ok("half") };
        async move { answer }
    })
    .await;
    let good = App::start("good").await;
    // The good one is small, so that failures are frequent: 45 % of all.
    let frps = [frps("e0", half.address, ", weight: 9"), frps("e1", good.address, ", weight: 1")];
    let pool = ", retry: { on: [503], backoff: off, budget: { percent: 20%, floor: 3 } }";
    let (gateway, address) = start(&setup(2, &frps, "", pool, "")).await;
    let begun = Instant::now();
    let (mut failed, mut visitors) = (0, tokio::task::JoinSet::new());
    for _ in 0..8 {
        visitors.spawn(async move {
            let (mut visitor, mut failed) = (Wire::connect(address).await, 0);
            for n in 0..REQUESTS / 8 {
                let reply = ask(&mut visitor, &get("/")).await;
                assert!(matches!(reply.status, 200 | 503), "request {n}: {}", reply.head);
                assert_eq!(
                    reply.class(),
                    "",
                    "request {n}: what isn't retried is the application's own answer"
                );
                failed += usize::from(reply.status == 503);
            }
            failed
        });
    }
    while let Some(ended) = visitors.join_next().await {
        failed += ended.expect("no panic");
    }
    let attempts = half.seen().len() + good.seen().len();
    // The floor: 3 a second over the ten seconds that the budget looks at, and over what the test took.
    let floor = 30.0 + 3.0 * begun.elapsed().as_secs_f64();
    let most = REQUESTS as f64 * 1.2 + floor;
    assert!(attempts as f64 <= most, "{attempts} attempts for {REQUESTS} requests, at most {most}");
    let retries = attempts - REQUESTS;
    assert!(retries >= REQUESTS / 6, "the budget is used: {retries} retries");
    let exhausted = metric(&gateway, "pool_retry_budget_exhausted_total", &[]).await;
    assert!(exhausted > 0.0 && failed > 0, "{exhausted} times exhausted, {failed} failures seen");
    assert!(
        (exhausted - failed as f64).abs() <= retries as f64,
        "{exhausted} times exhausted, {failed} seen"
    );
}

#[tokio::test]
async fn without_a_budget_every_answer_is_passed_on_and_counted() {
    let bad = [Endpoint::answering(unwilling("a", "")).await, Endpoint::answering(unwilling("b", "")).await];
    let pool = ", retry: { on: [503], budget: { percent: 0%, floor: 0 } }";
    let (gateway, address) = start(&setup(1, &members(&[&bad[0], &bad[1]]), "", pool, "")).await;
    let mut visitor = Wire::connect(address).await;
    for _ in 0..10 {
        assert_eq!(ask(&mut visitor, &get("/")).await.status, 503);
    }
    assert_eq!(bad[0].seen().len() + bad[1].seen().len(), 10);
    let exhausted = metric(&gateway, "pool_retry_budget_exhausted_total", &[]).await;
    assert_eq!(exhausted.to_string(), "10");
}

#[tokio::test]
async fn a_refused_connect_is_retried_without_drawing_on_anything() {
    let mut dead = App::start("dead").await;
    let live = App::start("live").await;
    let members = [frps("e0", dead.address, ""), frps("e1", live.address, "")];
    let pool = ", fail_timeout: 1ms, retry: { attempts: 0, budget: { percent: 0%, floor: 0 } }";
    let (gateway, address) = start(&setup(1, &members, "", pool, "")).await;
    dead.die().await;
    let mut visitor = Wire::connect(address).await;
    for n in 0..50 {
        for request in [&*get("/"), POST] {
            let reply = ask(&mut visitor, request).await;
            assert_eq!((reply.status, reply.body.as_str()), (200, "live"), "request {n}: {}", reply.head);
        }
    }
    let refused = metric(&gateway, "endpoint_failures_total", &[r#"endpoint="e0""#]).await;
    assert!(refused > 1.0, "{refused} refused connects were met");
    assert_eq!(metric(&gateway, "pool_retry_budget_exhausted_total", &[]).await.to_string(), "0");
}

/// An endpoint that answers 503 and notes when.
async fn timed(times: &Arc<Mutex<Vec<Instant>>>) -> Endpoint {
    let times = Arc::clone(times);
    Endpoint::scripted(move |mut wire, _, _| {
        let times = Arc::clone(&times);
        async move {
            while wire.request().await.is_some() {
                times.lock().expect("not poisoned").push(Instant::now());
                if !wire.try_send(unwilling("no", "")).await {
                    return;
                }
            }
        }
    })
    .await
}

/// Time between the first and the second attempt of each of ten requests.
async fn pauses(backoff: &str) -> Vec<Duration> {
    let times = Arc::default();
    let all = [timed(&times).await, timed(&times).await];
    let pool =
        format!(", retry: {{ on: [503], budget: {{ percent: 100%, floor: 1000 }}, backoff: {backoff} }}");
    let (_gateway, address) = start(&setup(1, &members(&[&all[0], &all[1]]), "", &pool, "")).await;
    let mut visitor = Wire::connect(address).await;
    for _ in 0..10 {
        assert_eq!(ask(&mut visitor, &get("/")).await.body, "no");
    }
    let times = times.lock().expect("not poisoned");
    assert_eq!(times.len(), 20, "two attempts for each request");
    times.chunks(2).map(|pair| pair[1].duration_since(pair[0])).collect()
}

#[tokio::test]
async fn a_retry_waits_by_chance_and_within_its_bound() {
    let pauses = pauses("{ base: 200ms, max: 200ms }").await;
    let whole: Duration = pauses.iter().sum();
    // Each is drawn between 0 and 200 ms: ten together are under 200 ms once in 10! (3.6 million) runs.
    assert!(whole >= Duration::from_millis(200), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause < Duration::from_secs(3)), "{pauses:?}");
    assert!(pauses.iter().min() < pauses.iter().max(), "{pauses:?}");
}

#[tokio::test]
async fn without_backoff_a_retry_follows_at_once() {
    let mut pauses = pauses("off").await;
    pauses.sort();
    assert!(pauses[5] < Duration::from_millis(50), "{pauses:?}");
}

#[tokio::test]
async fn retry_after_keeps_a_member_out_under_peak_ewma() {
    let busy = Endpoint::answering(unwilling("busy", "Retry-After: 60\r\n")).await;
    let (one, two) = (named("one").await, named("two").await);
    let pool = format!(", balance: peak_ewma, retry: {{ on: [503], {FREELY} }}");
    let (_gateway, address) = start(&setup(1, &members(&[&busy, &one, &two]), "", &pool, "")).await;
    let [first, second] = shares(address, ["one", "two"], 300).await;
    assert_eq!(first + second, 300);
    assert_eq!(busy.seen().len(), 1, "asked once, and then left alone for as long as it said");
}

#[tokio::test]
async fn an_attempt_without_an_answer_in_time_is_given_up_and_asked_elsewhere() {
    let slow = App::answering("slow", |_| async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        ok("slow")
    })
    .await;
    let good = App::start("good").await;
    let members = [frps("e0", slow.address, ""), frps("e1", good.address, "")];
    let pool = ", fail_timeout: 1m, retry: { per_try_timeout: 200ms }";
    let (gateway, address) = start(&setup(1, &members, "", pool, "")).await;
    let begun = Instant::now();
    assert_eq!(shares(address, ["good"], 20).await, [20]);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(slow.seen().len(), 1, "then it is left alone");
    let timeouts = [r#"endpoint="e0""#, r#"reason="response_timeout""#];
    assert_eq!(metric(&gateway, "endpoint_failures_total", &timeouts).await.to_string(), "1");
    assert_eq!(metric(&gateway, "endpoint_in_flight", &[]).await.to_string(), "0");
}

#[tokio::test]
async fn a_visitor_who_only_finished_sending_is_served_by_a_late_second_attempt() {
    let slow = App::answering("slow", |_| async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        ok("slow")
    })
    .await;
    let good = App::start("good").await;
    let members = [frps("e0", slow.address, ""), frps("e1", good.address, "")];
    let pool = ", retry: { per_try_timeout: 400ms }";
    let (_gateway, address) = start(&setup(1, &members, "", pool, "")).await;
    for n in 0..2 {
        let mut visitor = Wire::connect(address).await;
        visitor.send(get("/")).await;
        tokio::io::AsyncWriteExt::shutdown(&mut visitor.stream).await.expect("half-closed");
        assert_eq!(apps::reply(&mut visitor, false).await.body, "good", "visitor {n}");
    }
    assert_eq!(slow.seen().len(), 1);
}
