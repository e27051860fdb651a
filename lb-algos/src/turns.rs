//! Turns in a queue: what [`RoundRobin`](crate::RoundRobin) does in large fleets.

use std::{cmp::Reverse, collections::BinaryHeap, mem};

use crate::{Fleet, candidate::stake};

/// Turns that ineligible endpoints may lose in one pick before all endpoints are compared.
const SKIPS: usize = 32;

/// When an endpoint's next turn is: a round, in which each endpoint has as many turns as its weight, evenly spread, and a
/// moment in it, in 1 / 2³². Ties go to the lower index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    round: u64,
    moment: u32,
    index: u32,
}

impl Turn {
    /// The turn after this one: the `k`-th of `w` turns is at (k + ½) / w, so there is nothing to add up and no rounding that
    /// does. From the moment alone, so a weight may change at any time.
    fn next(self, weight: u32) -> Self {
        // Beyond 2³¹ two turns could fall on one moment.
        let weight = u64::from(weight.clamp(1, 1 << 31));
        let turn = ((u64::from(self.moment) * weight) >> 32) + 1;
        match u32::try_from((((2 * turn) + 1) << 31) / weight) {
            Ok(moment) if turn < weight => Self { moment, ..self },
            _ => Self { round: self.round + 1, moment: first_moment(weight), ..self },
        }
    }
}

fn first_moment(weight: u64) -> u32 {
    u32::try_from((1 << 31) / weight.max(1)).unwrap_or(u32::MAX)
}

/// Endpoints by their next turn. Earliest virtual deadline first, as packet schedulers do: Bennett and Zhang, "WF²Q",
/// INFOCOM 1996, without its clock, since a pick is always due.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    queue: BinaryHeap<Reverse<Turn>>,
    /// The latest turn served.
    served: Option<Turn>,
}

impl Turns {
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Endpoints that stay keep their turn, or get an earlier one if their weight has grown; new ones come in at theirs from
    /// now on. `before` gives an index before the change for one after. O(n log n). Fleets of more than 2³² endpoints are left out.
    pub(crate) fn rebuild<F: Fleet + ?Sized>(&mut self, fleet: &F, before: impl Fn(usize) -> Option<usize>) {
        let mut known = mem::take(&mut self.queue).into_vec();
        known.sort_unstable_by_key(|Reverse(turn)| turn.index);
        let served = self.served;
        let turn = |index: u32| {
            let weight = fleet.weight(index as usize);
            let kept = before(index as usize).and_then(|before| known.get(before)).map(|Reverse(turn)| *turn);
            let first = Turn { round: 0, moment: first_moment(u64::from(weight)), index };
            // Before the first pick everybody begins anew: where they stood was no position, only the old weights.
            let joined = served.map_or(first, |served| served.next(weight));
            // Whose weight has grown would wait out the long gap of the small one. Nobody else's turn is later than that.
            let turn = kept.filter(|_| served.is_some()).map_or(joined, |kept| joined.min(kept));
            Reverse(Turn { index, ..turn })
        };
        let Ok(count) = u32::try_from(fleet.len()) else { return };
        self.queue = (0..count).map(turn).collect::<Vec<_>>().into();
    }

    /// Who has the earliest turn among those that may be picked. Those before it that may not lose theirs, so nobody comes
    /// back with a burst. O(log n), for each lost turn, too; O(n) once 32 in a row were lost.
    pub(crate) fn pick<F: Fleet + ?Sized>(&mut self, fleet: &F) -> Option<usize> {
        for _ in 0..SKIPS {
            let mut top = self.queue.peek_mut()?;
            let index = top.0.index as usize;
            let stake = stake(fleet, index);
            self.served = serve(&mut top.0, self.served, stake.unwrap_or_else(|| fleet.weight(index)));
            if stake.is_some() {
                return Some(index);
            }
        }
        self.pick_of_all(fleet)
    }

    /// Passes one turn by, whosever it is. O(log n).
    pub(crate) fn pass<F: Fleet + ?Sized>(&mut self, fleet: &F) {
        if let Some(mut top) = self.queue.peek_mut() {
            let weight = fleet.weight(top.0.index as usize);
            self.served = serve(&mut top.0, self.served, weight);
        }
    }

    fn pick_of_all<F: Fleet + ?Sized>(&mut self, fleet: &F) -> Option<usize> {
        let mut turns = mem::take(&mut self.queue).into_vec();
        let may = |Reverse(turn): &&mut Reverse<Turn>| stake(fleet, turn.index as usize).is_some();
        let earliest = turns.iter_mut().filter(may).min_by_key(|Reverse(turn)| *turn);
        let index = earliest.map(|Reverse(turn)| {
            let index = turn.index as usize;
            self.served = serve(turn, self.served, fleet.weight(index));
            index
        });
        // In place: neither way allocates.
        self.queue = turns.into();
        index
    }
}

/// Moves `turn` on and returns the latest turn served. One that lags behind, having been ineligible, catches up by no more
/// than this turn.
fn serve(turn: &mut Turn, served: Option<Turn>, weight: u32) -> Option<Turn> {
    let index = turn.index;
    let now = served.map_or(*turn, |served| served.max(*turn));
    *turn = Turn { index, ..now.next(weight) };
    Some(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    struct Members(Vec<(u32, bool)>);

    impl Fleet for Members {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn id(&self, index: usize) -> u64 {
            index as u64
        }

        fn weight(&self, index: usize) -> u32 {
            self.0[index].0
        }

        fn eligible(&self, index: usize) -> bool {
            self.0[index].1
        }

        fn in_flight(&self, _: usize) -> u32 {
            0
        }
    }

    fn built(members: &Members) -> Turns {
        let mut turns = Turns::default();
        turns.rebuild(members, |_| None);
        turns
    }

    fn counts(turns: &mut Turns, members: &Members, picks: usize) -> Vec<usize> {
        let mut counts = vec![0; members.len()];
        (0..picks).for_each(|_| counts[turns.pick(members).unwrap()] += 1);
        counts
    }

    #[test]
    fn every_round_gives_each_its_weight_also_the_greatest() {
        let members = Members((0..300).map(|index| ([1, 7, 13, 100][index % 4], true)).collect());
        let mut turns = built(&members);
        for round in 0..5 {
            let counts = counts(&mut turns, &members, 75 * 121);
            assert!(
                counts.iter().zip(&members.0).all(|(&count, member)| count == member.0 as usize),
                "round {round}"
            );
        }
        let members = Members(vec![(u32::MAX, true), (u32::MAX, true), (1, true)]);
        let counts = counts(&mut built(&members), &members, 1000);
        assert_eq!(counts, [500, 500, 0]);
    }

    #[test]
    fn the_turns_of_one_are_spread_over_the_round() {
        let members = Members((0..100).map(|index| (if index == 7 { 50 } else { 1 }, true)).collect());
        let mut turns = built(&members);
        let picks: Vec<usize> = (0..149 * 3).map(|_| turns.pick(&members).unwrap()).collect();
        // All ones of 1 have their turn at the same moment; but for that, 7's turns alternate with none.
        let gaps: Vec<usize> = picks.split(|&pick| pick == 7).map(<[usize]>::len).collect();
        assert!(gaps.iter().filter(|&&gap| gap > 0).count() >= 3, "{gaps:?}");
        assert_eq!(picks.iter().filter(|&&pick| pick == 7).count(), 150);
    }

    #[test]
    fn whoever_is_left_shares_by_weight_and_who_comes_back_gets_no_burst() {
        for alive in [1, 3, 50, 99] {
            let mut members = Members((0..100).map(|index| (1 + index % 3, index < alive)).collect());
            let mut turns = built(&members);
            let sum: u32 = members.0.iter().filter(|member| member.1).map(|member| member.0).sum();
            counts(&mut turns, &members, 1000 * sum as usize);
            for (count, member) in counts(&mut turns, &members, 10 * sum as usize).iter().zip(&members.0) {
                let ideal = if member.1 { 10 * member.0 as usize } else { 0 };
                assert!(count.abs_diff(ideal) <= 1, "{alive} alive: {count} for {member:?}");
            }
            members.0.iter_mut().for_each(|member| member.1 = true);
            let all: u32 = members.0.iter().map(|member| member.0).sum();
            for (count, member) in counts(&mut turns, &members, all as usize).iter().zip(&members.0) {
                assert!(count.abs_diff(member.0 as usize) <= 2, "{alive} were alive: {count} for {member:?}");
            }
        }
    }

    #[test]
    fn after_any_history_shares_are_right_within_two_picks() {
        for seed in 0..20 {
            let mut rng = Rng::seeded(seed);
            let mut members = Members(vec![(1, true); 80]);
            let mut turns = built(&members);
            for _ in 0..200 {
                let index = rng.below(80) as usize;
                members.0[index] = (rng.below(20), rng.below(3) > 0);
                let picks = rng.below(100);
                (0..picks).filter_map(|_| turns.pick(&members)).for_each(|index| assert!(members.0[index].1));
                if rng.below(4) == 0 {
                    turns.rebuild(&members, Some);
                }
            }
            members.0.iter_mut().for_each(|member| *member = (1 + rng.below(9), true));
            turns.rebuild(&members, Some);
            let sum: u32 = members.0.iter().map(|member| member.0).sum();
            for (count, member) in counts(&mut turns, &members, sum as usize).iter().zip(&members.0) {
                assert!(count.abs_diff(member.0 as usize) <= 2, "seed {seed}: {count} for {member:?}");
            }
        }
    }

    #[test]
    fn nobody_eligible_is_none_and_a_later_pick_works() {
        let mut members = Members(vec![(1, false); 100]);
        let mut turns = built(&members);
        assert_eq!(turns.pick(&members), None);
        members.0[60].1 = true;
        assert_eq!(turns.pick(&members), Some(60));
    }
}
