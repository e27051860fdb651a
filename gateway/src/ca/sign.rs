//! What a root, a leaf and a revocation list say. Pure but for the keys' random numbers; nothing is written.

use std::io;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use rustix::rand::{GetRandomFlags, getrandom};
use time::{Duration, OffsetDateTime};

use super::{
    CaError,
    index::{Entry, Identity, KeyKind, Reason, Use},
};

/// Machines' clocks differ: what is issued now is valid for one that is this much late.
const BACKDATED: Duration = Duration::minutes(5);

/// A key and its certificate, both PEM.
pub(super) struct Signed {
    pub(super) certificate: String,
    pub(super) key: String,
}

pub(super) fn new_key(kind: KeyKind) -> Result<KeyPair, CaError> {
    Ok(KeyPair::generate_for(match kind {
        KeyKind::P256 => &PKCS_ECDSA_P256_SHA256,
        KeyKind::P384 => &PKCS_ECDSA_P384_SHA384,
        KeyKind::Ed25519 => &PKCS_ED25519,
    })?)
}

/// 126 random bits, positive and of one length (RFC 5280 §4.1.2.2 allows 20 bytes).
fn new_serial() -> Result<[u8; 16], CaError> {
    let mut bytes = [0; 16];
    let filled =
        getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|error| CaError::Random(error.into()))?;
    if filled != bytes.len() {
        return Err(CaError::Random(io::ErrorKind::UnexpectedEof.into()));
    }
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(bytes)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).filter_map(|n| u8::try_from(n).ok()).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// A root that signs itself. Its number is in its name: verifiers find a revocation list by the issuer's name, so two roots of one
/// name would be taken for each other.
pub(super) fn root(
    name: &str,
    number: u32,
    kind: KeyKind,
    now: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Result<Signed, CaError> {
    let key = new_key(kind)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("{name} {number}"));
    params.serial_number = Some(SerialNumber::from_slice(&new_serial()?));
    params.not_before = now - BACKDATED;
    params.not_after = not_after;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?.pem();
    Ok(Signed { certificate, key: key.serialize_pem() })
}

/// A leaf for `key`, and its serial number.
pub(super) fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    name: &str,
    identity: &Identity,
    key: &KeyPair,
    now: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Result<(String, String), CaError> {
    let serial = new_serial()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = now - BACKDATED;
    params.not_after = not_after;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = identity
        .uses
        .iter()
        .map(|one| match one {
            Use::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Use::Server => ExtendedKeyUsagePurpose::ServerAuth,
        })
        .collect();
    for host in &identity.dns {
        params.subject_alt_names.push(SanType::DnsName(host.as_str().try_into()?));
    }
    params.subject_alt_names.extend(identity.ip.iter().map(|ip| SanType::IpAddress(*ip)));
    if let Some(uri) = &identity.uri {
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
    }
    Ok((params.signed_by(key, issuer)?.pem(), hex(&serial)))
}

/// The list of what is revoked of one root.
pub(super) fn revocation_list<'a>(
    issuer: &Issuer<'_, KeyPair>,
    revoked: impl Iterator<Item = &'a Entry>,
    number: u64,
    now: OffsetDateTime,
    next: OffsetDateTime,
) -> Result<String, CaError> {
    let revoked_certs = revoked
        .filter_map(|entry| {
            let revocation = entry.revoked?;
            Some(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&unhex(&entry.serial)),
                revocation_time: revocation.at,
                reason_code: reason_code(revocation.reason),
                invalidity_date: None,
            })
        })
        .collect();
    let params = CertificateRevocationListParams {
        this_update: now - BACKDATED,
        next_update: next,
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(params.signed_by(issuer)?.pem()?)
}

const fn reason_code(reason: Reason) -> Option<RevocationReason> {
    match reason {
        // RFC 5280 §5.3.1: left out rather than written.
        Reason::Unspecified => None,
        Reason::KeyCompromise => Some(RevocationReason::KeyCompromise),
        Reason::AffiliationChanged => Some(RevocationReason::AffiliationChanged),
        Reason::Superseded => Some(RevocationReason::Superseded),
        Reason::CessationOfOperation => Some(RevocationReason::CessationOfOperation),
        Reason::PrivilegeWithdrawn => Some(RevocationReason::PrivilegeWithdrawn),
    }
}
