//! gRPC to tunnels whose frpc says `gw_protocol: h2c`, end to end by takeover. Real frps and frpc; needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/grpc.rs"]
mod grpc;
#[path = "common/takeover.rs"]
mod takeover;

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use bytes::Bytes;
use frp_gateway_loadtest::lab::{Frpc, Proxy, until};
use grpc::{App, HOST, ask, begin, call, end, message, messages, receive, request, send, speak, status};
use h2::client::SendRequest;
use http::Request;
use takeover::{SOON, World};
use tokio::{net::TcpStream, time::timeout};

/// Two frps with an frpc and an application each, one host; visitors by HTTP/2.
struct Fleet {
    world: World,
    apps: Vec<App>,
    frpc: Vec<Frpc>,
}

impl Fleet {
    async fn start() -> Self {
        Self::with("access_log: stdout\ntunnels: { serve: true }").await
    }

    async fn with(rest: &str) -> Self {
        let mut world = World::fleet(&["a", "b"], rest, |options| options).await;
        let web = format!("{{ name: web, bind: \"{}\" }}", world.web);
        let both = format!("{{ name: web, bind: \"{}\", protocol: http, http2: on }}", world.web);
        world.instead.push((web, both));
        world.start_gateway().await;
        let (mut apps, mut frpc) = (Vec::new(), Vec::new());
        for (at, name) in ["one", "two"].into_iter().enumerate() {
            let app = App::start(name).await;
            let proxy = Proxy::http("rpc", app.address, &[HOST]).metadata("gw_protocol", "h2c");
            frpc.push(world.frpc(at, "alice", vec![proxy]).await);
            apps.push(app);
        }
        let fleet = Self { world, apps, frpc };
        let caller = fleet.caller().await;
        until("both applications to serve", SOON, async || {
            let mut served = BTreeMap::new();
            for _ in 0..4 {
                *served.entry(call(&caller, "Echo", &["x"]).await.ok()?.app).or_insert(0) += 1;
            }
            (served.len() == 2 && !served.contains_key("")).then_some(())
        })
        .await
        .expect("they serve");
        fleet
    }

    async fn caller(&self) -> SendRequest<Bytes> {
        speak(TcpStream::connect(self.world.web).await.expect("in")).await
    }
}

#[tokio::test]
async fn calls_of_one_and_of_many_messages_come_back_with_their_status() {
    let fleet = Fleet::start().await;
    let caller = fleet.caller().await;
    let one = call(&caller, "Echo", &["hello"]).await.expect("an answer");
    assert_eq!((one.http, one.status, &one.body[..]), (200, Some(0), &message("hello")[..]));
    let many = call(&caller, "Echo", &["a", "bc", &"d".repeat(300_000)]).await.expect("an answer");
    let expected = [message("a"), message("bc"), message(&"d".repeat(300_000))].concat();
    assert!(many.status == Some(0) && many.body == expected, "{} bytes, {:?}", many.body.len(), many.status);
    let missing = call(&caller, "Missing", &["x"]).await.expect("an answer");
    assert_eq!((missing.http, missing.status), (200, Some(5)), "trailers alone");
}

#[tokio::test]
async fn messages_flow_both_ways_at_once() {
    let fleet = Fleet::start().await;
    let caller = fleet.caller().await;
    let (response, mut stream) =
        begin(&caller, request("Echo").body(()).expect("a request")).await.expect("sent");
    send(&mut stream, message("0")).await.expect("sent");
    let response =
        timeout(SOON, response).await.expect("the head comes before the request has ended").expect("it");
    let (head, mut body) = response.into_parts();
    assert_eq!(head.status, 200);
    for round in 0..50 {
        let echo = timeout(SOON, receive(&mut body, 6)).await.expect("in time").expect("an echo");
        let text = format!("{}", round % 10);
        assert_eq!(echo, message(&text), "round {round}");
        send(&mut stream, message(&format!("{}", (round + 1) % 10))).await.expect("sent");
    }
    stream.send_data(Bytes::new(), true).expect("sent");
    receive(&mut body, usize::MAX).await.expect("the rest");
    let late = body.trailers().await.expect("trailers").expect("trailers");
    assert_eq!(status(&late), Some(0));
}

#[tokio::test]
async fn a_stream_of_messages_becomes_one_answer_and_one_request_a_stream() {
    let fleet = Fleet::start().await;
    let caller = fleet.caller().await;
    let texts: Vec<_> = (0..1000).map(|number| "x".repeat(number)).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let collected = call(&caller, "Collect", &texts).await.expect("an answer");
    let bytes = texts.iter().map(|text| text.len() + 5).sum::<usize>();
    let said = format!("1000 messages, {bytes} bytes");
    assert_eq!((collected.status, messages(&collected.body)), (Some(0), vec![said.as_bytes()]));
    let counted = ask(&caller, request("Count").header("x-count", 1000), &["go"]).await.expect("an answer");
    let heard = messages(&counted.body);
    assert_eq!((counted.status, heard.len()), (Some(0), 1000));
    for (number, heard) in heard.into_iter().enumerate() {
        assert!(heard == format!("{number}: {}", "x".repeat(number)).as_bytes(), "message {number}");
    }
    let nothing = call(&caller, "Collect", &[]).await.expect("an answer");
    assert_eq!((nothing.status, messages(&nothing.body)), (Some(0), vec![&b"0 messages, 0 bytes"[..]]));
    let nothing = ask(&caller, request("Count").header("x-count", 0), &["go"]).await.expect("an answer");
    assert_eq!((nothing.status, nothing.body.len()), (Some(0), 0));
}

#[tokio::test]
async fn metadata_and_what_an_error_says_pass_as_they_are() {
    let fleet = Fleet::start().await;
    let caller = fleet.caller().await;
    let failed = ask(&caller, request("Fail").header("x-meta-bin", "/+8"), &["x"]).await.expect("an answer");
    assert_eq!(
        (failed.http, failed.status, messages(&failed.body)),
        (200, Some(9), vec![&b"one"[..], b"two"])
    );
    assert_eq!(failed.head["x-meta-bin"], "/+8", "of the request, and of the answer's head");
    let last = &failed.trailers;
    assert_eq!(
        (&last["grpc-message"], &last["x-detail-bin"]),
        (&"not%20now: %E2%9C%97".parse().expect("a value"), &"AAECA/8".parse().expect("a value"))
    );
}

#[tokio::test]
async fn each_call_of_a_connection_is_balanced_for_itself() {
    let fleet = Fleet::start().await;
    let caller = fleet.caller().await;
    let before: Vec<_> = fleet.apps.iter().map(|app| app.calls.load(SeqCst)).collect();
    for _ in 0..40 {
        assert_eq!(call(&caller, "Echo", &["x"]).await.expect("an answer").status, Some(0));
    }
    let after: Vec<_> = fleet.apps.iter().map(|app| app.calls.load(SeqCst)).collect();
    let shares: Vec<_> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    // Each of the two workers takes turns for itself; one connection is at one worker.
    assert_eq!(shares, [20, 20]);
}

#[tokio::test]
async fn a_deadline_ends_a_call_with_its_status_and_others_go_on() {
    let fleet = Fleet::start().await;
    let caller = fleet.caller().await;
    let begun = Instant::now();
    let late = request("Hang").header("grpc-timeout", "300m").body(()).expect("a request");
    let (response, mut stream) = begin(&caller, late).await.expect("sent");
    stream.send_data(message("x"), true).expect("sent");
    let late =
        end(timeout(SOON, response).await.expect("in time").expect("an answer")).await.expect("an end");
    assert_eq!((late.http, late.status), (200, Some(4)), "DEADLINE_EXCEEDED");
    assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
    assert_eq!(call(&caller, "Echo", &["x"]).await.expect("an answer").status, Some(0));
}

#[tokio::test]
async fn a_deadline_in_the_middle_of_an_answer_ends_it_with_its_status() {
    let fleet = Fleet::start().await;
    let caller = fleet.caller().await;
    let late = ask(&caller, request("Forever").header("grpc-timeout", "300m"), &["x"]).await.expect("an end");
    assert_eq!((late.http, late.status, messages(&late.body)), (200, Some(4), vec![&b"the only one"[..]]));
    assert_eq!(status(&late.trailers), Some(4), "behind the message");
}

#[tokio::test]
async fn what_the_gateway_refuses_it_says_as_grpc_does() {
    let fleet = Fleet::start().await;
    let caller = fleet.caller().await;
    let nowhere = Request::post("http://nowhere.test/t.T/Echo")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request");
    let (response, mut stream) = begin(&caller, nowhere).await.expect("sent");
    stream.send_data(message("x"), true).expect("sent");
    let refused =
        end(timeout(SOON, response).await.expect("in time").expect("an answer")).await.expect("an end");
    assert_eq!((refused.http, refused.status), (200, Some(12)), "UNIMPLEMENTED");
}

#[tokio::test]
async fn a_client_that_is_killed_ends_its_calls_as_unavailable_and_new_ones_go_to_its_twin() {
    let mut fleet = Fleet::start().await;
    let caller = fleet.caller().await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let (response, mut stream) =
            begin(&caller, request("Echo").body(()).expect("a request")).await.expect("sent");
        send(&mut stream, message("x")).await.expect("sent");
        let response = timeout(SOON, response).await.expect("in time").expect("an answer");
        let app = response.headers()["x-app"].to_str().expect("ascii").to_owned();
        open.push((app, response, stream));
    }
    let twins: Vec<_> = open.iter().map(|(app, ..)| app.as_str()).collect();
    assert!(twins.contains(&"one") && twins.contains(&"two"), "{twins:?}");
    // Two more, one at each, that have no head yet.
    let before: Vec<_> = fleet.apps.iter().map(|app| app.calls.load(SeqCst)).collect();
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let (response, mut stream) =
            begin(&caller, request("Hang").body(()).expect("a request")).await.expect("sent");
        stream.send_data(message("x"), true).expect("sent");
        waiting.push(response);
    }
    until("one to hang at each", SOON, async || {
        let now: Vec<_> = fleet.apps.iter().map(|app| app.calls.load(SeqCst)).collect();
        now.iter().zip(&before).all(|(now, before)| *now == before + 1).then_some(())
    })
    .await
    .expect("they arrive");
    fleet.frpc[0].kill9();
    for (app, response, mut stream) in open {
        if app == "two" {
            stream.send_data(Bytes::new(), true).expect("sent");
            assert_eq!(end(response).await.expect("unharmed").status, Some(0));
        } else {
            let ended = timeout(SOON, end(response)).await.expect("it ends").expect("in the words of gRPC");
            assert_eq!(
                (ended.status, messages(&ended.body)),
                (Some(14), vec![&b"x"[..]]),
                "UNAVAILABLE, behind it"
            );
        }
    }
    // The other one hangs for ever.
    let first = timeout(SOON, futures_util::future::select_all(waiting))
        .await
        .expect("it ends")
        .0
        .expect("an answer");
    let ended = end(first).await.expect("an end");
    assert_eq!(
        (ended.http, ended.status, ended.body.len()),
        (200, Some(14), 0),
        "it may have run: not repeated"
    );
    for _ in 0..20 {
        let ended = call(&caller, "Echo", &["x"]).await.expect("an answer");
        assert_eq!((ended.app.as_str(), ended.status), ("two", Some(0)));
    }
}

#[tokio::test]
async fn an_application_that_says_it_does_not_serve_gets_no_calls_until_it_does() {
    let fleet = Fleet::with(&format!(
        "tunnels: {{ serve: false }}
pools:
  - name: rpc
    tunnels: {{ domain: {HOST} }}
    health: {{ grpc: {{ service: t.T }}, interval: 100ms, jitter: 0%, fall: 2, rise: 2 }}
routes: [ {{ match: {{ host: {HOST} }}, pools: [rpc] }} ]"
    ))
    .await;
    let caller = fleet.caller().await;
    // Which applications answer ten calls.
    let answering = async || {
        let mut apps = BTreeMap::new();
        for _ in 0..10 {
            let ended = call(&caller, "Echo", &["x"]).await.expect("an answer");
            assert_eq!(ended.status, Some(0), "no call fails");
            *apps.entry(ended.app).or_insert(0) += 1;
        }
        apps
    };
    let only_two = BTreeMap::from([("two".to_owned(), 10)]);
    let both = BTreeMap::from([("one".to_owned(), 5), ("two".to_owned(), 5)]);
    until("both to be in turn", SOON, async || (answering().await == both).then_some(()))
        .await
        .expect("they are");
    for (status, words) in [(2, "NOT_SERVING"), (3, "SERVICE_UNKNOWN")] {
        fleet.apps[0].serving.store(status, SeqCst);
        until(words, SOON, async || (answering().await == only_two).then_some(()))
            .await
            .expect("it is left out");
        fleet.apps[0].serving.store(1, SeqCst);
        until("it to be back", SOON, async || (answering().await == both).then_some(()))
            .await
            .expect("it is");
        let log = fleet.world.gateway.as_ref().expect("it runs").log();
        let told =
            log.lines().filter(|line| line.contains("endpoint unhealthy") && line.contains(words)).count();
        assert_eq!(told, 1, "{log}");
    }
}
