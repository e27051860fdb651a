//! A visitor's connection: waits for requests, runs one exchange after the other, ends well.
//!
//! While it waits it holds a socket and this task, nothing else.

use std::{
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use frp_gateway_config::model::Protocol;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::{AbortHandle, spawn_local},
    time::timeout,
};

use super::{
    buffer::{Buffer, SMALL},
    frp, h2, http, https,
    io::until,
    l4::{self, proxy_in},
    refuse,
    stream::Stream,
    worker::{Presence, Worker},
};
use crate::{
    snapshot::{Listener, Snapshot},
    tls::ClientIdentity,
};

/// How long and how much a closing connection is read on, so that an answer the visitor has not read yet isn't reset
/// away by bytes still on their way to us.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024;

/// What comes after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The connection may carry another request.
    KeepAlive,
    /// Close; the visitor has read, or will read, everything.
    Close,
    /// Close, but let the visitor finish sending first.
    Linger,
    /// Reset: what was sent must not look whole.
    Reset,
}

/// A visitor's connection as its exchanges see it.
#[derive(Debug)]
pub struct Connection {
    /// The thread it lives on.
    pub worker: Rc<Worker>,
    /// Address of the visitor, or of the proxy before us; by the PROXY protocol header where one was due.
    pub peer: IpAddr,
    /// What the drain knows of us.
    pub presence: Rc<Presence>,
    /// Who the connection is from.
    from: SocketAddr,
    /// The address that was connected to, as a PROXY protocol header told.
    to: Option<SocketAddr>,
    slot: usize,
    number: u64,
    listener: Arc<Listener>,
    /// The name that its handshake asked for, where that bounds what may be asked for over it; empty = none.
    asked: Option<Box<str>>,
}

impl Connection {
    /// The listener it came through, as it was then.
    #[must_use]
    pub fn listener(&self) -> &Arc<Listener> {
        &self.listener
    }

    /// Number of the listener it came through.
    #[must_use]
    pub const fn slot(&self) -> usize {
        self.slot
    }

    /// Who connected, and to which address.
    #[must_use]
    pub fn addresses(&self, stream: &TcpStream) -> (SocketAddr, SocketAddr) {
        let own = || stream.local_addr().unwrap_or_else(|_gone| SocketAddr::from(([0, 0, 0, 0], 0)));
        (self.from, self.to.unwrap_or_else(own))
    }

    /// Whose certificate the visitor has shown; `None` = it has shown none.
    #[must_use]
    pub fn client(&self) -> Option<&Arc<ClientIdentity>> {
        self.presence.client.get().map(|(_, client)| client)
    }

    /// The visitor has shown this certificate. Once.
    pub fn has_shown(&self, client: Arc<ClientIdentity>) {
        let known = self.presence.client.set((self.peer, client));
        debug_assert!(known.is_ok(), "a connection has one handshake");
    }

    /// The name that its handshake asked for (empty: none), where that bounds the hosts of its requests.
    #[must_use]
    pub fn asked_for(&self) -> Option<&str> {
        self.asked.as_deref()
    }

    /// Requests are bound to the name that its handshake asked for.
    pub fn is_bound_to(&mut self, asked: Option<&str>) {
        self.asked = Some(asked.unwrap_or_default().into());
    }

    fn is_from(&mut self, from: SocketAddr) {
        self.from = SocketAddr::new(from.ip().to_canonical(), from.port());
        self.peer = self.from.ip();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.listener.stats.of(self.worker.id).open.dec();
        self.worker.leave(self.number);
    }
}

/// Takes over a freshly accepted connection.
pub fn start(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, slot: usize) {
    let Some(listener) = listener_of(&worker.snapshot(), slot) else { return };
    let stats = listener.stats.of(worker.id);
    stats.accepted.inc();
    if !has_room(&listener) {
        refuse::busy(worker, stream, &listener, "limits.connections reached");
        return;
    }
    if refuse::is_scarce(&stream, refuse::Use::Visitor) {
        refuse::busy(
            worker,
            stream,
            &listener,
            "descriptors run out: raise LimitNOFILE or lower limits.connections",
        );
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    enter(worker, listener, peer, slot, |connection| {
        if proxy_in::is_due(&connection.listener, connection.peer) {
            return spawn_local(after_header(connection, stream)).abort_handle();
        }
        match connection.listener.protocol {
            Protocol::Http if connection.listener.http2.is_some() => {
                spawn_local(either(connection, stream.into())).abort_handle()
            }
            Protocol::Http => spawn_local(serve(connection, stream.into(), Buffer::default())).abort_handle(),
            Protocol::Tcp => spawn_local(l4::tcp::serve(connection, stream)).abort_handle(),
            Protocol::TlsPassthrough => spawn_local(l4::sni::serve(connection, stream)).abort_handle(),
            Protocol::Frp => spawn_local(frp::serve(connection, stream, peer, Vec::new())).abort_handle(),
            Protocol::Https => spawn_local(https::serve(connection, stream)).abort_handle(),
            // Datagrams have no connections.
            Protocol::Udp => spawn_local(async move { drop((connection, stream)) }).abort_handle(),
        }
    });
}

/// Reads the header that is due, then serves the connection as that of the visitor it names.
async fn after_header(mut connection: Connection, mut stream: TcpStream) {
    let (worker, listener) = (Rc::clone(&connection.worker), Arc::clone(&connection.listener));
    connection.presence.idle.set(true);
    let told = proxy_in::read(&worker, &listener, connection.peer, &mut stream).await;
    connection.presence.idle.set(false);
    let Some(told) = told else { return };
    if let Some((from, to)) = told {
        connection.is_from(from);
        connection.to = Some(to);
    }
    let from = connection.from;
    // On the heap, so that a connection without a header costs what its own protocol does.
    match listener.protocol {
        Protocol::Http if listener.http2.is_some() => Box::pin(either(connection, stream.into())).await,
        Protocol::Http => Box::pin(serve(connection, stream.into(), Buffer::default())).await,
        Protocol::Tcp => Box::pin(l4::tcp::serve(connection, stream)).await,
        Protocol::TlsPassthrough => Box::pin(l4::sni::serve(connection, stream)).await,
        Protocol::Frp => Box::pin(frp::serve(connection, stream, from, Vec::new())).await,
        Protocol::Https => Box::pin(https::serve(connection, stream)).await,
        Protocol::Udp => {}
    }
}

/// Whether a listener may have one more connection.
#[must_use]
pub fn has_room(listener: &Listener) -> bool {
    listener.stats.sum(|shard| &shard.open) < listener.limits.connections as u64
}

/// Counts a connection and starts its task.
pub fn enter(
    worker: &Rc<Worker>,
    listener: Arc<Listener>,
    peer: SocketAddr,
    slot: usize,
    task: impl FnOnce(Connection) -> AbortHandle,
) {
    listener.stats.of(worker.id).open.inc();
    worker.enter(slot, |presence, number| {
        let from = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let worker = Rc::clone(worker);
        task(Connection {
            worker,
            peer: from.ip(),
            from,
            to: None,
            presence,
            slot,
            number,
            listener,
            asked: None,
        })
    });
}

fn listener_of(snapshot: &Snapshot, slot: usize) -> Option<Arc<Listener>> {
    snapshot.listeners.get(slot)?.clone()
}

/// Serves HTTP/2 where the visitor begins with its preface, else HTTP/1.
async fn either(connection: Connection, mut stream: Stream) {
    let (worker, listener) = (Rc::clone(&connection.worker), Arc::clone(&connection.listener));
    let mut buffer = worker.buffers.small();
    let deadline = Instant::now() + listener.timeouts.header.min(listener.timeouts.idle);
    connection.presence.idle.set(true);
    let is_http2 = loop {
        let known = buffer.len().min(h2::PREFACE.len());
        if buffer.filled()[..known] != h2::PREFACE[..known] {
            break false;
        }
        if known == h2::PREFACE.len() {
            break true;
        }
        match until(Some(deadline), poll_fn(|cx| buffer.poll_fill(cx, &mut stream))).await {
            Ok(Ok(1..)) => {}
            // A part of a head is for HTTP/1 to answer; there is nothing to say to nothing.
            _ if buffer.is_empty() => return worker.buffers.give_back(buffer),
            _ => break false,
        }
    };
    connection.presence.idle.set(false);
    // Neither of the two: there is no language to say so in.
    let line = buffer.filled().split(|byte| *byte == b'\n').next().filter(|line| line.len() < buffer.len());
    if !is_http2 && line.is_some_and(|line| memchr::memmem::find(line, b" HTTP/1.").is_none()) {
        return worker.buffers.give_back(buffer);
    }
    match listener.http2.as_ref().filter(|_| is_http2) {
        Some(settings) => Box::pin(h2::serve(connection, stream, buffer, settings)).await,
        None => Box::pin(serve(connection, stream, buffer)).await,
    }
}

/// Serves HTTP/1 requests until the connection ends. `buffer`: what has been read already.
pub async fn serve(mut connection: Connection, mut stream: Stream, mut buffer: Buffer) {
    let worker = Rc::clone(&connection.worker);
    let mut first = true;
    let next = loop {
        if buffer.is_empty() {
            worker.buffers.give_back(std::mem::take(&mut buffer));
            connection.presence.idle.set(true);
            if connection.presence.closing.get() && !first {
                break Next::Close;
            }
            let timeouts = &connection.listener.timeouts;
            let patience = if first { timeouts.header.min(timeouts.idle) } else { timeouts.idle };
            match timeout(patience, poll_fn(|cx| poll_request(&connection.presence, &stream, cx))).await {
                Ok(true) => {}
                Ok(false) | Err(_) => break Next::Close,
            }
            connection.presence.idle.set(false);
            buffer = worker.buffers.small();
        }
        first = false;
        let snapshot = worker.snapshot();
        if let Some(listener) = snapshot.listeners.get(connection.slot).and_then(Option::as_ref)
            && !Arc::ptr_eq(listener, &connection.listener)
        {
            // Counters are shared by all versions of a listener, so `open` stays balanced.
            connection.listener = Arc::clone(listener);
        }
        let mut scratch = worker.take_scratch();
        // On the heap while it lasts: a connection that waits for its next request holds none of it.
        let next = Box::pin(http::exchange(
            &connection,
            &snapshot,
            &connection.listener,
            &mut stream,
            &mut buffer,
            &mut scratch,
        ))
        .await;
        worker.give_back(scratch);
        if next != Next::KeepAlive {
            break next;
        }
    };
    worker.buffers.give_back(buffer);
    match next {
        Next::KeepAlive | Next::Close => {
            poll_fn(|cx| {
                stream.say_goodbye(cx);
                Poll::Ready(())
            })
            .await;
        }
        Next::Linger => linger(&worker, &mut stream).await,
        Next::Reset => {
            stream.reset_on_close();
        }
    }
}

/// Whether something has arrived, as opposed to that the connection is over, or to end now.
fn poll_request(presence: &Presence, stream: &Stream, cx: &mut Context<'_>) -> Poll<bool> {
    match stream.poll_arrived(cx) {
        Poll::Ready(ready) => Poll::Ready(ready.is_ok()),
        // What the reactor hasn't told yet counts, too: whoever sent it in time is answered.
        Poll::Pending if presence.is_leaving(cx) => Poll::Ready(stream.has_arrived()),
        Poll::Pending => Poll::Pending,
    }
}

/// Ends our direction and reads on for a while.
async fn linger(worker: &Worker, stream: &mut Stream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let deadline = Instant::now() + LINGER;
    let mut left = LINGER_BYTES;
    let mut sink = worker.buffers.small();
    loop {
        let read = tokio::time::timeout_at(deadline.into(), poll_fn(|cx| sink.poll_fill(cx, stream))).await;
        match read {
            Ok(Ok(n)) if n > 0 && left > SMALL => {
                left -= n.min(left);
                sink.consume(n);
            }
            Ok(Ok(_) | Err(_)) | Err(_) => break,
        }
    }
    worker.buffers.give_back(sink);
}
