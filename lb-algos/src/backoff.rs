//! How long to wait before trying again.

use std::time::Duration;

use crate::Rng;

/// The wait before retry number `retry` (the first is 0): anything from 0 to `base × 2^retry`, at most `max`, each
/// equally likely.
///
/// Chance over the whole range ("full jitter"), because clients that failed together would otherwise come back
/// together. O(1), no overflow however large `retry` is; waits are whole nanoseconds, at most 584 years. `base` or
/// `max` 0: no wait.
///
/// Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
pub fn backoff(retry: u32, base: Duration, max: Duration, rng: &mut Rng) -> Duration {
    let factor = 1_u32.checked_shl(retry).unwrap_or(u32::MAX);
    let longest = base.saturating_mul(factor).min(max);
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(rng.below_u64(nanos.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(25);
    const MAX: Duration = Duration::from_millis(250);

    #[test]
    fn waits_double_up_to_the_longest_and_use_the_whole_range() {
        let mut rng = Rng::seeded(1);
        for (retry, longest) in [(0, 25), (1, 50), (2, 100), (3, 200), (4, 250), (31, 250), (u32::MAX, 250)] {
            let longest = Duration::from_millis(longest);
            let waits: Vec<Duration> = (0..2000).map(|_| backoff(retry, BASE, MAX, &mut rng)).collect();
            let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            let mean = waits.iter().sum::<Duration>() / 2000;
            assert!(*most <= longest, "retry {retry}: {most:?}, at most {longest:?} wanted");
            assert!(*least < longest / 50 && *most > longest * 49 / 50, "retry {retry}: {least:?}..{most:?}");
            let centred = longest * 47 / 100..longest * 53 / 100;
            assert!(centred.contains(&mean), "retry {retry}: mean {mean:?} of {longest:?}");
        }
    }

    #[test]
    fn nothing_to_wait_for_is_no_wait_and_no_length_overflows() {
        let mut rng = Rng::seeded(2);
        assert_eq!(backoff(9, Duration::ZERO, MAX, &mut rng), Duration::ZERO);
        assert_eq!(backoff(9, BASE, Duration::ZERO, &mut rng), Duration::ZERO);
        assert!(backoff(u32::MAX, Duration::MAX, Duration::MAX, &mut rng) > Duration::ZERO);
    }
}
