//! Zone preference: how much stays near when some of the near endpoints are out.

/// The share of requests, 0 to 1, that stays in the own zone.
///
/// `eligible` and `total` are weights of the own zone's endpoints: of those that may serve now, and of all of them;
/// `others_eligible` that of eligible endpoints elsewhere. `spill_percent` says how much more than its normal load an
/// endpoint is trusted to carry, 140 in Envoy (its overprovisioning factor of 1.4):
///
/// - while `eligible × spill_percent` covers `total`, everything stays: with 140, until more than 2/7 of the zone are
///   out;
/// - below that, the zone keeps what it can carry, `eligible × spill_percent / (100 × total)`, so each endpoint's load
///   rises to `spill_percent` of the normal one and no further; the rest spills;
/// - nothing eligible elsewhere: all stays (1.0), whatever is left here; nothing eligible here: nothing stays (0.0).
///
/// Below 100, some spills even from a zone in full health. O(1), never NaN, no overflow.
///
/// Envoy, "Priority levels" and "Degraded endpoints": the same arithmetic between a zone and the rest.
#[must_use]
pub fn local_share(eligible: u64, total: u64, spill_percent: u32, others_eligible: u64) -> f64 {
    if others_eligible == 0 {
        return 1.0;
    }
    if eligible == 0 {
        return 0.0;
    }
    let (carried, wanted) = (u128::from(eligible) * u128::from(spill_percent), 100 * u128::from(total));
    if carried >= wanted { 1.0 } else { carried as f64 / wanted as f64 }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the ends of the range are exact")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everything_stays_while_the_zone_can_carry_it() {
        assert_eq!(local_share(10, 10, 140, 10), 1.0);
        assert_eq!(local_share(5, 7, 140, 10), 1.0, "5/7 × 1.4 is exactly all");
    }

    #[test]
    fn what_the_zone_cannot_carry_spills_in_proportion() {
        assert!((local_share(5, 10, 140, 10) - 0.7).abs() < 1e-12);
        assert!((local_share(1, 10, 140, 10) - 0.14).abs() < 1e-12);
        assert!((local_share(10, 10, 50, 10) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn nobody_elsewhere_keeps_all_here_and_nobody_here_sends_all_away() {
        assert_eq!(local_share(1, 10, 140, 0), 1.0);
        assert_eq!(local_share(0, 10, 140, 1), 0.0);
        assert_eq!(local_share(0, 0, 140, 0), 1.0, "no request can be served, so none has to travel");
        assert_eq!(local_share(0, 0, 0, 5), 0.0);
    }

    proptest! {
        #[test]
        fn it_is_a_share_and_grows_with_what_is_eligible(
            eligible: u64, total: u64, spill_percent: u32, others: u64, more: u64,
        ) {
            let share = local_share(eligible, total, spill_percent, others);
            let with_more = local_share(eligible.saturating_add(more), total, spill_percent, others);
            prop_assert!((0.0..=1.0).contains(&share), "{share}");
            prop_assert!(with_more >= share, "{with_more} after {share}");
        }
    }
}
