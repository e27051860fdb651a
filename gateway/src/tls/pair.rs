//! A certificate and its key, from their files to what a handshake uses.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use frp_gateway_config::model::Certificate;
use rustls::{
    InconsistentKeys, SignatureScheme,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SigningKey},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    leaf::{LEAST_RSA_BITS, Leaf, Validity},
    ocsp::{self, Stapled},
    provider,
};

/// Largest file that is read, bytes. Chains and keys are a few KiB.
const MOST_BYTES: u64 = 1 << 20;

/// Every scheme a key could sign by that we may be asked for.
const SCHEMES: [SignatureScheme; 10] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

/// Which of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The chain.
    Cert,
    /// The private key.
    Key,
    /// The OCSP response.
    Ocsp,
}

impl Part {
    /// Its key in the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cert => "cert",
            Self::Key => "key",
            Self::Ocsp => "ocsp",
        }
    }
}

/// Why a certificate and its key can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The file that is to blame.
    pub part: Part,
    /// Its path.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
    /// Certificate and key don't belong together: the other one may be on its way.
    pub mismatch: bool,
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.path.display(), self.why)
    }
}

/// The bytes of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes {
    cert: Vec<u8>,
    key: Vec<u8>,
    ocsp: Option<Result<Vec<u8>, String>>,
}

/// A certificate that can be served.
#[derive(Debug)]
pub struct Pair {
    /// Where it is from.
    pub files: Certificate,
    /// What a handshake uses.
    pub certified: Arc<CertifiedKey>,
    /// What its key can sign by.
    pub schemes: Vec<SignatureScheme>,
    /// What it says of itself.
    pub leaf: Leaf,
    /// What is stapled.
    pub stapled: Stapled,
    /// What is legal, but surely unmeant.
    pub warnings: Vec<String>,
    /// To tell whether the files have changed.
    pub(super) digest: u64,
}

impl Bytes {
    /// Of a chain and its key that are in no files.
    #[must_use]
    pub const fn new(cert: Vec<u8>, key: Vec<u8>) -> Self {
        Self { cert, key, ocsp: None }
    }

    /// Reads the files. That the OCSP response can't be read costs no more than that.
    ///
    /// # Errors
    /// Which file can't be read, and why.
    pub fn read(files: &Certificate) -> Result<Self, Wrong> {
        let read = |part, path: &Path| {
            read(path).map_err(|why| Wrong { part, path: path.to_owned(), why, mismatch: false })
        };
        Ok(Self {
            cert: read(Part::Cert, &files.cert)?,
            key: read(Part::Key, &files.key)?,
            ocsp: files.ocsp.as_deref().map(self::read),
        })
    }

    /// A hash: equal bytes, equal hash.
    #[must_use]
    pub fn digest(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new(); // fixed keys
        (&self.cert, &self.key, &self.ocsp).hash(&mut hasher);
        hasher.finish()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("it is larger than {} KiB", MOST_BYTES >> 10));
    }
    Ok(bytes)
}

impl Pair {
    /// Checks everything but whether its time has come or is over: what that means is for the caller to say.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub fn new(files: &Certificate, bytes: &Bytes, now: SystemTime) -> Result<Self, Wrong> {
        let digest = bytes.digest();
        let wrong = |part, why: String| {
            let path = if part == Part::Key { &files.key } else { &files.cert };
            Wrong { part, path: path.clone(), why, mismatch: false }
        };
        let chain = CertificateDer::pem_slice_iter(&bytes.cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(Part::Cert, format!("not PEM: {error}")))?;
        let first =
            chain.first().ok_or_else(|| wrong(Part::Cert, "it holds no certificate in PEM".into()))?;
        let leaf = Leaf::of(first).map_err(|why| wrong(Part::Cert, why))?;
        if let Some(bits) = leaf.rsa_bits.filter(|bits| *bits < LEAST_RSA_BITS) {
            return Err(wrong(
                Part::Cert,
                format!("its RSA key has {bits} bits; {LEAST_RSA_BITS} are the least"),
            ));
        }
        let key = private_key(&bytes.key).map_err(|why| wrong(Part::Key, why))?;
        let mut certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            // A key that can't tell its public half can't be compared.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(_) => {
                let mut why = format!("it is not the key of the certificate in {}", files.cert.display());
                if let Some(at) = owner(&certified) {
                    why += &format!(", but of the one at position {at} there: the leaf must come first");
                }
                return Err(Wrong { mismatch: true, ..wrong(Part::Key, why) });
            }
        }
        let mut warnings = chain_warnings(&certified.cert, &leaf, files);
        let stapled = match &bytes.ocsp {
            None => Stapled::None,
            Some(Err(why)) => Stapled::Unusable(why.clone()),
            Some(Ok(response)) => ocsp::check(response, &leaf, certified.cert.get(1), now),
        };
        match (&stapled, &bytes.ocsp, &files.ocsp) {
            (Stapled::Until(_), Some(Ok(response)), _) => certified.ocsp = Some(response.clone()),
            (Stapled::Unusable(why), _, Some(path)) => {
                warnings.push(format!("{}: not stapled: {why}", path.display()));
            }
            _ => {}
        }
        let schemes = SCHEMES.into_iter().filter(|scheme| certified.key.choose_scheme(&[*scheme]).is_some());
        Ok(Self {
            files: files.clone(),
            schemes: schemes.collect(),
            certified: Arc::new(certified),
            leaf,
            stapled,
            warnings,
            digest,
        })
    }

    /// That its time has not come or is over, as an error.
    ///
    /// # Errors
    /// Just that.
    pub fn timely(&self, now: SystemTime) -> Result<(), Wrong> {
        let why = match self.leaf.validity(now) {
            Validity::Valid => return Ok(()),
            Validity::Expired => format!("it expired {} ago", ago(now, self.leaf.not_after)),
            Validity::NotYet => format!("it is not valid for another {}", ago(self.leaf.not_before, now)),
        };
        Err(Wrong { part: Part::Cert, path: self.files.cert.clone(), why, mismatch: false })
    }

    /// The same without its OCSP response, whose time is over.
    #[must_use]
    pub(super) fn unstapled(&self) -> Self {
        let certified = CertifiedKey { ocsp: None, ..(*self.certified).clone() };
        Self {
            files: self.files.clone(),
            certified: Arc::new(certified),
            schemes: self.schemes.clone(),
            leaf: self.leaf.clone(),
            stapled: Stapled::Unusable("it expired".into()),
            warnings: self.warnings.clone(),
            digest: self.digest,
        }
    }
}

/// Whole days or less, for people.
fn ago(later: SystemTime, earlier: SystemTime) -> String {
    let seconds = later.duration_since(earlier).unwrap_or_default().as_secs();
    match seconds {
        172_800.. => format!("{} days", seconds / 86_400),
        7_200.. => format!("{} hours", seconds / 3_600),
        120.. => format!("{} minutes", seconds / 60),
        _ => format!("{seconds} seconds"),
    }
}

fn private_key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, String> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound
            if memchr::memmem::find(pem, b"ENCRYPTED PRIVATE KEY").is_some() =>
        {
            "it is encrypted: a key without a passphrase is needed".to_owned()
        }
        rustls::pki_types::pem::Error::NoItemsFound => "it holds no private key in PEM".to_owned(),
        error => format!("not PEM: {error}"),
    })?;
    provider().key_provider.load_private_key(key).map_err(|error| format!("the key can't be used: {error}"))
}

/// Position (from 1) of the certificate that the key is of, if it isn't the first.
fn owner(certified: &CertifiedKey) -> Option<usize> {
    (1..certified.cert.len()).map(|at| at + 1).find(|position| {
        let alone = CertifiedKey::new(vec![certified.cert[position - 1].clone()], Arc::clone(&certified.key));
        alone.keys_match().is_ok()
    })
}

/// What clients will stumble over.
fn chain_warnings(chain: &[CertificateDer<'_>], leaf: &Leaf, files: &Certificate) -> Vec<String> {
    let path = files.cert.display();
    let mut warnings = Vec::new();
    if leaf.names.is_empty() {
        warnings.push(format!(
            "{path}: it has no DNS name (subject alternative name): no client will take it for any, its common name ({}) \
             doesn't count",
            leaf.subject
        ));
    }
    let parsed: Vec<_> =
        chain.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
    if parsed.len() < chain.len() {
        warnings.push(format!("{path}: a certificate of its chain is malformed"));
        return warnings;
    }
    for (at, two) in parsed.windows(2).enumerate() {
        let [one, next] = two else { continue };
        let (this, other) = (at + 1, at + 2);
        if one.issuer().as_raw() != next.subject().as_raw() {
            warnings.push(format!(
                "{path}: broken chain: certificate {this} was issued by {}, but certificate {other} is {}",
                one.issuer(),
                next.subject()
            ));
        } else if one.verify_signature(Some(next.public_key())).is_err() {
            warnings.push(format!(
                "{path}: broken chain: certificate {this} was not signed by certificate {other}"
            ));
        }
    }
    if chain.len() == 1 && leaf.names_issuer && !leaf.self_signed {
        warnings.push(format!(
            "{path}: the certificate of its issuer ({}) isn't there: many clients will not trust it without",
            leaf.issuer
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;
