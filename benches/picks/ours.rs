//! The policies of lb-algos, as the gateway drives them: each thread has a policy and a generator of its own; endpoints, with
//! their in-flight counts and latencies, and tables of hashing policies are shared.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use lb_algos::{AnyPolicy, Ask, Fleet, Latency, Pick, Place, PolicyKind, Prepared, Rng, Tick};

use crate::contestant::{Contestant, Lane, lanes};

/// Time in which a latency fades.
pub(crate) const DECAY: Duration = Duration::from_secs(2);

const POLICIES: [PolicyKind; 8] = [
    PolicyKind::RoundRobin,
    PolicyKind::Random,
    PolicyKind::LeastRequest,
    PolicyKind::PeakEwma,
    PolicyKind::Maglev { bound: None },
    PolicyKind::Maglev { bound: Some(125) },
    PolicyKind::RingHash { bound: None },
    PolicyKind::RingHash { bound: Some(125) },
];

/// Every policy, by one thread and by two.
pub(crate) fn all(size: usize) -> impl Iterator<Item = Contestant> {
    POLICIES.into_iter().flat_map(move |kind| {
        let prepared = prepared(kind, size);
        [1, 2].map(|threads| {
            let fleet = Arc::new(Endpoints::new(size));
            let lanes = lanes(threads, |seed| lane(kind, &fleet, &prepared, seed));
            Contestant::new(name(kind), size, lanes).ours()
        })
    })
}

/// Relative share of endpoint `index`; for all contestants that know weights.
pub(crate) fn weight(index: usize) -> u32 {
    [1, 2, 3, 4][index % 4]
}

/// What the request of that turn is to stay with.
pub(crate) fn key(turn: u32) -> [u8; 8] {
    u64::from(turn).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

fn name(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::RoundRobin => "round_robin",
        PolicyKind::Random => "random",
        PolicyKind::LeastRequest => "least_request",
        PolicyKind::PeakEwma => "peak_ewma",
        PolicyKind::Maglev { bound: None } => "maglev, bound off",
        PolicyKind::Maglev { bound: Some(_) } => "maglev, bound 1.25",
        PolicyKind::RingHash { bound: None } => "ring_hash, bound off",
        PolicyKind::RingHash { bound: Some(_) } => "ring_hash, bound 1.25",
    }
}

fn prepared(kind: PolicyKind, size: usize) -> Prepared {
    let place = |(port, index)| Place { host: "10.0.0.1", port, key: u64::from(port), weight: weight(index) };
    Prepared::build(kind, &(1..).zip(0..size).map(place).collect::<Vec<_>>())
}

/// What the policy needs of a request, and no more.
fn lane(kind: PolicyKind, fleet: &Arc<Endpoints>, prepared: &Prepared, seed: u64) -> Lane {
    let (fleet, mut rng, mut policy) = (fleet.clone(), Rng::seeded(seed), AnyPolicy::new(kind));
    policy.rebuild(&*fleet, prepared);
    let mut pick = move |fleet: &Endpoints, ask| -> Pick {
        policy.pick(black_box(fleet), ask, &mut rng).expect("all endpoints are eligible")
    };
    match kind {
        PolicyKind::RoundRobin | PolicyKind::Random => Box::new(move |turns| {
            for turn in 0..turns {
                black_box(pick(&fleet, Ask::at(tick(turn))));
            }
        }),
        PolicyKind::Maglev { bound: None } | PolicyKind::RingHash { bound: None } => Box::new(move |turns| {
            for turn in 0..turns {
                black_box(pick(&fleet, keyed(kind, turn)));
            }
        }),
        PolicyKind::Maglev { bound: Some(_) } | PolicyKind::RingHash { bound: Some(_) } => {
            Box::new(move |turns| {
                for turn in 0..turns {
                    fleet.count(pick(&fleet, keyed(kind, turn)));
                }
            })
        }
        PolicyKind::LeastRequest => Box::new(move |turns| {
            for turn in 0..turns {
                fleet.count(pick(&fleet, Ask::at(tick(turn))));
            }
        }),
        PolicyKind::PeakEwma => Box::new(move |turns| {
            for _ in 0..turns {
                let sent = fleet.now();
                let endpoint = &fleet.all[pick(&fleet, Ask::at(sent)).index];
                endpoint.in_flight.fetch_add(1, Relaxed);
                let answered = fleet.now();
                endpoint.latency.observe(answered.since(sent), answered, DECAY);
                endpoint.in_flight.fetch_sub(1, Relaxed);
            }
        }),
    }
}

/// Requests 10 µs apart. Who doesn't go by latency needs no clock.
fn tick(turn: u32) -> Tick {
    Tick::from_nanos(u64::from(turn) * 10_000)
}

fn keyed(kind: PolicyKind, turn: u32) -> Ask {
    Ask { now: tick(turn), key: Some(kind.key_of(black_box(&key(turn)))) }
}

/// All eligible; in-flight counts spread, latencies of 1.0 to 1.6 ms.
struct Endpoints {
    origin: Instant,
    all: Vec<Endpoint>,
}

/// On cache lines of its own, as in the gateway.
#[repr(align(128))]
struct Endpoint {
    in_flight: AtomicU32,
    latency: Latency,
    weight: u32,
}

impl Endpoints {
    fn new(size: usize) -> Self {
        let endpoint = |index: usize| {
            let latency = Latency::new();
            latency.observe(Duration::from_micros(1000 + 100 * (index as u64 % 7)), Tick::ZERO, DECAY);
            let in_flight = AtomicU32::new([5, 0, 9, 2, 7][index % 5]);
            Endpoint { in_flight, latency, weight: weight(index) }
        };
        Self { origin: Instant::now(), all: (0..size).map(endpoint).collect() }
    }

    fn now(&self) -> Tick {
        let nanos = self.origin.elapsed().as_nanos();
        Tick::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Counts a request as in flight, and as ended.
    fn count(&self, pick: Pick) {
        let in_flight = &self.all[pick.index].in_flight;
        in_flight.fetch_add(1, Relaxed);
        in_flight.fetch_sub(1, Relaxed);
    }
}

impl Fleet for Endpoints {
    fn len(&self) -> usize {
        self.all.len()
    }

    fn id(&self, index: usize) -> u64 {
        index as u64
    }

    fn weight(&self, index: usize) -> u32 {
        self.all[index].weight
    }

    fn eligible(&self, _: usize) -> bool {
        true
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.all[index].in_flight.load(Relaxed)
    }

    fn latency(&self, index: usize) -> Option<&Latency> {
        Some(&self.all[index].latency)
    }
}
