//! A probe by the gRPC health protocol (`grpc.health.v1.Health/Check`, <https://grpc.io/docs/guides/health-checking/>).
//!
//! The two messages have a field each, so they are written and read here: a code generator would be longer than they are.

use std::{fmt, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Body, Bytes, Incoming},
    client::conn::http2,
    header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::active::{AGENT, ProbeFailure, broken, over};

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// Longest answer that is read, bytes.
const LONGEST: usize = 4 * 1024;
/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What the application said, other than that it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// `ServingStatus` (0 = unknown, 2 = not serving, 3 = no such service).
    Serving(u64),
    /// `grpc-status`, not 0, and what it says of it.
    Status(u32, String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serving(0) => f.write_str("it says UNKNOWN"),
            Self::Serving(2) => f.write_str("it says NOT_SERVING"),
            Self::Serving(3) => f.write_str("it says SERVICE_UNKNOWN"),
            Self::Serving(other) => write!(f, "it says serving status {other}"),
            Self::Status(5, _) => f.write_str("it knows no such service (grpc-status 5)"),
            Self::Status(12, _) => f.write_str("it has no grpc.health.v1.Health (grpc-status 12)"),
            Self::Status(status, said) if said.is_empty() => write!(f, "grpc-status {status}"),
            Self::Status(status, said) => write!(f, "grpc-status {status}: {said}"),
        }
    }
}

/// Asks whether `service` (empty = the server as a whole) serves. `patience` is told to the server; the caller keeps to it.
///
/// # Errors
/// It doesn't, or nothing that can be understood says that it does.
pub async fn check(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    service: &str,
    patience: Duration,
) -> Result<(), ProbeFailure> {
    let request = Request::post(format!("http://{host}{METHOD}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header("grpc-timeout", format!("{}m", patience.as_millis().clamp(1, 99_999_999)))
        .header(USER_AGENT, AGENT)
        .body(Full::new(Bytes::from(request_for(service))))
        .map_err(|error| ProbeFailure::Broken(error.to_string()))?;
    exchange(stream, request, judge).await
}

/// One exchange over HTTP/2 in clear, judged as soon as its head is there.
///
/// # Errors
/// It broke, or `judge` says why.
pub(super) async fn exchange<B, F>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<B>,
    judge: impl FnOnce(Response<Incoming>) -> F,
) -> Result<(), ProbeFailure>
where
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + Unpin + 'static,
    F: Future<Output = Result<(), ProbeFailure>>,
{
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
        judge(answer).await
    };
    over(connection, exchange).await
}

/// The answer to a check.
async fn judge(answer: Response<Incoming>) -> Result<(), ProbeFailure> {
    if answer.status() != 200 {
        return Err(ProbeFailure::Status(answer.status().as_u16()));
    }
    status(answer.headers())?;
    let mut body = answer.into_body();
    let mut seen = Vec::new();
    let mut ended = None;
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| broken(&error))?.into_data() {
            Ok(piece) if seen.len() + piece.len() > LONGEST => return Err(nonsense("a long answer")),
            Ok(piece) => seen.extend_from_slice(&piece),
            Err(frame) => ended = frame.into_trailers().ok(),
        }
    }
    let trailers = ended.ok_or_else(|| nonsense("no trailers: not gRPC"))?;
    status(&trailers)?;
    if !trailers.contains_key("grpc-status") {
        return Err(nonsense("no grpc-status"));
    }
    match serving(&seen)? {
        1 => Ok(()),
        other => Err(ProbeFailure::NotServing(Refused::Serving(other))),
    }
}

/// What `grpc-status` says, where it is.
fn status(fields: &HeaderMap) -> Result<(), ProbeFailure> {
    let Some(status) = fields.get("grpc-status") else { return Ok(()) };
    let status = status.to_str().ok().and_then(|status| status.parse().ok());
    match status {
        Some(0) => Ok(()),
        Some(status) => {
            let said = fields.get("grpc-message").and_then(|said| said.to_str().ok()).unwrap_or_default();
            let said = said.chars().take(200).collect();
            Err(ProbeFailure::NotServing(Refused::Status(status, said)))
        }
        None => Err(nonsense("grpc-status is no number")),
    }
}

fn nonsense(what: &str) -> ProbeFailure {
    ProbeFailure::Broken(what.to_owned())
}

/// `HealthCheckRequest { service }`, with the prefix of a message.
fn request_for(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2); // field 1, bytes
        put_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut wire = vec![0]; // not compressed
    wire.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    wire.extend_from_slice(&message);
    wire
}

/// `HealthCheckResponse { status }` of one message.
fn serving(wire: &[u8]) -> Result<u64, ProbeFailure> {
    let (Some([compressed, length @ ..]), rest) = (wire.first_chunk::<PREFIX>(), wire.get(PREFIX..)) else {
        return Err(nonsense("an answer without a message"));
    };
    if *compressed != 0 {
        return Err(nonsense("a compressed answer"));
    }
    let message = rest.unwrap_or_default();
    if message.len() != u32::from_be_bytes(*length) as usize {
        return Err(nonsense("an answer that isn't one message"));
    }
    status_in(message).ok_or_else(|| nonsense("an answer that is no HealthCheckResponse"))
}

/// Field 1 of a message, which is an enum: the last one counts, and 0 is what isn't written. Other fields are passed over.
fn status_in(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        let skipped = match tag & 7 {
            0 => {
                let value = take_varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(take_varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

fn put_varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "the low seven bits")]
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "less than 0x80")]
    into.push(value as u8);
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
