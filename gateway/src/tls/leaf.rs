//! What a certificate says of itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName,
    oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS, prelude::FromDer, public_key::PublicKey,
};

use super::identity::plain;

/// Smallest RSA key that is served, bits.
pub const LEAST_RSA_BITS: usize = 2048;

/// Kind of a key, best first: the order in which they are offered to a client that takes several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// Elliptic curves.
    Ecdsa,
    /// Edwards curve.
    Ed25519,
    /// RSA.
    Rsa,
    /// Something else.
    Other,
}

impl KeyKind {
    /// In metrics and answers.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ecdsa => "ecdsa",
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
            Self::Other => "other",
        }
    }
}

/// What matters of a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// DNS names it is for, in lower case, as it lists them; the common name doesn't count (RFC 9525).
    pub names: Vec<String>,
    /// Its subject, for people.
    pub subject: String,
    /// Who signed it, for people.
    pub issuer: String,
    /// The issuer's name in DER.
    pub issuer_der: Vec<u8>,
    /// Serial number, without leading zeros.
    pub serial: Vec<u8>,
    /// Not before this.
    pub not_before: SystemTime,
    /// Not after this.
    pub not_after: SystemTime,
    /// Kind of its key.
    pub key: KeyKind,
    /// Size of an RSA key, bits.
    pub rsa_bits: Option<usize>,
    /// It says where the certificate of its issuer is to be had: so the issuer isn't a root.
    pub names_issuer: bool,
    /// It was signed by itself.
    pub self_signed: bool,
}

/// Whether a certificate may be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// It may.
    Valid,
    /// Its time has not come.
    NotYet,
    /// Its time is over.
    Expired,
}

impl Leaf {
    /// Reads it. O(bytes).
    ///
    /// # Errors
    /// Why it isn't a certificate.
    pub fn of(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, cert) =
            X509Certificate::from_der(der).map_err(|error| format!("not a certificate: {error}"))?;
        let alternative = cert.subject_alternative_name();
        let alternative =
            alternative.map_err(|error| format!("its subject alternative names are malformed: {error}"))?;
        let general = alternative.iter().flat_map(|extension| &extension.value.general_names);
        let names = general.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(plain(name.trim_end_matches('.')).to_ascii_lowercase()),
            _ => None,
        });
        let (key, rsa_bits) = match cert.public_key().parsed() {
            Ok(PublicKey::RSA(rsa)) => (KeyKind::Rsa, Some(rsa.key_size())),
            Ok(PublicKey::EC(_)) => (KeyKind::Ecdsa, None),
            Ok(_) | Err(_) if cert.public_key().algorithm.algorithm.to_id_string() == "1.3.101.112" => {
                (KeyKind::Ed25519, None)
            }
            Ok(_) | Err(_) => (KeyKind::Other, None),
        };
        let names_issuer = cert.extensions().iter().any(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::AuthorityInfoAccess(access) => access
                .accessdescs
                .iter()
                .any(|one| one.access_method == OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS),
            _ => false,
        });
        let serial = cert.raw_serial();
        let zeros = serial.iter().take_while(|byte| **byte == 0).count();
        Ok(Self {
            names: names.collect(),
            subject: plain(&cert.subject().to_string()),
            issuer: plain(&cert.issuer().to_string()),
            issuer_der: cert.issuer().as_raw().to_vec(),
            serial: serial[zeros..].to_vec(),
            not_before: at(cert.validity().not_before.timestamp()),
            not_after: at(cert.validity().not_after.timestamp()),
            key,
            rsa_bits,
            names_issuer,
            self_signed: cert.subject().as_raw() == cert.issuer().as_raw(),
        })
    }

    /// Whether it may be used at that time.
    #[must_use]
    pub fn validity(&self, now: SystemTime) -> Validity {
        if now > self.not_after {
            Validity::Expired
        } else if now < self.not_before {
            Validity::NotYet
        } else {
            Validity::Valid
        }
    }

    /// Seconds until it expires; negative afterwards.
    #[must_use]
    pub fn seconds_left(&self, now: SystemTime) -> i64 {
        seconds_until(self.not_after, now)
    }

    /// The name it goes by: its first one, or its subject.
    #[must_use]
    pub fn primary_name(&self) -> &str {
        self.names.first().unwrap_or(&self.subject)
    }
}

/// Whole seconds from `now` until `at`; negative afterwards.
#[must_use]
pub fn seconds_until(at: SystemTime, now: SystemTime) -> i64 {
    let whole = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    match at.duration_since(now) {
        Ok(left) => whole(left),
        Err(over) => -whole(over.duration()),
    }
}

/// Unix seconds as a time; what lies before 1970 is 1970.
fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests;
