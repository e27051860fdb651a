//! How many retries a stream of requests may cause.

use crate::Tick;

/// Seconds that a budget looks back.
const WINDOW: u64 = 10;

/// One more than the window: the eleventh is the second that the window has only partly left.
const BUCKETS: usize = 11;

const SECOND: u64 = 1_000_000_000;

/// Retries allowed as a share of requests, so that retries can't turn a fault into an overload.
///
/// The promise: whenever a retry is granted, the retries of the last ten seconds, this one included, are at most
/// `percent` % of the requests of the last ten seconds, plus ten times the floor. What is not used within ten seconds
/// is lost. (To hold at every moment with counts per second, retries are remembered for up to 11 s and requests for at
/// least 9 s.)
///
/// One per worker thread and pool: plain numbers, no atomics. So the floor is each worker's part of it. 200 bytes;
/// every call O(1), nothing allocated. A clock going back counts as standing still until it has caught up.
///
/// Finagle's `RetryBudget` (a share plus a floor over a window, 20 % and 10/s); Google, "Site Reliability Engineering",
/// ch. 21.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    percent: u32,
    /// Retries in the window that need no request.
    floor: f64,
    /// A second each, the current one at `second % BUCKETS`.
    buckets: [Bucket; BUCKETS],
    /// The current one; never goes back.
    second: u64,
    /// Of the last ten buckets.
    requests: u64,
    /// Of all buckets.
    retries: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    /// A budget of `percent` % of the requests (may exceed 100) and at least `floor_per_second` retries per second on
    /// average (a fraction is fine: 0.25 allows two in ten seconds; negative or NaN counts as 0). Both 0: no retry.
    #[must_use]
    pub fn new(percent: u32, floor_per_second: f64) -> Self {
        Self {
            percent,
            floor: floor_per_second.max(0.0) * WINDOW as f64,
            buckets: [Bucket::default(); BUCKETS],
            second: 0,
            requests: 0,
            retries: 0,
        }
    }

    /// A request came: once each, not for its retries.
    pub fn deposit(&mut self, now: Tick) {
        self.advance(now);
        self.current().requests += 1;
        self.requests += 1;
    }

    /// Whether a retry is allowed now; if so it is counted.
    #[must_use]
    pub fn withdraw(&mut self, now: Tick) -> bool {
        self.advance(now);
        // Doubles hold counts exactly up to 2⁵³.
        let allowed = self.requests as f64 * f64::from(self.percent) / 100.0 + self.floor;
        let granted = (self.retries + 1) as f64 <= allowed;
        if granted {
            self.current().retries += 1;
            self.retries += 1;
        }
        granted
    }

    /// Makes `now`'s second the current one, which empties every bucket that turns from oldest to newest.
    fn advance(&mut self, now: Tick) {
        let second = now.as_nanos() / SECOND;
        let passed = second.saturating_sub(self.second);
        if passed >= BUCKETS as u64 {
            self.buckets = [Bucket::default(); BUCKETS];
            (self.requests, self.retries) = (0, 0);
            self.second = second;
            return;
        }
        for _ in 0..passed {
            self.second += 1;
            let emptied = std::mem::take(self.current());
            self.retries -= emptied.retries;
            // The next to be emptied is the eleventh: its requests count no longer, its retries still do.
            self.requests -= self.bucket(self.second + 1).requests;
        }
    }

    fn bucket(&mut self, second: u64) -> &mut Bucket {
        // Below BUCKETS, so it fits.
        &mut self.buckets[usize::try_from(second % BUCKETS as u64).unwrap_or(0)]
    }

    fn current(&mut self) -> &mut Bucket {
        self.bucket(self.second)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Tick {
        Tick::from_nanos(millis * 1_000_000)
    }

    /// Retries granted when `tries` are asked for.
    fn granted(budget: &mut RetryBudget, tries: u32, millis: u64) -> usize {
        (0..tries).filter(|_| budget.withdraw(at(millis))).count()
    }

    #[test]
    fn a_share_of_the_requests_may_be_retried() {
        let mut budget = RetryBudget::new(20, 0.0);
        (0..1000).for_each(|request| budget.deposit(at(request)));
        assert_eq!(granted(&mut budget, 1000, 1000), 200);
    }

    #[test]
    fn the_floor_serves_streams_too_thin_for_a_share() {
        assert_eq!(granted(&mut RetryBudget::new(20, 3.0), 1000, 0), 30, "ten seconds of three each");
        assert_eq!(granted(&mut RetryBudget::new(0, 0.25), 1000, 0), 2);
        for none in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(granted(&mut RetryBudget::new(0, none), 1000, 0), 0, "floor {none}");
        }
        assert_eq!(granted(&mut RetryBudget::new(0, f64::INFINITY), 1000, 0), 1000);
    }

    #[test]
    fn nothing_is_saved_up_beyond_ten_seconds_and_nothing_is_owed_longer_than_eleven() {
        let mut budget = RetryBudget::new(10, 1.0);
        (0..100).for_each(|_| budget.deposit(at(0)));
        assert_eq!(granted(&mut budget, 100, 9_999), 20, "ten of the requests, ten of the floor");
        assert_eq!(granted(&mut budget, 100, 10_000), 0, "the requests are forgotten, the retries not");
        assert_eq!(granted(&mut budget, 100, 19_999), 0);
        assert_eq!(granted(&mut budget, 100, 20_000), 10, "the floor again");
        assert_eq!(granted(&mut budget, 100, 3_600_000), 10, "an hour's silence saves up no more");
    }

    #[test]
    fn a_clock_going_back_gives_no_more() {
        let mut budget = RetryBudget::new(0, 1.0);
        assert_eq!(granted(&mut budget, 100, 60_000), 10);
        assert_eq!(granted(&mut budget, 100, 0), 0);
        assert_eq!(granted(&mut budget, 100, 71_000), 10);
    }

    proptest! {
        /// Against a list of everything that happened: the promise in the type's documentation, to the word.
        #[test]
        fn over_any_ten_seconds_retries_stay_within_the_share_and_the_floor(
            percent in 0_u32..250,
            floor in 0.0..5.0_f64,
            // Milliseconds forward, or back; whether it is a request or a wish to retry, and how many at once.
            steps in prop::collection::vec((-3000_i64..3000, any::<bool>(), 1_u32..30), 1..400),
        ) {
            let mut budget = RetryBudget::new(percent, floor);
            let (mut clock, mut latest) = (20_000_i64, 0);
            let (mut requests, mut retries) = (Vec::new(), Vec::new());
            for (step, is_request, times) in steps {
                // Forward twice as often as back.
                clock = (clock + if step < -1500 { step } else { step.abs() }).max(0);
                latest = latest.max(clock);
                for _ in 0..times {
                    let now = at(clock.unsigned_abs());
                    if is_request {
                        budget.deposit(now);
                        requests.push(latest);
                    } else if budget.withdraw(now) {
                        retries.push(latest);
                        let within = |times: &[i64]| times.iter().filter(|&&time| time > latest - 10_000).count() as f64;
                        let allowed = within(&requests) * f64::from(percent) / 100.0 + floor * 10.0;
                        prop_assert!(within(&retries) <= allowed + 1e-9, "{} of {allowed}", within(&retries));
                    }
                }
            }
        }

        /// The other side of the bound: whoever retries evenly gets what was promised.
        #[test]
        fn a_steady_stream_gets_its_share(percent in 1_u32..100, per_second in 5_u64..200) {
            let mut budget = RetryBudget::new(percent, 0.0);
            let (mut requests, mut retries) = (0.0, 0.0);
            for request in 0..per_second * 60 {
                let now = at(request * 1000 / per_second);
                budget.deposit(now);
                requests += 1.0;
                retries += f64::from(u8::from(budget.withdraw(now)));
            }
            let share = retries / requests * 100.0;
            // Retries are remembered for up to a tenth longer than requests.
            let least = f64::from(percent) * 0.8 - 100.0 / per_second as f64;
            prop_assert!(share >= least && share <= f64::from(percent) + 1e-9, "{share} % of {percent} %");
        }
    }
}
