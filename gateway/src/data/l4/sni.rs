//! A connection of a `tls_passthrough` listener: the ClientHello is read, the server name in it decides, and everything goes
//! on as it came.

use std::{
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::{
    carry::{self, Errand, Resetting},
    client_hello::{self, Alert, Parsed},
    tally::Tally,
};
use crate::{
    clock,
    data::{
        buffer::{Buffer, SMALL},
        connection::Connection,
        hold::Away,
        io::until,
        worker::Worker,
    },
    error::Refusal,
    snapshot::{Found, Listener, Snapshot},
    telemetry::stats::End,
};

/// Longest wait for a visitor to take an alert, and to close after it.
const LINGER: Duration = Duration::from_millis(500);

/// Serves a connection to its end.
pub async fn serve(connection: Connection, stream: TcpStream) {
    let worker = Rc::clone(&connection.worker);
    let listener = Arc::clone(connection.listener());
    let mut stream = stream;
    let begun = Instant::now();
    let mut buffer = Buffer::default();
    connection.presence.idle.set(true);
    let read = read_hello(&worker, &listener, &mut stream, &mut buffer).await;
    connection.presence.idle.set(false);
    let failed = match read {
        Ok(name) => return carry_from(connection, listener, stream, name, buffer, begun).await,
        Err(failed) => failed,
    };
    let mut tally = Tally::new(&connection, &listener, begun);
    let mut visitor = Resetting::new(stream);
    match failed {
        NoHello::Gone => tally.end = Some(End::VisitorReset),
        NoHello::Late => tally.refuse(Refusal::HeadTimeout, "no whole ClientHello in time"),
        NoHello::Foreign => tally.refuse(Refusal::BadRequest(400), "not TLS"),
        NoHello::Broken(alert) => {
            tally.refuse(Refusal::BadRequest(400), "broken ClientHello");
            say(&mut visitor, alert).await;
        }
    }
    worker.buffers.give_back(buffer);
}

/// Serves a connection whose ClientHello is in `opening` as one of `listener`, which knows the name.
pub async fn carry(
    connection: Connection,
    listener: Arc<Listener>,
    stream: TcpStream,
    name: Option<String>,
    opening: Buffer,
) {
    carry_from(connection, listener, stream, name, opening, Instant::now()).await;
}

async fn carry_from(
    connection: Connection,
    listener: Arc<Listener>,
    stream: TcpStream,
    name: Option<String>,
    opening: Buffer,
    begun: Instant,
) {
    let worker = Rc::clone(&connection.worker);
    let mut tally = Tally::new(&connection, &listener, begun);
    let mut visitor = Resetting::new(stream);
    tally.name.clone_from(&name);
    let asked = name.as_deref().unwrap_or_default();
    let find = |snapshot: &Snapshot, tally: &mut Tally<'_>| {
        let present = snapshot.listeners.get(listener.slot).and_then(Option::as_ref);
        find(&worker, present.unwrap_or(&listener), snapshot, asked, tally)
    };
    carry::serve(&connection, asked, &mut visitor, opening, &mut tally, find).await;
    refused(&tally, &mut visitor).await;
}

/// Whether a listener has, or had a moment ago, a place for connections that ask for this name (empty: for none).
#[must_use]
pub fn is_known(worker: &Worker, listener: &Listener, name: &str) -> bool {
    is_known_in(&worker.snapshot(), listener, name)
}

/// As [`is_known`], by this snapshot.
#[must_use]
pub fn is_known_in(snapshot: &Snapshot, listener: &Listener, name: &str) -> bool {
    listener.router.find_tls(&snapshot.tunnels, name).is_some()
        || snapshot.tunnels.is_tls_away(name, clock::now())
}

/// Why there is no ClientHello.
#[derive(Debug)]
pub enum NoHello {
    /// The visitor went away.
    Gone,
    /// It took longer than `timeouts.header`.
    Late,
    /// That isn't TLS.
    Foreign,
    /// It is broken; the alert says how.
    Broken(Alert),
}

/// Reads until the ClientHello is whole: at most [`client_hello::LONGEST`] bytes, within `timeouts.header` of the connection. What was
/// read is in `buffer` afterwards. Tells the name that is asked for.
///
/// # Errors
/// See [`NoHello`].
pub async fn read_hello(
    worker: &Worker,
    listener: &Listener,
    stream: &mut TcpStream,
    buffer: &mut Buffer,
) -> Result<Option<String>, NoHello> {
    let deadline = Some(Instant::now() + listener.timeouts.header);
    loop {
        match until(deadline, poll_fn(|cx| stream.poll_read_ready(cx))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(NoHello::Gone),
            Err(_elapsed) => return Err(NoHello::Late),
        }
        if buffer.capacity() == 0 {
            *buffer = worker.buffers.small();
        } else if buffer.is_full() {
            let larger = if buffer.capacity() <= SMALL {
                worker.buffers.large()
            } else {
                Buffer::with_capacity(client_hello::LONGEST)
            };
            let smaller = std::mem::replace(buffer, larger);
            buffer.append(smaller.filled());
            worker.buffers.give_back(smaller);
        }
        match until(deadline, poll_fn(|cx| buffer.poll_fill(cx, stream))).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return Err(NoHello::Gone),
            Err(_elapsed) => return Err(NoHello::Late),
        }
        match client_hello::parse(buffer.filled()) {
            Parsed::Incomplete => {}
            Parsed::Hello { name } => return Ok(name),
            Parsed::Foreign => return Err(NoHello::Foreign),
            Parsed::Broken(alert) => return Err(NoHello::Broken(alert)),
        }
    }
}

/// The pool for a name (empty: none), and which frps are known to have it.
fn find(
    worker: &Worker,
    listener: &Listener,
    snapshot: &Snapshot,
    name: &str,
    tally: &mut Tally<'_>,
) -> Result<Errand, Away> {
    let away = |refusal| Away::new(refusal, "");
    let mut gate = None;
    let pool = match listener.router.find_tls(&snapshot.tunnels, name) {
        Some(Found::Route(route)) => {
            tally.route = Some(route.name.to_string());
            gate.clone_from(&route.gate);
            let split = route.split(|below| worker.rng.borrow_mut().below(below));
            &split.ok_or_else(|| away(Refusal::NoEndpoint))?.pool
        }
        Some(Found::Tunnels(tunnels)) => {
            tally.route = Some(snapshot.tunnels.route.name.to_string());
            &tunnels.split.pool
        }
        None => match &listener.pool {
            Some(pool) => pool,
            None if snapshot.tunnels.is_tls_away(name, clock::now()) => {
                return Err(away(Refusal::TunnelAway));
            }
            None => return Err(away(Refusal::NoRoute)),
        },
    };
    let mut holders = Vec::new();
    // Whoever is in a pool of tunnels has the tunnel.
    if !pool.of_tunnels {
        snapshot.tunnels.tls_holders(name, |frps| holders.push(frps));
    }
    Ok(Errand { pool: Arc::clone(pool), holders, gate })
}

/// Tells the visitor, in the words of TLS, why nobody serves it.
async fn refused(tally: &Tally<'_>, visitor: &mut Resetting) {
    match tally.refusal {
        Some((Refusal::NoRoute | Refusal::NoTunnel, _)) => say(visitor, Alert::UnrecognizedName).await,
        Some(_) => say(visitor, Alert::InternalError).await,
        None => {}
    }
}

/// Sends an alert and closes.
async fn say(visitor: &mut Resetting, alert: Alert) {
    let told = timeout(LINGER, async {
        visitor.stream.write_all(&alert.record()).await?;
        visitor.stream.shutdown().await?;
        // What it still sends must not reset the alert away.
        let mut sink = [0; 1024];
        while tokio::io::AsyncReadExt::read(&mut visitor.stream, &mut sink).await? > 0 {}
        Ok::<(), std::io::Error>(())
    });
    match told.await {
        Ok(Ok(())) | Err(_) => visitor.ends_well(),
        Ok(Err(error)) => tracing::debug!(%error, "the visitor left before the alert"),
    }
}
