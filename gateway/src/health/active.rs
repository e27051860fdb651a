//! Probes of one endpoint for one pool: a connect or an HTTP request, again and again; streaks make the verdict.
//!
//! Each probe uses a connection of its own: what is asked is whether a *new* visitor could be served. frps's own 404 page
//! fails an HTTP probe unless 404 is expected, so a probe with a tunnel's host also tells whether the tunnel is there.
//!
//! While an endpoint is ejected, HTTP probes that succeed `rise` times in a row ask the outlier watch to end that early. A
//! TCP connect doesn't: it reaches the frps whatever the application behind the tunnel does.

use std::{
    error::Error,
    fmt,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use frp_gateway_config::model::{Health, HealthCheck};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use lb_algos::{Rng, Tick};
use memchr::memmem;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    grpc::{self, Refused},
    streak::Streak,
};
use crate::{
    clock,
    snapshot::{Endpoint, MemberState},
};

/// Who asks.
pub(super) const AGENT: &str = concat!("frp-gateway-probe/", env!("CARGO_PKG_VERSION"));

/// As much of a body is looked at.
const BODY_LOOKED_AT: usize = 64 * 1024;

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeFailure {
    /// The host name has no address.
    Unresolved,
    /// No connection.
    Connect(String),
    /// No TLS, or it isn't who it should be.
    Tls(String),
    /// Not within the deadline.
    Timeout(Duration),
    /// A status that is not expected.
    Status(u16),
    /// The body lacks the expected text.
    Body,
    /// An application that speaks gRPC says that it doesn't serve.
    NotServing(Refused),
    /// gRPC is asked for where only HTTP/1.1 gets through.
    Vhost,
    /// HTTP/2 is asked for, and what came back isn't.
    NoHttp2,
    /// The connection broke, or what came is not HTTP.
    Broken(String),
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved => f.write_str("its name has no address"),
            Self::Connect(error) => write!(f, "connect: {error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Timeout(deadline) => write!(f, "no answer within {deadline:?}"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Body => f.write_str("the body lacks the expected text"),
            Self::NotServing(said) => said.fmt(f),
            Self::Vhost => f.write_str(
                "it is reached by its frps's vhost, which speaks HTTP/1.1 to the application: let it be taken over",
            ),
            Self::NoHttp2 => f.write_str("it doesn't speak HTTP/2"),
            Self::Broken(error) => write!(f, "broken answer: {error}"),
        }
    }
}

/// What is probed, for whom.
#[derive(Debug, Clone)]
pub struct Probed {
    /// Name of the pool.
    pub pool: String,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// It is spoken to in HTTP/2.
    pub h2c: bool,
    /// What the pool has learnt about it.
    pub member: Arc<MemberState>,
    /// Where the pool's outlier watch is woken.
    pub bell: Arc<Notify>,
}

/// Probes until aborted. Goes on from the verdict it finds, so a changed interval forgets nothing.
pub async fn probe(probed: Probed, health: Health, mut rng: Rng) {
    let Probed { pool, endpoint, h2c, member, bell } = probed;
    let mut streak = Streak::new(member.is_healthy(), health.rise, health.fall);
    let mut comeback = Comeback::default();
    // Many probes begin at the same reload; their first ones are spread over an interval.
    tokio::time::sleep(health.interval.mul_f64(rng.f64())).await;
    loop {
        let begun = Instant::now();
        let result = once(&endpoint, h2c, &health).await;
        if reaches_application(&health.check)
            && comeback.observe(result.is_ok(), member.ejected_until(), health.rise)
        {
            member.ask_back();
            bell.notify_one();
        }
        if let Some(healthy) = streak.observe(result.is_ok()) {
            member.set_healthy(healthy, clock::now());
            let endpoint = endpoint.label();
            match result {
                Ok(()) => tracing::info!(%pool, %endpoint, "endpoint healthy"),
                Err(reason) => tracing::warn!(%pool, %endpoint, %reason, "endpoint unhealthy"),
            }
        }
        let wait = pause(&health, streak.is_in_doubt(), &mut rng);
        tokio::time::sleep(wait.saturating_sub(begun.elapsed())).await;
    }
}

/// Time from the beginning of one probe to that of the next: shorter while the last result speaks against the verdict.
fn pause(health: &Health, in_doubt: bool, rng: &mut Rng) -> Duration {
    let usual = if in_doubt { health.fast_interval.min(health.interval) } else { health.interval };
    let jitter = f64::from(health.jitter.min(100)) / 100.0;
    usual.mul_f64(1.0 + jitter * (2.0 * rng.f64() - 1.0))
}

const fn reaches_application(check: &HealthCheck) -> bool {
    match check {
        HealthCheck::Tcp => false,
        HealthCheck::Http { .. } | HealthCheck::Grpc { .. } => true,
    }
}

/// Successes in a row within one ejection.
#[derive(Debug, Default)]
struct Comeback {
    ejection: Option<Tick>,
    successes: u32,
}

impl Comeback {
    /// Whether `rise` successes in a row speak for ending the ejection early. `until` is its end, which tells one from the
    /// next; what was seen before it began doesn't count.
    fn observe(&mut self, success: bool, until: Option<Tick>, rise: u32) -> bool {
        if until != self.ejection || !success {
            *self = Self { ejection: until, successes: 0 };
        }
        if !success || until.is_none() {
            return false;
        }
        self.successes += 1;
        if self.successes < rise.max(1) {
            return false;
        }
        self.successes = 0;
        true
    }
}

/// One probe within its deadline. `h2c`: the endpoint is spoken to in HTTP/2.
///
/// # Errors
/// Why it failed.
pub async fn once(endpoint: &Endpoint, h2c: bool, health: &Health) -> Result<(), ProbeFailure> {
    let addresses = endpoint.addresses();
    timeout(health.timeout, attempt(endpoint, &addresses, h2c, health))
        .await
        .unwrap_or(Err(ProbeFailure::Timeout(health.timeout)))
}

async fn attempt(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    h2c: bool,
    health: &Health,
) -> Result<(), ProbeFailure> {
    // Whatever the vhost would say of the call, it wouldn't say why.
    if matches!(health.check, HealthCheck::Grpc { .. }) && endpoint.id.tunnel.is_none() {
        return Err(ProbeFailure::Vhost);
    }
    if addresses.is_empty() {
        return Err(ProbeFailure::Unresolved);
    }
    let stream =
        TcpStream::connect(addresses).await.map_err(|error| ProbeFailure::Connect(error.to_string()))?;
    // A probe must not reach somebody else's application either.
    if let Some(guard) = &endpoint.guard
        && (!guard.watch.is_still(&guard.registration).await || endpoint.is_gone())
    {
        return Err(ProbeFailure::Connect("the port isn't this tunnel's any more".into()));
    }
    let Some(tls) = &endpoint.tls else { return ask(stream, h2c, health).await };
    let (config, name) = tls.with(&endpoint.id.host).map_err(|error| ProbeFailure::Tls(error.to_string()))?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    ask(stream.map_err(|error| ProbeFailure::Tls(error.to_string()))?, h2c, health).await
}

/// What there is to ask once a connection is there.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    h2c: bool,
    health: &Health,
) -> Result<(), ProbeFailure> {
    match &health.check {
        HealthCheck::Tcp => Ok(()),
        HealthCheck::Http { host, path, expect, body } => {
            let judge = |answer| judge(answer, expect, body.as_deref());
            if h2c { http2(stream, host, path, judge).await } else { http1(stream, host, path, judge).await }
        }
        HealthCheck::Grpc { host, service } => grpc::check(stream, host, service, health.timeout).await,
    }
}

/// `GET path` over HTTP/1.1.
async fn http1<F: Future<Output = Result<(), ProbeFailure>>>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
    judge: impl FnOnce(Response<Incoming>) -> F,
) -> Result<(), ProbeFailure> {
    let request = Request::get(path)
        .header(HOST, host)
        .header(CONNECTION, "close")
        .header(USER_AGENT, AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(|error| ProbeFailure::Broken(error.to_string()))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
        judge(answer).await
    };
    over(connection, exchange).await
}

/// Runs `connection` until `exchange`, which goes over it, has ended.
pub(super) async fn over<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        biased;
        result = &mut exchange => result,
        // It may end in the same moment as the answer is complete; without one, `exchange` says why.
        _ended = &mut connection => exchange.await,
    }
}

/// `GET path` over HTTP/2 in clear.
async fn http2<F: Future<Output = Result<(), ProbeFailure>>>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
    judge: impl FnOnce(Response<Incoming>) -> F,
) -> Result<(), ProbeFailure> {
    let request = Request::get(format!("http://{host}{path}"))
        .header(USER_AGENT, AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(|error| ProbeFailure::Broken(error.to_string()))?;
    grpc::exchange(stream, request, judge).await
}

/// An answer, by its status and, where text is wanted, by its body.
async fn judge(
    answer: Response<Incoming>,
    expect: &[(u16, u16)],
    text: Option<&str>,
) -> Result<(), ProbeFailure> {
    let status = answer.status().as_u16();
    if !expect.iter().any(|(low, high)| (*low..=*high).contains(&status)) {
        return Err(ProbeFailure::Status(status));
    }
    match text {
        None => Ok(()), // the body is not waited for
        Some(text) => contains(answer.into_body(), text.as_bytes()).await,
    }
}

/// Whether the first 64 KiB hold `text`; reads no further than it must.
async fn contains(mut body: Incoming, text: &[u8]) -> Result<(), ProbeFailure> {
    let mut seen = Vec::new();
    loop {
        // Where a match that the last piece began may start.
        let from = seen.len().saturating_sub(text.len());
        let Some(frame) = body.frame().await else { return Err(ProbeFailure::Body) };
        let frame = frame.map_err(|error| broken(&error))?;
        let Some(piece) = frame.data_ref() else { continue };
        let room = BODY_LOOKED_AT - seen.len();
        seen.extend_from_slice(&piece[..piece.len().min(room)]);
        if memmem::find(&seen[from..], text).is_some() {
            return Ok(());
        }
        if seen.len() == BODY_LOOKED_AT {
            return Err(ProbeFailure::Body);
        }
    }
}

/// What broke, with its causes: hyper's own words for whatever goes wrong in HTTP/2 are "http2 error".
pub(super) fn broken(error: &hyper::Error) -> ProbeFailure {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(is_no_http2) {
            return ProbeFailure::NoHttp2;
        }
        said.push_str(": ");
        said.push_str(&error.to_string());
        cause = error.source();
    }
    ProbeFailure::Broken(said)
}

/// Text where a frame should begin: its first three bytes, read as a length, are more than any frame's.
fn is_no_http2(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_library() && error.reason() == Some(h2::Reason::FRAME_SIZE_ERROR)
}

#[cfg(test)]
mod tests;
