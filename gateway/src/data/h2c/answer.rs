//! The way down: one HTTP/2 answer → bytes of HTTP/1.1.

use std::{
    io::{self, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use h2::{RecvStream, client::ResponseFuture};
use http::{HeaderMap, HeaderName, StatusCode, header, response::Parts};
use tokio::{
    io::ReadBuf,
    time::{Sleep, sleep},
};

use super::to_io;
use crate::{data::grpc, http1::Known};

/// Told to a visitor of gRPC whose endpoint broke in the middle of an answer.
const CUT: &[u8] = b"0\r\ngrpc-status: 14\r\ngrpc-message: the endpoint broke the connection\r\n\r\n";
/// Told to one whose own deadline passes in the middle of an answer.
const LATE: &[u8] = b"0\r\ngrpc-status: 4\r\ngrpc-message: the deadline passed\r\n\r\n";

/// An answer on its way.
#[derive(Debug)]
pub struct Answer {
    state: State,
    /// Rendered, not yet read: from `at`.
    rendered: Vec<u8>,
    at: usize,
    /// Payload, not yet read; comes after `rendered`.
    piece: Bytes,
    failed: Option<io::Error>,
    head_only: bool,
    websocket: Option<String>,
    expires: Option<Pin<Box<Sleep>>>,
    grpc_status: Option<u8>,
    /// It broke, and was ended in the words of gRPC.
    mended: bool,
}

#[derive(Debug)]
enum State {
    Waiting(ResponseFuture),
    Body { from: RecvStream, framing: Framing },
    Trailers(RecvStream),
    Over,
}

/// How the payload is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// As it is: its length was told, or it is a WebSocket's.
    Plain,
    /// In chunks, trailers after them.
    Chunked { grpc: bool },
}

/// What there is to know of the request.
#[derive(Debug)]
pub struct Asked {
    /// Its answer has no body.
    pub head_only: bool,
    /// It asks for a WebSocket: `Sec-WebSocket-Accept` of the answer that grants it.
    pub websocket: Option<String>,
    /// How long gRPC gives it.
    pub timeout: Option<Duration>,
}

impl Answer {
    /// The answer to a request that was sent.
    #[must_use]
    pub fn new(response: ResponseFuture, asked: Asked) -> Self {
        Self {
            state: State::Waiting(response),
            rendered: Vec::new(),
            at: 0,
            piece: Bytes::new(),
            failed: None,
            head_only: asked.head_only,
            websocket: asked.websocket,
            expires: asked.timeout.map(|timeout| Box::pin(sleep(timeout))),
            grpc_status: None,
            mended: false,
        }
    }

    /// Whether it broke, and was ended in the words of gRPC (`UNAVAILABLE`) so that nobody takes it for whole.
    #[must_use]
    pub const fn is_mended(&self) -> bool {
        self.mended
    }

    /// How gRPC says that it went, as soon as that is known.
    #[must_use]
    pub const fn grpc_status(&self) -> Option<u8> {
        self.grpc_status
    }

    /// Reads; nothing = it is over.
    ///
    /// # Errors
    /// The stream's or the connection's. What came before has been read by then.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        while into.remaining() > 0 {
            if self.take_out(into)? {
                continue;
            }
            let some = into.filled().len() > before;
            match self.poll_more(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => break,
                Poll::Ready(Err(error)) if some => {
                    self.failed = Some(error);
                    break;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if some => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// `Ready` when a read would bring bytes, the end, or an error.
    pub fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.at < self.rendered.len() || !self.piece.is_empty() || self.failed.is_some() {
            return Poll::Ready(Ok(()));
        }
        if let Err(error) = ready!(self.poll_more(cx)) {
            self.failed = Some(error);
        }
        Poll::Ready(Ok(()))
    }

    /// Copies what is there; whether there was anything.
    fn take_out(&mut self, into: &mut ReadBuf<'_>) -> io::Result<bool> {
        let rendered = &self.rendered[self.at..];
        if !rendered.is_empty() {
            let n = rendered.len().min(into.remaining());
            into.put_slice(&rendered[..n]);
            self.at += n;
            if self.at == self.rendered.len() {
                self.rendered.clear();
                self.at = 0;
            }
            return Ok(true);
        }
        if self.piece.is_empty() {
            return Ok(false);
        }
        let n = self.piece.len().min(into.remaining());
        into.put_slice(&self.piece[..n]);
        self.piece.advance(n);
        if let State::Body { from, framing } = &mut self.state {
            // Whoever doesn't read slows its endpoint down, and nobody else.
            from.flow_control().release_capacity(n).map_err(to_io)?;
            if self.piece.is_empty() && matches!(framing, Framing::Chunked { .. }) {
                self.rendered.extend_from_slice(b"\r\n");
            }
        }
        Ok(true)
    }

    /// Gets more of the answer; `false` = there is no more.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let Some(error) = self.failed.take() {
            self.state = State::Over;
            return Poll::Ready(Err(error));
        }
        if self.is_late(cx) {
            return Poll::Ready(Ok(true));
        }
        loop {
            match &mut self.state {
                State::Waiting(response) => {
                    // Its errors are those of the answer, which is asked next.
                    if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
                        status_line(&mut self.rendered, interim.status());
                        fields(&mut self.rendered, interim.headers(), |_| true);
                        self.rendered.extend_from_slice(b"\r\n");
                        return Poll::Ready(Ok(true));
                    }
                    let answer = match ready!(Pin::new(response).poll(cx)) {
                        Ok(answer) => answer,
                        Err(error) => {
                            self.state = State::Over;
                            return Poll::Ready(Err(to_io(error)));
                        }
                    };
                    let (head, from) = answer.into_parts();
                    self.state = self.head(&head, from);
                    return Poll::Ready(Ok(true));
                }
                State::Body { from, framing } => match ready!(from.poll_data(cx)) {
                    Some(Ok(data)) if data.is_empty() => {}
                    Some(Ok(data)) => {
                        if matches!(framing, Framing::Chunked { .. }) {
                            write_to(&mut self.rendered, |out| write!(out, "{:x}\r\n", data.len()));
                        }
                        self.piece = data;
                        return Poll::Ready(Ok(true));
                    }
                    Some(Err(error)) => {
                        let grpc = *framing == Framing::Chunked { grpc: true };
                        return self.broken(grpc, error);
                    }
                    None if *framing == Framing::Plain => self.state = State::Over,
                    None => {
                        let State::Body { from, .. } = std::mem::replace(&mut self.state, State::Over) else {
                            continue;
                        };
                        self.state = State::Trailers(from);
                    }
                },
                State::Trailers(from) => {
                    match ready!(from.poll_trailers(cx)) {
                        Ok(trailers) => {
                            self.rendered.extend_from_slice(b"0\r\n");
                            if let Some(trailers) = trailers {
                                self.grpc_status = grpc_status(&trailers);
                                fields(&mut self.rendered, &trailers, may_be_trailer);
                            }
                            self.rendered.extend_from_slice(b"\r\n");
                        }
                        // The chunks were whole; the last word is missing.
                        Err(error) => return self.broken(true, error),
                    }
                    self.state = State::Over;
                    return Poll::Ready(Ok(true));
                }
                State::Over => return Poll::Ready(Ok(false)),
            }
        }
    }

    /// Whether the visitor's own deadline has passed in the middle of an answer of gRPC, which it then ends. Before there is a
    /// head, whoever waits for one knows the deadline.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let streaming = matches!(
            self.state,
            State::Body { framing: Framing::Chunked { grpc: true }, .. } | State::Trailers(_)
        );
        let late =
            streaming && self.expires.as_mut().is_some_and(|expires| expires.as_mut().poll(cx).is_ready());
        if late {
            self.state = State::Over;
            self.rendered.extend_from_slice(LATE);
            self.grpc_status = Some(grpc::DEADLINE_EXCEEDED);
        }
        late
    }

    /// The answer ends before its end.
    fn broken(&mut self, grpc: bool, error: h2::Error) -> Poll<io::Result<bool>> {
        self.state = State::Over;
        if !grpc {
            return Poll::Ready(Err(to_io(error)));
        }
        self.mended = true;
        self.grpc_status = Some(grpc::UNAVAILABLE);
        self.rendered.extend_from_slice(CUT);
        Poll::Ready(Ok(true))
    }

    /// Renders the head; what follows it.
    fn head(&mut self, head: &Parts, from: RecvStream) -> State {
        let out = &mut self.rendered;
        if let Some(accept) = self.websocket.as_ref().filter(|_| head.status.is_success()) {
            status_line(out, StatusCode::SWITCHING_PROTOCOLS);
            out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ");
            out.extend_from_slice(accept.as_bytes());
            out.extend_from_slice(b"\r\n");
            fields(out, &head.headers, |name| *name != header::CONTENT_LENGTH);
            out.extend_from_slice(b"\r\n");
            return State::Body { from, framing: Framing::Plain };
        }
        status_line(out, head.status);
        self.grpc_status = grpc_status(&head.headers);
        let bodyless =
            self.head_only || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let told = head.headers.contains_key(header::CONTENT_LENGTH);
        let grpc = is_grpc(&head.headers);
        if bodyless {
            fields(out, &head.headers, |_| true);
            out.extend_from_slice(b"\r\n");
            return State::Over;
        }
        if from.is_end_stream() {
            fields(out, &head.headers, |name| *name != header::CONTENT_LENGTH);
            out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
            return State::Over;
        }
        // Trailers come after chunks only, and gRPC has some always.
        if told && !grpc {
            fields(out, &head.headers, |_| true);
            out.extend_from_slice(b"\r\n");
            return State::Body { from, framing: Framing::Plain };
        }
        fields(out, &head.headers, |name| *name != header::CONTENT_LENGTH);
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        State::Body { from, framing: Framing::Chunked { grpc } }
    }
}

fn is_grpc(fields: &HeaderMap) -> bool {
    fields.get(header::CONTENT_TYPE).is_some_and(|value| grpc::is_grpc_type(value.as_bytes()))
}

fn grpc_status(fields: &HeaderMap) -> Option<u8> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    let reason = status.canonical_reason().unwrap_or_default();
    write_to(out, |out| write!(out, "HTTP/1.1 {} {reason}\r\n", status.as_str()));
}

/// Writes the fields that belong to the message; what speaks of a connection has no place in HTTP/2 (RFC 9113 §8.2.2).
fn fields(out: &mut Vec<u8>, fields: &HeaderMap, wanted: impl Fn(&HeaderName) -> bool) {
    for (name, value) in fields {
        if Known::of(name.as_str().as_bytes()).is_hop() || !wanted(name) {
            continue;
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Trailers that would pass for what frames, routes or authenticates are left out, names that look alike included.
fn may_be_trailer(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is_forbidden = |name: &[u8]| Known::of(name).is_forbidden_in_trailers();
    // Applications that turn fields into variables read both as the same.
    let folded = name.replace('_', "-");
    !(is_forbidden(name.as_bytes()) || is_forbidden(folded.as_bytes()))
}

fn write_to(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
    write(out).expect("writing to a Vec cannot fail");
}
