//! Who comes to a pool: a request, or a connection.

use std::net::IpAddr;

use lb_algos::Tick;

use crate::{
    data::{affinity::key, attempts, auth},
    http1::RequestHead,
    snapshot::{Listener, Pool, Snapshot},
};

/// One of them, and the state it meets.
#[derive(Clone, Copy)]
pub(super) struct Visit<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) listener: &'a Listener,
    pub(super) peer: IpAddr,
    pub(super) now: Tick,
    pub(super) what: What<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum What<'a> {
    Request {
        head: &'a RequestHead,
        wire: &'a [u8],
        /// Lower case, without a dot at its end.
        host: &'a str,
    },
    Connection {
        /// The server that its TLS asks for; empty = none.
        name: &'a str,
    },
}

impl Visit<'_> {
    /// Host or server name, and path, under which absent tunnels are remembered.
    pub(super) fn scope(&self) -> (&str, &[u8]) {
        match self.what {
            What::Request { head, wire, host } => (host, head.path.of(wire)),
            What::Connection { name } => (name, b"/"),
        }
    }

    /// The frps that list a tunnel for it.
    pub(super) fn holders(&self, pool: &Pool) -> Vec<u32> {
        let mut holders = Vec::new();
        // Whoever is in a pool of tunnels has the tunnel.
        if pool.of_tunnels || self.snapshot.tunnels.is_empty() {
            return holders;
        }
        match self.what {
            What::Request { head, wire, host } => {
                self.snapshot.tunnels.holders(host, head.path.of(wire), |frps| holders.push(frps));
            }
            What::Connection { name: "" } => {}
            What::Connection { name } => self.snapshot.tunnels.tls_holders(name, |frps| holders.push(frps)),
        }
        holders
    }

    /// Members that want other credentials.
    pub(super) fn refusing(&self, pool: &Pool) -> Vec<usize> {
        let What::Request { head, wire, .. } = self.what else { return Vec::new() };
        let refuses =
            |index: &usize| pool.members[*index].auth().is_some_and(|auth| !auth::admits(auth, head, wire));
        (0..pool.members.len()).filter(refuses).collect()
    }

    /// What it is hashed by.
    pub(super) fn key(&self, pool: &Pool) -> Option<u64> {
        match self.what {
            What::Request { head, wire, .. } => {
                attempts::key_of(pool, (self.listener, self.peer), head, wire)
            }
            What::Connection { .. } => key::by_address(pool, || self.peer),
        }
    }

    /// Whether it matters which tunnels are known: a connection without a name goes to whoever is there.
    pub(super) fn goes_by_tunnels(&self) -> bool {
        let named = match self.what {
            What::Request { .. } => true,
            What::Connection { name } => !name.is_empty(),
        };
        named && !self.snapshot.tunnels.is_empty()
    }
}
