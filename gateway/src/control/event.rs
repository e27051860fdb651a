//! What can happen to the control plane.

use std::{collections::BTreeSet, sync::Arc};

use frp_gateway_config::model::Config;
use lb_algos::Tick;
use serde::{Deserialize, Serialize};

use super::{
    relays::Inheritance,
    state::{Fault, ServerKey},
};
use crate::frps::{Listing, Proxy, ProxyKind};

/// What a process knows of an frps, for the one after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Name of the frps.
    pub frps: String,
    /// Which server that is.
    pub server: ServerKey,
    /// Its tunnels.
    pub listing: Listing,
    /// It calls its plugin here itself, as opposed to an agent that answers it.
    pub calls_us: bool,
    /// Something has happened since that may have moved ports between tunnels.
    pub doubted: bool,
}

/// What a process knows of its fleet, for the one after it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Every frps that has told anything.
    pub frps: Vec<Known>,
    /// Hosts with a tunnel, or with one a moment ago, and how many milliseconds ago that was.
    pub hosts: Vec<(String, u64)>,
    /// frps that an operator wants emptied.
    pub drains: BTreeSet<String>,
    /// Who is relayed where.
    pub relays: Inheritance,
}

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
        /// All of its live proxies.
        listing: Listing,
        /// When the listing began.
        begun: Tick,
    },
    /// What the process before this one knew of an frps. Counts as long as that frps hasn't told us anything.
    FrpsRemembered(Known),
    /// Single proxies of an frps were looked at.
    TunnelsSeen {
        /// Name of the frps.
        frps: String,
        /// Which server was asked.
        server: ServerKey,
        /// Those that are online.
        online: Vec<Proxy>,
        /// Names of those that are not.
        gone: Vec<String>,
        /// Names of those that were claimed, and didn't come up in time.
        lapsed: Vec<String>,
    },
    /// A plugin call said that a proxy is about to be registered. Not true yet, and perhaps never.
    TunnelClaimed {
        /// Name of the frps.
        frps: String,
        /// Name of the proxy as frps will list it.
        name: String,
        /// User of FRP.
        user: String,
        /// Its type, before any takeover.
        kind: ProxyKind,
        /// What it claims.
        domains: Vec<String>,
        /// Whether it was taken over.
        taken_over: bool,
        /// An agent told it, as opposed to the frps itself.
        by_agent: bool,
    },
    /// A plugin call said that a proxy was closed. It may be back already.
    TunnelClosing {
        /// Name of the frps.
        frps: String,
        /// Name of the proxy.
        name: String,
        /// An agent told it, as opposed to the frps itself.
        by_agent: bool,
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
    /// An operator wants an frps emptied, or (`on` is false) used again. The file's own `drain` stays what it is.
    DrainAsked {
        /// Name of the frps.
        frps: String,
        /// Which of the two.
        on: bool,
    },
    /// The process is shutting down.
    DrainBegan,
}
