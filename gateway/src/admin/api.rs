//! The JSON API. Shows names, numbers and verdicts; never a secret, since none of them is in what is serialised.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::App;
use crate::{
    clock,
    control::{ReloadResult, directory::Tunnel},
    data::explain::word,
    lifecycle::upgrade::Refusal,
};

/// `GET /api/v1/listeners`: one of these per listener.
#[derive(Debug, Serialize)]
pub struct ListenerView {
    name: String,
    /// The address that is really bound.
    address: Option<SocketAddr>,
    protocol: &'static str,
}

/// What is listened on, in file order.
pub async fn listeners(State(app): State<App>) -> Json<Vec<ListenerView>> {
    let state = app.control.state();
    let listeners = state.config.iter().flat_map(|config| &config.listeners);
    let view = listeners.map(|listener| ListenerView {
        name: listener.name.clone(),
        address: state.addresses.get(&listener.name).copied(),
        protocol: listener.protocol.word(),
    });
    Json(view.collect())
}

/// `GET /api/v1/config`. Times are Unix seconds.
#[derive(Debug, Serialize)]
pub struct ConfigView {
    generation: u64,
    /// `ok` or `refused`.
    last_reload: &'static str,
    last_reload_at: Option<u64>,
    last_success_at: Option<u64>,
    /// What was wrong in the last reload.
    diagnostics: Vec<Value>,
}

/// How the configuration in force came to be, and why a later one did not.
pub async fn config(State(app): State<App>) -> Json<ConfigView> {
    let state = app.control.state();
    let reloads = &state.reloads;
    Json(ConfigView {
        generation: state.generation,
        last_reload: if reloads.faults.is_empty() { "ok" } else { "refused" },
        last_reload_at: reloads.last_try.map(unix_seconds),
        last_success_at: reloads.last_success.map(unix_seconds),
        diagnostics: reloads.faults.iter().map(|fault| fault.diagnostic.clone()).collect(),
    })
}

/// `GET /api/v1/frps`: one of these per frps.
#[derive(Debug, Serialize)]
pub struct FrpsView {
    name: String,
    host: String,
    /// Whether its admin API is asked at all.
    listed: bool,
    /// The listing in use is not what it said last.
    stale: bool,
    last_listing_at: Option<u64>,
    /// Why the last try gave no listing.
    fault: Option<String>,
    tunnels: Vec<TunnelView>,
}

#[derive(Debug, Serialize)]
struct TunnelView {
    name: String,
    domains: Vec<String>,
    locations: Vec<String>,
}

/// The fleet in file order, with the tunnels each frps lists.
pub async fn frps(State(app): State<App>) -> Json<Vec<FrpsView>> {
    let state = app.control.state();
    let all = state.config.iter().flat_map(|config| &config.frps);
    let view = all.map(|frps| {
        let known = state.frps.get(&frps.name);
        let http = |tunnel: &&Arc<Tunnel>| !tunnel.domains().is_empty();
        FrpsView {
            name: frps.name.clone(),
            host: frps.host.clone(),
            listed: known.is_some(),
            stale: known.is_some_and(|known| known.is_stale()),
            last_listing_at: known.and_then(|known| known.listed_at).map(unix_seconds),
            fault: known.and_then(|known| known.fault.clone()),
            tunnels: known
                .into_iter()
                .flat_map(|known| known.table.values().filter(http))
                .map(|tunnel| TunnelView {
                    name: tunnel.proxy.name.clone(),
                    domains: tunnel.domains().to_vec(),
                    locations: tunnel.locations().to_vec(),
                })
                .collect(),
        }
    });
    Json(view.collect())
}

/// `GET /api/v1/pools`: one of these per pool.
#[derive(Debug, Serialize)]
pub struct PoolView {
    name: String,
    balance: &'static str,
    members: Vec<MemberView>,
}

#[derive(Debug, Serialize)]
struct MemberView {
    endpoint: String,
    host: String,
    port: u16,
    addresses: Vec<SocketAddr>,
    weight: u32,
    /// What the pool's health checks say; true without any.
    healthy: bool,
    /// The last connect failed and its time out runs.
    down: bool,
    in_flight: u32,
}

/// Pools in file order, with the live state of their members.
pub async fn pools(State(app): State<App>) -> Json<Vec<PoolView>> {
    let (snapshot, now) = (app.published.load(), clock::now());
    let view = snapshot.pools.iter().map(|pool| PoolView {
        name: pool.name.to_string(),
        balance: word(pool.balance),
        members: pool
            .members
            .iter()
            .map(|member| MemberView {
                endpoint: member.endpoint.label().to_owned(),
                host: member.endpoint.id.host.to_string(),
                port: member.endpoint.id.port,
                addresses: member.endpoint.addresses(),
                weight: member.weight,
                healthy: member.state.is_healthy(),
                down: member.endpoint.is_down(now),
                in_flight: member.endpoint.in_flight(),
            })
            .collect(),
    });
    Json(view.collect())
}

/// `POST /api/v1/reload`.
#[derive(Debug, Serialize)]
pub struct ReloadView {
    /// `changed`, `unchanged` or `refused`.
    result: &'static str,
    /// Number of the configuration in force.
    generation: u64,
    /// Why it was refused.
    diagnostics: Vec<Value>,
}

/// Reloads and says what came of it: 200, or 422 when the configuration was refused.
pub async fn reload(State(app): State<App>) -> Response {
    let Some(result) = app.control.reload("API").await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    };
    let (status, result, diagnostics) = match result {
        ReloadResult::Changed { .. } => (StatusCode::OK, "changed", Vec::new()),
        ReloadResult::Unchanged { .. } => (StatusCode::OK, "unchanged", Vec::new()),
        ReloadResult::Refused(faults) => {
            let diagnostics = faults.into_iter().map(|fault| fault.diagnostic).collect();
            (StatusCode::UNPROCESSABLE_ENTITY, "refused", diagnostics)
        }
    };
    let generation = app.control.state().generation;
    (status, Json(ReloadView { result, generation, diagnostics })).into_response()
}

/// `POST /api/v1/upgrade`.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpgradeView {
    /// `upgraded` or `failed`.
    pub result: String,
    /// Id of the process that answers.
    pub old: u32,
    /// Id of the process that serves now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<u32>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Replaces the process and says what came of it: 200 once the new one serves, 409 while another upgrade is under way,
/// 500 when this process serves on.
pub async fn upgrade(State(app): State<App>) -> Response {
    let outcome = app.upgrades.ask().await;
    let status = match &outcome {
        Ok(_) => StatusCode::OK,
        Err(Refusal::Busy) => StatusCode::CONFLICT,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let result = if outcome.is_ok() { "upgraded" } else { "failed" };
    let error = outcome.as_ref().err().map(ToString::to_string);
    let view = UpgradeView { result: result.to_owned(), old: std::process::id(), new: outcome.ok(), error };
    (status, Json(view)).into_response()
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
