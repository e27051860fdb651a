//! `frp-gateway status`: two readings, and what lies between them.

mod certificates;

use std::{collections::HashMap, time::Duration};

use axum::http::Method;
use serde::Serialize;

use super::{
    explain::{milliseconds, of_limit, weight},
    reach::{Gateway, Unanswered},
    table::{Cell, Colour, Table, Tone},
};
use crate::admin::{
    certificates::CertificatesStatus,
    status::{FrpsStatus, ListenerStatus, MemberStatus, PoolStatus, Status},
};

/// Reads how everything stands.
///
/// # Errors
/// See [`Unanswered`].
pub async fn ask(gateway: &Gateway) -> Result<Status, Unanswered> {
    gateway.ask(Method::GET, "/api/v1/status", None).await
}

/// How everything stands and went since the reading before. Rates are per second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Time between the readings, seconds.
    pub interval_seconds: f64,
    /// Number of the configuration in force.
    pub generation: u64,
    /// Whether the last reload was refused.
    pub reload_refused: bool,
    /// Why no new visitors should come.
    pub not_ready: Option<String>,
    /// In file order.
    pub listeners: Vec<ListenerStatus>,
    /// Those with an admin API.
    pub frps: Vec<FrpsStatus>,
    /// In file order.
    pub pools: Vec<PoolReport>,
    /// Of listeners that end TLS.
    pub certificates: CertificatesStatus,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolReport {
    /// As it stands now.
    #[serde(flatten)]
    pub now: PoolTotals,
    /// Attempts that ended, all members together.
    pub requests_per_second: f64,
    /// Those of them that spoke against a member.
    pub failures_per_second: f64,
    /// Attempts after the first.
    pub retries_per_second: f64,
    /// Requests refused because the queue was full or the wait too long.
    pub overflowed_per_second: f64,
    /// In file order.
    pub members: Vec<MemberReport>,
}

/// The pool's reading without its members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolTotals {
    /// Its name.
    pub pool: String,
    /// The rule that picks.
    pub balance: String,
    /// Health is ignored now.
    pub panic: bool,
    /// Requests in line now.
    pub waiting: u32,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemberReport {
    /// As it stands now.
    #[serde(flatten)]
    pub now: MemberStatus,
    /// Attempts that ended.
    pub requests_per_second: f64,
    /// Those of them that spoke against it.
    pub failures_per_second: f64,
    /// Its part of the pool's attempts, percent in tenths; absent when there were none. All of a pool add up to 100.
    pub share: Option<f64>,
}

/// What lies between two readings. Counts of what is new, or began anew, are taken from 0.
#[must_use]
pub fn compare(before: &Status, after: &Status) -> Report {
    let restarted = after.at_ms < before.at_ms;
    let passed = if restarted { after.at_ms } else { after.at_ms - before.at_ms };
    let seconds = Duration::from_millis(passed.max(1)).as_secs_f64();
    let earlier: HashMap<&str, &PoolStatus> =
        before.pools.iter().filter(|_| !restarted).map(|pool| (pool.pool.as_str(), pool)).collect();
    Report {
        interval_seconds: seconds,
        generation: after.generation,
        reload_refused: after.reload_refused,
        not_ready: after.not_ready.clone(),
        listeners: after.listeners.clone(),
        frps: after.frps.clone(),
        pools: after
            .pools
            .iter()
            .map(|pool| compare_pool(earlier.get(pool.pool.as_str()).copied(), pool, seconds))
            .collect(),
        certificates: after.certificates.clone(),
    }
}

fn compare_pool(before: Option<&PoolStatus>, after: &PoolStatus, seconds: f64) -> PoolReport {
    let rate = |count: u64| count as f64 / seconds;
    let between = |counter: fn(&PoolStatus) -> u64| grown(before.map_or(0, counter), counter(after));
    let counts: Vec<(u64, u64)> = after
        .members
        .iter()
        .map(|member| {
            let earlier = before
                .and_then(|before| before.members.iter().find(|other| other.endpoint == member.endpoint));
            let (requests, failures) = earlier.map_or((0, 0), |earlier| (earlier.requests, earlier.failures));
            (grown(requests, member.requests), grown(failures, member.failures))
        })
        .collect();
    let shares = shares(&counts.iter().map(|(requests, _)| *requests).collect::<Vec<_>>());
    PoolReport {
        now: PoolTotals {
            pool: after.pool.clone(),
            balance: after.balance.clone(),
            panic: after.panic,
            waiting: after.waiting,
        },
        requests_per_second: rate(counts.iter().map(|(requests, _)| requests).sum()),
        failures_per_second: rate(counts.iter().map(|(_, failures)| failures).sum()),
        retries_per_second: rate(between(|pool| pool.retries)),
        overflowed_per_second: rate(between(|pool| pool.overflowed)),
        members: after
            .members
            .iter()
            .zip(&counts)
            .zip(shares)
            .map(|((member, (requests, failures)), share)| MemberReport {
                now: member.clone(),
                requests_per_second: rate(*requests),
                failures_per_second: rate(*failures),
                share,
            })
            .collect(),
    }
}

/// What a counter grew by; one that is smaller than it was began anew.
const fn grown(before: u64, after: u64) -> u64 {
    if after < before { after } else { after - before }
}

/// Each count's part of the sum, percent in tenths, so rounded that they add up to 100 (largest remainder).
fn shares(counts: &[u64]) -> Vec<Option<f64>> {
    let sum: u128 = counts.iter().map(|count| u128::from(*count)).sum();
    if sum == 0 {
        return vec![None; counts.len()];
    }
    let exact = |count: &u64| u128::from(*count) * 1000;
    let mut tenths: Vec<u128> = counts.iter().map(|count| exact(count) / sum).collect();
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(exact(&counts[*index]) % sum));
    let missing = 1000 - tenths.iter().sum::<u128>();
    for index in order.into_iter().take(usize::try_from(missing).unwrap_or(0)) {
        tenths[index] += 1;
    }
    tenths
        .into_iter()
        .map(|tenths| u32::try_from(tenths).ok().map(|tenths| f64::from(tenths) / 10.0))
        .collect()
}

/// The report as text, several lines.
#[must_use]
pub fn text(report: &Report, colour: Colour) -> String {
    let mut out = format!(
        "configuration generation {}, rates over {:.1} s",
        report.generation, report.interval_seconds
    );
    if report.reload_refused {
        let refused = "; the last reload was refused (GET /api/v1/config says why)";
        out += &colour.paint(refused, Tone::Bad);
    }
    if let Some(reason) = &report.not_ready {
        out += "; ";
        out += &colour.paint(&format!("not ready: {reason}"), Tone::Bad);
    }
    out.push('\n');
    for listener in &report.listeners {
        let address = listener.address.map_or("not bound".to_owned(), |address| address.to_string());
        let open = listener.open;
        let connections = if open == 1 { "connection" } else { "connections" };
        out += &format!("listener {} {address}, {open} {connections}\n", listener.listener);
    }
    for frps in report.frps.iter().filter(|frps| frps.stale) {
        let why = frps.fault.as_deref().unwrap_or("it has not answered yet");
        let line = format!("frps {}: its listing is stale ({} tunnels): {why}", frps.frps, frps.tunnels);
        out += &colour.paint(&line, Tone::Mind);
        out.push('\n');
    }
    for pool in &report.pools {
        out.push('\n');
        write_pool(&mut out, pool, colour);
    }
    certificates::write(&mut out, &report.certificates, colour);
    out
}

fn write_pool(out: &mut String, pool: &PoolReport, colour: Colour) {
    *out += &format!(
        "pool {}, {}: {:.1} req/s, {:.1} failures/s, {:.1} retries/s, {} in line",
        pool.now.pool,
        pool.now.balance,
        pool.requests_per_second,
        pool.failures_per_second,
        pool.retries_per_second,
        pool.now.waiting
    );
    if pool.overflowed_per_second > 0.0 {
        *out += &colour.paint(&format!(", {:.1} turned away/s", pool.overflowed_per_second), Tone::Bad);
    }
    if pool.now.panic {
        *out += &colour.paint(", health is ignored (panic_threshold)", Tone::Bad);
    }
    out.push('\n');
    let head = [
        "ENDPOINT",
        "STATE",
        "ZONE",
        "PRIORITY",
        "WEIGHT",
        "SHARE",
        "REQ/S",
        "FAIL/S",
        "IN FLIGHT",
        "CONNS",
        "LATENCY",
        "VERDICT",
    ];
    let mut table = Table::new(&head);
    let priorities = pool.members.iter().any(|member| member.now.priority > 0);
    for member in &pool.members {
        table.row(row(member, priorities));
    }
    table.write(out, "  ", colour);
}

fn row(member: &MemberReport, priorities: bool) -> Vec<Cell> {
    let now = &member.now;
    let tone = match now.state.as_str() {
        "up" => Tone::Good,
        "down" | "unhealthy" | "ejected" => Tone::Bad,
        "standby" => Tone::Plain,
        _ => Tone::Mind,
    };
    let failing = if member.failures_per_second > 0.0 { Tone::Bad } else { Tone::Plain };
    let verdicts: Vec<_> = now
        .verdicts
        .iter()
        .map(String::as_str)
        .filter(|verdict| *verdict != "up" && *verdict != now.state)
        .collect();
    vec![
        Cell::text(&now.endpoint),
        Cell::text(&now.state).tone(tone),
        Cell::text(now.zone.clone().unwrap_or_default()),
        Cell::number(if priorities { now.priority.to_string() } else { String::new() }),
        Cell::number(weight(now.weight, now.effective_weight)),
        Cell::number(member.share.map_or("–".to_owned(), |share| format!("{share:.1} %"))),
        Cell::number(format!("{:.1}", member.requests_per_second)),
        Cell::number(format!("{:.1}", member.failures_per_second)).tone(failing),
        Cell::number(of_limit(now.in_flight, now.limit)),
        Cell::number(now.connections.to_string()),
        Cell::number(now.latency_ms.map_or("–".to_owned(), milliseconds)),
        Cell::text(verdicts.join(", ")),
    ]
}

#[cfg(test)]
mod tests;
