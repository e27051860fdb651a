//! Time as policies see it: a number somebody else read from a clock.

use std::time::Duration;

/// Nanoseconds since an origin that the caller chose and keeps.
///
/// Range 0 to about 584 years. All arithmetic saturates: nothing here panics, wraps or goes negative. The clock may go
/// back between two ticks; [`Tick::since`] then answers [`Duration::ZERO`], as if no time had passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(u64);

impl Tick {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The last tick; as a deadline it means "never".
    pub const MAX: Self = Self(u64::MAX);

    /// The tick `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later (the clock went back).
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The tick `by` later, [`Tick::MAX`] when that is out of range.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }

    /// The tick `by` earlier, [`Tick::ZERO`] when that lies before the origin.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(by)))
    }
}

/// `Duration` reaches further than a tick does: 584 years stand for everything longer.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_back_looks_like_no_time_passed() {
        let (early, late) = (Tick::from_nanos(5), Tick::from_nanos(9));
        assert_eq!(late.since(early), Duration::from_nanos(4));
        assert_eq!(early.since(late), Duration::ZERO);
    }

    #[test]
    fn arithmetic_stops_at_both_ends() {
        assert_eq!(Tick::MAX.saturating_add(Duration::from_nanos(1)), Tick::MAX);
        assert_eq!(Tick::ZERO.saturating_add(Duration::MAX), Tick::MAX);
        assert_eq!(Tick::from_nanos(3).saturating_sub(Duration::from_nanos(4)), Tick::ZERO);
        assert_eq!(Tick::MAX.saturating_sub(Duration::MAX), Tick::ZERO);
    }
}
