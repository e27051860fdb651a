//! Certificates that renew themselves (RFC 8555), for listeners with `tls: { acme: true }`.
//!
//! Reading order: [`wanted`] (which names may have one), [`manager`] (what is ordered when), [`authority`] (how one is had),
//! [`proofs`] (how a name is proved to be ours), [`certificates`] (where handshakes find them), [`storage`] (the folder, which
//! gateways may share), [`patience`] (when something is tried again), [`client`] (HTTPS to the authority), [`stats`].
//!
//! All of it runs on the control plane. Handshakes and requests read what it publishes, and never wait for the authority.

pub mod authority;
pub mod certificates;
pub mod client;
pub mod manager;
pub mod names;
pub mod patience;
pub mod proofs;
pub mod stats;
pub mod storage;
pub mod wanted;

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

pub use self::{certificates::Certificates, proofs::Proofs, stats::Stats};

/// What the rest of the process has of it.
#[derive(Debug, Clone)]
pub struct Acme {
    /// What proves that names are ours.
    pub proofs: Arc<Proofs>,
    /// The certificates.
    pub certificates: Arc<Certificates>,
    /// What has happened.
    pub stats: Arc<Stats>,
    changed: Arc<Notify>,
}

/// What only [`manager::run`] has.
#[derive(Debug)]
pub struct Inbox {
    wishes: mpsc::Receiver<Box<str>>,
    questions: mpsc::Receiver<proofs::Question>,
}

impl Acme {
    /// Without certificates.
    #[must_use]
    pub fn new() -> (Self, Inbox) {
        let (proofs, questions) = Proofs::new();
        let proofs = Arc::new(proofs);
        let stats = Arc::<Stats>::default();
        let (certificates, wishes) = Certificates::new(Arc::clone(&proofs), Arc::clone(&stats));
        let acme = Self { proofs, certificates: Arc::new(certificates), stats, changed: Arc::default() };
        (acme, Inbox { wishes, questions })
    }

    /// The configuration or the tunnels have changed.
    pub fn look(&self) {
        self.changed.notify_one();
    }
}
