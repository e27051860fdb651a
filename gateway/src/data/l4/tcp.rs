//! A connection of a `tcp` listener: everything goes to its pool.

use std::{rc::Rc, sync::Arc, time::Instant};

use tokio::net::TcpStream;

use super::{
    carry::{self, Errand, Resetting},
    tally::Tally,
};
use crate::{
    data::{connection::Connection, hold::Away},
    error::Refusal,
    snapshot::Snapshot,
};

/// Serves a connection to its end.
pub async fn serve(connection: Connection, stream: TcpStream) {
    let worker = Rc::clone(&connection.worker);
    let listener = Arc::clone(connection.listener());
    let mut tally = Tally::new(&connection, &listener, Instant::now());
    let mut visitor = Resetting::new(stream);
    let slot = listener.slot;
    let find = |snapshot: &Snapshot, _: &mut Tally<'_>| {
        let present = snapshot.listeners.get(slot).and_then(Option::as_ref).unwrap_or(&listener);
        let pool = present.pool.clone();
        let pool = pool.ok_or(Away::new(Refusal::NoRoute, "the listener has no pool"))?;
        Ok(Errand { pool, holders: Vec::new(), gate: None })
    };
    carry::serve(&connection, "", &mut visitor, worker.buffers.small(), &mut tally, find).await;
}
