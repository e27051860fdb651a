//! Files that are replaced so that no reader sees half of one, and pairs of which none sees one half of each.
//!
//! A leaf and its key change together. They lie in a folder of their own per version; `live` is a link to the newest, replaced by one
//! rename, and `cert.pem` and `key.pem` are links through it, as Kubernetes mounts a secret. A reader that opens one before and the
//! other after that rename finds that they don't fit and reads again: the gateway does, and frpc dials again.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::CaError;

/// Of files that hold a key.
pub(super) const SECRET: u32 = 0o600;
/// Of all others.
pub(super) const PUBLIC: u32 = 0o644;

/// How long another process is waited for. Thousands of certificates are issued in a few seconds.
const PATIENCE: Duration = Duration::from_secs(30);

fn at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CaError + 'a {
    move |source| CaError::File { what, path: path.to_owned(), source }
}

pub(super) fn read_text(path: &Path) -> Result<String, CaError> {
    fs::read_to_string(path).map_err(at("read", path))
}

/// A folder, and those above it, that may be there.
pub(super) fn make_folder(path: &Path, mode: u32) -> Result<(), CaError> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(at("create", path))
}

/// Holds the folder until it is dropped; the system lets go when the process ends, however it ends.
pub(super) fn lock(folder: &Path) -> Result<File, CaError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(SECRET)
        .open(&path)
        .map_err(at("open", &path))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(at("lock", &path)(error)),
            Err(TryLockError::WouldBlock) if begun.elapsed() > PATIENCE => {
                return Err(CaError::Locked(folder.display().to_string()));
            }
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Writes a file that isn't there, with this mode from its first byte on, and waits until it is on the disk.
fn write_new(path: &Path, text: &str, mode: u32, like: Option<&fs::Metadata>) -> Result<(), CaError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(SECRET).open(path)?;
        // An operator who gave the file to the gateway's user or group has it so after a renewal too.
        if let Some(like) = like {
            let made = file.metadata()?;
            if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
                fchown(&file, Some(like.uid()), Some(like.gid()))?;
            }
        }
        let mode = like.map_or(mode, |like| like.mode() & 0o777);
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(at("write", path))
}

fn sync_folder(path: &Path) -> Result<(), CaError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(at("sync", path))
}

/// Replaces a file, or makes it. Owner and mode stay those of the one before.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    replace_unsynced(path, text, mode)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// The same, but after a power cut the old one may be there again, unless its folder is synced later.
pub(super) fn replace_unsynced(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    remove(&new)?;
    write_new(&new, text, mode, fs::metadata(path).ok().as_ref())?;
    fs::rename(&new, path).map_err(at("replace", path))
}

/// Removes a file that may be gone.
pub(super) fn remove(path: &Path) -> Result<(), CaError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A leaf and its key that lie beside the ones in use. Nobody sees them until [`Staged::go_live`].
#[derive(Debug)]
pub(super) struct Staged {
    folder: PathBuf,
    version: u64,
}

/// `v7` → 7.
fn version_of(name: &str) -> Option<u64> {
    name.strip_prefix('v')?.parse().ok()
}

fn versions(folder: &Path) -> Result<Vec<u64>, CaError> {
    let entries = fs::read_dir(folder).map_err(at("read", folder))?;
    Ok(entries.flatten().filter_map(|entry| version_of(entry.file_name().to_str()?)).collect())
}

/// Puts a pair beside the one that is in use.
pub(super) fn stage(folder: &Path, certificate: &str, key: &str) -> Result<Staged, CaError> {
    make_folder(folder, 0o755)?;
    let version = versions(folder)?.into_iter().max().unwrap_or(0) + 1;
    let home = folder.join(format!("v{version}"));
    make_folder(&home, 0o755)?;
    let like = |name: &str| fs::metadata(folder.join(name)).ok();
    write_new(&home.join("cert.pem"), certificate, PUBLIC, like("cert.pem").as_ref())?;
    write_new(&home.join("key.pem"), key, SECRET, like("key.pem").as_ref())?;
    sync_folder(&home)?;
    Ok(Staged { folder: folder.to_owned(), version })
}

impl Staged {
    /// Makes it the one in use. The one before stays for readers that are half-way through it; older ones go.
    pub(super) fn go_live(self) -> Result<(), CaError> {
        let link = |to: &str, name: &str| {
            let (path, new) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
            remove(&new)?;
            symlink(to, &new).map_err(at("create", &new))?;
            fs::rename(&new, &path).map_err(at("replace", &path))
        };
        let before = fs::read_link(self.folder.join("live")).ok();
        let before = before.as_deref().and_then(Path::to_str).and_then(version_of);
        link(&format!("v{}", self.version), "live")?;
        for name in ["cert.pem", "key.pem"] {
            let to = format!("live/{name}");
            if fs::read_link(self.folder.join(name)).ok().as_deref() != Some(Path::new(&to)) {
                link(&to, name)?;
            }
        }
        sync_folder(&self.folder)?;
        for old in versions(&self.folder)? {
            if old != self.version && Some(old) != before {
                let path = self.folder.join(format!("v{old}"));
                fs::remove_dir_all(&path).map_err(at("remove", &path))?;
            }
        }
        Ok(())
    }
}
