//! Counters without contention: one padded copy per worker, summed when somebody looks.
//!
//! A worker only ever writes its own copy, so an increment is a plain load and store (0.5 ns instead of 5–13 ns for
//! a shared `fetch_add`, see `docs/decisions/0002-per-worker-metric-shards.md`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Index of a data-plane thread: 0 to workers − 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerId(pub usize);

/// Keeps neighbours off each other's cache line (two lines: adjacent-line prefetch).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

/// One `T` per worker.
#[derive(Debug)]
pub struct Shards<T>(Box<[Padded<T>]>);

impl<T: Default> Shards<T> {
    /// `workers` copies, all zero.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Padded::default()).collect())
    }
}

impl<T> Shards<T> {
    /// The copy that `worker` writes.
    #[must_use]
    pub fn of(&self, worker: WorkerId) -> &T {
        &self.0[worker.0 % self.0.len()].0
    }

    /// Sum of one counter over all workers.
    pub fn sum(&self, counter: impl Fn(&T) -> &Counter) -> u64 {
        self.0.iter().map(|shard| counter(&shard.0).get()).sum()
    }

    /// Every copy.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|shard| &shard.0)
    }
}

/// A counter with a single writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one. Only the owning worker may call it.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`. Only the owning worker may call it.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes one away (for gauges kept per worker; the sum over workers is the gauge).
    pub fn dec(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// Takes `n` away, as [`Counter::dec`].
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Present value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the latency buckets, seconds.
pub const LATENCY_BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

const LATENCY_BOUNDS_NS: [u64; 14] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// A latency histogram with a single writer. Buckets are not cumulative here.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; LATENCY_BOUNDS.len() + 1],
    sum_ns: Counter,
}

impl Histogram {
    /// Records one latency in nanoseconds.
    pub fn observe_ns(&self, ns: u64) {
        let bucket = LATENCY_BOUNDS_NS.partition_point(|bound| *bound < ns);
        self.buckets[bucket].inc();
        self.sum_ns.add(ns);
    }

    /// Adds this copy to a total: per-bucket counts (last = above all bounds) and the sum in nanoseconds.
    pub fn add_to(&self, buckets: &mut [u64; LATENCY_BOUNDS.len() + 1], sum_ns: &mut u64) {
        for (total, bucket) in buckets.iter_mut().zip(&self.buckets) {
            *total += bucket.get();
        }
        *sum_ns = sum_ns.wrapping_add(self.sum_ns.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_falls_into_the_first_bucket_whose_bound_holds_it() {
        let histogram = Histogram::default();
        for ns in [0, 500_000, 500_001, 10_000_000_000, 10_000_000_001] {
            histogram.observe_ns(ns);
        }
        let (mut buckets, mut sum) = ([0; 15], 0);
        histogram.add_to(&mut buckets, &mut sum);
        assert_eq!(buckets[0], 2, "0 and the bound itself: {buckets:?}");
        assert_eq!(buckets[1], 1, "{buckets:?}");
        assert_eq!((buckets[13], buckets[14]), (1, 1), "{buckets:?}");
        assert_eq!(sum, 20_001_000_002);
    }

    #[test]
    fn nanosecond_bounds_are_the_published_bounds() {
        for (seconds, ns) in LATENCY_BOUNDS.iter().zip(LATENCY_BOUNDS_NS) {
            assert!((seconds * 1e9 - ns as f64).abs() < 1.0, "{seconds} s is not {ns} ns");
        }
    }
}
