//! gRPC to tunnels whose frpc says `gw_protocol: h2c`, end to end by takeover. Real frps and frpc; needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/takeover.rs"]
mod takeover;

use std::{
    collections::BTreeMap,
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use frp_gateway_loadtest::lab::{Frpc, Proxy, until};
use h2::{RecvStream, SendStream, client::SendRequest, server::SendResponse};
use http::{HeaderMap, Request, Response};
use takeover::{SOON, World};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

/// One message as gRPC frames it.
fn message(text: &str) -> Bytes {
    let mut framed = vec![0];
    framed.extend(u32::try_from(text.len()).expect("short").to_be_bytes());
    framed.extend(text.as_bytes());
    framed.into()
}

fn trailers(status: u8) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", u16::from(status).into());
    trailers
}

/// Sends as much as there is room for, until all is sent.
async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(room) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return Err(h2::Reason::CANCEL.into());
        };
        let part = bytes.split_to(room?.min(bytes.len()));
        stream.send_data(part, false)?;
    }
    Ok(())
}

/// Bytes that have come, up to `count`, or all to the end.
async fn receive(stream: &mut RecvStream, count: usize) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while all.len() < count {
        let Some(part) = stream.data().await else { break };
        let part = part?;
        drop(stream.flow_control().release_capacity(part.len()));
        all.extend_from_slice(&part);
    }
    Ok(all)
}

/// A gRPC application by hand: `/t.T/Echo` gives back message by message as they come, `/t.T/Missing` says NOT_FOUND without a
/// body, `/t.T/Hang` never answers.
struct App {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl App {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                connections.spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    let mut calls = tokio::task::JoinSet::new();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        count.fetch_add(1, SeqCst);
                        calls.spawn(Self::serve(name, request, respond));
                    }
                });
            }
        });
        Self { address, calls, task }
    }

    async fn serve(name: &'static str, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        assert_eq!(request.headers().get("te").map(|te| te.as_bytes()), Some(&b"trailers"[..]));
        let (parts, mut body) = request.into_parts();
        let head = Response::builder().header("content-type", "application/grpc").header("x-app", name);
        match parts.uri.path() {
            "/t.T/Hang" => std::future::pending().await,
            "/t.T/Missing" => {
                let head = head.header("grpc-status", 5).header("grpc-message", "no such thing");
                drop(respond.send_response(head.body(()).expect("a head"), true));
            }
            _ => {
                // The head comes before the first message: streams in both directions want that.
                let Ok(mut stream) = respond.send_response(head.body(()).expect("a head"), false) else {
                    return;
                };
                while let Some(Ok(part)) = body.data().await {
                    drop(body.flow_control().release_capacity(part.len()));
                    if send(&mut stream, part).await.is_err() {
                        return;
                    }
                }
                drop(stream.send_trailers(trailers(0)));
            }
        }
    }
}

/// Two frps with an frpc and an application each, one host; visitors by HTTP/2.
struct Fleet {
    world: World,
    apps: Vec<App>,
    frpc: Vec<Frpc>,
}

impl Fleet {
    async fn start() -> Self {
        let mut world =
            World::fleet(&["a", "b"], "access_log: stdout\ntunnels: { serve: true }", |options| options)
                .await;
        let web = format!("{{ name: web, bind: \"{}\" }}", world.web);
        let both = format!("{{ name: web, bind: \"{}\", protocol: http, http2: on }}", world.web);
        world.instead.push((web, both));
        world.start_gateway().await;
        let (mut apps, mut frpc) = (Vec::new(), Vec::new());
        for (at, name) in ["one", "two"].into_iter().enumerate() {
            let app = App::start(name).await;
            let proxy = Proxy::http("rpc", app.address, &["rpc.test"]).metadata("gw_protocol", "h2c");
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
        let stream = TcpStream::connect(self.world.web).await.expect("in");
        let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        sender
    }
}

fn request(method: &str) -> http::request::Builder {
    Request::post(format!("http://rpc.test/t.T/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// How a call ended.
struct Ended {
    app: String,
    body: Vec<u8>,
    status: Option<u8>,
    http: u16,
}

fn status(fields: &HeaderMap) -> Option<u8> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

async fn begin(
    sender: &SendRequest<Bytes>,
    request: Request<()>,
) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), h2::Error> {
    sender.clone().ready().await?.send_request(request, false)
}

async fn end(response: Response<RecvStream>) -> Result<Ended, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let body = receive(&mut stream, usize::MAX).await?;
    let late = stream.trailers().await?;
    let app = head.headers.get("x-app").and_then(|app| app.to_str().ok()).unwrap_or_default().to_owned();
    let status = late.as_ref().and_then(status).or_else(|| self::status(&head.headers));
    Ok(Ended { app, body, status, http: head.status.as_u16() })
}

/// Sends these messages, and waits for the end.
async fn call(sender: &SendRequest<Bytes>, method: &str, messages: &[&str]) -> Result<Ended, h2::Error> {
    let (response, mut stream) = begin(sender, request(method).body(()).expect("a request")).await?;
    for text in messages {
        send(&mut stream, message(text)).await?;
    }
    stream.send_data(Bytes::new(), true)?;
    end(timeout(SOON, response).await.expect("in time")?).await
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
async fn a_client_that_is_killed_ends_its_calls_and_new_ones_go_to_its_twin() {
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
    fleet.frpc[0].kill9();
    for (app, response, mut stream) in open {
        if app == "two" {
            stream.send_data(Bytes::new(), true).expect("sent");
            assert_eq!(end(response).await.expect("unharmed").status, Some(0));
        } else {
            let ended = timeout(SOON, end(response)).await.expect("it ends");
            assert!(ended.as_ref().map_or(true, |ended| ended.status != Some(0)), "it must not look whole");
        }
    }
    for _ in 0..20 {
        let ended = call(&caller, "Echo", &["x"]).await.expect("an answer");
        assert_eq!((ended.app.as_str(), ended.status), ("two", Some(0)));
    }
}
