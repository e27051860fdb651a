//! HTTP/2 in clear text (prior knowledge, RFC 9113 §3.3) to endpoints: many requests share one connection.
//!
//! The request path knows HTTP/1 alone. For an endpoint that speaks h2c its stream is a conversation in memory: what is written
//! to it is read as an HTTP/1.1 request and becomes an HTTP/2 stream ([`request`]), what comes back is rendered as an HTTP/1.1
//! answer ([`answer`]). So picking, retries, hedging, limits and outliers count streams as they count requests over HTTP/1.
//!
//! [`carriers`] keeps a worker's connections, [`carrier`] is one of them, [`exchange`] one stream on it.

pub mod answer;
pub mod carrier;
pub mod carriers;
pub mod exchange;
pub mod request;

use std::{fmt, io};

pub use self::{carrier::Carrier, carriers::Carriers, exchange::Exchange};

/// The endpoint has done nothing with a request: it may be sent again, whatever its method (RFC 9113 §8.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untouched {
    /// This request: `REFUSED_STREAM`.
    Refused,
    /// The connection takes no new ones, and this was one: `GOAWAY` with a lower last stream, or it had ended before.
    Closing,
}

impl fmt::Display for Untouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "the endpoint refused the stream",
            Self::Closing => "the endpoint takes no more streams on this connection",
        })
    }
}

impl std::error::Error for Untouched {}

/// Whether `error` says that nothing was done with the request.
#[must_use]
pub fn untouched(error: &io::Error) -> Option<Untouched> {
    error.get_ref()?.downcast_ref().copied()
}

/// What an error of the connection or of the stream means for the request on it.
fn to_io(error: h2::Error) -> io::Error {
    if error.is_remote() && error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM) {
        return io::Error::new(io::ErrorKind::ConnectionRefused, Untouched::Refused);
    }
    // Those that the endpoint may have seen stay open after a GOAWAY, and end with the connection.
    if error.is_remote() && error.is_go_away() {
        return io::Error::new(io::ErrorKind::ConnectionRefused, Untouched::Closing);
    }
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

#[cfg(test)]
mod tests;
