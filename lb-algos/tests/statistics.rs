//! Shares of traffic: exact where the policy promises it, else within five standard deviations of a seeded run.

mod common;

use common::{Endpoint, Endpoints, KINDS, built, picks};
use lb_algos::{AnyPolicy, Ask, PolicyKind, Prepared, Rng, RoundRobin, Tick};

fn counts(picked: &[usize], endpoints: usize) -> Vec<usize> {
    let mut counts = vec![0; endpoints];
    picked.iter().for_each(|&pick| counts[pick] += 1);
    counts
}

fn longest_run(picked: &[usize]) -> usize {
    picked.chunk_by(|a, b| a == b).map(<[usize]>::len).max().unwrap_or(0)
}

/// nginx's own order, position 0.
fn nginx(fleet: &Endpoints) -> AnyPolicy {
    let mut policy = AnyPolicy::RoundRobin(RoundRobin::starting_at(0));
    policy.rebuild(fleet, &Prepared::None);
    policy
}

/// Fails when an endpoint is off by more than five standard deviations (1 in 10⁶ by chance, and the seed is fixed).
fn assert_shares(hits: &[usize], shares: &[f64], what: &str) {
    let total = hits.iter().sum::<usize>() as f64;
    for (index, (&hits, share)) in hits.iter().zip(shares).enumerate() {
        let (expected, deviation) = (total * share, (total * share * (1.0 - share)).sqrt());
        let off = (hits as f64 - expected).abs();
        assert!(
            off <= 5.0 * deviation,
            "{what}: endpoint {index} got {hits}, expected {expected} ± {deviation}"
        );
    }
}

/// Weight / sum over those that may be picked.
fn ideal(fleet: &Endpoints) -> Vec<f64> {
    let weight = |endpoint: &Endpoint| if endpoint.eligible { f64::from(endpoint.weight) } else { 0.0 };
    let sum: f64 = fleet.0.iter().map(weight).sum();
    fleet.0.iter().map(|endpoint| weight(endpoint) / sum).collect()
}

#[test]
fn round_robin_5_1_1_is_nginx_order() {
    let fleet = Endpoints::with_weights(&[5, 1, 1]);
    let picked = picks(&mut nginx(&fleet), &fleet, 14, &mut Rng::seeded(1));
    assert_eq!(picked, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn round_robin_5_1_1_over_7000_is_5000_1000_1000_without_a_run_of_five_from_any_start() {
    let fleet = Endpoints::with_weights(&[5, 1, 1]);
    for seed in 0..50 {
        let mut policy = built(PolicyKind::RoundRobin, &fleet);
        let picked = picks(&mut policy, &fleet, 7000, &mut Rng::seeded(seed));
        assert_eq!(counts(&picked, 3), [5000, 1000, 1000], "seed {seed}");
        assert_eq!(longest_run(&picked), 4, "seed {seed}");
    }
}

#[test]
fn round_robin_stays_smooth_and_exact_while_some_are_ineligible() {
    let mut fleet = Endpoints::with_weights(&[5, 1, 1, 3, 4]);
    let (mut policy, mut rng) = (built(PolicyKind::RoundRobin, &fleet), Rng::seeded(1));
    picks(&mut policy, &fleet, 14, &mut rng);
    fleet.0[3].eligible = false;
    fleet.0[4].eligible = false;
    let picked = picks(&mut policy, &fleet, 7000, &mut rng);
    assert_eq!(counts(&picked, 5), [5000, 1000, 1000, 0, 0]);
    assert_eq!(longest_run(&picked), 4);
}

#[test]
fn round_robin_shares_the_traffic_of_a_dead_endpoint_among_all_not_to_its_neighbour() {
    let mut fleet = Endpoints::with_weights(&[1, 1, 1, 1]);
    fleet.0[1].eligible = false;
    let picked = picks(&mut nginx(&fleet), &fleet, 300, &mut Rng::seeded(1));
    assert_eq!(counts(&picked, 4), [100, 0, 100, 100]);
}

#[test]
fn round_robin_gives_no_burst_to_an_endpoint_that_is_back() {
    for seed in 0..50 {
        let mut fleet = Endpoints::with_weights(&[2, 2, 2, 1]);
        let (mut policy, mut rng) = (built(PolicyKind::RoundRobin, &fleet), Rng::seeded(seed));
        fleet.0[2].eligible = false;
        picks(&mut policy, &fleet, 1000, &mut rng);
        fleet.0[2].eligible = true;
        let picked = picks(&mut policy, &fleet, 7, &mut rng);
        let hits = counts(&picked, 4)[2];
        assert!((1..=3).contains(&hits), "seed {seed}: {hits} of 7 for a share of 2");
        assert!(longest_run(&picked) <= 2, "seed {seed}: {picked:?}");
    }
}

#[test]
fn round_robin_gives_a_new_endpoint_its_share_at_once_and_no_burst() {
    for seed in 0..50 {
        let mut fleet = Endpoints::with_weights(&[3; 9]);
        let (mut policy, mut rng) = (built(PolicyKind::RoundRobin, &fleet), Rng::seeded(seed));
        picks(&mut policy, &fleet, 1000 + usize::try_from(seed).unwrap(), &mut rng);
        fleet.0.insert(4, Endpoint { id: 99, weight: 3, eligible: true, in_flight: 0 });
        policy.rebuild(&fleet, &Prepared::None);
        let picked = picks(&mut policy, &fleet, 20, &mut rng);
        let hits = counts(&picked, 10)[4];
        assert!((1..=3).contains(&hits), "seed {seed}: {hits} of 20 for a share of 2");
        assert_eq!(longest_run(&picked), 1, "seed {seed}: {picked:?}");
    }
}

#[test]
fn round_robin_positions_survive_a_reload_that_moves_endpoints() {
    let mut fleet = Endpoints::with_weights(&[4, 3, 2, 1]);
    let (mut policy, mut rng) = (built(PolicyKind::RoundRobin, &fleet), Rng::seeded(1));
    let mut hits = [0; 4];
    for _ in 0..1000 {
        let index = policy.pick(&fleet, Ask::at(Tick::ZERO), &mut rng).unwrap().index;
        hits[usize::try_from(fleet.0[index].id).unwrap()] += 1;
        fleet.0.rotate_left(1);
        policy.rebuild(&fleet, &Prepared::None);
    }
    // Ties go to the lower index and that changes here: one pick either way.
    for (hits, ideal) in hits.into_iter().zip([400_i32, 300, 200, 100]) {
        assert!((hits - ideal).abs() <= 1, "{hits} for a share of {ideal}");
    }
}

#[test]
fn round_robin_owes_nobody_many_picks_when_great_weights_become_small() {
    let mut fleet = Endpoints::with_weights(&[90_000, 10_000]);
    let (mut policy, mut rng) = (nginx(&fleet), Rng::seeded(1));
    picks(&mut policy, &fleet, 4, &mut rng);
    fleet.0.iter_mut().for_each(|endpoint| endpoint.weight = 1);
    policy.rebuild(&fleet, &Prepared::None);
    let picked = picks(&mut policy, &fleet, 20, &mut rng);
    assert!(longest_run(&picked) <= 2, "{picked:?}");
}

#[test]
fn round_robin_workers_start_all_over_the_fleet() {
    let fleet = Endpoints::with_weights(&[6, 3, 1]);
    let first =
        |seed| picks(&mut built(PolicyKind::RoundRobin, &fleet), &fleet, 1, &mut Rng::seeded(seed))[0];
    let firsts: Vec<usize> = (0..10_000).map(first).collect();
    assert_shares(&counts(&firsts, 3), &ideal(&fleet), "first picks of 10000 workers");
}

#[test]
fn random_shares_follow_weights() {
    let fleet = Endpoints::with_weights(&[5, 1, 1, 0, 3]);
    let mut policy = built(PolicyKind::Random, &fleet);
    let picked = picks(&mut policy, &fleet, 100_000, &mut Rng::seeded(1));
    assert_shares(&counts(&picked, 5), &ideal(&fleet), "random");
}

#[test]
fn random_shares_follow_weights_among_the_eligible_however_few() {
    for eligible in [90, 30, 3] {
        let weights: Vec<u32> = (1..=100).collect();
        let mut fleet = Endpoints::with_weights(&weights);
        fleet.0.iter_mut().for_each(|endpoint| endpoint.eligible = endpoint.id * 37 % 100 < eligible);
        let mut policy = built(PolicyKind::Random, &fleet);
        let picked = picks(&mut policy, &fleet, 100_000, &mut Rng::seeded(2));
        assert_shares(&counts(&picked, 100), &ideal(&fleet), &format!("{eligible} of 100 eligible"));
    }
}

#[test]
fn random_follows_new_weights_after_a_rebuild() {
    let mut fleet = Endpoints::with_weights(&[1, 1]);
    let (mut policy, mut rng) = (built(PolicyKind::Random, &fleet), Rng::seeded(3));
    fleet.0[0].weight = 9;
    policy.rebuild(&fleet, &Prepared::None);
    let picked = picks(&mut policy, &fleet, 100_000, &mut rng);
    assert_shares(&counts(&picked, 2), &[0.9, 0.1], "9 to 1");
}

#[test]
fn policies_that_missed_a_rebuild_still_follow_weights() {
    for kind in KINDS {
        let mut policy = built(kind, &Endpoints::with_weights(&[1, 1]));
        let fleet = Endpoints::with_weights(&[5, 1, 1, 3]);
        let picked = picks(&mut policy, &fleet, 100_000, &mut Rng::seeded(4));
        assert_shares(&counts(&picked, 4), &ideal(&fleet), &format!("{kind:?}"));
    }
}

#[test]
fn least_request_spreads_an_idle_fleet_by_weight() {
    let large: Vec<u32> = (1..=40).collect();
    let lopsided: Vec<u32> = (0..20).map(|index| if index == 0 { 1000 } else { 1 }).collect();
    for weights in [vec![1, 1], vec![5, 1, 1], vec![3; 16], vec![3; 17], large, lopsided] {
        let fleet = Endpoints::with_weights(&weights);
        let mut policy = built(PolicyKind::LeastRequest, &fleet);
        let picked = picks(&mut policy, &fleet, 200_000, &mut Rng::seeded(5));
        assert_shares(&counts(&picked, weights.len()), &ideal(&fleet), &format!("weights {weights:?}"));
    }
}

#[test]
fn least_request_breaks_ties_under_equal_load_by_weight() {
    let mut fleet = Endpoints::with_weights(&[6, 2, 2]);
    for (endpoint, in_flight) in fleet.0.iter_mut().zip([9, 3, 3]) {
        endpoint.in_flight = in_flight;
    }
    let mut policy = built(PolicyKind::LeastRequest, &fleet);
    let picked = picks(&mut policy, &fleet, 100_000, &mut Rng::seeded(6));
    assert_shares(&counts(&picked, 3), &[0.6, 0.2, 0.2], "1.5 in flight per weight everywhere");
}

#[test]
fn least_request_fills_endpoints_in_proportion_to_weight() {
    for copies in [1, 10] {
        let weights = [4, 2, 1, 1].repeat(copies);
        let mut fleet = Endpoints::with_weights(&weights);
        let (mut policy, mut rng) = (built(PolicyKind::LeastRequest, &fleet), Rng::seeded(7));
        // Nothing ends: 100 requests per unit of weight pile up.
        for _ in 0..800 * copies {
            let index = policy.pick(&fleet, Ask::at(Tick::ZERO), &mut rng).unwrap().index;
            fleet.0[index].in_flight += 1;
        }
        // Two choices keep the greatest load within a few (log log n) of the average.
        let allowed = if copies == 1 { 1.0 } else { 5.0 };
        for endpoint in &fleet.0 {
            let load = f64::from(endpoint.in_flight) / f64::from(endpoint.weight);
            assert!((load - 100.0).abs() <= allowed, "{copies} copies: {endpoint:?}");
        }
    }
}

#[test]
fn two_choices_pick_each_rank_as_often_as_the_paper_says() {
    // 20 endpoints, ranked by load: the k-th least busy wins against those after it, 2·(20 − k) / (20·19).
    let mut fleet = Endpoints::with_weights(&[1; 20]);
    fleet.0.iter_mut().zip(0..).for_each(|(endpoint, rank)| endpoint.in_flight = rank);
    let mut policy = built(PolicyKind::LeastRequest, &fleet);
    let picked = picks(&mut policy, &fleet, 200_000, &mut Rng::seeded(8));
    let shares: Vec<f64> = (1..=20).map(|k| 2.0 * f64::from(20 - k) / 380.0).collect();
    assert_shares(&counts(&picked, 20), &shares, "ranks");
}
