//! `frp-gateway`: load balancing in front of a fleet of FRP servers.
//!
//! Reading order: [`snapshot`] (what a request sees), [`data`] (the request path, `docs/request-path.md`),
//! [`http1`] (the codec under it), [`tls`] (certificates), [`control`] (events → reducer → snapshot), [`frps`] and [`health`] (where events come
//! from), [`admin`], [`telemetry`], [`lifecycle`] (start, signals, drain), [`cli`], [`client`] (asks a gateway that runs),
//! [`ca`] (certificates for fleets that have no authority).

pub mod acme;
pub mod admin;
pub mod agent;
pub mod ca;
pub mod cli;
pub mod client;
pub mod clock;
pub mod control;
pub mod data;
pub mod error;
pub mod folders;
pub mod frp_wire;
pub mod frps;
#[cfg(test)]
mod golden;
pub mod health;
pub mod http1;
pub mod lifecycle;
pub mod snapshot;
pub mod telemetry;
pub mod tls;
