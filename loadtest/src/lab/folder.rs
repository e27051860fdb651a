//! The temporary folder of one lab process: its configuration and its log.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::LabError;

/// Removed on drop unless `FRP_LAB_KEEP` is set.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: TempDir,
}

impl Folder {
    pub(crate) fn new(name: &str) -> Result<Self, LabError> {
        let mut dir = tempfile::Builder::new()
            .prefix(&format!("frp-lab-{name}-"))
            .tempdir()
            .map_err(LabError::io("make a temporary folder"))?;
        if std::env::var_os("FRP_LAB_KEEP").is_some_and(|value| !value.is_empty()) {
            dir.disable_cleanup(true);
            eprintln!("lab: keeping {}", dir.path().display());
        }
        Ok(Self { dir })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes beside the target and renames over it, as a careful editor does: a reader sees the old text or the new.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, LabError> {
        let path = self.path().join(name);
        let beside = self.path().join(format!(".{name}.new"));
        fs::write(&beside, text).map_err(LabError::io(format!("write {name}")))?;
        fs::rename(&beside, &path).map_err(LabError::io(format!("rename over {name}")))?;
        Ok(path)
    }
}
