//! A visitor's session as one exchange sees it: what its cookie says, and the cookie it gets.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    affinity::{Opened, Session, cookie_values},
    attempt::Attempt,
    headers,
};
use crate::{
    http1::{Known, RequestHead},
    snapshot::{Member, Pool},
};

/// Cookies of our name that are looked at in one request: opening one costs more than anything else a head may make us do.
const MOST_TRIES: usize = 8;

/// What the affinity cookie of a request says.
#[derive(Debug, Default, Clone, Copy)]
pub struct SessionCookie {
    session: Option<Session>,
    /// The cookie is good but should be written anew.
    renew: bool,
    /// No cookie is to be set, although somebody else serves.
    keep: bool,
    strict: bool,
    /// The cookie is good, but no member of the pool is meant by it.
    lost: bool,
}

impl SessionCookie {
    /// The member that the session is at.
    #[must_use]
    pub fn member(&self, pool: &Pool) -> Option<usize> {
        let session = self.session.filter(|_| !self.lost)?;
        at(pool, session.member)
    }

    /// Whether the session is at an endpoint that the pool doesn't have.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether nobody else may serve it.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// This once somebody else serves; the session isn't moved.
    pub fn leave_as_it_is(&mut self) {
        self.keep = true;
    }
}

/// The member that a session's key means. A tunnel that has moved to another frps is known by the upper half, if no other of
/// the pool has its name.
fn at(pool: &Pool, key: u64) -> Option<usize> {
    let exact = pool.members.iter().position(|member| member.key == key);
    if exact.is_some() || !pool.of_tunnels {
        return exact;
    }
    let same_name = |member: &Member| member.tunnel.is_some() && member.key >> 32 == key >> 32;
    let found = pool.members.iter().position(same_name)?;
    (!pool.members[found + 1..].iter().any(same_name)).then_some(found)
}

/// Reads the cookie of a request to `pool`. Forged, expired and foreign ones count as none.
#[must_use]
pub fn read(pool: &Pool, head: &RequestHead, wire: &[u8]) -> SessionCookie {
    let Some(sealer) = &pool.sealer else { return SessionCookie::default() };
    let values = head
        .fields
        .iter()
        .filter(|field| field.known == Known::Cookie)
        .flat_map(|field| cookie_values(field.value.of(wire), sealer.name()))
        .take(MOST_TRIES);
    let now = unix_seconds();
    for value in values {
        if let Opened::Session { session, renew } = sealer.open(value, now) {
            let lost = at(pool, session.member).is_none();
            return SessionCookie {
                session: Some(session),
                renew,
                keep: false,
                strict: sealer.is_strict(),
                lost,
            };
        }
    }
    SessionCookie::default()
}

/// Writes the `Set-Cookie` line that goes with the answer of `attempt`; nothing when the visitor needs none.
pub fn write_for(
    out: &mut Vec<u8>,
    cookie: SessionCookie,
    attempt: &Attempt<'_>,
    head: &RequestHead,
    wire: &[u8],
) {
    out.clear();
    let (request, member) = (attempt.request, attempt.member);
    let pool = &*request.split.pool;
    let Some(sealer) = &pool.sealer else { return };
    if cookie.keep {
        return;
    }
    let session = match cookie.session {
        Some(session) if session.member == member.key && !cookie.renew => return,
        Some(session) if session.member == member.key => Session { used: unix_seconds(), ..session },
        Some(_) | None => {
            let now = unix_seconds();
            Session { member: member.key, issued: now, used: now }
        }
    };
    let mut nonce = [0; 24];
    // Without a nonce there is no cookie; the kernel has run out of nothing since it has run at all.
    if !matches!(rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty()), Ok(24)) {
        return;
    }
    let secure = headers::is_https(head, wire, request.listener, request.connection.peer);
    sealer.set_cookie(session, nonce, secure, out);
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
