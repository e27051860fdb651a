//! What an attempt's end teaches the pool about the member: latency, failures in a row, Retry-After.

use std::time::Duration;

use lb_algos::Tick;

use super::{attempt::Attempt, grpc, pick, worker::Worker};
use crate::{
    clock,
    http1::ResponseHead,
    snapshot::{Member, Outcome, Pool},
};

/// A `Retry-After` longer than this is cut: one answer must not take a member out for hours.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

/// A response head came. `sent_at`: when the request had been sent. Returns when the head came.
pub fn answered(attempt: &Attempt<'_>, response: &ResponseHead, wire: &[u8], sent_at: Tick) -> Tick {
    let now = clock::now();
    let outcome = Outcome::of_status(grpc::as_http(response, wire));
    learn(attempt, outcome, now.since(sent_at), now);
    if response.status == 503
        && let Some(wait) = retry_after(response, wire)
    {
        attempt.member.state.latency.back_off(now.saturating_add(wait.min(LONGEST_BACK_OFF)));
    }
    now
}

/// The attempt broke.
pub fn failed(attempt: &Attempt<'_>, sent_at: Tick) {
    let now = clock::now();
    learn(attempt, Outcome::GatewayError, now.since(sent_at), now);
}

/// Nobody waits for the answer any more: it takes at least as long as it has taken.
pub fn at_least(attempt: &Attempt<'_>, sent_at: Tick) {
    let now = clock::now();
    let (took, latency) = (now.since(sent_at), &attempt.member.state.latency);
    if latency.estimate(now).is_some_and(|estimate| took > estimate) {
        latency.observe(took, now, attempt.request.split.pool.latency_decay);
    }
}

/// Whether the pool wants an answer of this status from somebody else, and there is somebody else.
#[must_use]
pub fn is_rejected(attempt: &Attempt<'_>, status: u16, tried: &[usize]) -> bool {
    let pool = &*attempt.request.split.pool;
    pool.retry.on.iter().any(|(low, high)| (*low..=*high).contains(&status))
        && pick::has_other(pool, tried, attempt.index, clock::now())
}

fn learn(attempt: &Attempt<'_>, outcome: Outcome, took: Duration, now: Tick) {
    let (worker, pool) = (&*attempt.request.connection.worker, &*attempt.request.split.pool);
    record(worker, pool, attempt.member, outcome, took, now);
}

/// Tells `member` of `pool` how something at it ended, and the outlier watch, if it should look.
pub fn record(worker: &Worker, pool: &Pool, member: &Member, outcome: Outcome, took: Duration, now: Tick) {
    let in_row = member.state.record(worker.id, outcome, took, now, pool.latency_decay);
    if pool.outlier.is_some() && member.state.is_alarming(in_row) {
        pool.bell.notify_one();
    }
}

/// `Retry-After` in seconds. The form with a date is rare between machines, and needs clocks that agree.
fn retry_after(response: &ResponseHead, wire: &[u8]) -> Option<Duration> {
    let field =
        response.fields.iter().find(|field| field.name.of(wire).eq_ignore_ascii_case(b"retry-after"))?;
    let seconds = std::str::from_utf8(field.value.of(wire)).ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
