//! Answers that the gateway makes itself. Each carries its class in `x-frp-gateway` and a request id, is counted under
//! the same class, and logged under it.

use std::{io::Write as _, time::Duration};

use tokio::{io::AsyncWriteExt, time::timeout};

use super::{connection::Connection, headers::OWN_ANSWER, stream::Stream};
use crate::{error::Refusal, snapshot::Listener};

/// Longest wait for a visitor to take one of our own answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an own answer is about, for the body and the log.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// Why.
    pub refusal: Refusal,
    /// The status in gRPC, where the request is one of it: the answer is a head alone then, and says 200.
    pub grpc: Option<u8>,
    /// Host asked for, lower case; empty when unknown.
    pub host: &'a str,
    /// Route and pool that were chosen, empty when none.
    pub route: &'a str,
    /// See `route`.
    pub pool: &'a str,
    /// More for the log: the parser's label or the I/O error.
    pub detail: &'a str,
    /// No body: the request was HEAD.
    pub head_only: bool,
    /// The connection stays open.
    pub keep_alive: bool,
    /// Whole lines that go with it.
    pub fields: &'a [u8],
    /// Id in the answer and the log.
    pub request_id: u64,
}

impl About<'_> {
    /// About a request of which nothing is known; the connection ends.
    #[must_use]
    pub fn unrouted(refusal: Refusal, request_id: u64) -> Self {
        Self {
            refusal,
            grpc: None,
            host: "",
            route: "",
            pool: "",
            detail: "",
            head_only: false,
            keep_alive: false,
            fields: &[],
            request_id,
        }
    }
}

/// Writes the answer. `false` when the visitor didn't take it.
pub async fn send(
    connection: &Connection,
    listener: &Listener,
    stream: &mut Stream,
    about: About<'_>,
) -> bool {
    let worker = &connection.worker;
    listener.stats.of(worker.id).own_answers[about.refusal.index()].inc();
    log(connection, listener, about);
    let text = render(about);
    let told = async {
        stream.write_all(&text).await?;
        stream.flush().await
    };
    matches!(timeout(PATIENCE, told).await, Ok(Ok(())))
}

fn log(connection: &Connection, listener: &Listener, about: About<'_>) {
    let Some(suppressed) = connection.worker.may_complain(about.refusal.label()) else { return };
    let (class, status) = (about.refusal.label(), about.refusal.status());
    let request_id = format_args!("{:016x}", about.request_id).to_string();
    // The visitor's faults are routine; the fleet's are not.
    if status >= 500 {
        tracing::warn!(
            class,
            status,
            request_id,
            listener = &*listener.name,
            host = about.host,
            route = about.route,
            pool = about.pool,
            detail = about.detail,
            suppressed,
            "request not served"
        );
    } else {
        tracing::info!(
            class, status, request_id, listener = &*listener.name, host = about.host, peer = %connection.peer,
            detail = about.detail, suppressed, "request refused"
        );
    }
}

/// The whole answer, head and body.
#[must_use]
pub fn render(about: About<'_>) -> Vec<u8> {
    let refusal = about.refusal;
    if let Some(status) = about.grpc {
        return render_grpc(about, status);
    }
    let reason = reason(refusal.status());
    let host = if about.host.is_empty() { String::new() } else { format!("host: {}\n", about.host) };
    let body = format!(
        "{} {reason}\n{}\n{host}class: {}\nrequest id: {:016x}\n",
        refusal.status(),
        refusal.explanation(),
        refusal.label(),
        about.request_id,
    );
    let mut out = Vec::with_capacity(512);
    let head = write!(
        out,
        "HTTP/1.1 {} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         {OWN_ANSWER}: {}\r\nx-request-id: {:016x}\r\nCache-Control: no-store\r\n",
        refusal.status(),
        body.len(),
        refusal.label(),
        about.request_id,
    );
    head.expect("writing to a Vec cannot fail");
    if refusal.retry_later() {
        out.extend_from_slice(b"Retry-After: 1\r\n");
    }
    if refusal == Refusal::Unauthorized {
        // As frps asks.
        out.extend_from_slice(b"WWW-Authenticate: Basic realm=\"Restricted\"\r\n");
    }
    if refusal == Refusal::MethodRefused {
        out.extend_from_slice(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE\r\n");
    }
    out.extend_from_slice(about.fields);
    if !about.keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if !about.head_only {
        out.extend_from_slice(body.as_bytes());
    }
    out
}

/// As gRPC wants it: how it went is in the head, and there is nothing else.
fn render_grpc(about: About<'_>, status: u8) -> Vec<u8> {
    let refusal = about.refusal;
    let mut out = Vec::with_capacity(512);
    let head = write!(
        out,
        "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\ngrpc-status: {status}\r\n\
         grpc-message: {} (frp-gateway: {}, request id {:016x})\r\n{OWN_ANSWER}: {}\r\nx-request-id: {:016x}\r\n",
        refusal.explanation(),
        refusal.label(),
        about.request_id,
        refusal.label(),
        about.request_id,
    );
    head.expect("writing to a Vec cannot fail");
    out.extend_from_slice(about.fields);
    if !about.keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        421 => "Misdirected Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_answer_names_its_class_and_request_id_and_its_length_is_true() {
        let about = About {
            refusal: Refusal::TunnelAway,
            grpc: None,
            host: "app.test",
            route: "r",
            pool: "p",
            detail: "",
            head_only: false,
            keep_alive: true,
            fields: &[],
            request_id: 0xabc,
        };
        let text = String::from_utf8(render(about)).expect("ascii");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        assert!(head.contains("\r\nx-frp-gateway: tunnel_away\r\n"), "{head}");
        assert!(head.contains("\r\nRetry-After: 1"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        assert!(body.contains("app.test") && body.contains("0000000000000abc"), "{body}");
        let head_only = render(About { head_only: true, ..about });
        assert!(head_only.ends_with(b"\r\n\r\n"), "an answer to HEAD has no body");
    }

    #[test]
    fn grpc_reads_a_refusal_in_the_head() {
        let about = About { grpc: Some(14), ..About::unrouted(Refusal::TunnelAway, 0xabc) };
        let text = String::from_utf8(render(about)).expect("ascii");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n"), "{text}");
        assert!(text.contains("\r\ngrpc-status: 14\r\n"), "{text}");
        assert!(text.contains("\r\nx-frp-gateway: tunnel_away\r\n"), "{text}");
        assert!(text.contains("\r\nContent-Length: 0\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    }

    #[test]
    fn unauthorized_asks_for_basic_credentials_as_frps_does() {
        let about = About { keep_alive: true, ..About::unrouted(Refusal::Unauthorized, 1) };
        let text = String::from_utf8(render(about)).expect("ascii");
        assert!(text.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{text}");
        assert!(text.contains("\r\nWWW-Authenticate: Basic realm=\"Restricted\"\r\n"), "{text}");
        assert!(text.contains("\r\nx-frp-gateway: unauthorized\r\n"), "{text}");
        assert!(!text.contains("Connection: close") && !text.contains("Retry-After"), "{text}");
        let other = String::from_utf8(render(About { refusal: Refusal::NoRoute, ..about })).expect("ascii");
        assert!(!other.contains("WWW-Authenticate"), "only with 401: {other}");
    }
}
