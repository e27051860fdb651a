//! Certificates of listeners: read and checked before anything takes effect.

use std::{collections::HashMap, path::Path, sync::Arc};

use frp_gateway_config::model::{Certificate, Config, ListenerTls, Protocol};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::state::Fault;

/// What ends TLS at each listener that has certificates, by its name. Reads files: small ones.
///
/// # Errors
/// Every file that can't be read, isn't PEM, or doesn't fit its key, with its name and the reason.
pub fn load(config: &Config) -> Result<HashMap<String, Arc<ServerConfig>>, Vec<Fault>> {
    let (mut loaded, mut faults) = (HashMap::new(), Vec::new());
    for (index, listener) in config.listeners.iter().enumerate() {
        let Some(tls) = &listener.tls else { continue };
        match server(tls, listener.protocol, index) {
            Ok(server) => drop(loaded.insert(listener.name.clone(), server)),
            Err(wrong) => faults.extend(wrong),
        }
    }
    if faults.is_empty() { Ok(loaded) } else { Err(faults) }
}

fn server(tls: &ListenerTls, protocol: Protocol, listener: usize) -> Result<Arc<ServerConfig>, Vec<Fault>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (mut keys, mut faults) = (Vec::new(), Vec::new());
    for (index, certificate) in tls.certificates.iter().enumerate() {
        match certified(certificate, &provider) {
            Ok(key) => keys.push(key),
            Err((part, message)) => {
                let key = format!("listeners[{listener}].tls.certificates[{index}].{part}");
                faults.push(Fault::plain("certificate", &key, &message));
            }
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut server = versions
        .map_err(|error| vec![Fault::plain("internal", "listeners", &error.to_string())])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName(keys)));
    if protocol == Protocol::Https {
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
    } else {
        // frpc doesn't resume.
        server.send_tls13_tickets = 0;
    }
    Ok(Arc::new(server))
}

/// Or which of the two files is wrong, and how.
fn certified(
    certificate: &Certificate,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, (&'static str, String)> {
    let wrong = |part, path: &Path, why: String| (part, format!("{}: {why}", path.display()));
    let Certificate { cert, key, ocsp: _ } = certificate;
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong("cert", cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong("cert", cert, "it holds no certificate in PEM".into()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("key", key, error.to_string()))?;
    let private = provider
        .key_provider
        .load_private_key(private)
        .map_err(|error| wrong("key", key, error.to_string()))?;
    let certified = CertifiedKey::new(chain, private);
    certified.keys_match().map_err(|error| {
        wrong("key", key, format!("it is not the key of the certificate in {}: {error}", cert.display()))
    })?;
    Ok(certified)
}

/// The first certificate that is for the name; the first of all for any other name, or none.
#[derive(Debug)]
struct ByName(Vec<CertifiedKey>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&CertifiedKey| {
            let name = rustls::pki_types::ServerName::try_from(hello.server_name()?.to_owned()).ok()?;
            let leaf = rustls::server::ParsedCertificate::try_from(key.end_entity_cert().ok()?).ok()?;
            rustls::client::verify_server_name(&leaf, &name).ok()
        };
        let chosen = self.0.iter().find(|key| fits(key).is_some()).or(self.0.first());
        chosen.map(|key| Arc::new(key.clone()))
    }
}
