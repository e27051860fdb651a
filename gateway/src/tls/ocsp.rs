//! OCSP responses that are stapled (RFC 6960, RFC 6066 §8): somebody else fetches them, we check and pass them on.
//!
//! The signature is the client's to check; what we check is what an operator gets wrong: another certificate's response, an
//! old one, an error.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use der::Decode;
use rustls::pki_types::CertificateDer;
use x509_ocsp::{BasicOcspResponse, CertId, CertStatus, OcspResponse, OcspResponseStatus};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::leaf::Leaf;

/// How far the clock of the authority may be ahead of ours.
const SKEW: Duration = Duration::from_secs(300);

const SHA1: &str = "1.3.14.3.2.26";
const SHA256: &str = "2.16.840.1.101.3.4.2.1";

/// What is stapled to a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stapled {
    /// No response is configured.
    None,
    /// The response, until that time; `None` = it names none.
    Until(Option<SystemTime>),
    /// Nothing, since the response can't be used, for that reason.
    Unusable(String),
}

impl Stapled {
    /// Whether what is stapled has outlived itself.
    #[must_use]
    pub fn is_over(&self, now: SystemTime) -> bool {
        matches!(self, Self::Until(Some(until)) if now >= *until)
    }
}

/// Whether the response (DER) says now that this certificate is good.
#[must_use]
pub fn check(response: &[u8], leaf: &Leaf, issuer: Option<&CertificateDer<'_>>, now: SystemTime) -> Stapled {
    match until(response, leaf, issuer, now) {
        Ok(until) => Stapled::Until(until),
        Err(why) => Stapled::Unusable(why),
    }
}

fn until(
    response: &[u8],
    leaf: &Leaf,
    issuer: Option<&CertificateDer<'_>>,
    now: SystemTime,
) -> Result<Option<SystemTime>, String> {
    let malformed = |error: der::Error| format!("not an OCSP response: {error}");
    let response = OcspResponse::from_der(response).map_err(malformed)?;
    let basic = match (response.response_status, response.response_bytes) {
        (OcspResponseStatus::Successful, Some(bytes)) => bytes,
        (OcspResponseStatus::Successful, None) => return Err("it is empty".into()),
        (status, _) => return Err(format!("it is not successful: {status:?}")),
    };
    let basic = BasicOcspResponse::from_der(basic.response.as_bytes()).map_err(malformed)?;
    let about = basic.tbs_response_data.responses;
    let single = about
        .iter()
        .find(|single| is_for(&single.cert_id, leaf, issuer))
        .ok_or("it is for another certificate")?;
    match single.cert_status {
        CertStatus::Good(_) => {}
        CertStatus::Revoked(_) => return Err("it says that the certificate is revoked".into()),
        CertStatus::Unknown(_) => {
            return Err("it says that its authority doesn't know the certificate".into());
        }
    }
    if single.this_update.0.to_system_time() > now + SKEW {
        return Err("its time has not come".into());
    }
    let until = single.next_update.as_ref().map(|until| until.0.to_system_time());
    if until.is_some_and(|until| now >= until) {
        return Err("it expired".into());
    }
    Ok(until)
}

/// Same serial number, same issuer: by name, and by key where the chain has it.
fn is_for(id: &CertId, leaf: &Leaf, issuer: Option<&CertificateDer<'_>>) -> bool {
    let serial = id.serial_number.as_bytes();
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    let algorithm = match id.hash_algorithm.oid.to_string().as_str() {
        SHA1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        SHA256 => &digest::SHA256,
        _ => return serial[zeros..] == leaf.serial,
    };
    let hash = |bytes: &[u8]| digest::digest(algorithm, bytes);
    let key = issuer.and_then(|der| {
        let (_, issuer) = X509Certificate::from_der(der).ok()?;
        Some(hash(&issuer.public_key().subject_public_key.data))
    });
    serial[zeros..] == leaf.serial
        && id.issuer_name_hash.as_bytes() == hash(&leaf.issuer_der).as_ref()
        && key.is_none_or(|key| id.issuer_key_hash.as_bytes() == key.as_ref())
}

#[cfg(test)]
mod tests;
