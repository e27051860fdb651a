//! What one exchange consists of: the request and everything decided about it, working memory, how it ended.
//!
//! [`super::http`] fills these, [`super::attempt`] and [`super::respond`] work on them, [`super::access_log`] reads them.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use super::{
    absent::Scope, connection::Connection, hold::Away, reason::Why, relay::Relay, session::SessionCookie,
};
use crate::{
    error::Refusal,
    http1::{RequestHead, ResponseHead},
    snapshot::{Listener, Route, Snapshot, Split},
};

/// Working memory of one exchange, lent by the worker.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The visitor's head; its spans lie in the connection's buffer.
    pub request: RequestHead,
    /// The endpoint's head; its spans lie in the attempt's buffer.
    pub response: ResponseHead,
    /// Head for the endpoint.
    pub onward: Vec<u8>,
    /// Head for the visitor.
    pub homeward: Vec<u8>,
    /// Host: lower case, no port, no trailing dot.
    pub host: String,
    /// Members of the pool that were tried.
    pub tried: Vec<usize>,
    /// The affinity cookie that goes with the answer: a whole line, or nothing.
    pub set_cookie: Vec<u8>,
    /// What the visitor's affinity cookie says.
    pub session: SessionCookie,
    /// frps that hold the host.
    pub holders: Vec<u32>,
}

impl Scratch {
    /// Whether it is small enough to keep.
    #[must_use]
    pub fn is_modest(&self) -> bool {
        const MODEST: usize = 64 * 1024;
        self.onward.capacity() + self.homeward.capacity() + self.host.capacity() < MODEST
            && self.request.fields.capacity() + self.response.fields.capacity() < 1024
    }
}

/// The request's body, as far as it is known when the head has been read.
#[derive(Debug)]
pub struct Body {
    /// Bytes after the head that belong to it and are checked. They stay in the connection's buffer until the
    /// exchange is over, so that they can be sent again.
    pub at_hand: usize,
    /// Carries what is not at hand; `None` when all of it is.
    pub upload: Option<Relay>,
}

impl Body {
    /// Whether everything that could have been sent is still here, so that another attempt may send it.
    #[must_use]
    pub fn is_retained(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| upload.is_untouched())
    }

    /// Whether the last byte has been read from the visitor.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.upload.as_ref().is_none_or(Relay::is_done)
    }
}

/// A request and everything decided about it.
#[derive(Debug)]
pub struct Request<'a> {
    /// Whose it is.
    pub connection: &'a Connection,
    /// The state it is served under, to its end.
    pub snapshot: &'a Snapshot,
    /// Where it came in.
    pub listener: &'a Listener,
    /// When its head was complete.
    pub begun: Instant,
    /// When the visitor won't wait any longer, as it said (`grpc-timeout`).
    pub expires: Option<Instant>,
    /// What the route decided.
    pub route: &'a Route,
    /// The pool it goes to.
    pub split: &'a Split,
    /// What absences are remembered under.
    pub scope: Scope,
    /// It has waited for a tunnel: what was known of tunnels is old.
    pub held: bool,
    /// The visitor has finished sending, and waits: one for all waits of a request.
    pub half_closed: &'a Cell<bool>,
}

/// How an exchange ended, for counters and the access log.
#[derive(Debug, Default)]
pub struct Report {
    /// It came by HTTP/2.
    pub http2: bool,
    /// Status the visitor got; 0 = none.
    pub status: u16,
    /// Body bytes sent to the visitor, chunk framing included.
    pub bytes: u64,
    /// Index of the member that answered.
    pub member: Option<usize>,
    /// Why that one.
    pub why: Why,
    /// Attempts made.
    pub attempts: u32,
    /// How gRPC says that it went.
    pub grpc_status: Option<u8>,
    /// Class of an own answer.
    pub refusal: Option<Refusal>,
    /// Id given in an own answer.
    pub request_id: Option<u64>,
    /// How long it waited for a tunnel.
    pub held: Option<Duration>,
}

/// Why a request was not passed on, or not to its end.
#[derive(Debug)]
pub enum Stop {
    /// The visitor went away.
    VisitorGone,
    /// We answer; the text is for the log.
    Refused(Refusal, &'static str),
    /// Nobody can take it now. It may wait.
    Away(Away),
}
