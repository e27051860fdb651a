//! What one pool has learnt about one endpoint. Belongs to the pair (pool, endpoint), so it outlives every snapshot.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use lb_algos::{Latency, Tick, outlier::Cause};

use crate::{
    health::memory::{Memory, Totals},
    telemetry::shard::{Counter, Shards, WorkerId},
};

/// How an attempt ended, as far as it says something about the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer, and none of the below.
    Success,
    /// 5xx other than 501, 502, 503, 504 and 505.
    ServerError,
    /// 502, 503, 504, or the attempt broke: the application was not reached, or did not manage.
    GatewayError,
}

impl Outcome {
    /// What an answer with `status` says. 501 and 505 speak about the request, not about the endpoint.
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayError,
            501 | 505 => Self::Success,
            500..=599 => Self::ServerError,
            _ => Self::Success,
        }
    }

    /// Whether it speaks against the endpoint.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Success)
    }
}

/// What one worker counts of one member. Only grows; the outlier watch takes differences.
#[derive(Debug, Default)]
pub struct OutcomeShard {
    /// Successes.
    pub successes: Counter,
    /// Failures, gateway errors included.
    pub failures: Counter,
    /// Gateway errors.
    pub gateway_errors: Counter,
    /// Sum of the latencies of successes, nanoseconds.
    pub latency_ns: Counter,
    /// Successes that were measured into `latency_ns`.
    pub measured: Counter,
}

/// What is known. Health begins good: a gateway that has just started must serve.
#[derive(Debug)]
pub struct MemberState {
    healthy: AtomicBool,
    /// Tick until which it is ejected; 0 = it isn't.
    ejected_until: AtomicU64,
    /// Tick at which it joined a pool that was there already, or came back; 0 = full weight at once.
    since: AtomicU64,
    /// Adaptive limit of requests in flight; `u32::MAX` = none.
    limit: AtomicU32,
    failures_in_row: AtomicU32,
    gateway_errors_in_row: AtomicU32,
    /// So many in a row that the watch should look at once: failures, gateway errors. `u32::MAX` = never.
    alarm: (AtomicU32, AtomicU32),
    /// Probes want its ejection to end.
    asked_back: AtomicBool,
    /// How often it was ejected, by [`Cause::ALL`].
    ejections: [AtomicU64; Cause::ALL.len()],
    /// The outlier watch's own. Never locked by requests.
    memory: Mutex<Memory>,
    /// Peak-EWMA latency to the response head.
    pub latency: Latency,
    /// Counts per worker.
    pub outcomes: Shards<OutcomeShard>,
}

impl MemberState {
    /// Nothing is known. `since`: when it joined a pool that was serving already; `None` at process start and in new pools.
    #[must_use]
    pub fn new(workers: usize, since: Option<Tick>) -> Self {
        Self {
            healthy: AtomicBool::new(true),
            ejected_until: AtomicU64::new(0),
            since: AtomicU64::new(since.map_or(0, |since| since.as_nanos().max(1))),
            limit: AtomicU32::new(u32::MAX),
            failures_in_row: AtomicU32::new(0),
            gateway_errors_in_row: AtomicU32::new(0),
            alarm: (AtomicU32::new(u32::MAX), AtomicU32::new(u32::MAX)),
            asked_back: AtomicBool::new(false),
            ejections: Default::default(),
            memory: Mutex::default(),
            latency: Latency::new(),
            outcomes: Shards::new(workers),
        }
    }

    /// What health checks say.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    /// New verdict of the health checks; returns whether it changed. Coming back begins slow start.
    pub fn set_healthy(&self, healthy: bool, now: Tick) -> bool {
        let changed = self.healthy.swap(healthy, Relaxed) != healthy;
        if changed && healthy {
            self.rejoin(now);
        }
        changed
    }

    /// Whether it is ejected at `now`.
    #[must_use]
    pub fn is_ejected(&self, now: Tick) -> bool {
        self.ejected_until.load(Relaxed) > now.as_nanos()
    }

    /// Until when it is ejected; `None` when it isn't.
    #[must_use]
    pub fn ejected_until(&self) -> Option<Tick> {
        match self.ejected_until.load(Relaxed) {
            0 => None,
            until => Some(Tick::from_nanos(until)),
        }
    }

    /// Leaves it out until `until`.
    pub fn eject(&self, until: Tick) {
        self.ejected_until.store(until.as_nanos().max(1), Relaxed);
    }

    /// Ends an ejection and begins slow start; returns whether there was one. Counts in a row are left as they are: the
    /// watch clears them ([`MemberState::clear_in_row`]) before it looks at them.
    pub fn readmit(&self, now: Tick) -> bool {
        let was = self.ejected_until.swap(0, Relaxed) != 0;
        if was {
            self.rejoin(now);
        }
        was
    }

    /// Ends an ejection and forgets those before: nobody watches any more.
    pub fn forget_ejections(&self, now: Tick) {
        let mut memory = self.memory();
        (memory.ejection, memory.window) = Default::default();
        drop(memory);
        if self.readmit(now) {
            self.clear_in_row();
        }
        self.set_alarm(None, None);
    }

    /// Probes say that it works: the watch, woken next, may end an ejection early.
    pub fn ask_back(&self) {
        self.asked_back.store(true, Relaxed);
    }

    /// Whether [`MemberState::ask_back`] was called since the last time.
    #[must_use]
    pub fn take_asked_back(&self) -> bool {
        self.asked_back.swap(false, Relaxed)
    }

    /// Counts an ejection.
    pub fn count_ejection(&self, cause: Cause) {
        for (counter, counted) in self.ejections.iter().zip(Cause::ALL) {
            if counted == cause {
                counter.fetch_add(1, Relaxed);
            }
        }
    }

    /// Ejections so far, by cause.
    pub fn ejections(&self) -> impl Iterator<Item = (Cause, u64)> + '_ {
        Cause::ALL.into_iter().zip(self.ejections.iter().map(|counter| counter.load(Relaxed)))
    }

    /// What the outlier watch remembers of it.
    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it joined or came back; `None` = it counts in full.
    #[must_use]
    pub fn since(&self) -> Option<Tick> {
        match self.since.load(Relaxed) {
            0 => None,
            since => Some(Tick::from_nanos(since)),
        }
    }

    /// Begins slow start: it has come back to a pool that was serving without it.
    pub fn rejoin(&self, now: Tick) {
        self.since.store(now.as_nanos().max(1), Relaxed);
    }

    /// Adaptive limit of requests in flight; `u32::MAX` = none.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// Sets the adaptive limit.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Relaxed);
    }

    /// There is no adaptive limit any more, and what it had learnt goes with it.
    pub fn forget_limit(&self) {
        self.memory().adapting = None;
        self.set_limit(u32::MAX);
    }

    /// Failures, and gateway errors, since the last success.
    #[must_use]
    pub fn in_row(&self) -> (u32, u32) {
        (self.failures_in_row.load(Relaxed), self.gateway_errors_in_row.load(Relaxed))
    }

    /// Counts in a row begin at nothing.
    pub fn clear_in_row(&self) {
        self.failures_in_row.store(0, Relaxed);
        self.gateway_errors_in_row.store(0, Relaxed);
    }

    /// Sets how many failures, and gateway errors, in a row should wake the watch; `None` = none do.
    pub fn set_alarm(&self, failures: Option<u32>, gateway_errors: Option<u32>) {
        self.alarm.0.store(failures.unwrap_or(u32::MAX), Relaxed);
        self.alarm.1.store(gateway_errors.unwrap_or(u32::MAX), Relaxed);
    }

    /// Whether the watch should be woken, given what [`MemberState::record`] returned. After an ejection one failure
    /// is enough for a while.
    #[must_use]
    pub fn is_alarming(&self, (failures, gateway_errors): (u32, u32)) -> bool {
        failures >= self.alarm.0.load(Relaxed) || gateway_errors >= self.alarm.1.load(Relaxed)
    }

    /// Everything counted so far, over all workers.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let sum = |counter: fn(&OutcomeShard) -> &Counter| self.outcomes.sum(counter);
        Totals {
            successes: sum(|shard| &shard.successes),
            failures: sum(|shard| &shard.failures),
            gateway_errors: sum(|shard| &shard.gateway_errors),
            latency_ns: sum(|shard| &shard.latency_ns),
            measured: sum(|shard| &shard.measured),
        }
    }

    /// Records how an attempt ended. Returns failures and gateway errors in a row, this one included; (0, 0) for a success.
    ///
    /// `took` is the time from the request's last byte to the response head, or to the failure. It is learnt as latency in
    /// every case but a failure's is only a lower bound: the cost of a failure is [`Latency::fail`]'s.
    pub fn record(
        &self,
        worker: WorkerId,
        outcome: Outcome,
        took: Duration,
        now: Tick,
        decay: Duration,
    ) -> (u32, u32) {
        let shard = self.outcomes.of(worker);
        if !outcome.is_failure() {
            shard.successes.inc();
            shard.latency_ns.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            shard.measured.inc();
            self.latency.observe(took, now, decay);
            // The common case must not write to the shared line.
            if self.failures_in_row.load(Relaxed) != 0 {
                self.failures_in_row.store(0, Relaxed);
                self.gateway_errors_in_row.store(0, Relaxed);
            }
            return (0, 0);
        }
        shard.failures.inc();
        self.latency.fail(took, now, decay);
        let failures = self.failures_in_row.fetch_add(1, Relaxed).saturating_add(1);
        let gateway_errors = if outcome == Outcome::GatewayError {
            shard.gateway_errors.inc();
            self.gateway_errors_in_row.fetch_add(1, Relaxed).saturating_add(1)
        } else {
            self.gateway_errors_in_row.store(0, Relaxed);
            0
        };
        (failures, gateway_errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn record(state: &MemberState, outcome: Outcome) -> (u32, u32) {
        state.record(WorkerId(0), outcome, MS, Tick::ZERO, MS)
    }

    #[test]
    fn a_status_speaks_against_the_endpoint_only_where_the_endpoint_is_to_blame() {
        let outcomes = [200, 404, 429, 500, 501, 502, 503, 504, 505, 599].map(Outcome::of_status);
        let failures: Vec<_> = outcomes.iter().map(|outcome| outcome.is_failure()).collect();
        assert_eq!(failures, [false, false, false, true, false, true, true, true, false, true]);
    }

    #[test]
    fn failures_count_until_a_success_and_gateway_errors_until_any_other_answer() {
        use Outcome::{GatewayError, ServerError, Success};
        let state = MemberState::new(2, None);
        let rows = [GatewayError, GatewayError, ServerError, GatewayError, Success, ServerError]
            .map(|outcome| record(&state, outcome));
        assert_eq!(rows, [(1, 1), (2, 2), (3, 0), (4, 1), (0, 0), (1, 0)]);
        let totals = state.totals();
        assert_eq!((totals.successes, totals.failures, totals.gateway_errors), (1, 5, 3));
        assert_eq!(totals.mean_latency(), Some(MS), "of the one success");
    }

    #[test]
    fn coming_back_begins_slow_start_and_staying_does_not() {
        let (state, now) = (MemberState::new(1, None), Tick::from_nanos(9));
        assert!(!state.set_healthy(true, now) && !state.readmit(now));
        assert_eq!(state.since(), None);
        state.set_healthy(false, now);
        assert_eq!(state.since(), None);
        assert!(state.set_healthy(true, now));
        assert_eq!(state.since(), Some(now));
        let later = Tick::from_nanos(20);
        state.eject(Tick::from_nanos(15));
        assert!(!state.is_ejected(later), "it ends by itself");
        assert!(state.readmit(later));
        assert_eq!(state.since(), Some(later));
        assert_eq!(
            MemberState::new(1, Some(Tick::ZERO)).since(),
            Some(Tick::from_nanos(1)),
            "0 is not nothing"
        );
    }
}
