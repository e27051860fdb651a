//! Certificates of a test's own authority, and visitors that speak TLS.

#![allow(dead_code, unreachable_pub, reason = "each test file uses what it needs")]

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// A certificate authority and the folder that it writes to.
pub struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signed");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("written");
        Self { folder, issuer }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `FILE.pem` and `FILE.key` for these names; the pair as the configuration names it.
    pub fn issue(&self, file: &str, names: &[&str]) -> String {
        self.issue_with(file, names, &KeyPair::generate().expect("a key"))
    }

    /// The same for this key.
    pub fn issue_with(&self, file: &str, names: &[&str], key: &KeyPair) -> String {
        let (cert, private) = (self.path(&format!("{file}.pem")), self.path(&format!("{file}.key")));
        std::fs::write(&cert, self.certificate(names, key)).expect("written");
        std::fs::write(&private, key.serialize_pem()).expect("written");
        format!("{{ cert: \"{}\", key: \"{}\" }}", show(&cert), show(&private))
    }

    /// A certificate and its key in PEM, not written anywhere.
    pub fn sign(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        (self.certificate(names, &key), key.serialize_pem())
    }

    fn certificate(&self, names: &[&str], key: &KeyPair) -> String {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        params.signed_by(key, &self.issuer).expect("signed").pem()
    }

    /// This authority alone.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).expect("PEM")).expect("an authority");
        roots
    }

    /// A visitor that trusts this authority alone.
    pub fn visitor(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let roots = self.roots();
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

/// Connects and shakes hands.
pub async fn dial(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::clone(config)).connect(name, socket).await
}
