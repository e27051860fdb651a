//! Authorities that look whether a name is ours (RFC 8555 §8.3): answered before anything is routed, or sent elsewhere.

use std::{io::Write as _, time::Duration};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use super::{connection::Next, headers::OWN_ANSWER};
use crate::{
    acme::proofs,
    http1::{Method, RequestHead},
};

/// Longest wait for the authority to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What `x-frp-gateway` says of it.
const CLASS: &str = "acme";

/// Whether the request could be an authority's. Costs a comparison of a few bytes.
#[must_use]
pub fn is_asked_for(head: &RequestHead, wire: &[u8]) -> bool {
    matches!(head.method, Method::Get | Method::Head) && head.path.of(wire).starts_with(proofs::PREFIX)
}

/// Gives the proof.
pub async fn send<S: AsyncWrite + Unpin>(
    proof: &str,
    head_only: bool,
    keep_alive: bool,
    stream: &mut S,
) -> Next {
    let mut text = Vec::with_capacity(320);
    let end = if keep_alive { "" } else { "Connection: close\r\n" };
    let head = write!(
        text,
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\
         {OWN_ANSWER}: {CLASS}\r\nCache-Control: no-store\r\n{end}\r\n",
        proof.len()
    );
    head.expect("writing to a Vec cannot fail");
    if !head_only {
        text.extend_from_slice(proof.as_bytes());
    }
    let told = async {
        stream.write_all(&text).await?;
        stream.flush().await
    };
    match timeout(PATIENCE, told).await {
        Ok(Ok(())) if keep_alive => Next::KeepAlive,
        Ok(Ok(())) => Next::Linger,
        Ok(Err(_)) | Err(_) => Next::Close,
    }
}
