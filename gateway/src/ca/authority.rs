//! The folder as a whole: founding it, opening it, and the files that all its parts share.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use rcgen::{Issuer, KeyPair};
use time::{Duration, OffsetDateTime};

use super::{
    CaError, files,
    index::{Entry, Index, KeyKind, Lists, Root, RootState, Standing, VERSION},
    sign,
};

/// With what an authority begins.
#[derive(Debug, Clone)]
pub struct Founding {
    /// What its roots are called, with their number behind it.
    pub name: String,
    /// How long a root is valid.
    pub days: u32,
    /// What keys are made.
    pub key: KeyKind,
    /// Clients are `spiffe://` this `/NAME` when nothing else is said.
    pub trust_domain: String,
}

/// A certificate authority in a folder. Only one process at a time has one that may change.
#[derive(Debug)]
pub struct Authority {
    pub(super) folder: PathBuf,
    pub(super) index: Index,
    /// `None`: opened for looking at it.
    _lock: Option<File>,
}

impl Authority {
    /// Makes one: a root, an empty revocation list. `folder` may be there, without an authority in it.
    ///
    /// # Errors
    /// There is one already; a bad name; the folder can't be written to.
    pub fn found(folder: &Path, founding: &Founding, now: OffsetDateTime) -> Result<Self, CaError> {
        let named = !founding.name.trim().is_empty() && founding.name.chars().count() <= 48;
        if !named || founding.name.chars().any(char::is_control) {
            let said = format!("{:?} can't be the name of an authority", founding.name);
            return Err(CaError::argument(said, "1 to 48 characters"));
        }
        check_trust_domain(&founding.trust_domain)?;
        files::make_folder(folder, 0o755)?;
        let lock = files::lock(folder)?;
        let index = folder.join("index.json");
        if index.exists() {
            return Err(CaError::Exists(folder.display().to_string()));
        }
        // What a founding that was cut off leaves, and also what a lost index leaves: not ours to write over.
        if folder.join("roots").exists() {
            let why = "it is missing, though there are roots: restore it from a backup, or remove the folder if nothing was issued yet";
            return Err(CaError::Damaged { path: index, why: why.into() });
        }
        let index = Index {
            version: VERSION,
            name: founding.name.clone(),
            key: founding.key,
            trust_domain: founding.trust_domain.clone(),
            root_days: founding.days,
            crl: Lists { number: 0, days: 7 },
            roots: Vec::new(),
            certificates: Vec::new(),
        };
        let mut authority = Self { folder: folder.to_owned(), index, _lock: Some(lock) };
        authority.add_root(now)?;
        authority.sign_lists(now)?;
        authority.save()?;
        Ok(authority)
    }

    /// Opens one to change it; waits up to 30 s for another process that does.
    ///
    /// # Errors
    /// There is none; its files can't be read.
    pub fn open(folder: &Path) -> Result<Self, CaError> {
        if !folder.join("index.json").exists() {
            return Err(CaError::NoAuthority(folder.display().to_string()));
        }
        let lock = files::lock(folder)?;
        Ok(Self { _lock: Some(lock), ..Self::look(folder)? })
    }

    /// Opens one to look at it, whoever changes it meanwhile.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn look(folder: &Path) -> Result<Self, CaError> {
        let path = folder.join("index.json");
        if !path.exists() {
            return Err(CaError::NoAuthority(folder.display().to_string()));
        }
        let text = files::read_text(&path)?;
        let damaged = |why: String| CaError::Damaged { path: path.clone(), why };
        let index: Index = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if index.version != VERSION {
            return Err(damaged(format!("layout {} is of another version of this program", index.version)));
        }
        Ok(Self { folder: folder.to_owned(), index, _lock: None })
    }

    /// Every certificate that is remembered, oldest first, and what it is worth.
    pub fn certificates(&self, now: OffsetDateTime) -> impl Iterator<Item = (&Entry, Standing)> {
        self.index.certificates.iter().map(move |entry| (entry, self.index.standing(entry, now)))
    }

    /// The file with the roots that are trusted.
    #[must_use]
    pub fn trust(&self) -> PathBuf {
        self.folder.join("trust.pem")
    }

    /// The file with the revocation lists.
    #[must_use]
    pub fn crl(&self) -> PathBuf {
        self.folder.join("crl.pem")
    }

    /// The folder of a name.
    #[must_use]
    pub fn issued(&self, name: &str) -> PathBuf {
        self.folder.join("issued").join(name)
    }

    pub(super) fn root_folder(&self, number: u32) -> PathBuf {
        self.folder.join("roots").join(number.to_string())
    }

    /// A root that signs from now on; the index isn't saved.
    pub(super) fn add_root(&mut self, now: OffsetDateTime) -> Result<u32, CaError> {
        let number = self.index.roots.iter().map(|root| root.number).max().unwrap_or(0) + 1;
        let not_after = now + Duration::days(self.index.root_days.into());
        let signed = sign::root(&self.index.name, number, self.index.key, now, not_after)?;
        files::make_folder(&self.folder.join("roots"), 0o700)?;
        let home = self.root_folder(number);
        files::make_folder(&home, 0o700)?;
        files::replace(&home.join("key.pem"), &signed.key, files::SECRET)?;
        files::replace(&home.join("cert.pem"), &signed.certificate, files::PUBLIC)?;
        self.index.roots.push(Root { number, state: RootState::Signing, not_after });
        Ok(number)
    }

    pub(super) fn issuer(&self, number: u32) -> Result<Issuer<'static, KeyPair>, CaError> {
        let home = self.root_folder(number);
        let (certificate, key) = (home.join("cert.pem"), home.join("key.pem"));
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |error: rcgen::Error| CaError::Damaged { path, why: error.to_string() }
        };
        let pair = KeyPair::from_pem(&files::read_text(&key)?).map_err(unusable(&key))?;
        Issuer::from_ca_cert_pem(&files::read_text(&certificate)?, pair).map_err(unusable(&certificate))
    }

    /// Signs the revocation lists of all trusted roots anew and writes them, and `trust.pem`; the index isn't saved, though it counts one
    /// list more.
    pub(super) fn sign_lists(&mut self, now: OffsetDateTime) -> Result<(), CaError> {
        self.index.crl.number += 1;
        let next = now + Duration::days(self.index.crl.days.into());
        let (mut lists, mut roots) = (String::new(), String::new());
        for root in self.index.trusted() {
            let revoked = self.index.certificates.iter().filter(|entry| {
                entry.root == root.number && entry.revoked.is_some() && entry.not_after > now
            });
            let issuer = self.issuer(root.number)?;
            lists += &sign::revocation_list(&issuer, revoked, self.index.crl.number, now, next)?;
            roots += &files::read_text(&self.root_folder(root.number).join("cert.pem"))?;
        }
        // A new root has its list before it is trusted: a verifier that has no list of a root refuses its certificates.
        files::replace(&self.crl(), &lists, files::PUBLIC)?;
        files::replace(&self.trust(), &roots, files::PUBLIC)
    }

    /// Gives every name the roots that are trusted now.
    pub(super) fn spread_trust(&self) -> Result<(), CaError> {
        let roots = files::read_text(&self.trust())?;
        for name in self.index.newest().keys() {
            let home = self.issued(name);
            if home.exists() {
                files::replace(&home.join("ca.pem"), &roots, files::PUBLIC)?;
            }
        }
        Ok(())
    }

    pub(super) fn save(&self) -> Result<(), CaError> {
        let path = self.folder.join("index.json");
        let mut text = serde_json::to_string_pretty(&self.index)
            .map_err(|error| CaError::Damaged { path: path.clone(), why: error.to_string() })?;
        text.push('\n');
        files::replace(&path, &text, files::PUBLIC)
    }
}

/// SPIFFE-ID §2.1: lower-case letters, digits, '.', '-', '_'.
pub(super) fn check_trust_domain(domain: &str) -> Result<(), CaError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if !domain.is_empty() && domain.len() <= 255 && domain.bytes().all(allowed) {
        return Ok(());
    }
    let said = format!("{domain:?} can't be a trust domain");
    Err(CaError::argument(
        said,
        "1 to 255 lower-case letters, digits, '.', '-' and '_', such as frp.example.com",
    ))
}
