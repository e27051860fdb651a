//! What an http proxy asked for before it was taken over. It travels through frps, sealed, in one annotation: so frps itself
//! stores all that a gateway needs after a restart.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ProxyKind;

/// Annotations under this prefix are ours: what an frpc writes there is taken out.
pub const ANNOTATION_PREFIX: &str = "frp-gateway/";
/// The one we write: a sealed [`HttpClaim`].
pub const ANNOTATION: &str = "frp-gateway/claim";
/// Metadata under this prefix speaks to the gateway.
pub const METADATA_PREFIX: &str = "gw_";

/// What an http or https proxy asked frps for. frps's words and meaning; the gateway does it after takeover.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpClaim {
    /// User of FRP, as it logged in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `clientID` of the frpc, if it set one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    /// Id of the plugin call (`X-Frp-Reqid`): two registrations are never equal.
    pub call: String,
    /// Custom domains and the whole name of the subdomain, lower case, as in [`super::Proxy::domains`].
    pub domains: Vec<String>,
    /// An https proxy: TLS ends in the application, the domains are server names.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    /// Path prefixes; `[""]` when the proxy names none.
    pub locations: Vec<String>,
    /// Only for visitors whose basic-auth user is this; empty = for all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route_by_http_user: String,
    /// FRP group; empty = none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// SHA-256 (hex) of the group key under the sealing key; empty = no group key. Only compared.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group_key: String,
    /// What to change in messages.
    pub rewrite: Rewrite,
    /// What visitors have to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<BasicAuth>,
}

impl HttpClaim {
    /// Type that the proxy had.
    #[must_use]
    pub const fn kind(&self) -> ProxyKind {
        if self.tls { ProxyKind::Https } else { ProxyKind::Http }
    }
}

/// What frps would have changed in requests and answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rewrite {
    /// `hostHeaderRewrite`; empty = the visitor's host stays.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// `requestHeaders.set`: replace every field of that name. Checked to be valid field names and values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_headers: Vec<(String, String)>,
    /// `responseHeaders.set`, the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<(String, String)>,
}

impl Rewrite {
    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.host.is_empty() && self.request_headers.is_empty() && self.response_headers.is_empty()
    }
}

/// Basic authentication that the proxy wants of visitors (`httpUser`, `httpPassword`).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasicAuth {
    /// SHA-256 of salt, then `user:password`. The password itself isn't kept.
    pub hash: String,
    /// Salt, hex.
    pub salt: String,
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BasicAuth(***)")
    }
}
