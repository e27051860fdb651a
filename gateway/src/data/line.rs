//! A slot at a member, or a place in the pool's line: what requests and whole connections have in common.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{exchange::Stop, hold::Away, io::until, pick::Picked, reason::Why, worker::Worker};
use crate::{
    error::Refusal,
    snapshot::{Gate, InFlight, Inside, Pool},
    telemetry::shard::WorkerId,
};

/// Whoever waits looks again after this long even if nobody told it to: slots also become free through requests of other
/// pools.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a look at the pool came to.
#[derive(Debug)]
pub enum Chosen<'a> {
    /// This member, why, and a slot at it.
    Member(usize, Why, InFlight<'a>),
    /// Members could serve, but all of them are at their limits.
    Full,
    /// None may be tried.
    Nobody,
    /// Only one may serve the visitor's session, and it is gone.
    SessionAway,
}

/// What a policy picked, as a look at the pool tells it.
///
/// # Errors
/// Nobody was picked.
pub fn picked<'a>(picked: Picked) -> Result<(usize, Why), Chosen<'a>> {
    match picked {
        Picked::Member { index, why } => Ok((index, why)),
        Picked::Full => Err(Chosen::Full),
        Picked::Nobody => Err(Chosen::Nobody),
    }
}

/// Lets one more in where there is a bound; it counts while the guard lives.
///
/// # Errors
/// The bound, called `whose`, is reached: it doesn't count.
pub fn admit<'a>(
    gate: Option<&'a Gate>,
    worker: WorkerId,
    whose: &'static str,
) -> Result<Option<Inside<'a>>, Stop> {
    if Gate::is_full(gate) {
        return Err(Stop::Refused(Refusal::Overloaded, whose));
    }
    Ok(gate.map(|gate| gate.enter(worker)))
}

/// Takes a slot at the member that `pick` picks.
pub fn take_slot<'a>(
    worker: WorkerId,
    pool: &'a Pool,
    in_flight: Option<u32>,
    mut pick: impl FnMut() -> Result<(usize, Why), Chosen<'a>>,
) -> Chosen<'a> {
    // Another worker may take the last slot between our look and our step: look again, but not for ever.
    for _look in 0..4 {
        let (index, why) = match pick() {
            Ok(picked) => picked,
            Err(chosen) => return chosen,
        };
        let member = &pool.members[index];
        if !pool.limited {
            return Chosen::Member(index, why, member.endpoint.begin());
        }
        let limit = in_flight.unwrap_or(u32::MAX).min(member.state.limit());
        if let Some(slot) = member.endpoint.try_begin(limit, &pool.queue) {
            let slot = slot.within(member.gate.as_ref(), worker);
            return Chosen::Member(index, why, slot);
        }
    }
    Chosen::Full
}

/// Waits until the pool has room: `look` is called with the limit of requests in flight that holds now. `bound`: only the
/// endpoint of this number will do. `gone` says when the visitor has left.
///
/// # Errors
/// Why it waits no longer: full, too long, nobody left, visitor gone.
pub async fn wait<'a>(
    worker: &Worker,
    pool: &'a Pool,
    bound: Option<u64>,
    deadline: Option<Instant>,
    mut look: impl FnMut(Option<u32>) -> Chosen<'a>,
    mut gone: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Result<(usize, Why, InFlight<'a>), Stop> {
    let stats = pool.stats.of(worker.id);
    let limits = pool.limits.queue;
    let Some(ticket) = pool.queue.join(limits.size, bound) else {
        stats.overflowed.inc();
        return Err(Stop::Refused(Refusal::Overloaded, "queue full"));
    };
    stats.queued.inc();
    let end = Instant::now() + limits.timeout;
    let end = deadline.map_or(end, |deadline| deadline.min(end));
    loop {
        let mut bell = pin!(ticket.bell().notified());
        bell.as_mut().enable();
        if ticket.is_first() {
            match look(newest_limit(worker, pool)) {
                Chosen::Member(index, why, slot) => return Ok((index, why, slot)),
                Chosen::Full => ticket.pass_on(),
                Chosen::Nobody => {
                    return Err(Stop::Away(Away::new(Refusal::NoEndpoint, "gone while it waited")));
                }
                Chosen::SessionAway => return Err(Stop::Refused(Refusal::SessionAway, "")),
            }
        }
        let now = Instant::now();
        if now >= end {
            stats.overflowed.inc();
            return Err(Stop::Refused(Refusal::Overloaded, "queue timeout"));
        }
        let left = until(
            Some(end.min(now + LOOK_AGAIN)),
            poll_fn(|cx| {
                if gone(cx).is_ready() {
                    return Poll::Ready(true);
                }
                bell.as_mut().poll(cx).map(|()| false)
            }),
        )
        .await;
        if left == Ok(true) {
            return Err(Stop::VisitorGone);
        }
    }
}

/// Most requests in flight at one member by the newest configuration: those who wait, wait for room there is now.
fn newest_limit(worker: &Worker, pool: &Pool) -> Option<u32> {
    let newest = worker.snapshot();
    let newest = newest.pools.iter().find(|newest| Arc::ptr_eq(&newest.queue, &pool.queue));
    newest.map_or(pool.limits.in_flight, |newest| newest.limits.in_flight)
}

/// Counts a pick, and why.
pub fn count_pick(worker: &Worker, pool: &Pool, why: Why) {
    pool.stats.of(worker.id).picks.by_reason[why.reason as usize][why.among as usize].inc();
}
