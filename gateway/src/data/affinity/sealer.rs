//! The value of an affinity cookie: sealed, so that a visitor can neither read, forge nor carry it to another pool.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{AeadInOut, Key, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use frp_gateway_config::{model::AffinityCookie, secret::Secret};
use hkdf::Hkdf;
use sha2::Sha256;

use super::cookie::SetCookie;

/// What the key is derived for. Replicas must agree on it, so it never changes.
const KEY_INFO: &[u8] = b"frp-gateway affinity cookie key v1";
/// What a sealed value is for. Replicas must agree on it, so it never changes.
const PURPOSE: &[u8] = b"frp-gateway affinity cookie";
/// Version of the plaintext.
const VERSION: u8 = 1;

const NONCE: usize = 24;
/// Version, member, issued, used.
const PLAIN: usize = 1 + 3 * 8;
const TAG: usize = 16;
const SEALED: usize = NONCE + PLAIN + TAG;
/// Characters of a value: base64 of [`SEALED`] bytes without padding.
const TEXT: usize = (SEALED * 4).div_ceil(3);

/// How far in the future a cookie's times may lie, seconds: clocks of replicas differ.
const SKEW: u64 = 60;

/// What a cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// [`Member::key`](crate::snapshot::Member::key) of the member it is at.
    pub member: u64,
    /// When it began, unix seconds.
    pub issued: u64,
    /// When its cookie was last written, unix seconds.
    pub used: u64,
}

/// What a value turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// Not ours, or not valid any more. Which of them, nobody learns.
    None,
    /// A session.
    Session {
        /// The session.
        session: Session,
        /// It should be written anew, with `used` set to now.
        renew: bool,
    },
}

/// Seals and opens the affinity cookies of one pool. Built once per compile.
///
/// XChaCha20-Poly1305 under a key derived by HKDF-SHA256 from the configured secret; 24 random bytes as nonce need no
/// memory of those used before. Purpose, pool and cookie name are authenticated with it, so a cookie of one pool is none
/// in another even if they share the secret.
///
/// Changing the secret without losing a session: first add the new one as `old_key` in all gateways (they then read it),
/// then swap the two, and drop the old one when the longest session has ended.
#[derive(Debug)]
pub struct Sealer {
    name: Box<[u8]>,
    strict: bool,
    cipher: XChaCha20Poly1305, // its Debug shows no key
    old_cipher: Option<XChaCha20Poly1305>,
    context: Box<[u8]>,
    /// Seconds.
    ttl: Option<u64>,
    /// Seconds.
    idle: Option<u64>,
    line: SetCookie,
}

impl Sealer {
    /// For the cookies of the pool called `pool`. Fractions of a second in `ttl` and `idle` are rounded up.
    #[must_use]
    pub fn new(config: &AffinityCookie, pool: &str) -> Self {
        Self {
            name: config.name.as_bytes().into(),
            strict: config.strict,
            cipher: cipher(&config.key),
            old_cipher: config.old_key.as_ref().map(cipher),
            context: context(&[PURPOSE, pool.as_bytes(), config.name.as_bytes()]),
            ttl: config.ttl.map(whole_seconds),
            idle: config.idle.map(whole_seconds),
            line: SetCookie::new(config),
        }
    }

    /// Name of the cookie.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether a session whose member is gone is refused rather than moved.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// Appends the sealed value, 87 characters of base64url. `nonce`: random, never used twice.
    ///
    /// No allocation but `out`'s; 1.4 µs.
    pub fn seal(&self, session: Session, nonce: [u8; NONCE], out: &mut Vec<u8>) {
        let mut sealed = [0; SEALED];
        let (head, rest) = sealed.split_at_mut(NONCE);
        let (body, tag) = rest.split_at_mut(PLAIN);
        head.copy_from_slice(&nonce);
        body.copy_from_slice(&session.to_bytes());
        let mark = self
            .cipher
            .encrypt_inout_detached(&XNonce::from(nonce), &self.context, body.into())
            .expect("the cipher takes far more than these few bytes");
        tag.copy_from_slice(&mark);

        let at = out.len();
        out.resize(at + TEXT, 0);
        let written = URL_SAFE_NO_PAD.encode_slice(sealed, &mut out[at..]).expect("TEXT is its exact length");
        debug_assert_eq!(written, TEXT, "base64 of {SEALED} bytes");
    }

    /// Reads a cookie's value. Forged, damaged, expired and foreign ones are all [`Opened::None`].
    ///
    /// Expired: `ttl` or more after it was issued, `idle` or more after it was last written, or more than 60 s in the
    /// future of `now_unix` (unix seconds). To be renewed: sealed by the old key, or last written more than a quarter of
    /// `idle` ago. So most answers set no cookie, and a session ends between ¾ `idle` and `idle` after its last use.
    ///
    /// No allocation. 1.4 µs with the present key; 2.7 µs with the old one, or forged where there are two keys; 6 ns for
    /// a value of another length (release build, a Xeon with AVX2, one million calls each). A visitor can send many
    /// values of the right length, so the caller bounds how many of one request it tries.
    #[must_use]
    pub fn open(&self, value: &[u8], now_unix: u64) -> Opened {
        let Some(sealed) = decode(value) else { return Opened::None };
        let opened = match unseal(&self.cipher, &self.context, &sealed) {
            Some(session) => Some((session, false)),
            None => self
                .old_cipher
                .as_ref()
                .and_then(|cipher| unseal(cipher, &self.context, &sealed))
                .map(|session| (session, true)),
        };
        match opened {
            Some((session, old)) if self.is_current(session, now_unix) => {
                Opened::Session { session, renew: old || self.is_worn(session, now_unix) }
            }
            Some(_) | None => Opened::None,
        }
    }

    /// Appends a whole `Set-Cookie` line with its CR LF. `secure_connection`: the visitor speaks HTTPS.
    ///
    /// `session.used` is taken for now: `Max-Age` is what is left of `ttl` then, absent without one.
    pub fn set_cookie(
        &self,
        session: Session,
        nonce: [u8; NONCE],
        secure_connection: bool,
        out: &mut Vec<u8>,
    ) {
        let max_age = self.ttl.map(|ttl| ttl.saturating_sub(session.used.saturating_sub(session.issued)));
        self.line.write(out, |out| self.seal(session, nonce, out), max_age, secure_connection);
    }

    fn is_current(&self, session: Session, now: u64) -> bool {
        let begun = |since: u64| since <= now.saturating_add(SKEW);
        let within =
            |limit: Option<u64>, since: u64| limit.is_none_or(|limit| now.saturating_sub(since) < limit);
        begun(session.issued)
            && begun(session.used)
            && within(self.ttl, session.issued)
            && within(self.idle, session.used)
    }

    fn is_worn(&self, session: Session, now: u64) -> bool {
        self.idle.is_some_and(|idle| now.saturating_sub(session.used) > idle / 4)
    }
}

impl Session {
    fn to_bytes(self) -> [u8; PLAIN] {
        let mut bytes = [VERSION; PLAIN];
        bytes[1..9].copy_from_slice(&self.member.to_le_bytes());
        bytes[9..17].copy_from_slice(&self.issued.to_le_bytes());
        bytes[17..].copy_from_slice(&self.used.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; PLAIN]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (numbers, _) = rest.as_chunks::<8>();
        match (*version, numbers) {
            (VERSION, [member, issued, used]) => Some(Self {
                member: u64::from_le_bytes(*member),
                issued: u64::from_le_bytes(*issued),
                used: u64::from_le_bytes(*used),
            }),
            _ => None,
        }
    }
}

/// The cipher of a secret. A text isn't evenly random over 32 bytes, hence the derivation.
fn cipher(secret: &Secret) -> XChaCha20Poly1305 {
    let mut key = Key::default();
    Hkdf::<Sha256>::new(None, secret.expose().as_bytes())
        .expand(KEY_INFO, &mut key)
        .expect("HKDF gives up to 255 × 32 bytes");
    XChaCha20Poly1305::new(&key)
}

/// The parts, each preceded by its length: `a`, `bc` isn't `ab`, `c`.
fn context(parts: &[&[u8]]) -> Box<[u8]> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes.into()
}

/// The sealed bytes of a value; `None` unless it is exactly what [`Sealer::seal`] could have written.
fn decode(value: &[u8]) -> Option<[u8; SEALED]> {
    if value.len() != TEXT {
        return None;
    }
    let mut sealed = [0; SEALED];
    let length = URL_SAFE_NO_PAD.decode_slice(value, &mut sealed).ok()?;
    (length == SEALED).then_some(sealed)
}

fn unseal(cipher: &XChaCha20Poly1305, context: &[u8], sealed: &[u8; SEALED]) -> Option<Session> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
    let (body, tag) = rest.split_first_chunk::<PLAIN>()?;
    let tag = Tag::from(*tag.first_chunk::<TAG>()?);
    let mut body = *body;
    cipher.decrypt_inout_detached(&XNonce::from(*nonce), context, body.as_mut_slice().into(), &tag).ok()?;
    Session::from_bytes(&body)
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}
