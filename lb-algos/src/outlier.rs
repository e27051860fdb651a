//! Which members of a pool are left out because their real traffic goes worse than that of the others.
//!
//! A pure decision over a whole pool. One watcher per pool keeps an [`Ejection`] per member, collects a [`Sample`] of
//! each and calls [`judge`] about once a second, and at once when a member has failed as often in a row as
//! [`Ejection::failures_that_eject`] says. What comes back are the changes to carry out; everything else is kept here.
//!
//! Sources: Envoy's outlier detection (consecutive failures, growing times, cap), whose cap and ratio rules do nothing
//! in pools of two to five; here they do. Half-open return: Nygard, "Release It!", the circuit breaker.

use std::{cmp::Reverse, time::Duration};

use crate::Tick;

/// Fewer answers in the window say nothing about a mean latency.
const LATENCY_SAMPLES: u64 = 10;

/// A mean this little above the others' is never an outlier, whatever the factor: 1 ms against 0.2 ms is noise.
const LATENCY_FLOOR: Duration = Duration::from_millis(5);

/// A success ratio must be worse than the others' by this much …
const RATIO_MARGIN: f64 = 0.05;

/// … and by so many standard errors of the difference: 20 requests vary a lot by chance alone.
const RATIO_ERRORS: f64 = 3.0;

/// When members of a pool are ejected and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierRules {
    /// So many failures in a row eject; 0 = this never does.
    pub consecutive_failures: u32,
    /// So many gateway errors in a row (502, 503, 504 or no answer) eject; 0 = this never does.
    pub consecutive_gateway_errors: u32,
    /// Minimum percent of successes and the least number of requests to judge it by; `None` = this never ejects.
    pub success_ratio: Option<(u32, u32)>,
    /// A mean latency of so many percent of the others' median ejects; `None` = this never does. At most 100 counts as
    /// 100.
    pub latency_factor_percent: Option<u32>,
    /// Time out the first time; the n-th time it is n times as long.
    pub base_ejection: Duration,
    /// Longest time out.
    pub max_ejection: Duration,
    /// Most members out at once, percent of those that would serve. One may be out in any pool of two or more, unless
    /// this is 0; the last one never is.
    pub max_ejected_percent: u32,
}

/// What was seen of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// Failures since the last success. The watcher needn't reset it when a member returns.
    pub failures_in_row: u32,
    /// Gateway errors since the last other answer; likewise.
    pub gateway_errors_in_row: u32,
    /// Successes over the window. A member that returns begins a new window, or its past would speak against it again.
    pub successes: u64,
    /// Failures over the window.
    pub failures: u64,
    /// Mean latency over the window; `None` = unknown.
    pub mean_latency: Option<Duration>,
    /// Healthy and of weight > 0: would serve if it were not ejected.
    pub serves: bool,
}

/// What one member's past ejections were; kept by the watcher as long as the member is known, reloads included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ejection {
    out: Option<Out>,
    /// Ejections not forgotten yet.
    times: u32,
    /// Since when the member is back, moved on by each forgotten ejection.
    calm_since: Tick,
    /// When probation ends; in the past (zero) for whoever wasn't ejected.
    probation: Option<Probation>,
}

/// A member that is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Out {
    begun: Tick,
    until: Tick,
    /// A successful probe doesn't end it before this.
    early_from: Tick,
    cause: Cause,
}

/// A member that is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Probation {
    begun: Tick,
    /// Failures and gateway errors in a row that are from before its return; `None` until [`judge`] has seen the first
    /// sample.
    stale: Option<(u32, u32)>,
}

/// Why a member is ejected. Few and fixed, so it may be a metric's label. The worse comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Too many failures in a row.
    ConsecutiveFailures,
    /// Too many gateway errors in a row.
    ConsecutiveGatewayErrors,
    /// Fewer successes than the minimum, and clearly fewer than the others.
    SuccessRatio,
    /// Much slower than the others.
    Latency,
}

impl Cause {
    /// All of them, in declaration order.
    pub const ALL: [Self; 4] =
        [Self::ConsecutiveFailures, Self::ConsecutiveGatewayErrors, Self::SuccessRatio, Self::Latency];

    /// As in metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::ConsecutiveGatewayErrors => "consecutive_gateway_errors",
            Self::SuccessRatio => "success_ratio",
            Self::Latency => "latency",
        }
    }
}

/// What the watcher has to carry out, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// No new requests to it until it is readmitted.
    Eject {
        /// Which member.
        index: usize,
        /// When it will be readmitted, unless a probe or the cap does so earlier.
        until: Tick,
        /// Why.
        cause: Cause,
    },
    /// It takes part again, and begins a new window.
    Readmit {
        /// Which member.
        index: usize,
    },
}

impl Ejection {
    /// Until when the member is out; `None` = it isn't.
    #[must_use]
    pub fn until(&self) -> Option<Tick> {
        self.out.map(|out| out.until)
    }

    /// Why it is out; `None` = it isn't.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.out.map(|out| out.cause)
    }

    /// Ejections not yet forgotten: one is forgotten per calm [`OutlierRules::base_ejection`] after the return.
    #[must_use]
    pub fn times(&self) -> u32 {
        self.times
    }

    /// A probe succeeded: ends the ejection, if there is one that it may end; answers whether it did.
    ///
    /// It may end a first ejection at any time, the n-th only after n − 1 times the base time: a member whose probes
    /// succeed while its requests fail would otherwise be back every few seconds.
    pub fn readmit_early(&mut self, now: Tick) -> bool {
        let may = self.out.is_some_and(|out| now >= out.early_from);
        if may {
            self.readmit(now, None);
        }
        may
    }

    /// How many failures in a row, and gateway errors in a row, counted from now on, should make the watcher call
    /// [`judge`] at once; `None` = no number does.
    ///
    /// The rules' thresholds, but 1 while the member is on probation. For a member that is back, the count may start
    /// above zero: see [`Sample::failures_in_row`].
    #[must_use]
    pub fn failures_that_eject(&self, rules: &OutlierRules, now: Tick) -> (Option<u32>, Option<u32>) {
        let on_probation = self.on_probation(rules, now);
        let least = |threshold: u32| (threshold > 0).then_some(if on_probation { 1 } else { threshold });
        (least(rules.consecutive_failures), least(rules.consecutive_gateway_errors))
    }

    fn on_probation(&self, rules: &OutlierRules, now: Tick) -> bool {
        self.probation.is_some_and(|probation| now.since(probation.begun) < rules.base_ejection)
    }

    fn readmit(&mut self, now: Tick, stale: Option<(u32, u32)>) {
        self.out = None;
        self.calm_since = now;
        self.probation = Some(Probation { begun: now, stale });
    }

    fn eject(&mut self, rules: &OutlierRules, now: Tick, cause: Cause) -> Tick {
        let for_times = |times| rules.base_ejection.saturating_mul(times).min(rules.max_ejection);
        let early_from = now.saturating_add(for_times(self.times));
        self.times = self.times.saturating_add(1);
        let until = now.saturating_add(for_times(self.times));
        self.out = Some(Out { begun: now, until, early_from, cause });
        self.probation = None;
        until
    }

    /// Forgets what was long ago, and puts right what a clock going back would stretch.
    fn age(&mut self, rules: &OutlierRules, now: Tick) {
        if let Some(out) = &mut self.out {
            if now < out.begun {
                out.until = now.saturating_add(out.until.since(out.begun));
                out.early_from = now.saturating_add(out.early_from.since(out.begun));
                out.begun = now;
            }
            return;
        }
        if let Some(probation) = &mut self.probation {
            probation.begun = probation.begun.min(now);
        }
        self.calm_since = self.calm_since.min(now);
        while self.times > 0 && now.since(self.calm_since) >= rules.base_ejection {
            self.times -= 1;
            self.calm_since = self.calm_since.saturating_add(rules.base_ejection);
        }
    }

    /// Failures and gateway errors in a row since the return.
    fn rows(&mut self, sample: &Sample) -> (u32, u32) {
        let rows = (sample.failures_in_row, sample.gateway_errors_in_row);
        let Some(probation) = &mut self.probation else { return rows };
        let stale = probation.stale.get_or_insert(rows);
        // Lower than at the return: there was a success since, or the watcher did reset it.
        if rows.0 < stale.0 {
            stale.0 = 0;
        }
        if rows.1 < stale.1 {
            stale.1 = 0;
        }
        (rows.0 - stale.0, rows.1 - stale.1)
    }
}

/// Who goes and who comes back, given what was seen of each member; `samples` and `ejections` in the same order.
///
/// - An ejection lasts [`OutlierRules::base_ejection`] times their number, at most `max_ejection`, and ends by itself.
///   One of that number is forgotten per calm `base_ejection` after the return.
/// - Cap: of the `n` members that serve, at most `max_ejected_percent` (rounded down, but one) are out at once, and
///   never the last. If the cap binds, the worst go first: failures in a row, then ratio, then latency. Who is merely
///   slow comes back when its place is needed for one that fails, and whoever's time ends first does when `n` shrinks
///   under the cap.
/// - In a row: the thresholds; for one `base_ejection` after a return a single failure ejects again, unless nine in ten
///   requests of the window succeeded (a pool in which one request in a hundred fails would never take anybody back).
/// - Success ratio: below the minimum *and* worse than the other members taken together, by 5 points and by three
///   standard errors. If everybody fails alike, nobody is the outlier.
/// - Latency: at least the factor times the median of the others' means, and 5 ms more; means of 10 requests or more.
/// - Ejected members count neither among the others nor again as outliers; nor do members that don't serve, whose
///   ejections run on. Who has just come back is judged from the next call on.
///
/// O(n log n), allocates; not for the request path. Never NaN. A clock going back prolongs no ejection's length.
/// Slices of different lengths: the surplus is ignored.
pub fn judge(rules: &OutlierRules, samples: &[Sample], ejections: &mut [Ejection], now: Tick) -> Vec<Change> {
    let mut changes = Vec::new();
    let members = samples.len().min(ejections.len());
    let (samples, ejections) = (&samples[..members], &mut ejections[..members]);
    for (index, (sample, ejection)) in samples.iter().zip(&mut *ejections).enumerate() {
        ejection.age(rules, now);
        if ejection.out.is_some_and(|out| now >= out.until) {
            readmit(index, sample, ejection, now, &mut changes);
        }
    }
    let may_be_out = cap(rules, samples);
    let mut out = out_and_serving(samples, ejections);
    // The fleet has shrunk, or the rules have changed.
    while out.len() > may_be_out {
        let Some(first) = out.iter().copied().min_by_key(|&index| ejections[index].until()) else { break };
        readmit(first, &samples[first], &mut ejections[first], now, &mut changes);
        out.retain(|&index| index != first);
    }
    for Outlier { cause, index, .. } in outliers(rules, samples, ejections, now, &changes) {
        if out.len() >= may_be_out {
            let Some(place) = place_of_a_slow_one(&out, ejections, cause) else { break };
            let slow = out.swap_remove(place);
            readmit(slow, &samples[slow], &mut ejections[slow], now, &mut changes);
        }
        let until = ejections[index].eject(rules, now, cause);
        changes.push(Change::Eject { index, until, cause });
        out.push(index);
    }
    changes
}

fn readmit(index: usize, sample: &Sample, ejection: &mut Ejection, now: Tick, changes: &mut Vec<Change>) {
    ejection.readmit(now, Some((sample.failures_in_row, sample.gateway_errors_in_row)));
    changes.push(Change::Readmit { index });
}

/// Most of the members that serve that may be out at once.
fn cap(rules: &OutlierRules, samples: &[Sample]) -> usize {
    let serving = samples.iter().filter(|sample| sample.serves).count();
    let percent = usize::try_from(rules.max_ejected_percent).unwrap_or(usize::MAX).min(100);
    if percent == 0 { 0 } else { (serving * percent / 100).max(1).min(serving.saturating_sub(1)) }
}

fn out_and_serving(samples: &[Sample], ejections: &[Ejection]) -> Vec<usize> {
    let out = |&index: &usize| samples[index].serves && ejections[index].out.is_some();
    (0..samples.len()).filter(out).collect()
}

/// Where in `out` a member stands that may come back for the sake of one ejected for `cause`.
fn place_of_a_slow_one(out: &[usize], ejections: &[Ejection], cause: Cause) -> Option<usize> {
    match cause {
        Cause::ConsecutiveFailures | Cause::ConsecutiveGatewayErrors | Cause::SuccessRatio => {
            out.iter().position(|&index| ejections[index].cause() == Some(Cause::Latency))
        }
        Cause::Latency => None,
    }
}

/// A member that should be out.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Outlier {
    cause: Cause,
    /// In the cause's own unit; more is worse.
    excess: Reverse<u64>,
    index: usize,
}

/// The worst first.
fn outliers(
    rules: &OutlierRules,
    samples: &[Sample],
    ejections: &mut [Ejection],
    now: Tick,
    changes: &[Change],
) -> Vec<Outlier> {
    let mut present: Vec<bool> = samples
        .iter()
        .zip(&*ejections)
        .map(|(sample, ejection)| sample.serves && ejection.out.is_none())
        .collect();
    for change in changes {
        match change {
            // Its window is of before.
            Change::Readmit { index } => present[*index] = false,
            Change::Eject { .. } => {}
        }
    }
    let pool = Others::new(samples, &present);
    let mut found = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        // Asked of everybody: it keeps track of the counts.
        let rows = ejections[index].rows(sample);
        if !present[index] {
            continue;
        }
        let on_probation = ejections[index].on_probation(rules, now);
        let worst = in_a_row(rules, sample, rows, on_probation)
            .or_else(|| by_ratio(rules, sample, &pool))
            .or_else(|| by_latency(rules, sample, index, &pool));
        if let Some((cause, excess)) = worst {
            found.push(Outlier { cause, excess: Reverse(excess), index });
        }
    }
    found.sort_unstable();
    found
}

fn in_a_row(
    rules: &OutlierRules,
    sample: &Sample,
    (failures, gateway_errors): (u32, u32),
    on_probation: bool,
) -> Option<(Cause, u64)> {
    let strict = on_probation
        && sample.failures.saturating_mul(10) >= sample.successes.saturating_add(sample.failures);
    let reached = |count: u32, threshold: u32| threshold > 0 && count >= if strict { 1 } else { threshold };
    if reached(failures, rules.consecutive_failures) {
        Some((Cause::ConsecutiveFailures, u64::from(failures)))
    } else if reached(gateway_errors, rules.consecutive_gateway_errors) {
        Some((Cause::ConsecutiveGatewayErrors, u64::from(gateway_errors)))
    } else {
        None
    }
}

fn by_ratio(rules: &OutlierRules, sample: &Sample, pool: &Others) -> Option<(Cause, u64)> {
    let (minimum, least) = rules.success_ratio?;
    let least = u64::from(least.max(1));
    let requests = sample.successes.saturating_add(sample.failures);
    let others = pool.requests.saturating_sub(requests);
    if requests < least || others < least {
        return None;
    }
    let share = |successes: u64, requests: u64| successes as f64 / requests as f64;
    let ratio = share(sample.successes, requests);
    let theirs = share(pool.successes.saturating_sub(sample.successes), others);
    let overall = share(pool.successes, pool.requests);
    // Of the difference of two shares, if both came from the same pot.
    let error = (overall * (1.0 - overall).max(0.0) * (1.0 / requests as f64 + 1.0 / others as f64)).sqrt();
    let margin = RATIO_MARGIN.max(RATIO_ERRORS * error);
    let outlier = ratio * 100.0 < f64::from(minimum) && ratio + margin <= theirs;
    outlier.then(|| (Cause::SuccessRatio, sample.failures.saturating_mul(1_000_000) / requests))
}

fn by_latency(rules: &OutlierRules, sample: &Sample, index: usize, pool: &Others) -> Option<(Cause, u64)> {
    let factor = rules.latency_factor_percent?.max(100);
    let mean = known_mean(sample)?;
    let median = pool.median_without(index, mean)?;
    let slow =
        mean.as_nanos() * 100 >= median.as_nanos() * u128::from(factor) && mean >= median + LATENCY_FLOOR;
    slow.then(|| (Cause::Latency, u64::try_from(mean.as_nanos()).unwrap_or(u64::MAX)))
}

/// The mean, if it is one of enough requests.
fn known_mean(sample: &Sample) -> Option<Duration> {
    (sample.successes.saturating_add(sample.failures) >= LATENCY_SAMPLES).then_some(sample.mean_latency)?
}

/// The members that take part, to compare one of them with the rest.
#[derive(Debug)]
struct Others {
    successes: u64,
    requests: u64,
    /// Ascending, with the member's index.
    means: Vec<(Duration, usize)>,
}

impl Others {
    fn new(samples: &[Sample], present: &[bool]) -> Self {
        let members = || samples.iter().enumerate().filter(|(index, _)| present[*index]);
        let sum = |of: fn(&Sample) -> u64| {
            members().fold(0, |sum: u64, (_, sample)| sum.saturating_add(of(sample)))
        };
        let mut means: Vec<(Duration, usize)> =
            members().filter_map(|(index, sample)| Some((known_mean(sample)?, index))).collect();
        means.sort_unstable();
        let successes = sum(|sample| sample.successes);
        Self { successes, requests: successes.saturating_add(sum(|sample| sample.failures)), means }
    }

    /// The median of the means but `index`'s, which is `mean` (the lower of two); `None` = no other's is known.
    fn median_without(&self, index: usize, mean: Duration) -> Option<Duration> {
        let own = self.means.binary_search(&(mean, index)).ok()?;
        let middle = self.means.len().checked_sub(2)? / 2;
        self.means.get(if middle < own { middle } else { middle + 1 }).map(|(mean, _)| *mean)
    }
}

#[cfg(test)]
mod tests;
