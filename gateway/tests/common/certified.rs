//! Authorities of clients, their certificates and revocation lists.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test file uses what it needs"
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd, string::Ia5String,
};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// An authority of clients.
pub struct ClientAuthority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl ClientAuthority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signed");
        let authority = Self { folder: tempfile::tempdir().expect("a folder"), issuer };
        std::fs::write(authority.path("ca.pem"), authority.issuer.pem()).expect("written");
        authority.revoke(&[]);
        authority
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn shown(&self, name: &str) -> String {
        show(&self.path(name))
    }

    /// A certificate for `spiffe://…`, `dns:NAME` or `cn:TEXT`, with this serial number, as `N.pem` and `N.key`.
    pub fn issue(&self, identity: &str, serial: u64) -> Client {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = DistinguishedName::new();
        let text = |text: &str| Ia5String::try_from(text).expect("ascii");
        if let Some(name) = identity.strip_prefix("dns:") {
            params.subject_alt_names = vec![SanType::DnsName(text(name))];
        } else if let Some(name) = identity.strip_prefix("cn:") {
            params.distinguished_name.push(DnType::CommonName, name);
        } else {
            params.subject_alt_names = vec![SanType::URI(text(identity))];
        }
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let (cert, private) = (self.path(&format!("{serial}.pem")), self.path(&format!("{serial}.key")));
        std::fs::write(&cert, certificate.pem()).expect("written");
        std::fs::write(&private, key.serialize_pem()).expect("written");
        Client { cert, key: private }
    }

    /// The list of what is revoked, as PEM.
    pub fn list(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("signed").pem().expect("PEM")
    }

    /// Writes `crl.pem`, as careful people do: beside it, then renamed.
    pub fn revoke(&self, serials: &[u64]) {
        std::fs::write(self.path("crl.new"), self.list(serials)).expect("written");
        std::fs::rename(self.path("crl.new"), self.path("crl.pem")).expect("renamed");
    }
}

/// A client's certificate.
pub struct Client {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Client {
    /// A visitor that trusts the servers of `ca` and shows this certificate.
    pub fn visitor(&self, ca: &Path) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).expect("PEM")).expect("an authority");
        let chain = vec![CertificateDer::from_pem_file(&self.cert).expect("PEM")];
        let key = PrivateKeyDer::from_pem_file(&self.key).expect("PEM");
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("a certificate");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Lines of an frpc that shows it.
    pub fn frpc(&self) -> [String; 2] {
        [
            format!("transport.tls.certFile = \"{}\"", show(&self.cert)),
            format!("transport.tls.keyFile = \"{}\"", show(&self.key)),
        ]
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
