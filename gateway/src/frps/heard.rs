//! What a plugin call tells: a hint for the directory, a line for the audit log, a message from an agent to the gateways.

use serde::{Deserialize, Serialize};

/// Messages of one agent: what it heard from its frps, oldest first. JSON body of `POST /agent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the frps in the configuration of agent and gateway.
    pub frps: String,
    /// What was heard.
    pub heard: Vec<Heard>,
}

/// One plugin call and what was answered. Holds no secret: no run id, key, token or password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Heard {
    /// An frpc wants to log in. frps has not looked at its token yet.
    Login {
        /// User of FRP; whoever has the token may say any name.
        user: String,
        /// `clientID`; empty = none.
        #[serde(default)]
        client_id: String,
        /// Address of the frpc as frps sees it.
        address: String,
        /// Why it was refused by us; `None` = not by us.
        refused: Option<String>,
        /// It showed that it knows the token that we know, and isn't refused by us.
        #[serde(default)]
        knows_token: bool,
    },
    /// A proxy wants to be registered. It may still fail.
    Claim {
        /// Name as frps will list it.
        name: String,
        /// User of FRP.
        user: String,
        /// FRP's word for its type, before any takeover.
        kind: String,
        /// Domains it claims, lower case.
        domains: Vec<String>,
        /// Whether it becomes a private tcp port.
        taken_over: bool,
        /// Why it was refused by us; `None` = it was not.
        refused: Option<String>,
    },
    /// A proxy was closed. A new one of that name may be there already.
    Closing {
        /// Name as frps listed it.
        name: String,
        /// User of FRP.
        user: String,
    },
}
