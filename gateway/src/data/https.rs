//! A visitor's connection to an https listener: the handshake, then HTTP.
//!
//! Where a `tls_passthrough` listener has the same address, names that it knows are its own: the ClientHello is looked at
//! before anything is answered, and the connection goes on there, unopened.

use std::{
    future::poll_fn,
    io::{self, Read as _},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use rustls::server::Acceptor;
use tokio::net::TcpStream;

use super::{
    buffer::Buffer,
    client,
    connection::{self, Connection},
    h2,
    io::{Elapsed, until},
    l4::sni::{self, NoHello},
    tls_stream::TlsStream,
    worker::Worker,
};
use crate::{
    snapshot::Listener,
    telemetry::stats::Handshake,
    tls::{ACME_TLS_ALPN, Refused, Terminator, UNRECOGNIZED_NAME},
};

/// Serves a connection to its end.
pub async fn serve(mut connection: Connection, mut socket: TcpStream) {
    let worker = Rc::clone(&connection.worker);
    let listener = Arc::clone(connection.listener());
    let mut opening = Buffer::default();
    let deadline = Instant::now() + listener.timeouts.header;
    connection.presence.idle.set(true);
    if let Some(beside) = passthrough(&worker, &listener) {
        match sni::read_hello(&worker, &listener, &mut socket, &mut opening).await {
            Ok(name) if sni::is_known(&worker, &beside, name.as_deref().unwrap_or_default()) => {
                connection.presence.idle.set(false);
                // A connection that is carried needs more than one that is served.
                return Box::pin(sni::carry(connection, beside, socket, name, opening)).await;
            }
            // What is wrong with it the handshake tells the visitor.
            Ok(_) | Err(NoHello::Foreign | NoHello::Broken(_)) => {}
            Err(NoHello::Gone) => return count(&worker, &listener, Handshake::Gone),
            Err(NoHello::Late) => return count(&worker, &listener, Handshake::Slow),
        }
    }
    let Some(tls) = &listener.tls else { return };
    // On the heap while it lasts.
    let gate = tls.client_gate();
    let handshake = Box::pin(accept(socket, tls, opening.filled()));
    let shaken = until(Some(deadline), handshake).await;
    worker.buffers.give_back(opening);
    connection.presence.idle.set(false);
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            let reason = error.get_ref().and_then(|inner| inner.downcast_ref());
            if reason.is_some_and(|reason| client::refused(&worker, &listener, connection.peer, reason)) {
                return count(&worker, &listener, Handshake::Failed);
            }
            if let Some(suppressed) = worker.may_complain("TLS handshake failed") {
                let peer = connection.peer;
                tracing::info!(listener = &*listener.name, %peer, %error, suppressed, "TLS handshake failed");
            }
            return count(&worker, &listener, Handshake::Failed);
        }
        Ok(Err(_)) => return count(&worker, &listener, Handshake::Gone),
        Err(Elapsed) => return count(&worker, &listener, Handshake::Slow),
    };
    if stream.session().alpn_protocol() == Some(ACME_TLS_ALPN) {
        // An authority that has seen what it wanted (RFC 8737 §3).
        return count(&worker, &listener, Handshake::Full);
    }
    match client::introduced(stream.session().peer_certificates(), tls, gate.as_ref()) {
        Ok(None) => {}
        Ok(Some(client)) => connection.has_shown(client),
        Err((client, why)) => {
            client::turned_away(&worker, &listener, connection.peer, Some(&client), why);
            return count(&worker, &listener, Handshake::Failed);
        }
    }
    if tls.is_strict()
        && let rustls::Connection::Server(session) = stream.session()
    {
        connection.is_bound_to(session.server_name());
    }
    let resumed = stream.session().handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    count(&worker, &listener, if resumed { Handshake::Resumed } else { Handshake::Full });
    let http2 = stream.session().alpn_protocol() == Some(b"h2");
    match listener.http2.as_ref().filter(|_| http2) {
        Some(settings) => Box::pin(h2::serve(connection, stream.into(), Buffer::default(), settings)).await,
        None => connection::serve(connection, stream.into(), Buffer::default()).await,
    }
}

/// The listener whose names pass through here unopened.
fn passthrough(worker: &Worker, listener: &Listener) -> Option<Arc<Listener>> {
    worker.snapshot().listeners.get(listener.passthrough?)?.clone()
}

fn count(worker: &Worker, listener: &Listener, handshake: Handshake) {
    listener.stats.of(worker.id).handshakes[handshake as usize].inc();
}

/// The handshake; `ahead` has been read from the socket already.
///
/// # Errors
/// `InvalidData` with what is wrong, after the visitor has been told; otherwise the socket's.
async fn accept(mut socket: TcpStream, tls: &Terminator, mut ahead: &[u8]) -> io::Result<TlsStream> {
    let mut acceptor = Acceptor::default();
    let accepted = loop {
        if ahead.is_empty() {
            socket.readable().await?;
            match acceptor.read_tls(&mut Socket(&socket)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
        } else {
            acceptor.read_tls(&mut ahead)?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) => {}
            Err((error, alert)) => return Err(tell(&mut socket, error, alert)),
        }
    };
    if let Some((more, name)) = tls.lacks_proof(&accepted.client_hello()) {
        more.look_for_challenge(&name).await;
    }
    let Ok(config) = tls.admit(&accepted.client_hello()) else {
        drop(socket.try_write(&UNRECOGNIZED_NAME));
        return Err(io::Error::new(io::ErrorKind::InvalidData, Refused));
    };
    let session = match accepted.into_connection(config) {
        Ok(session) => session,
        Err((error, alert)) => return Err(tell(&mut socket, error, alert)),
    };
    let mut stream = TlsStream::new(socket, session.into());
    poll_fn(|cx| stream.poll_handshake(cx)).await?;
    Ok(stream)
}

/// Tells the visitor what is wrong, as far as the socket takes it at once.
fn tell(socket: &mut TcpStream, error: rustls::Error, mut alert: rustls::server::AcceptedAlert) -> io::Error {
    let mut text = Vec::new();
    if alert.write_all(&mut text).is_ok() {
        // Whether it arrives is the visitor's affair.
        drop(socket.try_write(&text));
        // What has arrived and isn't read would reset the alert away.
        drop(Socket(socket).read(&mut [0; 4096]));
    }
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The socket without waiting.
struct Socket<'a>(&'a TcpStream);

impl io::Read for Socket<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}
