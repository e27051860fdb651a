//! What can go wrong, whose fault it is, and what to do about it.

use std::{io, path::PathBuf};

use super::index::Reason;

/// Why a command did nothing. Texts say what to do instead.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// There is no authority in the folder.
    #[error(
        "there is no certificate authority in {0}\n  help: make one with `frp-gateway ca --dir {0} init`, or name its folder with --dir"
    )]
    NoAuthority(String),
    /// There is one already.
    #[error(
        "there is a certificate authority in {0} already; nothing was changed\n  help: `ca rotate` replaces its root; for another authority take another --dir"
    )]
    Exists(String),
    /// A name that can't be a folder or a common name.
    #[error(
        "{name:?} can't be the name of a certificate: {why}\n  help: 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit"
    )]
    BadName {
        /// As it was written.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something else in the arguments.
    #[error("{said}\n  help: {help}")]
    Argument {
        /// What is wrong, with the value seen.
        said: String,
        /// What to write.
        help: String,
    },
    /// No certificate has these names or serial numbers.
    #[error("no certificate is called {}\n  help: `frp-gateway ca list` shows all names", .0.join(", "))]
    Unknown(Vec<String>),
    /// These have a certificate for other hosts, addresses or uses than are asked for now.
    #[error("what is asked for differs from what is there: {}\n  help: --renew replaces certificates; the old ones stay valid until they end or are revoked", .0.join("; "))]
    Differs(Vec<String>),
    /// These are revoked.
    #[error("revoked: {}\n  help: `ca issue NAME --renew` gives a revoked name a new certificate", .0.join(", "))]
    Revoked(Vec<String>),
    /// It is revoked, for this reason, already.
    #[error("{name} is revoked already ({reason}); nothing was changed")]
    RevokedAlready {
        /// As it was asked for.
        name: String,
        /// Why it was revoked.
        reason: Reason,
    },
    /// A root is being replaced already.
    #[error(
        "root {0} is still trusted beside the new one\n  help: finish that rotation first: `frp-gateway ca rotate --finish`"
    )]
    Rotating(u32),
    /// No root is being replaced.
    #[error("no rotation is under way\n  help: `frp-gateway ca rotate` begins one")]
    NotRotating,
    /// Certificates of the old root are in use.
    #[error("{} of root {root} still in use: {}\n  help: `frp-gateway ca renew --all` replaces them; --force ends the old root all the same, and they with it", count(*.total), shorten(.names, *.total))]
    InUse {
        /// The old root.
        root: u32,
        /// How many.
        total: usize,
        /// The first of them.
        names: Vec<String>,
    },
    /// The signing root has ended or ends at once.
    #[error("root {0} ends too soon to sign anything\n  help: `frp-gateway ca rotate` makes a new one")]
    RootEnds(u32),
    /// Another process holds the folder.
    #[error(
        "another `frp-gateway ca` has held {0} for 30 s\n  help: wait for it; the lock goes with the process that holds it"
    )]
    Locked(String),
    /// A file can't be read, written or replaced.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// The verb.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file isn't what it should be.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate can't be made.
    #[error("cannot sign: {0}")]
    Sign(#[from] rcgen::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(io::Error),
}

impl CaError {
    /// Whether what was asked for can't be, rather than that doing it failed.
    #[must_use]
    pub const fn is_askers(&self) -> bool {
        match self {
            Self::NoAuthority(_)
            | Self::Exists(_)
            | Self::BadName { .. }
            | Self::Argument { .. }
            | Self::Unknown(_)
            | Self::Differs(_)
            | Self::Revoked(_)
            | Self::RevokedAlready { .. }
            | Self::Rotating(_)
            | Self::NotRotating
            | Self::InUse { .. }
            | Self::RootEnds(_) => true,
            Self::Locked(_) | Self::File { .. } | Self::Damaged { .. } | Self::Sign(_) | Self::Random(_) => {
                false
            }
        }
    }

    pub(super) fn argument(said: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Argument { said: said.into(), help: help.into() }
    }
}

fn count(total: usize) -> String {
    if total == 1 { "1 certificate".into() } else { format!("{total} certificates") }
}

fn shorten(names: &[String], total: usize) -> String {
    let more = total.saturating_sub(names.len());
    let listed = names.join(", ");
    if more == 0 { listed } else { format!("{listed} and {more} more") }
}
