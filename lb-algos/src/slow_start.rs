//! Slow start: a newcomer's share grows with its age, so that cold caches and lazy connections aren't hit by full load.

use std::time::Duration;

/// What [`slow_start`] makes of weight 1 once it is grown up.
pub const FULL: u32 = 4096;

/// What an endpoint has at age 0: a tenth, as in Envoy (`min_weight_percent`), so that it learns at all.
const LEAST: u32 = FULL.div_ceil(10);

/// Beyond this, `weight × FULL` leaves `u32`.
const MOST_WEIGHT: u32 = 1_000_000;

/// The weight of an endpoint that has served for `age`, in units of 1/[`FULL`] of `weight`.
///
/// Grows in proportion to `age` from a tenth of `weight` to all of it at `window`. So the units are finer than weights:
/// all endpoints of a fleet go through here, or none. Weight 0 stays 0, no other becomes 0; weights above 1,000,000
/// count as 1,000,000. No window (zero), no slow start. An age that came from a clock going back is zero, see
/// [`Tick::since`](crate::Tick::since). O(1).
///
/// After Envoy's slow start mode with aggression 1.
#[must_use]
pub fn slow_start(weight: u32, age: Duration, window: Duration) -> u32 {
    weight.min(MOST_WEIGHT) * grown(age, window)
}

/// In 1/[`FULL`].
fn grown(age: Duration, window: Duration) -> u32 {
    if age >= window {
        return FULL;
    }
    // Not above FULL, as age < window; a Duration's nanoseconds leave 30 bits of a u128 free.
    let share = u128::from(FULL) * age.as_nanos() / window.as_nanos();
    u32::try_from(share).map_or(FULL, |share| share.max(LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    #[test]
    fn a_newcomer_has_a_tenth_and_a_grown_up_endpoint_all() {
        assert_eq!(slow_start(100, Duration::ZERO, WINDOW), 41_000, "a tenth of 409600, rounded up");
        assert_eq!(slow_start(100, Duration::from_secs(15), WINDOW), 204_800);
        assert_eq!(slow_start(100, WINDOW, WINDOW), 409_600);
        assert_eq!(slow_start(100, Duration::MAX, WINDOW), 409_600);
    }

    #[test]
    fn a_share_never_shrinks_with_age() {
        let shares: Vec<u32> = (0..40).map(|age| slow_start(7, Duration::from_secs(age), WINDOW)).collect();
        assert!(shares.is_sorted(), "{shares:?}");
    }

    #[test]
    fn only_weight_zero_becomes_zero_and_no_weight_overflows() {
        for age in [Duration::ZERO, Duration::from_nanos(1), WINDOW] {
            assert_eq!(slow_start(0, age, WINDOW), 0);
            assert!(slow_start(1, age, WINDOW) > 0);
        }
        assert_eq!(slow_start(u32::MAX, WINDOW, WINDOW), 1_000_000 * FULL);
        assert_eq!(slow_start(u32::MAX, Duration::ZERO, Duration::MAX), 1_000_000 * LEAST);
    }

    #[test]
    fn without_a_window_nothing_is_slow() {
        assert_eq!(slow_start(3, Duration::ZERO, Duration::ZERO), 3 * FULL);
    }
}
