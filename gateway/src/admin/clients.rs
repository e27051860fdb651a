//! `GET /api/v1/clients`: who is relayed where.

use std::{net::SocketAddr, time::UNIX_EPOCH};

use axum::{
    Json,
    extract::{Query, State},
};
use serde::{Deserialize, Serialize};

use super::App;
use crate::control::relays::RelayInfo;

/// What to show.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    frps: Option<String>,
    listener: Option<String>,
    user: Option<String>,
    /// Work connections too.
    work: bool,
}

/// One connection. Run ids are secrets and not among what is shown.
#[derive(Debug, Serialize)]
pub struct ClientView {
    id: u64,
    listener: String,
    frps: String,
    /// `control`, `work`, or `opaque` (TLS passed through, not told yet).
    kind: &'static str,
    /// Address of the client.
    address: SocketAddr,
    /// What frps calls its `client_address`: our side of the connection to it.
    seen_as: Option<SocketAddr>,
    /// As the client says; nobody has checked it. Null = not known.
    user: Option<String>,
    client_id: Option<String>,
    /// Unix seconds.
    since: u64,
    tls_ended: bool,
    /// Whose certificate it has shown; checked. Null = it has shown none.
    certificate: Option<String>,
}

impl From<RelayInfo> for ClientView {
    fn from(info: RelayInfo) -> Self {
        Self {
            id: info.id,
            listener: info.listener.to_string(),
            frps: info.frps.to_string(),
            kind: info.kind.word(),
            address: info.peer,
            seen_as: info.local,
            user: info.user,
            client_id: Some(info.client_id).filter(|id| !id.is_empty()),
            since: info.opened.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            tls_ended: info.tls_ended,
            certificate: info.certificate.map(Into::into),
        }
    }
}

/// Clients in the order they came: `?frps=`, `?listener=`, `?user=` choose, `?work=true` adds work connections.
pub async fn clients(State(app): State<App>, Query(wanted): Query<Wanted>) -> Json<Vec<ClientView>> {
    let all = app.published.load().relays.all();
    let fits = |info: &RelayInfo| {
        (wanted.work || info.kind.is_client())
            && wanted.frps.as_ref().is_none_or(|frps| **frps == *info.frps)
            && wanted.listener.as_ref().is_none_or(|listener| **listener == *info.listener)
            && wanted.user.as_ref().is_none_or(|user| info.user.as_ref() == Some(user))
    };
    Json(all.into_iter().filter(fits).map(ClientView::from).collect())
}
