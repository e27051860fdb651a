//! The one clock of the process: nanoseconds since start, as [`Tick`].
//!
//! Everything that decides (policies, ejections, histories) takes a `Tick` as an argument; only the edges call
//! [`now`]. So a decision can be replayed in a test with made-up times.

use std::{sync::LazyLock, time::Instant};

use lb_algos::Tick;

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Time since the process first asked. Monotonic.
#[must_use]
pub fn now() -> Tick {
    tick_of(Instant::now())
}

/// The tick of an instant that was read already.
#[must_use]
pub fn tick_of(at: Instant) -> Tick {
    Tick::from_nanos(u64::try_from(at.saturating_duration_since(*ORIGIN).as_nanos()).unwrap_or(u64::MAX))
}
