//! Verdicts on endpoints. From our own probes: [`streak`] decides (pure), [`active`] asks. From visitors' traffic:
//! [`lb_algos::outlier`] and [`lb_algos::AdaptiveLimit`] decide (pure), [`outlier`] watches, [`memory`] remembers.

pub mod active;
pub mod grpc;
pub mod memory;
pub mod outlier;
pub mod streak;
