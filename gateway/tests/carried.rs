//! What is more than a request and an answer: WebSockets, events, bodies of any size. By takeover and through frps's vhost, from
//! visitors by HTTP/1.1, by it over TLS, and by HTTP/2. Real frps and frpc; needs `frp-lab/build`.
//!
//! Bodies are 1 GiB each way for one combination and 32 MiB for the others; with `FRP_GATEWAY_LONG_TESTS=1` they are 1 GiB for all.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test shows why, and a good one what it measured"
)]

#[path = "common/raw.rs"]
mod raw;
#[path = "common/takeover.rs"]
mod takeover;
#[path = "common/tls.rs"]
mod tls;
#[path = "common/ways.rs"]
mod ways;

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use frp_gateway_loadtest::lab::Proxy;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};
use hyper_util::rt::TokioIo;
use raw::App;
use takeover::{SOON, app};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::broadcast,
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{
            CloseFrame, Role,
            frame::{
                Frame as Fragment,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};
use ways::{Ground, HOST, Speech, Way, nothing, text};

/// More than any exchange of this file takes in a debug build on a busy machine.
const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_websocket_echoes_large_and_fragmented_messages_and_ends_properly() {
    for way in Way::ALL {
        let app = app("one");
        let proxy = Proxy::http("web", app.addr(), &[HOST]);
        let ground = Ground::start(way, &["a"], vec![proxy], "hold: off").await;
        for speech in Speech::ALL {
            let what = format!("{way:?}, {speech:?}");
            let mut visitor = ground.visitor(speech).await;
            let response = visitor.send(speech.websocket("/ws")).await.expect("an answer");
            let expected = if speech == Speech::Http2Tls { 200 } else { 101 };
            assert_eq!(response.status(), expected, "{what}");
            let upgraded = hyper::upgrade::on(response).await.expect("bytes flow");
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
            talk(socket, &what).await;
            if speech == Speech::Http2Tls {
                let other = visitor.ask("GET", "/", nothing()).await.expect("the connection lives on");
                assert_eq!(other.status(), 200, "{what}");
            }
        }
    }
}

/// Messages of all sizes, whole and in fragments, then the closing handshake and the end of the bytes.
async fn talk<S>(mut socket: WebSocketStream<S>, what: &str)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let pattern =
        |size: usize| Bytes::from_iter((0..size).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]));
    for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_000, 8 << 20] {
        let sent = pattern(size);
        socket.send(Message::Binary(sent.clone())).await.expect("sent");
        let heard = timeout(SOON, socket.next()).await.expect("in time").expect("open").expect("a message");
        assert!(heard.into_data() == sent, "{what}: {size} bytes come back as they went");
    }
    for count in [2, 100] {
        // A control frame may come between fragments.
        for at in 0..count {
            let code = if at == 0 { Data::Binary } else { Data::Continue };
            let part = Fragment::message(pattern(3000), OpCode::Data(code), at == count - 1);
            socket.send(Message::Frame(part)).await.expect("sent");
            if at == 0 {
                socket.send(Message::Ping(Bytes::from_static(b"between"))).await.expect("sent");
            }
        }
        let pong = timeout(SOON, socket.next()).await.expect("in time").expect("open").expect("a message");
        assert_eq!(
            pong,
            Message::Pong(Bytes::from_static(b"between")),
            "{what}: before the message is whole"
        );
        let heard = timeout(SOON, socket.next()).await.expect("in time").expect("open").expect("a message");
        assert!(
            heard.into_data() == pattern(3000).repeat(count),
            "{what}: {count} fragments are one message"
        );
    }
    let goodbye = CloseFrame { code: CloseCode::Away, reason: "that's all".into() };
    socket.close(Some(goodbye.clone())).await.expect("sent");
    let heard = timeout(SOON, socket.next()).await.expect("in time").expect("open").expect("a message");
    assert_eq!(heard, Message::Close(Some(goodbye)), "{what}: the application's goodbye");
    let end = timeout(SOON, socket.next()).await.expect("the bytes end, too");
    assert!(end.is_none(), "{what}: {end:?}");
}

/// An application whose events come when the test says so.
struct Events {
    app: App,
    tell: broadcast::Sender<String>,
}

impl Events {
    /// By HTTP/2 with prior knowledge, or by HTTP/1.1.
    async fn start(h2c: bool) -> Self {
        let (tell, _) = broadcast::channel::<String>(64);
        let source = tell.clone();
        let app = App::start(move |stream| {
            let source = source.clone();
            tokio::spawn(async move {
                // Whoever asks has gone, if anything breaks.
                if h2c {
                    drop(Self::by_http2(stream, source).await);
                } else {
                    drop(Self::by_http1(stream, source.subscribe()).await);
                }
            })
        })
        .await;
        Self { app, tell }
    }

    async fn by_http1(mut stream: TcpStream, mut events: broadcast::Receiver<String>) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        if !head.starts_with(b"GET /events") {
            return stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        }
        let answer =
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(answer).await?;
        while let Ok(event) = events.recv().await {
            if event.is_empty() {
                return stream.write_all(b"0\r\n\r\n").await;
            }
            stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
        }
        Ok(())
    }

    async fn by_http2(stream: TcpStream, source: broadcast::Sender<String>) -> Result<(), h2::Error> {
        let mut connection = h2::server::handshake(stream).await?;
        let mut streams = JoinSet::new();
        while let Some(request) = connection.accept().await {
            let (request, mut respond) = request?;
            let mut events = source.subscribe();
            streams.spawn(async move {
                let head = http::Response::builder().header("content-type", "text/event-stream").body(());
                let is_over = request.uri().path() != "/events";
                let mut stream = respond.send_response(head.expect("a head"), is_over)?;
                while let Ok(event) = events.recv().await {
                    let is_last = event.is_empty();
                    stream.send_data(event.into(), is_last)?;
                    if is_last {
                        break;
                    }
                }
                Ok::<_, h2::Error>(())
            });
        }
        Ok(())
    }
}

#[tokio::test]
async fn each_event_arrives_before_the_next_is_sent() {
    let compressed = "transport.useCompression = true\ntransport.useEncryption = true";
    for (way, h2c, more) in [
        (Way::Takeover, false, ""),
        (Way::Takeover, false, compressed),
        (Way::Takeover, true, "metadatas.gw_protocol = \"h2c\""),
        (Way::Vhost, false, ""),
        (Way::Vhost, false, compressed),
    ] {
        let events = Events::start(h2c).await;
        let proxy = Proxy::http("web", events.app.address, &[HOST]).line(more);
        let ground = Ground::start(way, &["a"], vec![proxy], "hold: off").await;
        for speech in Speech::ALL {
            let what = format!("{way:?} {more}, {speech:?}");
            let mut visitor = ground.visitor(speech).await;
            let asked = timeout(SOON, visitor.ask("GET", "/events", nothing())).await;
            // Nothing has happened so far: even the head doesn't wait for the first event.
            let response = asked.unwrap_or_else(|_| panic!("{what}: no head")).expect("an answer");
            assert_eq!(
                (response.status().as_u16(), &response.headers()["content-type"]),
                (200, &"text/event-stream".parse().expect("a value")),
                "{what}"
            );
            let mut body = response.into_body();
            for number in 1..=50 {
                let event = format!("id: {number}\ndata: {}\n\n", "x".repeat(number * number));
                events.tell.send(event.clone()).expect("the application listens");
                let mut heard = Vec::new();
                while heard.len() < event.len() {
                    let frame = timeout(SOON, body.frame())
                        .await
                        .unwrap_or_else(|_| panic!("{what}: event {number} is kept back"))
                        .expect("open")
                        .expect("whole");
                    heard.extend_from_slice(&frame.into_data().expect("data"));
                }
                assert!(heard == event.as_bytes(), "{what}: event {number}");
            }
            events.tell.send(String::new()).expect("the application listens");
            let rest = timeout(SOON, body.collect()).await.expect("it ends").expect("whole").to_bytes();
            assert!(rest.is_empty(), "{what}: {rest:?}");
        }
    }
}

/// The bytes of the demo application's `/bytes/N`, 0 to 255 in turn, made while they are sent.
struct Pattern {
    left: u64,
}

const BLOCK: usize = 64 << 10;

fn block() -> Bytes {
    Bytes::from_iter((0..BLOCK).map(|at| at.to_le_bytes()[0]))
}

impl Pattern {
    /// The CRC-32 of so many of its bytes, a multiple of the block's size.
    fn crc(size: u64) -> u32 {
        let mut one = crc32fast::Hasher::new();
        one.update(&block());
        let mut all = crc32fast::Hasher::new();
        (0..size / BLOCK as u64).for_each(|_| all.combine(&one));
        all.finalize()
    }
}

impl hyper::body::Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        thread_local!(static ONE: Bytes = block());
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let part =
            ONE.with(|block| block.slice(..block.len().min(usize::try_from(self.left).unwrap_or(BLOCK))));
        self.left -= part.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A body to the application and one from it, at the same time; both must arrive as they were sent.
async fn both_ways(ground: &Ground, speech: Speech, size: u64, what: &str) {
    let crc = Pattern::crc(size);
    let upload = async {
        let mut visitor = ground.visitor(speech).await;
        let response = visitor.ask("POST", "/echo", Pattern { left: size }.boxed()).await.expect("an answer");
        let heard: serde_json::Value = serde_json::from_str(&text(response).await).expect("JSON");
        assert_eq!(
            (&heard["body_length"], &heard["body_crc32"]),
            (&size.into(), &crc.into()),
            "{what}: to the application: {heard}"
        );
    };
    let download = async {
        let mut visitor = ground.visitor(speech).await;
        let response = visitor.ask("GET", &format!("/bytes/{size}"), nothing()).await.expect("an answer");
        let mut body = response.into_body();
        assert_eq!(body.size_hint().exact(), Some(size), "{what}: the length is told");
        let (mut got, mut sum) = (0, crc32fast::Hasher::new());
        while let Some(frame) = body.frame().await {
            let data = frame.expect("whole").into_data().expect("data");
            got += data.len() as u64;
            sum.update(&data);
        }
        assert_eq!((got, sum.finalize()), (size, crc), "{what}: from the application");
    };
    let both = Box::pin(async { tokio::join!(upload, download) });
    timeout(LONG, both).await.expect("in time");
}

#[tokio::test]
async fn large_bodies_pass_both_ways_at_once_whole_and_without_being_kept() {
    let long = std::env::var_os("FRP_GATEWAY_LONG_TESTS").is_some_and(|value| value == "1");
    for (way, protocol) in [(Way::Takeover, "h1"), (Way::Takeover, "h2c"), (Way::Vhost, "h1")] {
        let app = app("one");
        let proxy = Proxy::http("web", app.addr(), &[HOST]).metadata("gw_protocol", protocol);
        let ground = Ground::start(way, &["a"], vec![proxy], "hold: off").await;
        for speech in Speech::ALL {
            let what = format!("{way:?} {protocol}, {speech:?}");
            // The combination with the most between the two ends.
            let whole = long || (way, protocol, speech) == (Way::Takeover, "h1", Speech::Http2Tls);
            let size = if whole { 1 << 30 } else { 32 << 20 };
            Box::pin(both_ways(&ground, speech, 4 << 20, &what)).await;
            let (_, before) = ground.memory();
            let begun = Instant::now();
            Box::pin(both_ways(&ground, speech, size, &what)).await;
            let took = begun.elapsed();
            let (now, most) = ground.memory();
            println!(
                "{what}: {} MiB each way in {took:.1?}; the gateway has {now:.1} MiB, at most {most:.1} MiB, {before:.1} MiB before",
                size >> 20
            );
            assert!(most - before < 24.0, "{what}: {before:.1} MiB before, then up to {most:.1} MiB");
        }
    }
}
