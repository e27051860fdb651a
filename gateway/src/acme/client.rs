//! How the authority is spoken to: HTTPS with a bound on each request, and an ear for `Retry-After`.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::time::timeout;

use crate::tls::provider;

/// Longest wait for an answer, connecting included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer that is read.
const MOST_BYTES: usize = 1 << 20;

/// What the authority last said of waiting: Unix milliseconds, 0 = nothing.
pub type Asked = Arc<AtomicU64>;

/// A client for one authority.
pub struct AcmeClient {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    asked: Asked,
}

impl AcmeClient {
    /// Trusts those in the PEM file, without one those of the system. Blocks on files.
    ///
    /// # Errors
    /// The file can't be read or holds no certificate, or the system trusts nobody.
    pub fn new(trust: Option<&Path>, asked: Asked) -> Result<Self, Error> {
        let other = |error: String| Error::Other(error.into());
        let builder = match trust {
            None => HttpsConnectorBuilder::new()
                .with_provider_and_platform_verifier(provider())
                .map_err(|error| other(format!("the authorities that this system trusts: {error}")))?,
            Some(path) => {
                let fault = |error: &dyn std::fmt::Display| other(format!("{}: {error}", path.display()));
                let mut roots = RootCertStore::empty();
                for root in CertificateDer::pem_file_iter(path).map_err(|error| fault(&error))? {
                    roots.add(root.map_err(|error| fault(&error))?).map_err(|error| fault(&error))?;
                }
                if roots.is_empty() {
                    return Err(fault(&"it holds no certificate"));
                }
                let config = ClientConfig::builder_with_provider(provider())
                    .with_safe_default_protocol_versions()
                    .map_err(|error| fault(&error))?;
                HttpsConnectorBuilder::new()
                    .with_tls_config(config.with_root_certificates(roots).with_no_client_auth())
            }
        };
        let connector = builder.https_only().enable_http1().build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), asked })
    }
}

impl std::fmt::Debug for AcmeClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcmeClient").finish_non_exhaustive()
    }
}

impl HttpClient for AcmeClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (answer, asked) = (self.client.request(request), Arc::clone(&self.asked));
        Box::pin(async move {
            let whole = async {
                let answer = answer.await.map_err(|error| Error::Other(with_cause(&error).into()))?;
                let (parts, body) = answer.into_parts();
                let body = Limited::new(body, MOST_BYTES).collect().await.map_err(Error::Other)?;
                Ok::<_, Error>((parts, body.to_bytes()))
            };
            let Ok(answer) = timeout(PATIENCE, whole).await else {
                return Err(Error::Other(format!("no answer within {} s", PATIENCE.as_secs()).into()));
            };
            let (parts, body) = answer?;
            if matches!(parts.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
                && let Some(until) = parts.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok())
                && let Some(until) = retry_after(until, SystemTime::now())
            {
                let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                asked.fetch_max(u64::try_from(until).unwrap_or(u64::MAX), Relaxed);
            }
            Ok(BytesResponse::from(http::Response::from_parts(parts, Full::new(body))))
        })
    }
}

/// What hyper's client says alone ("client error (Connect)") helps nobody.
fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// When `Retry-After` says (RFC 9110 §10.2.3): seconds, or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<SystemTime> {
    let value = value.trim();
    match value.parse::<u32>() {
        Ok(seconds) => Some(now + Duration::from_secs(seconds.into())),
        Err(_not_a_number) => httpdate::parse_http_date(value).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(retry_after("120", now), Some(now + Duration::from_secs(120)));
        assert_eq!(
            retry_after("Thu, 01 Jan 1970 00:30:00 GMT", now),
            Some(UNIX_EPOCH + Duration::from_secs(1_800))
        );
        for odd in ["", "-1", "soon", "99999999999999999999"] {
            assert_eq!(retry_after(odd, now), None, "{odd:?}");
        }
    }
}
