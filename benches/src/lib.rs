//! Parts that the load generators of `benches/compare` share. Nothing here is used by the gateway.
//!
//! Reading order: `bin/backend.rs` (what the proxies talk to), [`job`] (what every generator asks for), [`reply`] (how an
//! answer is checked), then the generators `bin/fixed_rate.rs` and `bin/reconnect.rs`.

pub mod job;
pub mod poll;
pub mod reply;
