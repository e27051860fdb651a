//! Nanoseconds of single steps: a pick per policy and fleet size, parsing a request and a response head.
//!
//! `cargo bench -p frp-gateway-benches [FILTER]`. All cases take turns, fifteen times some 10 ms each; the least is the
//! figure to compare (whatever else runs only adds), the median shows how quiet the machine was. Under `cargo test` each
//! case runs once, as a check that it works.

use std::hint::black_box;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use frp_gateway::http1::{HeadLimits, Method, RequestHead, ResponseHead};
use frp_gateway_benches::job;
use lb_algos::{AnyPolicy, Fleet, PolicyKind, Rng, Tick};

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(10);
const FLEETS: [usize; 4] = [3, 30, 300, 3_000];
const POLICIES: [PolicyKind; 3] = [PolicyKind::RoundRobin, PolicyKind::Random, PolicyKind::LeastRequest];

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let measuring = args.iter().any(|arg| arg == "--bench");
    let filter = args.iter().find(|arg| !arg.starts_with('-')).map_or("", String::as_str);
    let mut cases: Vec<Case> = picks().chain(heads()).filter(|case| case.name.contains(filter)).collect();

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
    writeln!(out, "{:<34} {:>10} {:>10}", "ns", "least", "median")?;
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
            let (fleet, mut rng) = (Endpoints(size), Rng::seeded(1));
            let mut policy = AnyPolicy::new(kind);
            policy.rebuild(&fleet);
            Case::new(format!("pick {kind:?} of {size}"), move |turns| {
                for turn in 0..turns {
                    let now = Tick::from_nanos(u64::from(turn) * 10_000);
                    let picked = policy.pick(black_box(&fleet), now, &mut rng);
                    assert!(black_box(picked).is_some(), "all endpoints are eligible");
                }
            })
        })
    })
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

/// So many endpoints, weights 1 to 4, all eligible, in-flight counts spread.
struct Endpoints(usize);

impl Fleet for Endpoints {
    fn len(&self) -> usize {
        self.0
    }

    fn id(&self, index: usize) -> u64 {
        index as u64
    }

    fn weight(&self, index: usize) -> u32 {
        [1, 2, 3, 4][index % 4]
    }

    fn eligible(&self, _: usize) -> bool {
        true
    }

    fn in_flight(&self, index: usize) -> u32 {
        [5, 0, 9, 2, 7][index % 5]
    }
}
