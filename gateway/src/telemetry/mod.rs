//! What an operator sees: counters, metrics, logs.

pub mod audit;
pub mod lines;
pub mod log;
pub mod metrics;
pub mod shard;
pub mod stats;
pub mod supervisor;
