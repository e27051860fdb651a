//! Whose certificates are taken.

use std::sync::Arc;

use frp_gateway_config::model::{ClientAuth, ClientAuthMode};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::provider;

/// What checks the certificates of a listener's clients.
///
/// # Errors
/// The key under `client_auth` whose file is wrong, and how.
pub fn verifier(auth: &ClientAuth) -> Result<Arc<dyn ClientCertVerifier>, Vec<(String, String)>> {
    if !auth.allow.is_empty() {
        // Better no listener than one that lets everybody in.
        return Err(vec![("allow".to_owned(), "identities can't be checked yet".to_owned())]);
    }
    let (mut roots, mut lists, mut faults) = (RootCertStore::empty(), Vec::new(), Vec::new());
    for (at, path) in auth.trust.iter().enumerate() {
        let mut wrong =
            |why: String| faults.push((format!("trust[{at}]"), format!("{}: {why}", path.display())));
        match CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(all) if all.is_empty() => wrong("it holds no certificate in PEM".into()),
            Ok(all) => {
                for one in all {
                    if let Err(error) = roots.add(one) {
                        wrong(error.to_string());
                    }
                }
            }
            Err(error) => wrong(error.to_string()),
        }
    }
    for (at, path) in auth.crl.iter().enumerate() {
        match CertificateRevocationListDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        {
            Ok(all) => lists.extend(all),
            Err(error) => faults.push((format!("crl[{at}]"), format!("{}: {error}", path.display()))),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    if !lists.is_empty() {
        builder = builder.with_crls(lists).allow_unknown_revocation_status();
    }
    if auth.mode == ClientAuthMode::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder
        .build()
        .map(|verifier| verifier as _)
        .map_err(|error| vec![("trust".to_owned(), error.to_string())])
}
