//! What holds for every fleet, however odd, and however it changes between picks.

mod common;

use std::{cell::RefCell, time::Duration};

use common::{Endpoint, Endpoints, KINDS, Measured, built, picks, prepared};
use lb_algos::{AnyPolicy, Ask, Fleet, Latency, PolicyKind, Prepared, Rng, RoundRobin, Tick};
use proptest::{collection::vec, prelude::*, sample::Index};

fn kind() -> impl Strategy<Value = PolicyKind> {
    proptest::sample::select(KINDS.to_vec())
}

fn weight() -> impl Strategy<Value = u32> {
    prop_oneof![1 => Just(0), 6 => 1_u32..10, 1 => any::<u32>(), 1 => Just(u32::MAX)]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let in_flight = prop_oneof![3 => 0_u32..4, 1 => any::<u32>()];
    // Few ids, so that some come back after leaving and some appear twice.
    (0_u64..60, weight(), any::<bool>(), in_flight).prop_map(|(id, weight, eligible, in_flight)| Endpoint {
        id,
        weight,
        eligible,
        in_flight,
    })
}

/// Sizes on both sides of the 16 up to which all are compared and of the 64 up to which `RoundRobin` keeps credits.
fn fleet() -> impl Strategy<Value = Endpoints> {
    prop_oneof![4 => vec(endpoint(), 0..40), 1 => vec(endpoint(), 60..80)].prop_map(Endpoints)
}

#[derive(Debug, Clone)]
enum Change {
    Nothing,
    Rebuild,
    Prepare,
    Join(Endpoint),
    Leave(Index),
    Replace(Index, Endpoint),
    Swap(Index, Index),
    OnlyOneEligible(Index),
    NoneEligible,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => Just(Change::Nothing),
        4 => Just(Change::Rebuild),
        1 => Just(Change::Prepare),
        3 => endpoint().prop_map(Change::Join),
        3 => any::<Index>().prop_map(Change::Leave),
        3 => (any::<Index>(), endpoint()).prop_map(|(at, endpoint)| Change::Replace(at, endpoint)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Change::Swap(a, b)),
        1 => any::<Index>().prop_map(Change::OnlyOneEligible),
        1 => Just(Change::NoneEligible),
    ]
}

fn apply(change: &Change, fleet: &mut Endpoints, policy: &mut AnyPolicy) {
    let endpoints = &mut fleet.0;
    let count = endpoints.len();
    match change {
        Change::Nothing => {}
        Change::Rebuild => policy.rebuild(fleet, &Prepared::None),
        Change::Prepare => {
            let prepared = prepared(policy.kind(), endpoints);
            policy.rebuild(fleet, &prepared);
        }
        Change::Join(endpoint) => endpoints.push(*endpoint),
        _ if count == 0 => {}
        Change::Leave(at) => drop(endpoints.remove(at.index(count))),
        Change::Replace(at, endpoint) => endpoints[at.index(count)] = *endpoint,
        Change::Swap(a, b) => endpoints.swap(a.index(count), b.index(count)),
        Change::OnlyOneEligible(at) => {
            let only = at.index(count);
            endpoints.iter_mut().enumerate().for_each(|(index, endpoint)| endpoint.eligible = index == only);
        }
        Change::NoneEligible => endpoints.iter_mut().for_each(|endpoint| endpoint.eligible = false),
    }
}

/// A fleet that changes its mind at every question, as one that other threads write to may.
struct Fickle {
    len: usize,
    rng: RefCell<Rng>,
}

impl Fickle {
    fn any(&self, bound: u32) -> u32 {
        self.rng.borrow_mut().below(bound)
    }
}

impl Fleet for Fickle {
    fn len(&self) -> usize {
        self.len
    }

    fn id(&self, index: usize) -> u64 {
        index as u64
    }

    fn weight(&self, index: usize) -> u32 {
        assert!(index < self.len, "asked for {index} of {}", self.len);
        [0, 1, 2, u32::MAX][self.any(4) as usize]
    }

    fn eligible(&self, index: usize) -> bool {
        assert!(index < self.len, "asked for {index} of {}", self.len);
        self.any(3) > 0
    }

    fn in_flight(&self, index: usize) -> u32 {
        assert!(index < self.len, "asked for {index} of {}", self.len);
        self.any(u32::MAX)
    }
}

/// `a` has strictly more in flight per weight than `b`.
fn busier(a: &Endpoint, b: &Endpoint) -> bool {
    u64::from(a.in_flight) * u64::from(b.weight) > u64::from(b.in_flight) * u64::from(a.weight)
}

proptest! {
    // Building hashing tables takes its time.
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Also between a change and the rebuild that should have followed it.
    #[test]
    fn every_pick_is_eligible_and_none_means_that_nobody_is(
        kind in kind(), mut fleet in fleet(), changes in vec(change(), 1..60), seed: u64,
    ) {
        let (mut policy, mut rng) = (built(kind, &fleet), Rng::seeded(seed));
        for change in &changes {
            apply(change, &mut fleet, &mut policy);
            match policy.pick(&fleet, Ask { now: Tick::from_nanos(seed), key: Some(seed).filter(|seed| seed % 3 > 0) }, &mut rng).map(|pick| pick.index) {
                Some(index) => {
                    prop_assert!(index < fleet.len(), "{index} of {}", fleet.len());
                    prop_assert!(fleet.0[index].may_be_picked(), "{index} is {:?}", fleet.0[index]);
                }
                None => prop_assert!(!fleet.0.iter().any(Endpoint::may_be_picked), "none of {:?}", fleet.0),
            }
        }
    }

    #[test]
    fn a_policy_that_was_never_built_picks_all_the_same(kind in kind(), fleet in fleet(), seed: u64) {
        let picked = AnyPolicy::new(kind).pick(&fleet, Ask::at(Tick::ZERO), &mut Rng::seeded(seed)).map(|pick| pick.index);
        prop_assert_eq!(picked.is_some(), fleet.0.iter().any(Endpoint::may_be_picked));
        prop_assert!(picked.is_none_or(|index| fleet.0[index].may_be_picked()));
    }

    #[test]
    fn answers_that_contradict_each_other_break_nothing(kind in kind(), len in 0_usize..40, seed: u64) {
        let fleet = Fickle { len, rng: RefCell::new(Rng::seeded(!seed)) };
        let (mut policy, mut rng) = (AnyPolicy::new(kind), Rng::seeded(seed));
        for round in 0..100 {
            if round % 10 == 0 {
                policy.rebuild(&fleet, &Prepared::None);
            }
            let picked = policy.pick(&fleet, Ask::at(Tick::ZERO), &mut rng).map(|pick| pick.index);
            prop_assert!(picked.is_none_or(|index| index < len), "{picked:?} of {len}");
        }
    }

    #[test]
    fn equal_seeds_give_equal_picks_whatever_the_time(kind in kind(), fleet in fleet(), seed: u64, times: [u64; 20]) {
        let run = |times: [u64; 20]| {
            let (mut policy, mut rng) = (built(kind, &fleet), Rng::seeded(seed));
            times.map(|time| policy.pick(&fleet, Ask::at(Tick::from_nanos(time)), &mut rng))
        };
        prop_assert_eq!(run(times), run([0; 20]));
    }

    #[test]
    fn a_dyn_fleet_gets_the_same_picks(kind in kind(), fleet in fleet(), seed: u64) {
        let (mut one, mut other) = (built(kind, &fleet), built(kind, &fleet));
        let (mut rng, mut again) = (Rng::seeded(seed), Rng::seeded(seed));
        for _ in 0..20 {
            let hidden: &dyn Fleet = &fleet;
            prop_assert_eq!(one.pick(&fleet, Ask::at(Tick::ZERO), &mut rng), other.pick(hidden, Ask::at(Tick::ZERO), &mut again));
        }
    }

    #[test]
    fn round_robin_gives_exact_shares_over_every_window_of_one_cycle(
        weights in prop_oneof![vec(0_u32..12, 1..20), vec(0_u32..12, 65..80)], position: u64,
    ) {
        let cycle = weights.iter().sum::<u32>() as usize;
        prop_assume!(cycle > 0);
        let fleet = Endpoints::with_weights(&weights);
        let mut policy = AnyPolicy::RoundRobin(RoundRobin::starting_at(position));
        policy.rebuild(&fleet, &Prepared::None);
        let picked = picks(&mut policy, &fleet, 2 * cycle, &mut Rng::seeded(1));
        for window in picked.windows(cycle) {
            let hits: Vec<usize> =
                (0..weights.len()).map(|index| window.iter().filter(|&&pick| pick == index).count()).collect();
            prop_assert_eq!(hits, weights.iter().map(|&weight| weight as usize).collect::<Vec<_>>());
        }
    }

    #[test]
    fn round_robin_goes_on_after_an_idle_reload_as_if_there_had_been_none(
        weights in prop_oneof![vec(1_u32..12, 1..20), vec(1_u32..12, 65..80)], reloads in vec(any::<bool>(), 60), seed: u64,
    ) {
        let fleet = Endpoints::with_weights(&weights);
        let (mut calm, mut reloaded) = (built(PolicyKind::RoundRobin, &fleet), built(PolicyKind::RoundRobin, &fleet));
        let (mut rng, mut again) = (Rng::seeded(seed), Rng::seeded(seed));
        for reload in reloads {
            if reload {
                reloaded.rebuild(&fleet, &Prepared::None);
            }
            let expected = calm.pick(&fleet, Ask::at(Tick::ZERO), &mut rng);
            prop_assert_eq!(reloaded.pick(&fleet, Ask::at(Tick::ZERO), &mut again), expected);
        }
    }

    /// After any history of joins, leaves and weights, nobody is owed more than a turn or two.
    #[test]
    fn round_robin_shares_are_right_within_two_picks_whatever_came_before(
        mut fleet in prop_oneof![vec((0_u64..60, 1_u32..20), 1..20), vec((0_u64..60, 1_u32..20), 65..70)].prop_map(|members| {
            // Unique, as `Fleet::id` wants it: endpoints that share one start from the same state.
            let endpoint = |(index, (id, weight)): (u64, (u64, u32))| Endpoint { id: index * 1_000_000 + id, weight, eligible: true, in_flight: 0 };
            Endpoints((0_u64..).zip(members).map(endpoint).collect())
        }),
        history in vec((any::<Index>(), 1_u32..10_000, 0_usize..30), 0..20), weights in vec(1_u32..12, 70), seed: u64,
    ) {
        let (mut policy, mut rng) = (built(PolicyKind::RoundRobin, &fleet), Rng::seeded(seed));
        for (at, weight, count) in history {
            let at = at.index(fleet.len());
            fleet.0[at].weight = weight;
            fleet.0[at].id += u64::from(weight % 2) * 100;
            policy.rebuild(&fleet, &Prepared::None);
            picks(&mut policy, &fleet, count, &mut rng);
        }
        fleet.0.iter_mut().zip(weights).for_each(|(endpoint, weight)| endpoint.weight = weight);
        policy.rebuild(&fleet, &Prepared::None);
        let cycle = fleet.0.iter().map(|endpoint| endpoint.weight as usize).sum();
        let picked = picks(&mut policy, &fleet, cycle, &mut rng);
        for (index, endpoint) in fleet.0.iter().enumerate() {
            let hits = picked.iter().filter(|&&pick| pick == index).count();
            prop_assert!(hits.abs_diff(endpoint.weight as usize) <= 2, "{index} got {hits} for {endpoint:?}");
        }
    }

    #[test]
    fn least_request_in_a_small_fleet_never_picks_a_busier_one(
        endpoints in vec(endpoint(), 1..=16), seed: u64,
    ) {
        let fleet = Endpoints(endpoints);
        let mut policy = built(PolicyKind::LeastRequest, &fleet);
        if let Some(index) = policy.pick(&fleet, Ask::at(Tick::ZERO), &mut Rng::seeded(seed)).map(|pick| pick.index) {
            let better = fleet.0.iter().find(|other| other.may_be_picked() && busier(&fleet.0[index], other));
            prop_assert!(better.is_none(), "picked {:?}, but there is {better:?}", fleet.0[index]);
        }
    }

    /// Two choices without replacement: with two to choose from, both are looked at. Nobody ever gets the busiest.
    #[test]
    fn least_request_in_a_large_fleet_never_picks_the_busiest(
        endpoints in vec(endpoint(), 17..60), seed: u64, only_two: Option<(Index, Index)>,
    ) {
        let mut fleet = Endpoints(endpoints);
        if let Some((a, b)) = only_two {
            let (a, b) = (a.index(fleet.len()), b.index(fleet.len()));
            fleet.0.iter_mut().enumerate().for_each(|(index, endpoint)| endpoint.eligible = index == a || index == b);
        }
        let mut policy = built(PolicyKind::LeastRequest, &fleet);
        if let Some(index) = policy.pick(&fleet, Ask::at(Tick::ZERO), &mut Rng::seeded(seed)).map(|pick| pick.index) {
            let others = || fleet.0.iter().enumerate().filter(|(other, it)| *other != index && it.may_be_picked());
            let busiest = others().count() > 0 && others().all(|(_, other)| busier(&fleet.0[index], other));
            prop_assert!(!busiest, "picked {:?}, the busiest", fleet.0[index]);
        }
    }

    /// Whatever was heard, whenever, and whoever asked to be left alone.
    #[test]
    fn no_latency_makes_a_pick_ineligible_or_lost(
        kind in kind(), fleet in fleet(), heard in vec((any::<Index>(), any::<bool>(), latency(), any::<u64>(), latency()), 0..60),
        seed: u64,
    ) {
        let latencies = fleet.0.iter().map(|_| Latency::new()).collect();
        let mut policy = built(kind, &fleet);
        let (fleet, mut rng) = (Measured { fleet, latencies }, Rng::seeded(seed));
        for (at, well, took, now, decay) in heard {
            let now = Tick::from_nanos(now);
            if !fleet.latencies.is_empty() {
                let latency = &fleet.latencies[at.index(fleet.len())];
                if well { latency.observe(took, now, decay) } else { latency.fail(took, now, decay) }
                if seed.is_multiple_of(2) {
                    latency.back_off(now.saturating_add(decay));
                }
            }
            let picked = policy.pick(&fleet, Ask { now, key: Some(seed) }, &mut rng);
            prop_assert_eq!(picked.is_some(), fleet.fleet.0.iter().any(Endpoint::may_be_picked));
            prop_assert!(picked.is_none_or(|pick| fleet.fleet.0[pick.index].may_be_picked()), "{picked:?}");
        }
    }

    #[test]
    fn a_bound_of_125_percent_is_never_broken(
        ring: bool, fleet in fleet(), keys in vec(any::<u64>(), 1..100), few_keys: bool, seed: u64,
    ) {
        let kind = if ring { PolicyKind::RingHash { bound: Some(125) } } else { PolicyKind::Maglev { bound: Some(125) } };
        let (mut policy, mut fleet, mut rng) = (built(kind, &fleet), fleet, Rng::seeded(seed));
        for key in keys {
            let ask = Ask { now: Tick::ZERO, key: Some(if few_keys { key % 3 } else { key }) };
            let Some(pick) = policy.pick(&fleet, ask, &mut rng) else { break };
            let may = || fleet.0.iter().filter(|endpoint| endpoint.may_be_picked());
            let total: u128 = may().map(|endpoint| u128::from(endpoint.in_flight)).sum();
            let weights: u128 = may().map(|endpoint| u128::from(endpoint.weight)).sum();
            let endpoint = &mut fleet.0[pick.index];
            let most = (125 * (total + 1) * u128::from(endpoint.weight)).div_ceil(100 * weights);
            prop_assert!(u128::from(endpoint.in_flight) < most, "{pick:?}: {endpoint:?} may have {most} of {total} + 1");
            endpoint.in_flight = endpoint.in_flight.saturating_add(1);
        }
    }

    #[test]
    fn a_key_stays_where_it_is_while_nothing_changes_whoever_asks_and_in_whatever_order_they_stand(
        ring: bool, endpoints in proptest::collection::btree_map(0_u64..200, 0_u32..6, 1..40), key: u64, seed: u64,
    ) {
        let kind = if ring { PolicyKind::RingHash { bound: None } } else { PolicyKind::Maglev { bound: None } };
        let endpoint = |(id, weight)| Endpoint { id, weight, eligible: true, in_flight: 0 };
        let mut fleet = Endpoints(endpoints.into_iter().map(endpoint).collect());
        let owner = |fleet: &Endpoints, seed| {
            let ask = Ask { now: Tick::from_nanos(seed), key: Some(key) };
            let pick = built(kind, fleet).pick(fleet, ask, &mut Rng::seeded(seed));
            pick.map(|pick| fleet.0[pick.index].id)
        };
        let before = owner(&fleet, seed);
        let by = usize::try_from(seed % 7).unwrap() % fleet.len();
        fleet.0.rotate_left(by);
        prop_assert_eq!(owner(&fleet, !seed), before);
    }
}

fn latency() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(Duration::ZERO), Just(Duration::MAX), any::<u64>().prop_map(Duration::from_nanos)]
}
