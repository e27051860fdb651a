//! A client that comes back while its old connection is still there: frozen, or its network gone.
//!
//! frps believes in the old one for up to a minute, and refuses the new one meanwhile. We are in between: the old client's socket
//! is probed, and when nothing is acknowledged for two seconds the kernel ends it, so the relay ends and frps knows. The new login
//! waits for that. A client that answers probes stays: anybody may say its name. But who shows that it knows the token of the frps
//! where the old one is, if the gateway was told it, is believed at once.

use std::time::{Duration, Instant, SystemTime};

use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::sleep};
use tokio_rustls::server::TlsStream;

use super::{Client, keep_alive, rewind::Rewind};
use crate::{
    clock,
    control::relays::{Rivals, Successor},
};

/// Without an acknowledgement for so long, the old client is gone.
const UNACKNOWLEDGED: Duration = Duration::from_secs(2);
/// Longest wait of the new login.
const WAIT: Duration = Duration::from_secs(5);
/// How often it is looked whether the old one is gone.
const LOOK: Duration = Duration::from_millis(5);
/// A wait below this is none: the old connection was just ending.
const QUICK: Duration = Duration::from_millis(100);
/// Time for frps to forget what it believed.
const SETTLE: Duration = Duration::from_millis(50);

/// A client's connection that has a socket somewhere.
pub(super) trait Socket {
    /// The socket.
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<Rewind<TcpStream>> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0.stream()
    }
}

/// Waits until those that this login would replace are gone, at most [`WAIT`]. Returns whether one was cut for it.
pub(super) async fn outlive(client: &Client<'_>, login: &Successor<'_>) -> bool {
    let relays = client.relays();
    let Rivals { ids: rivals, cut } = relays.rivals(login, None, clock::now(), SystemTime::now());
    if rivals.is_empty() {
        return false;
    }
    let begun = Instant::now();
    while relays.has_any(&rivals) && begun.elapsed() < WAIT {
        sleep(LOOK).await;
    }
    let (waited, gone) = (begun.elapsed(), !relays.has_any(&rivals));
    if waited < QUICK && !cut {
        return false;
    }
    tracing::info!(
        listener = &*client.listener.name,
        ?waited,
        gone,
        by_token = cut,
        "client came back while its old connection was there"
    );
    if gone {
        sleep(SETTLE).await;
    }
    cut
}

/// From now on the kernel asks this peer every second, and gives it up when nothing is acknowledged.
pub(super) fn probe(stream: &TcpStream) {
    let often = TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1))
        .with_retries(2);
    let socket = SockRef::from(stream);
    let set =
        socket.set_tcp_keepalive(&often).and_then(|()| socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED)));
    if let Err(error) = set {
        tracing::debug!(%error, "cannot probe a client");
    }
}

/// It had its chance, and is still there.
pub(super) fn relax(stream: &TcpStream) {
    keep_alive(stream);
    if let Err(error) = SockRef::from(stream).set_tcp_user_timeout(None) {
        tracing::debug!(%error, "cannot stop probing a client");
    }
}

/// How long a probe goes on.
pub(super) const PROBE: Duration = WAIT;
