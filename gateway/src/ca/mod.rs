//! `frp-gateway ca`: a small certificate authority in a folder, for fleets that have none.
//!
//! It issues the certificates by which an `frp` or `https` listener knows hundreds of clients, and those of gateways and frps. No network, no
//! daemon: every command reads the folder, does one thing, writes what changed, and ends. `docs/ca.md`.
//!
//! Reading order: [`Authority`] (what can be done), `index` (what is known), `sign` (what a certificate says), `files` (how files are
//! replaced so that no reader sees half), `command` and `text` (the command line).
//!
//! What lies in the folder:
//!
//! | path | what | who reads it |
//! | --- | --- | --- |
//! | `index.json` | every certificate, its state, the roots | this program; the truth |
//! | `trust.pem` | the roots that are trusted: two while they change | gateways: `client_auth.trust` |
//! | `crl.pem` | a revocation list per root in `trust.pem` | gateways: `client_auth.crl` |
//! | `issued/NAME/{cert,key,ca}.pem` | leaf, its key, `trust.pem` once more | who NAME is |
//! | `roots/N/{cert,key}.pem` | root N and its key | this program |
//! | `lock` | held while a command changes anything | this program |
//!
//! Not here: serving a list or OCSP by HTTP, intermediates, certificates of keys that are made elsewhere.

mod authority;
pub mod command;
mod error;
mod files;
mod index;
mod issue;
mod names;
mod revoke;
mod rotate;
mod sign;
mod text;

pub use authority::{Authority, Founding};
pub use error::CaError;
pub use index::{Entry, KeyKind, Reason, Standing, Use};
pub use issue::{Done, Renewal, Wish};
