//! What the outlier watch remembers of one member. It belongs to the member, so a reload that changes rules, weights or the
//! order of members forgets nothing, and a watch that is started anew goes on where the one before ended.

use std::{collections::VecDeque, time::Duration};

use frp_gateway_config::model;
use lb_algos::{AdaptiveLimit, LimitSample, Tick, outlier::Ejection};

/// A window is kept in at most about this many parts, and none is shorter than [`SHORTEST_PART`].
const WINDOW_PARTS: u32 = 60;
const SHORTEST_PART: Duration = Duration::from_millis(900);

/// Counts of one member since it is known; only differences mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Successes.
    pub successes: u64,
    /// Failures, gateway errors included.
    pub failures: u64,
    /// Gateway errors.
    pub gateway_errors: u64,
    /// Sum of the latencies of `measured` successes, nanoseconds.
    pub latency_ns: u64,
    /// Successes that were measured.
    pub measured: u64,
}

impl Totals {
    /// What was counted from `before` to `self`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            successes: self.successes.wrapping_sub(before.successes),
            failures: self.failures.wrapping_sub(before.failures),
            gateway_errors: self.gateway_errors.wrapping_sub(before.gateway_errors),
            latency_ns: self.latency_ns.wrapping_sub(before.latency_ns),
            measured: self.measured.wrapping_sub(before.measured),
        }
    }

    /// Mean latency of the measured successes.
    #[must_use]
    pub fn mean_latency(self) -> Option<Duration> {
        self.latency_ns.checked_div(self.measured).map(Duration::from_nanos)
    }
}

/// Totals now and then, over a window that moves.
#[derive(Debug, Default)]
pub struct Window(VecDeque<(Tick, Totals)>);

impl Window {
    /// What was counted within `length` before `now`. Takes a note of `totals` when the last one is old enough; a window
    /// begins with its first note, so what was counted before that is not in it.
    pub fn observe(&mut self, totals: Totals, length: Duration, now: Tick) -> Totals {
        let part = (length / WINDOW_PARTS).max(SHORTEST_PART);
        if self.0.back().is_none_or(|(at, _)| now.since(*at) >= part) {
            self.0.push_back((now, totals));
        }
        while self.0.get(1).is_some_and(|(at, _)| now.since(*at) >= length) {
            self.0.pop_front();
        }
        self.0.front().map_or_else(Totals::default, |(_, first)| totals.since(*first))
    }

    /// Begins anew.
    pub fn restart(&mut self, totals: Totals, now: Tick) {
        self.0.clear();
        self.0.push_back((now, totals));
    }
}

/// An adaptive limit with what it needs between two updates.
#[derive(Debug)]
pub struct Adapting {
    bounds: model::AdaptiveLimit,
    limit: AdaptiveLimit,
    updated: Tick,
    totals: Totals,
    peak: u32,
}

/// Time between two updates of an adaptive limit, at least.
const LIMIT_UPDATE: Duration = Duration::from_millis(950);

impl Adapting {
    /// Nothing is known. Bounds that a reload has changed need a new one.
    #[must_use]
    pub fn new(bounds: model::AdaptiveLimit, totals: Totals, now: Tick) -> Self {
        let limit = AdaptiveLimit::new(bounds.min, bounds.max);
        Self { bounds, limit, updated: now, totals, peak: 0 }
    }

    /// What it was made for.
    #[must_use]
    pub const fn bounds(&self) -> model::AdaptiveLimit {
        self.bounds
    }

    /// Takes in one look; the limit from now on.
    pub fn observe(&mut self, in_flight: u32, totals: Totals, now: Tick) -> u32 {
        self.peak = self.peak.max(in_flight);
        let elapsed = now.since(self.updated);
        if elapsed < LIMIT_UPDATE {
            return self.limit.limit();
        }
        let counted = totals.since(self.totals);
        let completed = counted.successes.wrapping_add(counted.failures);
        let failing = counted.gateway_errors > completed / 10;
        // Answers of which none was measured, and which aren't refusals either, say nothing.
        if completed == 0 || counted.measured > 0 || failing {
            let sample = LimitSample {
                completed,
                mean_latency: counted.mean_latency().unwrap_or_default(),
                peak_in_flight: self.peak.max(mean_in_flight(counted, elapsed)),
                failures: counted.gateway_errors,
            };
            self.limit.update(sample, now);
        }
        (self.updated, self.totals, self.peak) = (now, totals, in_flight);
        self.limit.limit()
    }
}

/// Little's law. In-flight counts are looked at only now and then, so a peak may be missed, but never the mean.
fn mean_in_flight(counted: Totals, elapsed: Duration) -> u32 {
    let mean = u128::from(counted.latency_ns).div_ceil(elapsed.as_nanos().max(1));
    u32::try_from(mean).unwrap_or(u32::MAX)
}

/// All that the watch remembers of one member.
#[derive(Debug, Default)]
pub struct Memory {
    /// Ejections, present and past.
    pub ejection: Ejection,
    /// What rules look at.
    pub window: Window,
    /// Its adaptive limit; `None` = none.
    pub adapting: Option<Adapting>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Tick {
        Tick::from_nanos(ms * 1_000_000)
    }

    fn successes(successes: u64) -> Totals {
        Totals { successes, ..Totals::default() }
    }

    #[test]
    fn a_window_holds_what_was_counted_within_its_length_and_nothing_from_before_it_began() {
        let (mut window, length) = (Window::default(), Duration::from_secs(3));
        let counted = [(0, 100), (1000, 101), (2000, 103), (3000, 107), (4000, 115), (9000, 131)]
            .map(|(ms, total)| window.observe(successes(total), length, at(ms)).successes);
        assert_eq!(counted, [0, 1, 3, 7, 14, 16]);
        window.restart(successes(140), at(9500));
        assert_eq!(window.observe(successes(141), length, at(9600)).successes, 1);
    }

    #[test]
    fn a_window_that_is_looked_at_all_the_time_stays_small() {
        let (mut window, length) = (Window::default(), Duration::from_secs(3600));
        for ms in 0..100_000 {
            window.observe(successes(ms), length, at(ms * 72));
        }
        assert!(window.0.len() <= 62, "{} parts", window.0.len());
    }

    #[test]
    fn peaks_between_two_looks_are_not_missed_by_more_than_the_mean() {
        // 3,000 requests of 10 ms within a second: 30 at once.
        let counted =
            Totals { successes: 3000, measured: 3000, latency_ns: 3000 * 10_000_000, ..Totals::default() };
        assert_eq!(mean_in_flight(counted, Duration::from_secs(1)), 30);
        assert_eq!(mean_in_flight(counted, Duration::ZERO), u32::MAX, "no time is no division by zero");
    }

    #[test]
    fn quick_errors_of_the_application_say_nothing_about_its_latency() {
        let bounds = model::AdaptiveLimit { min: 4, max: 1000 };
        let mut adapting = Adapting::new(bounds, Totals::default(), at(0));
        let before = adapting.limit.limit();
        for second in 1..20 {
            let failures = second * 100;
            let limit = adapting.observe(0, Totals { failures, ..Totals::default() }, at(second * 1000));
            assert_eq!(limit, before, "after {second} s of 500s");
        }
    }
}
