//! What hashing policies look keys up in: costly to build, so built once per reload and shared by all workers.

use std::sync::Arc;

use crate::{MaglevTable, PolicyKind, Ring};

/// An endpoint as the tables of hashing policies know it.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Host as written in the configuration; where a ring's points lie follows from it.
    pub host: &'a str,
    /// Port; likewise.
    pub port: u16,
    /// The same for this endpoint in every process and after every reload; where its Maglev slots lie follows from it.
    pub key: u64,
    /// Relative share of keys; 0 = none.
    pub weight: u32,
}

/// The table that a policy of one kind needs for one fleet. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub enum Prepared {
    /// The policy needs none; or there is none yet, then a hashing policy looks at every endpoint for every key.
    #[default]
    None,
    /// For [`Maglev`](crate::Maglev).
    Maglev(Arc<MaglevTable>),
    /// For [`RingHash`](crate::RingHash).
    Ring(Arc<Ring>),
}

impl Prepared {
    /// The table for a fleet whose endpoint `i` is `places[i]`.
    ///
    /// Costs milliseconds for hashing policies ([`MaglevTable::build`], [`Ring::build`]) and nothing for the others: not
    /// for the request path.
    #[must_use]
    pub fn build(kind: PolicyKind, places: &[Place<'_>]) -> Self {
        match kind {
            PolicyKind::RoundRobin | PolicyKind::Random | PolicyKind::LeastRequest | PolicyKind::PeakEwma => {
                Self::None
            }
            PolicyKind::Maglev { .. } => Self::Maglev(Arc::new(MaglevTable::build(places))),
            PolicyKind::RingHash { .. } => Self::Ring(Arc::new(Ring::build(places))),
        }
    }
}
