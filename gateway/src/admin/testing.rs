//! The admin side in process, over real HTTP, for tests.

use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;

use super::{App, router};
use crate::{
    control::{
        migration::{Migrations, Mover, NoClients},
        testing::Rig,
    },
    data::access_log::AccessLogHandle,
    lifecycle::upgrade::Upgrades,
    telemetry::{audit::AuditHandle, metrics::collect::Metrics},
};

/// An admin server over a control plane in a box.
pub(super) struct Admin {
    pub(super) rig: Rig,
    pub(super) base: String,
}

impl Admin {
    pub(super) async fn start(text: &str) -> Self {
        let rig = Rig::start(text).await;
        let published = Arc::clone(&rig.published);
        let metrics = Metrics::new(
            Arc::clone(&published),
            rig.handle.board(),
            AccessLogHandle::off(),
            Arc::clone(rig.handle.certificates()),
            None,
        )
        .unwrap();
        let mover = Mover {
            migrations: Arc::new(Migrations::new(Arc::new(NoClients))),
            board: rig.handle.board(),
            published: Arc::clone(&published),
            audit: AuditHandle::off(),
        };
        let app = App {
            control: rig.handle.clone(),
            published,
            metrics: Arc::new(metrics),
            mover,
            upgrades: Upgrades::new().0,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router(app)).await });
        Self { rig, base }
    }

    pub(super) async fn ask(&self, method: &str, path: &str, token: Option<&str>) -> (u16, String) {
        self.send(method, path, token, None).await
    }

    /// POSTs JSON; status and the answer's JSON.
    pub(super) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.send("POST", path, None, Some(body)).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> (u16, String) {
        let mut request = axum::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(http_body_util::Full::<axum::body::Bytes>::from(body)).unwrap();
        let response = Client::builder(TokioExecutor::new()).build_http().request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, None).await
    }

    pub(super) async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}
