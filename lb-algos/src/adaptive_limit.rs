//! How many requests an endpoint can have in flight before they only wait there.

use std::time::Duration;

use crate::Tick;

/// Where a limit starts, within its bounds: enough for most, few for none. It doubles while that does no harm.
const START: u32 = 20;

/// A mean above this many baselines is congestion. Netflix's default.
const TOLERANCE: f64 = 1.5;

/// The least part of the limit that one update leaves.
const STEEPEST: f64 = 0.5;

/// What one update leaves when more than a tenth of the requests failed.
const AFTER_FAILURES: f64 = 0.8;

/// Fewer answers say nothing about the mean.
const FEWEST: u64 = 5;

/// So much of the way the baseline goes down per update: one second of cheap requests mustn't set it.
const DOWN: f64 = 0.3;

/// How long a baseline is believed under congestion. Envoy measures anew every minute too.
const BELIEVED: Duration = Duration::from_secs(60);

/// A new measurement runs at the limit divided by this: an equilibrium is below twice the capacity
/// (`TOLERANCE` + the growth term), so a quarter of it doesn't queue.
const QUIET: u32 = 4;

/// A new measurement takes this long: requests sent before it must have ended.
const MEASURING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// What was seen of one endpoint since the last update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitSample {
    /// Requests that ended, failed ones included.
    pub completed: u64,
    /// Their mean latency, from sending to the answer's head.
    pub mean_latency: Duration,
    /// Most requests in flight at once.
    pub peak_in_flight: u32,
    /// Those of `completed` that failed as an overloaded endpoint fails: timed out, refused, 503.
    pub failures: u64,
}

/// A limit of requests in flight that follows an endpoint's latency.
///
/// Each update: `limit × clamp(1.5 × baseline ÷ mean, ½, 1) + √limit`. While the endpoint answers as fast as when it
/// is unloaded the limit grows; once requests queue there, the mean rises and the limit falls until about half of what
/// is in flight is waiting. So latency stays around twice the unloaded one and the endpoint never idles.
///
/// - Not less than `min`, not more than `max`; starts at 20, and doubles until the first congestion.
/// - No growth while not even half of the limit was in use: an idle endpoint proves nothing.
/// - More than a tenth failed, or all of the limit is in use and nothing comes back: × 0.8.
/// - The baseline is the unloaded latency: it follows the mean downwards. At the first congestion, and again after each
///   minute of it, the limit is cut to a quarter for two seconds (up to ten, if answers take longer) and the mean under
///   that is the new baseline. So a baseline that was taken under load is put right, and an endpoint that became slower
///   for good isn't strangled for longer than a minute or two. One that isn't congested never notices.
///
/// O(1), no NaN, no overflow, no allocation. A clock going back counts as standing still.
///
/// Netflix concurrency-limits, `Gradient2Limit`; the measurement: Envoy's adaptive concurrency filter.
#[derive(Debug, Clone)]
pub struct AdaptiveLimit {
    min: u32,
    max: u32,
    /// Between `min` and `max`. Not whole: growth by √limit below 1 per update would be lost.
    limit: f64,
    /// Unloaded latency in seconds; `None` = not known yet.
    baseline: Option<f64>,
    /// Last time without congestion; `None` before the first update.
    confirmed: Option<Tick>,
    /// No congestion so far.
    doubling: bool,
    measuring: Option<Measuring>,
}

/// The limit is cut to find the baseline anew.
#[derive(Debug, Clone, Copy)]
struct Measuring {
    begun: Tick,
    ends: Tick,
    /// The limit to go back to.
    limit: f64,
}

impl AdaptiveLimit {
    /// A limit between `min` (at least 1) and `max` (at least `min`).
    #[must_use]
    pub fn new(min: u32, max: u32) -> Self {
        let min = min.max(1);
        let max = max.max(min);
        let limit = f64::from(START.clamp(min, max));
        Self { min, max, limit, baseline: None, confirmed: None, doubling: true, measuring: None }
    }

    /// The limit in force.
    #[must_use]
    pub fn limit(&self) -> u32 {
        whole(self.limit).clamp(self.min, self.max)
    }

    /// Takes in what happened since the last update, about a second ago, and answers the limit from now on.
    pub fn update(&mut self, sample: LimitSample, now: Tick) -> u32 {
        let confirmed = *self.confirmed.get_or_insert(now);
        if confirmed > now {
            self.confirmed = Some(now);
        }
        if let Some(measuring) = self.measuring {
            self.measure(measuring, sample, now);
        } else if sample.completed >= FEWEST {
            self.follow(sample, now);
        } else if sample.completed == 0 && sample.peak_in_flight >= self.limit() {
            self.set(self.limit * AFTER_FAILURES);
        }
        self.limit()
    }

    fn follow(&mut self, sample: LimitSample, now: Tick) {
        let mean = sample.mean_latency.as_secs_f64();
        let failing = sample.failures > sample.completed / 10;
        // Refusals are quick: they say nothing about how long the work takes.
        if failing {
            self.doubling = false;
            self.set(self.limit * AFTER_FAILURES);
            return;
        }
        let baseline = match self.baseline {
            Some(baseline) => baseline + (mean - baseline).min(0.0) * DOWN,
            None => mean,
        };
        self.baseline = Some(baseline);
        // A mean of 0 is as good as it gets, not a division by it.
        let gradient = if mean > 0.0 { (TOLERANCE * baseline / mean).clamp(STEEPEST, 1.0) } else { 1.0 };
        let used = f64::from(sample.peak_in_flight) * 2.0 >= self.limit;
        let first_congestion = self.doubling && gradient < 1.0;
        if gradient >= 1.0 {
            self.confirmed = Some(now);
        } else {
            self.doubling = false;
        }
        let growth = match (used, self.doubling) {
            (false, _) => 0.0,
            (true, true) => self.limit,
            (true, false) => self.limit.sqrt(),
        };
        self.set(self.limit * gradient + growth);
        // The first baseline may have been taken under more load than the endpoint can carry.
        if first_congestion || self.confirmed.is_some_and(|confirmed| now.since(confirmed) >= BELIEVED) {
            let (least, most) = MEASURING;
            let ends = now.saturating_add((sample.mean_latency * 2).clamp(least, most));
            self.measuring = Some(Measuring { begun: now, ends, limit: self.limit });
            self.set(self.limit / f64::from(QUIET));
        }
    }

    fn measure(&mut self, measuring: Measuring, sample: LimitSample, now: Tick) {
        if now < measuring.begun {
            // The clock went back: begin again, or it might never end.
            let ends = now.saturating_add(measuring.ends.since(measuring.begun));
            self.measuring = Some(Measuring { begun: now, ends, ..measuring });
        } else if now >= measuring.ends {
            self.measuring = None;
            self.confirmed = Some(now);
            self.set(measuring.limit);
            if sample.completed > 0 && sample.failures <= sample.completed / 10 {
                self.baseline = Some(sample.mean_latency.as_secs_f64());
            }
        }
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(f64::from(self.min), f64::from(self.max));
    }
}

/// Nearest whole number; limits are small and not negative.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and bounds follow")]
fn whole(limit: f64) -> u32 {
    limit.round() as u32
}

#[cfg(test)]
mod tests;
