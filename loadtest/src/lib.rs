//! Black-box tools around `frp-gateway`: they start processes and speak HTTP, and depend on none of its crates.
//!
//! - [`lab`] starts real frps, frpc and gateway processes on free loopback ports and cleans up after itself.
//! - [`demo`] is the application at the far end of a tunnel; `demo-app` is the same as a program.
//! - [`http`] is a client that shows a test exactly what came back.

pub mod demo;
pub mod http;
pub mod lab;
