//! Clients of FRP: a control connection (or what belongs to one) from its first byte to its end.
//!
//! sniff → TLS, if it ends here → who is it ([`crate::frp_wire`]) → place ([`Relays::place`]) → connect and send what was read;
//! until frps's first byte, elsewhere if this one fails (`dial`) → bytes both ways (`pump`) → at an upgrade, another process
//! ([`hand_on`]).
//!
//! One task per connection. What a stranger can hold: 64 KiB and a task until `timeouts.header`, so many at once per source
//! address, `limits.connections` in all.

mod dial;
pub mod hand_on;
mod pump;
mod rewind;
mod rival;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use self::rewind::Rewind;
use super::{client as certified, connection::Connection, io::until};
use crate::{
    control::relays::{Kind, Refusal, Relays, Shown, Successor, Waiting},
    frp_wire::{First, Hello, Peeked, peek, sniff},
    snapshot::{FrpPart, Listener},
    tls::{Terminator, UNRECOGNIZED_NAME, client::Unwelcome},
};

/// Most bytes of a client that are kept until frps has answered.
const HEAD_MOST: usize = 64 * 1024;
/// Connections of one source address that have not logged in. Many clients may share an address and dial again at once.
const MOST_WAITING: u32 = 512;
/// A peer that vanished is noticed after 15 + 3 × 5 s: FRP's own heartbeats are slower, and with `tcpMux` off by default.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// Everything the steps need to know of one connection.
struct Client<'a> {
    connection: &'a Connection,
    listener: &'a Arc<Listener>,
    part: &'a FrpPart,
    peer: SocketAddr,
    /// When it must have said who it is.
    deadline: Instant,
    tls_ended: bool,
}

impl Client<'_> {
    fn relays(&self) -> &Arc<Relays> {
        &self.part.relays
    }
}

/// Who a connection says it is.
struct Introduction {
    first: First,
    kind: Kind,
    hello: Option<Hello>,
    /// It has shown that it knows the token, and the one before it was cut for that.
    replaced: bool,
    /// All that was read so far.
    head: Vec<u8>,
}

/// Carries one connection. `peer` is the client's address, and `early` what was read of it already: whoever takes a PROXY header
/// off gives the address it tells and the bytes behind it.
pub async fn serve(connection: Connection, stream: TcpStream, peer: SocketAddr, early: Vec<u8>) {
    let listener = Arc::clone(connection.listener());
    let Some(part) = listener.frp.clone() else { return };
    keep_alive(&stream);
    connection.worker.put_in_background(&connection.presence);
    let client = Client {
        deadline: Instant::now() + listener.timeouts.header,
        connection: &connection,
        listener: &listener,
        part: &part,
        peer,
        tls_ended: false,
    };
    if let Err(refusal) = carry(client, stream, early).await {
        part.relays.refused(&listener.name, refusal);
        let loud = matches!(refusal, Refusal::TooMany | Refusal::NoFrps);
        if loud && let Some(suppressed) = connection.worker.may_complain(refusal.label()) {
            tracing::warn!(
                listener = &*listener.name,
                peer = %peer.ip(),
                reason = refusal.label(),
                suppressed,
                "client refused"
            );
        }
    }
}

async fn carry(mut client: Client<'_>, mut stream: TcpStream, mut head: Vec<u8>) -> Result<(), Refusal> {
    let source = client.peer.ip().to_canonical();
    let waiting = client.relays().wait(source, MOST_WAITING).ok_or(Refusal::TooMany)?;
    let first = loop {
        match sniff(&head) {
            First::NeedMore => more(&client, &mut stream, &mut head).await?,
            First::Unknown => return Err(Refusal::Unknown),
            first => break first,
        }
    };
    let (First::Tls { custom_byte }, Some(slot)) = (first, &client.listener.tls) else {
        // Who comes without TLS has shown no certificate either.
        if client
            .listener
            .tls
            .as_ref()
            .and_then(|tls| tls.client_gate())
            .is_some_and(|gate| gate.is_required())
        {
            let (worker, peer) = (&client.connection.worker, client.peer.ip());
            certified::turned_away(worker, client.listener, peer, None, Unwelcome::NoCertificate);
            return Err(Refusal::Certificate);
        }
        return Box::pin(introduced(&client, stream, head, waiting)).await;
    };
    // frps takes this byte off too.
    head.drain(..usize::from(custom_byte));
    let gate = slot.client_gate();
    let accept = shake(slot, Rewind::new(head, stream));
    let tls = until(Some(client.deadline), accept).await.map_err(|_elapsed| Refusal::Slow)?;
    let (worker, peer) = (&client.connection.worker, client.peer.ip());
    let tls = tls.map_err(|error| {
        let reason = error.get_ref().and_then(|inner| inner.downcast_ref());
        if reason.is_some_and(|reason| certified::refused(worker, client.listener, peer, reason)) {
            return Refusal::Certificate;
        }
        tracing::debug!(peer = %client.peer.ip(), %error, "TLS handshake failed");
        Refusal::Tls
    })?;
    match certified::introduced(tls.get_ref().1.peer_certificates(), slot, gate.as_ref()) {
        Ok(None) => {}
        Ok(Some(identity)) => client.connection.has_shown(identity),
        Err((identity, why)) => {
            certified::turned_away(worker, client.listener, peer, Some(&identity), why);
            return Err(Refusal::Certificate);
        }
    }
    client.tls_ended = true;
    Box::pin(introduced(&client, tls, Vec::new(), waiting)).await
}

/// The handshake. A client that asks for a name nobody has here is told so, if such clients are refused.
async fn shake(
    terminator: &Terminator,
    stream: Rewind<TcpStream>,
) -> std::io::Result<TlsStream<Rewind<TcpStream>>> {
    let mut start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    match terminator.admit(&start.client_hello()) {
        Ok(config) => start.into_stream(config).await,
        Err(refused) => {
            start.io.write_all(&UNRECOGNIZED_NAME).await?;
            start.io.shutdown().await?;
            Err(std::io::Error::other(refused))
        }
    }
}

/// Reads on until it is known who it is, then carries it.
async fn introduced<S>(
    client: &Client<'_>,
    mut stream: S,
    mut head: Vec<u8>,
    waiting: Waiting,
) -> Result<(), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + rival::Socket,
{
    let hello = loop {
        match peek(&head) {
            Peeked::NeedMore => more(client, &mut stream, &mut head).await?,
            Peeked::Unknown => return Err(Refusal::Unknown),
            Peeked::Opaque => break None,
            Peeked::Hello(hello) => break Some(hello),
        }
    };
    let first = sniff(&head);
    let kind = match (&hello, first) {
        (None, _) => Kind::Opaque,
        (Some(Hello::Login { .. }), First::Yamux) => Kind::Control,
        (Some(Hello::Login { .. }), _) => Kind::ControlWithoutMux,
        (Some(Hello::Work { .. }), _) => Kind::Work,
    };
    let mut introduction = Introduction { first, kind, hello, replaced: false, head };
    if let Some(Hello::Login { user, client_id, run_id, proof }) = &introduction.hello {
        let run = run_id.as_ref().map(|run_id| client.relays().hash(run_id));
        let login = Successor { user, client_id, run, shown: Shown::Proof(proof) };
        introduction.replaced = rival::outlive(client, &login).await;
    }
    let dialed = dial::dial(client, &mut stream, &mut introduction).await?;
    drop(waiting);
    pump::pump(client, stream, introduction, dialed).await;
    Ok(())
}

/// Reads once.
async fn more<S: AsyncRead + Unpin>(
    client: &Client<'_>,
    stream: &mut S,
    head: &mut Vec<u8>,
) -> Result<(), Refusal> {
    if head.len() >= HEAD_MOST {
        return Err(Refusal::Unknown);
    }
    let mut block = [0; 2048];
    let space = block.len().min(HEAD_MOST - head.len());
    match until(Some(client.deadline), stream.read(&mut block[..space])).await {
        Ok(Ok(0) | Err(_)) => Err(Refusal::Gone),
        Ok(Ok(n)) => {
            head.extend_from_slice(&block[..n]);
            Ok(())
        }
        Err(_elapsed) => Err(Refusal::Slow),
    }
}

/// Control connections are silent for as long as nobody visits, so TCP itself has to find out who is gone.
fn keep_alive(stream: &TcpStream) {
    let (after, every, times) = KEEPALIVE;
    let settings = TcpKeepalive::new().with_time(after).with_interval(every).with_retries(times);
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&settings) {
        tracing::debug!(%error, "no keepalive");
    }
}
