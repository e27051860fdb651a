//! Smooth weighted round robin.

use crate::{Ask, Fleet, Pick, Policy, Reason, Rng, candidate::stake, turns::Turns, weighted::scan};

/// Work that finding the starting position may cost, in endpoint visits; spent once per pool and worker.
///
/// Measured 2026-11 (2 virtual cores, other work running), furthest start, 50 to 2000 endpoints: median 0.15–0.24 ms.
const START_BUDGET: u64 = 1 << 17;

/// Up to this many endpoints, credits; above, a queue.
///
/// Credits are the smoother of the two, the queue costs the same at any size. Where they cost the same wasn't measured yet.
const CREDITS_UP_TO: usize = 64;

/// What passing one turn by in a queue costs, in endpoint visits.
const PASSING: u64 = 32;

/// Picks in turn, each endpoint as often as its weight says, spread as evenly as can be.
///
/// Weights 5, 1, 1 give `a a b a c a a`, not `a a a a a b c`. Per pick every eligible endpoint earns its weight in credit;
/// the one with most credit is picked and pays what all of them earned. An ineligible endpoint neither earns nor pays: the
/// others go on smoothly in their proportions, and when it is back it carries on where it was, with no burst to catch up.
///
/// Fleets over 64 keep a queue instead: in every round, as long as the sum of weights, an endpoint of weight w has its turns
/// at ½/w, 1½/w … of the round; the earliest is picked. Endpoints of equal weight thus go in a row, by index. What is said
/// of exactness and coming back holds there as well; credits and turns are not converted when a fleet grows past 64.
///
/// - Exact: while weights and eligibility stay, any `sum of weights` picks in a row give each endpoint its weight; in the
///   first such row after a rebuild that changed them, its weight ± 2.
/// - Cost: up to 64 endpoints O(n), about 1 ns per endpoint plus what [`Fleet::eligible`] costs; above, O(log n) for each
///   turn looked at, and O(n) when 32 in a row belong to ineligible ones. No allocation. The very first pick also plays
///   some turns forward to start somewhere in the cycle: up to 131,072 / n, or 4,096.
/// - `None` only when no eligible endpoint has weight > 0.
/// - Ties go to the lower index.
/// - Start: a position in the cycle, drawn at the first pick from `rng`, so that workers (each with its own seed) don't
///   all begin at the first endpoint. [`RoundRobin::starting_at`] fixes it.
/// - `rebuild` keeps the credit of ids that stay, in proportion to the new sum of weights, so nobody is ever owed more
///   than one turn by the past; new endpoints start with the average credit. O(n log n). If no id stays it starts anew.
/// - Weights are read live. Without a `rebuild` after the fleet's size changed it picks at random by weight.
///
/// nginx, `ngx_http_upstream_round_robin.c` (Dounin 2012). However the set of eligible endpoints changes, credits stay
/// within a few turns: a pick always moves credit from those that have more to those that have less.
#[derive(Debug, Default)]
pub struct RoundRobin {
    /// As of the last rebuild; same order as `credits`.
    ids: Vec<u64>,
    credits: Vec<i64>,
    /// Sum of weights at the last rebuild: what a pick costs while all are eligible.
    price: i64,
    /// Instead of credits, in large fleets.
    turns: Turns,
    /// Whether the starting position was taken.
    started: bool,
    /// Where to start; `None` = draw it.
    start: Option<u64>,
}

impl RoundRobin {
    /// Knows no endpoints yet; will start at a drawn position.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`RoundRobin::new`], but starts `position` picks into the cycle; 0 is nginx's own order.
    ///
    /// Taken modulo the length of the cycle, and in big fleets modulo what 131,072 endpoint visits reach.
    #[must_use]
    pub fn starting_at(position: u64) -> Self {
        Self { start: Some(position), ..Self::default() }
    }

    /// One turn among the endpoints that `stake` gives a weight.
    fn turn(&mut self, stake: impl Fn(usize) -> Option<u32>) -> Option<usize> {
        let (mut earned, mut best) = (0_i64, None);
        for (index, credit) in self.credits.iter_mut().enumerate() {
            let Some(weight) = stake(index) else { continue };
            // Saturating: only weights near 2³² in fleets of ten thousands could get there, and then order suffers a little.
            *credit = credit.saturating_add(i64::from(weight));
            earned = earned.saturating_add(i64::from(weight));
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((index, *credit));
            }
        }
        let (index, most) = best?;
        self.credits[index] = most.saturating_sub(earned);
        Some(index)
    }

    fn rebuild_turns<F: Fleet + ?Sized>(&mut self, fleet: &F) {
        let mut known: Vec<(u64, usize)> = self.ids.iter().copied().zip(0..).collect();
        known.sort_unstable();
        let before = |index| {
            let at = known.binary_search_by_key(&fleet.id(index), |&(id, _)| id).ok()?;
            Some(known[at].1).filter(|_| self.credits.is_empty())
        };
        let stays = (0..fleet.len()).any(|index| before(index).is_some());
        if !stays {
            self.turns.clear();
        }
        self.turns.rebuild(fleet, before);
        self.started &= stays;
        self.ids = (0..fleet.len()).map(|index| fleet.id(index)).collect();
        self.credits.clear();
        self.price = 0;
    }

    /// Plays forward to the starting position, as if all were eligible.
    fn take_start<F: Fleet + ?Sized>(&mut self, fleet: &F, rng: &mut Rng) {
        self.started = true;
        let weights = || (0..fleet.len()).map(|index| u64::from(fleet.weight(index)));
        let divisor = weights().fold(0, gcd);
        let queued = self.turns.len() > 0;
        let affordable = START_BUDGET / if queued { PASSING } else { self.credits.len().max(1) as u64 };
        let cycle = weights().sum::<u64>().checked_div(divisor).unwrap_or(0).min(affordable);
        let position = match self.start {
            Some(position) => position.checked_rem(cycle).unwrap_or(0),
            None => rng.below_u64(cycle),
        };
        for _ in 0..position {
            if queued {
                self.turns.pass(fleet);
                continue;
            }
            self.turn(|index| Some(fleet.weight(index)).filter(|&weight| weight > 0));
        }
    }
}

impl Policy for RoundRobin {
    fn pick<F: Fleet + ?Sized>(&mut self, fleet: &F, _ask: Ask, rng: &mut Rng) -> Option<Pick> {
        if self.ids.len() != fleet.len() {
            return scan(fleet, rng).map(|index| Reason::Chance.of(index));
        }
        if !self.started {
            self.take_start(fleet, rng);
        }
        let turn = if self.turns.len() > 0 {
            self.turns.pick(fleet)
        } else {
            self.turn(|index| stake(fleet, index))
        };
        turn.map(|index| Reason::Turn.of(index))
    }

    fn rebuild<F: Fleet + ?Sized>(&mut self, fleet: &F) {
        if fleet.len() > CREDITS_UP_TO {
            return self.rebuild_turns(fleet);
        }
        self.turns.clear();
        let mut known: Vec<(u64, i64)> = self.ids.iter().copied().zip(self.credits.iter().copied()).collect();
        known.sort_unstable_by_key(|&(id, _)| id);
        let credit_of = |id: u64| {
            let at = known.binary_search_by_key(&id, |&(id, _)| id).ok()?;
            Some(known[at].1)
        };
        let ids: Vec<u64> = (0..fleet.len()).map(|index| fleet.id(index)).collect();
        let stays: Vec<Option<i64>> = ids.iter().map(|&id| credit_of(id)).collect();
        let price: i64 = (0..fleet.len()).map(|index| i64::from(fleet.weight(index))).sum();

        let kept = || stays.iter().flatten().map(|&credit| i128::from(credit));
        // Only differences between credits matter. 0 is made the average again, for those who join now or later.
        let average = kept().sum::<i128>().checked_div(kept().count() as i128).unwrap_or(0);
        let rescaled = |credit: i128| {
            let scaled = match (i128::from(self.price), i128::from(price)) {
                (0, _) | (_, 0) => credit,
                (old, new) if old == new => credit,
                (old, new) => (credit * new / old).clamp(-new, new),
            };
            i64::try_from(scaled).unwrap_or(0)
        };
        self.credits = stays
            .iter()
            .map(|credit| credit.map_or(0, |credit| rescaled(i128::from(credit) - average)))
            .collect();
        self.started &= kept().next().is_some();
        self.ids = ids;
        // While nothing has weight nobody picks either: the credits still mean what they meant.
        if price > 0 {
            self.price = price;
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tick;

    struct Weights(Vec<(u64, u32)>);

    impl Fleet for Weights {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn id(&self, index: usize) -> u64 {
            self.0[index].0
        }

        fn weight(&self, index: usize) -> u32 {
            self.0[index].1
        }

        fn eligible(&self, _: usize) -> bool {
            true
        }

        fn in_flight(&self, _: usize) -> u32 {
            0
        }
    }

    fn with_credits(ids: &[u64], credits: &[i64], price: i64) -> RoundRobin {
        RoundRobin { ids: ids.into(), credits: credits.into(), price, started: true, ..RoundRobin::new() }
    }

    #[test]
    fn rebuild_of_an_unchanged_fleet_keeps_every_credit() {
        let mut policy = with_credits(&[7, 8, 9], &[3, -4, 1], 7);
        policy.rebuild(&Weights(vec![(7, 5), (8, 1), (9, 1)]));
        assert_eq!(policy.credits, [3, -4, 1]);
    }

    #[test]
    fn rebuild_finds_credits_by_id_when_the_order_changed() {
        let mut policy = with_credits(&[7, 8, 9], &[3, -4, 1], 7);
        policy.rebuild(&Weights(vec![(9, 1), (7, 5), (8, 1)]));
        assert_eq!(policy.credits, [1, 3, -4]);
    }

    #[test]
    fn rebuild_rescales_credits_so_that_old_weights_leave_no_debt_of_many_turns() {
        let mut policy = with_credits(&[7, 8], &[4000, -4000], 10_000);
        policy.rebuild(&Weights(vec![(7, 10), (8, 10)]));
        assert_eq!(policy.credits, [8, -8]);
    }

    #[test]
    fn rebuild_gives_a_new_endpoint_the_average_credit() {
        let mut policy = with_credits(&[7, 8, 9], &[6, -5, -1], 9);
        policy.rebuild(&Weights(vec![(8, 3), (9, 3), (10, 3)]));
        assert_eq!(policy.credits, [-2, 2, 0], "8 and 9 keep their distance, 10 is in the middle");
    }

    #[test]
    fn credits_outlive_a_time_without_any_weight() {
        let mut policy = with_credits(&[7, 8], &[3, -3], 10);
        policy.rebuild(&Weights(vec![(7, 0), (8, 0)]));
        policy.rebuild(&Weights(vec![(7, 5), (8, 5)]));
        assert_eq!(policy.credits, [3, -3]);
    }

    #[test]
    fn a_fleet_without_a_known_id_starts_anew() {
        let mut policy = with_credits(&[7, 8], &[3, -3], 10);
        policy.rebuild(&Weights(vec![(1, 5), (2, 5)]));
        assert_eq!((policy.credits.as_slice(), policy.started), ([0, 0].as_slice(), false));
    }

    #[test]
    fn credits_stay_within_a_few_turns_however_the_eligible_set_changes() {
        for seed in 0..20 {
            let mut rng = Rng::seeded(seed);
            let weights: Vec<u32> = (0..12).map(|_| 1 + rng.below(9)).collect();
            let turn = i64::from(weights.iter().sum::<u32>());
            let mut policy = with_credits(&[0; 12], &[0; 12], turn);
            for _ in 0..20_000 {
                let eligible = rng.next_u64() & rng.next_u64();
                policy.turn(|index| (eligible >> index & 1 == 1).then_some(weights[index]));
                let most = policy.credits.iter().map(|credit| credit.abs()).max().unwrap();
                assert!(most <= 3 * turn, "seed {seed}: credit {most} with turns of {turn}");
            }
        }
    }

    #[test]
    fn the_greatest_weights_overflow_nothing() {
        let fleet = Weights((0..50).map(|id| (id, u32::MAX)).collect());
        let mut policy = RoundRobin::starting_at(u64::MAX);
        policy.rebuild(&fleet);
        let mut rng = Rng::seeded(1);
        let mut picks: Vec<usize> =
            (0..50).map(|_| policy.pick(&fleet, Ask::at(Tick::ZERO), &mut rng).unwrap().index).collect();
        picks.sort_unstable();
        assert_eq!(picks, (0..50).collect::<Vec<_>>());
    }
}
