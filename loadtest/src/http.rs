//! A client that shows a test exactly what came back: one connection per request unless asked otherwise, no redirects,
//! no decompression, no retries.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{HeaderMap, Request, client::conn::http1::SendRequest, http::request};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::lab::LabError;

/// Longest wait for a whole answer.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Body of a request.
pub type Body = BoxBody<Bytes, hyper::Error>;

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body, transfer coding removed.
    pub body: Bytes,
    /// Trailer fields; empty when there are none.
    pub trailers: HeaderMap,
}

impl Reply {
    /// The body as text; what isn't UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// First field called `name`, when it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The `x-app` header: which demo application answered.
    #[must_use]
    pub fn app(&self) -> Option<&str> {
        self.header("x-app")
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it isn't.
    pub fn json(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// `GET path` with that `Host`, on a connection of its own.
///
/// # Errors
/// When there is no whole answer within [`DEADLINE`].
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Reply, LabError> {
    send(address, request("GET", host, path).body(empty())).await
}

/// Start of a request; end it with `.body(empty())` or `.body(full(…))`.
#[must_use]
pub fn request(method: &str, host: &str, path: &str) -> request::Builder {
    Request::builder().method(method).uri(path).header("host", host)
}

/// No body.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// These bytes, with a `Content-Length`.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// Sends `request` on a connection of its own.
///
/// # Errors
/// When `request` isn't valid or there is no whole answer within [`DEADLINE`].
pub async fn send(
    address: SocketAddr,
    request: Result<Request<Body>, hyper::http::Error>,
) -> Result<Reply, LabError> {
    Connection::open(address).await?.send(request).await
}

/// A keep-alive connection.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    sender: SendRequest<Body>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When the connection is refused or takes longer than [`DEADLINE`].
    pub async fn open(address: SocketAddr) -> Result<Self, LabError> {
        let what = format!("connect to {address}");
        let stream =
            timeout(DEADLINE, TcpStream::connect(address)).await.map_err(LabError::http(what.clone()))?;
        let stream = stream.map_err(LabError::http(what.clone()))?;
        stream.set_nodelay(true).ok();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(LabError::http(what))?;
        // Its errors come back through `sender`.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Self { address, sender })
    }

    /// Sends `request` and reads the whole answer.
    ///
    /// # Errors
    /// When `request` isn't valid, the connection is closed, or there is no whole answer within [`DEADLINE`].
    pub async fn send(
        &mut self,
        request: Result<Request<Body>, hyper::http::Error>,
    ) -> Result<Reply, LabError> {
        let request = request.map_err(LabError::http("build a request"))?;
        let what = format!("{} {} at {}", request.method(), request.uri(), self.address);
        let exchange = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let body = body.collect().await?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            Ok(Reply { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes(), trailers })
        };
        let outcome: Result<Result<_, hyper::Error>, _> = timeout(DEADLINE, exchange).await;
        // hyper's own message names no cause ("connection error").
        outcome.map_err(LabError::http(what.clone()))?.map_err(|error| {
            let cause =
                std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            LabError::Http { what, cause: format!("{error}{cause}") }
        })
    }
}

/// Sends these very bytes and returns what comes back until the other side closes or `patience` is over.
///
/// # Errors
/// When the connection is refused. A reset counts as a close.
pub async fn raw(address: SocketAddr, bytes: &[u8], patience: Duration) -> Result<Vec<u8>, LabError> {
    let what = || format!("raw exchange with {address}");
    let mut stream = TcpStream::connect(address).await.map_err(LabError::io(what()))?;
    stream.set_nodelay(true).map_err(LabError::io(what()))?;
    let mut answer = Vec::new();
    let exchange = async {
        if stream.write_all(bytes).await.is_ok() {
            stream.read_to_end(&mut answer).await.ok();
        }
    };
    // Running out of patience is no error: the caller judges what came.
    timeout(patience, exchange).await.ok();
    Ok(answer)
}
