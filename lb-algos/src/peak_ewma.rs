//! Least expected latency × load.

use std::time::Duration;

use crate::{
    Ask, Fleet, Latency, Pick, Policy, Reason, Rng,
    candidate::stake,
    trust::{Prober, Trusted},
    weighted::{Lot, Table},
};

/// Up to this many endpoints, all are compared; as for [`LeastRequest`](crate::LeastRequest).
const SCAN_UP_TO: usize = 16;

/// Costs up to so many times the least count as equal.
///
/// Estimates of equal endpoints differ by chance: were only the least taken, whoever was lucky last would get everything
/// until its luck turns.
const EQUAL_UP_TO: f64 = 1.25;

/// Picks the endpoint that promises the earliest answer: latency × load, of all, or of two drawn in fleets over 16.
///
/// cost = (estimate + 5 ms) × (in-flight / weight + 1 / mean weight): with equal weights × (in-flight + 1). The request
/// itself counts the same for all, so that weights hold in an idle fleet, too; × 1 / weight would send everything to the
/// heaviest. Estimates are those of [`Latency`], which all workers share.
///
/// - Costs within 25 % of the least are equal and drawn by weight; of two draws the rival must be better by more than that.
///   So equal endpoints have equal shares, by weight, and a difference under 25 % is not exploited.
/// - Weights are met in an idle fleet and under load; in between a lighter idle endpoint goes before a heavier busy one, as
///   in [`LeastRequest`](crate::LeastRequest). Where latencies scatter by more than the 25 %, who is asked more often shows
///   its peaks more often: a heavy endpoint then has somewhat less than its weight (5 of 8 and ± 30 %: 0.52, not 0.63).
/// - Newcomers (no estimate yet) get what chance gives them by weight, whatever their load: their fair share until their
///   first answer, neither none nor all. While nothing is known of anybody, load alone decides.
/// - Probes: an endpoint from which nothing was heard for 1 s gets one request, one per second over all workers, and at most
///   one pick in 20 of a worker is one. So who was slow or failed is found to be well again. A newcomer needs none.
/// - Who asked to be left alone ([`Latency::back_off`]) is, while there is anybody else.
/// - Failing costs 1 s × the share that fails, and who fails a share of its requests of late is left out of that share of
///   picks: who fails fast gets its probes and no more while others do well.
/// - Cost: up to 16 endpoints O(n); above, O(1) while most of the weight is eligible, else O(n). No allocation in `pick`;
///   `rebuild` is O(n), 16 bytes per endpoint.
/// - `None` only when no eligible endpoint has weight > 0.
/// - Without latencies ([`Fleet::latency`] always `None`) it is [`LeastRequest`](crate::LeastRequest), less strict.
///
/// Peak EWMA and its cost: Twitter's Finagle. Two choices: Mitzenmacher 2001.
#[derive(Debug, Default)]
pub struct PeakEwma {
    /// Empty for fleets that are scanned.
    table: Table,
    prober: Prober,
}

impl PeakEwma {
    /// Added to every estimate: differences well below it are nobody's concern, and between endpoints that answer in a
    /// millisecond, one new connection or one hiccup would otherwise decide who gets everything.
    pub const INDIFFERENT: Duration = Duration::from_millis(5);

    /// Knows no endpoints yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn cheapest<F: Fleet + ?Sized>(&self, fleet: &F, ask: Ask, rng: &mut Rng) -> Option<Pick> {
        if fleet.len() <= SCAN_UP_TO {
            return Sight::of_small(fleet, ask).choose(rng);
        }
        self.of_two(fleet, ask, rng).or_else(|| of_all(fleet, ask, rng))
    }

    /// Of two drawn by weight, the first unless the other is clearly better.
    fn of_two<F: Fleet + ?Sized>(&self, fleet: &F, ask: Ask, rng: &mut Rng) -> Option<Pick> {
        let first = Candidate::of(fleet, self.table.draw(fleet, None, rng)?, ask)?;
        let rival = Candidate::of(fleet, self.table.draw(fleet, Some(first.index), rng)?, ask)?;
        let winner = match (first.backs_off, rival.backs_off) {
            // All may be backing off: whoever looks at all knows.
            (true, true) => return None,
            (false, true) => first,
            (true, false) => rival,
            (false, false) if first.is_known() != rival.is_known() => {
                return Some(Reason::Chance.of(first.index));
            }
            (false, false) => {
                let share = 1.0 / self.table.mean();
                if rival.cost(share) * EQUAL_UP_TO < first.cost(share) { rival } else { first }
            }
        };
        Some(Reason::Cheapest.of(winner.index))
    }
}

impl Policy for PeakEwma {
    fn pick<F: Fleet + ?Sized>(&mut self, fleet: &F, ask: Ask, rng: &mut Rng) -> Option<Pick> {
        if let Some(index) = self.prober.due(fleet, ask, |latency| latency.nanos() > 0) {
            return Some(Reason::Probe.of(index));
        }
        // However loaded the others are: idleness of who fails fast is no bargain.
        let trusted = Trusted { fleet, dice: rng.below(u32::MAX) };
        self.cheapest(&trusted, ask, rng).or_else(|| self.cheapest(fleet, ask, rng))
    }

    fn rebuild<F: Fleet + ?Sized>(&mut self, fleet: &F) {
        if fleet.len() <= SCAN_UP_TO {
            self.table.clear();
        } else {
            self.table.build(fleet);
        }
    }
}

/// An endpoint that may be picked, as it was when looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Candidate {
    index: usize,
    weight: u32,
    in_flight: u32,
    /// 0 = unknown.
    nanos: u64,
    backs_off: bool,
}

impl Candidate {
    fn of<F: Fleet + ?Sized>(fleet: &F, index: usize, ask: Ask) -> Option<Self> {
        let weight = stake(fleet, index)?;
        let latency = fleet.latency(index);
        Some(Self {
            index,
            weight,
            in_flight: fleet.in_flight(index),
            nanos: latency.map_or(0, Latency::nanos),
            backs_off: latency.is_some_and(|latency| latency.backs_off(ask.now)),
        })
    }

    const fn is_known(&self) -> bool {
        self.nanos > 0
    }

    /// `share`: 1 / mean weight. Costs are only compared within one pick, all known or none.
    fn cost(&self, share: f64) -> f64 {
        let latency = self.nanos as f64 + PeakEwma::INDIFFERENT.as_nanos() as f64;
        latency * (f64::from(self.in_flight) / f64::from(self.weight) + share)
    }
}

/// All that may be picked, in a small fleet.
struct Sight {
    seen: [Candidate; SCAN_UP_TO],
    count: usize,
}

impl Sight {
    fn of_small<F: Fleet + ?Sized>(fleet: &F, ask: Ask) -> Self {
        let mut sight = Self { seen: [Candidate::default(); SCAN_UP_TO], count: 0 };
        for candidate in
            (0..fleet.len()).filter_map(|index| Candidate::of(fleet, index, ask)).take(SCAN_UP_TO)
        {
            sight.seen[sight.count] = candidate;
            sight.count += 1;
        }
        sight
    }

    fn choose(&self, rng: &mut Rng) -> Option<Pick> {
        choose(|| self.seen[..self.count].iter().copied(), rng)
    }
}

/// As for a small fleet, but looks three or four times instead of keeping what it saw. O(n), no allocation.
fn of_all<F: Fleet + ?Sized>(fleet: &F, ask: Ask, rng: &mut Rng) -> Option<Pick> {
    let looked = choose(|| (0..fleet.len()).filter_map(|index| Candidate::of(fleet, index, ask)), rng);
    // What was seen first may be gone at the second look.
    looked.or_else(|| crate::weighted::scan(fleet, rng).map(|index| Reason::Chance.of(index)))
}

fn choose<I: Iterator<Item = Candidate>>(all: impl Fn() -> I, rng: &mut Rng) -> Option<Pick> {
    let nobody_is_ready = all().all(|candidate| candidate.backs_off);
    let ready = || all().filter(|candidate| nobody_is_ready || !candidate.backs_off);
    let (mut count, mut weights, mut unknown) = (0_u32, 0_u64, 0_u64);
    for candidate in ready() {
        count += 1;
        weights += u64::from(candidate.weight);
        unknown += if candidate.is_known() { 0 } else { u64::from(candidate.weight) };
    }
    if unknown > 0 && unknown < weights && rng.below_u64(weights) < unknown {
        return draw(ready().filter(|candidate| !candidate.is_known()), Reason::Chance, rng);
    }
    let share = f64::from(count) / weights as f64;
    let compared = || ready().filter(|candidate| unknown == weights || candidate.is_known());
    let least = compared().map(|candidate| candidate.cost(share)).fold(f64::INFINITY, f64::min);
    draw(compared().filter(|candidate| candidate.cost(share) <= least * EQUAL_UP_TO), Reason::Cheapest, rng)
}

fn draw(candidates: impl Iterator<Item = Candidate>, reason: Reason, rng: &mut Rng) -> Option<Pick> {
    let mut lot = Lot::default();
    candidates.for_each(|candidate| lot.enter(candidate.index, candidate.weight, rng));
    lot.winner.map(|index| reason.of(index))
}
