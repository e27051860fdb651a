//! How a relayed connection ended: counters and the access log. Written when it is dropped, so that one that is cut counts
//! too.

use std::time::{Duration, Instant};

use crate::{
    data::{
        access_log::{self, Relayed},
        connection::Connection,
        reason::Why,
    },
    error::Refusal,
    snapshot::Listener,
    telemetry::stats::End,
};

/// What is known of a connection so far.
#[derive(Debug)]
pub struct Tally<'a> {
    /// Whose it is.
    pub connection: &'a Connection,
    /// Where it came in.
    pub listener: &'a Listener,
    /// When it came.
    pub begun: Instant,
    /// The server that its TLS asks for.
    pub name: Option<String>,
    /// Route and pool it went to.
    pub route: Option<String>,
    /// Pool it went to.
    pub pool: Option<String>,
    /// Endpoint that served it, or the last that was tried.
    pub endpoint: Option<String>,
    /// Why that one.
    pub why: Why,
    /// Attempts made.
    pub attempts: u32,
    /// Bytes from the visitor to the endpoint, and back.
    pub bytes: (u64, u64),
    /// From the accepted connection to the endpoint's.
    pub connected: Option<Duration>,
    /// How it ended; `None` = it was cut.
    pub end: Option<End>,
    /// Why nobody served it, with a word for the log.
    pub refusal: Option<(Refusal, &'static str)>,
}

impl<'a> Tally<'a> {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(connection: &'a Connection, listener: &'a Listener, begun: Instant) -> Self {
        Self {
            connection,
            listener,
            begun,
            name: None,
            route: None,
            pool: None,
            endpoint: None,
            why: Why::default(),
            attempts: 0,
            bytes: (0, 0),
            connected: None,
            end: None,
            refusal: None,
        }
    }

    /// Nobody serves it.
    pub fn refuse(&mut self, refusal: Refusal, detail: &'static str) {
        self.end = Some(End::Refused);
        self.refusal = Some((refusal, detail));
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        let stats = self.listener.stats.of(self.connection.worker.id);
        let end = self.end.unwrap_or(End::Cut);
        stats.relays[end as usize].inc();
        stats.relayed[0].add(self.bytes.0);
        stats.relayed[1].add(self.bytes.1);
        if let Some((refusal, _)) = self.refusal {
            stats.own_answers[refusal.index()].inc();
        }
        access_log::relayed(
            self.connection,
            &Relayed {
                listener: self.listener,
                begun: self.begun,
                name: self.name.as_deref(),
                route: self.route.as_deref(),
                pool: self.pool.as_deref(),
                endpoint: self.endpoint.as_deref(),
                why: self.why,
                attempts: self.attempts,
                bytes: self.bytes,
                connected: self.connected,
                end: end.label(),
                class: self.refusal.map(|(refusal, _)| refusal.label()),
                detail: self.refusal.map(|(_, detail)| detail).filter(|detail| !detail.is_empty()),
            },
        );
    }
}
