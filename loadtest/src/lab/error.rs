//! What can go wrong in the lab. Messages are written for someone who reads a failed test.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

/// A failure of the lab itself, not of what is tested.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program is not where it should be.
    #[error("{path} is missing: {hint}")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// How to get it.
        hint: &'static str,
    },
    /// A process ended although it should run.
    #[error("{name} ended with {status}; its log:\n{log}")]
    Exited {
        /// Which process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote.
        log: String,
    },
    /// A condition did not come true in time.
    #[error("waited {after:?} for {what}; {detail}")]
    Timeout {
        /// The condition.
        what: String,
        /// The deadline.
        after: Duration,
        /// Last observation, or the log of the process.
        detail: String,
    },
    /// An HTTP exchange of the lab failed.
    #[error("{what}: {cause}")]
    Http {
        /// Which exchange.
        what: String,
        /// Why.
        cause: String,
    },
    /// An operation of the system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl LabError {
    /// For `map_err`: names what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// For `map_err`: names the exchange.
    pub(crate) fn http<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |cause| Self::Http { what, cause: cause.to_string() }
    }
}
