//! What an operator sees: counters, metrics, logs.

pub mod audit;
pub mod log;
pub mod metrics;
pub mod shard;
pub mod stats;
