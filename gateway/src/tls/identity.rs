//! Who a client's certificate is for. Made once per connection, from a leaf that the handshake has verified.
//!
//! A name counts only if every reader of the certificate reads it alike: two URIs are no SPIFFE identity (X.509-SVID §2), two
//! common names are none, and what isn't a DNS name in a DNS field is left out.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use frp_gateway_config::model::Identity;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

/// Fields that tell the application who the client is. The gateway writes them, or nobody does.
pub const CLIENT_FIELDS: [&str; 3] = ["client-cert", "client-cert-chain", "x-forwarded-client-identity"];
/// Longest SPIFFE ID (SPIFFE-ID §2.3).
const SPIFFE_MOST: usize = 2048;
/// Longest trust domain (SPIFFE-ID §2.1).
const TRUST_DOMAIN_MOST: usize = 255;

/// Who a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// What it presented, leaf first. Empty for one that is only asked about.
    pub chain: Vec<CertificateDer<'static>>,
    /// The SPIFFE ID.
    pub uri: Option<Box<str>>,
    /// DNS names, lower case, in the certificate's order.
    pub dns: Vec<Box<str>>,
    /// Common name of the subject.
    pub common_name: Option<Box<str>>,
    /// Serial number, lower-case hex.
    pub serial: Box<str>,
    /// Distinguished name of the issuer, in one line.
    pub issuer: Box<str>,
    /// SHA-256 of the leaf, lower-case hex.
    pub fingerprint: Box<str>,
    /// The one name that logs and applications see: the first there is of SPIFFE ID, `dns:NAME`, `cn:TEXT`, `sha256:HEX`. Visible
    /// ASCII; other bytes of a common name are percent-encoded.
    pub name: Box<str>,
    /// The fields for the application, whole lines.
    pub fields: Box<[u8]>,
}

/// The leaf isn't a certificate that can be read.
#[derive(Debug, thiserror::Error)]
#[error("the client's certificate can't be read: {0}")]
pub struct Unreadable(String);

impl ClientIdentity {
    /// Of a verified chain, leaf first.
    ///
    /// # Errors
    /// The leaf can't be read, although the handshake's own parser could.
    pub fn of(chain: &[CertificateDer<'_>]) -> Result<Self, Unreadable> {
        let leaf = chain.first().ok_or_else(|| Unreadable("there is none".into()))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| Unreadable(error.to_string()))?;
        let names = parsed.subject_alternative_name().map_err(|error| Unreadable(error.to_string()))?;
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let uris: Vec<&str> = names
            .iter()
            .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
            .collect();
        let uri = match uris.as_slice() {
            [only] if is_spiffe(only) => Some((*only).into()),
            [..] => None,
        };
        let dns = names
            .iter()
            .filter_map(|name| if let GeneralName::DNSName(name) = name { dns_name(name) } else { None })
            .collect();
        let mut common = parsed.subject().iter_common_name();
        let common_name = match (common.next(), common.next()) {
            (Some(only), None) => only.as_str().ok().filter(|text| !text.is_empty()).map(Into::into),
            (None | Some(_), _) => None,
        };
        let told = Self {
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
            uri,
            dns,
            common_name,
            serial: hex(parsed.raw_serial()),
            issuer: plain(&parsed.issuer().to_string()).into(),
            fingerprint: hex(&Sha256::digest(leaf)),
            name: Box::default(),
            fields: Box::default(),
        };
        Ok(told.named())
    }

    /// One that nobody has shown: `spiffe://…`, `dns:NAME` or `cn:TEXT`, to ask what would become of it.
    #[must_use]
    pub fn supposed(text: &str) -> Option<Self> {
        let mut told = Self::nobody();
        if is_spiffe(text) {
            told.uri = Some(text.into());
        } else if let Some(name) = text.strip_prefix("dns:") {
            told.dns.push(dns_name(name)?);
        } else if let Some(name) = text.strip_prefix("cn:").filter(|name| !name.is_empty()) {
            told.common_name = Some(name.into());
        } else {
            return None;
        }
        Some(told.named())
    }

    /// One without names.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            chain: Vec::new(),
            uri: None,
            dns: Vec::new(),
            common_name: None,
            serial: Box::default(),
            issuer: Box::default(),
            fingerprint: Box::default(),
            name: Box::default(),
            fields: Box::default(),
        }
    }

    /// Whether one of its names fits `pattern`.
    #[must_use]
    pub fn is(&self, pattern: &Identity) -> bool {
        match pattern {
            Identity::Uri(pattern) => self.uri.as_deref().is_some_and(|uri| pattern.fits(uri)),
            Identity::Dns(pattern) => self.dns.iter().any(|name| pattern.contains(name)),
            Identity::CommonName(pattern) => {
                self.common_name.as_deref().is_some_and(|name| pattern.fits(name))
            }
        }
    }

    /// Whether it is in a list of those let in; an empty list lets everybody in.
    #[must_use]
    pub fn is_allowed(&self, allow: &[Identity]) -> bool {
        allow.is_empty() || allow.iter().any(|pattern| self.is(pattern))
    }

    fn named(mut self) -> Self {
        self.name = match (&self.uri, self.dns.first(), &self.common_name) {
            (Some(uri), _, _) => uri.clone(),
            (None, Some(dns), _) => format!("dns:{dns}").into(),
            (None, None, Some(text)) => format!("cn:{}", visible(text)).into(),
            (None, None, None) => format!("sha256:{}", self.fingerprint).into(),
        };
        let mut fields = Vec::new();
        if let Some(leaf) = self.chain.first() {
            // RFC 9440 §2.2, RFC 8941 §3.3.5: a byte sequence.
            write!(
                fields,
                "Client-Cert: :{}:\r\nX-Forwarded-Client-Identity: {}\r\n",
                STANDARD.encode(leaf),
                self.name
            )
            .expect("writing to a Vec cannot fail");
        }
        self.fields = fields.into();
        self
    }
}

/// Whether a field is one of [`CLIENT_FIELDS`], `_` for `-` included: many applications read both alike.
#[must_use]
pub fn is_client_field(name: &[u8]) -> bool {
    matches!(name.len(), 11 | 17 | 27)
        && CLIENT_FIELDS.iter().any(|field| {
            field.len() == name.len()
                && field.bytes().zip(name).all(|(ours, theirs)| {
                    ours == if *theirs == b'_' { b'-' } else { theirs.to_ascii_lowercase() }
                })
        })
}

/// SPIFFE-ID §2: `spiffe://` trust domain, then a path without empty, `.` or `..` segments; no port, query or fragment.
fn is_spiffe(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix("spiffe://") else { return false };
    let (domain, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let domain_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let path_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let segment = |segment: &str| {
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(path_byte)
    };
    uri.len() <= SPIFFE_MOST
        && !domain.is_empty()
        && domain.len() <= TRUST_DOMAIN_MOST
        && domain.bytes().all(domain_byte)
        && (path.is_empty() || path[1..].split('/').all(segment))
}

/// A DNS name in lower case; a wildcard may be its first label.
fn dns_name(name: &str) -> Option<Box<str>> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let bare = name.strip_prefix("*.").unwrap_or(name);
    (name.len() <= 253 && bare.split('.').all(label)).then(|| name.to_ascii_lowercase().into())
}

/// Everything but visible ASCII, and `%`, percent-encoded; spaces stay.
fn visible(text: &str) -> String {
    // Fields lose spaces at their ends.
    encoded(text, |char| (' '..='~').contains(&char) && char != '%').trim().to_owned()
}

/// Control characters percent-encoded: what is told of a certificate is one line.
pub(super) fn plain(text: &str) -> String {
    encoded(text, |char| !char.is_control())
}

/// Percent-encodes all characters but those to `keep`.
fn encoded(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if keep(char) {
            out.push(char);
        } else {
            for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    out
}

fn hex(bytes: &[u8]) -> Box<str> {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

#[cfg(test)]
mod tests;
