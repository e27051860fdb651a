//! Hysteresis: one odd probe changes nothing, `rise` or `fall` of them in a row do.

/// A verdict and how far it is from changing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streak {
    healthy: bool,
    rise: u32,
    fall: u32,
    /// Results in a row that speak against the verdict.
    against: u32,
}

impl Streak {
    /// Begins with a verdict. `rise` and `fall` of 0 count as 1.
    #[must_use]
    pub fn new(healthy: bool, rise: u32, fall: u32) -> Self {
        Self { healthy, rise: rise.max(1), fall: fall.max(1), against: 0 }
    }

    /// Takes one result; the new verdict if it changed.
    pub fn observe(&mut self, success: bool) -> Option<bool> {
        if success == self.healthy {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < if self.healthy { self.fall } else { self.rise } {
            return None;
        }
        self.healthy = success;
        self.against = 0;
        Some(success)
    }

    /// Whether the last result spoke against the verdict.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.against > 0
    }

    /// The verdict.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(mut streak: Streak, results: &str) -> Vec<(usize, bool)> {
        results.bytes().enumerate().filter_map(|(at, r)| Some((at, streak.observe(r == b'+')?))).collect()
    }

    #[test]
    fn fall_failures_in_a_row_take_out_and_rise_successes_bring_back() {
        assert_eq!(changes(Streak::new(true, 2, 3), "---++--+++---"), [(2, false), (4, true), (12, false)]);
    }

    #[test]
    fn a_flapping_endpoint_keeps_its_verdict() {
        assert_eq!(changes(Streak::new(true, 2, 3), "--+--+--+--+"), []);
        assert_eq!(changes(Streak::new(false, 2, 3), "+-+-+-+-"), []);
    }

    #[test]
    fn doubt_lasts_from_the_first_contrary_result_to_the_change_or_the_next_agreeing_one() {
        let mut streak = Streak::new(true, 2, 3);
        let doubts = "+-+---+--++".bytes().map(|result| {
            streak.observe(result == b'+');
            if streak.is_in_doubt() { '?' } else { '.' }
        });
        assert_eq!(doubts.collect::<String>(), ".?.??.?..?.");
    }

    #[test]
    fn zero_counts_as_one() {
        assert_eq!(changes(Streak::new(true, 0, 0), "-+"), [(0, false), (1, true)]);
    }
}
