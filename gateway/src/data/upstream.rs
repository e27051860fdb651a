//! Connections to endpoints: opened with a deadline, kept warm, checked before they are used again.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use lb_algos::Tick;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::h2c::Carriers;
use super::io::{Elapsed, until};
use super::refuse;
use super::stream::Stream;
use crate::{snapshot::OpenConnection, telemetry::stats::Failure};

/// Idle connections kept per endpoint and worker.
const KEEP_PER_ENDPOINT: usize = 1024;

/// A connection to an endpoint, counted as open for as long as it lives.
#[derive(Debug)]
pub struct Link {
    /// The socket, or a stream of a shared connection.
    pub stream: Stream,
    /// Falls with it; `None` = the shared connection is counted, not the stream.
    pub open: Option<OpenConnection>,
}

/// A worker's idle connections, by endpoint number. The last one used is taken first: it is the least likely to have
/// been closed by the other side.
#[derive(Debug, Default)]
pub struct IdleConnections {
    /// Connections that carry many requests: idle, as long as there is room for one more.
    pub shared: Carriers,
    by_endpoint: RefCell<HashMap<u64, Vec<Idle>, foldhash::fast::RandomState>>,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    until: Tick,
}

impl IdleConnections {
    /// A connection to `endpoint` that is not known to be dead.
    ///
    /// Costs no system call while the reactor has seen nothing on the socket. `surely` asks the kernel: for requests
    /// that must not be sent twice, so that a close which has arrived already is not found out by sending.
    pub fn take(&self, endpoint: u64, now: Tick, surely: bool) -> Option<Link> {
        let mut by_endpoint = self.by_endpoint.borrow_mut();
        let list = by_endpoint.get_mut(&endpoint)?;
        while let Some(idle) = list.pop() {
            if idle.until > now && is_usable(&idle.link.stream, surely) {
                return Some(idle.link);
            }
        }
        None
    }

    /// Whether there is one, alive or not.
    #[must_use]
    pub fn has(&self, endpoint: u64) -> bool {
        self.by_endpoint.borrow().get(&endpoint).is_some_and(|list| !list.is_empty())
            || self.shared.has_room(endpoint)
    }

    /// How many there are, alive or not.
    #[must_use]
    pub fn count(&self, endpoint: u64) -> usize {
        self.by_endpoint.borrow().get(&endpoint).map_or(0, Vec::len)
    }

    /// Closes all connections to `endpoint`.
    pub fn close(&self, endpoint: u64) {
        self.by_endpoint.borrow_mut().remove(&endpoint);
        self.shared.close(endpoint);
    }

    /// Keeps a connection whose exchange is over until `until`.
    pub fn put(&self, endpoint: u64, link: Link, until: Tick) {
        let mut by_endpoint = self.by_endpoint.borrow_mut();
        let list = by_endpoint.entry(endpoint).or_default();
        if list.len() < KEEP_PER_ENDPOINT {
            list.push(Idle { link, until });
        }
    }

    /// Closes what is over, dead, or belongs to an endpoint that is gone.
    pub fn sweep(&self, now: Tick, is_known: impl Fn(u64) -> bool) {
        self.shared.sweep(now, &is_known);
        self.by_endpoint.borrow_mut().retain(|endpoint, list| {
            list.retain(|idle| idle.until > now && idle.link.stream.is_quiet());
            let of_tunnel =
                list.first().and_then(|idle| idle.link.open.as_ref().map(OpenConnection::endpoint));
            let of_tunnel = of_tunnel.filter(|endpoint| endpoint.id.tunnel.is_some());
            of_tunnel.map_or_else(|| is_known(*endpoint), |endpoint| !endpoint.is_gone()) && !list.is_empty()
        });
    }

    /// Closes everything.
    pub fn clear(&self) {
        self.shared.clear();
        self.by_endpoint.borrow_mut().clear();
    }
}

/// Whether a kept connection can carry another request.
fn is_usable(stream: &Stream, surely: bool) -> bool {
    if surely { stream.is_quiet() && stream.is_surely_quiet() } else { stream.is_quiet() }
}

/// Opens a connection to the first of `addresses` that takes it.
///
/// # Errors
/// [`Failure::ConnectTimeout`] or [`Failure::ConnectRefused`], with the cause of the last try.
pub async fn connect(
    addresses: &[SocketAddr],
    timeout: Duration,
    deadline: Option<Instant>,
) -> Result<TcpStream, (Failure, io::Error)> {
    let mut last = (Failure::ConnectRefused, io::Error::new(io::ErrorKind::NotFound, "name not resolved"));
    for address in addresses {
        let limit = Instant::now() + timeout;
        let limit = deadline.map_or(limit, |deadline| deadline.min(limit));
        match until(Some(limit), open(*address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = (Failure::ConnectRefused, error),
            Err(Elapsed) => last = (Failure::ConnectTimeout, io::ErrorKind::TimedOut.into()),
        }
    }
    Err(last)
}

/// A socket that sends to one of these addresses and hears of nobody else.
///
/// # Errors
/// None of them can be sent to from here, or there are no descriptors or ports left.
pub fn connect_datagrams(addresses: &[SocketAddr]) -> io::Result<UdpSocket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "name not resolved");
    for address in addresses {
        let any: SocketAddr = if address.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let connected = std::net::UdpSocket::bind(any).and_then(|socket| {
            socket.connect(address)?;
            socket.set_nonblocking(true)?;
            // The one descriptor of a visitor whose address may be forged: those of requests' endpoints are not for it.
            if refuse::is_scarce(&socket, refuse::Use::Visitor) {
                return Err(rustix::io::Errno::MFILE.into());
            }
            UdpSocket::from_std(socket)
        });
        match connected {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether a connect failed for want of our own descriptors, memory or ports: that says nothing about the endpoint.
#[must_use]
pub fn is_ours(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL)
    )
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The last descriptors are for other things than visitors.
    if refuse::is_scarce(&socket, refuse::Use::Endpoint) {
        return Err(rustix::io::Errno::MFILE.into());
    }
    socket.set_nodelay(true)?;
    socket.connect(address).await
}
