//! TLS: where it ends, with which certificates, and whom it lets in.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::{DomainPattern, Pattern};
use crate::secret::Secret;

/// TLS that ends at a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerTls {
    /// Chosen by the name that the client asks for: an exact name first, then a wildcard. The first is for clients that ask
    /// for a name nobody has, or for none. At least one, unless [`Self::acme`].
    pub certificates: Vec<Certificate>,
    /// Names without a certificate of their own get one by [`super::Config::acme`].
    pub acme: bool,
    /// Oldest version that is spoken. Default TLS 1.2.
    pub min_version: TlsVersion,
    /// Sessions may be resumed (tickets, whose keys rotate). Default yes.
    pub session_tickets: bool,
    /// What becomes of a client that asks for a name which has no certificate.
    pub unknown_name: UnknownName,
    /// Certificates of clients; `None` = none is asked for.
    pub client_auth: Option<ClientAuth>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// What becomes of a client that asks for a name which has no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownName {
    /// It gets the first certificate. Default.
    First,
    /// The handshake ends with `unrecognized_name`.
    Refuse,
}

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Certificate {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// An OCSP response (DER) to staple; `None` = none.
    pub ocsp: Option<PathBuf>,
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientAuth {
    /// Whether a client without one is let in.
    pub mode: ClientAuthMode,
    /// PEM files with the authorities that are trusted, all at once. At least one.
    pub trust: Vec<PathBuf>,
    /// PEM files with revocation lists, which may be empty of entries. Empty = nothing is revoked.
    pub crl: Vec<PathBuf>,
    /// Identities that are let in; empty = everyone whose certificate is trusted.
    pub allow: Vec<Identity>,
}

/// Whether a client without a certificate is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthMode {
    /// The handshake fails without one. Default.
    Required,
    /// It may come without; routes can ask for one ([`super::Route::client`]).
    Optional,
}

/// A pattern for who a client's certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// `spiffe://…` (`*` for any run of characters): the one URI name of the certificate.
    Uri(Pattern),
    /// `dns:NAME` or `dns:*.NAME`: one of its DNS names.
    Dns(DomainPattern),
    /// `cn:TEXT`: the common name of its subject (`*` for any run of characters).
    CommonName(Pattern),
}

/// What a route wants of the client's certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientRule {
    /// Identities that are let in; empty = everyone whose certificate is trusted. Others get 403.
    pub allow: Vec<Identity>,
}

/// HTTP/2 from visitors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2 {
    /// Streams that one connection may have open. Default 100, 1 to 1,000.
    pub max_streams: u32,
}

/// Where a route sends visitors instead of to a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// The same host, path and query by https.
    Https {
        /// Port in the new address; `None` = 443, which isn't written.
        port: Option<u16>,
        /// 301, 302, 307 or 308. Default 308.
        status: u16,
    },
}

/// `Strict-Transport-Security` (RFC 6797), sent on https listeners only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hsts {
    /// How long browsers remember, whole seconds. Default 1 year.
    pub max_age: Duration,
    /// Names below as well. Default no.
    pub include_subdomains: bool,
    /// The operator wants the name in the lists of browsers. Default no.
    pub preload: bool,
}

/// TLS to the members of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolTls {
    /// PEM files with the authorities that are trusted; empty = those of the system.
    pub trust: Vec<PathBuf>,
    /// Name that the member's certificate must be for, and that is asked for; `None` = the frps's `host`.
    pub server_name: Option<String>,
    /// Our own certificate, where the member wants one.
    pub certificate: Option<Certificate>,
}

/// What is spoken to the members of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PoolProtocol {
    /// HTTP/1.1. Default.
    #[default]
    H1,
    /// HTTP/2 in clear text, prior knowledge (RFC 9113 §3.3): gRPC needs it.
    H2c,
}

/// Certificates that renew themselves (ACME, RFC 8555).
#[derive(Debug, Clone, PartialEq)]
pub struct Acme {
    /// The authority's directory. Default Let's Encrypt's.
    pub directory: String,
    /// PEM file with the authority that the directory's own certificate is checked by; `None` = those of the system.
    pub trust: Option<PathBuf>,
    /// Where the authority may write to; `None` = nowhere.
    pub email: Option<String>,
    /// Folder of accounts, keys and certificates; several gateways may share it.
    pub storage: PathBuf,
    /// Ways to prove that a name is ours, in the order they are tried. At least one; default both.
    pub challenges: Vec<Challenge>,
    /// Names that get a certificate without being asked for.
    pub names: Vec<String>,
    /// Names that may get one when a client asks for them.
    pub on_demand: OnDemand,
    /// Certificates that the tunnels of one frp user may have. Default 50.
    pub per_user: u32,
    /// Key id and HMAC key (base64url) of external account binding, where the authority wants it.
    pub external_account: Option<(String, Secret)>,
    /// Profile of the authority; `None` = its default.
    pub profile: Option<String>,
    /// Addresses from which challenges are answered; empty (default) = everyone.
    pub from: Vec<IpNet>,
}

/// A way to prove that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// A file under `/.well-known/acme-challenge/` on an http listener (RFC 8555 §8.3).
    Http01,
    /// A certificate of its own in the handshake of an https listener (RFC 8737).
    TlsAlpn01,
}

/// Names that may get a certificate when a client asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnDemand {
    /// Hosts that routes name exactly. Default yes.
    pub routes: bool,
    /// Hosts that live tunnels claim. Default yes.
    pub tunnels: bool,
}
