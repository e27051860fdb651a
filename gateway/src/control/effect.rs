//! What the reducer wants done. It does nothing itself.

use std::net::SocketAddr;

use frp_gateway_config::{
    Changes,
    model::{AccessLog, FrpsAdmin, Health},
};

use super::{
    directory::Touched,
    state::{Fault, ServerKey},
};
use crate::{data::sockets::Kind, snapshot::EndpointId};

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
        /// What goes over them.
        kind: Kind,
        /// Where it stands in the configuration.
        key: String,
    },
    /// Write the access log elsewhere. Can fail: then the whole step is undone.
    SwitchAccessLog(AccessLog),
    /// Write the audit log elsewhere. Can fail: then the whole step is undone.
    SwitchAudit(AccessLog),
    /// Compile everything and publish it.
    Publish,
    /// Publish the present snapshot with these hosts as the directory has them now. May be put off for some milliseconds.
    PublishTunnels(Touched),
    /// Ask an frps about single tunnels.
    Look {
        /// Name of the frps.
        frps: String,
        /// Names of the tunnels.
        names: Vec<String>,
        /// They are expected to come up.
        claimed: bool,
    },
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
    /// Begin to probe, in HTTP/2 if `true`; the present verdict is kept until a streak changes it.
    StartProbe(ProbeKey, bool, Health),
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
    /// Move the clients of an frps that is in drain to others.
    StartMigration {
        /// Name of the frps.
        frps: String,
    },
    /// Stop moving them.
    StopMigration {
        /// Name of the frps.
        frps: String,
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

/// What happened to a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEvent {
    /// It serves.
    Live,
    /// It registered anew, or what it says has changed.
    Changed,
    /// It is gone.
    Gone,
    /// It was announced, and didn't come up in time.
    Lapsed,
    /// It claims what somebody else has.
    Conflict,
    /// It is live but serves nothing here, or not all it says counts.
    Fault,
}

impl TunnelEvent {
    /// As log and audit write it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Changed => "changed",
            Self::Gone => "gone",
            Self::Lapsed => "lapsed",
            Self::Conflict => "conflict",
            Self::Fault => "fault",
        }
    }
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
    /// Something happened to a tunnel.
    Tunnel {
        /// What.
        event: TunnelEvent,
        /// Name of its frps.
        frps: String,
        /// Its name.
        name: String,
        /// User of FRP.
        user: String,
        /// What it claims.
        domains: Vec<String>,
        /// How requests reach it: `takeover`, `vhost`, `none`.
        way: &'static str,
        /// More, for people.
        reason: Option<String>,
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
