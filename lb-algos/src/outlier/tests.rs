use proptest::prelude::*;

use super::*;

const RULES: OutlierRules = OutlierRules {
    consecutive_failures: 5,
    consecutive_gateway_errors: 3,
    success_ratio: Some((80, 20)),
    latency_factor_percent: Some(300),
    base_ejection: Duration::from_secs(10),
    max_ejection: Duration::from_secs(60),
    max_ejected_percent: 50,
};

fn at(seconds: u64) -> Tick {
    Tick::from_nanos(seconds * 1_000_000_000)
}

/// A hundred successes in 50 ms each.
fn good() -> Sample {
    Sample {
        successes: 100,
        mean_latency: Some(Duration::from_millis(50)),
        serves: true,
        ..Sample::default()
    }
}

fn failing_in_row(failures_in_row: u32) -> Sample {
    Sample { failures_in_row, failures: u64::from(failures_in_row), serves: true, ..Sample::default() }
}

/// Of a hundred requests.
fn with_failures(failures: u64) -> Sample {
    Sample { successes: 100 - failures, failures, ..good() }
}

fn with_mean(millis: u64) -> Sample {
    Sample { mean_latency: Some(Duration::from_millis(millis)), ..good() }
}

/// A pool and its watcher.
struct Pool {
    rules: OutlierRules,
    samples: Vec<Sample>,
    ejections: Vec<Ejection>,
}

impl Pool {
    fn of(samples: &[Sample]) -> Self {
        let ejections = vec![Ejection::default(); samples.len()];
        Self { rules: RULES, samples: samples.to_vec(), ejections }
    }

    fn judge(&mut self, seconds: u64) -> Vec<Change> {
        judge(&self.rules, &self.samples, &mut self.ejections, at(seconds))
    }

    fn out(&self) -> Vec<usize> {
        (0..self.ejections.len()).filter(|&index| self.ejections[index].until().is_some()).collect()
    }

    /// Of one member: the cause for which it is ejected when a pool like this is judged once.
    fn cause(samples: &[Sample], index: usize) -> Option<Cause> {
        let mut pool = Self::of(samples);
        pool.judge(0);
        pool.ejections[index].cause()
    }
}

fn eject(index: usize, until: u64, cause: Cause) -> Change {
    Change::Eject { index, until: at(until), cause }
}

#[test]
fn a_member_that_fails_in_a_row_is_ejected_at_its_threshold() {
    let mut pool = Pool::of(&[good(), failing_in_row(4), good()]);
    assert_eq!(pool.judge(0), []);
    pool.samples[1] = failing_in_row(5);
    assert_eq!(pool.judge(1), [eject(1, 11, Cause::ConsecutiveFailures)]);
    assert_eq!(pool.judge(2), [], "once is enough");
    assert_eq!(
        Pool::cause(&[good(), Sample { gateway_errors_in_row: 3, ..good() }], 1),
        Some(Cause::ConsecutiveGatewayErrors)
    );
}

#[test]
fn a_pool_of_two_may_have_one_out_and_a_pool_of_one_none() {
    let mut pair = Pool::of(&[failing_in_row(5), failing_in_row(9)]);
    pair.judge(0);
    assert_eq!(pair.out(), [1], "the worse");
    let mut single = Pool::of(&[failing_in_row(100)]);
    assert_eq!(single.judge(0), []);
}

#[test]
fn small_pools_have_ejections_too() {
    for (members, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
        let mut pool = Pool::of(&vec![failing_in_row(9); members]);
        pool.judge(0);
        assert_eq!(pool.out().len(), most, "of {members}");
        pool = Pool::of(&vec![failing_in_row(9); members]);
        pool.rules.max_ejected_percent = 10;
        pool.judge(0);
        assert_eq!(pool.out().len(), usize::from(members > 1), "of {members}, 10 %");
        pool = Pool::of(&vec![failing_in_row(9); members]);
        pool.rules.max_ejected_percent = 300;
        pool.judge(0);
        assert_eq!(pool.out().len(), members - 1, "of {members}, all but the last");
        pool = Pool::of(&vec![failing_in_row(9); members]);
        pool.rules.max_ejected_percent = 0;
        assert_eq!(pool.judge(0), [], "0 % of {members}");
    }
}

#[test]
fn who_does_not_serve_neither_counts_nor_is_ejected() {
    let down = Sample { serves: false, ..failing_in_row(50) };
    let mut pool = Pool::of(&[down, failing_in_row(50), down]);
    assert_eq!(pool.judge(0), [], "the only one that serves");
    let mut pool = Pool::of(&[down, failing_in_row(50), good()]);
    pool.judge(0);
    assert_eq!(pool.out(), [1]);
}

#[test]
fn the_last_that_serves_comes_back_when_the_others_fall_ill() {
    let mut pool = Pool::of(&[failing_in_row(5), good()]);
    pool.judge(0);
    assert_eq!(pool.out(), [0]);
    pool.samples[1].serves = false;
    assert_eq!(pool.judge(1), [Change::Readmit { index: 0 }]);
}

#[test]
fn an_ejection_ends_by_itself_and_the_first_failure_after_it_ejects_for_longer() {
    let mut pool = Pool::of(&[failing_in_row(5), good(), good()]);
    pool.judge(0);
    assert_eq!(pool.judge(9), []);
    assert_eq!(pool.judge(10), [Change::Readmit { index: 0 }]);
    assert_eq!(pool.judge(11), [], "the failures of before don't count again");
    pool.samples[0] = failing_in_row(6);
    assert_eq!(pool.judge(12), [eject(0, 32, Cause::ConsecutiveFailures)], "twice the time");
    assert_eq!(pool.judge(32), [Change::Readmit { index: 0 }]);
    // The watcher reset the count, and then there was a failure.
    pool.samples[0] = failing_in_row(1);
    assert_eq!(pool.judge(33), [eject(0, 63, Cause::ConsecutiveFailures)], "three times");
    for _ in 0..9 {
        let until = pool.ejections[0].until().unwrap();
        assert!(until <= at(3600), "{until:?}");
        let seconds = until.as_nanos() / 1_000_000_000;
        pool.judge(seconds);
        pool.samples[0].failures_in_row += 1;
        pool.judge(seconds);
        pool.judge(seconds + 1);
        let next = pool.ejections[0].until().unwrap().since(at(seconds + 1));
        assert!(next <= RULES.max_ejection, "{next:?}");
    }
    assert_eq!(
        pool.ejections[0].until().unwrap().since(pool.ejections[0].out.unwrap().begun),
        RULES.max_ejection
    );
}

#[test]
fn after_probation_it_takes_the_threshold_again() {
    let mut pool = Pool::of(&[failing_in_row(5), good(), good()]);
    pool.judge(0);
    pool.judge(10);
    pool.samples[0] = good();
    assert_eq!(pool.judge(11), []);
    pool.samples[0] = failing_in_row(4);
    assert_eq!(pool.judge(21), [], "ten seconds after the return");
    pool.samples[0] = failing_in_row(5);
    assert_eq!(
        pool.judge(22),
        [eject(0, 32, Cause::ConsecutiveFailures)],
        "the calm ten seconds are forgiven"
    );
}

#[test]
fn a_rare_failure_on_probation_is_no_relapse() {
    let mut pool = Pool::of(&[failing_in_row(5), good(), good()]);
    pool.judge(0);
    pool.judge(10);
    pool.samples[0] = Sample { failures_in_row: 1, ..with_failures(1) };
    assert_eq!(pool.judge(11), [], "one in a hundred");
    pool.samples[0] = Sample { failures_in_row: 1, ..with_failures(10) };
    assert_eq!(pool.judge(12).len(), 1, "one in ten");
}

#[test]
fn who_has_just_come_back_has_a_window_of_before_and_is_not_judged_by_it() {
    let mut pool = Pool::of(&[with_failures(60), good(), good()]);
    assert_eq!(pool.judge(0), [eject(0, 10, Cause::SuccessRatio)]);
    assert_eq!(pool.judge(10), [Change::Readmit { index: 0 }]);
    // The watcher begins a new one.
    pool.samples[0] = Sample { successes: 0, failures: 0, mean_latency: None, ..good() };
    assert_eq!(pool.judge(11), []);
}

#[test]
fn the_watcher_learns_what_makes_it_judge_at_once() {
    let mut pool = Pool::of(&[failing_in_row(5), good(), good()]);
    let eject_at = |pool: &Pool, seconds| pool.ejections[0].failures_that_eject(&pool.rules, at(seconds));
    assert_eq!(eject_at(&pool, 0), (Some(5), Some(3)));
    pool.judge(0);
    pool.judge(10);
    assert_eq!(eject_at(&pool, 11), (Some(1), Some(1)));
    assert_eq!(eject_at(&pool, 20), (Some(5), Some(3)));
    pool.rules.consecutive_failures = 0;
    assert_eq!(eject_at(&pool, 11), (None, Some(1)));
}

#[test]
fn one_ejection_is_forgotten_per_calm_period() {
    let mut pool = Pool::of(&[failing_in_row(5), good(), good()]);
    for (from, until) in [(0, 10), (10, 30), (30, 60)] {
        pool.samples[0].failures_in_row += 1;
        assert_eq!(pool.judge(from).last(), Some(&eject(0, until, Cause::ConsecutiveFailures)), "at {from}");
        pool.judge(until);
        pool.judge(until);
    }
    assert_eq!(pool.ejections[0].times(), 3);
    pool.samples[0] = good();
    for (seconds, times) in [(69, 3), (70, 2), (85, 1), (89, 1), (90, 0), (10_000, 0)] {
        pool.judge(seconds);
        assert_eq!(pool.ejections[0].times(), times, "at {seconds}");
    }
}

#[test]
fn a_successful_probe_ends_a_first_ejection_at_once_and_later_ones_not_before_they_have_grown() {
    let mut pool = Pool::of(&[failing_in_row(5), good(), good()]);
    assert!(!pool.ejections[0].readmit_early(at(0)), "it isn't out");
    pool.judge(0);
    assert!(pool.ejections[0].readmit_early(at(1)));
    assert_eq!(pool.out(), []);
    assert_eq!(pool.judge(2), [], "the failures of before don't count again");
    pool.samples[0].failures_in_row += 1;
    assert_eq!(pool.judge(3), [eject(0, 23, Cause::ConsecutiveFailures)]);
    assert!(!pool.ejections[0].readmit_early(at(12)), "the probes have lied once");
    assert!(pool.ejections[0].readmit_early(at(13)));
}

#[test]
fn a_low_success_ratio_ejects_only_who_does_worse_than_the_others() {
    let half = with_failures(50);
    assert_eq!(Pool::cause(&[half, good(), good()], 0), Some(Cause::SuccessRatio));
    assert_eq!(Pool::cause(&[half, good()], 0), Some(Cause::SuccessRatio), "in a pool of two");
    assert_eq!(Pool::cause(&[with_failures(19), good(), good()], 0), None, "81 % is enough");
    let mut alike = Pool::of(&[half, with_failures(55), with_failures(45), half]);
    assert_eq!(alike.judge(0), [], "if all fail alike, nobody is the outlier");
    let thin = Sample { successes: 9, failures: 10, ..good() };
    assert_eq!(Pool::cause(&[thin, good(), good()], 0), None, "19 requests say nothing");
    let idle = Sample { successes: 0, mean_latency: None, ..good() };
    assert_eq!(Pool::cause(&[half, idle, idle], 0), None, "nobody to compare with");
}

#[test]
fn chance_alone_seldom_makes_an_outlier() {
    // Everybody fails one request in five, which is just the minimum; 20 requests each, 2,000 pools.
    let mut rng = crate::Rng::seeded(1);
    let mut ejected = 0;
    for _ in 0..2000 {
        let samples: Vec<Sample> = (0..5)
            .map(|_| {
                let failures = (0..20).filter(|_| rng.below(5) == 0).count() as u64;
                Sample { successes: 20 - failures, failures, ..good() }
            })
            .collect();
        ejected += Pool::of(&samples).judge(0).len();
    }
    assert!(ejected < 40, "{ejected} of 10000 members");
}

#[test]
fn a_slow_member_is_an_outlier_by_factor_and_by_milliseconds() {
    assert_eq!(Pool::cause(&[with_mean(150), with_mean(50), with_mean(60)], 0), Some(Cause::Latency));
    assert_eq!(Pool::cause(&[with_mean(150), with_mean(50)], 0), Some(Cause::Latency), "in a pool of two");
    assert_eq!(Pool::cause(&[with_mean(149), with_mean(50), with_mean(60)], 0), None, "below the factor");
    assert_eq!(Pool::cause(&[with_mean(4), with_mean(0), with_mean(1)], 0), None, "noise");
    let thin = Sample { successes: 9, ..with_mean(1000) };
    assert_eq!(Pool::cause(&[thin, good(), good()], 0), None, "nine requests");
    assert_eq!(Pool::cause(&[with_mean(1000), Sample { mean_latency: None, ..good() }], 0), None, "no rival");
    let members = [with_mean(10), with_mean(60), with_mean(200)];
    assert_eq!(Pool::cause(&members, 2), Some(Cause::Latency), "20 × the lower of 10 and 60");
    let members = [with_mean(50), with_mean(140), with_mean(50), with_mean(155)];
    assert_eq!(Pool::cause(&members, 3), Some(Cause::Latency), "50 is the median of the other three");
    let members = [with_mean(40), with_mean(50), with_mean(130), with_mean(140)];
    assert_eq!(Pool::cause(&members, 1), None, "a fast one never is");
    assert_eq!(Pool::cause(&members, 3), None, "its own mean must not count: 50 of 40, 50, 130");
    let members = [with_mean(40), with_mean(60), with_mean(130)];
    assert_eq!(Pool::cause(&members, 2), Some(Cause::Latency), "40 of 40 and 60");
    let mut pool = Pool::of(&[with_mean(100), with_mean(100), with_mean(10), with_mean(10), with_mean(10)]);
    pool.judge(0);
    assert_eq!(pool.out(), [0, 1], "the others' median is of the fast majority");
}

#[test]
fn who_fails_takes_the_place_of_who_is_merely_slow() {
    let mut pool = Pool::of(&[with_mean(500), good(), good()]);
    pool.judge(0);
    assert_eq!(pool.out(), [0]);
    pool.samples[1] = failing_in_row(5);
    assert_eq!(pool.judge(1), [Change::Readmit { index: 0 }, eject(1, 11, Cause::ConsecutiveFailures)]);
    pool.samples[2] = failing_in_row(50);
    assert_eq!(pool.judge(2), [], "but not of one that fails");
}

#[test]
fn rules_that_are_off_eject_nobody() {
    let off = OutlierRules {
        consecutive_failures: 0,
        consecutive_gateway_errors: 0,
        success_ratio: None,
        latency_factor_percent: None,
        ..RULES
    };
    let awful = Sample { failures_in_row: 99, gateway_errors_in_row: 99, failures: 99, ..with_mean(9000) };
    let mut pool = Pool { rules: off, ..Pool::of(&[awful, good(), good()]) };
    assert_eq!(pool.judge(0), []);
}

#[test]
fn odd_input_has_an_answer() {
    assert_eq!(judge(&RULES, &[], &mut [], at(0)), []);
    assert_eq!(judge(&RULES, &[good()], &mut [], at(0)), []);
    let huge = Sample {
        successes: u64::MAX,
        failures: u64::MAX,
        mean_latency: Some(Duration::MAX),
        ..failing_in_row(u32::MAX)
    };
    let mut pool = Pool::of(&[huge; 3]);
    pool.rules.base_ejection = Duration::ZERO;
    pool.judge(1);
    pool.judge(1);
    pool.rules.base_ejection = Duration::MAX;
    pool.rules.max_ejection = Duration::MAX;
    pool.judge(0);
    pool.judge(2);
}

#[test]
fn a_clock_going_back_prolongs_no_ejection() {
    let mut pool = Pool::of(&[failing_in_row(5), good(), good()]);
    pool.judge(1_000_000);
    pool.judge(5);
    assert_eq!(pool.ejections[0].until(), Some(at(15)));
    assert_eq!(pool.judge(15), [Change::Readmit { index: 0 }]);
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let counts = (0_u32..8, 0_u32..5, 0_u64..60, 0_u64..60);
    (counts, prop::option::of(0_u64..500), prop::bool::weighted(0.8)).prop_map(
        |((failures_in_row, gateway_errors_in_row, successes, failures), mean, serves)| Sample {
            failures_in_row,
            gateway_errors_in_row,
            successes,
            failures,
            mean_latency: mean.map(Duration::from_millis),
            serves,
        },
    )
}

proptest! {
    #[test]
    fn the_cap_holds_after_every_call_and_every_ejection_ends(
        percent in 0_u32..120,
        members in 0_usize..9,
        // Seconds to go, back now and then; what each member looks like then; who is probed.
        steps in prop::collection::vec(
            (-20_i64..60, prop::collection::vec(any_sample(), 9), 0_usize..9), 1..60),
    ) {
        let rules = OutlierRules { max_ejected_percent: percent, ..RULES };
        let mut ejections = vec![Ejection::default(); members];
        let mut clock = 1000_i64;
        let mut out = vec![false; members];
        for (step, samples, probed) in steps {
            clock = (clock + step).max(0);
            let now = at(clock.unsigned_abs());
            if probed < members {
                out[probed] &= !ejections[probed].readmit_early(now);
            }
            let samples = &samples[..members];
            for change in judge(&rules, samples, &mut ejections, now) {
                match change {
                    Change::Eject { index, until, .. } => {
                        prop_assert!(!out[index] && samples[index].serves, "{index} was out or doesn't serve");
                        let length = until.since(now);
                        prop_assert!(length >= rules.base_ejection && length <= rules.max_ejection, "{length:?}");
                        out[index] = true;
                    }
                    Change::Readmit { index } => {
                        prop_assert!(out[index], "{index} came back but wasn't out");
                        out[index] = false;
                    }
                }
            }
            let kept: Vec<bool> = ejections.iter().map(|ejection| ejection.until().is_some()).collect();
            prop_assert_eq!(&kept, &out, "the changes tell all");
            let serving = samples.iter().filter(|sample| sample.serves).count();
            let gone = (0..members).filter(|&index| samples[index].serves && out[index]).count();
            let most = if percent == 0 { 0 } else { (serving * percent as usize / 100).max(1) };
            prop_assert!(gone <= most, "{gone} of {serving} out, {most} allowed");
            prop_assert!(serving == 0 || gone < serving, "all {serving} out");
        }
        // Whatever happened: after the longest ejection, and calm, all are back and all is forgotten.
        let calm = vec![good(); members];
        let later = clock.unsigned_abs() + 61;
        judge(&rules, &calm, &mut ejections, at(later));
        prop_assert!(ejections.iter().all(|ejection| ejection.until().is_none()), "{ejections:?}");
        judge(&rules, &calm, &mut ejections, at(later + 3600));
        prop_assert!(ejections.iter().all(|ejection| ejection.times() == 0), "{ejections:?}");
    }
}
