use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Tick {
    Tick::from_nanos(seconds * 1_000_000_000)
}

/// An app that works on `capacity` requests at a time, `service` ms each, and queues the rest; in steps of 1 ms.
struct App {
    capacity: usize,
    service: u64,
    /// When each request that waits came.
    waiting: VecDeque<u64>,
    /// When each request that is worked on ends, and when it came.
    working: VecDeque<(u64, u64)>,
    millis: u64,
    /// Fractions of a request still to come.
    due: f64,
}

impl App {
    fn new(capacity: usize, service: u64) -> Self {
        Self { capacity, service, waiting: VecDeque::new(), working: VecDeque::new(), millis: 0, due: 0.0 }
    }

    /// One second of `per_second` requests, those over `limit` in flight turned away.
    fn second(&mut self, per_second: u32, limit: u32) -> LimitSample {
        let (mut completed, mut waited, mut peak) = (0, 0, 0);
        for _ in 0..1000 {
            self.millis += 1;
            while let Some(&(_, came)) = self.working.front().filter(|(ends, _)| *ends <= self.millis) {
                self.working.pop_front();
                completed += 1;
                waited += self.millis - came;
            }
            self.due += f64::from(per_second) / 1000.0;
            while self.due >= 1.0 {
                self.due -= 1.0;
                if self.waiting.len() + self.working.len() < limit as usize {
                    self.waiting.push_back(self.millis);
                }
            }
            while self.working.len() < self.capacity {
                let Some(came) = self.waiting.pop_front() else { break };
                self.working.push_back((self.millis + self.service, came));
            }
            peak = peak.max(u32::try_from(self.waiting.len() + self.working.len()).unwrap());
        }
        let mean_latency = Duration::from_millis(waited).checked_div(completed).unwrap_or_default();
        LimitSample { completed: completed.into(), mean_latency, peak_in_flight: peak, failures: 0 }
    }

    /// Plays `seconds`; each second's limit and sample.
    fn play(&mut self, limit: &mut AdaptiveLimit, per_second: u32, seconds: u64) -> Vec<(u32, LimitSample)> {
        (0..seconds)
            .map(|_| {
                let sample = self.second(per_second, limit.limit());
                (limit.update(sample, at(self.millis / 1000)), sample)
            })
            .collect()
    }
}

#[test]
fn a_threefold_overload_settles_at_about_twice_the_capacity_and_twice_the_latency() {
    for start in [0, 1200, 100] {
        let (mut app, mut limit) = (App::new(20, 50), AdaptiveLimit::new(4, 1000));
        app.play(&mut limit, start, 20);
        let (before, after) = (app.play(&mut limit, 1200, 30), app.play(&mut limit, 1200, 300));
        assert!(before.len() == 30 && after.iter().all(|(limit, _)| (8..=60).contains(limit)), "{after:?}");
        // All but the seconds in which the baseline is measured anew.
        let normal: Vec<_> = after.iter().filter(|(limit, _)| (20..=60).contains(limit)).collect();
        assert!(normal.len() >= 285, "{} of 300 seconds within 20..=60: {after:?}", normal.len());
        let worst = after.iter().map(|(_, sample)| sample.mean_latency).max().unwrap();
        assert!(worst <= Duration::from_millis(125), "after {start}/s: {worst:?}");
        let served: u64 = after.iter().map(|(_, sample)| sample.completed).sum();
        assert!(served >= 300 * 400 * 95 / 100, "after {start}/s: {served} of {}", 300 * 400);
    }
}

#[test]
fn an_app_that_is_overloaded_from_the_start_is_measured_and_put_right() {
    // Its capacity is far below the limit at the start: the first baseline is of queueing.
    // The first congestion is at 40: a quarter of that doesn't queue in the first app, still does in the second.
    for (capacity, settled) in [(12, 10), (4, 80)] {
        let (mut app, mut limit) = (App::new(capacity, 50), AdaptiveLimit::new(2, 1000));
        let play = app.play(&mut limit, 1000, 300);
        let late = &play[settled..];
        let worst = late.iter().map(|(_, sample)| sample.mean_latency).max().unwrap();
        assert!(worst <= Duration::from_millis(150), "{worst:?} after {settled} s: {late:?}");
    }
}

#[test]
fn an_unloaded_app_is_never_limited() {
    let (mut app, mut limit) = (App::new(200, 50), AdaptiveLimit::new(4, 1000));
    for (second, (limit, sample)) in app.play(&mut limit, 3000, 300).into_iter().enumerate() {
        let needed = 150;
        assert!(second < 10 || limit >= needed, "second {second}: {limit}, {sample:?}");
    }
}

#[test]
fn an_app_that_became_slower_for_good_is_not_strangled_for_longer_than_two_minutes() {
    let (mut app, mut limit) = (App::new(20, 50), AdaptiveLimit::new(4, 1000));
    app.play(&mut limit, 300, 60);
    app.service = 500;
    // 20 at a time of 500 ms: 40 a second, of which 30 are asked for.
    let play = app.play(&mut limit, 30, 300);
    let worst = play[..120].iter().map(|(limit, _)| *limit).min().unwrap();
    let served: u64 = play[180..].iter().map(|(_, sample)| sample.completed).sum();
    assert!(
        served >= 120 * 30 * 95 / 100,
        "{served} of {} after three minutes; at worst {worst}: {play:?}",
        120 * 30
    );
}

#[test]
fn an_idle_endpoint_proves_nothing() {
    let mut limit = AdaptiveLimit::new(4, 1000);
    let sample = LimitSample {
        completed: 100,
        mean_latency: Duration::from_millis(5),
        peak_in_flight: 9,
        failures: 0,
    };
    for second in 0..100 {
        assert_eq!(limit.update(sample, at(second)), START, "second {second}");
    }
    assert!(limit.update(LimitSample { peak_in_flight: 10, ..sample }, at(100)) > START);
}

#[test]
fn failures_and_silence_shrink_the_limit() {
    for sample in [
        LimitSample {
            completed: 100,
            failures: 11,
            peak_in_flight: 20,
            mean_latency: Duration::from_millis(1),
        },
        LimitSample { peak_in_flight: 20, ..LimitSample::default() },
    ] {
        let mut limit = AdaptiveLimit::new(4, 1000);
        assert_eq!(limit.update(sample, at(1)), 16, "{sample:?}");
    }
    let mut limit = AdaptiveLimit::new(4, 1000);
    assert_eq!(limit.update(LimitSample::default(), at(1)), START, "nobody asked for anything");
}

#[test]
fn bounds_are_kept_even_odd_ones() {
    assert_eq!(AdaptiveLimit::new(0, 0).limit(), 1);
    assert_eq!(AdaptiveLimit::new(100, 3).limit(), 100);
    assert_eq!(AdaptiveLimit::new(1, 7).limit(), 7);
}

proptest! {
    #[test]
    fn whatever_is_seen_the_limit_stays_within_its_bounds(
        min in 0_u32..50,
        max in 0_u32..5000,
        samples in prop::collection::vec(
            (any::<u64>(), any::<u64>(), any::<u32>(), any::<u64>(), -100_i64..100), 1..200),
    ) {
        let mut limit = AdaptiveLimit::new(min, max);
        let mut clock = 0_i64;
        for (completed, nanos, peak_in_flight, failures, step) in samples {
            clock = (clock + step).max(0);
            let sample = LimitSample {
                // Small numbers as often as any.
                completed: completed >> (nanos % 64),
                mean_latency: Duration::from_nanos(nanos >> (completed % 64)),
                peak_in_flight: peak_in_flight >> (failures % 32),
                failures: failures >> (completed % 64),
            };
            let now = limit.update(sample, at(clock.unsigned_abs()));
            prop_assert!(now >= min.max(1) && now <= max.max(min).max(1), "{now} for {sample:?}");
            prop_assert_eq!(now, limit.limit());
        }
    }
}
