//! What the HTTP/1 engine does with well-formed traffic, byte for byte.

mod common;

use std::time::{Duration, Instant};

use common::{Endpoint, PATIENCE, Wire, eventually, field, gateway, get, ok, status, yaml};
use frp_gateway_loadtest::lab::Gateway;
use tokio::{io::AsyncWriteExt, time::timeout};

#[tokio::test]
async fn a_request_goes_on_with_the_visitors_host_and_true_forwarding_fields() {
    let endpoint = Endpoint::answering(ok("hi")).await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor
        .send(
            "GET /p?q=1 HTTP/1.1\r\nHost: App.Test:8080\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
             X-Real-IP: 6.6.6.6\r\nConnection: x-drop, keep-alive\r\nX-Drop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
             Proxy-Connection: keep-alive\r\nX-Keep: 2\r\n\r\n",
        )
        .await;
    let (head, body) = visitor.response(false).await;
    assert_eq!((status(&head), body.as_slice()), (200, &b"hi"[..]), "{head}");
    let seen = endpoint.seen().remove(0);
    assert!(seen.starts_with("GET /p?q=1 HTTP/1.1\r\nHost: App.Test:8080\r\n"), "{seen}");
    for (name, value) in [
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("App.Test:8080")),
        ("via", Some("1.1 frp-gateway")),
        ("accept-encoding", Some("identity")),
        ("x-keep", Some("2")),
        ("forwarded", None),
        ("x-real-ip", None),
        ("x-drop", None),
        ("keep-alive", None),
        ("te", Some("trailers")),
        ("proxy-connection", None),
        ("connection", Some("TE")),
    ] {
        assert_eq!(field(&seen, name), value, "{name} in\n{seen}");
    }
}

#[tokio::test]
async fn a_trusted_peer_is_believed_and_extended() {
    let endpoint = Endpoint::answering(ok("")).await;
    let (_gateway, address) = gateway(&[&endpoint], "", "trusted_proxies: [127.0.0.0/8]").await;
    let mut visitor = Wire::connect(address).await;
    visitor
        .send(
            "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Host: pub.test\r\nForwarded: for=9.9.9.9\r\n\
             Via: 1.0 edge\r\nAccept-Encoding: br\r\n\r\n",
        )
        .await;
    visitor.response(false).await;
    let seen = endpoint.seen().remove(0);
    assert_eq!(field(&seen, "x-forwarded-for"), Some("9.9.9.9, 8.8.8.8, 127.0.0.1"), "{seen}");
    assert_eq!(field(&seen, "x-forwarded-proto"), Some("https"), "{seen}");
    assert_eq!(field(&seen, "x-forwarded-host"), Some("pub.test"), "{seen}");
    assert_eq!(field(&seen, "forwarded"), Some("for=9.9.9.9, for=127.0.0.1"), "{seen}");
    assert!(seen.contains("Via: 1.0 edge\r\n") && seen.contains("Via: 1.1 frp-gateway\r\n"), "{seen}");
    assert_eq!(field(&seen, "accept-encoding"), Some("br"), "{seen}");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides_and_pipelined_requests_are_answered_in_order() {
    let endpoint = Endpoint::scripted(|mut wire, _, _| async move {
        while let Some(request) = wire.request().await {
            let path = request.split(' ').nth(1).expect("a target").to_owned();
            wire.send(ok(&path)).await;
        }
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor.send((0..20).map(|n| get(&format!("/{n}"))).collect::<String>()).await;
    for n in 0..20 {
        let (head, body) = visitor.response(false).await;
        assert_eq!((status(&head), String::from_utf8_lossy(&body)), (200, format!("/{n}").into()));
    }
    visitor.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc".to_owned() + &get("/b")).await;
    assert_eq!(visitor.response(false).await.1, b"/a");
    assert_eq!(visitor.response(false).await.1, b"/b");
    assert_eq!(endpoint.connections(), 1, "one upstream connection serves all of them");
}

#[tokio::test]
async fn a_head_may_arrive_byte_by_byte_and_leaves_in_one_piece() {
    let endpoint = Endpoint::answering(ok("ok")).await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    let request = "POST /slow HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbody";
    for byte in request.as_bytes() {
        visitor.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(visitor.response(false).await.1, b"ok");
    assert!(endpoint.seen()[0].ends_with("\r\n\r\nbody"), "{}", endpoint.seen()[0]);
}

#[tokio::test]
async fn bodies_stream_in_both_directions_at_once_with_flat_memory() {
    const TOTAL: usize = 96 * 1024 * 1024;
    let endpoint = Endpoint::scripted(|mut wire, _, _| async move {
        let head = wire.head().await;
        assert_eq!(field(&head, "transfer-encoding"), Some("chunked"), "{head}");
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        // Echo chunk for chunk, so that both directions must flow together.
        loop {
            let line = wire.until(b"\r\n").await;
            let size =
                usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).expect("a chunk size");
            let data = if size == 0 { wire.until(b"\r\n\r\n").await } else { wire.bytes(size + 2).await };
            wire.send(line).await;
            wire.send(data).await;
            if size == 0 {
                return;
            }
        }
    })
    .await;
    let (gateway, address) = gateway(&[&endpoint], "", "").await;
    let rss = || resident_kib(gateway.pid());
    let before = rss();
    let mut visitor = Wire::connect(address).await;
    visitor.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let head = visitor.head().await;
    assert_eq!(status(&head), 200);
    let chunk = vec![b'x'; 256 * 1024];
    for _ in 0..TOTAL / chunk.len() {
        visitor.send(format!("{:x}\r\n", chunk.len())).await;
        visitor.send(&chunk).await;
        visitor.send("\r\n").await;
        let line = visitor.until(b"\r\n").await;
        assert_eq!(line, b"40000\r\n");
        assert_eq!(visitor.bytes(chunk.len() + 2).await.len(), chunk.len() + 2);
    }
    visitor.send("0\r\nX-Sum: 1\r\n\r\n").await;
    assert_eq!(visitor.until(b"\r\n\r\n").await, b"0\r\nX-Sum: 1\r\n\r\n", "trailers pass");
    let grown = rss().saturating_sub(before);
    assert!(grown < 4 * 1024, "{} MiB passed and memory grew by {grown} KiB", TOTAL / 1024 / 1024);
}

fn resident_kib(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the gateway runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("KiB")
}

#[tokio::test]
async fn an_answer_without_length_ends_with_the_connection() {
    let endpoint = Endpoint::scripted(|mut wire, _, _| async move {
        wire.request().await;
        wire.send("HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor.send(get("/")).await;
    let all = visitor.all().await;
    assert!(all.ends_with("\r\n\r\nuntil the end"), "{all}");
    assert_eq!(field(&all, "connection"), Some("close"), "{all}");
}

#[tokio::test]
async fn head_204_and_304_have_no_body_and_keep_the_connection() {
    let endpoint = Endpoint::scripted(|mut wire, _, _| async move {
        while let Some(request) = wire.request().await {
            let answer = match request.split(' ').nth(1) {
                Some("/204") => "HTTP/1.1 204 No Content\r\n\r\n",
                Some("/304") => "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"x\"\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            };
            wire.send(answer).await;
        }
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let head = visitor.head().await;
    assert_eq!(field(&head, "content-length"), Some("1234"), "{head}");
    for (path, code) in [("/204", 204), ("/304", 304)] {
        visitor.send(get(path)).await;
        let head = visitor.head().await;
        assert_eq!(status(&head), code, "{head}");
    }
    assert_eq!(endpoint.connections(), 1);
}

#[tokio::test]
async fn http_1_0_visitors_get_plain_bodies_and_may_keep_their_connection() {
    let endpoint = Endpoint::scripted(|mut wire, _, _| async move {
        while let Some(request) = wire.request().await {
            let answer = if request.starts_with("GET /chunked HTTP/1.1\r\n") {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n"
                    .to_owned()
            } else {
                ok("sized")
            };
            wire.send(answer).await;
        }
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor.send("GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n").await;
    let (head, body) = visitor.response(false).await;
    assert_eq!((field(&head, "connection"), body.as_slice()), (Some("keep-alive"), &b"sized"[..]), "{head}");
    visitor.send("GET /chunked HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n").await;
    let all = visitor.all().await;
    assert!(all.ends_with("\r\n\r\nabcde"), "{all}");
    assert_eq!(field(&all, "transfer-encoding"), None, "{all}");
    let mut closing = Wire::connect(address).await;
    closing.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n").await;
    let all = closing.all().await;
    assert!(all.ends_with("sized") && field(&all, "connection") == Some("close"), "{all}");
}

#[tokio::test]
async fn expect_100_continue_passes_once_and_the_body_follows() {
    let endpoint = Endpoint::scripted(|mut wire, _, notes| async move {
        let head = wire.head().await;
        notes.add(head);
        // frps says it twice.
        wire.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await;
        notes.add(String::from_utf8_lossy(&wire.bytes(5).await));
        wire.send(ok("done")).await;
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(visitor.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    visitor.send("hello").await;
    let (head, body) = visitor.response(false).await;
    assert_eq!((status(&head), body.as_slice()), (200, &b"done"[..]), "{head}");
    assert_eq!(endpoint.seen()[1], "hello");
}

#[tokio::test]
async fn an_early_final_answer_reaches_a_visitor_who_waits_for_100() {
    let endpoint = Endpoint::scripted(|mut wire, _, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor
        .send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let (head, body) = visitor.response(false).await;
    assert_eq!((status(&head), body.as_slice()), (401, &b"no"[..]), "{head}");
    assert_eq!(field(&head, "connection"), Some("close"), "the body will not come: {head}");
    assert!(visitor.is_ended().await);
}

#[tokio::test]
async fn an_early_answer_to_a_running_upload_is_delivered_whole() {
    let endpoint = Endpoint::scripted(|mut wire, _, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntoo big")
            .await;
        wire.stream.shutdown().await.expect("half-close");
        wire.all().await;
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor.send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\n\r\n").await;
    let block = vec![0; 64 * 1024];
    for _ in 0..8 {
        if !visitor.try_send(&block).await {
            break;
        }
    }
    let (head, body) = visitor.response(false).await;
    assert_eq!((status(&head), body.as_slice()), (413, &b"too big"[..]), "{head}");
}

#[tokio::test]
async fn interim_answers_pass_before_the_final_one() {
    let endpoint = Endpoint::scripted(|mut wire, _, _| async move {
        wire.request().await;
        wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n").await;
        wire.send(ok("x")).await;
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor.send(get("/")).await;
    let hints = visitor.head().await;
    assert_eq!((status(&hints), field(&hints, "link")), (103, Some("</a.css>")), "{hints}");
    assert_eq!(visitor.response(false).await.1, b"x");
}

#[tokio::test]
async fn an_upgrade_carries_bytes_both_ways_and_half_closes() {
    let endpoint = Endpoint::scripted(|mut wire, _, notes| async move {
        let head = wire.head().await;
        notes.add(head);
        wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: thing\r\n\r\nfirst")
            .await;
        notes.add(wire.all().await);
        wire.send("last").await;
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor
        .send("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: thing\r\n\r\nearly")
        .await;
    let head = visitor.head().await;
    assert_eq!(status(&head), 101, "{head}");
    assert_eq!(field(&head, "upgrade"), Some("thing"), "{head}");
    assert_eq!(field(&head, "connection"), Some("upgrade"), "{head}");
    assert_eq!(visitor.bytes(5).await, b"first");
    visitor.send(" and more").await;
    visitor.stream.shutdown().await.expect("half-close");
    assert_eq!(visitor.all().await, "last", "the other direction goes on after ours has ended");
    let seen = endpoint.seen();
    assert_eq!(field(&seen[0], "upgrade"), Some("thing"), "{}", seen[0]);
    assert_eq!(field(&seen[0], "connection"), Some("upgrade"), "{}", seen[0]);
    assert_eq!(seen[1], "early and more");
}

#[tokio::test]
async fn h2c_upgrades_are_not_passed_on() {
    let endpoint = Endpoint::answering(ok("1.1")).await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor
        .send(
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        )
        .await;
    assert_eq!(visitor.response(false).await.1, b"1.1");
    let seen = endpoint.seen().remove(0);
    assert!(field(&seen, "upgrade").is_none() && field(&seen, "http2-settings").is_none(), "{seen}");
}

#[tokio::test]
async fn a_visitor_who_half_closes_right_after_its_request_gets_its_answer() {
    let endpoint = Endpoint::scripted(|mut wire, _, _| async move {
        wire.request().await;
        tokio::time::sleep(Duration::from_millis(300)).await; // a slow application, longer than the grace
        wire.send(ok("late")).await;
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor.send(get("/")).await;
    visitor.stream.shutdown().await.expect("half-close");
    let all = visitor.all().await;
    assert!(all.ends_with("late"), "{all}");
}

#[tokio::test]
async fn when_the_visitor_has_gone_the_exchange_with_the_endpoint_ends() {
    let endpoint = Endpoint::scripted(|mut wire, _, notes| async move {
        wire.request().await;
        notes.add("asked");
        assert!(wire.is_ended().await);
        notes.add("ended");
    })
    .await;
    let (gateway, address) = gateway(&[&endpoint], "", "").await;
    for (index, reset) in [(0, true), (1, false)] {
        let mut visitor = Wire::connect(address).await;
        visitor.send(get("/")).await;
        eventually("the endpoint is asked", async || endpoint.seen().len() == 2 * index + 1).await;
        if reset {
            visitor.reset();
        } else {
            tokio::time::sleep(Duration::from_millis(250)).await; // past the half-close grace
            drop(visitor);
        }
        eventually("the endpoint's connection ends", async || endpoint.seen().len() == 2 * index + 2).await;
    }
    eventually("counted", async || {
        gateway.metric("frp_gateway_visitors_gone_total", &[]).await.expect("metrics") == Some(2.0)
    })
    .await;
}

#[tokio::test]
async fn absolute_form_is_passed_on_in_origin_form_and_asterisk_as_it_is() {
    let endpoint = Endpoint::answering(ok("")).await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor.send("GET http://app.test/x?y HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
    visitor.response(false).await;
    visitor.send("OPTIONS * HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
    visitor.response(false).await;
    let seen = endpoint.seen();
    assert!(seen[0].starts_with("GET /x?y HTTP/1.1\r\nHost: app.test\r\n"), "{}", seen[0]);
    assert!(seen[1].starts_with("OPTIONS * HTTP/1.1\r\n"), "{}", seen[1]);
}

#[tokio::test]
async fn connect_is_refused() {
    let endpoint = Endpoint::answering(ok("")).await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor.send("CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n").await;
    let (head, _) = visitor.response(false).await;
    assert_eq!((status(&head), field(&head, "x-frp-gateway")), (405, Some("method_refused")), "{head}");
    assert_eq!(endpoint.connections(), 0);
}

#[tokio::test]
async fn an_application_cannot_pass_for_the_gateway() {
    let endpoint =
        Endpoint::answering("HTTP/1.1 200 OK\r\nX-Frp-Gateway: no_route\r\nContent-Length: 0\r\n\r\n").await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor.send(get("/")).await;
    let (head, _) = visitor.response(false).await;
    assert_eq!(field(&head, "x-frp-gateway"), None, "{head}");
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_ended_in_time() {
    let endpoint = Endpoint::answering(ok("")).await;
    let (_gateway, address) =
        gateway(&[&endpoint], "", "timeouts: { header: 300ms, idle: 400ms, stream_idle: 500ms }").await;
    let begun = Instant::now();
    let mut silent = Wire::connect(address).await;
    let mut slow = Wire::connect(address).await;
    slow.send("GET / HTTP/1.1\r\nHo").await;
    let mut idle = Wire::connect(address).await;
    idle.send(get("/")).await;
    idle.response(false).await;
    let mut stalled = Wire::connect(address).await;
    stalled.send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc").await;
    let (head, _) = slow.response(false).await;
    assert_eq!((status(&head), field(&head, "x-frp-gateway")), (408, Some("head_timeout")), "{head}");
    assert!(slow.is_ended().await && silent.is_ended().await && idle.is_ended().await);
    let (head, _) = stalled.response(false).await;
    assert_eq!((status(&head), field(&head, "x-frp-gateway")), (408, Some("body_timeout")), "{head}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn bodies_above_the_limit_are_refused() {
    let endpoint = Endpoint::answering(ok("")).await;
    let (_gateway, address) = gateway(&[&endpoint], "", "limits: { body_bytes: 10 }").await;
    for request in [
        "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n",
    ] {
        let mut visitor = Wire::connect(address).await;
        visitor.send(request).await;
        let (head, _) = visitor.response(false).await;
        assert_eq!((status(&head), field(&head, "x-frp-gateway")), (413, Some("body_too_large")), "{head}");
    }
    assert_eq!(endpoint.connections(), 0, "nothing of it reaches an endpoint");
}

#[tokio::test]
async fn server_sent_events_pass_at_once_and_stop_when_the_visitor_leaves() {
    let endpoint = Endpoint::scripted(|mut wire, _, notes| async move {
        wire.request().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        wire.send("8\r\ndata: 1\n\r\n").await;
        assert!(wire.is_ended().await);
        notes.add("ended");
    })
    .await;
    let (_gateway, address) = gateway(&[&endpoint], "", "").await;
    let mut visitor = Wire::connect(address).await;
    visitor.send(get("/events")).await;
    visitor.head().await;
    assert_eq!(visitor.bytes(13).await, b"8\r\ndata: 1\n\r\n");
    tokio::time::sleep(Duration::from_millis(250)).await; // past the half-close grace
    drop(visitor);
    eventually("the endpoint's connection ends", async || !endpoint.seen().is_empty()).await;
}

#[tokio::test]
async fn sigterm_lets_running_exchanges_end_and_closes_kept_connections() {
    let (release, released) = tokio::sync::watch::channel(false);
    let endpoint = Endpoint::scripted(move |mut wire, _, notes| {
        let mut released = released.clone();
        async move {
            while let Some(request) = wire.request().await {
                notes.add(request);
                if notes.count() > 1 {
                    released.wait_for(|go| *go).await.expect("the test lives");
                }
                wire.send(ok("ended well")).await;
            }
        }
    })
    .await;
    let mut gateway = Gateway::start(env!("CARGO_BIN_EXE_frp-gateway"), &yaml(&[&endpoint], "", "", "30s"))
        .await
        .expect("starts");
    let address = gateway.listener("web").await.expect("a listener");
    let mut kept = Wire::connect(address).await;
    kept.send(get("/")).await;
    kept.response(false).await;
    let mut running = Wire::connect(address).await;
    running.send(get("/slow")).await;
    eventually("the request is at the endpoint", async || endpoint.seen().len() == 2).await;
    gateway.sigterm();
    assert!(kept.is_ended().await, "a kept connection without a request ends");
    let refused = timeout(PATIENCE, async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    refused.await.expect("no new connection is let in");
    release.send(true).expect("the endpoint waits");
    let (head, body) = running.response(false).await;
    assert_eq!((status(&head), body.as_slice()), (200, &b"ended well"[..]), "{head}");
    assert_eq!(field(&head, "connection"), Some("close"), "{head}");
    let exit = gateway.wait_exit(PATIENCE).await.expect("it exits");
    assert!(exit.success(), "{exit}");
}
