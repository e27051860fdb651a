//! Which clients' certificates are good: trusted, not revoked, of somebody who is let in.
//!
//! [`load`] makes a [`ClientGate`] of files. The gate judges in the handshake, and again ([`ClientGate::still`]) when the files
//! have changed: one and the same rule for new connections and for open ones.

use std::{cell::Cell, fmt, path::Path, sync::Arc, time::SystemTime};

use frp_gateway_config::model::{ClientAuth, ClientAuthMode, Identity};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer as _, revocation_list::CertificateRevocationList,
};

use super::identity::ClientIdentity;

/// Why a client is refused: label of metrics, logs and audit lines, in the order of [`Unwelcome::index`].
pub const UNWELCOME: [&str; 6] =
    ["no_certificate", "unknown_issuer", "expired", "revoked", "not_allowed", "bad_certificate"];

/// Why a client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwelcome {
    /// It shows none, and one is required.
    NoCertificate,
    /// Nobody that is trusted has signed it.
    UnknownIssuer,
    /// It isn't valid yet, or not any more.
    Expired,
    /// A revocation list names it, or an authority above it.
    Revoked,
    /// It is good, but for none of those let in.
    NotAllowed,
    /// It is malformed, not for clients, or its key isn't the client's.
    Bad,
}

impl Unwelcome {
    /// Why a handshake failed, if it was for the client's certificate.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        use CertificateError as Why;
        match error {
            Error::NoCertificatesPresented => Some(Self::NoCertificate),
            Error::InvalidCertificate(why) => Some(match why {
                Why::UnknownIssuer => Self::UnknownIssuer,
                Why::Expired
                | Why::ExpiredContext { .. }
                | Why::NotValidYet
                | Why::NotValidYetContext { .. } => Self::Expired,
                Why::Revoked => Self::Revoked,
                Why::ApplicationVerificationFailure => Self::NotAllowed,
                _ => Self::Bad,
            }),
            _ => None,
        }
    }

    /// Index into [`UNWELCOME`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::NoCertificate => 0,
            Self::UnknownIssuer => 1,
            Self::Expired => 2,
            Self::Revoked => 3,
            Self::NotAllowed => 4,
            Self::Bad => 5,
        }
    }

    /// The label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        UNWELCOME[self.index()]
    }
}

/// Judges clients' certificates at one listener.
pub struct ClientGate {
    mode: ClientAuthMode,
    allow: Vec<Identity>,
    /// Asked one after the other: authorities of the same name, as there are while one is replaced, are in different ones.
    /// webpki looks for a revocation list by its issuer's name alone.
    verifiers: Vec<Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for ClientGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientGate")
            .field("mode", &self.mode)
            .field("allow", &self.allow)
            .finish_non_exhaustive()
    }
}

impl ClientGate {
    /// Why somebody who was let in isn't good any more. O(length of the chain) signature checks.
    ///
    /// # Errors
    /// The reason.
    pub fn still(&self, client: &ClientIdentity, now: SystemTime) -> Result<(), Unwelcome> {
        let Some((leaf, rest)) = client.chain.split_first() else { return Ok(()) };
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        match self.judge(leaf, rest, now) {
            Ok(_) => Ok(()),
            Err(error) => Err(Unwelcome::of(&error).unwrap_or(Unwelcome::Bad)),
        }
    }

    /// Whether nobody is let in without a certificate.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.client_auth_mandatory()
    }
}

thread_local! {
    /// Who the last handshake of this thread refused by its certificate. rustls has no other way out for it that leaves the
    /// alert right.
    static REFUSED: Cell<Option<Arc<ClientIdentity>>> = const { Cell::new(None) };
}

/// Whose certificate made the handshake fail: to be asked on the same thread, before another handshake goes on there. `None` where
/// nobody that is trusted has signed it: then it tells nothing.
#[must_use]
pub fn last_refused() -> Option<Arc<ClientIdentity>> {
    REFUSED.take()
}

impl ClientCertVerifier for ClientGate {
    fn client_auth_mandatory(&self) -> bool {
        match self.mode {
            ClientAuthMode::Required => true,
            ClientAuthMode::Optional => false,
        }
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let judged = self.judge(leaf, intermediates, now);
        REFUSED.set(match &judged {
            Ok(_) | Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => None,
            Err(_) => ClientIdentity::of(std::slice::from_ref(leaf)).ok().map(Arc::new),
        });
        judged
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientGate {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let mut worst = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for verifier in &self.verifiers {
            match verifier.verify_client_cert(leaf, intermediates, now) {
                Ok(verified) if self.allow.is_empty() => return Ok(verified),
                Ok(verified) => {
                    let client = ClientIdentity::of(std::slice::from_ref(leaf));
                    return match client.is_ok_and(|client| client.is_allowed(&self.allow)) {
                        true => Ok(verified),
                        // The alert is `access_denied`.
                        false => {
                            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
                        }
                    };
                }
                // What the authority that knows the certificate says of it tells more.
                Err(Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                )) => {}
                Err(error) => worst = error,
            }
        }
        Err(worst)
    }
}

/// What is wrong, and the key it is wrong at, below `client_auth`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// `trust[0]`, `crl[1]`…
    pub key: String,
    /// File and reason.
    pub message: String,
}

/// A gate, and what is legal but surely unmeant.
#[derive(Debug)]
pub struct Loaded {
    /// The gate.
    pub gate: Arc<ClientGate>,
    /// Lists that should have been replaced by now: they are used.
    pub warnings: Vec<Wrong>,
}

/// Reads the files of `auth`: small ones, but for revocation lists.
///
/// # Errors
/// Every file that can't be read, isn't PEM, holds nothing, or holds what can't be used. A file cut short is therefore no empty
/// revocation list.
pub fn load(
    auth: &ClientAuth,
    provider: &Arc<CryptoProvider>,
    now: SystemTime,
) -> Result<Loaded, Vec<Wrong>> {
    let (mut wrong, mut warnings) = (Vec::new(), Vec::new());
    let mut anchors = Vec::new();
    for (index, file) in auth.trust.iter().enumerate() {
        match read(file, "certificate", CertificateDer::pem_file_iter(file).and_then(Iterator::collect)) {
            Ok(found) => anchors.extend(found.into_iter().map(|der| (index, der))),
            Err(message) => wrong.push(Wrong { key: format!("trust[{index}]"), message }),
        }
    }
    let mut lists = Vec::new();
    for (index, file) in auth.crl.iter().enumerate() {
        let found = CertificateRevocationListDer::pem_file_iter(file).and_then(Iterator::collect);
        match read::<CertificateRevocationListDer<'_>>(file, "revocation list", found) {
            Ok(found) => lists.extend(found.into_iter().map(|der| (index, der))),
            Err(message) => wrong.push(Wrong { key: format!("crl[{index}]"), message }),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let at = |key: &str, files: &[std::path::PathBuf], index: usize, why: String| Wrong {
        key: format!("{key}[{index}]"),
        message: format!("{}: {why}", files[index].display()),
    };
    let trust = |index, why| at("trust", &auth.trust, index, why);
    let crl = |index, why| at("crl", &auth.crl, index, why);

    // Authorities of the same name go to different verifiers.
    let mut layers: Vec<Layer<'_>> = Vec::new();
    for (index, der) in &anchors {
        let authority = match X509Certificate::from_der(der) {
            Ok((_, authority)) => authority,
            Err(error) => {
                wrong.push(trust(*index, format!("a certificate in it can't be read: {error}")));
                continue;
            }
        };
        if layers.iter().any(|layer| layer.ders.contains(&der)) {
            continue;
        }
        let name = authority.subject().as_raw();
        let position = layers.iter().position(|layer| !layer.has(name)).unwrap_or(layers.len());
        if position == layers.len() {
            layers.push(Layer::new());
        }
        let layer = &mut layers[position];
        if let Err(error) = layer.roots.add(der.clone()) {
            wrong.push(trust(*index, format!("a certificate in it is no authority: {error}")));
        }
        layer.ders.push(der);
        layer.authorities.push(authority);
    }
    // The newest list of an issuer is the one that counts.
    let mut parsed = Vec::new();
    for (index, der) in &lists {
        match CertificateRevocationList::from_der(der) {
            Ok((_, list)) => parsed.push((*index, der, list)),
            Err(error) => wrong.push(crl(*index, format!("a list in it can't be read: {error}"))),
        }
    }
    parsed.sort_by_key(|(_, _, list)| std::cmp::Reverse(list.last_update()));
    for (index, der, list) in &parsed {
        let named: Vec<_> =
            layers.iter().enumerate().filter(|(_, layer)| layer.has(list.issuer().as_raw())).collect();
        let signed: Vec<usize> =
            named.iter().filter(|(_, layer)| layer.has_signed(list)).map(|(position, _)| *position).collect();
        if !named.is_empty() && signed.is_empty() {
            let why = format!("a list in it is of {}, but not signed by that authority", list.issuer());
            wrong.push(crl(*index, why));
        }
        // One of an authority in between is checked when such a certificate is shown.
        let all = if named.is_empty() { (0..layers.len()).collect() } else { signed };
        for position in all {
            layers[position].lists.push((*index, (*der).clone()));
        }
        if list.next_update().is_some_and(|due| due.to_datetime() < now) {
            let due = list.next_update().map(|due| due.to_string()).unwrap_or_default();
            warnings.push(crl(*index, format!("the list of {} was to be replaced by {due}", list.issuer())));
        }
    }
    let mut verifiers = Vec::new();
    let mut hints: Vec<DistinguishedName> = Vec::new();
    for layer in layers {
        for name in layer.roots.subjects() {
            if !hints.iter().any(|known| known.as_ref() == name.as_ref()) {
                hints.push(name);
            }
        }
        let roots = Arc::new(layer.roots);
        let build = |lists: Vec<CertificateRevocationListDer<'static>>| {
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
                .with_crls(lists)
                .allow_unknown_revocation_status()
                .build()
        };
        for (index, list) in &layer.lists {
            if let Err(error) = build(vec![list.clone()]) {
                wrong.push(crl(*index, format!("a list in it can't be used: {error}")));
            }
        }
        match build(layer.lists.into_iter().map(|(_, list)| list).collect()) {
            Ok(verifier) => verifiers.push(verifier),
            Err(error) if wrong.is_empty() => wrong.push(trust(0, error.to_string())),
            Err(_) => {}
        }
    }
    if !wrong.is_empty() {
        wrong.dedup();
        return Err(wrong);
    }
    let gate = ClientGate {
        mode: auth.mode,
        allow: auth.allow.clone(),
        verifiers,
        hints,
        algorithms: provider.signature_verification_algorithms,
    };
    Ok(Loaded { gate: Arc::new(gate), warnings })
}

/// Authorities of different names.
struct Layer<'a> {
    roots: RootCertStore,
    ders: Vec<&'a CertificateDer<'static>>,
    authorities: Vec<X509Certificate<'a>>,
    lists: Vec<(usize, CertificateRevocationListDer<'static>)>,
}

impl Layer<'_> {
    fn new() -> Self {
        Self { roots: RootCertStore::empty(), ders: Vec::new(), authorities: Vec::new(), lists: Vec::new() }
    }

    fn has(&self, name: &[u8]) -> bool {
        self.authorities.iter().any(|authority| authority.subject().as_raw() == name)
    }

    fn has_signed(&self, list: &CertificateRevocationList<'_>) -> bool {
        self.authorities.iter().any(|authority| {
            authority.subject() == list.issuer() && list.verify_signature(authority.public_key()).is_ok()
        })
    }
}

fn read<T>(
    file: &Path,
    what: &str,
    found: Result<Vec<T>, rustls::pki_types::pem::Error>,
) -> Result<Vec<T>, String> {
    match found {
        Ok(found) if found.is_empty() => Err(format!("{}: it holds no {what} in PEM", file.display())),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{}: {error}", file.display())),
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
