//! Requests over TLS that belong on another connection (RFC 9110 §7.4 and §15.5.20, RFC 9113 §9.1.2).
//!
//! A browser sends requests for other hosts over a connection whose certificate covers them and whose address they have. Two
//! of those must not be served as if nothing were: a host whose own connections pass through here unopened, because its
//! application ends TLS; and, where names that have no certificate are refused (`unknown_name: refuse`), a host that this
//! connection's certificate isn't for. The answer, 421, has the browser open a connection for it. Elsewhere hosts that the
//! certificate isn't for are served: who asks for them has looked away from the certificate anyway. No route relies on the
//! name of the handshake; whose certificate the *visitor* has shown is asked with every request.

use super::{connection::Connection, exchange::Stop, l4::sni};
use crate::{
    error::Refusal,
    snapshot::{Listener, Snapshot},
};

/// Whether a request for `host` (not empty, lower case) may come over this connection. Costs two comparisons where there is
/// nothing to look up.
///
/// # Errors
/// It is [`Refusal::Misdirected`].
pub fn check(
    connection: &Connection,
    snapshot: &Snapshot,
    listener: &Listener,
    host: &str,
) -> Result<(), Stop> {
    let beside = listener.passthrough.and_then(|slot| snapshot.listeners.get(slot)?.as_ref());
    if beside.is_some_and(|beside| sni::is_known_in(snapshot, beside, host)) {
        return Err(Stop::Refused(Refusal::Misdirected, "TLS for it doesn't end here"));
    }
    match (connection.asked_for(), &listener.tls) {
        (Some(asked), Some(tls)) if !tls.covers(asked, host) => {
            Err(Stop::Refused(Refusal::Misdirected, "the connection's certificate isn't for it"))
        }
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}
