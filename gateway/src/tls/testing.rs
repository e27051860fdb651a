//! Certificates for tests.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use der::{
    Encode,
    asn1::{BitString, GeneralizedTime, Null, ObjectIdentifier, OctetString},
};
use frp_gateway_config::model::{Certificate, Listener, ListenerTls, Protocol, TlsVersion, UnknownName};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::sign::CertifiedKey;
use x509_cert::{serial_number::SerialNumber, spki::AlgorithmIdentifierOwned};
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspResponse, ResponderId, ResponseData,
    SingleResponse, Version,
};

use super::{
    more::MoreCertificates,
    pair::{Bytes, Pair},
    view::CertificateView,
};
use crate::control::testing::listener;

/// A day.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A key of an RSA certificate: making one takes long.
pub(crate) fn rsa_key() -> KeyPair {
    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap()
}

/// An authority and the folder where its certificates are.
pub(crate) struct Authority {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test Root");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), issuer }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the certificate of that name is, or would be.
    pub(crate) fn files(&self, name: &str) -> Certificate {
        Certificate {
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            ocsp: None,
        }
    }

    /// A certificate, in PEM, that is valid from so many days ago for so many.
    pub(crate) fn sign(&self, names: &[&str], key: &KeyPair, days: std::ops::Range<i64>) -> String {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let at = |days: i64| {
            let now = SystemTime::now();
            let shift = DAY * u32::try_from(days.unsigned_abs()).unwrap();
            if days < 0 { now - shift } else { now + shift }
        };
        params.not_before = at(days.start).into();
        params.not_after = at(days.end).into();
        params.signed_by(key, &self.issuer).unwrap().pem()
    }

    /// Writes a certificate with its key.
    pub(crate) fn write(
        &self,
        file: &str,
        names: &[&str],
        key: &KeyPair,
        days: std::ops::Range<i64>,
    ) -> Certificate {
        let files = self.files(file);
        std::fs::write(&files.cert, self.sign(names, key, days)).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    /// Writes a good one with an ECDSA key.
    pub(crate) fn issue(&self, file: &str, names: &[&str]) -> Certificate {
        self.write(file, names, &KeyPair::generate().unwrap(), -1..90)
    }

    /// The same, read.
    pub(crate) fn pair(&self, file: &str, names: &[&str]) -> Arc<Pair> {
        read(&self.issue(file, names))
    }
}

/// Reads what must be good.
pub(crate) fn read(files: &Certificate) -> Arc<Pair> {
    Arc::new(Pair::new(files, &Bytes::read(files).unwrap(), SystemTime::now()).unwrap())
}

/// Reads what can't be served.
pub(crate) fn wrong(files: &Certificate) -> super::pair::Wrong {
    Bytes::read(files).and_then(|bytes| Pair::new(files, &bytes, SystemTime::now())).map(drop).unwrap_err()
}

/// An https listener with these certificates.
pub(crate) fn https(name: &str, certificates: Vec<Certificate>) -> Listener {
    let tls = ListenerTls {
        certificates,
        acme: false,
        min_version: TlsVersion::V1_2,
        session_tickets: true,
        unknown_name: UnknownName::First,
        client_auth: None,
    };
    Listener { protocol: Protocol::Https, tls: Some(tls), ..listener(name) }
}

/// Has one certificate to show, and one for a name.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) found: Option<(String, Arc<CertifiedKey>)>,
    pub(crate) proof: Option<(String, Arc<CertifiedKey>)>,
}

impl MoreCertificates for Extra {
    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.found.as_ref().filter(|(known, _)| known == name).map(|(_, key)| Arc::clone(key))
    }

    fn challenge(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.proof.as_ref().filter(|(known, _)| known == name).map(|(_, key)| Arc::clone(key))
    }

    fn next_renewal(&self) -> Option<SystemTime> {
        Some(SystemTime::now() + Duration::from_secs(3600))
    }

    fn shown(&self) -> Vec<CertificateView> {
        vec![CertificateView {
            listeners: vec!["web".into()],
            names: vec!["shop.test".into(), "www.shop.test".into()],
            name: "shop.test".into(),
            issuer: "CN=Test Root".into(),
            serial: "01".into(),
            key: "ecdsa".into(),
            not_before: 1_700_000_000,
            not_after: 1_707_776_000,
            days_left: 12,
            seconds_left: 12 * 86_400,
            source: "acme".into(),
            ocsp: "none".into(),
            fault: None,
            warnings: Vec::new(),
        }]
    }
}

/// A response (DER, its signature is none) about the certificate, valid since yesterday until tomorrow.
pub(crate) fn ocsp_response(
    pair: &Pair,
    issuer_key: &[u8],
    edit: impl FnOnce(&mut SingleResponse),
) -> Vec<u8> {
    let hash = |bytes: &[u8]| {
        OctetString::new(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref()).unwrap()
    };
    let at = |time: SystemTime| OcspGeneralizedTime(GeneralizedTime::from_system_time(time).unwrap());
    let algorithm = |oid| AlgorithmIdentifierOwned {
        oid: ObjectIdentifier::new(oid).unwrap(),
        parameters: Some(Null.into()),
    };
    let now = SystemTime::now();
    let mut single = SingleResponse {
        cert_id: CertId {
            hash_algorithm: algorithm("1.3.14.3.2.26"),
            issuer_name_hash: hash(&pair.leaf.issuer_der),
            issuer_key_hash: hash(issuer_key),
            serial_number: SerialNumber::new(&pair.leaf.serial).unwrap(),
        },
        cert_status: CertStatus::good(),
        this_update: at(now - DAY),
        next_update: Some(at(now + DAY)),
        single_extensions: None,
    };
    edit(&mut single);
    let basic = BasicOcspResponse {
        tbs_response_data: ResponseData {
            version: Version::V1,
            responder_id: ResponderId::ByKey(OctetString::new([0; 20]).unwrap()),
            produced_at: at(now),
            responses: vec![single],
            response_extensions: None,
        },
        signature_algorithm: algorithm("1.2.840.10045.4.3.2"),
        signature: BitString::from_bytes(&[0; 8]).unwrap(),
        certs: None,
    };
    OcspResponse::successful(basic).unwrap().to_der().unwrap()
}
