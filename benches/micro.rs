//! Nanoseconds of single steps: a pick per policy and fleet size, parsing a request and a response head.
//!
//! `cargo bench -p frp-gateway-benches [FILTER]`. All cases take turns, fifteen times some 10 ms each; the least is the
//! figure to compare (whatever else runs only adds), the median shows how quiet the machine was. Under `cargo test` each
//! case runs once, as a check that it works. What a pick costs beside other balancers: the bench `peers`.

use std::hint::black_box;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use frp_gateway::http1::{HeadLimits, Method, RequestHead, ResponseHead};
use frp_gateway_benches::job;
use lb_algos::{AnyPolicy, Ask, Fleet, Latency, Place, PolicyKind, Prepared, Rng, Tick};

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(10);
const FLEETS: [usize; 4] = [3, 30, 300, 3_000];
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

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let measuring = args.iter().any(|arg| arg == "--bench");
    let filter = args.iter().find(|arg| !arg.starts_with('-')).map_or("", String::as_str);
    let mut cases: Vec<Case> =
        picks().chain(contended()).chain(heads()).filter(|case| case.name.contains(filter)).collect();

    let mut out = io::stdout().lock();
    if !measuring {
        for case in &mut cases {
            case.time(1);
        }
        return writeln!(out, "{} cases run once; times only under cargo bench", cases.len());
    }
    for case in &mut cases {
        case.calibrate();
    }
    for _ in 0..ROUNDS {
        for case in &mut cases {
            let nanos = case.time(case.turns).as_secs_f64() * 1e9 / f64::from(case.turns);
            case.nanos.push(nanos);
        }
    }
    writeln!(out, "{:<52} {:>10} {:>10}", "ns", "least", "median")?;
    for case in &mut cases {
        case.nanos.sort_by(f64::total_cmp);
        writeln!(out, "{:<34} {:>10.1} {:>10.1}", case.name, case.nanos[0], case.nanos[ROUNDS / 2])?;
    }
    Ok(())
}

struct Case {
    name: String,
    step: Box<dyn FnMut(u32)>, // does the thing so many times; the loop is inside, so the box costs nothing
    turns: u32,
    nanos: Vec<f64>,
}

impl Case {
    fn new(name: String, step: impl FnMut(u32) + 'static) -> Self {
        Self { name, step: Box::new(step), turns: 1, nanos: Vec::new() }
    }

    fn time(&mut self, turns: u32) -> Duration {
        let start = Instant::now();
        (self.step)(turns);
        start.elapsed()
    }

    /// Doubles the turns until they fill a round.
    fn calibrate(&mut self) {
        while self.turns < 1 << 30 && self.time(self.turns) < ROUND {
            self.turns *= 2;
        }
    }
}

fn picks() -> impl Iterator<Item = Case> {
    POLICIES.into_iter().flat_map(|kind| {
        FLEETS.into_iter().map(move |size| {
            let (fleet, mut rng) = (Endpoints::new(size), Rng::seeded(1));
            let mut policy = built(kind, &fleet, &prepared(kind, size));
            Case::new(format!("pick {} of {size}", name(kind)), move |turns| {
                for turn in 0..turns {
                    let picked = policy.pick(black_box(&fleet), ask(turn), &mut rng);
                    assert!(black_box(picked).is_some(), "all endpoints are eligible");
                }
            })
        })
    })
}

/// A pick, its in-flight count and its latency, by one thread or two at the same fleet: what sharing costs.
fn contended() -> impl Iterator<Item = Case> {
    [PolicyKind::LeastRequest, PolicyKind::PeakEwma, PolicyKind::Maglev { bound: Some(125) }]
        .into_iter()
        .flat_map(|kind| {
            FLEETS.into_iter().flat_map(|size| [(size, 1), (size, 2)]).map(move |(size, threads)| {
                let (fleet, prepared) = (Endpoints::new(size), prepared(kind, size));
                let mut workers: Vec<(AnyPolicy, Rng)> =
                    (0..threads).map(|seed| (built(kind, &fleet, &prepared), Rng::seeded(seed))).collect();
                Case::new(
                    format!("pick, begin, end {} of {size}, threads {threads}", name(kind)),
                    move |turns| {
                        let fleet = &fleet;
                        std::thread::scope(|scope| {
                            for (policy, rng) in &mut workers {
                                scope.spawn(move || {
                                    for turn in 0..turns {
                                        let ask = ask(turn);
                                        let picked = policy
                                            .pick(black_box(fleet), ask, rng)
                                            .expect("all are eligible");
                                        fleet.in_flight[picked.index].fetch_add(1, Relaxed);
                                        let took = Duration::from_micros(200 + u64::from(turn % 100));
                                        fleet.latencies[picked.index].observe(
                                            took,
                                            ask.now,
                                            Duration::from_secs(2),
                                        );
                                        fleet.in_flight[picked.index].fetch_sub(1, Relaxed);
                                    }
                                });
                            }
                        });
                    },
                )
            })
        })
}

fn name(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::RoundRobin => "round_robin",
        PolicyKind::Random => "random",
        PolicyKind::LeastRequest => "least_request",
        PolicyKind::PeakEwma => "peak_ewma",
        PolicyKind::Maglev { bound: None } => "maglev",
        PolicyKind::Maglev { bound: Some(_) } => "maglev, bounded",
        PolicyKind::RingHash { bound: None } => "ring_hash",
        PolicyKind::RingHash { bound: Some(_) } => "ring_hash, bounded",
    }
}

/// 10 µs after the one before, each with another key.
fn ask(turn: u32) -> Ask {
    let key = u64::from(turn).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Ask { now: Tick::from_nanos(u64::from(turn) * 10_000), key: Some(key) }
}

fn prepared(kind: PolicyKind, size: usize) -> Prepared {
    let place = |(port, index)| Place { host: "10.0.0.1", port, key: u64::from(port), weight: weight(index) };
    Prepared::build(kind, &(1..).zip(0..size).map(place).collect::<Vec<_>>())
}

fn built(kind: PolicyKind, fleet: &Endpoints, prepared: &Prepared) -> AnyPolicy {
    let mut policy = AnyPolicy::new(kind);
    policy.rebuild(fleet, prepared);
    policy
}

fn heads() -> impl Iterator<Item = Case> {
    let request = job::requests("/1k?page=2", false).swap_remove(17);
    let response: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 04:00:00 GMT\r\nServer: app/1.4\r\n\
        Content-Type: application/json; charset=utf-8\r\nContent-Length: 1024\r\n\
        Cache-Control: private, max-age=60\r\nETag: \"5f3a-17c9d2\"\r\nVary: Accept-Encoding\r\n\r\n";
    let limits = HeadLimits { head_bytes: 64 << 10, line_bytes: 16 << 10, fields: 100 };
    let (mut into_request, mut into_response) = (RequestHead::default(), ResponseHead::default());
    [
        Case::new(format!("parse a request of {} bytes", request.len()), move |turns| {
            for _ in 0..turns {
                let whole = into_request.parse(black_box(&request), &limits);
                assert_eq!(black_box(whole), Ok(true), "the head is whole");
            }
        }),
        Case::new(format!("parse a response of {} bytes", response.len()), move |turns| {
            for _ in 0..turns {
                let whole = into_response.parse(black_box(response), &limits, Method::Get);
                assert_eq!(black_box(whole), Ok(true), "the head is whole");
            }
        }),
    ]
    .into_iter()
}

/// So many endpoints, weights 1 to 4, all eligible, in-flight counts spread, latencies of 1.0 to 1.6 ms.
struct Endpoints {
    in_flight: Vec<AtomicU32>,
    latencies: Vec<Latency>,
}

impl Endpoints {
    fn new(size: usize) -> Self {
        let latency = |index: usize| {
            let (latency, took) = (Latency::new(), Duration::from_micros(1000 + 100 * (index as u64 % 7)));
            latency.observe(took, Tick::ZERO, Duration::from_secs(2));
            latency
        };
        let in_flight = |index: usize| AtomicU32::new([5, 0, 9, 2, 7][index % 5]);
        Self { in_flight: (0..size).map(in_flight).collect(), latencies: (0..size).map(latency).collect() }
    }
}

fn weight(index: usize) -> u32 {
    [1, 2, 3, 4][index % 4]
}

impl Fleet for Endpoints {
    fn len(&self) -> usize {
        self.in_flight.len()
    }

    fn id(&self, index: usize) -> u64 {
        index as u64
    }

    fn weight(&self, index: usize) -> u32 {
        weight(index)
    }

    fn eligible(&self, _: usize) -> bool {
        true
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.in_flight[index].load(Relaxed)
    }

    fn latency(&self, index: usize) -> Option<&Latency> {
        Some(&self.latencies[index])
    }
}
