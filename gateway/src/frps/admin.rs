//! Client of an frps's admin API: [`AdminClient::list`] answers with all that is live, [`AdminClient::find`] with one proxy.
//!
//! Speaks v2 (frp 0.71) and falls back to v1 where v2 is not found. Read-only. The caller bounds the time; this bounds
//! the memory.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

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
    Listing, Proxy, ProxyKind,
    wire::{Live, ServerInfo, V1List, V1Proxy, V2Envelope, V2Page, V2Proxy},
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
    /// JSON, but without what was asked for.
    #[error("its answer is not what an frps sends: it holds no data")]
    Empty,
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

/// Client of one admin API; keeps its connections. Clones share them, and what is known of the server.
#[derive(Clone)]
pub struct AdminClient {
    http: Client<HttpConnector, Empty<Bytes>>,
    base: String,
    authorization: HeaderValue,
    known: Arc<Mutex<Known>>,
}

/// What is known of the server.
#[derive(Debug, Clone, Default)]
struct Known {
    /// Which API it speaks; `None` = to be found out.
    v2: Option<bool>,
    /// Its `subDomainHost`, and when it told.
    subdomain_host: Option<(String, Instant)>,
}

/// A server may be restarted with another `subDomainHost`.
const SUBDOMAIN_HOST_KEPT: Duration = Duration::from_secs(60);

impl fmt::Debug for AdminClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminClient")
            .field("base", &self.base)
            .field("known", &self.known)
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
            known: Arc::default(),
        }
    }

    /// All proxies that are online now.
    ///
    /// # Errors
    /// See [`AdminError`]. After one, v2 is tried first again: the server may have been upgraded.
    pub async fn list(&self) -> Result<Listing, AdminError> {
        let result = self.list_by_known_version().await;
        if result.is_err() {
            *self.known() = Known::default();
        }
        result
    }

    /// The proxy of that name; `None` when it isn't online. `hint`: the type it had, or is expected to have.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn find(&self, name: &str, hint: Option<ProxyKind>) -> Result<Option<Proxy>, AdminError> {
        let v2 = self.known().v2;
        let live = match v2 {
            Some(true) => self.find_v2(name).await?,
            Some(false) => self.find_v1(name, hint).await?,
            // No listing has told yet which API there is.
            None => match self.list_v2_page(1, 1).await {
                Ok(_) => self.find_v2(name).await?,
                Err(error) if error.is_not_found() => self.find_v1(name, hint).await?,
                Err(error) => return Err(error),
            },
        };
        match live {
            Some(live) => Ok(Some(live.joined(&self.subdomain_host().await?))),
            None => Ok(None),
        }
    }

    async fn list_by_known_version(&self) -> Result<Listing, AdminError> {
        let v2 = self.known().v2;
        let live = if v2 == Some(false) {
            self.list_v1().await?
        } else {
            match self.list_v2().await {
                Err(error) if error.is_not_found() => {
                    self.known().v2 = Some(false);
                    self.list_v1().await?
                }
                Ok(live) => {
                    self.known().v2 = Some(true);
                    live
                }
                Err(error) => return Err(error),
            }
        };
        Ok(Listing::new(live, &self.subdomain_host().await?))
    }

    /// `subDomainHost` of the server; empty when it has none.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn subdomain_host(&self) -> Result<String, AdminError> {
        let kept = self.known().subdomain_host.clone();
        if let Some((host, _)) = kept.filter(|(_, at)| at.elapsed() < SUBDOMAIN_HOST_KEPT) {
            return Ok(host);
        }
        let host = match self.get::<ServerInfo>("/api/serverinfo").await {
            Ok(info) => info.subdomain_host,
            Err(error) if error.is_not_found() => String::new(),
            Err(error) => return Err(error),
        };
        self.known().subdomain_host = Some((host.clone(), Instant::now()));
        Ok(host)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All pages; begun anew while the total changes between pages, since then an item may have been skipped.
    async fn list_v2(&self) -> Result<Vec<Live>, AdminError> {
        let mut pass = 1;
        'pass: loop {
            let (mut live, mut seen, mut total) = (Vec::new(), 0, None);
            for page in 1..=MAX_PAGES {
                // Nothing is not "no tunnels".
                let data = self.list_v2_page(page, PAGE_SIZE).await?.ok_or(AdminError::Empty)?;
                if *total.get_or_insert(data.total) != data.total && pass < MAX_PASSES {
                    pass += 1;
                    continue 'pass;
                }
                seen += data.items.len();
                let last = data.items.is_empty() || seen >= data.total;
                live.extend(data.items.into_iter().filter_map(|item| item.known()?.live()));
                if last {
                    break;
                }
            }
            return Ok(live);
        }
    }

    async fn list_v2_page(&self, page: usize, size: usize) -> Result<Option<V2Page>, AdminError> {
        let path = format!("/api/v2/proxies?status=online&page={page}&pageSize={size}");
        Ok(self.get::<V2Envelope<V2Page>>(&path).await?.data)
    }

    async fn find_v2(&self, name: &str) -> Result<Option<Live>, AdminError> {
        match self.get::<V2Envelope<V2Proxy>>(&format!("/api/v2/proxies/{}", encoded(name))).await {
            Ok(envelope) => Ok(envelope.data.ok_or(AdminError::Empty)?.live()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One call per type: older versions have no other listing.
    async fn list_v1(&self) -> Result<Vec<Live>, AdminError> {
        let mut live = Vec::new();
        for kind in ProxyKind::ALL {
            match self.get::<V1List>(&format!("/api/proxy/{}", kind.word())).await {
                Ok(list) => live.extend(list.live(kind)),
                // A type that this version doesn't have.
                Err(error) if kind != ProxyKind::Http && error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(live)
    }

    async fn find_v1(&self, name: &str, hint: Option<ProxyKind>) -> Result<Option<Live>, AdminError> {
        let likely = [hint.unwrap_or(ProxyKind::Tcp), ProxyKind::Tcp, ProxyKind::Http];
        let rest = ProxyKind::ALL.into_iter().filter(|kind| !likely.contains(kind));
        let mut asked = Vec::new();
        for kind in likely.into_iter().chain(rest) {
            if asked.contains(&kind) {
                continue;
            }
            asked.push(kind);
            match self.get::<V1Proxy>(&format!("/api/proxy/{}/{}", kind.word(), encoded(name))).await {
                Ok(proxy) => {
                    if let Some(live) = proxy.live(kind) {
                        return Ok(Some(live));
                    }
                }
                Err(AdminError::Status(400 | 404)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
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

/// A name as one segment of a path (RFC 3986).
fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
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
