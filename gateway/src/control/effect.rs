//! What the reducer wants done. It does nothing itself.

use std::net::SocketAddr;

use frp_gateway_config::{
    Changes,
    model::{AccessLog, FrpsAdmin, Health},
};

use super::state::{Fault, ServerKey};
use crate::snapshot::EndpointId;

/// One piece of I/O. A step's effects run in order; those that can fail come first, before anything has changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Open a listener's sockets. Can fail: then the whole step is undone. They begin to accept after the next
    /// [`Effect::Publish`]; sockets that the listener had before are closed then.
    Bind {
        /// Name of the listener.
        listener: String,
        /// Address to bind.
        address: SocketAddr,
        /// Where it stands in the configuration.
        key: String,
    },
    /// Write the access log elsewhere. Can fail: then the whole step is undone.
    SwitchAccessLog(AccessLog),
    /// Compile everything and publish it.
    Publish,
    /// Publish the present snapshot with new tunnels.
    PublishTunnels,
    /// Stop accepting on a listener that is gone.
    Close {
        /// Name of the listener.
        listener: String,
    },
    /// Stop asking an frps.
    StopPoller {
        /// Name of the frps.
        frps: String,
    },
    /// Begin to ask an frps.
    StartPoller {
        /// Name of the frps.
        frps: String,
        /// Which server it is.
        server: ServerKey,
        /// Where and how often.
        admin: FrpsAdmin,
    },
    /// Stop probing.
    StopProbe(ProbeKey),
    /// Begin to probe; the present verdict is kept until a streak changes it.
    StartProbe(ProbeKey, Health),
    /// Stop watching a pool for outliers.
    StopWatch {
        /// Name of the pool.
        pool: String,
    },
    /// Begin to watch a pool for outliers or to adapt its limits. The watch reads rules and members from what is published,
    /// and what it knows of a member belongs to the member: a change of either needs no other watch.
    StartWatch {
        /// Name of the pool.
        pool: String,
    },
    /// Tell people.
    Log(Notice),
}

/// What is probed: an endpoint, as one pool wants it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeKey {
    /// Name of the pool.
    pub pool: String,
    /// The endpoint.
    pub endpoint: EndpointId,
}

/// A state change worth a log line.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A new configuration is in force.
    Reloaded {
        /// Its number.
        generation: u64,
        /// Added, removed and changed per section.
        changes: Box<Changes>,
    },
    /// The configuration is what it was.
    NothingChanged,
    /// A configuration was refused.
    Refused {
        /// What is wrong with it.
        faults: Vec<Fault>,
    },
    /// A changed key is only read at start.
    NeedsRestart {
        /// The key.
        key: &'static str,
        /// What runs now.
        running: String,
        /// What the file says.
        configured: String,
    },
    /// An frps answers (again).
    FrpsAnswers {
        /// Name of the frps.
        frps: String,
        /// Its live http tunnels.
        tunnels: usize,
    },
    /// An frps stopped answering, or for another reason.
    FrpsSilent {
        /// Name of the frps.
        frps: String,
        /// Why.
        reason: String,
        /// How many tunnels of the last listing stay in use.
        kept: usize,
    },
}
