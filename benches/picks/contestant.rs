//! One balancer with one number of endpoints and threads, and how it is measured.

use std::{
    fmt, fs, io,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Does so many picks. The loop is inside, so the box costs nothing.
pub(crate) type Lane = Box<dyn FnMut(u32) + Send>;

/// One for each thread, made by threads that live at the same time, as workers make their own state: so the allocator gives
/// each its own memory. Made by one thread, two generators once lay on one cache line, and a pick at random took three times as long.
pub(crate) fn lanes(threads: u64, make: impl Fn(u64) -> Lane + Sync) -> Vec<Lane> {
    let all_are_made = Barrier::new(usize::try_from(threads).expect("a few"));
    let make = |seed| {
        let lane = make(seed);
        all_are_made.wait();
        lane
    };
    thread::scope(|scope| {
        let make = &make;
        let making: Vec<_> = (0..threads).map(|seed| scope.spawn(move || make(seed))).collect();
        making.into_iter().map(|thread| thread.join().expect("nobody panics")).collect()
    })
}

/// A thread that had to wait for its core for more of a round than this was disturbed.
const DISTURBED: f64 = 0.01;

/// So often a round is tried until it is quiet.
const ATTEMPTS: usize = 4;

pub(crate) struct Contestant {
    pub(crate) name: String,
    pub(crate) size: usize,
    pub(crate) is_ours: bool,
    /// Per pick; by one thread.
    pub(crate) allocations: f64,
    pub(crate) quiet: Vec<f64>,
    pub(crate) disturbed: Vec<f64>,
    lanes: Vec<Lane>,
    turns: u32,
}

impl Contestant {
    /// `lanes`: one for each thread.
    pub(crate) fn new(name: impl Into<String>, size: usize, lanes: Vec<Lane>) -> Self {
        Self {
            name: name.into(),
            size,
            is_ours: false,
            allocations: 0.0,
            quiet: Vec::new(),
            disturbed: Vec::new(),
            lanes,
            turns: 64,
        }
    }

    pub(crate) fn ours(self) -> Self {
        Self { is_ours: true, ..self }
    }

    pub(crate) fn threads(&self) -> usize {
        self.lanes.len()
    }

    /// Nanoseconds per pick of each thread: of the quiet rounds, or if there is none of the others. `None` = not measured.
    pub(crate) fn sorted(&self) -> Option<Vec<f64>> {
        let mut nanos = if self.quiet.is_empty() { self.disturbed.clone() } else { self.quiet.clone() };
        nanos.sort_by(f64::total_cmp);
        (!nanos.is_empty()).then_some(nanos)
    }

    /// The least if there is one thread: whatever else runs only adds. The median if there are two: what they cost each
    /// other depends on how they meet, and a lucky round, as when both virtual cores are one real core, is no measure.
    pub(crate) fn figure(&self) -> Option<f64> {
        self.sorted().map(|nanos| if self.threads() == 1 { nanos[0] } else { nanos[nanos.len() / 2] })
    }

    /// The first picks are left out: they may fill what is kept.
    pub(crate) fn count_allocations(&mut self) {
        const PICKS: u32 = 1000;
        for lane in &mut self.lanes {
            lane(PICKS);
        }
        let counted = allocation_counter::measure(|| self.lanes[0](PICKS));
        self.allocations = counted.count_total as f64 / f64::from(PICKS);
    }

    /// Doubles the picks of a round until they fill `slice`.
    pub(crate) fn calibrate(&mut self, slice: Duration) -> io::Result<()> {
        while self.turns < 1 << 30 && self.round(0)?.took < slice {
            self.turns *= 2;
        }
        Ok(())
    }

    /// One quiet round, if there is one to be had.
    pub(crate) fn measure(&mut self, round: usize) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            let outcome = self.round(round)?;
            let nanos = outcome.took.as_secs_f64() * 1e9 / f64::from(self.turns);
            if outcome.waited < DISTURBED {
                self.quiet.push(nanos);
                return Ok(());
            }
            self.disturbed.push(nanos);
        }
        Ok(())
    }

    /// All threads do their picks at once, each on its own core; cores change with `round`.
    fn round(&mut self, round: usize) -> io::Result<Outcome> {
        let cores = cores()?;
        let threads = self.lanes.len();
        let (turns, started) = (self.turns, AtomicUsize::new(0));
        let run = |lane: &mut Lane, core: usize| -> io::Result<Outcome> {
            let mut only = CpuSet::new();
            only.set(core);
            sched_setaffinity(None, &only)?;
            // Spinning, since waking up takes longer for one than for the other.
            started.fetch_add(1, SeqCst);
            while started.load(SeqCst) < threads {
                std::hint::spin_loop();
            }
            let waited = waited()?;
            let start = Instant::now();
            // Else each allocation of the others would be counted, at their expense.
            allocation_counter::opt_out(|| lane(turns));
            let took = start.elapsed();
            let waited = self::waited()?.saturating_sub(waited);
            Ok(Outcome { took, waited: waited.as_secs_f64() / took.as_secs_f64() })
        };
        let run = &run;
        thread::scope(|scope| {
            let running: Vec<_> = self
                .lanes
                .iter_mut()
                .enumerate()
                .map(|(index, lane)| (lane, cores[(index + round) % cores.len()]))
                .map(|(lane, core)| scope.spawn(move || run(lane, core)))
                .collect();
            let mut slowest = Outcome { took: Duration::ZERO, waited: 0.0 };
            for thread in running {
                let outcome = thread.join().map_err(|_panic| io::Error::other("a thread panicked"))??;
                slowest.took = slowest.took.max(outcome.took);
                slowest.waited = slowest.waited.max(outcome.waited);
            }
            Ok(slowest)
        })
    }
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}, threads: {}", self.name, self.size, self.threads())
    }
}

#[derive(Debug, Clone, Copy)]
struct Outcome {
    took: Duration,
    /// For a core, as a share of `took`.
    waited: f64,
}

/// Cores this process may use.
pub(crate) fn cores() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect())
}

/// How long this thread was ready to run but wasn't running, since it began. Second field of schedstat.
fn waited() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split_whitespace().nth(1).and_then(|field| field.parse().ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| io::Error::other(format!("schedstat: {text:?}")))
}
