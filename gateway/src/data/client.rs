//! Clients by their certificates: who has come, who was refused, and who isn't good any more.

use std::{
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rustls::pki_types::CertificateDer;

use super::{connection::Connection, worker::Worker};
use crate::{
    snapshot::Listener,
    telemetry::audit::Certified,
    tls::{
        ClientGate, ClientIdentity, Terminator,
        client::{Unwelcome, last_refused},
    },
};

/// How long a thread may be busy judging clients before it serves others.
const TURN: Duration = Duration::from_millis(2);

/// Who is at the other end, after a handshake. `gate` is what judged clients before it: if that has changed in the meantime, the
/// client is judged again.
///
/// # Errors
/// It isn't good any more.
pub fn introduced(
    chain: Option<&[CertificateDer<'_>]>,
    tls: &Terminator,
    gate: Option<&Arc<ClientGate>>,
) -> Result<Option<Arc<ClientIdentity>>, (Arc<ClientIdentity>, Unwelcome)> {
    let Some(chain) = chain.filter(|chain| !chain.is_empty()) else { return Ok(None) };
    // The handshake's own parser could read it: nobody is let in whom this one can't tell.
    let client = Arc::new(ClientIdentity::of(chain).unwrap_or_else(|_unreadable| ClientIdentity::nobody()));
    if client.fingerprint.is_empty() {
        return Err((client, Unwelcome::Bad));
    }
    match tls.client_gate() {
        Some(now) if !gate.is_some_and(|before| Arc::ptr_eq(before, &now)) => {
            now.still(&client, SystemTime::now()).map_err(|why| (Arc::clone(&client), why))?;
        }
        Some(_) | None => {}
    }
    Ok(Some(client))
}

/// A handshake failed: if it was for the client's certificate, that is counted and told.
pub fn refused(worker: &Worker, listener: &Listener, peer: IpAddr, error: &rustls::Error) -> bool {
    let Some(why) = Unwelcome::of(error) else { return false };
    turned_away(worker, listener, peer, last_refused().as_deref(), why);
    true
}

/// A client isn't let in.
pub fn turned_away(
    worker: &Worker,
    listener: &Listener,
    peer: IpAddr,
    client: Option<&ClientIdentity>,
    why: Unwelcome,
) {
    listener.stats.of(worker.id).clients_refused[why.index()].inc();
    let (name, reason) = (client.map_or("", |client| &client.name), why.label());
    // Whom an authority of ours has signed is told one by one; strangers could fill a disk.
    if let Some(client) = client {
        let told = Certified {
            event: "client_refused",
            listener,
            peer,
            client,
            reason: Some(why),
            frps: "",
            user: None,
        };
        worker.audit.certified(told);
    }
    if let Some(suppressed) = worker.may_complain(why.label()) {
        tracing::info!(listener = &*listener.name, %peer, client = name, reason, suppressed, "client refused");
    }
}

/// A client of FRP was let in and placed.
pub fn placed(connection: &Connection, frps: &str, user: Option<&str>) {
    let (Some(client), listener) = (connection.client(), connection.listener()) else { return };
    let told =
        Certified { event: "client", listener, peer: connection.peer, client, reason: None, frps, user };
    connection.worker.audit.certified(told);
}

/// Judges all clients of this thread anew, and cuts those that aren't good any more, whatever they are doing. Kept connections to
/// pools that speak TLS are closed.
pub async fn judge(worker: Rc<Worker>) {
    let (snapshot, now) = (worker.snapshot(), SystemTime::now());
    // Many connections show the same certificate.
    let mut judged: HashMap<(usize, Box<str>), Result<(), Unwelcome>> = HashMap::new();
    let mut turn = Instant::now();
    // Where we have shown or trusted something else than now, kept connections are no good either.
    for member in snapshot.pools.iter().flat_map(|pool| &pool.members) {
        if member.endpoint.tls.is_some() {
            worker.idle.close(member.endpoint.number);
        }
    }
    for (number, slot, peer, client) in worker.certified() {
        let Some(Some(listener)) = snapshot.listeners.get(slot) else { continue };
        let Some(gate) = listener.tls.as_ref().and_then(|tls| tls.client_gate()) else { continue };
        let verdict =
            *judged.entry((slot, client.fingerprint.clone())).or_insert_with(|| gate.still(&client, now));
        if let Err(why) = verdict {
            worker.cut_one(number);
            let reason = why.label();
            listener.stats.of(worker.id).clients_cut[why.index()].inc();
            worker.audit.certified(Certified {
                event: "client_cut",
                listener,
                peer,
                client: &client,
                reason: Some(why),
                frps: "",
                user: None,
            });
            tracing::info!(listener = &*listener.name, %peer, client = &*client.name, reason, "client cut");
        }
        if turn.elapsed() >= TURN {
            tokio::task::yield_now().await;
            turn = Instant::now();
        }
    }
}
