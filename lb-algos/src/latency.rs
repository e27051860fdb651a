//! What is known of an endpoint's latency.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::Tick;

/// What a failure costs: far above what a good answer takes, so that failing fast never looks like being fast.
const FAILURE_COSTS: u64 = 1_000_000_000;

/// Successes make the share of failures fade so many times faster than a latency: once answers are good again, the past
/// says little.
const FAILURES_FADE_FASTER: u32 = 4;

/// All, as a share.
const ALL: u64 = 1 << 32;

/// A first failure counts for at least 2 % of what is known, the second in a row for 4 %, and so on up to a half: one
/// error in a hundred, as most applications have, moves hardly anything; six in a row say all.
const FIRST_FAILURE: u64 = ALL / 50;

/// What is left of a share of failures and below this is forgotten.
const FORGOTTEN: u64 = ALL / 1000;

/// Nanoseconds by which an estimate moves at least, unless a millisecond has passed.
const GATHERED: u64 = 1000;

/// Peak-EWMA estimate of one endpoint's latency: the worst is believed at once, the better only gradually.
///
/// - A success that took longer than the estimate replaces it. One that took less moves it by 1 − e^(−dt / decay), dt being
///   the time since it last moved: so what counts is how long things have been better, not by how many answers.
/// - A failure leaves that alone, unless it took longer, and raises the share of failures beside it: by 1 − e^(−dt / decay),
///   but by at least 2 %, 4 %, 8 % … of the rest for the first, second, third in a row. Successes let it fade four times as
///   fast. The estimate is latency + share × 1 s: what a request is expected to cost when a failure costs 1 s.
/// - Nothing fades by itself: silence is no evidence. [`Latency::claim_probe`] lets a request through to get some.
///
/// Shared by threads; every method is wait-free: a few relaxed atomics, no loop. When two samples move the estimate down at
/// the same instant one of them is dropped; a peak never is. 48 bytes. Zero durations count as 1 ns, those past 584 years as
/// 584 years. When the clock goes back no time has passed, and time counts on from the new reading.
///
/// Peak EWMA: Twitter's Finagle, `PeakEwma`.
#[derive(Debug, Default)]
pub struct Latency {
    took: Peak,
    /// Share of failures, of [`ALL`].
    failing: Peak,
    failures_in_row: AtomicU32,
    /// Tick of the last claim.
    claimed: AtomicU64,
    /// Tick until which it asked to be left alone.
    back_off_until: AtomicU64,
}

impl Latency {
    /// Nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A success took this long. `decay`: time in which the past fades to 1/e; zero = at once.
    pub fn observe(&self, took: Duration, now: Tick, decay: Duration) {
        self.took.observe(nanos(took).max(1), now, decay);
        if self.failing.value.load(Relaxed) > 0 {
            self.failures_in_row.store(0, Relaxed);
            self.failing.observe(0, now, decay / FAILURES_FADE_FASTER);
            let left = self.failing.value.load(Relaxed);
            if left < FORGOTTEN {
                // A failure may have come in between: then it stays.
                swap(&self.failing.value, left, 0);
            }
        }
    }

    /// A failure came after this long.
    pub fn fail(&self, took: Duration, now: Tick, decay: Duration) {
        let known = self.took.value.load(Relaxed);
        if known > 0 && nanos(took) > known {
            self.took.raise(nanos(took), now);
        }
        let in_row = self.failures_in_row.fetch_add(1, Relaxed).min(16);
        let least = (FIRST_FAILURE << in_row).min(ALL / 2);
        let share = self.failing.value.load(Relaxed).min(ALL);
        // Since anything was heard: what was fine until now doesn't fail altogether because one request did.
        let heard = self.failing.moved.load(Relaxed).max(self.took.moved.load(Relaxed));
        let passed = now.since(Tick::from_nanos(heard));
        let part = glide(ALL, passed, decay).max(least);
        // `part` of the rest. Both at most 2³², so the product fits.
        let more = (ALL - share).saturating_mul(part) >> 32;
        self.failing.raise((share + more).min(ALL), now);
    }

    /// Share of failures of late, of 2³² − 1. 0 when all is well.
    #[must_use]
    pub fn failing(&self) -> u32 {
        u32::try_from(self.failing.value.load(Relaxed)).unwrap_or(u32::MAX)
    }

    /// What a request is expected to take, or to cost if it fails; `None` = nothing was ever heard.
    #[must_use]
    pub fn estimate(&self, _now: Tick) -> Option<Duration> {
        match self.nanos() {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// As [`Latency::estimate`], 0 = `None`.
    pub(crate) fn nanos(&self) -> u64 {
        let cost = (u64::from(self.failing()).saturating_mul(FAILURE_COSTS)) >> 32;
        self.took.value.load(Relaxed).saturating_add(cost)
    }

    /// Whether the caller is to find out how it does: nothing was heard of it for `every`, and nobody else was told so for
    /// `every`. True for exactly one caller per interval over all threads.
    ///
    /// With `every` zero, whenever the clock moved.
    pub fn claim_probe(&self, now: Tick, every: Duration) -> bool {
        let claimed = self.claimed.load(Relaxed);
        let ago = |tick: &AtomicU64| {
            let tick = tick.load(Relaxed);
            // A mark from the future: the clock went back. Wait for one interval, as if it had been set just now.
            (tick <= now.as_nanos()).then(|| now.since(Tick::from_nanos(tick)))
        };
        if claimed > now.as_nanos() {
            swap(&self.claimed, claimed, now.as_nanos());
            return false;
        }
        // Samples from the future don't count: the claim's own mark holds the rate.
        let heard = [&self.took.moved, &self.failing.moved].into_iter().filter_map(ago).min();
        let due = heard.is_none_or(|heard| heard >= every)
            && (claimed == 0 || now.since(Tick::from_nanos(claimed)) >= every)
            && claimed != now.as_nanos();
        due && swap(&self.claimed, claimed, now.as_nanos())
    }

    /// It asked to be left alone until then, as by `Retry-After`. The last word counts; the caller bounds it.
    pub fn back_off(&self, until: Tick) {
        self.back_off_until.store(until.as_nanos(), Relaxed);
    }

    /// Whether it asked to be left alone now.
    #[must_use]
    pub fn backs_off(&self, now: Tick) -> bool {
        self.back_off_until.load(Relaxed) > now.as_nanos()
    }
}

/// A value that jumps up and glides down. In nanoseconds; 0 = nothing known.
#[derive(Debug, Default)]
struct Peak {
    value: AtomicU64,
    /// Tick up to which the past is reckoned in.
    moved: AtomicU64,
}

impl Peak {
    fn raise(&self, sample: u64, now: Tick) {
        self.value.fetch_max(sample, Relaxed);
        self.moved.store(now.as_nanos(), Relaxed);
    }

    fn observe(&self, sample: u64, now: Tick, decay: Duration) {
        let value = self.value.load(Relaxed);
        if sample >= value {
            return self.raise(sample, now);
        }
        let moved = self.moved.load(Relaxed);
        let passed = now.since(Tick::from_nanos(moved));
        let step = glide(value - sample, passed, decay);
        // Small steps gather: rounding would eat them, and every step writes to a line that all threads read. But for a
        // millisecond at most: what a step is short of then doesn't matter, and the mark says that it was heard of.
        let gathers = step < GATHERED && passed < Duration::from_millis(1) && moved <= now.as_nanos();
        // Whoever wins the mark owns the time that passed.
        if !gathers && swap(&self.moved, moved, now.as_nanos()) {
            // Lost to a peak, which stays, or to the owner of the next instant.
            swap(&self.value, value, value - step);
        }
    }
}

/// `distance` × (1 − e^(−passed / decay)), rounded down, so never more than `distance`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `distance`")]
fn glide(distance: u64, passed: Duration, decay: Duration) -> u64 {
    if decay.is_zero() {
        return distance;
    }
    let ratio = passed.as_secs_f64() / decay.as_secs_f64();
    ((-(-ratio).exp_m1() * distance as f64) as u64).min(distance)
}

/// Replaces `old`, if it is still there; says whether.
fn swap(cell: &AtomicU64, old: u64, new: u64) -> bool {
    cell.compare_exchange(old, new, Relaxed, Relaxed).is_ok()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const DECAY: Duration = Duration::from_secs(2);

    fn at(millis: u64) -> Tick {
        Tick::from_nanos(millis * 1_000_000)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn heard(samples: &[(u64, u64)]) -> Latency {
        let latency = Latency::new();
        samples.iter().for_each(|&(now, took)| latency.observe(ms(took), at(now), DECAY));
        latency
    }

    #[test]
    fn nothing_is_known_at_first_and_the_first_sample_is_believed() {
        assert_eq!(Latency::new().estimate(at(5)), None);
        assert_eq!(heard(&[(5, 40)]).estimate(at(5)), Some(ms(40)));
    }

    #[test]
    fn a_worse_sample_replaces_the_estimate_and_a_better_one_moves_it_by_the_time_passed() {
        let latency = heard(&[(0, 40), (10, 500)]);
        assert_eq!(latency.estimate(at(10)), Some(ms(500)));
        latency.observe(ms(100), at(2010), DECAY);
        let expected = 100.0 + 400.0 * (-1.0_f64).exp();
        let estimate = latency.estimate(at(2010)).unwrap().as_secs_f64() * 1e3;
        assert!((estimate - expected).abs() < 0.001, "{estimate} ms, expected {expected} ms");
    }

    #[test]
    fn how_often_it_is_sampled_does_not_matter() {
        for per_second in [1, 100, 100_000, 10_000_000] {
            let latency = heard(&[(0, 500)]);
            for sample in 1..=per_second {
                let now = Tick::from_nanos(sample * (1_000_000_000 / per_second));
                latency.observe(ms(50), now, DECAY);
            }
            let expected = 50.0 + 450.0 * (-0.5_f64).exp();
            let estimate = latency.estimate(at(1000)).unwrap().as_secs_f64() * 1e3;
            assert!(
                (estimate - expected).abs() < 0.5,
                "{per_second}/s: {estimate} ms, expected {expected} ms"
            );
        }
    }

    #[test]
    fn silence_changes_nothing() {
        let latency = heard(&[(0, 500)]);
        assert_eq!(latency.estimate(at(1_000_000)), Some(ms(500)));
    }

    #[test]
    fn failures_in_a_row_weigh_more_and_more_however_fast_they_come() {
        let latency = heard(&[(0, 50)]);
        let millis: Vec<u128> = (1..=8)
            .map(|now| {
                latency.fail(ms(1), at(now), DECAY);
                latency.estimate(at(now)).unwrap().as_millis()
            })
            .collect();
        let bounds = [60..80, 95..120, 150..200, 270..350, 450..600, 700..850, 850..950, 930..1051];
        for (at, (millis, bound)) in millis.iter().zip(bounds).enumerate() {
            assert!(bound.contains(millis), "after {} failures: {millis} ms, not in {bound:?}", at + 1);
        }
        latency.fail(ms(90_000), at(10), DECAY);
        assert!(latency.estimate(at(10)).unwrap() > ms(90_000), "a failure shows how long it took");
    }

    #[test]
    fn one_failure_in_a_hundred_hardly_matters() {
        let latency = heard(&[(0, 50)]);
        let (mut worst, mut sum) = (0.0_f64, 0.0);
        for request in 1..=1000_u64 {
            let now = at(request * 50);
            if request % 100 == 0 {
                latency.fail(ms(50), now, DECAY)
            } else {
                latency.observe(ms(50), now, DECAY)
            }
            let cost = latency.estimate(now).unwrap().as_secs_f64() * 1e3;
            (worst, sum) = (worst.max(cost), sum + cost);
        }
        assert!(worst < 85.0 && sum / 1000.0 < 54.0, "worst {worst} ms, mean {} ms", sum / 1000.0);
    }

    #[test]
    fn three_good_probes_make_up_for_any_number_of_failures() {
        let latency = heard(&[(0, 50)]);
        (0..20).for_each(|_| latency.fail(ms(1), at(0), DECAY));
        assert!(latency.failing() > u32::MAX / 10 * 9, "{}", latency.failing());
        (1..=3).for_each(|probe| latency.observe(ms(50), at(probe * 1000), DECAY));
        let estimate = latency.estimate(at(3000)).unwrap();
        assert!(estimate < ms(60), "{estimate:?}");
        (4..=5).for_each(|probe| latency.observe(ms(50), at(probe * 1000), DECAY));
        assert_eq!((latency.failing(), latency.estimate(at(5000))), (0, Some(ms(50))));
    }

    #[test]
    fn who_has_only_failed_is_known_to_be_dear() {
        let latency = Latency::new();
        latency.fail(ms(1), at(1_000_000), DECAY);
        assert!(latency.estimate(at(1_000_000)).unwrap() > ms(900), "{:?}", latency.estimate(at(0)));
    }

    #[test]
    fn a_clock_that_goes_back_passes_no_time_and_counts_on_from_there() {
        let latency = heard(&[(1_000_000, 500), (5, 50)]);
        assert_eq!(latency.estimate(at(5)), Some(ms(500)));
        latency.observe(ms(50), at(2005), DECAY);
        let estimate = latency.estimate(at(2005)).unwrap();
        assert!(estimate < ms(220), "{estimate:?} after one decay");
    }

    #[test]
    fn absurd_durations_saturate() {
        let latency = Latency::new();
        latency.observe(Duration::ZERO, at(0), Duration::ZERO);
        assert_eq!(latency.estimate(at(0)), Some(Duration::from_nanos(1)));
        latency.observe(Duration::MAX, at(0), Duration::MAX);
        assert_eq!(latency.estimate(at(0)), Some(Duration::from_nanos(u64::MAX)));
        latency.observe(ms(1), Tick::MAX, Duration::ZERO);
        assert_eq!(latency.estimate(at(0)), Some(ms(1)), "without decay only the last sample counts");
        latency.fail(Duration::MAX, Tick::MAX, Duration::ZERO);
        latency.fail(Duration::MAX, Tick::ZERO, Duration::MAX);
        assert_eq!(latency.estimate(at(0)), Some(Duration::from_nanos(u64::MAX)));
    }

    #[test]
    fn a_probe_is_due_an_interval_after_the_last_sample_or_claim() {
        let latency = heard(&[(10_000, 50)]);
        let claims = [10_000, 10_999, 11_000, 11_001, 11_999, 12_000]
            .map(|now| latency.claim_probe(at(now), ms(1000)));
        assert_eq!(claims, [false, false, true, false, false, true]);
        latency.observe(ms(50), at(12_500), DECAY);
        assert!(!latency.claim_probe(at(13_000), ms(1000)));
        latency.fail(ms(50), at(13_400), DECAY);
        assert!(!latency.claim_probe(at(14_000), ms(1000)), "a failure was heard of, too");
    }

    #[test]
    fn after_the_clock_went_back_a_probe_is_due_within_one_interval_again() {
        let latency = heard(&[(1_000_000, 50)]);
        assert!(latency.claim_probe(at(2_000_000), ms(1000)));
        let claims = [5, 6, 1004, 1005, 1006].map(|now| latency.claim_probe(at(now), ms(1000)));
        assert_eq!(claims, [false, false, false, true, false]);
    }

    #[test]
    fn one_of_all_threads_gets_the_probe() {
        let latency = heard(&[(0, 50)]);
        for round in 1..200 {
            let claimed = thread::scope(|scope| {
                let claim = || latency.claim_probe(at(round * 1000), ms(1000));
                let threads = [scope.spawn(claim), scope.spawn(claim), scope.spawn(claim)];
                threads.into_iter().map(|thread| u32::from(thread.join().unwrap())).sum::<u32>()
            });
            assert_eq!(claimed, 1, "round {round}");
        }
    }

    #[test]
    fn threads_never_lose_a_peak() {
        for round in 1..100 {
            let latency = heard(&[(0, 100)]);
            thread::scope(|scope| {
                for thread in 0..3 {
                    let latency = &latency;
                    scope.spawn(move || {
                        for sample in 0..50 {
                            let now = at(1 + sample * 3 + thread);
                            latency.observe(ms(if sample == 49 { 300 + thread } else { 1 }), now, DECAY);
                        }
                    });
                }
            });
            let estimate = latency.estimate(at(0)).unwrap();
            // What comes after the peak may bring it down by at most the 150 ms that pass.
            assert!(estimate > ms(270) && estimate <= ms(302), "round {round}: {estimate:?}");
        }
    }

    #[test]
    fn backing_off_ends_at_its_time_and_the_last_word_counts() {
        let latency = Latency::new();
        assert!(!latency.backs_off(at(0)));
        latency.back_off(at(500));
        assert!(latency.backs_off(at(499)) && !latency.backs_off(at(500)));
        latency.back_off(at(100));
        assert!(!latency.backs_off(at(200)));
    }
}
