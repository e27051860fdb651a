//! Listening sockets: one per worker on the same address, so that the kernel spreads connections and no worker ever
//! hands one to another.

use std::{
    cell::Cell,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::Notify;

use super::{connection, sockets::Kind, worker::Worker};

const BACKLOG: i32 = 4096;
/// Bytes of datagrams that may wait for a worker.
const RECEIVE_BUFFER: usize = 2 * 1024 * 1024;
/// Pause after the system refuses to give us a connection (out of descriptors or memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a listener that closes goes on to take visitors, while more come than its queue can be emptied of.
const LAST_ACCEPTS: Duration = Duration::from_millis(100);

/// A bound socket that does not block.
#[derive(Debug)]
pub enum Bound {
    /// Connections are accepted on it.
    Stream(TcpListener),
    /// Datagrams come and go on it.
    Datagram(UdpSocket),
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(socket) => socket.as_fd(),
            Self::Datagram(socket) => socket.as_fd(),
        }
    }
}

/// Opens one socket per worker on `address`; port 0 is chosen once and shared. Returns the real address.
///
/// SO_REUSEPORT would let a second gateway of the same user share the port, and half of its visitors, unnoticed. So
/// unless the address is one we serve already (`ours`), it is tried without that option first.
///
/// # Errors
/// The address is taken by something else, not ours to bind, or doesn't exist here.
pub fn bind(
    address: SocketAddr,
    kind: Kind,
    workers: usize,
    ours: bool,
) -> io::Result<(SocketAddr, Vec<Bound>)> {
    if !ours && address.port() != 0 {
        let alone = new(address, kind)?;
        // For datagrams this would share the port.
        alone.set_reuse_address(kind == Kind::Stream)?;
        alone.bind(&address.into())?;
    }
    let (first, real) = open(address, kind)?;
    let mut sockets = vec![first];
    while sockets.len() < workers.max(1) {
        sockets.push(open(real, kind)?.0);
    }
    Ok((real, sockets))
}

/// Makes sockets for `workers` of those that are bound already. All of them, even if they are more than workers: what waits
/// in their queues is to be answered. If they are fewer, workers share some, each with a handle of its own; but none of those
/// for datagrams, of which a source's would then come to two workers.
///
/// # Errors
/// No descriptors are left, or there is no socket.
pub fn adopt(kind: Kind, sockets: Vec<OwnedFd>, workers: usize) -> io::Result<Vec<Bound>> {
    if sockets.is_empty() {
        return Err(io::Error::other("no socket was given"));
    }
    let given = sockets.len();
    let mut bound = Vec::with_capacity(given.max(workers));
    match kind {
        Kind::Stream => {
            let mut listeners: Vec<_> = sockets.into_iter().map(TcpListener::from).collect();
            for shared in 0..workers.saturating_sub(given) {
                listeners.push(listeners[shared].try_clone()?);
            }
            for listener in listeners {
                listener.set_nonblocking(true)?;
                bound.push(Bound::Stream(listener));
            }
        }
        Kind::Datagram => {
            for socket in sockets.into_iter().map(UdpSocket::from) {
                socket.set_nonblocking(true)?;
                bound.push(Bound::Datagram(socket));
            }
        }
    }
    Ok(bound)
}

fn new(address: SocketAddr, kind: Kind) -> io::Result<Socket> {
    let (kind, protocol) = match kind {
        Kind::Stream => (Type::STREAM, Protocol::TCP),
        Kind::Datagram => (Type::DGRAM, Protocol::UDP),
    };
    Socket::new(Domain::for_address(address), kind, Some(protocol))
}

fn open(address: SocketAddr, kind: Kind) -> io::Result<(Bound, SocketAddr)> {
    let socket = new(address, kind)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    match kind {
        Kind::Stream => socket.set_reuse_address(true)?,
        // As far as the system allows; the usual 208 KiB are some 100 datagrams.
        Kind::Datagram => socket.set_recv_buffer_size(RECEIVE_BUFFER)?,
    }
    socket.bind(&address.into())?;
    let real = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(match kind {
        Kind::Stream => {
            socket.listen(BACKLOG)?;
            (Bound::Stream(socket.into()), real)
        }
        Kind::Datagram => (Bound::Datagram(socket.into()), real),
    })
}

/// Tells an accept loop to end.
#[derive(Debug, Default)]
pub struct Stop {
    notify: Notify,
    stopped: Cell<Option<Stopped>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// The socket is closed: first take what waits, until then.
    Closing(Instant),
    /// Another process accepts on the same socket.
    Left,
}

impl Stop {
    /// Ends the loop after it has answered what waits in the accept queue.
    pub fn stop(&self) {
        self.stopped.set(Some(Stopped::Closing(Instant::now() + LAST_ACCEPTS)));
        self.notify.notify_waiters();
    }

    /// Ends the loop at once: what waits in the accept queue is another process's.
    pub fn leave(&self) {
        self.stopped.set(Some(Stopped::Left));
        self.notify.notify_waiters();
    }
}

/// Accepts until told to stop. Then takes what the kernel has already completed, so that closing the socket resets
/// nobody who was let in.
pub async fn accept(worker: Rc<Worker>, socket: TcpListener, slot: usize, stop: Rc<Stop>) {
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, "listener unusable");
            return;
        }
    };
    let mut last_complaint: Option<Instant> = None;
    loop {
        let accepted = match stop.stopped.get() {
            Some(Stopped::Left) => return,
            // Where visitors come faster than the queue empties, somebody has to be the last.
            Some(Stopped::Closing(until)) if Instant::now() >= until => return,
            // One turn of the reactor, then whatever is there.
            Some(Stopped::Closing(_)) => {
                match tokio::time::timeout(Duration::from_millis(1), socket.accept()).await {
                    Ok(accepted) => accepted,
                    Err(_elapsed) => return,
                }
            }
            None => tokio::select! {
                biased;
                () = stop.notify.notified() => continue,
                accepted = socket.accept() => accepted,
            },
        };
        match accepted {
            Ok((stream, peer)) => connection::start(&worker, stream, peer, slot),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if last_complaint.is_none_or(|at| at.elapsed() > Duration::from_secs(5)) {
                    tracing::error!(
                        %error,
                        "cannot accept connections; raise LimitNOFILE or lower limits.connections"
                    );
                    last_complaint = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_somebody_listens_on_is_refused_unless_it_is_ours() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        for kind in [Kind::Stream, Kind::Datagram] {
            let (address, sockets) = bind(any, kind, 2, false).expect("a free port");
            assert_eq!(sockets.len(), 2);
            let taken = bind(address, kind, 2, false).expect_err("our own sockets listen there");
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
            bind(address, kind, 2, true).expect("sharing with ourselves is meant");
            drop(sockets);
            bind(address, kind, 1, false).expect("free again");
        }
    }

    #[test]
    fn sockets_that_were_given_serve_any_number_of_workers() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        for kind in [Kind::Stream, Kind::Datagram] {
            for (given, workers, shared) in [(2, 2, 2), (1, 3, 3), (2, 5, 5), (3, 1, 3)] {
                let (address, sockets) = bind(any, kind, given, false).expect("a free port");
                let handles: Vec<_> =
                    sockets.iter().map(|one| one.as_fd().try_clone_to_owned().expect("a handle")).collect();
                let adopted = adopt(kind, handles, workers).expect("adopted");
                let expected = if kind == Kind::Stream { shared } else { given };
                assert_eq!(adopted.len(), expected, "{given} sockets, {workers} workers");
                for one in &adopted {
                    let at = socket2::SockRef::from(one).local_addr().expect("bound").as_socket();
                    assert_eq!(at, Some(address));
                }
            }
            adopt(kind, Vec::new(), 1).expect_err("nothing to listen on");
        }
    }
}
