//! What `explain` answers: `POST /api/v1/explain` sends it, `frp-gateway explain` reads and prints it.
//!
//! Names, numbers and verdicts; no value of a header, cookie or query parameter.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error::Refusal;

/// What would become of a request or a connection, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Number of the configuration in force.
    pub generation: u64,
    /// Where the request comes in.
    pub listener: String,
    /// Its method; empty for a connection.
    pub method: String,
    /// What was asked for, without the query's values.
    pub url: String,
    /// Who asks.
    pub from: IpAddr,
    /// The route that serves it.
    pub route: Option<String>,
    /// The pool that was drawn.
    pub pool: Option<String>,
    /// What comes of it.
    pub ending: Ending,
    /// All routes, in order of precedence for this request.
    pub routes: Vec<RouteView>,
    /// The pools of the route, in file order.
    pub pools: Vec<PoolView>,
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Ending {
    /// It goes to an endpoint.
    Picked {
        /// Which.
        endpoint: String,
        /// What decided: the access log's `pick`.
        reason: String,
        /// Who was looked at: the access log's `among`.
        among: String,
        /// How many of them were eligible.
        of: usize,
        /// Every dry run came to the same.
        certain: bool,
    },
    /// All that could serve are at their limits, or others wait already: it gets in line.
    Waits {
        /// Requests in line now.
        waiting: u32,
    },
    /// The visitor is sent elsewhere.
    Redirected {
        /// Status.
        status: u16,
        /// Where to, without a query.
        location: String,
    },
    /// The gateway answers it; a connection is closed.
    Refused {
        /// Status; absent for a connection.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// The `x-frp-gateway` header; the access log's `error` of a connection.
        class: String,
        /// One sentence.
        why: String,
    },
}

impl Ending {
    /// The gateway answers it.
    #[must_use]
    pub fn refused(refusal: Refusal, detail: &str) -> Self {
        let why = match detail {
            "" => refusal.explanation().to_owned(),
            detail => detail.to_owned(),
        };
        Self::Refused { status: Some(refusal.status()), class: refusal.label().to_owned(), why }
    }

    /// The same for a connection, which gets no status.
    #[must_use]
    pub fn of_connection(&self) -> Self {
        match self.clone() {
            Self::Refused { class, why, .. } => Self::Refused { status: None, class, why },
            other @ (Self::Picked { .. } | Self::Waits { .. } | Self::Redirected { .. }) => other,
        }
    }
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteView {
    /// Its name.
    pub route: String,
    /// `matched`, `less_specific`, or the first condition that failed: `listener`, `host`, `path`, `method`, `header`,
    /// `query`, `client`, `https`.
    pub verdict: String,
    /// The same as a sentence.
    pub why: String,
    /// What it asks of a request beside the host.
    pub conditions: String,
}

/// One pool of the route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolView {
    /// Its name.
    pub pool: String,
    /// Its weight in the route.
    pub weight: u32,
    /// Its share of the route, percent.
    pub percent: f64,
    /// Whether it was drawn for this request.
    pub drawn: bool,
    /// The rule that picks, as in the file.
    pub balance: String,
    /// What the request is hashed by; absent when it isn't.
    pub key: Option<String>,
    /// What comes of the request in this pool.
    pub ending: Ending,
    /// Picks that were tried out.
    pub dry_runs: u32,
    /// What the candidates' score means: the least is picked. Absent when nothing is compared.
    pub score: Option<String>,
    /// Requests in line.
    pub waiting: u32,
    /// In file order.
    pub candidates: Vec<Candidate>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// One member of the pool, as a pick sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Name.
    pub endpoint: String,
    /// Host and port.
    pub address: String,
    /// Zone of its frps.
    pub zone: Option<String>,
    /// Whether that is the gateway's own.
    pub local: bool,
    /// 0 is used first.
    pub priority: u32,
    /// As configured.
    pub weight: u32,
    /// After slow start.
    pub effective_weight: f64,
    /// Requests sent there and not ended.
    pub in_flight: u32,
    /// Most of them; the adaptive limit where there is one.
    pub limit: Option<u32>,
    /// Open connections, idle ones included.
    pub connections: u32,
    /// Most of them.
    pub connection_limit: Option<u32>,
    /// Expected time to the response head; absent = nothing was heard yet.
    pub latency_ms: Option<f64>,
    /// See [`PoolView::score`].
    pub score: Option<f64>,
    /// How many others come before it for this key; 0 = its owner.
    pub rank: Option<u32>,
    /// All that is known against it, or `up`.
    pub verdicts: Vec<String>,
    /// Whether the pick could fall on it.
    pub eligible: bool,
    /// Why not.
    pub why_not: Option<String>,
    /// Its part of the dry runs, percent.
    pub share: f64,
    /// Whether it is the one.
    pub picked: bool,
}
