//! The folder that certificates are kept in, which several gateways may share.
//!
//! ```text
//! STORAGE/AUTHORITY/account.json          the account, with its key
//!                   certificates/NAME     chain and key of a name, with what is known of it (JSON)
//!                   locks/NAME            who orders it now, and until when that holds
//!                   proofs/TOKEN          answer of http-01, so that any gateway can give it
//!                   proofs/NAME.a         the same for tls-alpn-01
//! ```
//!
//! AUTHORITY is made of the directory's address: certificates of a test authority never pass for others. Files appear whole or not at
//! all: written beside, synced, renamed. Only the owner of the process may read them. Everything here blocks.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use super::names;

/// How long a lock holds that its owner doesn't renew.
pub const LEASE: Duration = Duration::from_secs(60);
/// How long whoever takes over a stale lock waits before believing that nobody else did.
const SETTLE: Duration = Duration::from_millis(300);
/// Larger files are none of ours.
const MOST_BYTES: u64 = 1 << 20;

/// A certificate as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The name that it is for.
    pub name: String,
    /// User of FRP in whose share it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Certificates in PEM, leaf first.
    pub chain: String,
    /// Private key in PEM.
    pub key: String,
}

/// To see whether a file is the same as before.
pub type Print = (SystemTime, u64);

/// The part of the folder that belongs to one authority.
#[derive(Debug)]
pub struct Storage {
    root: PathBuf,
    /// Who we are in locks.
    owner: String,
    temporary: AtomicU64,
}

/// What is in a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    owner: String,
    /// Unix seconds.
    until: u64,
}

/// The right to order a certificate. Dropping it gives it back.
#[derive(Debug)]
pub struct Lock {
    storage: Arc<Storage>,
    path: PathBuf,
}

impl Storage {
    /// For one authority, by its directory's address. Makes what isn't there. `owner`: of this process alone.
    ///
    /// # Errors
    /// The folder can't be made or written to.
    pub fn open(folder: &Path, directory: &str, owner: u64) -> io::Result<Arc<Self>> {
        let root = folder.join(slug(directory));
        for part in ["certificates", "locks", "proofs"] {
            DirBuilder::new().recursive(true).mode(0o700).create(root.join(part))?;
        }
        let storage = Self { root, owner: format!("{owner:016x}"), temporary: AtomicU64::new(0) };
        let probe = storage.root.join("locks").join(format!(".probe-{}", storage.owner));
        storage.write(&probe, b"")?;
        fs::remove_file(probe)?;
        Ok(Arc::new(storage))
    }

    /// The account, as it was put; `None` = there is none.
    ///
    /// # Errors
    /// It can't be read.
    pub fn account<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        read_json(&self.root.join("account.json"))
    }

    /// Keeps the account.
    ///
    /// # Errors
    /// It can't be written.
    pub fn put_account(&self, account: &impl Serialize) -> io::Result<()> {
        self.write_json(&self.root.join("account.json"), account)
    }

    /// Puts an account aside that the authority doesn't know.
    ///
    /// # Errors
    /// It can't be renamed.
    pub fn retire_account(&self) -> io::Result<()> {
        ignore_missing(fs::rename(self.root.join("account.json"), self.root.join("account.unknown.json")))
    }

    /// All certificates by their names, to see which have changed.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn list(&self) -> io::Result<Vec<(String, Print)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(self.root.join("certificates"))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if names::fit(&name).is_ok()
                && let Ok(data) = entry.metadata()
            {
                all.push((name, (data.modified().unwrap_or(UNIX_EPOCH), data.len())));
            }
        }
        Ok(all)
    }

    /// The certificate of a name; `None` = there is none.
    ///
    /// # Errors
    /// It can't be read, or isn't ours.
    pub fn certificate(&self, name: &str) -> io::Result<Option<Stored>> {
        let stored: Option<Stored> = read_json(&self.of_certificate(name))?;
        match stored {
            Some(stored) if stored.name != name => Err(invalid("it is for another name")),
            stored => Ok(stored),
        }
    }

    /// Keeps a certificate.
    ///
    /// # Errors
    /// It can't be written.
    pub fn put_certificate(&self, stored: &Stored) -> io::Result<()> {
        self.write_json(&self.of_certificate(&stored.name), stored)
    }

    /// Forgets a certificate.
    ///
    /// # Errors
    /// It can't be removed.
    pub fn remove_certificate(&self, name: &str) -> io::Result<()> {
        ignore_missing(fs::remove_file(self.of_certificate(name)))
    }

    /// What proves a name, by its token, or by the name and `.a`; `None` = no such proof is under way.
    #[must_use]
    pub fn proof(&self, key: &str) -> Option<String> {
        if !is_safe(key) {
            return None;
        }
        let text = read(&self.root.join("proofs").join(key)).ok()??;
        String::from_utf8(text).ok()
    }

    /// Shows what proves a name to the other gateways.
    ///
    /// # Errors
    /// It can't be written.
    pub fn put_proof(&self, key: &str, proof: &str) -> io::Result<()> {
        if !is_safe(key) {
            return Err(invalid("a token has other characters than it may"));
        }
        self.write(&self.root.join("proofs").join(key), proof.as_bytes())
    }

    /// Takes a proof away.
    pub fn remove_proof(&self, key: &str) {
        if is_safe(key) {
            // Whoever finds one that is left over learns nothing.
            drop(fs::remove_file(self.root.join("proofs").join(key)));
        }
    }

    /// Takes what crashes left over away: proofs that are a day old.
    pub fn tidy(&self, now: SystemTime) {
        const OLD: Duration = Duration::from_secs(24 * 3600);
        for folder in ["proofs", "certificates", "locks"] {
            for entry in fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten() {
                let left_over = folder == "proofs"
                    || entry.file_name().to_str().is_some_and(|name| name.starts_with('.'));
                let age = entry.metadata().and_then(|data| data.modified()).ok();
                let age = age.and_then(|at| now.duration_since(at).ok());
                if left_over && age.is_some_and(|age| age > OLD) {
                    drop(fs::remove_file(entry.path()));
                }
            }
        }
    }

    /// The right to order this; `None` = another gateway has it.
    ///
    /// A lock whose lease is over is taken over: its content is replaced, and believed if it is still ours a moment later.
    /// Clocks of gateways that share a folder must agree to some seconds.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn lock(self: &Arc<Self>, what: &str, now: SystemTime) -> io::Result<Option<Lock>> {
        let path = self.root.join("locks").join(what);
        let lease = self.lease(now)?;
        let fresh = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match fresh {
            Ok(mut file) => {
                file.write_all(&lease)?;
                file.sync_all()?;
                return Ok(Some(Lock { storage: Arc::clone(self), path }));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        if !is_stale(&path, now) {
            return Ok(None);
        }
        self.write(&path, &lease)?;
        std::thread::sleep(SETTLE);
        let ours = self.holds(&path);
        Ok(ours.then(|| Lock { storage: Arc::clone(self), path }))
    }

    fn lease(&self, now: SystemTime) -> io::Result<Vec<u8>> {
        let until = (now + LEASE).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(serde_json::to_vec(&Lease { owner: self.owner.clone(), until })?)
    }

    fn holds(&self, path: &Path) -> bool {
        matches!(read_json::<Lease>(path), Ok(Some(lease)) if lease.owner == self.owner)
    }

    fn of_certificate(&self, name: &str) -> PathBuf {
        self.root.join("certificates").join(name)
    }

    fn write_json(&self, path: &Path, value: &impl Serialize) -> io::Result<()> {
        self.write(path, &serde_json::to_vec_pretty(value)?)
    }

    /// Whole or not at all.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = path.parent().ok_or_else(|| invalid("a file without a folder"))?;
        let number = self.temporary.fetch_add(1, Relaxed);
        let temporary = folder.join(format!(".{}-{number}", self.owner));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            // So that the new name survives a power failure, too.
            File::open(folder)?.sync_all()
        })();
        if written.is_err() {
            drop(fs::remove_file(&temporary));
        }
        written
    }
}

impl Lock {
    /// Holds it for another [`LEASE`]; `false` = it is lost to another gateway.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn renew(&self, now: SystemTime) -> io::Result<bool> {
        if !self.storage.holds(&self.path) {
            return Ok(false);
        }
        self.storage.write(&self.path, &self.storage.lease(now)?)?;
        Ok(true)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.storage.holds(&self.path) {
            // What can't be removed is stale soon.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Whether nobody has it any more. One that can't be understood is being written, or was when its owner died.
fn is_stale(path: &Path, now: SystemTime) -> bool {
    let unix = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match read_json::<Lease>(path) {
        // Nobody leases for longer: a clock that was wrong must not lock for ever.
        Ok(Some(lease)) => lease.until < unix || lease.until > unix + 2 * LEASE.as_secs(),
        Ok(None) => false,
        Err(_) => {
            let written = fs::metadata(path).and_then(|data| data.modified());
            written.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > LEASE))
        }
    }
}

/// Name of a folder: readable, and different for different addresses.
fn slug(directory: &str) -> String {
    let host = directory.split_once("://").map_or(directory, |(_, rest)| rest);
    let host: String = host
        .split('/')
        .next()
        .unwrap_or_default()
        .chars()
        .map(
            |letter| {
                if letter.is_ascii_alphanumeric() || letter == '.' || letter == '-' { letter } else { '_' }
            },
        )
        .take(80)
        .collect();
    let digest = Sha256::digest(directory.as_bytes());
    let mut slug = format!("{host}-");
    for byte in &digest[..4] {
        use std::fmt::Write as _;
        write!(slug, "{byte:02x}").expect("writing to a String cannot fail");
    }
    slug.trim_start_matches('.').to_owned()
}

/// Whether it can be the name of a file and of nothing else.
fn is_safe(key: &str) -> bool {
    (1..=255).contains(&key.len())
        && !key.starts_with('.')
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && !key.contains("..")
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| invalid(&format!("{}: {error}", path.display())))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests;
