//! Relayed connections that pass to another process, as the two sockets and what the relay knows beside them.
//!
//! Between two reads a relay has nothing but bytes that it has read and not yet written; those go along. So there is nothing to wait
//! for: wherever it is, it stops, offers itself, and ends without a word to either side once the other process has it. If that
//! refuses, or dies before it has said so, the relay goes on as if nothing had been.

use std::{io, net::TcpStream as StdStream, os::fd::OwnedFd, rc::Rc, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::spawn_local,
};

use super::pump;
use crate::{
    clock,
    control::relays::{Carried, Registered},
    data::{
        connection::{self, Connection},
        refuse,
        worker::Worker,
    },
    frp_wire::{First, Records},
    snapshot::{FrpPart, FrpsLive, Listener, Snapshot},
};

/// What a relay knows of its connection, beside its registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Which wire it is.
    pub first: First,
    /// The beginning of frps's answer to the login; `None` = there is nothing to learn from it any more.
    pub answer: Option<Vec<u8>>,
    /// The client's TLS records so far; `None` = likewise.
    pub records: Option<Records>,
    /// Read from the client, not yet written to frps.
    pub up: Vec<u8>,
    /// Read from frps, not yet written to the client.
    pub down: Vec<u8>,
    /// It is being found out whether the client is still there.
    pub probing: bool,
}

/// A relayed connection as it is told to another process; its sockets come beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Handed {
    /// Its registration.
    pub relay: Carried,
    /// Where its relay stopped.
    pub flow: Flow,
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The other process has it.
    Taken,
    /// The other process doesn't want it.
    Refused,
}

/// A relay that has stopped and waits for a verdict. Dropping this has it go on.
#[derive(Debug)]
pub struct Offer {
    /// What there is to know.
    pub handed: Handed,
    /// A further handle on the client's socket.
    pub client: OwnedFd,
    /// A further handle on the socket to frps.
    pub upstream: OwnedFd,
    /// Where the verdict goes.
    pub verdict: oneshot::Sender<Verdict>,
}

/// Where a worker's relays offer themselves: nowhere, until the process is replaced. As many at a time as the channel has room for.
pub type Handing = watch::Sender<Option<mpsc::Sender<Offer>>>;

/// Waits for an invitation; never comes back where there is none.
pub(super) async fn invited(handing: &Handing) -> mpsc::OwnedPermit<Offer> {
    let mut asked = handing.subscribe();
    let to = match asked.wait_for(Option::is_some).await {
        Ok(to) => to.clone(),
        Err(_gone) => None,
    };
    if let Some(to) = to
        && let Ok(permit) = to.reserve_owned().await
    {
        return permit;
    }
    std::future::pending().await
}

/// Offers a relay; `None` when it is to go on, and may be offered again where it wasn't refused.
pub(super) async fn offer(
    permit: mpsc::OwnedPermit<Offer>,
    handed: Handed,
    client: &TcpStream,
    upstream: &TcpStream,
) -> Option<Verdict> {
    let handle = |socket: &TcpStream| std::os::fd::AsFd::as_fd(socket).try_clone_to_owned();
    let (client, upstream) = match handle(client).and_then(|client| Ok((client, handle(upstream)?))) {
        Ok(both) => both,
        Err(error) => {
            tracing::warn!(%error, "a client can't be handed on");
            return Some(Verdict::Refused);
        }
    };
    let (verdict, heard) = oneshot::channel();
    permit.send(Offer { handed, client, upstream, verdict });
    heard.await.ok()
}

/// A connection that came from another process, on its way to a worker.
#[derive(Debug)]
pub struct Parcel {
    /// What is known of it.
    pub handed: Handed,
    /// The client's socket.
    pub client: OwnedFd,
    /// The socket to frps.
    pub upstream: OwnedFd,
    /// Where it is told that it was taken, and how to have it relayed. Dropped: it was not.
    pub taken: oneshot::Sender<Go>,
}

/// To be rung when the process that had it knows that it was taken. Dropped: it is closed.
pub type Go = oneshot::Sender<()>;

/// Takes a connection over, if its listener has room and its frps is configured.
pub fn unpack(worker: &Rc<Worker>, parcel: Parcel) {
    let Parcel { handed, client, upstream, taken } = parcel;
    let snapshot = worker.snapshot();
    let place = place(&snapshot, &handed.relay);
    let sockets = place.and_then(|place| Ok((place, socket(client)?, socket(upstream)?)));
    let ((listener, part, frps), client, upstream) = match sockets {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!(listener = handed.relay.listener, frps = handed.relay.frps, %error, "client not taken over");
            return;
        }
    };
    let registered = part.relays.adopt(&handed.relay, &frps, part.together, clock::now());
    let (peer, slot) = (handed.relay.peer, listener.slot);
    let (go, told) = oneshot::channel();
    connection::enter(worker, listener, peer, slot, |connection| {
        connection.worker.put_in_background(&connection.presence);
        spawn_local(resume(connection, part, handed, (client, upstream), registered, told)).abort_handle()
    });
    drop(taken.send(go));
}

type Place = (Arc<Listener>, Arc<FrpPart>, Arc<FrpsLive>);

fn place(snapshot: &Snapshot, relay: &Carried) -> io::Result<Place> {
    let no = |why: &str| io::Error::other(why.to_owned());
    let listener = snapshot.listeners.iter().flatten().find(|known| *known.name == *relay.listener);
    let (listener, part) = listener
        .and_then(|listener| Some((listener, listener.frp.as_ref()?)))
        .ok_or_else(|| no("its listener is not configured any more"))?;
    let frps = snapshot.frps.iter().find(|known| *known.live.name == *relay.frps);
    let frps = frps.ok_or_else(|| no("its frps is not configured any more"))?;
    if !connection::has_room(listener) {
        return Err(no("limits.connections reached"));
    }
    Ok((Arc::clone(listener), Arc::clone(part), Arc::clone(&frps.live)))
}

fn socket(given: OwnedFd) -> io::Result<TcpStream> {
    let stream = StdStream::from(given);
    stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(stream)?;
    if refuse::is_scarce(&stream, refuse::Use::Endpoint) {
        return Err(io::Error::other("descriptors run out: raise LimitNOFILE or lower limits.connections"));
    }
    Ok(stream)
}

async fn resume(
    connection: Connection,
    part: Arc<FrpPart>,
    handed: Handed,
    (client, upstream): (TcpStream, TcpStream),
    registered: Registered,
    told: oneshot::Receiver<()>,
) {
    if told.await.is_ok() {
        pump::resume(&connection, &part.relays, handed, (client, upstream), registered).await;
    }
}
