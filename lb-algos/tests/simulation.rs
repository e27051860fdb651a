//! A small world in virtual time: workers, endpoints of unlike speed, churn. Invariants are checked at every step.
//!
//! Each endpoint serves `servers` requests at a time and queues the rest. Every run is decided by its seed, which a failure
//! prints; `LB_ALGOS_SEED=17 cargo test -p lb-algos --test simulation` plays that one alone.

mod common;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use common::{Endpoint, Endpoints, KINDS, built};
use lb_algos::{AnyPolicy, Ask, Fleet, PolicyKind, Prepared, Rng, Tick};

const WORKERS: usize = 4;

/// What an endpoint really is; the policy doesn't see it.
#[derive(Debug, Clone)]
struct Machine {
    service: Duration,
    /// When each of its servers is free.
    free_at: Vec<Tick>,
    in_flight: u32,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    End { id: u64 },
    Arrive,
    Churn,
}

struct World {
    seed: u64,
    rng: Rng,
    now: Tick,
    events: BinaryHeap<Reverse<(Tick, u64, Event)>>,
    scheduled: u64,
    fleet: Endpoints,
    /// Also of endpoints that have left: their requests still end.
    machines: BTreeMap<u64, Machine>,
    workers: Vec<AnyPolicy>,
    rngs: Vec<Rng>,
    arrivals_left: u32,
    every: Duration,
    served: u64,
    refused: u64,
    waited: Duration,
    worst: Duration,
}

impl World {
    fn new(kind: PolicyKind, seed: u64, services: &[Duration], every: Duration, arrivals: u32) -> Self {
        let fleet = Endpoints::with_weights(&vec![1; services.len()]);
        let machine = |&service| Machine { service, free_at: vec![Tick::ZERO; 2], in_flight: 0 };
        let mut world = Self {
            seed,
            rng: Rng::seeded(seed),
            now: Tick::ZERO,
            events: BinaryHeap::new(),
            scheduled: 0,
            machines: (0..).zip(services.iter().map(machine)).collect(),
            workers: (0..WORKERS).map(|_| built(kind, &fleet)).collect(),
            rngs: (0..WORKERS as u64).map(|worker| Rng::seeded(seed ^ (worker << 32))).collect(),
            fleet,
            arrivals_left: arrivals,
            every,
            served: 0,
            refused: 0,
            waited: Duration::ZERO,
            worst: Duration::ZERO,
        };
        world.schedule(Duration::ZERO, Event::Arrive);
        world
    }

    fn with_churn(mut self) -> Self {
        self.schedule(Duration::from_millis(5), Event::Churn);
        self
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now.saturating_add(after), self.scheduled, event)));
    }

    fn run(mut self) -> Self {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            assert!(at >= self.now, "seed {}: time went back", self.seed);
            self.now = at;
            match event {
                Event::Arrive => self.arrive(),
                Event::End { id } => self.end(id),
                Event::Churn => self.churn(),
            }
        }
        let left: u32 = self.machines.values().map(|machine| machine.in_flight).sum();
        assert_eq!(left, 0, "seed {}: requests that never ended", self.seed);
        self
    }

    fn arrive(&mut self) {
        self.arrivals_left -= 1;
        if self.arrivals_left > 0 {
            // Exponential gaps: a Poisson stream.
            let gap = self.every.mul_f64(-(1.0 - self.rng.f64()).ln());
            self.schedule(gap, Event::Arrive);
        }
        let worker = self.rng.below(u32::try_from(WORKERS).expect("a few")) as usize;
        let picked = self.workers[worker].pick(&self.fleet, Ask::at(self.now), &mut self.rngs[worker]);
        let Some(index) = picked.map(|pick| pick.index) else {
            let nobody = !self.fleet.0.iter().any(Endpoint::may_be_picked);
            assert!(nobody, "seed {} at {:?}: no pick from {:?}", self.seed, self.now, self.fleet);
            self.refused += 1;
            return;
        };
        let endpoint = &mut self.fleet.0[index];
        assert!(endpoint.may_be_picked(), "seed {} at {:?}: picked {endpoint:?}", self.seed, self.now);
        endpoint.in_flight += 1;
        let id = endpoint.id;
        let machine = self.machines.get_mut(&id).expect("an endpoint has a machine");
        machine.in_flight += 1;
        let server = machine.free_at.iter_mut().min().expect("it has servers");
        let spread = 0.5 + self.rng.f64();
        *server = (*server).max(self.now).saturating_add(machine.service.mul_f64(spread));
        let took = server.since(self.now);
        self.waited += took;
        self.worst = self.worst.max(took);
        self.schedule(took, Event::End { id });
    }

    fn end(&mut self, id: u64) {
        self.served += 1;
        let machine = self.machines.get_mut(&id).expect("machines stay");
        assert!(machine.in_flight > 0, "seed {}: {id} ended more than it began", self.seed);
        machine.in_flight -= 1;
        if let Some(endpoint) = self.fleet.0.iter_mut().find(|endpoint| endpoint.id == id) {
            endpoint.in_flight = machine.in_flight;
        }
    }

    /// Something happens to the fleet; workers hear of joins, leaves and weights, each at its own time.
    fn churn(&mut self) {
        if self.arrivals_left == 0 {
            return;
        }
        let count = self.fleet.len();
        let at = self.rng.below(u32::try_from(count.max(1)).expect("a small fleet")) as usize;
        match self.rng.below(6) {
            0 => self.join(),
            1 if count > 0 => drop(self.fleet.0.remove(at)),
            2 if count > 0 => self.fleet.0[at].weight = self.rng.below(10),
            _ if count > 0 => self.fleet.0[at].eligible ^= true,
            _ => {}
        }
        for worker in &mut self.workers {
            // Late by a churn or two now and then.
            if self.rng.below(4) > 0 {
                worker.rebuild(&self.fleet, &Prepared::None);
            }
        }
        let calm = Duration::from_millis(u64::from(1 + self.rng.below(10)));
        self.schedule(calm, Event::Churn);
    }

    /// A new endpoint, or an old one back, its requests still running.
    fn join(&mut self) {
        let id = u64::from(self.rng.below(30));
        if self.fleet.0.iter().any(|endpoint| endpoint.id == id) {
            return;
        }
        let service = Duration::from_millis(u64::from(1 + self.rng.below(20)));
        let fresh = Machine { service, free_at: vec![self.now; 2], in_flight: 0 };
        let in_flight = self.machines.entry(id).or_insert(fresh).in_flight;
        let weight = self.rng.below(10);
        self.fleet.0.push(Endpoint { id, weight, eligible: true, in_flight });
    }

    fn mean(&self) -> Duration {
        self.waited.div_f64(self.served.max(1) as f64)
    }
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("LB_ALGOS_SEED") {
        Ok(seed) => vec![seed.parse().expect("LB_ALGOS_SEED is a number")],
        Err(_) => (0..count).collect(),
    }
}

fn millis(services: &[u64]) -> Vec<Duration> {
    services.iter().copied().map(Duration::from_millis).collect()
}

#[test]
fn no_request_is_lost_or_misplaced_while_the_fleet_churns() {
    for seed in seeds(40) {
        for kind in KINDS {
            // Start on both sides of the 16 endpoints up to which `LeastRequest` compares all.
            let services = millis(&[1, 2, 5, 10].repeat(1 + usize::try_from(seed % 6).expect("below 6")));
            let every = Duration::from_micros(500);
            let world = World::new(kind, seed, &services, every, 4000).with_churn().run();
            assert_eq!(world.served + world.refused, 4000, "seed {seed}, {kind:?}");
        }
    }
}

#[test]
fn a_run_is_decided_by_its_seed() {
    let outcome = |kind, seed| {
        let world =
            World::new(kind, seed, &millis(&[1, 2, 5]), Duration::from_millis(1), 2000).with_churn().run();
        (world.now, world.served, world.waited)
    };
    for kind in KINDS {
        assert_eq!(outcome(kind, 3), outcome(kind, 3), "{kind:?}");
        assert_ne!(outcome(kind, 3), outcome(kind, 4), "{kind:?}");
    }
}

#[test]
fn least_request_beats_the_blind_policies_when_one_endpoint_in_five_is_slow() {
    for seed in seeds(10) {
        for copies in [1, 5] {
            // A slow endpoint's share is more than it can serve: whoever doesn't look lets it drown.
            let services = millis(&[4, 4, 4, 4, 40].repeat(copies));
            let every = Duration::from_micros(700).div_f64(copies as f64);
            let mean = |kind| World::new(kind, seed, &services, every, 20_000).run().mean();
            let [turns, chance, least] =
                [PolicyKind::RoundRobin, PolicyKind::Random, PolicyKind::LeastRequest].map(mean);
            assert!(
                least * 3 < turns && least * 3 < chance,
                "seed {seed}, {copies} × 5: round robin {turns:?}, random {chance:?}, least request {least:?}"
            );
        }
    }
}

#[test]
fn round_robin_waits_less_than_random_among_equals() {
    for seed in seeds(10) {
        let mean =
            |kind| World::new(kind, seed, &millis(&[4; 8]), Duration::from_micros(300), 20_000).run().mean();
        let [turns, chance, least] =
            [PolicyKind::RoundRobin, PolicyKind::Random, PolicyKind::LeastRequest].map(mean);
        assert!(
            turns < chance && least < chance,
            "seed {seed}: {turns:?}, {chance:?}, least request {least:?}"
        );
    }
}
