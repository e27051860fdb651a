//! From a client that has said who it is to an frps that has answered it.
//!
//! Until frps's first byte nothing has happened that the client knows of, so all it has sent can be sent to another frps: when
//! the connect fails, the connection ends, or nothing comes for two seconds while somebody else is eligible.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::{Client, HEAD_MOST, Introduction, keep_alive};
use crate::{
    clock,
    control::relays::{Kind, Placed, Refusal, Registered, Request},
    data::{
        client as certified,
        io::{Elapsed, until},
        upstream::{self, is_ours},
    },
    frp_wire::Hello,
};

/// Longest wait for a connect: frps are near, and another one may be there.
const CONNECT: Duration = Duration::from_secs(1);
/// Longest wait for the first byte while another frps is eligible.
const ANSWER: Duration = Duration::from_secs(2);
/// The same while none is: as long as frpc itself waits for a login.
const LAST_ANSWER: Duration = Duration::from_secs(10);
/// Longest search in all. frpc dials again by itself.
const SEARCH: Duration = Duration::from_secs(15);

/// A connection to an frps that has begun to answer.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) upstream: TcpStream,
    /// Its first bytes; none on a work connection.
    pub(super) answer: Vec<u8>,
    pub(super) registered: Registered,
}

/// How one frps failed.
enum Failed {
    /// The client is gone, or was cut: nothing is to be done any more.
    Gone,
    /// This frps didn't take it. `down`: it wouldn't take others either.
    Elsewhere { down: bool, why: io::Error },
}

/// Finds an frps that answers.
pub(super) async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    client: &Client<'_>,
    stream: &mut S,
    introduction: &mut Introduction,
) -> Result<Dialed, Refusal> {
    let relays = client.relays();
    let (user, client_id, run) = match introduction.hello.clone() {
        Some(Hello::Login { user, client_id, run_id, proof: _ }) => (Some(user), client_id, run_id),
        Some(Hello::Work { run_id }) => (None, String::new(), run_id),
        None => (None, String::new(), None),
    };
    let request = Request {
        listener: &client.listener.name,
        frps: &client.part.frps,
        place: client.part.place,
        together: client.part.together,
        peer: client.peer,
        kind: introduction.kind,
        user: user.as_deref(),
        client_id: &client_id,
        run: run.map(|run| relays.hash(&run)),
        tls_ended: client.tls_ended,
        replaced: introduction.replaced,
        certificate: client.connection.client().map(|client| &*client.name),
    };
    let (begun, mut tried) = (Instant::now(), Vec::new());
    while begun.elapsed() < SEARCH {
        let placed = relays.place(&request, &tried, clock::now(), SystemTime::now());
        let Some(placed) = placed else { break };
        let limit = if placed.has_other && !placed.only_here { ANSWER } else { LAST_ANSWER };
        let cut = Arc::clone(&placed.registered.cut);
        let attempt = tokio::select! {
            attempt = attempt(client, stream, introduction, &placed, limit) => attempt,
            () = cut.notified() => Err(Failed::Gone),
        };
        let frps = &placed.frps;
        match attempt {
            Ok((upstream, answer)) => {
                if frps.succeeded() {
                    tracing::info!(frps = &*frps.name, "frps takes clients again");
                }
                if introduction.kind.is_client() {
                    certified::placed(client.connection, &frps.name, user.as_deref());
                }
                return Ok(Dialed { upstream, answer, registered: placed.registered });
            }
            Err(Failed::Gone) => return Err(Refusal::Gone),
            Err(Failed::Elsewhere { down, why }) => {
                if down && frps.failed(clock::now()) {
                    tracing::warn!(frps = &*frps.name, error = %why, "frps does not take clients");
                } else {
                    tracing::debug!(frps = &*frps.name, error = %why, "client goes elsewhere");
                }
                if placed.only_here {
                    break;
                }
                relays.replayed(placed.registered.id);
                tried.push(Arc::clone(&frps.name));
            }
        }
    }
    Err(Refusal::NoFrps)
}

async fn attempt<S: AsyncRead + AsyncWrite + Unpin>(
    client: &Client<'_>,
    stream: &mut S,
    introduction: &mut Introduction,
    placed: &Placed,
    limit: Duration,
) -> Result<(TcpStream, Vec<u8>), Failed> {
    let connected = upstream::connect(&placed.frps.control_addresses(), CONNECT, None).await;
    let mut upstream = connected.map_err(|(_, why)| Failed::Elsewhere { down: !is_ours(&why), why })?;
    keep_alive(&upstream);
    if let Ok(local) = upstream.local_addr() {
        // Before it can log in: frps asks its plugin about this address.
        client.relays().connected(placed.registered.id, local);
    }
    let deadline = Some(Instant::now() + limit);
    let silent = || Failed::Elsewhere {
        down: true,
        why: io::Error::new(io::ErrorKind::TimedOut, "no answer within the time allowed"),
    };
    // The other side may be dying, or just not like this client: others may still be welcome.
    let ended = |why: io::Error| Failed::Elsewhere { down: false, why };
    match until(deadline, upstream.write_all(&introduction.head)).await {
        Ok(sent) => sent.map_err(ended)?,
        Err(Elapsed) => return Err(silent()),
    }
    if introduction.kind == Kind::Work {
        // frps says nothing on it until a visitor comes.
        return Ok((upstream, Vec::new()));
    }
    let (mut answer, mut more) = (vec![0; 4096], [0; 2048]);
    let wait = async {
        loop {
            let space = more.len().min(HEAD_MOST - introduction.head.len());
            tokio::select! {
                biased;
                read = upstream.read(&mut answer) => match read {
                    Ok(0) => return Err(ended(io::ErrorKind::UnexpectedEof.into())),
                    Ok(n) => {
                        answer.truncate(n);
                        return Ok(());
                    }
                    Err(why) => return Err(ended(why)),
                },
                read = stream.read(&mut more[..space]), if space > 0 => match read {
                    Ok(0) | Err(_) => return Err(Failed::Gone),
                    Ok(n) => {
                        introduction.head.extend_from_slice(&more[..n]);
                        upstream.write_all(&more[..n]).await.map_err(ended)?;
                    }
                },
            }
        }
    };
    match until(deadline, wait).await {
        Ok(answered) => answered.map(|()| (upstream, answer)),
        Err(Elapsed) => Err(silent()),
    }
}
