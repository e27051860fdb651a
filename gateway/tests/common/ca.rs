//! An authority that `frp-gateway ca` made, asked by its command line.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::panic,
    reason = "each test file uses its own part"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

/// An authority of its own.
pub struct Ca {
    pub folder: tempfile::TempDir,
}

impl Ca {
    pub fn new() -> Self {
        Self::with(&[])
    }

    pub fn with(options: &[&str]) -> Self {
        let ca = Self { folder: tempfile::tempdir().expect("a folder") };
        ca.ok(&[&["init"], options].concat());
        ca
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("ca").join(name)
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_frp-gateway"));
        let dir = self.path("");
        command.arg("ca").args(arguments).arg("--dir").arg(&dir).current_dir(self.folder.path());
        command.output().expect("it runs")
    }

    /// What it says when all is well.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (said, wrong) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}{wrong}");
        said.into_owned()
    }

    /// What it says when what is asked for can't be; the folder's path reads `CA`.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {wrong}");
        assert!(output.stdout.is_empty(), "nothing was done: {}", String::from_utf8_lossy(&output.stdout));
        wrong.replace(&self.path("").display().to_string(), "CA")
    }

    /// `list --json`.
    pub fn list(&self) -> Vec<serde_json::Value> {
        let text = self.ok(&["list", "--json"]);
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    pub fn serial(&self, name: &str) -> String {
        let all = self.list();
        let newest = all.iter().rfind(|line| line["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        newest["serial"].as_str().expect("a text").to_owned()
    }

    pub fn leaf(&self, name: &str) -> CertificateDer<'static> {
        leaf(&self.path(&format!("issued/{name}/cert.pem")))
    }

    /// A verifier by `trust.pem` and `crl.pem`, as a listener's `client_auth` has it.
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier_by(&self.path("trust.pem"))
    }

    pub fn verifier_by(&self, trust: &Path) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(trust).expect("readable") {
            roots.add(root.expect("PEM")).expect("a root");
        }
        let lists = CertificateRevocationListDer::pem_file_iter(self.path("crl.pem")).expect("readable");
        let lists: Vec<_> = lists.map(|list| list.expect("PEM")).collect();
        let provider = Arc::new(aws_lc_rs::default_provider());
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .with_crls(lists)
            .enforce_revocation_expiration()
            .build()
            .expect("rustls takes them")
    }
}

/// The certificate in a file.
pub fn leaf(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
