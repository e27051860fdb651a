//! What has happened with certificates of the authority.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How an order ended, or why there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The first certificate for its name.
    Issued,
    /// Another one for its name.
    Renewed,
    /// The authority refused, or did not see the proof.
    Failed,
    /// The authority could not be reached.
    Unreachable,
    /// The authority wants fewer orders.
    Limited,
    /// Nobody may have one for this name, or not another one.
    Refused,
    /// Another gateway with the same storage had it.
    Shared,
}

impl Ended {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Issued,
        Self::Renewed,
        Self::Failed,
        Self::Unreachable,
        Self::Limited,
        Self::Refused,
        Self::Shared,
    ];

    /// Label in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Renewed => "renewed",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::Limited => "limited",
            Self::Refused => "refused",
            Self::Shared => "shared",
        }
    }
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Stats([AtomicU64; Ended::ALL.len()]);

impl Stats {
    /// One more.
    pub fn count(&self, ended: Ended) {
        self.0[ended as usize].fetch_add(1, Relaxed);
    }

    /// How many.
    #[must_use]
    pub fn of(&self, ended: Ended) -> u64 {
        self.0[ended as usize].load(Relaxed)
    }
}
