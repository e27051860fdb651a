//! TLS that begins here: to the members of a pool.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwapOption;
use frp_gateway_config::model::{Certificate, PoolTls};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    sign::SingleCertAndKey,
};

use super::{
    client::Wrong,
    files::Files,
    keeper::Looked,
    pair::{Bytes, Pair},
    provider,
    store::Store,
};

/// What is spoken over it.
const ALPN: &[u8] = b"http/1.1";

/// How the members of one pool are spoken to. Lives as long as the pool; what is in it changes. Sessions are resumed among all
/// threads.
#[derive(Debug, Default)]
pub struct Outbound(ArcSwapOption<Spoken>);

/// Settings of one moment.
#[derive(Debug)]
pub(super) struct Spoken {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl Outbound {
    /// What a handshake with the member at `host` is made with, and the name that it must prove to have.
    ///
    /// # Errors
    /// `host` is neither a name nor an address that a certificate can be for.
    pub fn with(&self, host: &str) -> io::Result<(Arc<ClientConfig>, ServerName<'static>)> {
        let spoken = self.0.load();
        let spoken = spoken.as_deref().ok_or_else(|| io::Error::other("no TLS settings"))?;
        let name = match &spoken.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned())
                .map_err(|error| io::Error::other(format!("{host}: {error}; set server_name")))?,
        };
        Ok((Arc::clone(&spoken.config), name))
    }

    pub(super) fn put(&self, spoken: Arc<Spoken>) {
        self.0.store(Some(spoken));
    }
}

/// What a pool speaks, and the files it was made of.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    pub(super) outbound: Arc<Outbound>,
    pub(super) spoken: Arc<Spoken>,
    tls: PoolTls,
    files: Files,
}

impl Begun {
    /// Reads the files, or takes what was made of the same ones before.
    pub(super) fn read(tls: &PoolTls, before: Option<&Self>, now: SystemTime) -> Result<Self, Vec<Wrong>> {
        let files = files(tls, now);
        let known = before.filter(|before| before.tls == *tls && before.files.hold_the_same(&files));
        // Those of the system change as well, but not while we run.
        let known = known.or(before.filter(|before| before.tls == *tls && files.paths().is_empty()));
        if let Some(before) = known {
            return Ok(Self { files, ..before.clone() });
        }
        let spoken = Arc::new(load(tls, now)?);
        let outbound = match before {
            Some(before) => Arc::clone(&before.outbound),
            None => {
                let outbound = Outbound::default();
                outbound.put(Arc::clone(&spoken));
                Arc::new(outbound)
            }
        };
        Ok(Self { outbound, spoken, tls: tls.clone(), files })
    }

    /// The files.
    pub(super) fn paths(&self) -> &[PathBuf] {
        self.files.paths()
    }
}

impl Store {
    /// Looks at every file of TLS to pools and swaps what has changed. Blocks on files.
    pub(super) fn look_at_pools(&self, now: SystemTime, at: Instant) -> Looked {
        let all: Vec<(String, Begun)> =
            self.inner().pools.iter().map(|(pool, begun)| (pool.clone(), begun.clone())).collect();
        let mut looked = Looked { changed: false, again: false };
        for (pool, old) in all {
            if old.files.are_as_they_were(now) {
                continue;
            }
            let read = Begun::read(&old.tls, Some(&old), now);
            let there = files(&old.tls, now);
            let mut inner = self.inner();
            let in_force = inner.pools.get_mut(&pool);
            let Some(begun) = in_force.filter(|begun| Arc::ptr_eq(&begun.spoken, &old.spoken)) else {
                continue;
            };
            match read {
                Ok(new) => {
                    if !Arc::ptr_eq(&new.spoken, &old.spoken) {
                        new.outbound.put(Arc::clone(&new.spoken));
                        looked.changed = true;
                        self.count_swapped();
                        tracing::info!(pool, "TLS to the pool's members has changed");
                    }
                    *begun = new;
                }
                Err(wrong) => {
                    let doubt = begun.files.suspect(&there, at);
                    looked.again |= doubt.again;
                    if doubt.tell {
                        self.count_refused();
                        for Wrong { key, message } in &wrong {
                            tracing::warn!(
                                pool,
                                key,
                                reason = message,
                                "TLS to the pool stays as it was: a file is refused"
                            );
                        }
                    }
                }
            }
        }
        if looked.changed {
            self.clients_changed.notify_one();
        }
        looked
    }
}

fn files(tls: &PoolTls, now: SystemTime) -> Files {
    let own = tls.certificate.iter().flat_map(|Certificate { cert, key, ocsp: _ }| [cert, key]);
    Files::new(tls.trust.iter().chain(own).cloned().collect(), now)
}

/// Reads the files.
///
/// # Errors
/// Every file that can't be used; key below `tls`.
fn load(tls: &PoolTls, now: SystemTime) -> Result<Spoken, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let mut roots = RootCertStore::empty();
    for (index, file) in tls.trust.iter().enumerate() {
        let mut fault = |why: String| {
            wrong.push(Wrong {
                key: format!("trust[{index}]"),
                message: format!("{}: {why}", file.display()),
            });
        };
        match CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(found) if found.is_empty() => fault("it holds no certificate in PEM".into()),
            Ok(found) => found.into_iter().for_each(|der| {
                if let Err(error) = roots.add(der) {
                    fault(format!("a certificate in it is no authority: {error}"));
                }
            }),
            Err(error) => fault(error.to_string()),
        }
    }
    if tls.trust.is_empty() {
        let found = rustls_native_certs::load_native_certs();
        // Some systems carry one that no parser takes.
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            let message = format!("the system trusts no authority{why}; name a file");
            wrong.push(Wrong { key: "trust".into(), message });
        }
    }
    let server_name = match tls.server_name.clone().map(ServerName::try_from).transpose() {
        Ok(name) => name,
        Err(error) => {
            wrong.push(Wrong { key: "server_name".into(), message: error.to_string() });
            None
        }
    };
    let own = tls.certificate.as_ref().map(|files| {
        let pair = Bytes::read(files).and_then(|bytes| Pair::new(files, &bytes, now));
        pair.map_err(|error| Wrong {
            key: format!("certificate.{}", error.part.word()),
            message: error.to_string(),
        })
    });
    let own = match own.transpose() {
        Ok(own) => own,
        Err(error) => {
            wrong.push(error);
            None
        }
    };
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| vec![Wrong { key: "trust".into(), message: error.to_string() }])?
        .with_root_certificates(roots);
    let mut config = match own {
        Some(pair) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&pair.certified))))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Spoken { config: Arc::new(config), server_name })
}

#[cfg(test)]
mod tests;
