//! What can happen to the control plane.

use std::sync::Arc;

use frp_gateway_config::model::Config;

use super::state::{Fault, ServerKey};
use crate::frps::Listing;

/// Input of the reducer.
#[derive(Debug, Clone)]
pub enum Event {
    /// The configuration was read and is right; it may equal the present one.
    ConfigLoaded {
        /// The whole configuration.
        config: Arc<Config>,
    },
    /// A configuration was refused: it is wrong, or an effect of it failed.
    ConfigRefused {
        /// Everything that is wrong.
        faults: Vec<Fault>,
    },
    /// An frps told which tunnels are live.
    FrpsListed {
        /// Name of the frps.
        frps: String,
        /// Which server was asked: the name may mean another one by now.
        server: ServerKey,
        /// All of its live http proxies.
        listing: Listing,
    },
    /// An frps did not tell; its last listing stays.
    FrpsUnreachable {
        /// Name of the frps.
        frps: String,
        /// Which server was asked.
        server: ServerKey,
        /// For people.
        reason: String,
    },
    /// The process is shutting down.
    DrainBegan,
}
