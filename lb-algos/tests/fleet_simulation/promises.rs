//! Single situations with numbers: what each policy promises, alone and with ejection and retries around it.

use std::time::Duration;

use lb_algos::PolicyKind;

use crate::{
    member::{Fault, Spec},
    setup::{Action, Setup},
    world::World,
};

pub(crate) const KINDS: [PolicyKind; 8] = [
    PolicyKind::RoundRobin,
    PolicyKind::Random,
    PolicyKind::LeastRequest,
    PolicyKind::PeakEwma,
    PolicyKind::Maglev { bound: None },
    PolicyKind::Maglev { bound: Some(125) },
    PolicyKind::RingHash { bound: None },
    PolicyKind::RingHash { bound: Some(125) },
];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn peak_ewma_leaves_one_of_five_that_turns_ten_times_slower_within_2_s_and_is_back_10_s_after_its_recovery() {
    for (per_second, seeds) in [(20.0, 10), (50.0, 10), (400.0, 2), (2000.0, 1)] {
        for seed in 0..seeds {
            let setup = Setup::plain(PolicyKind::PeakEwma, seed, &[Spec::of_millis(50); 5], per_second);
            let script = [
                (seconds(20), Action::Service(2, Duration::from_millis(500))),
                (seconds(40), Action::Service(2, Duration::from_millis(50))),
            ];
            let world = World::new(setup).script(script).run(seconds(60));
            let (before, slow, back) =
                (world.share(2, 10.0, 20.0), world.share(2, 22.0, 40.0), world.share(2, 50.0, 60.0));
            let at_once = world.share(2, 22.0, 24.0);
            let told = format!(
                "seed {seed}, {per_second}/s: {before:.3} before, {at_once:.3} after 2 s, {slow:.3}, {back:.3} back"
            );
            assert!((0.12..0.30).contains(&before), "{told}");
            assert!(at_once < 0.1 && slow < 0.1, "{told}");
            assert!((0.12..0.30).contains(&back), "{told}");
        }
    }
}

#[test]
fn a_newcomer_gets_at_most_a_fifth_more_than_its_fair_share_in_its_first_second() {
    for kind in KINDS {
        for service in [5, 50, 500] {
            for seed in 0..2 {
                let setup = Setup::plain(kind, seed, &[Spec::of_millis(50); 4], 2000.0);
                let newcomer = Action::Join(Spec::of_millis(service));
                let world = World::new(setup).script([(seconds(1), newcomer)]).run(seconds(2));
                let share = world.share(4, 1.0, 2.0);
                // It earns more than a fair share once it is known to be ten times as fast, where that counts.
                let earned = match kind {
                    PolicyKind::LeastRequest | PolicyKind::PeakEwma => service < 50,
                    PolicyKind::Maglev { bound } | PolicyKind::RingHash { bound } => {
                        bound.is_some() && service < 50
                    }
                    PolicyKind::RoundRobin | PolicyKind::Random => false,
                };
                let most = if earned { 1.0 } else { 1.2 * 0.2 };
                assert!(share <= most, "{kind:?}, seed {seed}, {service} ms: {share:.3} of the picks");
            }
        }
    }
}

#[test]
fn peak_ewma_gives_who_fails_in_a_millisecond_only_its_probes() {
    for (per_second, seeds) in [(20.0, 10), (50.0, 10), (400.0, 2), (2000.0, 1)] {
        for seed in 0..seeds {
            let mut members = [Spec::of_millis(50); 5];
            members[1].fault = Fault::FailsFast(100);
            let setup = Setup::plain(PolicyKind::PeakEwma, seed, &members, per_second);
            let world = World::new(setup).run(seconds(30));
            let picks = |from, to| {
                let between = world.hits_between(Duration::from_millis(from), Duration::from_millis(to));
                between.filter(|hit| hit.slot == 1).count()
            };
            // Its fair share until the first others have answered, which takes them 25 ms; then a probe a second.
            let (first, later) = (picks(0, 100), picks(100, 30_000));
            let fair = per_second * 0.1 / 5.0;
            let told = format!("seed {seed}, {per_second}/s: {first} in the first 100 ms, then {later}");
            assert!(first as f64 <= fair + 3.0 && later <= 30, "{told}");
        }
    }
}

#[test]
fn with_ejection_who_fails_in_a_millisecond_gets_next_to_nothing_under_any_policy() {
    for kind in KINDS {
        for seed in 0..3 {
            let mut members = [Spec::of_millis(50); 5];
            members[1].fault = Fault::FailsFast(100);
            let world = World::new(Setup::guarded(kind, seed, &members, 200.0)).run(seconds(60));
            let picks = world.hits_between(seconds(0), seconds(60)).filter(|hit| hit.slot == 1).count();
            // The threshold, once; then one per return, after 10, 20, 30, 40 … seconds; and what was under way.
            assert!(picks <= 12, "{kind:?}, seed {seed}: {picks} of {} picks", world.hits.len());
            assert_eq!(world.served, world.requests, "{kind:?}, seed {seed}");
        }
    }
}

#[test]
fn one_member_that_fails_half_of_its_requests_costs_no_visitor_anything() {
    for kind in KINDS {
        for size in [2, 3, 5] {
            for seed in 0..3 {
                let mut members = vec![Spec::of_millis(50); size];
                members[0].fault = Fault::FailsFast(50);
                let world = World::new(Setup::guarded(kind, seed, &members, 150.0)).run(seconds(30));
                let amplification = world.hits.len() as f64 / world.requests as f64;
                let World { requests, failed, over_budget, nobody, .. } = world;
                let told = format!(
                    "{kind:?}, seed {seed}, one of {size}: {amplification:.3} attempts per request; \
                     of {requests} {failed} failed, {over_budget} over budget, {nobody} without a member"
                );
                assert!(amplification <= 1.2, "{told}");
                assert_eq!((failed, over_budget, nobody), (0, 0, 0), "{told}");
            }
        }
    }
}

#[test]
fn retries_never_multiply_a_failure_of_everything() {
    for kind in KINDS {
        let members = [Spec { fault: Fault::FailsFast(100), ..Spec::of_millis(50) }; 5];
        let world = World::new(Setup::guarded(kind, 1, &members, 200.0)).run(seconds(60));
        let amplification = world.hits.len() as f64 / world.requests as f64;
        assert!(amplification <= 1.22, "{kind:?}: {amplification:.3} attempts per request");
        assert!(world.members.iter().any(|member| !member.ejected()), "{kind:?}: all are out");
    }
}

#[test]
fn round_robin_shares_are_exact_after_churn() {
    for seed in 0..20 {
        let weights = [5, 1, 1, 3];
        let members: Vec<Spec> = weights.map(|weight| Spec { weight, ..Spec::of_millis(20) }).into();
        let setup = Setup { workers: 3, ..Setup::plain(PolicyKind::RoundRobin, seed, &members, 300.0) };
        let script = [
            (seconds(1), Action::Join(Spec { weight: 4, ..Spec::of_millis(20) })),
            (seconds(2), Action::Leave(1)),
            (seconds(3), Action::Weight(0, 2)),
            (seconds(4), Action::Return(1)),
            (seconds(5), Action::Leave(3)),
        ];
        let world = World::new(setup).script(script).run(seconds(20));
        let weights = [2, 1, 1, 0, 4];
        for worker in 0..3 {
            let turns: Vec<usize> = world
                .hits_between(seconds(6), seconds(20))
                .filter(|hit| hit.worker == worker)
                .map(|hit| hit.slot)
                .collect();
            assert!(turns.len() > 1000, "{}", turns.len());
            for round in turns.chunks_exact(8).take(100) {
                let got = [0, 1, 2, 3, 4].map(|slot| round.iter().filter(|turn| **turn == slot).count());
                assert_eq!(got, weights, "seed {seed}, worker {worker}: {round:?}");
            }
        }
    }
}

#[test]
fn least_request_keeps_two_unlike_members_equally_busy() {
    // That a pick never falls on the busier one is checked at every pick.
    for seed in 0..10 {
        let members = [Spec::of_millis(20), Spec::of_millis(200)];
        let world =
            World::new(Setup::plain(PolicyKind::LeastRequest, seed, &members, 400.0)).run(seconds(20));
        let share = world.share(1, 5.0, 20.0);
        // In proportion to speed: 1 : 10.
        assert!((0.07..0.13).contains(&share), "seed {seed}: {share:.3}");
    }
}

#[test]
fn slow_start_lets_a_share_grow() {
    for kind in [PolicyKind::RoundRobin, PolicyKind::Random] {
        let members = [Spec::of_millis(20); 4];
        let setup = Setup { slow_start: Some(seconds(20)), ..Setup::plain(kind, 1, &members, 1000.0) };
        let world =
            World::new(setup).script([(seconds(5), Action::Join(Spec::of_millis(20)))]).run(seconds(40));
        let shares = [world.share(4, 5.0, 7.0), world.share(4, 14.0, 16.0), world.share(4, 30.0, 40.0)];
        let told = format!("{kind:?}: {shares:.3?}");
        assert!((0.01..0.05).contains(&shares[0]), "{told}");
        assert!((0.08..0.14).contains(&shares[1]), "{told}");
        assert!((0.18..0.22).contains(&shares[2]), "{told}");
    }
}

#[test]
fn a_member_whose_probes_succeed_while_its_requests_fail_is_out_most_of_the_time() {
    let mut members = [Spec::of_millis(50); 3];
    members[0].fault = Fault::FailsFast(100);
    let probes = (1..120).map(|second| (seconds(second), Action::Probe(0)));
    let world = World::new(Setup::guarded(PolicyKind::RoundRobin, 1, &members, 200.0))
        .script(probes)
        .run(seconds(120));
    let picks = world.hits.iter().filter(|hit| hit.slot == 0).count();
    assert!(picks <= 20, "{picks} of {} picks", world.hits.len());
}

#[test]
fn adaptive_limits_keep_an_overloaded_fleet_fast_and_busy() {
    for kind in [PolicyKind::RoundRobin, PolicyKind::LeastRequest, PolicyKind::PeakEwma] {
        // Together they can do 400 a second.
        let members = [Spec { servers: 10, ..Spec::of_millis(50) }; 2];
        let play = |adaptive| {
            let setup = Setup { adaptive, ..Setup::plain(kind, 1, &members, 1200.0) };
            World::new(setup).run(seconds(40))
        };
        let (limited, unlimited) = (play(Some((4, 1000))), play(None));
        let mean = |world: &World| world.took.div_f64(world.served.max(1) as f64);
        let told = format!(
            "{kind:?}: {} served in {:?}, without limits {} in {:?}",
            limited.served,
            mean(&limited),
            unlimited.served,
            mean(&unlimited)
        );
        assert!(
            limited.served >= 400 * 40 * 90 / 100 && mean(&limited) < Duration::from_millis(140),
            "{told}"
        );
        assert!(mean(&unlimited) > 10 * mean(&limited), "{told}");
    }
}
