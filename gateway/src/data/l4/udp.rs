//! Datagrams of a `udp` listener: whoever sends from one address is one session, and a session has one member of the pool.
//!
//! A worker has one socket of each listener, and the kernel gives all datagrams of a source to the same one: so sessions are
//! the worker's own, and nothing is shared. To the rest of the gateway a session is a connection: it counts against
//! `limits.connections`, is in flight at its member, has a line in the access log, and is cut by a drain. Here is what reads
//! the listener's socket and knows the sessions; [`session`] is one of them.

pub mod session;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{net::UdpSocket, sync::Notify, task::spawn_local};

use self::session::Session;
use crate::data::{connection, io::until, worker::Worker};

/// Holds any datagram.
pub const LONGEST: usize = 64 * 1024;
/// Datagrams taken in one go before others have their turn.
const BATCH: usize = 64;

/// One listening socket and the sessions of whoever sends to it.
#[derive(Debug)]
pub struct Desk {
    worker: Rc<Worker>,
    socket: UdpSocket,
    address: SocketAddr,
    slot: usize,
    sessions: RefCell<HashMap<SocketAddr, Rc<Session>, foldhash::fast::RandomState>>,
    /// Where answers are read to.
    answer: RefCell<Box<[u8]>>,
    /// The socket is read until then, by whom the listener belongs to no more.
    closing: Cell<Option<Instant>>,
    change: Notify,
}

impl Desk {
    /// Takes over a bound socket that doesn't block.
    ///
    /// # Errors
    /// The reactor doesn't take it.
    pub fn new(worker: &Rc<Worker>, socket: std::net::UdpSocket, slot: usize) -> io::Result<Rc<Self>> {
        let socket = UdpSocket::from_std(socket)?;
        Ok(Rc::new(Self {
            worker: Rc::clone(worker),
            address: socket.local_addr()?,
            socket,
            slot,
            sessions: RefCell::default(),
            answer: RefCell::new(vec![0; LONGEST].into_boxed_slice()),
            closing: Cell::new(None),
            change: Notify::new(),
        }))
    }

    /// The address that visitors send to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins no more sessions; those there are go on until they end, or for `within`.
    pub fn close(&self, within: Duration) {
        self.closing.set(Some(Instant::now() + within));
        self.change.notify_one();
    }

    /// Reads no more: another process does. Answers that are due still go to the visitors.
    pub fn leave(&self) {
        self.close(Duration::ZERO);
    }

    /// Gives what arrives to its session, until nobody is left after [`Desk::close`].
    pub async fn serve(self: Rc<Self>) {
        let mut datagram = vec![0; LONGEST];
        loop {
            let deadline = self.closing.get();
            if deadline.is_some_and(|deadline| {
                Instant::now() >= deadline || self.sessions.borrow().is_empty() && !self.is_succeeded()
            }) {
                return;
            }
            let arrived = async {
                tokio::select! {
                    biased;
                    () = self.change.notified() => false,
                    ready = self.socket.readable() => ready.is_ok(),
                }
            };
            if until(deadline, arrived).await == Ok(true) {
                self.take_all(&mut datagram);
                // What is ready again at once would keep everybody else waiting.
                tokio::task::yield_now().await;
            }
        }
    }

    fn take_all(self: &Rc<Self>, datagram: &mut [u8]) {
        for _ in 0..BATCH {
            match self.socket.try_recv_from(datagram) {
                Ok((length, source)) => self.take(source, &datagram[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    if let Some(suppressed) = self.worker.may_complain("udp listener") {
                        tracing::error!(address = %self.address, %error, suppressed, "cannot receive datagrams");
                    }
                    return;
                }
            }
        }
    }

    fn take(self: &Rc<Self>, source: SocketAddr, datagram: &[u8]) {
        let known = self.sessions.borrow().get(&source).cloned();
        match known {
            Some(session) => session.take(&self.worker, datagram),
            None => self.begin(source, datagram),
        }
    }

    fn begin(self: &Rc<Self>, source: SocketAddr, datagram: &[u8]) {
        let Some(slot) = self.slot() else { return };
        let Some(listener) = self.worker.snapshot().listeners.get(slot).and_then(Clone::clone) else {
            return;
        };
        let stats = listener.stats.of(self.worker.id);
        stats.accepted.inc();
        if !connection::has_room(&listener) {
            stats.refused.inc();
            stats.datagrams_dropped.inc();
            if let Some(suppressed) = self.worker.may_complain("sessions") {
                tracing::warn!(
                    listener = &*listener.name,
                    suppressed,
                    "a new source is not served: limits.connections reached"
                );
            }
            return;
        }
        let session = Rc::new(Session::new(Arc::clone(&listener)));
        session.take(&self.worker, datagram);
        self.sessions.borrow_mut().insert(source, Rc::clone(&session));
        let place = Place { desk: Rc::clone(self), source, session };
        connection::enter(&self.worker, listener, source, slot, |connection| {
            spawn_local(session::serve(connection, place)).abort_handle()
        });
    }

    /// Whose a new session is. As long as a listener that was renamed leaves its old socket open, the kernel gives that its
    /// share of new sources: they are the new listener's.
    fn slot(&self) -> Option<usize> {
        let slot = match self.closing.get() {
            None => self.slot,
            Some(_) => self.worker.datagram_slot(self.address)?,
        };
        (!self.worker.is_closing(slot)).then_some(slot)
    }

    fn is_succeeded(&self) -> bool {
        self.worker.datagram_slot(self.address).is_some_and(|slot| !self.worker.is_closing(slot))
    }
}

/// A session's entry at its desk, which goes with its task.
#[derive(Debug)]
pub struct Place {
    desk: Rc<Desk>,
    source: SocketAddr,
    session: Rc<Session>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.desk.sessions.borrow_mut().remove(&self.source);
        if self.desk.closing.get().is_some() {
            self.desk.change.notify_one();
        }
    }
}
