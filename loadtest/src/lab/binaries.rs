//! Where the built frps, frpc and pebble are.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::LabError;

/// Which frp to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// 0.61: admin API v1 only.
    V061,
    /// 0.71, the current one.
    #[default]
    V071,
}

impl Version {
    /// Name of its folder under `frp-lab/bin`.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::V061 => "0.61",
            Self::V071 => "0.71",
        }
    }

    /// Path of `frps` or `frpc` of this version: under `FRP_LAB_BIN`, else under `frp-lab/bin` of this workspace.
    pub(crate) fn binary(self, name: &str) -> Result<PathBuf, LabError> {
        existing(root().join(self.folder()).join(name), "run frp-lab/build")
    }
}

/// Path of a program of pebble, the certificate authority.
pub(crate) fn pebble(name: &str) -> Result<PathBuf, LabError> {
    existing(root().join("pebble").join(name), "run frp-lab/build")
}

fn root() -> PathBuf {
    env::var_os("FRP_LAB_BIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../frp-lab/bin"), PathBuf::from)
}

/// `path` if there is a file.
pub(crate) fn existing(path: PathBuf, hint: &'static str) -> Result<PathBuf, LabError> {
    if path.is_file() { Ok(path) } else { Err(LabError::Missing { path, hint }) }
}
