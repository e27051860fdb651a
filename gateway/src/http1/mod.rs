//! A strict HTTP/1 codec without I/O: bytes in, spans and framing out.
//!
//! Its rule: whatever two parsers could read differently is refused, in requests and in responses. So what the gateway
//! forwards means the same to everybody behind it (RFC 9112 §11.2). It never copies: a head is a list of [`Span`]s over
//! the caller's buffer, a body is framed where it lies.
//!
//! [`RequestHead::parse`] and [`ResponseHead::parse`] are called again from the start when more bytes have come; heads
//! are short and bounded. [`ChunkedDecoder`] keeps its place.

mod chunked;
mod error;
mod field;
mod framing;
mod request;
mod response;
mod span;
mod target;
mod token;

pub use self::{
    chunked::{Chunk, ChunkError, ChunkedDecoder, Scan},
    error::HeadError,
    field::{Field, Known},
    request::{Method, RequestBody, RequestHead, TargetForm, Version},
    response::{ResponseBody, ResponseHead},
    span::{HeadLimits, Span},
};
