//! Client of an frps's admin API: one call, [`AdminClient::list`], that answers with the live http proxies.
//!
//! Speaks v2 (frp 0.71) and falls back to v1 where v2 is not found. Read-only. The caller bounds the time; this bounds
//! the memory.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use frp_gateway_config::model::FrpsAdmin;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    header::{ACCEPT, AUTHORIZATION, HeaderValue, USER_AGENT},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::de::DeserializeOwned;

use super::{
    Listing,
    wire::{Live, ServerInfo, V1List, V2Envelope, V2Proxy},
};

/// Largest answer that is read, bytes. 1,000 proxies take half a MB.
const BODY_CAP: usize = 16 * 1024 * 1024;
/// frps's own maximum.
const PAGE_SIZE: usize = 200;
/// More pages than any real frps has; ends a listing whose `total` lies.
const MAX_PAGES: usize = 1000;
/// How often a listing that changed under our hands is begun anew.
const MAX_PASSES: usize = 3;

/// Why an admin API gave no listing. Never holds the password.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Refused, reset, unresolvable, or not HTTP.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// 401 or 403.
    #[error("it refuses the user or password (status {0})")]
    Unauthorized(u16),
    /// Another status than 200.
    #[error("it answers with status {0}")]
    Status(u16),
    /// More than 16 MiB.
    #[error("its answer is larger than {} MiB", BODY_CAP / (1024 * 1024))]
    TooLarge,
    /// Not the JSON we know.
    #[error("its answer is not what an frps sends: {0}")]
    Invalid(#[from] serde_json::Error),
    /// The caller's deadline passed.
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
    /// `admin.url` is not a URL.
    #[error("its url is unusable: {0}")]
    Url(String),
}

impl AdminError {
    /// Not there, as opposed to there but unhappy.
    fn is_not_found(&self) -> bool {
        matches!(self, Self::Status(404))
    }
}

/// Client of one admin API; keeps its connection.
pub struct AdminClient {
    http: Client<HttpConnector, Empty<Bytes>>,
    base: String,
    authorization: HeaderValue,
    /// v2 was not found here.
    v1_only: bool,
}

impl fmt::Debug for AdminClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminClient")
            .field("base", &self.base)
            .field("v1_only", &self.v1_only)
            .finish_non_exhaustive()
    }
}

impl AdminClient {
    /// A client that has not connected yet.
    #[must_use]
    pub fn new(admin: &FrpsAdmin) -> Self {
        let credentials = STANDARD.encode(format!("{}:{}", admin.user, admin.password.expose()));
        let mut authorization = HeaderValue::from_str(&format!("Basic {credentials}"))
            .expect("base64 is visible ASCII, so it is a header value");
        authorization.set_sensitive(true);
        Self {
            http: Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build_http(),
            base: admin.url.trim_end_matches('/').to_owned(),
            authorization,
            v1_only: false,
        }
    }

    /// The http proxies that are online now.
    ///
    /// # Errors
    /// See [`AdminError`]. After one, v2 is tried first again: the server may have been upgraded.
    pub async fn list(&mut self) -> Result<Listing, AdminError> {
        let result = self.list_by_known_version().await;
        if result.is_err() {
            self.v1_only = false;
        }
        result
    }

    async fn list_by_known_version(&mut self) -> Result<Listing, AdminError> {
        let live = if self.v1_only {
            self.list_v1().await?
        } else {
            match self.list_v2().await {
                Err(error) if error.is_not_found() => {
                    self.v1_only = true;
                    self.list_v1().await?
                }
                other => other?,
            }
        };
        let info = if live.iter().any(Live::has_subdomain) {
            self.get::<ServerInfo>("/api/serverinfo").await?
        } else {
            ServerInfo::default()
        };
        Ok(Listing::new(live, &info.subdomain_host))
    }

    /// All pages; begun anew while the total changes between pages, since then an item may have been skipped.
    async fn list_v2(&self) -> Result<Vec<Live>, AdminError> {
        let mut pass = 1;
        'pass: loop {
            let (mut live, mut seen, mut total) = (Vec::new(), 0, None);
            for page in 1..=MAX_PAGES {
                let path =
                    format!("/api/v2/proxies?status=online&type=http&page={page}&pageSize={PAGE_SIZE}");
                let Some(data) = self.get::<V2Envelope>(&path).await?.data else { break };
                if *total.get_or_insert(data.total) != data.total && pass < MAX_PASSES {
                    pass += 1;
                    continue 'pass;
                }
                seen += data.items.len();
                let last = data.items.is_empty() || seen >= data.total;
                live.extend(data.items.into_iter().filter_map(V2Proxy::live));
                if last {
                    break;
                }
            }
            return Ok(live);
        }
    }

    async fn list_v1(&self) -> Result<Vec<Live>, AdminError> {
        Ok(self.get::<V1List>("/api/proxy/http").await?.live())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        let request = Request::get(format!("{}{path}", self.base))
            .header(AUTHORIZATION, self.authorization.clone())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("frp-gateway/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| AdminError::Url(error.to_string()))?;
        let response =
            self.http.request(request).await.map_err(|error| AdminError::NoAnswer(chain(&error)))?;
        match response.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(AdminError::Unauthorized(status.as_u16()));
            }
            status => return Err(AdminError::Status(status.as_u16())),
        }
        let body = Limited::new(response.into_body(), BODY_CAP).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                AdminError::TooLarge
            } else {
                AdminError::NoAnswer(chain(&*error))
            }
        })?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    }
}

/// An error with what caused it: hyper's own text alone says "client error (Connect)".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests;
