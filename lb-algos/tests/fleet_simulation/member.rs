//! One member: what it really is, which policies don't see, and what is counted of it, which they do.

use std::{collections::VecDeque, time::Duration};

use lb_algos::{
    AdaptiveLimit, Fleet, Latency, LimitSample, Rng, Tick,
    outlier::{Ejection, Sample},
    slow_start::slow_start,
};

/// Seconds that ratios and means are taken over.
const WINDOW: usize = 10;

/// How a member treats its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    None,
    /// So many percent fail, after 1 ms.
    FailsFast(u32),
    /// Does no work but says 200, after 1 ms.
    Lies,
    /// Answers nobody; the attempt ends after its deadline.
    Hangs,
    /// A second of failing fast, a second of working, and so on.
    Flaps,
}

/// What a member is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spec {
    pub(crate) weight: u32,
    /// Mean time of a request that costs 1.
    pub(crate) service: Duration,
    /// Requests worked on at once; the rest waits.
    pub(crate) servers: u32,
    pub(crate) fault: Fault,
}

impl Spec {
    /// Weight 1, no fault, room for everything.
    pub(crate) fn of_millis(service: u64) -> Self {
        Self { weight: 1, service: Duration::from_millis(service), servers: 200, fault: Fault::None }
    }
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) spec: Spec,
    pub(crate) present: bool,
    pub(crate) healthy: bool,
    pub(crate) in_flight: u32,
    pub(crate) latency: Latency,
    pub(crate) ejection: Ejection,
    /// `None` = there from the start: no slow start.
    pub(crate) joined: Option<Tick>,
    pub(crate) adaptive: Option<AdaptiveLimit>,
    /// Most requests in flight in this second.
    peak: u32,
    rows: (u32, u32),
    /// Newest first.
    window: VecDeque<Second>,
    /// When each of its servers is free.
    free_at: Vec<Tick>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    successes: u64,
    failures: u64,
    took: Duration,
}

impl Member {
    pub(crate) fn new(id: u64, spec: Spec, joined: Option<Tick>, adaptive: Option<AdaptiveLimit>) -> Self {
        Self {
            id,
            spec,
            present: true,
            healthy: true,
            in_flight: 0,
            latency: Latency::new(),
            ejection: Ejection::default(),
            joined,
            adaptive,
            peak: 0,
            rows: (0, 0),
            window: VecDeque::from([Second::default()]),
            free_at: vec![Tick::ZERO; spec.servers as usize],
        }
    }

    pub(crate) fn ejected(&self) -> bool {
        self.ejection.until().is_some()
    }

    pub(crate) fn limit(&self) -> u32 {
        self.adaptive.as_ref().map_or(u32::MAX, AdaptiveLimit::limit)
    }

    /// How long an attempt that begins now will take, and whether it will succeed.
    pub(crate) fn serve(
        &mut self,
        cost: u32,
        deadline: Duration,
        now: Tick,
        rng: &mut Rng,
    ) -> (Duration, bool) {
        self.in_flight += 1;
        self.peak = self.peak.max(self.in_flight);
        let quick = Duration::from_millis(1);
        let second = now.as_nanos() / 1_000_000_000;
        match self.spec.fault {
            Fault::FailsFast(percent) if rng.below(100) < percent => return (quick, false),
            Fault::Flaps if second.is_multiple_of(2) => return (quick, false),
            Fault::Hangs => return (deadline, false),
            Fault::Lies => return (quick, true),
            Fault::None | Fault::FailsFast(_) | Fault::Flaps => {}
        }
        let server = self.free_at.iter_mut().min().expect("it has servers");
        let work = (self.spec.service * cost).mul_f64(0.5 + rng.f64());
        let ends = (*server).max(now).saturating_add(work);
        // Who waits in vain leaves the queue.
        if ends.since(now) > deadline {
            return (deadline, false);
        }
        *server = ends;
        (ends.since(now), true)
    }

    /// Counts an attempt that ended; answers whether the watcher has to judge at once.
    pub(crate) fn ended(
        &mut self,
        success: bool,
        took: Duration,
        thresholds: (Option<u32>, Option<u32>),
    ) -> bool {
        let second = &mut self.window[0];
        second.took += took;
        if success {
            second.successes += 1;
            self.rows = (0, 0);
            return false;
        }
        second.failures += 1;
        self.rows = (self.rows.0 + 1, self.rows.1 + 1);
        thresholds.0.is_some_and(|least| self.rows.0 >= least)
            || thresholds.1.is_some_and(|least| self.rows.1 >= least)
    }

    pub(crate) fn next_second(&mut self, now: Tick) {
        let Second { successes, failures, took } = self.window[0];
        let completed = successes + failures;
        let mean = took.checked_div(u32::try_from(completed).expect("few requests"));
        let sample = LimitSample {
            completed,
            mean_latency: mean.unwrap_or_default(),
            peak_in_flight: self.peak,
            failures,
        };
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.update(sample, now);
        }
        self.peak = self.in_flight;
        self.window.push_front(Second::default());
        self.window.truncate(WINDOW);
    }

    /// A member that is readmitted begins a new window.
    pub(crate) fn forget(&mut self) {
        self.window = VecDeque::from([Second::default()]);
        self.rows = (0, 0);
    }

    pub(crate) fn sample(&self) -> Sample {
        let (successes, failures, took) = self.window.iter().fold((0, 0, Duration::ZERO), |sum, second| {
            (sum.0 + second.successes, sum.1 + second.failures, sum.2 + second.took)
        });
        let count = u32::try_from(successes + failures).expect("few requests");
        Sample {
            failures_in_row: self.rows.0,
            gateway_errors_in_row: self.rows.1,
            successes,
            failures,
            mean_latency: took.checked_div(count),
            serves: self.present && self.healthy && self.spec.weight > 0,
        }
    }
}

/// What one worker sees for one pick: members and weights of its last rebuild, everything else as it is now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    /// Slot and weight.
    pub(crate) order: &'a [(usize, u32)],
    pub(crate) members: &'a [Member],
    pub(crate) tried: &'a [usize],
    pub(crate) limit: u32,
    /// `None` = everybody is grown up, as policies want it at a rebuild.
    pub(crate) slow_start: Option<Duration>,
    pub(crate) now: Tick,
}

impl View<'_> {
    fn member(&self, index: usize) -> &Member {
        &self.members[self.order[index].0]
    }

    pub(crate) fn may_be_picked(&self, index: usize) -> bool {
        self.weight(index) > 0 && self.eligible(index)
    }
}

impl Fleet for View<'_> {
    fn len(&self) -> usize {
        self.order.len()
    }

    fn id(&self, index: usize) -> u64 {
        self.member(index).id
    }

    fn weight(&self, index: usize) -> u32 {
        let (slot, weight) = self.order[index];
        let Some(window) = self.slow_start else { return slow_start(weight, Duration::ZERO, Duration::ZERO) };
        let age = self.members[slot].joined.map_or(window, |joined| self.now.since(joined));
        slow_start(weight, age, window)
    }

    fn eligible(&self, index: usize) -> bool {
        let member = self.member(index);
        member.present
            && member.healthy
            && !member.ejected()
            && member.in_flight < self.limit.min(member.limit())
            && !self.tried.contains(&self.order[index].0)
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.member(index).in_flight
    }

    fn latency(&self, index: usize) -> Option<&Latency> {
        Some(&self.member(index).latency)
    }
}
