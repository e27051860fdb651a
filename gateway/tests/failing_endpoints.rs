//! What visitors get when endpoints refuse, hang, reset, send garbage or stop in the middle; and what is sent again.

mod common;

use std::time::{Duration, Instant};

use common::{Endpoint, PATIENCE, Wire, field, gateway, get, ok, status, yaml};
use frp_gateway_loadtest::lab::Gateway;
use tokio::{io::AsyncWriteExt, net::TcpListener, time::timeout};

async fn ask(visitor: &mut Wire, request: &str) -> (u16, String, String) {
    visitor.send(request).await;
    let (head, body) = visitor.response(request.starts_with("HEAD")).await;
    (
        status(&head),
        field(&head, "x-frp-gateway").unwrap_or_default().to_owned(),
        String::from_utf8_lossy(&body).into(),
    )
}

const POST: &str = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi";

/// An address where nothing listens.
async fn nobody() -> Endpoint {
    let endpoint = Endpoint::answering("").await;
    let mut gone = Endpoint::answering("").await;
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    gone.address = free.local_addr().expect("bound");
    drop(endpoint);
    gone
}

#[tokio::test]
async fn a_refused_connect_goes_elsewhere_for_every_method_and_the_dead_member_is_left_alone() {
    let (dead, live) = (nobody().await, Endpoint::answering(ok("live")).await);
    let (gateway, address) = gateway(&[&dead, &live], "fail_timeout: 1m", "").await;
    let mut visitor = Wire::connect(address).await;
    for _ in 0..10 {
        assert_eq!(ask(&mut visitor, &get("/")).await.2, "live");
    }
    let refused = gateway
        .metric("frp_gateway_endpoint_failures_total", &[r#"endpoint="e0""#, r#"reason="connect_refused""#])
        .await
        .expect("metrics");
    assert_eq!(refused, Some(1.0), "one refused connect keeps the others away for fail_timeout");
}

#[tokio::test]
async fn a_post_survives_a_refused_connect_because_nothing_was_sent() {
    let (dead, live) = (nobody().await, Endpoint::answering(ok("live")).await);
    let (_gateway, address) = gateway(&[&dead, &live], "", "").await;
    for _ in 0..4 {
        let mut visitor = Wire::connect(address).await;
        assert_eq!(ask(&mut visitor, POST).await.2, "live");
    }
}

#[tokio::test]
async fn when_nobody_listens_the_visitor_is_told_502_with_class_and_id_and_the_connection_stays() {
    let dead = nobody().await;
    let (_gateway, address) = gateway(&[&dead], "", "").await;
    let mut visitor = Wire::connect(address).await;
    for _ in 0..2 {
        visitor.send(get("/")).await;
        let (head, body) = visitor.response(false).await;
        let body = String::from_utf8(body).expect("text");
        assert_eq!((status(&head), field(&head, "x-frp-gateway")), (502, Some("connect_failed")), "{head}");
        let id = field(&head, "x-request-id").expect("a request id");
        assert!(body.contains(id) && body.contains("app.test"), "{body}");
    }
}

/// Endpoints that misbehave on the first request of each connection.
async fn breaking(how: &'static str) -> Endpoint {
    Endpoint::scripted(move |mut wire, _, notes| async move {
        let Some(request) = wire.request().await else { return };
        notes.add(request);
        match how {
            "close" => {}
            "reset" => wire.reset(),
            "garbage" => {
                wire.try_send("\x16\x03\x01 not http\r\n\r\n").await;
                wire.all().await;
            }
            "half a head" => {
                wire.try_send("HTTP/1.1 200 OK\r\nContent-Le").await;
            }
            "endless head" => {
                wire.try_send("HTTP/1.1 200 OK\r\n").await;
                while wire
                    .try_send("X-More: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")
                    .await
                {}
            }
            "hang" => {
                wire.all().await;
            }
            other => unreachable!("no such fault: {other}"),
        }
    })
    .await
}

#[tokio::test]
async fn each_fault_of_a_lone_endpoint_has_its_status_and_class() {
    for (fault, code, class) in [
        ("close", 502, "upstream_broken"),
        ("reset", 502, "upstream_broken"),
        ("garbage", 502, "upstream_invalid"),
        ("half a head", 502, "upstream_broken"),
        ("endless head", 502, "upstream_invalid"),
        ("hang", 504, "upstream_timeout"),
    ] {
        let endpoint = breaking(fault).await;
        let text = yaml(&[&endpoint], "", "", "400ms");
        let gateway = Gateway::start(env!("CARGO_BIN_EXE_frp-gateway"), &text).await.expect("starts");
        let mut visitor = Wire::connect(gateway.listener("web").await.expect("listener")).await;
        let (got, label, _) = ask(&mut visitor, POST).await;
        assert_eq!((got, label.as_str()), (code, class), "{fault}");
        assert_eq!(endpoint.seen().len(), 1, "{fault}: a POST is sent once");
        let counted = gateway
            .metric("frp_gateway_own_answers_total", &[&format!(r#"class="{class}""#)])
            .await
            .expect("metrics");
        assert_eq!(counted, Some(1.0), "{fault}");
    }
}

#[tokio::test]
async fn idempotent_requests_go_elsewhere_when_an_endpoint_breaks_before_answering() {
    for fault in ["close", "reset", "hang"] {
        let (bad, good) = (breaking(fault).await, Endpoint::answering(ok("good")).await);
        let (_gateway, address) = gateway(&[&bad, &good], "retry: { per_try_timeout: 300ms }", "").await;
        let mut visitor = Wire::connect(address).await;
        for _ in 0..4 {
            let (got, label, body) = ask(&mut visitor, &get("/")).await;
            assert_eq!((got, label.as_str(), body.as_str()), (200, "", "good"), "{fault}");
        }
        let put = "PUT / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbody";
        assert_eq!(ask(&mut visitor, put).await.2, "good", "{fault}: a body at hand is sent again");
    }
}

#[tokio::test]
async fn a_post_whose_endpoint_breaks_is_never_sent_twice() {
    for fault in ["close", "reset", "hang", "half a head"] {
        let (one, two) = (breaking(fault).await, breaking(fault).await);
        let (_gateway, address) = gateway(&[&one, &two], "retry: { per_try_timeout: 300ms }", "").await;
        let mut visitor = Wire::connect(address).await;
        let (got, _, _) =
            ask(&mut visitor, "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n").await;
        assert!(got == 502 || got == 504, "{fault}: {got}");
        assert_eq!(one.seen().len() + two.seen().len(), 1, "{fault}");
    }
}

#[tokio::test]
async fn after_a_fault_the_next_request_goes_elsewhere() {
    let (bad, good) = (breaking("garbage").await, Endpoint::answering(ok("good")).await);
    let (_gateway, address) = gateway(&[&bad, &good], "fail_timeout: 1m", "").await;
    let mut visitor = Wire::connect(address).await;
    let mut answers = Vec::new();
    for _ in 0..12 {
        answers.push(ask(&mut visitor, &get("/")).await.0);
    }
    let failed = answers.iter().filter(|code| **code == 502).count();
    assert!(failed <= 1, "{answers:?}");
    assert_eq!(bad.seen().len(), failed);
}

#[tokio::test]
async fn half_a_body_never_looks_whole() {
    for (name, answer) in [
        ("length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
        ("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ("bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n"),
    ] {
        let endpoint = Endpoint::scripted(move |mut wire, _, _| async move {
            wire.request().await;
            let (first, second) = answer.split_at(answer.find("half").expect("a body") + 4);
            wire.send(first).await;
            tokio::time::sleep(Duration::from_millis(50)).await; // two packets: the answer begins before it breaks
            wire.try_send(second).await;
        })
        .await;
        let (gateway, address) = gateway(&[&endpoint], "", "").await;
        let mut visitor = Wire::connect(address).await;
        visitor.send(get("/")).await;
        let all = visitor.all().await;
        assert!(all.ends_with("half") || all.ends_with("half\r\n"), "{name}: {all}");
        let aborted = gateway.metric("frp_gateway_exchanges_aborted_total", &[]).await.expect("metrics");
        assert_eq!(aborted, Some(1.0), "{name}");
    }
}

#[tokio::test]
async fn a_close_delimited_body_that_breaks_ends_with_a_reset() {
    let endpoint = Endpoint::scripted(|mut wire, _, _| async move {
        wire.request().await;
        wire.send("HTTP/1.1 200 OK\r\n\r\nsome").await;
        tokio::time::sleep(Duration::from_millis(50)).await; // the beginning arrives first
        wire.reset();
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor.send(get("/")).await;
    visitor.until(b"some").await;
    let mut byte = [0];
    let end = timeout(PATIENCE, tokio::io::AsyncReadExt::read(&mut visitor.stream, &mut byte))
        .await
        .expect("an end");
    assert!(end.is_err(), "an ordinary end would make the half look whole: {end:?}");
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced_without_a_word() {
    let endpoint = Endpoint::scripted(|mut wire, n, notes| async move {
        while let Some(request) = wire.request().await {
            notes.add(request);
            wire.send(ok(&n.to_string())).await;
            if n == 0 {
                return; // closes after its first answer, without saying so
            }
        }
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    assert_eq!(ask(&mut visitor, POST).await.2, "0");
    assert_eq!(ask(&mut visitor, POST).await.2, "1");
    assert_eq!(ask(&mut visitor, &get("/")).await.2, "1");
    assert_eq!(endpoint.seen().len(), 3, "nothing was sent twice");
}

#[tokio::test]
async fn bytes_after_an_answer_are_given_to_nobody() {
    let endpoint = Endpoint::scripted(|mut wire, n, _| async move {
        while wire.request().await.is_some() {
            wire.try_send(ok(&n.to_string()) + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison").await;
        }
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    for n in 0..4 {
        assert_eq!(ask(&mut visitor, &get("/")).await.2, n.to_string());
    }
}

#[tokio::test]
async fn ambiguous_answers_are_502_and_their_connection_is_dropped() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 2\r\nab\r\n0\r\n\r\n",
    ] {
        let endpoint = Endpoint::answering(answer).await;
        let (_gateway, address) = gateway(&[&endpoint], "", "").await;
        let mut visitor = Wire::connect(address).await;
        for n in 1..=2 {
            let (got, class, _) = ask(&mut visitor, &get("/")).await;
            assert_eq!((got, class.as_str()), (502, "upstream_invalid"), "{answer:?}");
            assert_eq!(endpoint.connections(), n, "{answer:?}: the connection is not used again");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_accepts_and_never_reads_does_not_hold_a_request_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut stuck = Endpoint::answering("").await;
    stuck.address = listener.local_addr().expect("bound");
    let text = yaml(&[&stuck], "", "timeouts: { stream_idle: 500ms }", "400ms");
    let gateway = Gateway::start(env!("CARGO_BIN_EXE_frp-gateway"), &text).await.expect("starts");
    let mut visitor = Wire::connect(gateway.listener("web").await.expect("listener")).await;
    let begun = Instant::now();
    visitor.send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n").await;
    let block = vec![0; 1 << 20];
    let (mut read, mut write) = visitor.stream.split();
    let flood = async {
        while write.write_all(&block).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let mut head = [0; 4096];
    let answer = async { tokio::io::AsyncReadExt::read(&mut read, &mut head).await };
    let n = tokio::select! {
        n = timeout(PATIENCE, answer) => n.expect("an answer in time").unwrap_or(0),
        () = flood => unreachable!("floods for ever"),
    };
    let text = String::from_utf8_lossy(&head[..n]).into_owned();
    assert!(status(&text) == 408 || n == 0, "{text}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}
