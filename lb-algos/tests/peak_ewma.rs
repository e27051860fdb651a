//! Peak EWMA in a small world in virtual time: who turns slow, recovers, fails or is new gets what it should.
//!
//! Requests arrive at random (Poisson) at four workers that share latencies and in-flight counts. Each seed is a world.

mod common;

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use common::{Endpoint, Endpoints, Measured, built};
use lb_algos::{AnyPolicy, Ask, Latency, PolicyKind, Prepared, Reason, Rng, Tick};

const DECAY: Duration = Duration::from_secs(2);
const SEEDS: u64 = 8;

#[derive(Debug, Clone, Copy)]
enum Does {
    Answer(Duration),
    Fail(Duration),
}

/// When it ends, a number to tell them apart, endpoint, took, failed.
type Running = (Tick, u64, usize, Duration, bool);

struct World {
    now: Tick,
    rng: Rng,
    fleet: Measured,
    does: Vec<Does>,
    workers: Vec<AnyPolicy>,
    rngs: Vec<Rng>,
    running: BinaryHeap<Reverse<Running>>,
    next: Tick,
    per_second: f64,
    begun: u64,
    /// Latencies vary by so much either way.
    spread: f64,
}

#[derive(Debug)]
struct Seen {
    hits: Vec<u32>,
    probes: Vec<u32>,
}

impl Seen {
    fn share(&self, index: usize) -> f64 {
        f64::from(self.hits[index]) / f64::from(self.hits.iter().sum::<u32>().max(1))
    }
}

impl World {
    fn new(seed: u64, weights: &[u32], does: Does, per_second: f64) -> Self {
        let fleet = Endpoints::with_weights(weights);
        let workers = (0..4).map(|_| built(PolicyKind::PeakEwma, &fleet)).collect();
        let latencies = weights.iter().map(|_| Latency::new()).collect();
        Self {
            now: Tick::from_nanos(1),
            rng: Rng::seeded(seed),
            fleet: Measured { fleet, latencies },
            does: vec![does; weights.len()],
            workers,
            rngs: (1..=4).map(|worker| Rng::seeded(seed + worker * 1_000_000)).collect(),
            running: BinaryHeap::new(),
            next: Tick::from_nanos(1),
            per_second,
            begun: 0,
            spread: 0.3,
        }
    }

    /// One more, of which nothing is known.
    fn join(&mut self, does: Does) {
        let id = self.does.len() as u64;
        self.fleet.fleet.0.push(Endpoint { id, weight: 1, eligible: true, in_flight: 0 });
        self.fleet.latencies.push(Latency::new());
        self.does.push(does);
        let Self { workers, fleet, .. } = self;
        workers.iter_mut().for_each(|worker| worker.rebuild(fleet, &Prepared::None));
    }

    fn run(&mut self, time: Duration) -> Seen {
        let until = self.now.saturating_add(time);
        let mut seen = Seen { hits: vec![0; self.does.len()], probes: vec![0; self.does.len()] };
        loop {
            let ends = self.running.peek().map_or(Tick::MAX, |Reverse((at, ..))| *at);
            if ends.min(self.next) > until {
                self.now = until;
                return seen;
            }
            if ends <= self.next {
                self.end();
            } else {
                self.begin(&mut seen);
            }
        }
    }

    fn end(&mut self) {
        let Some(Reverse((at, _, index, took, failed))) = self.running.pop() else { return };
        self.now = at;
        self.fleet.fleet.0[index].in_flight -= 1;
        let latency = &self.fleet.latencies[index];
        if failed { latency.fail(took, at, DECAY) } else { latency.observe(took, at, DECAY) }
    }

    fn begin(&mut self, seen: &mut Seen) {
        self.now = self.next;
        let gap = Duration::from_secs_f64(-(1.0 - self.rng.f64()).ln() / self.per_second);
        self.next = self.now.saturating_add(gap);
        let worker = self.rng.below(4) as usize;
        let pick = self.workers[worker].pick(&self.fleet, Ask::at(self.now), &mut self.rngs[worker]);
        let pick = pick.expect("all are eligible");
        seen.hits[pick.index] += 1;
        seen.probes[pick.index] += u32::from(pick.reason == Reason::Probe);
        self.fleet.fleet.0[pick.index].in_flight += 1;
        let factor = 1.0 + self.spread * (2.0 * self.rng.f64() - 1.0);
        let (took, failed) = match self.does[pick.index] {
            Does::Answer(took) => (took.mul_f64(factor), false),
            Does::Fail(took) => (took, true),
        };
        self.begun += 1;
        self.running.push(Reverse((self.now.saturating_add(took), self.begun, pick.index, took, failed)));
    }
}

const fn answer(millis: u64) -> Does {
    Does::Answer(Duration::from_millis(millis))
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Pools of both ways to choose: all compared, and two drawn.
const SIZES: [usize; 2] = [5, 20];

#[test]
fn one_that_turns_ten_times_slower_is_under_half_its_share_within_2_s_and_back_within_10_s_of_recovery() {
    for (seed, size) in (0..SEEDS).flat_map(|seed| SIZES.map(|size| (seed, size))) {
        for each in [10.0, 80.0, 300.0] {
            let fair = 1.0 / size as f64;
            let mut world = World::new(seed, &vec![1; size], answer(50), each * size as f64);
            world.run(seconds(10));
            world.does[0] = answer(500);
            world.run(seconds(2));
            let slow = world.run(seconds(5)).share(0);
            // Of five: 10 %. Chance alone leaves few of few requests, so what counts is 5 s.
            assert!(slow < fair * 0.5, "seed {seed}, {each}/s × {size}: {slow} while slow");
            world.does[0] = answer(50);
            world.run(seconds(10));
            let back = world.run(seconds(10)).share(0);
            assert!(
                back >= 0.8 * fair,
                "seed {seed}, {each}/s × {size}: {back} once recovered, fair is {fair}"
            );
        }
    }
}

#[test]
fn one_that_fails_in_a_millisecond_gets_its_probes_and_no_more() {
    for (seed, size) in (0..SEEDS).flat_map(|seed| SIZES.map(|size| (seed, size))) {
        for each in [10.0, 100.0] {
            let mut world = World::new(seed, &vec![1; size], answer(50), each * size as f64);
            world.run(seconds(10));
            world.does[0] = Does::Fail(Duration::from_millis(1));
            let first = world.run(seconds(1)).hits[0];
            // As many as it takes to be believed: the first failures count for little, or one error would.
            assert!(first <= 12, "seed {seed}, {each}/s × {size}: {first} in the first second");
            let seen = world.run(seconds(20));
            assert!(
                seen.hits[0] <= 22 && seen.hits[0] <= seen.probes[0] + 2 && seen.hits[0] > 10,
                "seed {seed}, {each}/s × {size}: {seen:?}"
            );
            world.does[0] = answer(50);
            world.run(seconds(10));
            let back = world.run(seconds(10)).share(0) * size as f64;
            assert!(back >= 0.8, "seed {seed}, {each}/s × {size}: {back} of its fair share once it works");
        }
    }
}

#[test]
fn a_newcomer_gets_its_fair_share_in_its_first_second_neither_more_nor_nothing() {
    for size in SIZES {
        for (millis, each) in [(50, 100.0), (50, 400.0), (400, 100.0), (2000, 100.0)] {
            let mut total = 0.0;
            for seed in 0..SEEDS {
                let mut world = World::new(seed, &vec![1; size], answer(millis), each * size as f64);
                world.run(seconds(15));
                world.join(answer(millis));
                total += world.run(seconds(1)).share(size) * (size + 1) as f64;
            }
            // On average over seeds: the chance of a single second alone is ± 10 %.
            let share = total / SEEDS as f64;
            assert!(
                (0.7..=1.2).contains(&share),
                "{millis} ms, {each}/s × {size}: {share} of its fair share"
            );
        }
    }
}

#[test]
fn equals_get_equal_shares_however_much_latencies_vary() {
    for (seed, size) in (0..SEEDS).flat_map(|seed| SIZES.map(|size| (seed, size))) {
        for (each, spread) in [(10.0, 0.1), (10.0, 0.9), (100.0, 0.9)] {
            let mut world = World::new(seed, &vec![1; size], answer(50), each * size as f64);
            world.spread = spread;
            world.run(seconds(10));
            let seen = world.run(seconds(60));
            for index in 0..size {
                let share = seen.share(index) * size as f64;
                assert!(
                    (0.8..1.2).contains(&share),
                    "seed {seed}, {each}/s × {size}, ± {spread}: {share} of its fair share: {seen:?}"
                );
            }
        }
    }
}

#[test]
fn shares_of_equally_fast_endpoints_follow_weights_idle_or_busy() {
    for seed in 0..SEEDS {
        for per_second in [0.5, 2000.0] {
            let mut world = World::new(seed, &[5, 2, 1], answer(50), per_second);
            // Within what counts as equal. Beyond, who is asked more often shows its peaks more often.
            world.spread = 0.1;
            world.run(seconds(10));
            let seen = world.run(if per_second < 10.0 { seconds(8000) } else { seconds(20) });
            for (index, ideal) in [0.625, 0.25, 0.125].into_iter().enumerate() {
                let share = seen.share(index) / ideal;
                assert!(
                    (0.8..1.2).contains(&share),
                    "seed {seed}, {per_second}/s: {share} of {ideal}: {seen:?}"
                );
            }
        }
    }
}

#[test]
fn who_asked_to_be_left_alone_is_and_comes_back_by_itself() {
    for (seed, size) in (0..SEEDS).flat_map(|seed| SIZES.map(|size| (seed, size))) {
        let mut world = World::new(seed, &vec![1; size], answer(50), 50.0 * size as f64);
        world.run(seconds(5));
        world.fleet.latencies[0].back_off(world.now.saturating_add(seconds(30)));
        assert_eq!(world.run(seconds(30)).hits[0], 0, "seed {seed}, {size}");
        let back = world.run(seconds(10)).share(0) * size as f64;
        assert!(back > 0.8, "seed {seed}, {size}: {back} of its fair share afterwards");
    }
}

#[test]
fn when_all_asked_to_be_left_alone_they_serve() {
    for size in SIZES {
        let mut world = World::new(1, &vec![1; size], answer(50), 500.0);
        world.fleet.latencies.iter().for_each(|latency| latency.back_off(Tick::MAX));
        let seen = world.run(seconds(10));
        assert!((0..size).all(|index| seen.share(index) * size as f64 > 0.5), "{seen:?}");
    }
}

#[test]
fn with_few_requests_probes_stay_one_in_twenty() {
    let mut world = World::new(1, &[1; 5], answer(50), 2.0);
    world.does[0] = answer(5000);
    world.run(seconds(60));
    let seen = world.run(seconds(2000));
    let (probes, all) = (seen.probes.iter().sum::<u32>(), seen.hits.iter().sum::<u32>());
    assert!(probes * 20 <= all + 80, "{probes} of {all}");
    assert!(seen.share(0) < 0.03, "{seen:?}");
}

#[test]
fn an_empty_fleet_has_nobody_to_probe() {
    let fleet = Measured { fleet: Endpoints::default(), latencies: Vec::new() };
    let (mut policy, mut rng) = (built(PolicyKind::PeakEwma, &fleet.fleet), Rng::seeded(1));
    assert!((0..100).all(|_| policy.pick(&fleet, Ask::at(Tick::MAX), &mut rng).is_none()));
}
