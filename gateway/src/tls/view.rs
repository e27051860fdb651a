//! Certificates as operators see them.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{ocsp::Stapled, pair::Pair};

/// One certificate: an entry of `GET /api/v1/certificates`. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateView {
    /// Listeners that serve it.
    pub listeners: Vec<String>,
    /// DNS names it is for.
    pub names: Vec<String>,
    /// The name it goes by: its first one, or its subject.
    pub name: String,
    /// Who signed it.
    pub issuer: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// `ecdsa`, `ed25519`, `rsa` or `other`.
    pub key: String,
    /// Not valid before.
    pub not_before: u64,
    /// Not valid after.
    pub not_after: u64,
    /// Whole days until then; negative afterwards.
    pub days_left: i64,
    /// Seconds until then; negative afterwards.
    pub seconds_left: i64,
    /// File of the chain, or `acme`.
    pub source: String,
    /// `none`, `stapled`, or `unusable: ` and why.
    pub ocsp: String,
    /// Why newer content of the files isn't in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// What is legal, but surely unmeant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl CertificateView {
    /// Of a pair of files.
    #[must_use]
    pub fn of(pair: &Pair, listeners: Vec<String>, fault: Option<String>, now: SystemTime) -> Self {
        use std::fmt::Write;
        let leaf = &pair.leaf;
        let mut serial = String::with_capacity(leaf.serial.len() * 2);
        for byte in &leaf.serial {
            write!(serial, "{byte:02x}").expect("writing to a String cannot fail");
        }
        let seconds_left = leaf.seconds_left(now);
        Self {
            listeners,
            names: leaf.names.clone(),
            name: leaf.primary_name().to_owned(),
            issuer: leaf.issuer.clone(),
            serial,
            key: leaf.key.word().to_owned(),
            not_before: unix(leaf.not_before),
            not_after: unix(leaf.not_after),
            days_left: seconds_left.div_euclid(86_400),
            seconds_left,
            source: pair.files.cert.display().to_string(),
            ocsp: match &pair.stapled {
                Stapled::None => "none".to_owned(),
                Stapled::Until(_) => "stapled".to_owned(),
                Stapled::Unusable(why) => format!("unusable: {why}"),
            },
            fault,
            warnings: pair.warnings.clone(),
        }
    }
}

fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
