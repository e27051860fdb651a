//! What is known of an endpoint's latency.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::Tick;

/// What a failure costs at least: far above what a good answer takes, so that failing fast never looks like being fast.
const LEAST_PENALTY: Duration = Duration::from_secs(1);

/// What a failure costs at most, unless it took longer itself. Bounds how long a member that works again is mistrusted.
const MOST_PENALTY: Duration = Duration::from_secs(60);

/// A penalty fades so many times faster than a latency: once answers are good again, the past says little.
const PENALTY_FADES_FASTER: u32 = 4;

/// What is left of a penalty and below this is forgotten.
const FORGOTTEN: u64 = 1_000_000;

/// Nanoseconds by which an estimate moves at least, unless a millisecond has passed.
const GATHERED: u64 = 1000;

/// Peak-EWMA estimate of one endpoint's latency: the worst is believed at once, the better only gradually.
///
/// - A success that took longer than the estimate replaces it. One that took less moves it by 1 − e^(−dt / decay), dt being
///   the time since it last moved: so what counts is how long things have been better, not by how many answers.
/// - A failure leaves that alone and sets a penalty beside it: twice the penalty so far, at least 1 s, at most 60 s, never
///   less than the failure took. Successes let it fade the same way, four times as fast. The estimate is the greater of both.
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
    penalty: Peak,
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
        if self.penalty.value.load(Relaxed) > 0 {
            self.penalty.observe(0, now, decay / PENALTY_FADES_FASTER);
            let left = self.penalty.value.load(Relaxed);
            if left < FORGOTTEN {
                // A failure may have come in between: then it stays.
                swap(&self.penalty.value, left, 0);
            }
        }
    }

    /// A failure came after this long.
    pub fn fail(&self, took: Duration, now: Tick, _decay: Duration) {
        let most = nanos(MOST_PENALTY);
        let twice = self.penalty.value.load(Relaxed).saturating_mul(2).min(most);
        self.penalty.raise(twice.max(nanos(took)).max(nanos(LEAST_PENALTY)), now);
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
        self.took.value.load(Relaxed).max(self.penalty.value.load(Relaxed))
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
        let heard = [&self.took.moved, &self.penalty.moved].into_iter().filter_map(ago).min();
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
    fn a_fast_failure_is_dear_and_each_one_dearer_up_to_a_minute() {
        let latency = heard(&[(0, 50)]);
        let estimates: Vec<u64> = (1..=9)
            .map(|now| {
                latency.fail(ms(1), at(now), DECAY);
                latency.estimate(at(now)).unwrap().as_secs()
            })
            .collect();
        assert_eq!(estimates, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        latency.fail(ms(90_000), at(10), DECAY);
        assert_eq!(latency.estimate(at(10)), Some(ms(90_000)), "a failure costs at least the time it took");
    }

    #[test]
    fn five_good_probes_make_up_for_a_minute_of_penalty() {
        let latency = heard(&[(0, 50)]);
        (0..20).for_each(|_| latency.fail(ms(1), at(0), DECAY));
        (1..=5).for_each(|probe| latency.observe(ms(50), at(probe * 1000), DECAY));
        assert_eq!(latency.estimate(at(5000)), Some(ms(50)));
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
