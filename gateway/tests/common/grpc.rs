//! gRPC by hand: an application, and callers.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::panic,
    reason = "each test file uses its own part"
)]

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// Longest wait for anything; only a failing test waits so long.
const SOON: Duration = Duration::from_secs(30);

/// The host of the calls.
pub const HOST: &str = "rpc.test";

/// One message as gRPC frames it.
pub fn message(text: &str) -> Bytes {
    let mut framed = vec![0];
    framed.extend(u32::try_from(text.len()).expect("short").to_be_bytes());
    framed.extend(text.as_bytes());
    framed.into()
}

pub fn trailers(status: u8) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", u16::from(status).into());
    trailers
}

/// Sends as much as there is room for, until all is sent.
pub async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
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
pub async fn receive(stream: &mut RecvStream, count: usize) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while all.len() < count {
        let Some(part) = stream.data().await else { break };
        let part = part?;
        drop(stream.flow_control().release_capacity(part.len()));
        all.extend_from_slice(&part);
    }
    Ok(all)
}

/// The messages in these bytes.
pub fn messages(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let (one, more) = rest.split_at(usize::try_from(length).expect("small"));
        all.push(one);
        bytes = more;
    }
    assert!(bytes.is_empty(), "{bytes:?} is no whole message");
    all
}

/// A gRPC application by hand.
///
/// | method | does |
/// | --- | --- |
/// | `Echo` | gives back message by message as they come |
/// | `Collect` | answers a stream with one message: how many came, and how many bytes |
/// | `Count` | answers with as many messages as `x-count` says, and with the metadata `x-meta-bin` in its head |
/// | `Fail` | sends two messages, then FAILED_PRECONDITION with text and details |
/// | `Missing` | says NOT_FOUND without a body |
/// | `Hang` | never answers |
/// | `Forever` | sends a message and then nothing |
pub struct App {
    pub address: SocketAddr,
    pub calls: Arc<AtomicUsize>,
    /// What it says of its health (`ServingStatus`, or as [`Told`] has it). Such calls aren't counted.
    pub serving: Arc<AtomicU8>,
    /// How often it was asked about its health: by gRPC about `t.T`, or by a GET of `/`.
    pub asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// What an application says when it is asked about its health.
pub enum Told {
    /// `ServingStatus`, with status 0; by HTTP 200 for 1, else 503.
    Serving(u8),
    /// A head alone with this `grpc-status`; by HTTP 503.
    Status(u8),
    /// Nothing, ever.
    Nothing,
}

impl Told {
    const STATUS: u8 = 100;
    const NOTHING: u8 = 255;

    /// From now on it says so.
    pub fn by(&self, app: &App) {
        app.serving.store(
            match self {
                Self::Serving(status) => *status,
                Self::Status(status) => Self::STATUS + status,
                Self::Nothing => Self::NOTHING,
            },
            SeqCst,
        );
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl App {
    pub async fn start(name: &'static str) -> Self {
        Self::behind(name, None).await
    }

    /// The same, in TLS by this configuration.
    pub async fn over_tls(name: &'static str, config: ServerConfig) -> Self {
        Self::behind(name, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn behind(name: &'static str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let calls = Arc::new(AtomicUsize::new(0));
        let serving = Arc::new(AtomicU8::new(1));
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, health) = (Arc::clone(&calls), (Arc::clone(&serving), Arc::clone(&asked)));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (count, health, tls) = (Arc::clone(&count), health.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => Self::connection(name, stream, count, health).await,
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            Self::connection(name, stream, count, health).await;
                        }
                    }
                });
            }
        });
        Self { address, calls, serving, asked, task }
    }

    async fn connection<S: AsyncRead + AsyncWrite + Unpin>(
        name: &'static str,
        stream: S,
        count: Arc<AtomicUsize>,
        (serving, asked): (Arc<AtomicU8>, Arc<AtomicUsize>),
    ) {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        let mut calls = JoinSet::new();
        while let Some(Ok((request, respond))) = connection.accept().await {
            if ["/grpc.health.v1.Health/Check", "/"].contains(&request.uri().path()) {
                asked.fetch_add(1, SeqCst);
                let status = serving.load(SeqCst);
                calls.spawn(async move { drop(Self::tell(status, request, respond).await) });
                continue;
            }
            count.fetch_add(1, SeqCst);
            calls.spawn(async move { drop(Self::serve(name, request, respond).await) });
        }
    }

    /// Answers a health check, as [`Told`] has it.
    async fn tell(
        status: u8,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Result<(), h2::Error> {
        if status == Told::NOTHING {
            return std::future::pending().await;
        }
        if request.uri().path() == "/" {
            let head = Response::builder().status(if status == 1 { 200 } else { 503 }).body(());
            return respond.send_response(head.expect("a head"), true).map(drop);
        }
        let mut body = request.into_body();
        assert_eq!(receive(&mut body, usize::MAX).await?, b"\0\0\0\0\x05\x0a\x03t.T");
        let mut head =
            Response::builder().header("content-type", "application/grpc").body(()).expect("a head");
        if let Some(status) = status.checked_sub(Told::STATUS) {
            head.headers_mut().extend(trailers(status));
            return respond.send_response(head, true).map(drop);
        }
        let mut stream = respond.send_response(head, false)?;
        send(&mut stream, Bytes::from(vec![0, 0, 0, 0, 2, 8, status])).await?;
        stream.send_trailers(trailers(0))
    }

    async fn serve(
        name: &'static str,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Result<(), h2::Error> {
        assert_eq!(request.headers().get("te").map(HeaderValue::as_bytes), Some(&b"trailers"[..]));
        let (parts, mut body) = request.into_parts();
        let mut head = Response::builder().header("content-type", "application/grpc").header("x-app", name);
        if let Some(metadata) = parts.headers.get("x-meta-bin") {
            head = head.header("x-meta-bin", metadata);
        }
        let head = |status: Option<u8>| {
            let mut head = head.body(()).expect("a head");
            if let Some(status) = status {
                head.headers_mut().extend(trailers(status));
            }
            head
        };
        match parts.uri.path() {
            "/t.T/Hang" => std::future::pending().await,
            "/t.T/Missing" => drop(respond.send_response(head(Some(5)), true)?),
            "/t.T/Forever" => {
                let mut stream = respond.send_response(head(None), false)?;
                send(&mut stream, message("the only one")).await?;
                std::future::pending().await
            }
            "/t.T/Fail" => {
                let mut stream = respond.send_response(head(None), false)?;
                send(&mut stream, message("one")).await?;
                send(&mut stream, message("two")).await?;
                let mut last = trailers(9);
                last.insert("grpc-message", HeaderValue::from_static("not%20now: %E2%9C%97"));
                last.insert("x-detail-bin", HeaderValue::from_static("AAECA/8"));
                stream.send_trailers(last)?;
            }
            "/t.T/Collect" => {
                let all = receive(&mut body, usize::MAX).await?;
                let mut stream = respond.send_response(head(None), false)?;
                let said = format!("{} messages, {} bytes", messages(&all).len(), all.len());
                send(&mut stream, message(&said)).await?;
                stream.send_trailers(trailers(0))?;
            }
            "/t.T/Count" => {
                let many = parts.headers["x-count"].to_str().ok().and_then(|many| many.parse().ok());
                receive(&mut body, usize::MAX).await?;
                let mut stream = respond.send_response(head(None), false)?;
                for number in 0..many.unwrap_or(0) {
                    send(&mut stream, message(&format!("{number}: {}", "x".repeat(number)))).await?;
                }
                stream.send_trailers(trailers(0))?;
            }
            _ => {
                // The head comes before the first message: streams in both directions want that.
                let mut stream = respond.send_response(head(None), false)?;
                while let Some(part) = body.data().await {
                    let part = part?;
                    drop(body.flow_control().release_capacity(part.len()));
                    send(&mut stream, part).await?;
                }
                stream.send_trailers(trailers(0))?;
            }
        }
        Ok(())
    }
}

/// A connection that speaks HTTP/2.
pub async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

pub fn request(method: &str) -> http::request::Builder {
    Request::post(format!("http://{HOST}/t.T/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// How a call ended.
pub struct Ended {
    pub app: String,
    pub body: Vec<u8>,
    pub status: Option<u8>,
    pub http: u16,
    pub head: HeaderMap,
    pub trailers: HeaderMap,
}

pub fn status(fields: &HeaderMap) -> Option<u8> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

pub async fn begin(
    sender: &SendRequest<Bytes>,
    request: Request<()>,
) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), h2::Error> {
    sender.clone().ready().await?.send_request(request, false)
}

pub async fn end(response: Response<RecvStream>) -> Result<Ended, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let body = receive(&mut stream, usize::MAX).await?;
    let late = stream.trailers().await?;
    let app = head.headers.get("x-app").and_then(|app| app.to_str().ok()).unwrap_or_default().to_owned();
    let status = late.as_ref().and_then(status).or_else(|| self::status(&head.headers));
    Ok(Ended {
        app,
        body,
        status,
        http: head.status.as_u16(),
        head: head.headers,
        trailers: late.unwrap_or_default(),
    })
}

/// Sends these messages, and waits for the end.
pub async fn call(sender: &SendRequest<Bytes>, method: &str, messages: &[&str]) -> Result<Ended, h2::Error> {
    ask(sender, request(method), messages).await
}

/// The same, of this request.
pub async fn ask(
    sender: &SendRequest<Bytes>,
    request: http::request::Builder,
    messages: &[&str],
) -> Result<Ended, h2::Error> {
    let exchange = async {
        let (response, mut stream) = begin(sender, request.body(()).expect("a request")).await?;
        let sending = async {
            for text in messages {
                send(&mut stream, message(text)).await?;
            }
            stream.send_data(Bytes::new(), true)
        };
        // What comes back is read meanwhile: the application may not take the rest before.
        let receiving = async { end(response.await?).await };
        let (ended, ()) = tokio::try_join!(receiving, sending)?;
        Ok(ended)
    };
    timeout(SOON, exchange).await.expect("in time")
}
