//! A fresh connection to an endpoint, its record kept, and the tunnel behind it confirmed.

use std::{future::poll_fn, io, sync::Arc, time::Instant};

use rustls::ClientConnection;
use tokio::net::{TcpStream, UdpSocket};

use super::{
    io::{Elapsed, until},
    tls_stream::TlsStream,
    upstream::{self, Link},
    worker::Worker,
};
use crate::{
    clock,
    frps::ask::Ask,
    snapshot::{Endpoint, Gate, Member, OpenConnection, Pool},
    telemetry::stats::Failure,
    tls::Outbound,
};

/// Why there is no connection.
#[derive(Debug, Clone, Copy)]
pub enum NoLink {
    /// The endpoint, or its frps, has as many as it may.
    Crowded,
    /// It could not be opened.
    Failed(Failure),
    /// We lack descriptors, memory or ports: that says nothing about the endpoint.
    Starved,
}

/// Opens a connection for a request, or a stream on one that requests share.
///
/// # Errors
/// As [`open_socket`].
pub async fn open(
    worker: &Worker,
    pool: &Pool,
    member: &Member,
    deadline: Option<Instant>,
) -> Result<Link, NoLink> {
    if member.speaks_h2c(pool) {
        return worker.idle.shared.open(worker, pool, member, deadline).await;
    }
    open_one(worker, pool, member, deadline).await
}

/// Opens a connection for HTTP, of whatever version.
///
/// # Errors
/// As [`open_socket`].
pub async fn open_one(
    worker: &Worker,
    pool: &Pool,
    member: &Member,
    deadline: Option<Instant>,
) -> Result<Link, NoLink> {
    let endpoint = &member.endpoint;
    let Some(tls) = &endpoint.tls else {
        let (socket, open) = open_socket(worker, pool, member, deadline).await?;
        return Ok(Link { stream: socket.into(), open: Some(open) });
    };
    let limit = Instant::now() + pool.connect_timeout;
    let limit = deadline.map_or(limit, |deadline| deadline.min(limit));
    let (socket, open) = reach(worker, pool, member, deadline).await?;
    let handshake = Box::pin(shake(socket, tls, &endpoint.id.host));
    let failure = match until(Some(limit), handshake).await {
        Ok(Ok(stream)) => {
            endpoint.stats.of(worker.id).connects.inc();
            succeeded(pool, endpoint);
            return Ok(Link { stream: stream.into(), open: Some(open) });
        }
        Ok(Err(error)) => error,
        Err(Elapsed) => io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake within connect_timeout"),
    };
    failed(worker, pool, endpoint, Failure::Tls, &failure);
    Err(NoLink::Failed(Failure::Tls))
}

/// Begins TLS on a socket. The member must prove to have its name.
async fn shake(socket: TcpStream, tls: &Outbound, host: &str) -> io::Result<TlsStream> {
    let (config, name) = tls.with(host)?;
    let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
    let mut stream = TlsStream::new(socket, session.into());
    poll_fn(|cx| stream.poll_handshake(cx)).await?;
    Ok(stream)
}

/// Opens a connection within the pool's `connect_timeout`; keeps the endpoint's record.
///
/// # Errors
/// See [`NoLink`]. Nothing has been sent.
pub async fn open_socket(
    worker: &Worker,
    pool: &Pool,
    member: &Member,
    deadline: Option<Instant>,
) -> Result<(TcpStream, OpenConnection), NoLink> {
    let reached = reach(worker, pool, member, deadline).await?;
    member.endpoint.stats.of(worker.id).connects.inc();
    succeeded(pool, &member.endpoint);
    Ok(reached)
}

/// The same, but whether that is a success is still open.
async fn reach(
    worker: &Worker,
    pool: &Pool,
    member: &Member,
    deadline: Option<Instant>,
) -> Result<(TcpStream, OpenConnection), NoLink> {
    let endpoint = &member.endpoint;
    if Gate::is_full(member.connections.as_ref()) {
        return Err(NoLink::Crowded);
    }
    let open = endpoint.open_connection(pool.limits.connections).ok_or(NoLink::Crowded)?;
    let open = open.within(member.connections.as_ref(), worker.id);
    let young = endpoint.guard.as_ref().map(|guard| guard.settled.since(clock::now()));
    if let Some(young) = young.filter(|young| !young.is_zero()) {
        tokio::time::sleep(young).await;
    }
    let addresses = endpoint.addresses();
    match upstream::connect(&addresses, pool.connect_timeout, deadline).await {
        Ok(_) if !is_ours_still(endpoint).await => {
            tracing::debug!(endpoint = endpoint.label(), "the tunnel's port changed hands");
            Err(NoLink::Failed(Failure::TunnelChanged))
        }
        Ok(stream) => Ok((stream, open)),
        Err((_, error)) if upstream::is_ours(&error) => {
            starved(worker, endpoint, &error);
            Err(NoLink::Starved)
        }
        Err((failure, error)) => {
            failed(worker, pool, endpoint, failure, &error);
            Err(NoLink::Failed(failure))
        }
    }
}

/// Opens a socket that exchanges datagrams with an endpoint. Whether somebody is there only an answer tells
/// ([`succeeded`]), or an error ([`failed`]).
///
/// # Errors
/// See [`NoLink`]. Nothing has been sent.
pub async fn open_datagrams(
    worker: &Worker,
    pool: &Pool,
    endpoint: &Arc<Endpoint>,
) -> Result<(UdpSocket, OpenConnection), NoLink> {
    let open = endpoint.open_connection(pool.limits.connections).ok_or(NoLink::Crowded)?;
    match upstream::connect_datagrams(&endpoint.addresses()) {
        Ok(_) if !is_ours_still(endpoint).await => {
            tracing::debug!(endpoint = endpoint.label(), "the tunnel's port changed hands");
            Err(NoLink::Failed(Failure::TunnelChanged))
        }
        Ok(socket) => {
            endpoint.stats.of(worker.id).connects.inc();
            Ok((socket, open))
        }
        Err(error) if upstream::is_ours(&error) => {
            starved(worker, endpoint, &error);
            Err(NoLink::Starved)
        }
        Err(error) => {
            failed(worker, pool, endpoint, Failure::ConnectRefused, &error);
            Err(NoLink::Failed(Failure::ConnectRefused))
        }
    }
}

/// Somebody is there.
pub fn succeeded(pool: &Pool, endpoint: &Endpoint) {
    if endpoint.connect_succeeded() {
        tracing::info!(endpoint = endpoint.label(), pool = &*pool.name, "endpoint up");
    }
}

fn starved(worker: &Worker, endpoint: &Endpoint, error: &io::Error) {
    if let Some(suppressed) = worker.may_complain("out of resources") {
        tracing::error!(
            endpoint = endpoint.label(),
            %error,
            suppressed,
            "cannot open a connection; raise LimitNOFILE or the range of local ports"
        );
    }
}

/// Nobody is there: keeps the endpoint's record.
pub fn failed(worker: &Worker, pool: &Pool, endpoint: &Endpoint, failure: Failure, error: &io::Error) {
    if let Some(guard) = &endpoint.guard {
        guard.watch.doubt(clock::now());
        let names = vec![guard.registration.name.clone()];
        guard.watch.ask(Ask::Look { names, claimed: false });
    }
    if endpoint.connect_failed(clock::now(), pool.fail_timeout)
        && let Some(suppressed) = worker.may_complain("endpoint down")
    {
        tracing::warn!(
            endpoint = endpoint.label(),
            pool = &*pool.name,
            reason = failure.label(),
            %error,
            suppressed,
            "endpoint down"
        );
    }
}

/// Whether what was just connected to is the tunnel that is meant: its port may belong to another by now.
async fn is_ours_still(endpoint: &Endpoint) -> bool {
    match &endpoint.guard {
        None => true,
        // The second look is at what became known while the first one was put.
        Some(guard) => guard.watch.is_still(&guard.registration).await && !endpoint.is_gone(),
    }
}
