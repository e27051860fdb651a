//! HTTP/2 from visitors, over TLS and with prior knowledge. Real frps and frpc; needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/raw.rs"]
mod raw;
#[path = "common/tls.rs"]
mod tls;

use std::{collections::BTreeMap, future::poll_fn, net::SocketAddr, time::Duration};

use bytes::Bytes;
use frp_gateway_loadtest::{
    demo::DemoApp,
    lab::{Gateway, Proxy, until},
};
use futures_util::future::join_all;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response, StatusCode};
use raw::{SOON, Site, gateway};
use tls::{Authority, dial};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

/// Two applications on one frps, and a gateway before it that speaks HTTP/2 over TLS and in clear.
struct World {
    authority: Authority,
    gateway: Gateway,
    secure: SocketAddr,
    clear: SocketAddr,
    sites: Vec<Site>,
    _apps: Vec<DemoApp>,
}

impl World {
    async fn start(listener: &str) -> Self {
        let authority = Authority::new();
        let pair = authority.issue("app", &["app.test"]);
        let (mut sites, mut apps) = (Vec::new(), Vec::new());
        for name in ["one", "two"] {
            let app = DemoApp::start(name).expect("it starts");
            sites.push(Site::start(name, vec![Proxy::http("web", app.addr(), &["app.test"])]).await);
            apps.push(app);
        }
        let listeners = [
            format!(
                "{{ name: secure, bind: \"127.0.0.1:0\", protocol: https, tls: {{ certificates: [{pair}] }}{listener} }}"
            ),
            format!("{{ name: clear, bind: \"127.0.0.1:0\", protocol: http, http2: on{listener} }}"),
        ];
        let entries: Vec<_> = sites.iter().map(|site| site.entry(true)).collect();
        let gateway = gateway(&entries, &[&listeners[0], &listeners[1]], "access_log: stdout").await;
        let secure = gateway.listener("secure").await.expect("it listens");
        let clear = gateway.listener("clear").await.expect("it listens");
        Self { authority, gateway, secure, clear, sites, _apps: apps }
    }

    async fn over_tls(&self) -> SendRequest<Bytes> {
        let visitor = self.authority.visitor(&["h2", "http/1.1"]);
        let stream = dial(self.secure, "app.test", &visitor).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "what was agreed on");
        speak(stream).await
    }

    async fn in_clear(&self) -> SendRequest<Bytes> {
        speak(TcpStream::connect(self.clear).await.expect("in")).await
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("https://app.test{path}")).body(()).expect("a request")
}

struct Answer {
    response: Response<()>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn app(&self) -> &str {
        self.response.headers().get("x-app").and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends a request with this body, and reads the whole answer.
async fn ask(
    sender: &SendRequest<Bytes>,
    request: Request<()>,
    body: Option<Vec<u8>>,
) -> Result<Answer, h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let (response, mut send) = sender.send_request(request, body.is_none())?;
    let upload = async {
        let Some(body) = body else { return };
        let mut left = Bytes::from(body);
        while !left.is_empty() {
            send.reserve_capacity(left.len());
            let Some(Ok(room)) = poll_fn(|cx| send.poll_capacity(cx)).await else { return };
            let part = left.split_to(room.min(left.len()));
            if send.send_data(part, false).is_err() {
                return;
            }
        }
        drop(send.send_data(Bytes::new(), true));
    };
    let download = async {
        let (head, mut body) = response.await?.into_parts();
        let mut all = Vec::new();
        while let Some(part) = body.data().await {
            let part = part?;
            all.extend_from_slice(&part);
            drop(body.flow_control().release_capacity(part.len()));
        }
        let trailers = body.trailers().await?;
        Ok(Answer { response: Response::from_parts(head, ()), body: all, trailers })
    };
    let (answer, ()) = tokio::join!(download, upload);
    answer
}

async fn get(sender: &SendRequest<Bytes>, path: &str) -> Answer {
    let answer = timeout(SOON, ask(sender, request("GET", path), None)).await.expect("in time");
    answer.unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[tokio::test]
async fn requests_by_http2_reach_tunnels_over_tls_and_in_clear() {
    let world = World::start("").await;
    for sender in [world.over_tls().await, world.in_clear().await] {
        let answer = get(&sender, "/").await;
        assert_eq!(answer.response.status(), 200);
        assert!(answer.text().starts_with("hello from "), "{}", answer.text());
        assert_eq!(get(&sender, "/status/404").await.response.status(), 404);
        let none = ask(&sender, request("HEAD", "/bytes/1000"), None).await.expect("an answer");
        assert_eq!((none.response.status(), none.body.len()), (StatusCode::OK, 0));
        assert_eq!(none.response.headers()["content-length"], "1000");
        let refused = ask(&sender, request("GET", "/").map(|()| ()), None).await.expect("an answer");
        assert_eq!(refused.response.status(), 200);
    }
    // HTTP/1 goes on beside it.
    let plain = frp_gateway_loadtest::http::get(world.clear, "app.test", "/").await.expect("an answer");
    assert_eq!(plain.status, 200);
}

#[tokio::test]
async fn bodies_pass_both_ways_unchanged_with_and_without_a_length() {
    let world = World::start("").await;
    let sender = world.over_tls().await;
    for size in [1, 1000, 16_384, 100_000, 2_000_000] {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).expect("small")).collect();
        let crc = crc32fast::hash(&body);
        for with_length in [true, false] {
            let mut request = request("POST", "/echo");
            if with_length {
                request.headers_mut().insert("content-length", size.into());
            }
            let answer = ask(&sender, request, Some(body.clone())).await.expect("an answer");
            let heard: serde_json::Value = serde_json::from_str(&answer.text()).expect("JSON");
            assert_eq!(heard["body_length"], size, "{heard}");
            assert_eq!(heard["body_crc32"], crc, "{heard}");
        }
        assert_eq!(get(&sender, &format!("/bytes/{size}")).await.body.len(), size);
        assert_eq!(get(&sender, &format!("/bytes/{size}?chunked=1")).await.body.len(), size);
    }
}

#[tokio::test]
async fn trailers_of_an_answer_arrive_as_trailers() {
    let world = World::start("").await;
    let mut request = request("GET", "/trailers");
    request.headers_mut().insert("te", http::HeaderValue::from_static("trailers"));
    let answer = ask(&world.over_tls().await, request, None).await.expect("an answer");
    let trailers = answer.trailers.expect("trailers");
    let crc = crc32fast::hash(&answer.body).to_string();
    assert_eq!(trailers["x-crc32"].to_str().ok(), Some(&*crc), "{trailers:?}");
}

#[tokio::test]
async fn each_stream_is_balanced_for_itself() {
    let world = World::start("").await;
    let sender = world.over_tls().await;
    let mut served: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..10 {
        for answer in join_all((0..8).map(|_| get(&sender, "/"))).await {
            *served.entry(answer.app().to_owned()).or_default() += 1;
        }
    }
    assert_eq!(served.values().copied().collect::<Vec<_>>(), [40, 40], "round robin: {served:?}");
}

#[tokio::test]
async fn a_slow_answer_holds_up_no_other_stream() {
    let world = World::start("").await;
    let sender = world.over_tls().await;
    let slow = tokio::spawn({
        let sender = sender.clone();
        async move { get(&sender, "/slow?ms=2000").await.response.status() }
    });
    for _ in 0..20 {
        assert_eq!(get(&sender, "/").await.response.status(), 200);
    }
    assert!(!slow.is_finished(), "the others were faster");
    assert_eq!(slow.await.expect("a visitor"), 200);
}

#[tokio::test]
async fn events_come_through_one_by_one() {
    let world = World::start("").await;
    let sender = world.over_tls().await;
    let mut sender = sender.ready().await.expect("open");
    let (response, _) = sender.send_request(request("GET", "/sse?n=3&ms=700"), true).expect("sent");
    let mut body = response.await.expect("an answer").into_body();
    let begun = std::time::Instant::now();
    let first = timeout(SOON, body.data()).await.expect("in time").expect("an event").expect("whole");
    assert!(!first.is_empty() && begun.elapsed() < Duration::from_millis(1400), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_reset_and_the_connection_lives_on() {
    let world = World::start("").await;
    let sender = world.over_tls().await;
    let cut = ask(&sender, request("GET", "/cut/100000"), None).await;
    assert!(cut.is_err(), "it must not look whole: {:?}", cut.map(|answer| answer.body.len()));
    assert_eq!(get(&sender, "/").await.response.status(), 200);
}

#[tokio::test]
async fn a_visitor_that_resets_a_stream_frees_its_endpoint() {
    let world = World::start("").await;
    let sender = world.over_tls().await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut sender = sender.clone().ready().await.expect("open");
        let (response, send) = sender.send_request(request("GET", "/hang"), true).expect("sent");
        open.push((response, send));
    }
    let in_flight = async || {
        let mut sum = 0.0;
        for name in ["one", "two"] {
            let label = format!("endpoint=\"{name}\"");
            let value =
                world.gateway.metric("frp_gateway_endpoint_in_flight", &[label.as_str()]).await.ok()?;
            sum += value.unwrap_or_default();
        }
        Some(sum)
    };
    until("four in flight", SOON, async || (in_flight().await? >= 4.0).then_some(()))
        .await
        .expect("in flight");
    for (_, send) in &mut open {
        send.send_reset(h2::Reason::CANCEL);
    }
    drop(open);
    until("none in flight", SOON, async || (in_flight().await? == 0.0).then_some(())).await.expect("freed");
    assert_eq!(get(&sender, "/").await.response.status(), 200);
}

#[tokio::test]
async fn a_stream_waits_for_its_tunnel_while_others_go_on() {
    let mut world = World::start("").await;
    let sender = world.over_tls().await;
    assert_eq!(get(&sender, "/").await.response.status(), 200);
    world.sites[0].frpc.kill9();
    for _ in 0..20 {
        assert_eq!(get(&sender, "/").await.app(), "two");
    }
}

#[tokio::test]
async fn a_drain_loses_no_stream_and_says_goaway() {
    let mut world = World::start("").await;
    let sender = world.over_tls().await;
    assert_eq!(get(&sender, "/").await.response.status(), 200);
    let slow = tokio::spawn({
        let sender = sender.clone();
        async move { get(&sender, "/slow?ms=1000").await.response.status() }
    });
    until("it is under way", SOON, async || {
        let mut sum = 0.0;
        for name in ["one", "two"] {
            let label = format!("endpoint=\"{name}\"");
            sum += world.gateway.metric("frp_gateway_endpoint_in_flight", &[label.as_str()]).await.ok()??;
        }
        (sum >= 1.0).then_some(())
    })
    .await
    .expect("in flight");
    world.gateway.sigterm();
    assert_eq!(slow.await.expect("a visitor"), 200);
    until("GOAWAY", SOON, async || sender.clone().ready().await.is_err().then_some(()))
        .await
        .expect("the connection takes no more");
    let exit = timeout(SOON, world.gateway.wait_exit(SOON)).await.expect("in time").expect("it ends");
    assert!(exit.success(), "{exit}");
}

/// Reads until this many bytes of payload have come.
async fn payload(body: &mut h2::RecvStream, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let part = timeout(SOON, body.data())
            .await
            .expect("in time")
            .unwrap_or_else(|| panic!("ended after {all:?}"))
            .expect("whole");
        drop(body.flow_control().release_capacity(part.len()));
        all.extend_from_slice(&part);
    }
    all
}

#[tokio::test]
async fn a_websocket_runs_in_a_stream() {
    let world = World::start("").await;
    let sender = world.over_tls().await;
    let mut ready = sender.clone().ready().await.expect("open");
    until("SETTINGS_ENABLE_CONNECT_PROTOCOL", SOON, async || {
        ready.is_extended_connect_protocol_enabled().then_some(())
    })
    .await
    .expect("it is offered");
    let request = Request::builder()
        .method("CONNECT")
        .uri("https://app.test/ws")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(())
        .expect("a request");
    let (response, mut send) = ready.send_request(request, false).expect("sent");
    let response = timeout(SOON, response).await.expect("in time").expect("an answer");
    assert_eq!(response.status(), 200);
    assert!(response.headers().get("sec-websocket-accept").is_none(), "{:?}", response.headers());
    let mut body = response.into_body();
    // A masked text frame (the mask is zero), and its echo, which isn't masked.
    send.send_data(Bytes::from_static(b"\x81\x85\0\0\0\0hello"), false).expect("sent");
    assert_eq!(payload(&mut body, 7).await, b"\x81\x05hello");
    send.send_data(Bytes::from_static(b"\x88\x82\0\0\0\0\x03\xe8"), false).expect("sent");
    assert_eq!(payload(&mut body, 4).await[..2], [0x88, 0x02], "a Close frame");
    // frps ends both directions as soon as one has ended: not before the last answer is here.
    send.send_data(Bytes::new(), true).expect("sent");
    assert_eq!(get(&sender, "/").await.response.status(), 200, "others go on");
}

/// Resident memory of the gateway, bytes.
async fn memory(gateway: &Gateway) -> f64 {
    gateway.metric("process_resident_memory_bytes", &[]).await.expect("metrics").expect("it is told")
}

#[tokio::test]
async fn who_never_reads_holds_up_and_costs_nobody_else() {
    let world = World::start("").await;
    let sender = world.over_tls().await;
    get(&sender, "/").await;
    let before = memory(&world.gateway).await;
    let mut stuck = Vec::new();
    for _ in 0..50 {
        let mut ready = sender.clone().ready().await.expect("open");
        let (response, send) = ready.send_request(request("GET", "/bytes/10000000"), true).expect("sent");
        stuck.push((response.await.expect("an answer"), send));
    }
    let other = world.over_tls().await;
    for _ in 0..20 {
        assert_eq!(get(&other, "/").await.response.status(), 200);
    }
    let after = memory(&world.gateway).await;
    assert!(after - before < 50.0 * 400e3, "{} KB for 50 streams", (after - before) / 1e3);
    drop(stuck);
}
