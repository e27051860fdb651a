//! Probes of one endpoint for one pool: a connect or an HTTP request, again and again; streaks make the verdict.
//!
//! Each probe uses a connection of its own: what is asked is whether a *new* visitor could be served. frps's own 404 page
//! fails an HTTP probe unless 404 is expected, so a probe with a tunnel's host also tells whether the tunnel is there.

use std::{
    fmt,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use frp_gateway_config::model::{Health, HealthCheck};
use http_body_util::Empty;
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use lb_algos::Rng;
use tokio::{net::TcpStream, time::timeout};

use super::streak::Streak;
use crate::{
    frps::poller::jittered,
    snapshot::{Endpoint, Verdict},
};

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeFailure {
    /// The host name has no address.
    Unresolved,
    /// No connection.
    Connect(String),
    /// Not within the deadline.
    Timeout(Duration),
    /// A status that is not expected.
    Status(u16),
    /// The connection broke, or what came is not HTTP.
    Broken(String),
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved => f.write_str("its name has no address"),
            Self::Connect(error) => write!(f, "connect: {error}"),
            Self::Timeout(deadline) => write!(f, "no answer within {deadline:?}"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Broken(error) => write!(f, "broken answer: {error}"),
        }
    }
}

/// Probes until aborted. Goes on from the verdict it finds, so a changed interval forgets nothing.
pub async fn probe(
    pool: String,
    endpoint: Arc<Endpoint>,
    verdict: Arc<Verdict>,
    health: Health,
    mut rng: Rng,
) {
    let mut streak = Streak::new(verdict.is_healthy(), health.rise, health.fall);
    // Many probes begin at the same reload; their first ones are spread over an interval.
    tokio::time::sleep(health.interval.mul_f64(rng.f64())).await;
    loop {
        let begun = Instant::now();
        let result = once(&endpoint, &health).await;
        if let Some(healthy) = streak.observe(result.is_ok()) {
            verdict.set(healthy);
            let endpoint = endpoint.label();
            match result {
                Ok(()) => tracing::info!(%pool, %endpoint, "endpoint healthy"),
                Err(reason) => tracing::warn!(%pool, %endpoint, %reason, "endpoint unhealthy"),
            }
        }
        tokio::time::sleep(jittered(health.interval, &mut rng).saturating_sub(begun.elapsed())).await;
    }
}

/// One probe within its deadline.
///
/// # Errors
/// Why it failed.
pub async fn once(endpoint: &Endpoint, health: &Health) -> Result<(), ProbeFailure> {
    let addresses = endpoint.addresses.load_full();
    timeout(health.timeout, attempt(&addresses, &health.check))
        .await
        .unwrap_or(Err(ProbeFailure::Timeout(health.timeout)))
}

async fn attempt(addresses: &[SocketAddr], check: &HealthCheck) -> Result<(), ProbeFailure> {
    if addresses.is_empty() {
        return Err(ProbeFailure::Unresolved);
    }
    let stream =
        TcpStream::connect(addresses).await.map_err(|error| ProbeFailure::Connect(error.to_string()))?;
    match check {
        HealthCheck::Tcp => Ok(()),
        HealthCheck::Http { host, path, expect } => {
            let status = http(stream, host, path).await?;
            let expected = expect.iter().any(|(low, high)| (*low..=*high).contains(&status));
            if expected { Ok(()) } else { Err(ProbeFailure::Status(status)) }
        }
    }
}

/// The status that `GET path` gets. Its body is not waited for.
async fn http(stream: TcpStream, host: &str, path: &str) -> Result<u16, ProbeFailure> {
    let broken = |error: &dyn std::error::Error| ProbeFailure::Broken(error.to_string());
    let request = Request::get(path)
        .header(HOST, host)
        .header(CONNECTION, "close")
        .header(USER_AGENT, concat!("frp-gateway-probe/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let (mut answer, mut connection) = (pin!(sender.send_request(request)), pin!(connection));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // It may end in the same moment as the answer is complete; without one, `answer` says why.
        _ended = &mut connection => answer.await,
    };
    answer.map(|answer| answer.status().as_u16()).map_err(|error| broken(&error))
}

#[cfg(test)]
mod tests;
