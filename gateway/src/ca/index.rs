//! What the authority knows: its roots and every certificate it has issued. One JSON file, replaced as a whole.

use std::{collections::HashMap, fmt, net::IpAddr};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime, serde::rfc3339};

/// Of this file's layout.
pub(super) const VERSION: u32 = 1;

/// What keys are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// ECDSA, NIST P-256. Fast, understood everywhere.
    P256,
    /// ECDSA, NIST P-384.
    P384,
    /// Ed25519 (RFC 8410). Browsers don't take it.
    Ed25519,
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// It shows who dials.
    Client,
    /// It shows who is dialled.
    Server,
}

/// Why a certificate was revoked (RFC 5280 §5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Not said.
    Unspecified,
    /// Somebody else may have the key.
    KeyCompromise,
    /// Its owner has changed.
    AffiliationChanged,
    /// A newer one has taken its place.
    Superseded,
    /// It isn't needed any more.
    CessationOfOperation,
    /// Its owner has lost the right to it.
    PrivilegeWithdrawn,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key-compromise",
            Self::AffiliationChanged => "affiliation-changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation-of-operation",
            Self::PrivilegeWithdrawn => "privilege-withdrawn",
        })
    }
}

/// What a root does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RootState {
    /// Signs leaves. Exactly one.
    Signing,
    /// Is trusted, signs its revocation list only. At most one.
    Leaving,
    /// Isn't trusted any more; its key is gone.
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Root {
    pub(super) number: u32,
    pub(super) state: RootState,
    #[serde(with = "rfc3339")]
    pub(super) not_after: OffsetDateTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lists {
    /// Of the newest list; every new list has a greater one.
    pub(super) number: u64,
    /// How long a list is valid.
    pub(super) days: u32,
}

/// When and why a certificate was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When.
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
    /// Why.
    pub reason: Reason,
}

/// What a certificate says, besides who signed it and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// At least one, sorted.
    pub uses: Vec<Use>,
    /// DNS names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip: Vec<IpAddr>,
    /// A URI, as a rule a SPIFFE id, of which a certificate has at most one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose. Several certificates of one name may be valid at once: each renewal leaves the one before to its end.
    pub name: String,
    /// Hex, 32 digits.
    pub serial: String,
    /// Number of the root that signed it.
    pub root: u32,
    /// What it says.
    #[serde(flatten)]
    pub identity: Identity,
    /// How long a renewal is valid.
    pub days: u32,
    /// When it was issued.
    #[serde(with = "rfc3339")]
    pub issued: OffsetDateTime,
    /// When it ends.
    #[serde(with = "rfc3339")]
    pub not_after: OffsetDateTime,
    /// If it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
}

/// What a certificate is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It is accepted.
    Valid,
    /// It is accepted for less than a third of its life.
    Ending,
    /// It has ended.
    Expired,
    /// It was revoked.
    Revoked,
    /// Its root isn't trusted any more.
    Untrusted,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Valid => "valid",
            Self::Ending => "ending",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Untrusted => "untrusted",
        })
    }
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) version: u32,
    pub(super) name: String,
    pub(super) key: KeyKind,
    pub(super) trust_domain: String,
    pub(super) root_days: u32,
    pub(super) crl: Lists,
    pub(super) roots: Vec<Root>,
    /// Oldest first: the last of a name is the one that is in its folder.
    pub(super) certificates: Vec<Entry>,
}

impl Index {
    /// The root that signs.
    pub(super) fn signing(&self) -> Option<&Root> {
        self.roots.iter().find(|root| root.state == RootState::Signing)
    }

    /// The root that is being replaced.
    pub(super) fn leaving(&self) -> Option<&Root> {
        self.roots.iter().find(|root| root.state == RootState::Leaving)
    }

    /// Roots that are trusted, newest first.
    pub(super) fn trusted(&self) -> impl Iterator<Item = &Root> {
        self.roots.iter().rev().filter(|root| root.state != RootState::Gone)
    }

    /// The newest certificate of each name.
    pub(super) fn newest(&self) -> HashMap<&str, &Entry> {
        self.certificates.iter().map(|entry| (&*entry.name, entry)).collect()
    }

    pub(super) fn standing(&self, entry: &Entry, now: OffsetDateTime) -> Standing {
        let gone = |root: &Root| root.number == entry.root && root.state == RootState::Gone;
        if entry.revoked.is_some() {
            Standing::Revoked
        } else if entry.not_after <= now {
            Standing::Expired
        } else if self.roots.iter().any(gone) {
            Standing::Untrusted
        } else if (entry.not_after - now) * 3 < entry.not_after - entry.issued {
            Standing::Ending
        } else {
            Standing::Valid
        }
    }

    /// Forgets what can't matter any more: certificates that ended long ago and aren't the newest of their name.
    pub(super) fn prune(&mut self, now: OffsetDateTime) {
        let newest: std::collections::HashSet<String> =
            self.newest().values().map(|entry| entry.serial.clone()).collect();
        let past = now - Duration::days(30);
        self.certificates.retain(|entry| entry.not_after > past || newest.contains(&entry.serial));
    }
}
