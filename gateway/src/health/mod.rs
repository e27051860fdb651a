//! Verdicts on endpoints from our own probes. [`streak`] decides (pure), [`active`] asks.

pub mod active;
pub mod streak;
