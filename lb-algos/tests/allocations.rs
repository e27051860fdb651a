//! Picks allocate nothing, on no path.

mod common;

use std::time::Duration;

use common::{Endpoints, KINDS, Measured, built};
use lb_algos::{Ask, Latency, Tick};

#[test]
fn no_pick_allocates_however_large_the_fleet_and_however_few_are_eligible() {
    for kind in KINDS {
        for (size, eligible) in
            [(3, 3), (3, 1), (16, 16), (17, 17), (300, 300), (300, 2), (300, 0), (3000, 2000)]
        {
            let mut fleet = Endpoints::with_weights(&vec![2; size]);
            fleet.0.iter_mut().skip(eligible).for_each(|endpoint| endpoint.eligible = false);
            let mut policy = built(kind, &fleet);
            let mut rng = lb_algos::Rng::seeded(1);
            let latencies: Vec<Latency> = (0..size).map(|_| Latency::new()).collect();
            latencies
                .iter()
                .skip(1)
                .for_each(|known| known.observe(Duration::from_millis(5), Tick::ZERO, Duration::MAX));
            let fleet = Measured { fleet, latencies };
            let ask = |turn: u64| Ask {
                now: Tick::from_nanos(turn * 100_000_000),
                key: turn.is_multiple_of(2).then_some((turn << 32) | turn),
            };
            let mut run = || (0..100).filter_map(|turn| policy.pick(&fleet, ask(turn), &mut rng)).count();
            let mut picked = 0;
            let allocations = allocation_counter::measure(|| picked = run());
            assert_eq!(allocations.count_total, 0, "{kind:?}, {eligible} of {size} eligible");
            assert_eq!(picked, if eligible > 0 { 100 } else { 0 });
        }
    }
}

#[test]
fn the_count_is_not_blind() {
    let fleet = Endpoints::with_weights(&[1; 300]);
    for kind in KINDS {
        let allocations = allocation_counter::measure(|| drop(built(kind, &fleet)));
        assert!(allocations.count_total > 0, "{kind:?}: building does allocate");
    }
}
