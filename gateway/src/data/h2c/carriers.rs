//! A worker's HTTP/2 connections to endpoints. Another is opened when those there are carry all that the endpoint allows; one
//! request at a time opens, the others wait for it.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_algos::Tick;
use tokio::sync::Notify;

use super::{Carrier, Exchange};
use crate::{
    data::{
        connect::{self, NoLink},
        io::{Elapsed, until},
        stream::Stream,
        upstream::Link,
        worker::Worker,
    },
    snapshot::{Endpoint, Member, Pool},
    telemetry::stats::Failure,
};

/// Connections by endpoint number.
#[derive(Debug, Default)]
pub struct Carriers {
    by_endpoint: RefCell<HashMap<u64, Group, foldhash::fast::RandomState>>,
}

#[derive(Debug)]
struct Group {
    endpoint: Arc<Endpoint>,
    carriers: Vec<Rc<Carrier>>,
    keepalive: Duration,
    opening: Option<Rc<Opening>>,
}

/// One connection being opened. It may be given up: then whoever waits tries for itself.
#[derive(Debug, Default)]
struct Opening {
    result: Cell<Option<Result<(), NoLink>>>,
    done: Notify,
}

impl Carriers {
    /// A stream on a connection that is there.
    #[must_use]
    pub fn join(&self, endpoint: u64) -> Option<Link> {
        let mut by_endpoint = self.by_endpoint.borrow_mut();
        let carriers = &mut by_endpoint.get_mut(&endpoint)?.carriers;
        carriers.retain(|carrier| !carrier.is_ending());
        carriers.iter().find(|carrier| carrier.has_room()).map(link)
    }

    /// Whether there is one with room.
    #[must_use]
    pub fn has_room(&self, endpoint: u64) -> bool {
        let by_endpoint = self.by_endpoint.borrow();
        by_endpoint
            .get(&endpoint)
            .is_some_and(|group| group.carriers.iter().any(|carrier| carrier.has_room()))
    }

    /// How many there are, alive or not.
    #[must_use]
    pub fn count(&self, endpoint: u64) -> usize {
        self.by_endpoint.borrow().get(&endpoint).map_or(0, |group| group.carriers.len())
    }

    /// A stream on a new connection, or on one that another request has just opened.
    ///
    /// # Errors
    /// See [`NoLink`]. Nothing has been sent.
    pub async fn open(
        &self,
        worker: &Worker,
        pool: &Pool,
        member: &Member,
        deadline: Option<Instant>,
    ) -> Result<Link, NoLink> {
        let number = member.endpoint.number;
        loop {
            if let Some(link) = self.join(number) {
                return Ok(link);
            }
            let Some(others) = self.opening(number) else {
                // A connection for many isn't judged by the patience of one.
                let opened = until(deadline, self.open_now(worker, pool, member)).await;
                return opened.unwrap_or(Err(NoLink::Failed(Failure::ConnectTimeout)));
            };
            let done = others.done.notified();
            if others.result.get().is_none() && until(deadline, done).await == Err(Elapsed) {
                return Err(NoLink::Failed(Failure::ConnectTimeout));
            }
            if let Some(Err(no_link)) = others.result.get() {
                return Err(no_link);
            }
        }
    }

    fn opening(&self, endpoint: u64) -> Option<Rc<Opening>> {
        self.by_endpoint.borrow().get(&endpoint)?.opening.clone()
    }

    async fn open_now(&self, worker: &Worker, pool: &Pool, member: &Member) -> Result<Link, NoLink> {
        let number = member.endpoint.number;
        let turn = Turn::take(self, member, pool.keepalive);
        let result = begin(worker, pool, member).await;
        turn.opening.result.set(Some(result.as_ref().map(|_| ()).map_err(|no_link| *no_link)));
        let carrier = result?;
        let link = link(&carrier);
        if let Some(group) = self.by_endpoint.borrow_mut().get_mut(&number) {
            group.carriers.push(carrier);
        }
        Ok(link)
    }

    /// Closes what has been idle for too long, is dead, or belongs to an endpoint that is gone. What still carries requests is
    /// closed after the last of them.
    pub fn sweep(&self, now: Tick, is_known: impl Fn(u64) -> bool) {
        self.by_endpoint.borrow_mut().retain(|number, group| {
            let keepalive = group.keepalive;
            group.carriers.retain(|carrier| {
                let in_use = carrier.streams() > 0 || now.since(carrier.unused_since()) < keepalive;
                in_use && !carrier.is_ending()
            });
            let of_tunnel = group.endpoint.id.tunnel.is_some();
            let gone = if of_tunnel { group.endpoint.is_gone() } else { !is_known(*number) };
            !gone && (!group.carriers.is_empty() || group.opening.is_some())
        });
    }

    /// Closes all connections to `endpoint`, after the last request on each.
    pub fn close(&self, endpoint: u64) {
        self.by_endpoint.borrow_mut().remove(&endpoint);
    }

    /// Closes everything, each after the last request on it.
    pub fn clear(&self) {
        self.by_endpoint.borrow_mut().clear();
    }
}

/// The right to open a connection; ends with it, however it ends.
struct Turn<'a> {
    carriers: &'a Carriers,
    endpoint: u64,
    opening: Rc<Opening>,
}

impl<'a> Turn<'a> {
    fn take(carriers: &'a Carriers, member: &Member, keepalive: Duration) -> Self {
        let endpoint = member.endpoint.number;
        let opening = Rc::<Opening>::default();
        let mut by_endpoint = carriers.by_endpoint.borrow_mut();
        let group = by_endpoint.entry(endpoint).or_insert_with(|| Group {
            endpoint: Arc::clone(&member.endpoint),
            carriers: Vec::new(),
            keepalive,
            opening: None,
        });
        group.keepalive = keepalive;
        group.opening = Some(Rc::clone(&opening));
        Self { carriers, endpoint, opening }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.carriers.by_endpoint.borrow_mut().get_mut(&self.endpoint) {
            group.opening = None;
        }
        self.opening.done.notify_waiters();
    }
}

fn link(carrier: &Rc<Carrier>) -> Link {
    let exchange = Exchange::new(Rc::clone(carrier));
    Link { stream: Stream::Shared(Box::new(RefCell::new(exchange))), open: None }
}

/// Connects, and begins HTTP/2, within the pool's `connect_timeout` each; keeps the endpoint's record.
async fn begin(worker: &Worker, pool: &Pool, member: &Member) -> Result<Rc<Carrier>, NoLink> {
    let Link { stream, open } = connect::open_one(worker, pool, member, None).await?;
    let limit = Instant::now() + pool.connect_timeout;
    let (failure, error) = match until(Some(limit), Carrier::begin(stream, open)).await {
        Ok(Ok(carrier)) => return Ok(carrier),
        Ok(Err(error)) => (Failure::ConnectRefused, error),
        Err(Elapsed) => (Failure::ConnectTimeout, io::ErrorKind::TimedOut.into()),
    };
    let error = io::Error::new(error.kind(), format!("it does not answer in HTTP/2: {error}"));
    connect::failed(worker, pool, &member.endpoint, failure, &error);
    Err(NoLink::Failed(failure))
}
