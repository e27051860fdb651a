//! The application at the far end of a tunnel: it says who it is and misbehaves on request.
//!
//! HTTP/1.1 and HTTP/2 with prior knowledge on one port. Every answer carries `x-app: NAME`, except `/fake404`.
//!
//! | path | answer |
//! | --- | --- |
//! | `/` | `hello from NAME` |
//! | `/echo` | JSON: method, target, version, header fields in order, length and CRC-32 of the body, trailers |
//! | `/slow?ms=50` | the same hello, so much later |
//! | `/status/404` | that status, with a body of the app's own |
//! | `/fake404` | frps's own 404, byte for byte: what an application could imitate |
//! | `/bytes/N` | N bytes, counted (`?chunked=1`: without a length) |
//! | `/cut/N` | announces N bytes, sends half, closes |
//! | `/abort` | closes without an answer |
//! | `/hang` | never answers |
//! | `/sse?n=5&ms=10` | n server-sent events, one every ms |
//! | `/trailers` | a chunked body with a trailer `x-crc32` |
//! | `/ws` | WebSocket: echoes text and binary |
//! | `/healthz` | 200, or 503 after [`DemoApp::set_healthy`]`(false)` |
//! | `/count` | requests so far, this one included |
//!
//! Anything else is the app's own 404. How to have it slow or failing while it runs: [`DemoApp::start_steered`].

use std::{
    convert::Infallible,
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full, channel::Channel, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE},
    service::service_fn,
    upgrade,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::json;
use tokio::{sync::oneshot, time::sleep};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use crate::lab::{LabError, Version};

use behaviour::Behaviour;

mod behaviour;

/// The page of frps 0.61 to 0.71 for an unknown host and for every failed tunnel; `frp-lab/build` takes it out of frps.
/// Empty when that has not run.
#[must_use]
pub fn frps_404() -> String {
    let page = Version::V071.binary("404.html").ok().and_then(|path| std::fs::read_to_string(path).ok());
    page.unwrap_or_default()
}

const X_APP: HeaderName = HeaderName::from_static("x-app");

type Answer = Response<BoxBody<Bytes, io::Error>>;

/// A running demo application. Ends, with all its connections, when dropped.
///
/// It has a thread of its own, so it answers even while the caller's runtime is blocked.
#[derive(Debug)]
pub struct DemoApp {
    address: SocketAddr,
    control: Option<SocketAddr>,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    name: HeaderValue,
    requests: AtomicU64,
    behaviour: Arc<Behaviour>,
}

impl DemoApp {
    /// Starts one on a free loopback port.
    ///
    /// # Errors
    /// When there is none, or `name` can't be a header value.
    pub fn start(name: &str) -> Result<Self, LabError> {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into(), name)
    }

    /// Starts one on `address`, for example again on the port it had before.
    ///
    /// # Errors
    /// When the address is taken, or `name` can't be a header value.
    pub fn start_on(address: SocketAddr, name: &str) -> Result<Self, LabError> {
        Self::start_steered(address, name, None)
    }

    /// Like [`start_on`](Self::start_on); `control` is one more address, on which it is told how to misbehave:
    /// `POST /delay?ms=500&jitter=5`, `/fail?percent=100&status=500&ms=1`, `/healthy?yes=0`.
    ///
    /// # Errors
    /// When an address is taken, `control` isn't loopback, or `name` can't be a header value.
    pub fn start_steered(
        address: SocketAddr,
        name: &str,
        control: Option<SocketAddr>,
    ) -> Result<Self, LabError> {
        let what = || format!("start demo app {name} on {address}");
        let bind = |address: SocketAddr| {
            let listener = TcpListener::bind(address).map_err(LabError::io(what()))?;
            listener.set_nonblocking(true).map_err(LabError::io(what()))?;
            Ok(listener)
        };
        if control.is_some_and(|control| !control.ip().is_loopback()) {
            let why = io::Error::new(io::ErrorKind::InvalidInput, "the control address must be loopback");
            return Err(LabError::io(what())(why));
        }
        let listener = bind(address)?;
        let control = control.map(bind).transpose()?;
        let address = listener.local_addr().map_err(LabError::io(what()))?;
        let control_address =
            control.as_ref().map(TcpListener::local_addr).transpose().map_err(LabError::io(what()))?;
        let state = Arc::new(State {
            name: HeaderValue::from_str(name).map_err(LabError::http(what()))?,
            requests: AtomicU64::new(0),
            behaviour: Arc::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(LabError::io(what()))?;
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&state);
        let thread = thread::spawn(move || {
            // Dropping the runtime afterwards closes every connection.
            runtime.block_on(async {
                if let Some(control) = control {
                    tokio::spawn(behaviour::control(control, Arc::clone(&served.behaviour)));
                }
                tokio::select! {
                    () = accept(listener, served) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, control: control_address, state, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it is told how to misbehave, if anywhere.
    #[must_use]
    pub fn control_addr(&self) -> Option<SocketAddr> {
        self.control
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Relaxed)
    }

    /// Every answer from now on comes so much later.
    pub fn set_delay(&self, delay: Duration) {
        let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.state.behaviour.delay_ms.store(milliseconds, Relaxed);
    }

    /// What `/healthz` says from now on.
    pub fn set_healthy(&self, healthy: bool) {
        self.state.behaviour.healthy.store(healthy, Relaxed);
    }

    /// From now on everything is answered with this status, without delay; `None` = as usual.
    pub fn set_failing(&self, status: Option<u16>) {
        self.state.behaviour.set_failing(status);
    }

    /// Ends it: the port refuses connections when this returns.
    pub fn stop(self) {
        drop(self);
    }

    /// Serves until the process ends.
    pub fn run_forever(mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Drop for DemoApp {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("made non-blocking by the caller");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: let some connections end first.
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        stream.set_nodelay(true).ok();
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&state)));
            auto::Builder::new(TokioExecutor::new())
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

/// An error closes the connection without an answer.
async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Answer, io::Error> {
    let number = state.requests.fetch_add(1, Relaxed) + 1;
    let (delay, failure) = state.behaviour.of(number);
    if !delay.is_zero() {
        sleep(delay).await;
    }
    if let Some(status) = failure {
        let mut response = text(status, "as told\n".into());
        response.headers_mut().insert(X_APP, state.name.clone());
        return Ok(response);
    }
    let name = state.name.to_str().unwrap_or("?").to_owned();
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let mut response = match path.split_once('/').map_or("", |(_, rest)| rest).split_once('/') {
        Some(("status", code)) => match code.parse() {
            Ok(code @ 200..=599) => text(code, format!("{name} says {code}\n")),
            _ => text(400, "a status is 200 to 599\n".into()),
        },
        Some(("bytes", count)) => match count.parse() {
            Ok(count) => bytes(count, parameter(&query, "chunked", 0) == 0),
            Err(_) => text(400, "/bytes/N takes a number\n".into()),
        },
        Some(("cut", count)) => match count.parse() {
            Ok(count) => cut(count),
            Err(_) => text(400, "/cut/N takes a number\n".into()),
        },
        _ => match path.as_str() {
            "/" => hello(&name),
            "/echo" => echo(request).await,
            "/slow" => {
                sleep(Duration::from_millis(parameter(&query, "ms", 50))).await;
                hello(&name)
            }
            "/fake404" => {
                let mut page = text(404, frps_404());
                page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
                return Ok(page);
            }
            "/abort" => return Err(io::Error::other("asked to")),
            "/hang" => pending().await,
            "/sse" => events(parameter(&query, "n", 5), parameter(&query, "ms", 10)),
            "/trailers" => trailers(&name),
            "/ws" => websocket(request),
            "/healthz" if state.behaviour.healthy.load(Relaxed) => text(200, "ok\n".into()),
            "/healthz" => text(503, "unhealthy\n".into()),
            "/count" => text(200, format!("{number}\n")),
            _ => text(404, format!("{name} has no {path}\n")),
        },
    };
    response.headers_mut().insert(X_APP, state.name.clone());
    Ok(response)
}

fn hello(name: &str) -> Answer {
    text(200, format!("hello from {name}\n"))
}

fn text(status: u16, body: String) -> Answer {
    respond(status, "text/plain; charset=utf-8", Full::new(Bytes::from(body)).map_err(never).boxed())
}

fn respond(status: u16, content_type: &'static str, body: BoxBody<Bytes, io::Error>) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(status).expect("checked by the caller");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

/// The request as it arrived, for a test to look at.
async fn echo(request: Request<Incoming>) -> Answer {
    let (head, mut body) = request.into_parts();
    let mut crc = crc32fast::Hasher::new();
    let mut length = 0;
    let mut trailer_fields = HeaderMap::new();
    let mut fault = None;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if let Some(data) = frame.data_ref() {
                    crc.update(data);
                    length += data.len();
                } else if let Ok(fields) = frame.into_trailers() {
                    trailer_fields = fields;
                }
            }
            Err(error) => fault = Some(error.to_string()),
        }
    }
    let pairs = |fields: &HeaderMap| -> Vec<[String; 2]> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        fields.iter().map(|(name, value)| [name.to_string(), text(value)]).collect()
    };
    let seen = json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "version": format!("{:?}", head.version),
        "headers": pairs(&head.headers),
        "body_length": length,
        "body_crc32": crc.finalize(),
        "body_error": fault,
        "trailers": pairs(&trailer_fields),
    });
    respond(200, "application/json", Full::new(Bytes::from(format!("{seen}\n"))).map_err(never).boxed())
}

fn bytes(count: u64, with_length: bool) -> Answer {
    respond(200, "application/octet-stream", Pattern { left: count, with_length }.map_err(never).boxed())
}

/// Byte values 0–255 in turn, generated on the way out.
struct Pattern {
    left: u64,
    with_length: bool,
}

impl Pattern {
    const BLOCK: usize = 64 * 1024;
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static BLOCK: [u8; Pattern::BLOCK] = {
            let mut block = [0; Pattern::BLOCK];
            let mut at = 0;
            while at < Pattern::BLOCK {
                block[at] = at.to_le_bytes()[0];
                at += 1;
            }
            block
        };
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let size = usize::try_from(self.left).map_or(Self::BLOCK, |left| left.min(Self::BLOCK));
        self.left -= size as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&BLOCK[..size])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.with_length { SizeHint::with_exact(self.left) } else { SizeHint::new() }
    }
}

/// Breaks off in the middle of what it announced.
fn cut(count: u64) -> Answer {
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(4);
    let half = usize::try_from(count / 2).unwrap_or(usize::MAX).min(Pattern::BLOCK);
    tokio::spawn(async move {
        sender.send_data(Bytes::from(vec![b'x'; half])).await.ok();
        // hyper drops what it has not written yet when the body fails.
        sleep(Duration::from_millis(20)).await;
        sender.abort(io::Error::other("asked to"));
    });
    let mut response = respond(200, "application/octet-stream", body.boxed());
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(count));
    response
}

fn events(count: u64, pause_ms: u64) -> Answer {
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
    tokio::spawn(async move {
        for number in 1..=count {
            if sender.send_data(Bytes::from(format!("data: {number}\n\n"))).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(pause_ms)).await;
        }
    });
    respond(200, "text/event-stream", body.boxed())
}

fn trailers(name: &str) -> Answer {
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(2);
    let text = format!("hello with trailers from {name}\n");
    tokio::spawn(async move {
        let crc = crc32fast::hash(text.as_bytes());
        sender.send_data(Bytes::from(text)).await.ok();
        let fields = HeaderMap::from_iter([(HeaderName::from_static("x-crc32"), HeaderValue::from(crc))]);
        sender.send_trailers(fields).await.ok();
    });
    let mut response = respond(200, "text/plain; charset=utf-8", body.boxed());
    response.headers_mut().insert("trailer", HeaderValue::from_static("x-crc32"));
    response
}

fn websocket(mut request: Request<Incoming>) -> Answer {
    let Some(key) = request.headers().get("sec-websocket-key") else {
        return text(400, "this path speaks WebSocket\n".into());
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("base64 is a header value");
    let upgraded = upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Full::new(Bytes::new()).map_err(never).boxed());
    *response.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-accept", accept);
    response
}

/// The number after `key=` in a query.
fn parameter(query: &str, key: &str, default: u64) -> u64 {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| *name == key).find_map(|(_, value)| value.parse().ok()).unwrap_or(default)
}
