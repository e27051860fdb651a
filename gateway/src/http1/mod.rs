//! A strict HTTP/1 codec without I/O: bytes in, spans and framing out.
//!
//! Its rule: whatever two parsers could read differently is refused, in requests and in responses. So what the gateway
//! forwards means the same to everybody behind it (RFC 9112 §11.2). It never copies: a head is a list of [`Span`]s over
//! the caller's buffer, a body is framed where it lies.
//!
//! Where the RFCs leave a choice, or ask for more mercy than is safe:
//! - line ends are CRLF, never LF; one empty line before a request is forgiven (RFC 9112 §2.2), none before a response;
//! - a target has no byte from 0x80 and no fragment; other visible ASCII passes, as browsers send it unescaped in queries;
//! - Host is `name[:port]` of unreserved characters, or a bracketed IPv6 address; not empty, no `%`, no `a:`;
//! - an absolute target and Host must agree, up to case and the scheme's port; the target is then the authority;
//! - Content-Length and Transfer-Encoding stand at most once, not together, even if they agree; only `chunked` is known;
//! - Connection may not name fields that are end-to-end by nature: some proxies would delete them, some wouldn't;
//! - `Proxy-Authenticate` and `Proxy-Authorization` end here; `Trailer` goes on, since trailers are forwarded;
//! - chunk lines have no white space, extensions only visible ASCII; no trailer may frame, route or authenticate.
//!
//! Not decided here: CONNECT is parsed (the caller refuses it), and so are field names with `_` other than look-alikes of
//! Content-Length and Transfer-Encoding.
//!
//! [`RequestHead::parse`] and [`ResponseHead::parse`] are called again from the start when more bytes have come; heads
//! are short and bounded. [`ChunkedDecoder`] keeps its place.

mod chunked;
mod error;
mod field;
mod framing;
mod known;
mod request;
mod response;
mod span;
mod target;
mod token;

pub use self::{
    chunked::{Chunk, ChunkError, ChunkedDecoder, Scan},
    error::HeadError,
    field::Field,
    known::Known,
    request::{Method, RequestBody, RequestHead, TargetForm, Version},
    response::{ResponseBody, ResponseHead},
    span::{HeadLimits, Span},
};
