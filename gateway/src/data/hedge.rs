//! A second attempt beside a slow one: whoever answers first serves, the other is let go.
//!
//! Only for requests that may be repeated and are at hand as a whole, and only as far as the pool's hedging budget goes.
//! Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013.

use std::{future::poll_fn, pin::Pin, time::Instant};

use lb_algos::Tick;

use super::{
    attempt::{self, Attempt},
    attempts,
    buffer::Buffer,
    connect::NoLink,
    exchange::{Body, Report},
    io::write_both,
    outcome,
    pick::{self, Picked},
    reason::{Because, Why},
    upstream::Link,
};
use crate::{
    clock,
    http1::RequestHead,
    snapshot::{InFlight, Member},
    telemetry::stats::Failure,
};

/// When the second attempt may begin; `None` = never.
#[must_use]
pub fn begins_at(attempt: &Attempt<'_>, body: &Body, upgrade: bool) -> Option<Instant> {
    let hedge = attempt.request.split.pool.retry.hedge.filter(|_| attempt.may_hedge)?;
    (!upgrade && body.upload.is_none()).then(|| Instant::now() + hedge.after)
}

/// A connection on which the first bytes of an answer have come.
#[derive(Debug)]
pub struct Lead {
    /// The connection.
    pub link: Link,
    /// The first bytes.
    pub incoming: Buffer,
}

/// The second attempt.
pub struct Rival<'a> {
    /// Ends with the first bytes of its answer, or with what broke it; `None` = its endpoint had no connection to spare.
    pub answer: Pin<Box<dyn Future<Output = Result<Lead, Option<Failure>>> + 'a>>,
    member: &'a Member,
    index: usize,
    why: Why,
    in_flight: InFlight<'a>,
    begun: Tick,
}

impl std::fmt::Debug for Rival<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rival")
            .field("index", &self.index)
            .field("begun", &self.begun)
            .finish_non_exhaustive()
    }
}

impl<'a> Rival<'a> {
    /// Begins a second attempt at another member, if there is one with room and the budget allows it.
    pub fn start(
        attempt: &Attempt<'a>,
        head: &RequestHead,
        (tried, holders): (&mut Vec<usize>, &[u32]),
        onward: &[u8],
        payload: &[u8],
        report: &mut Report,
    ) -> Option<Self> {
        let request = attempt.request;
        let (worker, pool) = (&*request.connection.worker, &*request.split.pool);
        let begun = clock::now();
        if !tried.contains(&attempt.index) {
            tried.push(attempt.index);
        }
        let absences = worker.absences.borrow();
        let known = attempts::knowledge(request, head, (tried, holders), &absences, attempt.key, begun);
        // The head is sent as it was written for the first: whoever wants another gets none.
        let wants_the_same = |index: usize| {
            let (one, other) = (attempt.member, &pool.members[index]);
            one.rewrite() == other.rewrite() && one.tunnel.is_some() == other.tunnel.is_some()
        };
        let picked = worker.with_policy(pool, |state| {
            match pick::pick(state, pool, known, &mut worker.rng.borrow_mut()) {
                Picked::Member { index, why } if wants_the_same(index) && state.hedges.withdraw(begun) => {
                    Some((index, why))
                }
                Picked::Member { .. } | Picked::Full | Picked::Nobody => None,
            }
        });
        let (index, why) = picked?;
        let member = &pool.members[index];
        let in_flight = if pool.limited {
            let slot = member.endpoint.try_begin(pool.in_flight_limit(member), &pool.queue)?;
            slot.within(member.gate.as_ref(), worker.id)
        } else {
            member.endpoint.begin()
        };
        let why = Why { reason: Because::Hedge, ..why };
        pool.stats.of(worker.id).hedges.inc();
        attempts::count_pick(request, why);
        report.attempts += 1;
        tried.push(index);
        let attempt = Attempt { member, index, begun, ..*attempt };
        let answer = Box::pin(ask(attempt, onward.to_vec(), payload.to_vec()));
        Some(Self { answer, member, index, why, in_flight, begun })
    }

    /// It serves from here on.
    pub fn take_over(self, attempt: &mut Attempt<'a>, in_flight: &mut InFlight<'a>, report: &mut Report) {
        (attempt.member, attempt.index, attempt.begun) = (self.member, self.index, self.begun);
        *in_flight = self.in_flight;
        report.why = self.why;
    }

    /// It broke.
    pub fn lost(self, attempt: &Attempt<'a>, failure: Option<Failure>) {
        let Some(failure) = failure else { return };
        let worker = &*attempt.request.connection.worker;
        self.member.endpoint.stats.of(worker.id).failures[failure as usize].inc();
        let attempt = Attempt { member: self.member, index: self.index, ..*attempt };
        outcome::failed(&attempt, self.begun);
    }
}

async fn ask(attempt: Attempt<'_>, onward: Vec<u8>, payload: Vec<u8>) -> Result<Lead, Option<Failure>> {
    let worker = &*attempt.request.connection.worker;
    let endpoint = &attempt.member.endpoint;
    let stats = endpoint.stats.of(worker.id);
    let mut kept = match attempt.member.speaks_h2c(&attempt.request.split.pool) {
        true => worker.idle.shared.join(endpoint.number),
        false => worker.idle.take(endpoint.number, attempt.begun, true),
    };
    loop {
        let reused = kept.is_some();
        let mut link = match kept.take() {
            Some(link) => link,
            None => match attempt::connect(&attempt).await {
                Ok(link) => link,
                Err(NoLink::Crowded) => return Err(None),
                Err(NoLink::Failed(failure)) => return Err(Some(failure)),
                Err(NoLink::Starved) => return Err(None),
            },
        };
        let (mut sent, mut incoming) = (0, worker.buffers.small());
        let written = write_both(&mut link.stream, &onward, &payload, &mut sent).await;
        let read = match written {
            Ok(()) => poll_fn(|cx| incoming.poll_fill(cx, &mut link.stream)).await,
            Err(error) => Err(error),
        };
        match read {
            Ok(n) if n > 0 => {
                if reused {
                    stats.reuses.inc();
                }
                return Ok(Lead { link, incoming });
            }
            // A kept connection that was dead already.
            _ if reused => {}
            Ok(_) => return Err(Some(Failure::ClosedEarly)),
            Err(_) => return Err(Some(Failure::Reset)),
        }
    }
}
