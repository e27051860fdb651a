//! One JSON line per request, written by a thread of its own so that a slow disk slows no request.

use std::{
    io,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use frp_gateway_config::model::AccessLog;
use serde::Serialize;

use super::{
    connection::Connection,
    exchange::{Report, Scratch},
};
use crate::{
    http1::{Known, Version},
    snapshot::{Listener, Route, Split},
    telemetry::lines::Lines,
};

/// Where access-log lines go; shared by all workers.
#[derive(Debug, Clone)]
pub struct AccessLogHandle(Lines);

impl AccessLogHandle {
    /// No log, until switched.
    #[must_use]
    pub fn off() -> Self {
        Self(Lines::off("access log"))
    }

    /// A log to `target`.
    ///
    /// # Errors
    /// The file can't be opened for appending.
    pub fn start(target: &AccessLog) -> io::Result<Self> {
        let handle = Self::off();
        handle.switch(target)?;
        Ok(handle)
    }

    /// Changes the destination of the lines to come.
    ///
    /// # Errors
    /// The file can't be opened for appending; the old destination stays.
    pub fn switch(&self, target: &AccessLog) -> io::Result<()> {
        self.0.switch(target)
    }

    /// Opens the file anew, after a rotation moved it away.
    pub fn reopen(&self) {
        self.0.reopen();
    }

    /// Waits, for at most a second, until the lines so far are written. Blocks.
    pub fn flush(&self) {
        self.0.flush();
    }

    /// Lines lost because the destination was too slow or failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped()
    }

    fn is_on(&self) -> bool {
        self.0.is_on()
    }

    fn line(&self, line: Vec<u8>) {
        self.0.line(line);
    }
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    listener: &'a str,
    peer: std::net::IpAddr,
    /// What the visitor speaks.
    protocol: &'static str,
    method: &'a str,
    host: &'a str,
    target: &'a str,
    status: u16,
    bytes: u64,
    duration_ms: f64,
    route: Option<&'a str>,
    pool: Option<&'a str>,
    endpoint: Option<&'a str>,
    attempts: u32,
    /// How gRPC says that it went.
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    /// Whose certificate the visitor has shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    /// Why the last endpoint was picked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pick: Option<&'static str>,
    /// Which endpoints were looked at then.
    #[serde(skip_serializing_if = "Option::is_none")]
    among: Option<&'static str>,
    /// How long it waited for a tunnel to come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

/// What there is to say of a connection that was relayed.
#[derive(Debug)]
pub struct Relayed<'a> {
    /// Where it came in.
    pub listener: &'a Listener,
    /// When it came.
    pub begun: Instant,
    /// The server that its TLS asks for.
    pub name: Option<&'a str>,
    /// Route it took.
    pub route: Option<&'a str>,
    /// Pool it went to.
    pub pool: Option<&'a str>,
    /// Endpoint that had it, or was tried last.
    pub endpoint: Option<&'a str>,
    /// Why that one.
    pub why: super::reason::Why,
    /// Attempts made.
    pub attempts: u32,
    /// Bytes from the visitor, and to the visitor.
    pub bytes: (u64, u64),
    /// Until an endpoint's connection was there.
    pub connected: Option<Duration>,
    /// How it ended.
    pub end: &'static str,
    /// Why nobody served it.
    pub class: Option<&'static str>,
    /// More about that.
    pub detail: Option<&'static str>,
}

#[derive(Serialize)]
struct RelayedLine<'a> {
    time: String,
    listener: &'a str,
    peer: std::net::IpAddr,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<&'a str>,
    bytes_in: u64,
    bytes: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ms: Option<f64>,
    route: Option<&'a str>,
    pool: Option<&'a str>,
    endpoint: Option<&'a str>,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pick: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    among: Option<&'static str>,
    end: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
}

/// Writes the line of one relayed connection, if there is a log.
pub fn relayed(connection: &Connection, what: &Relayed<'_>) {
    let log = &connection.worker.access_log;
    if !log.is_on() {
        return;
    }
    let milliseconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let line = RelayedLine {
        time: rfc3339(SystemTime::now()),
        listener: &what.listener.name,
        peer: connection.peer,
        protocol: what.listener.protocol.word(),
        server_name: what.name,
        bytes_in: what.bytes.0,
        bytes: what.bytes.1,
        duration_ms: milliseconds(what.begun.elapsed()),
        connect_ms: what.connected.map(milliseconds),
        route: what.route,
        pool: what.pool,
        endpoint: what.endpoint,
        attempts: what.attempts,
        pick: (what.attempts > 0).then(|| what.why.reason.label()),
        among: (what.attempts > 0).then(|| what.why.among.label()),
        end: what.end,
        class: what.class,
        detail: what.detail,
    };
    if let Ok(mut bytes) = serde_json::to_vec(&line) {
        bytes.push(b'\n');
        log.line(bytes);
    }
}

/// Writes the line of one request, if there is a log.
#[expect(clippy::too_many_arguments, reason = "one line takes from everything an exchange has")]
pub fn write(
    connection: &Connection,
    listener: &Listener,
    route: Option<&Route>,
    split: Option<&Split>,
    begun: Instant,
    wire: &[u8],
    scratch: &Scratch,
    report: &Report,
) {
    let log = &connection.worker.access_log;
    if !log.is_on() {
        return;
    }
    let head = &scratch.request;
    let text = |bytes: &'_ [u8]| String::from_utf8_lossy(bytes).into_owned();
    let (method, target) = (text(head.method_span.of(wire)), text(head.target.of(wire)));
    let user_agent = head
        .fields
        .iter()
        .find(|field| field.known == Known::UserAgent)
        .map(|field| text(field.value.of(wire)));
    let endpoint =
        report.member.and_then(|index| split?.pool.members.get(index)).map(|member| member.endpoint.label());
    let line = Line {
        time: rfc3339(SystemTime::now()),
        listener: &listener.name,
        peer: connection.peer,
        protocol: match (report.http2, head.version) {
            (true, _) => "HTTP/2",
            (false, Version::Http11) => "HTTP/1.1",
            (false, Version::Http10) => "HTTP/1.0",
        },
        method: &method,
        host: &scratch.host,
        target: &target,
        status: report.status,
        bytes: report.bytes,
        duration_ms: (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3,
        route: route.map(|route| &*route.name),
        pool: split.map(|split| &*split.pool.name),
        endpoint,
        attempts: report.attempts,
        grpc_status: report.grpc_status,
        client: connection.client().map(|client| &*client.name),
        pick: (report.attempts > 0).then(|| report.why.reason.label()),
        among: (report.attempts > 0).then(|| report.why.among.label()),
        held_ms: report.held.map(|held| (held.as_secs_f64() * 1e6).round() / 1e3),
        class: report.refusal.map(crate::error::Refusal::label),
        user_agent: user_agent.as_deref(),
        request_id: report.request_id.map(|id| format!("{id:016x}")),
    };
    if let Ok(mut bytes) = serde_json::to_vec(&line) {
        bytes.push(b'\n');
        log.line(bytes);
    }
}

/// `2026-11-23T04:05:06.789Z`. Days to date after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        let at = |seconds, ms| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(ms));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400, 5), "2000-02-29T00:00:00.005Z");
        assert_eq!(at(1_795_399_924, 999), "2026-11-23T02:12:04.999Z");
    }
}
