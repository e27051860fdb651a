//! Seals the claim of a proxy that was taken over, so that frps can keep it: nobody who reads frps's admin API learns it, and
//! nobody can make or move one.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{AeadInOut, Key, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use frp_gateway_config::secret::Secret;
use hkdf::Hkdf;
use sha2::{Digest, Sha256};

use super::{BasicAuth, HttpClaim};

/// What keys are derived for. Gateways and agents must agree on it, so it never changes.
const INFO: [&[u8]; 3] =
    [b"frp-gateway claim cipher v1", b"frp-gateway claim nonce v1", b"frp-gateway claim digests v1"];
/// First part of a sealed text.
const VERSION: &str = "v1.";
const NONCE: usize = 24;
const TAG: usize = 16;
/// Longest sealed text that is looked at, characters: frpc sends 10 KB at most, and a seal makes 4/3 of it.
const LONGEST: usize = 256 * 1024;

/// The keys of `plugin.key` and `plugin.old_key`.
///
/// XChaCha20-Poly1305. The nonce is derived from key and content (as in RFC 5297, SIV): sealing the same claim twice gives
/// the same text and no state is needed; another claim never meets the same nonce. Name of frps and proxy are authenticated
/// with it, so a seal is worth nothing elsewhere.
pub struct Seals {
    present: Keys,
    old: Option<Keys>,
}

struct Keys {
    cipher: XChaCha20Poly1305,
    nonces: [u8; 32],
    digests: [u8; 32],
}

impl fmt::Debug for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seals(***)")
    }
}

impl Seals {
    /// From `plugin.key` and `plugin.old_key`.
    #[must_use]
    pub fn new(key: &Secret, old: Option<&Secret>) -> Self {
        Self { present: Keys::new(key), old: old.map(Keys::new) }
    }

    /// The claim as text for an annotation of `proxy` on `frps`. Deterministic.
    #[must_use]
    pub fn seal(&self, frps: &str, proxy: &str, claim: &HttpClaim) -> String {
        let mut body = serde_json::to_vec(claim).expect("a claim is texts and lists of them");
        let context = context(&[frps.as_bytes(), proxy.as_bytes()]);
        let mut nonce = [0; NONCE];
        derive(&self.present.nonces, &[&context, &body], &mut nonce);
        let tag = self
            .present
            .cipher
            .encrypt_inout_detached(&XNonce::from(nonce), &context, body.as_mut_slice().into())
            .expect("the cipher takes far more than a claim");
        let sealed = [&nonce[..], &body, &tag[..]].concat();
        format!("{VERSION}{}", URL_SAFE_NO_PAD.encode(sealed))
    }

    /// What was sealed for `proxy` on `frps`, with either key; `None` when it was not, or was changed.
    #[must_use]
    pub fn open(&self, frps: &str, proxy: &str, sealed: &str) -> Option<HttpClaim> {
        let text = sealed.strip_prefix(VERSION).filter(|text| text.len() <= LONGEST)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let context = context(&[frps.as_bytes(), proxy.as_bytes()]);
        let plain = unseal(&self.present.cipher, &context, &bytes)
            .or_else(|| unseal(&self.old.as_ref()?.cipher, &context, &bytes))?;
        serde_json::from_slice(&plain).ok()
    }

    /// Text that stands for a group key: equal for equal keys, and tells nothing of them. Empty for none.
    #[must_use]
    pub fn group_key(&self, key: &str) -> String {
        if key.is_empty() {
            return String::new();
        }
        let mut digest = [0; 16];
        derive(&self.present.digests, &[b"group key", key.as_bytes()], &mut digest);
        hex(&digest)
    }

    /// What is kept of a proxy's `httpUser` and `httpPassword`.
    #[must_use]
    pub fn basic_auth(&self, frps: &str, proxy: &str, user: &str, password: &str) -> BasicAuth {
        let mut salt = [0; 16];
        let parts: [&[u8]; 4] = [frps.as_bytes(), proxy.as_bytes(), user.as_bytes(), password.as_bytes()];
        derive(&self.present.digests, &parts, &mut salt);
        BasicAuth::of(&hex(&salt), user, password)
    }
}

impl Keys {
    /// A text isn't evenly random over 32 bytes, hence the derivation.
    fn new(secret: &Secret) -> Self {
        let source = Hkdf::<Sha256>::new(None, secret.expose().as_bytes());
        let derive = |info: &[u8]| {
            let mut key = [0; 32];
            source.expand(info, &mut key).expect("HKDF gives up to 255 × 32 bytes");
            key
        };
        let [cipher, nonces, digests] = INFO.map(derive);
        Self { cipher: XChaCha20Poly1305::new(&Key::from(cipher)), nonces, digests }
    }
}

impl BasicAuth {
    /// Of these credentials, under that salt.
    #[must_use]
    pub fn of(salt: &str, user: &str, password: &str) -> Self {
        Self { hash: digest(salt, format!("{user}:{password}").as_bytes()), salt: salt.to_owned() }
    }

    /// Whether these are the credentials, given as `user:password`. In constant time.
    #[must_use]
    pub fn matches(&self, credentials: &[u8]) -> bool {
        use subtle::ConstantTimeEq;
        digest(&self.salt, credentials).as_bytes().ct_eq(self.hash.as_bytes()).into()
    }
}

fn digest(salt: &str, credentials: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(salt.as_bytes());
    hasher.update(credentials);
    hex(&hasher.finalize())
}

fn unseal(cipher: &XChaCha20Poly1305, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
    let (body, tag) = rest.split_last_chunk::<TAG>()?;
    let mut plain = body.to_vec();
    let opened = cipher.decrypt_inout_detached(
        &XNonce::from(*nonce),
        context,
        plain.as_mut_slice().into(),
        &Tag::from(*tag),
    );
    opened.ok().map(|()| plain)
}

/// HMAC-SHA-256 (the extract step of HKDF) of the parts, expanded to `out`.
fn derive(key: &[u8; 32], parts: &[&[u8]], out: &mut [u8]) {
    Hkdf::<Sha256>::new(Some(key), &context(parts))
        .expand(b"", out)
        .expect("HKDF gives up to 255 × 32 bytes");
}

/// The parts, each preceded by its length: `a`, `bc` isn't `ab`, `c`.
fn context(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seals(key: &str, old: Option<&str>) -> Seals {
        Seals::new(&Secret::new(key), old.map(Secret::new).as_ref())
    }

    fn claim() -> HttpClaim {
        HttpClaim {
            user: "alice".into(),
            call: "29c3".into(),
            domains: vec!["app.test".into()],
            locations: vec!["/".into()],
            ..HttpClaim::default()
        }
    }

    #[test]
    fn what_was_sealed_opens_there_and_nowhere_else() {
        let one = seals("first key of 32 characters......", None);
        let sealed = one.seal("a", "alice.web", &claim());
        assert_eq!(one.open("a", "alice.web", &sealed), Some(claim()));
        assert_eq!(one.seal("a", "alice.web", &claim()), sealed, "the same claim, the same text");
        assert!(!sealed.contains("app.test"), "{sealed}");
        assert_eq!(one.open("b", "alice.web", &sealed), None, "on another frps");
        assert_eq!(one.open("a", "bob.web", &sealed), None, "under another name");
        let two = seals("second key of 32 characters.....", Some("first key of 32 characters......"));
        assert_eq!(two.open("a", "alice.web", &sealed), Some(claim()), "the old key still opens");
        let three = seals("second key of 32 characters.....", None);
        assert_eq!(three.open("a", "alice.web", &sealed), None, "but only while it is configured");
    }

    #[test]
    fn no_single_wrong_bit_of_a_seal_opens() {
        let seals = seals("k", None);
        let sealed = seals.seal("a", "web", &claim());
        let bytes = URL_SAFE_NO_PAD.decode(sealed.strip_prefix(VERSION).unwrap()).unwrap();
        for at in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[at / 8] ^= 1 << (at % 8);
            let text = format!("{VERSION}{}", URL_SAFE_NO_PAD.encode(wrong));
            assert_eq!(seals.open("a", "web", &text), None, "bit {at}");
        }
        for end in 0..sealed.len() {
            assert_eq!(seals.open("a", "web", &sealed[..end]), None, "cut to {end}");
        }
    }

    #[test]
    fn credentials_match_and_nothing_else_does() {
        let auth = seals("k", None).basic_auth("a", "web", "carol", "s3cret");
        assert!(auth.matches(b"carol:s3cret"));
        assert!(!auth.matches(b"carol:s3cre") && !auth.matches(b"carol") && !auth.matches(b""));
        assert!(!format!("{auth:?}").contains(&auth.hash));
    }

    proptest! {
        #[test]
        fn one_wrong_bit_and_it_does_not_open(at in 0usize..600, bit in 0u8..8) {
            let seals = seals("k", None);
            let mut bytes = seals.seal("a", "web", &claim()).into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert_eq!(seals.open("a", "web", &text), None);
            }
        }

        #[test]
        fn garbage_does_no_harm(text in ".{0,200}") {
            let seals = seals("k", None);
            prop_assert_eq!(seals.open("a", "web", &text), None);
            let prefixed = format!("v1.{text}");
            prop_assert_eq!(seals.open("a", "web", &prefixed), None);
        }
    }
}
