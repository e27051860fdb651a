//! Thousands of random worlds, each followed by a quiet phase in which nobody may starve.

use std::time::Duration;

use lb_algos::{PolicyKind, Rng, outlier::OutlierRules};

use crate::{
    member::{Fault, Spec},
    setup::{Action, Setup},
    world::World,
};

/// Random things happen.
const WILD: u64 = 20;

/// Then all is well: time to return and to be forgiven.
const RECOVERY: u64 = 10;

/// Then shares are looked at: for as long as it takes until chance is small, or probes have come round.
fn quiet(kind: PolicyKind) -> u64 {
    match kind {
        PolicyKind::PeakEwma => 60,
        PolicyKind::RoundRobin
        | PolicyKind::Random
        | PolicyKind::LeastRequest
        | PolicyKind::Maglev { .. }
        | PolicyKind::RingHash { .. } => 10,
    }
}

/// The one asked for, or `count` times what `FLEET_TIMES` says.
fn seeds(count: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("FLEET_SEED") {
        Some(seed) => vec![seed],
        None => (0..count * number("FLEET_TIMES").unwrap_or(1)).collect(),
    }
}

/// Numbers of one seed.
struct Dice(Rng);

impl Dice {
    fn between(&mut self, least: u32, most: u32) -> u32 {
        least + self.0.below(most - least + 1)
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.0.below(count) == 0
    }

    fn slot(&mut self, members: usize) -> usize {
        self.0.below(u32::try_from(members).expect("few members")) as usize
    }

    fn weight(&mut self) -> u32 {
        [1, 1, 1, 0, 2, 3, 5, 9][self.slot(8)]
    }

    fn service(&mut self) -> Duration {
        Duration::from_millis([1, 5, 10, 20, 50, 100, 500][self.slot(7)])
    }

    fn fault(&mut self) -> Fault {
        match self.between(0, 6) {
            0 => Fault::FailsFast(100),
            1 => Fault::FailsFast(self.between(1, 99)),
            2 => Fault::Lies,
            3 => Fault::Hangs,
            4 => Fault::Flaps,
            _ => Fault::None,
        }
    }

    fn spec(&mut self) -> Spec {
        let fault = if self.one_in(3) { self.fault() } else { Fault::None };
        Spec { weight: self.weight(), service: self.service(), servers: self.between(4, 30), fault }
    }

    fn rules(&mut self) -> OutlierRules {
        OutlierRules {
            consecutive_failures: self.between(0, 6),
            consecutive_gateway_errors: self.between(0, 4),
            success_ratio: (!self.one_in(3)).then(|| (self.between(50, 99), self.between(1, 20))),
            latency_factor_percent: self.one_in(3).then(|| self.between(150, 500)),
            base_ejection: Duration::from_millis(u64::from(self.between(500, 2000))),
            max_ejection: Duration::from_secs(5),
            max_ejected_percent: self.between(1, 100),
        }
    }

    fn setup(&mut self, kind: PolicyKind, seed: u64) -> Setup {
        // On both sides of the 16 members up to which least request compares all.
        let count = if self.one_in(10) { self.between(12, 24) } else { self.between(1, 8) };
        let members: Vec<Spec> = (0..count).map(|_| self.spec()).collect();
        Setup {
            workers: self.between(1, 4) as usize,
            costly_percent: if self.one_in(2) { 10 } else { 0 },
            outlier: (!self.one_in(4)).then(|| self.rules()),
            retries: self.between(0, 3),
            budget: (self.between(0, 50), f64::from(self.between(0, 20)) / 10.0),
            limit: if self.one_in(3) { self.between(2, 20) } else { u32::MAX },
            adaptive: self.one_in(4).then(|| (self.between(1, 5), self.between(10, 200))),
            slow_start: self.one_in(3).then(|| Duration::from_secs(3)),
            deadline: Duration::from_secs(1),
            ..Setup::plain(kind, seed, &members, f64::from(self.between(10, 40)))
        }
    }

    fn script(&mut self, mut members: usize) -> Vec<(Duration, Action)> {
        let mut script = Vec::new();
        let mut at = 0;
        while at < WILD * 1000 {
            at += u64::from(self.between(0, 1500));
            let slot = self.slot(members);
            let action = match self.between(0, 10) {
                0 | 1 => {
                    members += 1;
                    Action::Join(self.spec())
                }
                2 => Action::Leave(slot),
                3 => Action::Return(slot),
                4 => Action::Weight(slot, self.weight()),
                5 => Action::Service(slot, self.service()),
                6 => Action::Healthy(slot, self.one_in(2)),
                7 => Action::Probe(slot),
                _ => Action::Fault(slot, self.fault()),
            };
            script.push((Duration::from_millis(at.min(WILD * 1000)), action));
        }
        let healed = Duration::from_millis(WILD * 1000 + 1);
        for slot in 0..members {
            script.push((healed, Action::Fault(slot, Fault::None)));
            script.push((healed, Action::Healthy(slot, true)));
            let service = Duration::from_millis(u64::from(self.between(10, 20)));
            script.push((healed, Action::Service(slot, service)));
        }
        script
    }
}

/// A lower bound of what one of `takers` gets of so many picks, when its exact share would be `fair`.
fn least(setup: &Setup, fair: f64, picks: f64, takers: usize) -> f64 {
    let chance = 5.0 * fair.sqrt();
    match setup.kind {
        // Turns are each worker's own, and circuit limits and retries shift some.
        PolicyKind::RoundRobin => 0.7 * fair - 3.0 * setup.workers as f64,
        PolicyKind::Random => 0.9 * fair - chance,
        // A ring's shares are uneven by nature.
        PolicyKind::Maglev { .. } | PolicyKind::RingHash { .. } => 0.6 * fair - chance,
        // Its members differ in speed by two, and by chance in what their requests cost.
        PolicyKind::LeastRequest => 0.2 * fair - chance,
        // Its probes, one pick in 20 of each worker, must have come round.
        PolicyKind::PeakEwma => f64::from(u8::from(picks / 20.0 > 2.0 * (takers + setup.workers) as f64)),
    }
}

fn play(kind: PolicyKind, seed: u64) -> World {
    let mut dice = Dice(Rng::seeded(seed));
    let setup = dice.setup(kind, seed);
    let script = dice.script(setup.members.len());
    World::new(setup).script(script).run(Duration::from_secs(WILD + RECOVERY + quiet(kind)))
}

/// Everything that [`World`] checks, and that nobody starves.
fn survives(kind: PolicyKind, count: u64) {
    let seeds = seeds(count);
    let mut looked_at = 0;
    for &seed in &seeds {
        let world = play(kind, seed);
        let from = Duration::from_secs(WILD + RECOVERY);
        let to = from + Duration::from_secs(quiet(kind));
        let late_ejection = world.ejected.iter().any(|ejected| *ejected >= from);
        let takes_part = |slot: usize| {
            let member = &world.members[slot];
            (member.present && !member.ejected()).then_some(f64::from(member.spec.weight))
        };
        let weights: f64 = (0..world.members.len()).filter_map(takes_part).sum();
        let takers = (0..world.members.len()).filter_map(takes_part).filter(|weight| *weight > 0.0).count();
        let picks = world.hits_between(from, to).count() as f64;
        if late_ejection || weights < 1.0 {
            continue;
        }
        for slot in 0..world.members.len() {
            let Some(weight) = takes_part(slot).filter(|weight| *weight > 0.0) else { continue };
            let got = world.hits_between(from, to).filter(|hit| hit.slot == slot).count() as f64;
            looked_at += 1;
            let least = least(&world.setup, picks * weight / weights, picks, takers);
            assert!(
                got >= least,
                "{}: member {slot} of weight {weight}/{weights} got {got} of {picks} picks, {least} expected",
                world.place()
            );
        }
    }
    // Else the check above means nothing: worlds in which somebody is still ejected late are passed over.
    assert!(seeds.len() == 1 || looked_at > seeds.len(), "{looked_at} members in {} worlds", seeds.len());
}

#[test]
fn round_robin_survives_chaos() {
    survives(PolicyKind::RoundRobin, 600);
}

#[test]
fn random_survives_chaos() {
    survives(PolicyKind::Random, 500);
}

#[test]
fn least_request_survives_chaos() {
    survives(PolicyKind::LeastRequest, 500);
}

#[test]
fn peak_ewma_survives_chaos() {
    survives(PolicyKind::PeakEwma, 300);
}

#[test]
fn maglev_survives_chaos() {
    survives(PolicyKind::Maglev { bound: None }, 30);
}

#[test]
fn bounded_maglev_survives_chaos() {
    survives(PolicyKind::Maglev { bound: Some(125) }, 30);
}

#[test]
fn ring_hash_survives_chaos() {
    survives(PolicyKind::RingHash { bound: None }, 100);
}

#[test]
fn bounded_ring_hash_survives_chaos() {
    survives(PolicyKind::RingHash { bound: Some(125) }, 100);
}

#[test]
fn a_world_follows_from_its_seed() {
    for kind in crate::promises::KINDS {
        let outcome = |seed| {
            let world = play(kind, seed);
            (world.requests, world.served, world.hits.iter().map(|hit| hit.slot).collect::<Vec<_>>())
        };
        assert_eq!(outcome(3), outcome(3), "{kind:?}");
        assert_ne!(outcome(3), outcome(4), "{kind:?}");
    }
}

#[test]
fn chaos_is_wild_enough_to_mean_something() {
    // What a run of worlds must have seen, or the invariants above were never at stake.
    let worlds: Vec<World> = (0..40).map(|seed| play(PolicyKind::LeastRequest, seed)).collect();
    let sum = |of: fn(&World) -> u64| worlds.iter().map(of).sum::<u64>();
    let seen = [
        ("served", sum(|world| world.served), 10_000),
        ("failed", sum(|world| world.failed), 100),
        ("over budget", sum(|world| world.over_budget), 100),
        ("nobody eligible", sum(|world| world.nobody), 100),
        ("ejections", sum(|world| world.ejected.len() as u64), 100),
        ("retries", sum(|world| world.hits.iter().filter(|hit| !hit.first_attempt).count() as u64), 300),
    ];
    for (what, count, least) in seen {
        assert!(count >= least, "{what}: {count}; {seen:?}");
    }
}
