//! `GET /api/v1/certificates`.

use std::time::SystemTime;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};

use super::App;
use crate::tls::{Store, view::CertificateView};

/// Certificates that `GET /api/v1/status` shows one by one.
const SOONEST: usize = 20;

/// Every certificate that listeners serve: those of files by path, then those that renew themselves.
pub async fn certificates(State(app): State<App>) -> Json<Vec<CertificateView>> {
    Json(app.control.certificates().shown(SystemTime::now()))
}

/// The part of `GET /api/v1/status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificatesStatus {
    /// How many there are.
    pub total: usize,
    /// Those that need a look first: files that hold something newer that can't be served, then what expires soonest. At
    /// most 20.
    pub first: Vec<CertificateView>,
}

impl CertificatesStatus {
    /// As it stands now.
    #[must_use]
    pub fn read(store: &Store) -> Self {
        let mut first = store.shown(SystemTime::now());
        let total = first.len();
        first.sort_by(|one, other| {
            let key = |view: &CertificateView| (view.fault.is_none(), view.not_after);
            key(one).cmp(&key(other)).then_with(|| one.source.cmp(&other.source))
        });
        first.truncate(SOONEST);
        Self { total, first }
    }
}
