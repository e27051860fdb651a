//! What a pick costs: every policy of lb-algos beside tower's balancer and pingora-load-balancing, in nanoseconds and
//! allocations, with 3 to 3,000 endpoints, by one thread and by two at once.
//!
//! `cargo bench -p frp-gateway-benches --bench peers --features peers [-- --quick] [--write] [FILTER]` prints Markdown;
//! `--write` also replaces the section of `RESULTS.md` between the marks. Under `cargo test` everything runs once, as a
//! check that it works. Fails when a pick of ours allocates.
//!
//! All do the same job: pick one of n healthy endpoints of weights 1 to 4 (tower has no weights), hashing the request's key
//! where the rule goes by key; count it in flight and end it where the rule goes by load; read the clock where it goes by
//! latency. Contestants take turns, every other round in reversed order, and each thread has a core of its own. Rounds in
//! which a thread waited for its core are repeated, then left out. Of the rest the least counts, with two threads the median.
//!
//! Reading order: this file, `contestant` (how one is measured), `ours`, `tower_p2c`, `pingora` (what is measured), `table`.

mod contestant;
mod ours;
mod pingora;
mod table;
mod tower_p2c;

use std::{
    io::{self, Error, Write},
    time::Duration,
};

use contestant::Contestant;
use table::Report;

/// Numbers of endpoints.
const FLEETS: [usize; 4] = [3, 30, 300, 3_000];

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rounds: usize,
    slice: Duration,
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let filter = args.iter().find(|arg| !arg.starts_with('-')).map_or("", String::as_str);
    let plan = if has("--quick") {
        Plan { rounds: 3, slice: Duration::from_millis(2) }
    } else {
        Plan { rounds: 25, slice: Duration::from_millis(10) }
    };

    let mut all: Vec<Contestant> = FLEETS
        .into_iter()
        .flat_map(|size| {
            [tower_p2c::plain(size)]
                .into_iter()
                .chain(ours::all(size))
                .chain(tower_p2c::all(size))
                .chain(pingora::all(size))
        })
        .filter(|contestant| contestant.name.contains(filter))
        .collect();
    for contestant in &mut all {
        contestant.count_allocations();
        if contestant.is_ours && contestant.allocations > 0.0 {
            return Err(Error::other(format!("{contestant} allocates: {} per pick", contestant.allocations)));
        }
    }
    let mut out = io::stdout().lock();
    if !has("--bench") {
        return writeln!(
            out,
            "{} contestants ran, ours without allocations; times only under cargo bench",
            all.len()
        );
    }

    for contestant in &mut all {
        contestant.calibrate(plan.slice)?;
    }
    for round in 0..plan.rounds {
        let mut order: Vec<&mut Contestant> = all.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for contestant in order {
            contestant.measure(round)?;
        }
    }
    let report = Report { plan, contestants: &all }.markdown();
    write!(out, "{report}")?;
    if has("--write") { table::write(&report) } else { Ok(()) }
}
