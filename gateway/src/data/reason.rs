//! Why a member was picked, in words that the access log, `/metrics` and `explain` share.

/// What decided for one member among those that were eligible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Because {
    /// It was its turn.
    #[default]
    Turn,
    /// Drawn by weight.
    Chance,
    /// Fewest requests in flight per weight.
    LeastLoaded,
    /// Lowest latency × requests in flight per weight.
    Cheapest,
    /// To see whether it has become better.
    Probe,
    /// The request's key belongs to it.
    Hash,
    /// The key's owner is at its bound, or out.
    HashSpill,
    /// The visitor's session is there.
    Session,
    /// A second attempt beside a slow one, and it answered first.
    Hedge,
}

impl Because {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Turn,
        Self::Chance,
        Self::LeastLoaded,
        Self::Cheapest,
        Self::Probe,
        Self::Hash,
        Self::HashSpill,
        Self::Session,
        Self::Hedge,
    ];

    /// The word.
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
            Self::Session => "session",
            Self::Hedge => "hedge",
        }
    }
}

/// Which members were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Among {
    /// All that are healthy, up, not ejected, and not known to lack the tunnel.
    #[default]
    All,
    /// Those of them whose frps lists the host.
    Holders,
    /// Those of them in the gateway's zone.
    Local,
    /// Those of other zones: the own zone lacks weight.
    Remote,
    /// Those that stand by.
    Standby,
    /// Unhealthy and ejected ones too: fewer than the panic threshold are healthy.
    Panic,
    /// Those that lately lacked the tunnel: nobody else is left.
    Absent,
    /// Ejected ones: nobody else is left.
    Ejected,
    /// Those whose last connect failed: nobody else is left.
    Down,
}

impl Among {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::All,
        Self::Holders,
        Self::Local,
        Self::Remote,
        Self::Standby,
        Self::Panic,
        Self::Absent,
        Self::Ejected,
        Self::Down,
    ];

    /// The word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Holders => "holders",
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Standby => "standby",
            Self::Panic => "panic",
            Self::Absent => "absent",
            Self::Ejected => "ejected",
            Self::Down => "down",
        }
    }
}

/// Why a member was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Why {
    /// What decided.
    pub reason: Because,
    /// Among whom.
    pub among: Among,
}
