//! When something is tried again, and when a certificate is renewed. Pure.

use std::time::{Duration, SystemTime};

/// Wait after the first failure.
pub const FIRST: Duration = Duration::from_secs(60);
/// Longest wait.
pub const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Wait after `failures` in a row (1 = the first): doubles from 1 minute to 24 hours; `chance` (0 to 1) takes off up to a tenth,
/// so that names which failed together don't come back together. A certificate that ends soon is worth trying more often: never
/// longer than a sixth of what it has `left`, but for the first minute.
///
/// What the authority asks for (`retry_after`) is the least, up to 24 hours.
#[must_use]
pub fn wait(failures: u32, retry_after: Option<Duration>, left: Option<Duration>, chance: f64) -> Duration {
    let doubled =
        FIRST.saturating_mul(1u32.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(u32::MAX));
    let mut wait = doubled.min(LONGEST);
    if let Some(left) = left {
        wait = wait.min((left / 6).max(FIRST.min(left / 6).max(SHORTEST)));
    }
    wait = wait.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 10.0);
    wait.max(retry_after.unwrap_or_default().min(LONGEST))
}

/// Least wait, where a certificate lives for minutes only.
const SHORTEST: Duration = Duration::from_secs(2);

/// When a certificate is renewed that the authority says nothing about: after 2/3 of its life, up to a twentieth of it earlier by
/// `chance` (0 to 1).
#[must_use]
pub fn due(not_before: SystemTime, not_after: SystemTime, chance: f64) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    not_before + life.mul_f64(2.0 / 3.0 - chance.clamp(0.0, 1.0) / 20.0)
}

/// When a certificate is renewed whose authority suggests this window (RFC 9773): somewhere in it by `chance`, but never in the
/// last tenth of its life. A window that begins with its life suggests nothing: [`due`] decides, if it falls in there.
#[must_use]
pub fn due_within(
    (start, end): (SystemTime, SystemTime),
    (not_before, not_after): (SystemTime, SystemTime),
    chance: f64,
) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    let own = due(not_before, not_after, chance);
    if start <= not_before && own <= end && end > not_before {
        return own;
    }
    let span = end.duration_since(start).unwrap_or_default();
    (start + span.mul_f64(chance.clamp(0.0, 1.0))).min(not_before + life.mul_f64(0.9))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn waits_double_from_a_minute_to_a_day() {
        let waits: Vec<_> = (1..=13).map(|failures| wait(failures, None, None, 0.0).as_secs()).collect();
        assert_eq!(waits[..4], [60, 120, 240, 480], "{waits:?}");
        assert_eq!(waits[11..], [86_400, 86_400], "{waits:?}");
        assert_eq!(wait(u32::MAX, None, None, 0.0), LONGEST);
        assert_eq!(wait(1, None, None, 1.0), seconds(54), "chance takes off a tenth");
    }

    #[test]
    fn what_the_authority_asks_for_is_the_least_up_to_a_day() {
        assert_eq!(wait(1, Some(seconds(3600)), None, 0.5), seconds(3600));
        assert_eq!(wait(5, Some(seconds(10)), None, 0.0), seconds(960));
        assert_eq!(wait(1, Some(seconds(1_000_000)), None, 0.0), LONGEST);
        assert_eq!(
            wait(9, Some(seconds(3600)), Some(seconds(60)), 0.0),
            seconds(3600),
            "even if it then ends"
        );
    }

    #[test]
    fn a_certificate_that_ends_soon_is_tried_for_more_often() {
        assert_eq!(wait(10, None, Some(seconds(36_000)), 0.0), seconds(6_000));
        assert_eq!(wait(10, None, Some(seconds(60)), 0.0), seconds(10));
        assert_eq!(wait(10, None, Some(seconds(0)), 0.0), SHORTEST);
        assert_eq!(wait(1, None, Some(seconds(864_000)), 0.0), FIRST);
    }

    #[test]
    fn renewal_is_due_after_two_thirds_of_life_or_in_the_window_that_the_authority_suggests() {
        let start = SystemTime::UNIX_EPOCH;
        assert_eq!(due(start, start + seconds(90), 0.0), start + seconds(60));
        let early = due(start, start + seconds(120), 1.0);
        assert!(early >= start + seconds(73) && early <= start + seconds(74), "{early:?}");
        assert_eq!(
            due(start + seconds(5), start, 0.0),
            start + seconds(5),
            "a life that ends before it begins"
        );
        let life = (start, start + seconds(100));
        let within =
            |from, to, chance| due_within((start + seconds(from), start + seconds(to)), life, chance);
        assert_eq!(within(50, 60, 0.5), start + seconds(55));
        assert_eq!(within(95, 200, 0.5), start + seconds(90), "never in the last tenth");
        assert_eq!(within(60, 50, 0.5), start + seconds(60), "a window that ends before it begins");
        assert!(within(0, 99, 0.0) > start + seconds(65), "the whole life is no suggestion");
        assert_eq!(within(0, 10, 0.5), start + seconds(5), "but the beginning of it is one");
    }
}
