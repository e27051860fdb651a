//! Routes, the bearer token, and the three endpoints that aren't JSON.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{
        StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use subtle::ConstantTimeEq;

use super::{api, certificates, clients, drain, explain, status, tunnels};
use crate::{
    clock,
    control::{Handle, migration::Mover},
    lifecycle::upgrade::Upgrades,
    snapshot::Published,
    telemetry::metrics::collect::Metrics,
};

/// What the handlers read.
#[derive(Debug, Clone)]
pub struct App {
    /// The control plane.
    pub control: Handle,
    /// The snapshot in force.
    pub published: Published,
    /// `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Moves clients.
    pub mover: Mover,
    /// Replaces the process.
    pub upgrades: Upgrades,
}

/// All routes. The probes of a supervisor are open; the rest wants the token, if there is one.
pub fn router(app: App) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/api/v1/listeners", get(api::listeners))
        .route("/api/v1/config", get(api::config))
        .route("/api/v1/frps", get(api::frps))
        .route("/api/v1/pools", get(api::pools))
        .route("/api/v1/tunnels", get(tunnels::tunnels))
        .route("/api/v1/certificates", get(certificates::certificates))
        .route("/api/v1/clients", get(clients::clients))
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/explain", post(explain::explain))
        .route("/api/v1/reload", post(api::reload))
        .route("/api/v1/drains", get(drain::drains))
        .route("/api/v1/frps/{name}/drain", post(drain::drain))
        .route("/api/v1/frps/{name}/undrain", post(drain::undrain))
        .route("/api/v1/rebalance", post(drain::rebalance))
        .route("/api/v1/upgrade", post(api::upgrade))
        .layer(middleware::from_fn_with_state(app.clone(), authorize));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .merge(guarded)
        .with_state(app)
}

/// The token is read anew for each request, so changing it needs no restart.
async fn authorize(State(app): State<App>, request: Request, next: Next) -> Response {
    let state = app.control.state();
    let token = state.config.as_ref().and_then(|config| config.admin.token.as_ref());
    let given = request.headers().get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    let allowed = match (token, given) {
        (None, _) => true,
        (Some(token), Some(given)) => bool::from(token.expose().as_bytes().ct_eq(given)),
        (Some(_), None) => false,
    };
    if allowed {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], "a valid bearer token is needed\n")
            .into_response()
    }
}

/// The token in `Bearer TOKEN`; the scheme in any case, as RFC 9110 wants.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

async fn readyz(State(app): State<App>) -> Response {
    match app.control.state().readiness(clock::now()) {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(app): State<App>) -> Response {
    match app.metrics.encode() {
        Ok(text) => {
            ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], Body::from(text)).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
