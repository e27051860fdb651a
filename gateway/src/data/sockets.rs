//! The listening sockets of the process, by what they are for: those it was given at start (by the process before it,
//! or by systemd), and those it would give on.
//!
//! Closing one of several sockets that share an address resets whoever waits in its accept queue, and so does closing
//! the last handle on a socket. So an upgrade binds nothing anew: the very same sockets go on, as further handles on
//! them. For the same reason whoever closes a listener lets go of it here first ([`Sockets::release`]): the last handle
//! is then the accept loop's, which empties the queue before it closes.
//!
//! Knows nothing of protocols: whatever is bound to an address, stream or datagram, is held and given on alike.

use std::{
    collections::BTreeMap,
    fmt, io, mem,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use frp_gateway_config::model::Protocol;
use serde::{Deserialize, Serialize};

/// Name of the admin listener's socket.
pub const ADMIN: &str = "admin";
/// Name of the plugin listener's socket.
pub const PLUGIN: &str = "plugin";
/// What stands before the name of a visitor's listener.
const LISTENER: &str = "listener:";

/// Name of the sockets of the visitors' listener `name`.
#[must_use]
pub fn listener(name: &str) -> String {
    format!("{LISTENER}{name}")
}

/// What goes over a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Connections to accept.
    Stream,
    /// Datagrams.
    Datagram,
}

impl Kind {
    /// What goes over the sockets of a listener.
    #[must_use]
    pub const fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http | Protocol::Https | Protocol::Tcp | Protocol::TlsPassthrough | Protocol::Frp => {
                Self::Stream
            }
            Protocol::Udp => Self::Datagram,
        }
    }
}

/// What a group of sockets is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// What it is for: [`ADMIN`], [`PLUGIN`], or that of [`listener`]; as systemd names it when it comes from there.
    pub name: String,
    /// What goes over it.
    pub kind: Kind,
    /// The address it was configured with, perhaps with port 0; `None` when it comes from systemd.
    pub bind: Option<SocketAddr>,
    /// The address it really has.
    pub address: SocketAddr,
}

impl Label {
    fn is(&self, name: &str, kind: Kind, bind: SocketAddr) -> bool {
        self.kind == kind
            && match self.bind {
                Some(known) => self.name == name && known == bind,
                None => self.name == name.strip_prefix(LISTENER).unwrap_or(name),
            }
    }

    fn is_at(&self, kind: Kind, bind: SocketAddr) -> bool {
        self.kind == kind && self.address == bind
    }

    /// systemd's `ListenStream=80` is `[::]:80` for both families.
    fn covers(&self, kind: Kind, bind: SocketAddr) -> bool {
        let any = |ip: IpAddr| ip.is_unspecified();
        self.kind == kind
            && self.bind.is_none()
            && self.address.port() == bind.port()
            && self.address.is_ipv6()
            && any(self.address.ip())
            && any(bind.ip())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.address)
    }
}

/// Sockets with one purpose: one per worker on the same address, or fewer.
#[derive(Debug)]
pub struct Group {
    /// What they are.
    pub label: Label,
    /// Handles on them. No two are on the same socket, as far as [`Sockets::hold`] is concerned.
    pub sockets: Vec<OwnedFd>,
}

/// All of them. Clones are handles on the same. Not for the request path: it locks.
#[derive(Debug, Clone, Default)]
pub struct Sockets(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    given: Vec<Group>,
    held: BTreeMap<String, Group>,
}

impl Sockets {
    /// Those that the process was started with.
    #[must_use]
    pub fn given(given: Vec<Group>) -> Self {
        Self(Arc::new(Mutex::new(Inner { given, held: BTreeMap::new() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was given for this purpose, if anything: by name and configured address, else by real address
    /// (a listener that was renamed). Each is taken once.
    #[must_use]
    pub fn take(&self, name: &str, kind: Kind, bind: SocketAddr) -> Option<Group> {
        let given = &mut self.inner().given;
        let find = |wanted: &dyn Fn(&Label) -> bool| given.iter().position(|group| wanted(&group.label));
        let index = find(&|label| label.is(name, kind, bind))
            .or_else(|| find(&|label| label.is_at(kind, bind)))
            .or_else(|| find(&|label| label.covers(kind, bind)))?;
        Some(given.swap_remove(index))
    }

    /// Lets go of what was given and nobody took; what that was.
    #[must_use]
    pub fn drop_untaken(&self) -> Vec<Label> {
        mem::take(&mut self.inner().given).into_iter().map(|group| group.label).collect()
    }

    /// Remembers `sockets`, by further handles on them, to be given on; in place of what had that name. Several
    /// handles on one socket count as one.
    ///
    /// # Errors
    /// No more handles can be had (descriptors); nothing has that name then.
    pub fn hold<'a>(
        &self,
        label: Label,
        sockets: impl Iterator<Item = &'a (impl AsFd + 'a)>,
    ) -> io::Result<()> {
        let mut group = Group { label, sockets: Vec::new() };
        let mut known = Vec::new();
        let copied = sockets.into_iter().try_for_each(|socket| {
            let inode = rustix::fs::fstat(socket)?.st_ino;
            if !known.contains(&inode) {
                known.push(inode);
                group.sockets.push(socket.as_fd().try_clone_to_owned()?);
            }
            Ok(())
        });
        let held = &mut self.inner().held;
        match copied {
            Ok(()) => drop(held.insert(group.label.name.clone(), group)),
            Err(_) => drop(held.remove(&group.label.name)),
        }
        copied
    }

    /// Forgets what has that name. To be called before it is closed.
    pub fn release(&self, name: &str) {
        drop(self.inner().held.remove(name));
    }

    /// Forgets everything that is held.
    pub fn release_all(&self) {
        self.inner().held.clear();
    }

    /// Further handles on everything that is held.
    ///
    /// # Errors
    /// No more handles can be had (descriptors).
    pub fn share(&self) -> io::Result<Vec<Group>> {
        let copy = |group: &Group| {
            let sockets = group.sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
            Ok(Group { label: group.label.clone(), sockets })
        };
        self.inner().held.values().map(copy).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn bound(name: &str, bind: &str) -> (Group, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let bind = (!bind.is_empty()).then(|| bind.parse().unwrap());
        let label = Label { name: name.into(), kind: Kind::Stream, bind, address };
        (Group { label, sockets: vec![socket.into()] }, address)
    }

    #[test]
    fn what_was_given_is_found_by_name_then_by_address_and_once_only() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (web, at) = bound("listener:web", "127.0.0.1:0");
        let (other, elsewhere) = bound("listener:other", "127.0.0.1:0");
        let sockets = Sockets::given(vec![web, other]);
        assert!(sockets.take("listener:web", Kind::Datagram, any).is_none(), "another kind");
        let taken = sockets.take("listener:web", Kind::Stream, any).unwrap();
        assert_eq!(taken.label.address, at);
        assert!(sockets.take("listener:web", Kind::Stream, any).is_none(), "taken already");
        let taken = sockets.take("listener:renamed", Kind::Stream, elsewhere).unwrap();
        assert_eq!(taken.label.name, "listener:other");
        assert!(sockets.drop_untaken().is_empty());
    }

    #[test]
    fn a_listener_that_moved_leaves_its_old_socket() {
        let (web, _) = bound("listener:web", "127.0.0.1:8080");
        let sockets = Sockets::given(vec![web]);
        assert!(sockets.take("listener:web", Kind::Stream, "127.0.0.1:8081".parse().unwrap()).is_none());
        assert_eq!(sockets.drop_untaken().len(), 1);
    }

    #[test]
    fn systemds_sockets_are_found_by_their_name_by_address_and_for_both_families() {
        let (named, _) = bound("web", "");
        let (unnamed, at) = bound("unknown", "");
        let sockets = Sockets::given(vec![named, unnamed]);
        let configured: SocketAddr = "0.0.0.0:80".parse().unwrap();
        assert!(sockets.take("listener:other", Kind::Stream, configured).is_none());
        assert!(sockets.take("listener:web", Kind::Stream, configured).is_some(), "by name");
        assert!(sockets.take("listener:other", Kind::Stream, at).is_some(), "by address");
        let (mut both, _) = bound("unknown", "");
        both.label.address = "[::]:80".parse().unwrap();
        let sockets = Sockets::given(vec![both]);
        assert!(sockets.take("listener:web", Kind::Stream, "10.0.0.1:80".parse().unwrap()).is_none());
        assert!(sockets.take("listener:web", Kind::Stream, configured).is_some(), "both families");
    }

    #[test]
    fn several_handles_on_one_socket_are_given_on_as_one() {
        let sockets = Sockets::default();
        let (group, address) = bound("listener:web", "127.0.0.1:0");
        let again = group.sockets[0].try_clone().unwrap();
        let (other, _) = bound("listener:web", "127.0.0.1:0");
        let all = [&group.sockets[0], &again, &other.sockets[0]];
        sockets.hold(group.label.clone(), all.into_iter()).unwrap();
        let shared = sockets.share().unwrap();
        assert_eq!((shared.len(), shared[0].sockets.len(), shared[0].label.address), (1, 2, address));
        sockets.release("listener:web");
        assert!(sockets.share().unwrap().is_empty());
    }
}
