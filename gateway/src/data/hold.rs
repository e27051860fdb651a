//! Requests wait while every tunnel of theirs is away: an frps that dies is a pause, not an error.
//!
//! A held request has left nothing anywhere, or nothing that counts (an idempotent request whose tunnel died), so it may go to
//! whoever comes. It looks again when something is published, in the order of arrival, and every so often by itself. Who waits
//! for servers that are down, rather than for tunnels, doesn't try them in a crowd: the first in line knocks, the others follow.

use std::{
    cell::Cell,
    collections::BTreeSet,
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use frp_gateway_config::model;

use super::{
    absent::Scope,
    buffer::Buffer,
    exchange::{Body, Stop},
    io::until,
    stream::ReadSide,
    upstream,
    watch::Watch,
    worker::Worker,
};
use crate::{
    clock,
    error::Refusal,
    snapshot::{Endpoint, Pool},
    telemetry::{shard::Shards, stats::PoolShard},
};

/// A held request looks again after this long even if nothing was published: members that were down may be tried again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a tunnel that broke under a request may take to be known as dead. frps forgets a killed frpc's within 5 to 15 ms.
const GRACE: Duration = Duration::from_millis(150);
/// Deadline of the connect that shows whether a server is there.
const KNOCK: Duration = Duration::from_millis(500);

/// Nobody can take a request now; it may be sent to whoever comes.
#[derive(Debug)]
pub struct Away {
    /// What the visitor is told if nobody comes.
    pub refusal: Refusal,
    /// For the log.
    pub detail: &'static str,
    /// Broke under the request, and may be alive: then the fault is the application's, and waiting is of no use.
    pub suspect: Option<Arc<Endpoint>>,
}

impl Away {
    /// Nobody is there; `detail` is for the log.
    #[must_use]
    pub const fn new(refusal: Refusal, detail: &'static str) -> Self {
        Self { refusal, detail, suspect: None }
    }
}

/// How a wait ended.
#[derive(Debug)]
pub enum Waited {
    /// It is worth another look.
    LookAgain,
    /// The visitor gets no answer of an endpoint.
    Over(Stop),
}

/// What is known of one request's waiting, over all its looks.
#[derive(Debug, Default)]
pub struct Hold {
    begun: Option<Instant>,
    ticket: Option<u64>,
}

/// Where one request waits.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// How long, how many; `None` = not at all.
    pub rules: Option<model::Hold>,
    /// The pool, as far as it has come to one.
    pub pool: Option<&'a Pool>,
    /// Who counts it.
    pub stats: &'a Arc<Shards<PoolShard>>,
    /// When the visitor's patience (the route's `timeout`) ends.
    pub deadline: Option<Instant>,
    /// When its head was complete.
    pub request_begun: Instant,
    /// See [`super::exchange::Request::half_closed`].
    pub half_closed: &'a Cell<bool>,
    /// What absences are remembered under.
    pub scope: Option<Scope>,
    /// It may be tried at somebody who perhaps lacks the tunnel: it could go on from there.
    pub may_knock: bool,
}

/// Held requests of one worker, by pool, in order of arrival.
#[derive(Debug, Default)]
pub struct Lines {
    waiting: BTreeSet<(usize, u64)>,
    last_ticket: u64,
}

impl Lines {
    fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    fn is_first(&self, pool: usize, ticket: u64) -> bool {
        self.waiting.range((pool, 0)..).next() == Some(&(pool, ticket))
    }
}

/// Counts a held request, and keeps its place in line, until it goes on, or is dropped with its connection.
struct Held<'a> {
    worker: &'a Worker,
    stats: &'a Shards<PoolShard>,
    bytes: u64,
    place: (usize, u64),
}

impl<'a> Held<'a> {
    fn new(worker: &'a Worker, stats: &'a Shards<PoolShard>, bytes: u64, place: (usize, u64)) -> Self {
        stats.of(worker.id).held.inc();
        stats.of(worker.id).held_bytes.add(bytes);
        worker.lines.borrow_mut().waiting.insert(place);
        Self { worker, stats, bytes, place }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let shard = self.stats.of(self.worker.id);
        shard.held.dec();
        shard.held_bytes.sub(self.bytes);
        self.worker.lines.borrow_mut().waiting.remove(&self.place);
    }
}

impl Hold {
    /// Whether it has waited.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// How long it has waited so far, the time of its later attempts included.
    #[must_use]
    pub fn since(&self) -> Option<Duration> {
        self.begun.map(|begun| begun.elapsed())
    }

    /// Waits until there is reason to look again.
    pub async fn wait(
        &mut self,
        worker: &Worker,
        away: Away,
        line: Line<'_>,
        (body, from_visitor, buffer): (&Body, &mut ReadSide<'_>, &mut Buffer),
    ) -> Waited {
        let Away { refusal, detail, suspect } = away;
        let over = |detail| Waited::Over(Stop::Refused(refusal, detail));
        let Some(rules) = line.rules else { return over(detail) };
        let now = Instant::now();
        let first = self.begun.is_none();
        let end = *self.begun.get_or_insert(now) + rules.time;
        let end = line.deadline.map_or(end, |deadline| deadline.min(end));
        let shard = line.stats.of(worker.id);
        if now >= end {
            shard.hold_expired.inc();
            return over(detail);
        }
        let bytes = buffer.filled().len() as u64;
        if first {
            let (held, held_bytes) =
                (line.stats.sum(|shard| &shard.held), line.stats.sum(|shard| &shard.held_bytes));
            if held >= u64::from(rules.requests) || held_bytes.saturating_add(bytes) > rules.bytes {
                shard.hold_refused.inc();
                return over("too many wait");
            }
            if let Some(endpoint) = &suspect
                && !dies(endpoint, end.min(now + GRACE)).await
            {
                self.begun = None;
                return over(detail);
            }
            shard.holds.inc();
        }
        let number = line.pool.map_or(usize::MAX, Pool::number);
        let ticket = *self.ticket.get_or_insert_with(|| worker.lines.borrow_mut().ticket());
        let _held = Held::new(worker, line.stats, bytes, (number, ticket));
        let mut watch = Watch::new(line.request_begun, line.half_closed);
        let mut news = pin!(worker.news.notified());
        // What was published before this is in the snapshot of the next look anyway.
        news.as_mut().enable();
        loop {
            let next = end.min(Instant::now() + LOOK_AGAIN);
            let woken = until(
                Some(next),
                poll_fn(|cx| {
                    // A visitor who is still sending is watched by the upload later.
                    if body.upload.is_none() && watch.poll(cx, from_visitor, buffer).is_ready() {
                        return Poll::Ready(false);
                    }
                    news.as_mut().poll(cx).map(|()| true)
                }),
            )
            .await;
            match woken {
                Ok(false) => return Waited::Over(Stop::VisitorGone),
                Ok(true) => return Waited::LookAgain,
                Err(_elapsed) if Instant::now() >= end => {
                    shard.hold_expired.inc();
                    return over(detail);
                }
                Err(_elapsed) => {
                    let servers = line.pool.is_some_and(|pool| !pool.members.is_empty());
                    let knocks = servers && line.may_knock && worker.lines.borrow().is_first(number, ticket);
                    if knocks || has_hope(worker, line) {
                        return Waited::LookAgain;
                    }
                }
            }
        }
    }
}

/// Whether some member might serve after all.
fn has_hope(worker: &Worker, line: Line<'_>) -> bool {
    let (now, absences) = (clock::now(), worker.absences.borrow());
    line.pool.iter().flat_map(|pool| &pool.members).any(|member| {
        member.weight > 0
            && member.state.is_healthy()
            && !member.endpoint.is_down(now)
            && !member.endpoint.is_gone()
            && member.endpoint.is_open()
            && line.scope.is_none_or(|scope| !absences.is_absent(scope, member.endpoint.number, now))
    })
}

/// Whether what broke is dead, or is by `end`.
async fn dies(endpoint: &Endpoint, end: Instant) -> bool {
    loop {
        if is_dead(endpoint).await {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        // Nobody tells when an frps forgets a tunnel, so it is asked again.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether the tunnel or server is gone, as far as can be found out at once.
pub async fn is_dead(endpoint: &Endpoint) -> bool {
    if endpoint.is_gone() || endpoint.is_frozen() || endpoint.is_down(clock::now()) {
        return true;
    }
    if let Some(guard) = &endpoint.guard
        && (!guard.watch.is_still(&guard.registration).await || endpoint.is_gone())
    {
        return true;
    }
    match upstream::connect(&endpoint.addresses(), KNOCK, None).await {
        Ok(_) => false,
        Err((_, error)) => !upstream::is_ours(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_first_is_first_in_its_own_line() {
        let mut lines = Lines::default();
        let mut join = |pool| {
            let ticket = lines.ticket();
            lines.waiting.insert((pool, ticket));
            ticket
        };
        let (one, other, second) = (join(1), join(2), join(1));
        assert!(lines.is_first(1, one) && !lines.is_first(1, second) && lines.is_first(2, other));
        lines.waiting.remove(&(1, one));
        assert!(lines.is_first(1, second), "the next one moves up");
    }
}
