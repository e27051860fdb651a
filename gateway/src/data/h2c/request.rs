//! The way up: bytes of an HTTP/1.1 request → one HTTP/2 stream.

use std::{
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use h2::{SendStream, ext::Protocol};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::TE,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::to_io;
use crate::data::{grpc, headers::wants_trailers};
use crate::http1::{Chunk, ChunkedDecoder, Field, HeadLimits, Known, RequestBody, RequestHead};

/// The request was checked on its way in and has been extended by us since: bounds that it can't reach.
const LIMITS: HeadLimits = HeadLimits { head_bytes: 4 << 20, line_bytes: 2 << 20, fields: 10_000 };
/// RFC 6455 §1.3.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const HEX: &[u8; 16] = b"0123456789ABCDEF";
/// Most that is handed to the connection at once.
const PIECE: usize = 64 * 1024;

/// A request head in the terms of HTTP/2.
#[derive(Debug)]
pub struct Translated {
    /// What is sent.
    pub request: Request<()>,
    /// What follows it.
    pub framing: Framing,
    /// Answers have no body.
    pub head_only: bool,
    /// How long it may take, as it says (`grpc-timeout`).
    pub timeout: Option<Duration>,
    /// It asks for a WebSocket: `Sec-WebSocket-Accept` of the answer that grants it.
    pub websocket: Option<String>,
}

/// How the bytes after the head are to be read.
#[derive(Debug)]
pub enum Framing {
    /// There are none: the stream ends with its head.
    None,
    /// This many, more than 0.
    Length(u64),
    /// Chunked coding, with trailers.
    Chunked(ChunkedDecoder),
    /// As they come, until the writer ends.
    Raw,
}

/// Reads a request head from the start of `bytes`: its length with what it means; `None` = more bytes are needed.
///
/// # Errors
/// `InvalidInput`: it can't be said in HTTP/2.
pub fn translate(head: &mut RequestHead, bytes: &[u8]) -> io::Result<Option<(usize, Translated)>> {
    match head.parse(bytes, &LIMITS) {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(error) => return Err(unsayable(error)),
    }
    let websocket = head.upgrade.then(|| accept_key(head, bytes)).flatten();
    let path = target(head, bytes)?;
    let authority = Authority::try_from(head.host.of(bytes)).map_err(unsayable)?;
    let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path);
    let mut request = Request::new(());
    *request.uri_mut() = uri.build().map_err(unsayable)?;
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = match websocket {
        Some(_) => Method::CONNECT,
        None => Method::from_bytes(head.method_span.of(bytes)).map_err(unsayable)?,
    };
    if websocket.is_some() {
        request.extensions_mut().insert(Protocol::from_static("websocket"));
    }
    let head_only = *request.method() == Method::HEAD;
    let fields = request.headers_mut();
    fields.reserve(head.fields.len());
    for field in &head.fields {
        copy(fields, field, bytes, websocket.is_some())?;
    }
    let framing = match head.body {
        _ if websocket.is_some() => Framing::Raw,
        RequestBody::None | RequestBody::Length(0) => Framing::None,
        RequestBody::Length(length) => Framing::Length(length),
        RequestBody::Chunked => Framing::Chunked(ChunkedDecoder::default()),
    };
    let timeout = grpc::timeout(head, bytes);
    Ok(Some((head.len, Translated { request, framing, head_only, timeout, websocket })))
}

/// Adds a field, unless it belongs to HTTP/1 alone (RFC 9113 §8.2.2).
fn copy(fields: &mut HeaderMap, field: &Field, bytes: &[u8], websocket: bool) -> io::Result<()> {
    if field.known == Known::Te {
        // The only thing that may be said there, and gRPC wants it said.
        if wants_trailers(field.value.of(bytes)) {
            fields.insert(TE, HeaderValue::from_static("trailers"));
        }
        return Ok(());
    }
    let name = field.name.of(bytes);
    if field.hop
        || field.known == Known::Host
        || (websocket && name.eq_ignore_ascii_case(b"sec-websocket-key"))
    {
        return Ok(());
    }
    let name = HeaderName::from_bytes(name).map_err(unsayable)?;
    let value = HeaderValue::from_bytes(field.value.of(bytes)).map_err(unsayable)?;
    fields.append(name, value);
    Ok(())
}

/// `:path`. Bytes that stand in targets only because browsers put them there are escaped (RFC 3986 §2.1), which says the same.
fn target(head: &RequestHead, bytes: &[u8]) -> io::Result<PathAndQuery> {
    let mut target = head.path.of(bytes).to_vec();
    if target.is_empty() {
        target.push(b'/');
    }
    if let Some(query) = head.query {
        target.push(b'?');
        target.extend_from_slice(query.of(bytes));
    }
    if let Ok(path) = PathAndQuery::try_from(&*target) {
        return Ok(path);
    }
    let mut escaped = String::with_capacity(target.len() + 16);
    for byte in target {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'#' => {
                escaped.push('%');
                escaped.extend([byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)])));
            }
            byte => escaped.push(char::from(byte)),
        }
    }
    PathAndQuery::try_from(escaped).map_err(unsayable)
}

/// `Sec-WebSocket-Accept` for the request's key (RFC 6455 §4.2.2); `None` = it asks for something else.
fn accept_key(head: &RequestHead, bytes: &[u8]) -> Option<String> {
    let is_websocket = |field: &&Field| {
        field.known == Known::Upgrade && field.value.of(bytes).eq_ignore_ascii_case(b"websocket")
    };
    head.fields.iter().find(is_websocket)?;
    let key =
        head.fields.iter().find(|field| field.name.of(bytes).eq_ignore_ascii_case(b"sec-websocket-key"));
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.map_or(&[], |key| key.value.of(bytes)));
    hash.update(WEBSOCKET_GUID);
    Some(STANDARD.encode(hash.finish()))
}

fn unsayable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

impl Framing {
    /// Sends what `bytes` hold of the body, as far as the endpoint takes it: how many were used, 0 when it is over.
    /// A chunk line that isn't complete is not used.
    ///
    /// # Errors
    /// The stream's, or `InvalidInput` when the framing is broken.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut SendStream<Bytes>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::None => Poll::Ready(Ok(0)),
            Self::Raw => poll_data(cx, stream, bytes, |_| false),
            Self::Length(left) => {
                let most = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                let all = *left;
                let sent = ready!(poll_data(cx, stream, &bytes[..most], |sent| sent as u64 == all))?;
                *left -= sent as u64;
                if *left == 0 {
                    *self = Self::None;
                }
                Poll::Ready(Ok(sent))
            }
            Self::Chunked(decoder) => {
                // It counts what it is shown: no more of a chunk than can be sent.
                let mut ahead = decoder.clone();
                match ahead.next(bytes).map_err(unsayable)? {
                    Chunk::NeedMore => Poll::Ready(Ok(0)),
                    Chunk::Data(n) => {
                        let sent = ready!(poll_data(cx, stream, &bytes[..n], |_| false))?;
                        decoder.next(&bytes[..sent]).map_err(unsayable)?;
                        Poll::Ready(Ok(sent))
                    }
                    Chunk::Framing(n) => {
                        let over = ahead.next(&[]).map_err(unsayable)? == Chunk::Done;
                        *decoder = ahead;
                        if over {
                            end(stream, &bytes[..n])?;
                            *self = Self::None;
                        }
                        Poll::Ready(Ok(n))
                    }
                    Chunk::Done => Poll::Ready(Ok(0)),
                }
            }
        }
    }
}

/// Sends as much of `bytes` as the endpoint's windows allow; `last` says whether that many are the end.
fn poll_data(
    cx: &mut Context<'_>,
    stream: &mut SendStream<Bytes>,
    bytes: &[u8],
    last: impl Fn(usize) -> bool,
) -> Poll<io::Result<usize>> {
    if bytes.is_empty() {
        return Poll::Ready(Ok(0));
    }
    stream.reserve_capacity(bytes.len().min(PIECE));
    loop {
        let room = stream.capacity();
        if room > 0 {
            let n = room.min(bytes.len()).min(PIECE);
            stream.send_data(Bytes::copy_from_slice(&bytes[..n]), last(n)).map_err(to_io)?;
            return Poll::Ready(Ok(n));
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

/// Ends the stream with the trailers that stand in `section`, an empty line at its end.
fn end(stream: &mut SendStream<Bytes>, section: &[u8]) -> io::Result<()> {
    let mut trailers = HeaderMap::new();
    for line in section.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]).map_err(unsayable)?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).map_err(unsayable)?;
        trailers.append(name, value);
    }
    if trailers.is_empty() {
        stream.send_data(Bytes::new(), true).map_err(to_io)
    } else {
        stream.send_trailers(trailers).map_err(to_io)
    }
}
