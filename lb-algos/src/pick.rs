//! What a request brings to a pick, and what comes out of it.

use crate::Tick;

/// What a request brings to a pick.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// The time.
    pub now: Tick,
    /// Hash of what the request is to stay with, by [`PolicyKind::key_of`](crate::PolicyKind::key_of); `None` = nothing.
    /// Only hashing policies read it.
    pub key: Option<u64>,
}

impl Ask {
    /// A request at `now` that has nothing to stay with.
    #[must_use]
    pub const fn at(now: Tick) -> Self {
        Self { now, key: None }
    }
}

/// The endpoint for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Index in the fleet.
    pub index: usize,
    /// Why this one.
    pub reason: Reason,
}

/// Why an endpoint was picked. Few and fixed, so it may be a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It was its turn.
    Turn,
    /// Drawn by weight: also when nothing better is known of the fleet, as of a newcomer's latency.
    Chance,
    /// Fewest requests in flight per weight, of those compared.
    LeastLoaded,
    /// Least expected latency × load, of those compared.
    Cheapest,
    /// Nothing was heard of it for a while: one request finds out.
    Probe,
    /// The request's key leads there: to its owner, or while that one is ineligible to the one that stands in.
    Hash,
    /// The request's key leads elsewhere, but there the load bound is reached.
    HashSpill,
}

impl Reason {
    /// All of them, in declaration order.
    pub const ALL: [Self; 7] = [
        Self::Turn,
        Self::Chance,
        Self::LeastLoaded,
        Self::Cheapest,
        Self::Probe,
        Self::Hash,
        Self::HashSpill,
    ];

    /// As in metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Chance => "chance",
            Self::LeastLoaded => "least_loaded",
            Self::Cheapest => "cheapest",
            Self::Probe => "probe",
            Self::Hash => "hash",
            Self::HashSpill => "hash_spill",
        }
    }

    /// This reason for picking `index`.
    pub(crate) const fn of(self, index: usize) -> Pick {
        Pick { index, reason: self }
    }
}
