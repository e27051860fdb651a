//! `GET /api/v1/drains`, `POST /api/v1/frps/NAME/{drain,undrain}`, `POST /api/v1/rebalance`: emptying an frps, and spreading clients anew.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::{explain::Fault, server::App};
use crate::control::{
    Event,
    migration::{Progress, Rebalance},
};

/// How everything that moves stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DrainsView {
    /// By frps: those in drain.
    pub drains: BTreeMap<String, Progress>,
    /// The last rebalance; `None` = there was none.
    pub rebalance: Option<Rebalance>,
}

/// How it stands.
pub async fn drains(State(app): State<App>) -> Json<DrainsView> {
    Json(view(&app))
}

fn view(app: &App) -> DrainsView {
    let mut drains = app.mover.migrations.progress();
    if let Some(config) = &app.control.state().config {
        drains.retain(|name, _| config.frps.iter().any(|frps| frps.name == *name && frps.drain));
        // One that has just begun.
        for frps in config.frps.iter().filter(|frps| frps.drain) {
            drains
                .entry(frps.name.clone())
                .or_insert_with(|| Progress { state: "moving".into(), ..Progress::default() });
        }
    }
    DrainsView { drains, rebalance: app.mover.migrations.last_rebalance() }
}

/// Begins to empty an frps. 404 when there is none of this name.
pub async fn drain(State(app): State<App>, Path(name): Path<String>) -> Response {
    ask(app, name, true).await
}

/// Uses it again. 409 when the file says `drain: true`.
pub async fn undrain(State(app): State<App>, Path(name): Path<String>) -> Response {
    ask(app, name, false).await
}

async fn ask(app: App, name: String, on: bool) -> Response {
    let state = app.control.state();
    let names: Vec<String> =
        state.config.iter().flat_map(|config| &config.frps).map(|frps| frps.name.clone()).collect();
    if !names.contains(&name) {
        let error = format!("no frps is called {name:?}; frps here: {}", names.join(", "));
        return (StatusCode::NOT_FOUND, Json(Fault { error, choices: Vec::new() })).into_response();
    }
    if !on && state.file_drains.contains(&name) {
        let error = format!("the configuration says \"drain: true\" at {name}: take it out there");
        return (StatusCode::CONFLICT, Json(Fault { error, choices: Vec::new() })).into_response();
    }
    app.mover.audit.asked(&format!("{} {name}", if on { "drain" } else { "undrain" }));
    if !app.control.send(Event::DrainAsked { frps: name, on }).await {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    }
    Json(view(&app)).into_response()
}

/// Begins to spread clients anew. 409 while that is going on already.
pub async fn rebalance(State(app): State<App>) -> Response {
    if !app.mover.migrations.begin_rebalance() {
        let error = "a rebalance is going on already".to_owned();
        return (StatusCode::CONFLICT, Json(Fault { error, choices: Vec::new() })).into_response();
    }
    app.mover.audit.asked("rebalance");
    let mover = app.mover.clone();
    tokio::spawn(async move { mover.rebalance().await });
    Json(view(&app)).into_response()
}
