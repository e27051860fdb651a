//! The operator's side: `/metrics`, `/healthz`, `/readyz` and the API under `/api/v1`.
//!
//! Runs on the control thread, never on one that serves visitors. Reads the board and the published snapshot; the only
//! thing it can change is to ask for a reload.

pub mod api;
pub mod certificates;
pub mod clients;
pub mod drain;
pub mod explain;
pub mod server;
pub mod status;
#[cfg(test)]
mod testing;
pub mod tunnels;

pub use self::server::{App, router};
