//! One stream as a conversation in HTTP/1: reads give its request, writes take its answer.
//!
//! Flow control goes through: a body is taken from the visitor as fast as it is read here, an answer is taken here as fast as
//! the visitor's window allows.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::render::{self, Framing};
use crate::{
    data::stream::{Conversation, Stream},
    http1::{Chunk, ChunkedDecoder, HeadLimits, Known, Method, ResponseBody, ResponseHead},
};

#[cfg(test)]
mod tests;

/// Bounds of answers' heads: they come from our own request path, which has its own.
const LIMITS: HeadLimits = HeadLimits { head_bytes: 1 << 20, line_bytes: 64 * 1024, fields: 2000 };

/// Parts of a body share a frame of up to this many bytes; a larger part is sent as it is.
const FRAME: usize = 16 * 1024;

/// Fields of most answers.
const USUAL_FIELDS: usize = 16;

/// A stream.
#[derive(Debug)]
pub struct Visit {
    request: Inbound,
    answer: Outbound,
}

/// What the visitor sends.
#[derive(Debug)]
struct Inbound {
    body: RecvStream,
    framing: Framing,
    /// Rendered bytes that haven't been read.
    ahead: Vec<u8>,
    taken: usize,
    /// A part of the body that hasn't been read.
    part: Bytes,
    /// Nothing more will come.
    ended: bool,
}

/// What we answer.
#[derive(Debug)]
struct Outbound {
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    method: Method,
    websocket: bool,
    state: State,
    /// Bytes of a head, or of chunk framing and trailers, that isn't complete.
    partial: Vec<u8>,
    /// A part of the body that isn't sent: it may turn out to be the last, and small parts share a frame. Visitors count small
    /// frames that they haven't read, and hang up on too many.
    held: Vec<u8>,
    broken: bool,
}

#[derive(Debug)]
enum State {
    /// A head is due.
    Head,
    Length(u64),
    Chunked(ChunkedDecoder),
    /// Until we end it.
    Open,
    Over,
}

impl Visit {
    /// A stream whose request has come.
    ///
    /// # Errors
    /// The request is malformed; what it could be answered with is given back.
    pub fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> Result<Self, SendResponse<Bytes>> {
        let mut ahead = Vec::with_capacity(512);
        let ended = request.body().is_end_stream();
        let nonce = rand_bytes(request.body().stream_id().as_u32());
        let framing = match render::head(&request, ended, nonce, &mut ahead) {
            Ok(framing) => framing,
            Err(render::Malformed(why)) => {
                tracing::debug!(why, "stream refused");
                return Err(respond);
            }
        };
        let method = if framing == Framing::Raw { Method::Get } else { method(request.method()) };
        let body = request.into_body();
        Ok(Self {
            request: Inbound {
                body,
                framing,
                ahead,
                taken: 0,
                part: Bytes::new(),
                ended: framing == Framing::None,
            },
            answer: Outbound {
                respond,
                send: None,
                method,
                websocket: framing == Framing::Raw,
                state: State::Head,
                partial: Vec::new(),
                held: Vec::new(),
                broken: false,
            },
        })
    }
}

impl From<Visit> for Stream {
    fn from(visit: Visit) -> Self {
        Self::Shared(Box::new(std::cell::RefCell::new(visit)))
    }
}

/// The key of a WebSocket's handshake is for caches that don't know WebSockets: it needn't be secret.
fn rand_bytes(stream: u32) -> [u8; 16] {
    let mut nonce = [0; 16];
    nonce[..4].copy_from_slice(&stream.to_be_bytes());
    nonce
}

fn method(method: &http::Method) -> Method {
    if *method == http::Method::HEAD { Method::Head } else { Method::Get }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Inbound {
    fn copy(&mut self, into: &mut ReadBuf<'_>) -> bool {
        if self.taken < self.ahead.len() {
            let n = into.remaining().min(self.ahead.len() - self.taken);
            into.put_slice(&self.ahead[self.taken..self.taken + n]);
            self.taken += n;
            if self.taken == self.ahead.len() {
                self.ahead.clear();
                self.taken = 0;
            }
            // Payload follows its chunk line in the same read.
            if into.remaining() == 0 || self.part.is_empty() {
                return true;
            }
        }
        if self.part.is_empty() {
            return !into.filled().is_empty();
        }
        let n = into.remaining().min(self.part.len());
        into.put_slice(&self.part.split_to(n));
        // It is out of our hands as far as flow control is concerned: whoever reads has room for it.
        drop(self.body.flow_control().release_capacity(n));
        if self.part.is_empty() && self.framing == Framing::Chunked {
            self.ahead.extend_from_slice(b"\r\n");
            let n = into.remaining().min(2);
            into.put_slice(&self.ahead[..n]);
            self.taken = n;
            if n == 2 {
                self.ahead.clear();
                self.taken = 0;
            }
        }
        true
    }

    /// Gets the next part of the body, or its end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.body.poll_data(cx)) {
            Some(Ok(part)) => {
                if part.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                if self.framing == Framing::Chunked {
                    use io::Write as _;
                    write!(self.ahead, "{:x}\r\n", part.len())?;
                }
                self.part = part;
                Poll::Ready(Ok(()))
            }
            Some(Err(_)) => Poll::Ready(Err(gone())),
            None => {
                let trailers = ready!(self.body.poll_trailers(cx)).map_err(|_reset| gone())?;
                self.ended = true;
                if self.framing == Framing::Chunked {
                    self.ahead.extend_from_slice(b"0\r\n");
                    render::trailers(&trailers.unwrap_or_default(), &mut self.ahead);
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Outbound {
    /// `Ready` when the visitor has reset the stream.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.send {
            Some(send) => send.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        match reset {
            // RFC 9113 §8.1: it has all it wants, and that isn't an error.
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Takes what `bytes` begin with; how much.
    fn poll_take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.state {
            State::Head => Poll::Ready(self.take_head(bytes)),
            State::Length(0) | State::Over => Poll::Ready(Ok(bytes.len())),
            State::Length(left) => {
                let most = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                let n = ready!(self.poll_payload(cx, &bytes[..most]))?;
                if let State::Length(left) = &mut self.state {
                    *left -= n as u64;
                    if *left == 0 {
                        self.end(None)?;
                    }
                }
                Poll::Ready(Ok(n))
            }
            State::Open => self.poll_payload(cx, bytes),
            State::Chunked(decoder) => {
                if !self.partial.is_empty() {
                    return Poll::Ready(self.take_framing(bytes));
                }
                let before = decoder.clone();
                match decoder.next(bytes).map_err(io::Error::other)? {
                    Chunk::Data(most) => {
                        let n = match self.poll_payload(cx, &bytes[..most]) {
                            Poll::Ready(n) => n?,
                            Poll::Pending => {
                                self.state = State::Chunked(before);
                                return Poll::Pending;
                            }
                        };
                        if n < most {
                            let mut again = before;
                            again.next(&bytes[..n]).map_err(io::Error::other)?;
                            self.state = State::Chunked(again);
                        }
                        Poll::Ready(Ok(n))
                    }
                    Chunk::Framing(n) => {
                        self.after_framing(&bytes[..n])?;
                        Poll::Ready(Ok(n))
                    }
                    Chunk::NeedMore => Poll::Ready(self.take_framing(bytes)),
                    Chunk::Done => Poll::Ready(Ok(bytes.len())),
                }
            }
        }
    }

    /// Collects the bytes of a line that isn't complete.
    fn take_framing(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let State::Chunked(decoder) = &mut self.state else { return Ok(0) };
        let before = self.partial.len();
        self.partial.extend_from_slice(bytes);
        match decoder.next(&self.partial).map_err(io::Error::other)? {
            Chunk::NeedMore => Ok(bytes.len()),
            Chunk::Framing(n) => {
                let framing = std::mem::take(&mut self.partial);
                self.after_framing(&framing[..n])?;
                Ok(n - before)
            }
            Chunk::Data(_) | Chunk::Done => Ok(0),
        }
    }

    /// The end of a chunked body is in its framing: an empty line, or trailers and one.
    fn after_framing(&mut self, framing: &[u8]) -> io::Result<()> {
        let State::Chunked(decoder) = &mut self.state else { return Ok(()) };
        if decoder.next(&[]).map_err(io::Error::other)? != Chunk::Done {
            return Ok(());
        }
        let mut trailers = HeaderMap::new();
        for line in framing.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let name = HeaderName::from_bytes(&line[..colon]);
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
            if let (Ok(name), Ok(value)) = (name, value) {
                trailers.append(name, value);
            }
        }
        self.end((!trailers.is_empty()).then_some(trailers))
    }

    /// Collects a head, and sends it once it is whole.
    fn take_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.partial.len();
        self.partial.extend_from_slice(bytes);
        let mut head = ResponseHead::default();
        head.fields.reserve(USUAL_FIELDS);
        if !head
            .parse(&self.partial, &LIMITS, self.method)
            .map_err(|error| io::Error::other(error.label()))?
        {
            return Ok(bytes.len());
        }
        // One block, which all values share.
        let wire = Bytes::from(std::mem::take(&mut self.partial));
        let upgraded = head.status == 101 && self.websocket;
        let mut answer = Response::new(());
        answer.headers_mut().reserve(head.fields.len());
        let status = if upgraded { 200 } else { head.status };
        *answer.status_mut() = StatusCode::from_u16(status).map_err(io::Error::other)?;
        for field in &head.fields {
            let name = field.name.of(&wire);
            let of_handshake = upgraded && name.eq_ignore_ascii_case(b"sec-websocket-accept");
            let of_connection = matches!(
                field.known,
                Known::Connection
                    | Known::KeepAlive
                    | Known::TransferEncoding
                    | Known::Upgrade
                    | Known::ProxyConnection
            );
            if of_connection || of_handshake {
                continue;
            }
            let name = HeaderName::from_bytes(name).map_err(io::Error::other)?;
            let value = wire.slice_ref(field.value.of(&wire));
            let value = HeaderValue::from_maybe_shared(value).map_err(io::Error::other)?;
            answer.headers_mut().append(name, value);
        }
        let taken = head.len - before;
        if head.status < 200 && !upgraded {
            // HTTP/2 has no other way to change the protocol.
            if head.status == 101 {
                return Err(io::ErrorKind::Unsupported.into());
            }
            self.respond.send_informational(answer).map_err(|_reset| gone())?;
            return Ok(taken);
        }
        let state = match head.body {
            _ if upgraded => State::Open,
            ResponseBody::None | ResponseBody::Length(0) => State::Over,
            ResponseBody::Length(length) => State::Length(length),
            ResponseBody::Chunked => State::Chunked(ChunkedDecoder::default()),
            ResponseBody::UntilClose => State::Open,
        };
        let over = matches!(state, State::Over);
        self.send = Some(self.respond.send_response(answer, over).map_err(|_reset| gone())?);
        self.state = state;
        Ok(taken)
    }

    /// Takes payload as far as the visitor's window goes.
    fn poll_payload(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.held.len() + bytes.len() > FRAME {
            self.send_held()?;
        }
        let mut room = self.room(bytes.len())?;
        if room == 0 && !self.held.is_empty() {
            // The visitor gives room for what it has got.
            self.send_held()?;
            room = self.room(bytes.len())?;
        }
        while room == 0 {
            let send = self.send.as_mut().ok_or_else(gone)?;
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(more)) => room = more,
                Some(Err(_)) | None => return Poll::Ready(Err(gone())),
            }
        }
        let n = room.min(bytes.len());
        self.held.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    /// Asks for room for so many bytes beside those that are held; how much there is now.
    fn room(&mut self, wanted: usize) -> io::Result<usize> {
        let held = self.held.len();
        let send = self.send.as_mut().ok_or_else(gone)?;
        send.reserve_capacity(held + wanted);
        Ok(send.capacity().saturating_sub(held))
    }

    fn send_held(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        let send = self.send.as_mut().ok_or_else(gone)?;
        send.send_data(held.into(), false).map_err(|_reset| gone())
    }

    /// Ends the answer, with what is held as its last part.
    fn end(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        self.state = State::Over;
        match trailers {
            None => {
                let held = std::mem::take(&mut self.held);
                let send = self.send.as_mut().ok_or_else(gone)?;
                send.send_data(held.into(), true).map_err(|_reset| gone())
            }
            Some(trailers) => {
                self.send_held()?;
                let send = self.send.as_mut().ok_or_else(gone)?;
                send.send_trailers(trailers).map_err(|_reset| gone())
            }
        }
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.send {
            Some(send) => send.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

impl AsyncRead for Visit {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { request, answer } = self.get_mut();
        loop {
            if request.copy(into) {
                return Poll::Ready(Ok(()));
            }
            if request.ended {
                // The end of a conversation is the end of what the visitor sends only where bytes are carried.
                if request.framing == Framing::Raw {
                    return Poll::Ready(Ok(()));
                }
                return match answer.poll_reset(cx) {
                    Poll::Ready(()) => Poll::Ready(Err(gone())),
                    Poll::Pending => Poll::Pending,
                };
            }
            ready!(request.poll_more(cx))?;
        }
    }
}

impl AsyncWrite for Visit {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut taken = 0;
        while taken < bytes.len() {
            match this.answer.poll_take(cx, &bytes[taken..]) {
                Poll::Ready(Ok(n)) => taken += n,
                Poll::Ready(Err(error)) => {
                    this.answer.broken = true;
                    return Poll::Ready(Err(error));
                }
                Poll::Pending if taken == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().answer.send_held())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let answer = &mut self.get_mut().answer;
        Poll::Ready(match answer.state {
            State::Open => answer.end(None),
            State::Head | State::Length(_) | State::Chunked(_) | State::Over => answer.send_held(),
        })
    }
}

impl Conversation for Visit {
    fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let request = &mut self.request;
        while request.ahead.is_empty() && request.part.is_empty() && !request.ended {
            ready!(request.poll_more(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let request = &mut self.request;
        while !request.ended {
            match ready!(request.body.poll_data(cx)) {
                Some(Ok(part)) => drop(request.body.flow_control().release_capacity(part.len())),
                Some(Err(_)) => request.ended = true,
                None => {
                    drop(ready!(request.body.poll_trailers(cx)));
                    request.ended = true;
                }
            }
        }
        Poll::Ready(())
    }

    fn reset(&mut self) {
        self.answer.broken = true;
        self.answer.reset(Reason::INTERNAL_ERROR);
    }

    fn is_quiet(&mut self) -> bool {
        false
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        match self.answer.state {
            // The visitor needn't send the rest of a request that has been answered (RFC 9113 §8.1): the h2 crate tells it so
            // (NO_ERROR) when nobody reads it any more, after the answer. A reset of ours would overtake what of the answer
            // isn't written yet.
            State::Over => {}
            // Not whole, and it must not look so.
            State::Head | State::Length(_) | State::Chunked(_) | State::Open => {
                self.answer.reset(Reason::INTERNAL_ERROR);
            }
        }
    }
}
