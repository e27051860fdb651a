//! Where the gateway's admin port is, and asking it.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::{Method, Request, header};
use frp_gateway_config::secret::Secret;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{admin::explain::Fault, control::reload};

const DEFAULT: &str = "http://127.0.0.1:9900";
const DEADLINE: Duration = Duration::from_secs(10);
/// Larger answers are none of ours.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// How to reach the gateway's admin port.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Reach {
    /// The gateway's configuration: `admin.listen` and `admin.token` are read from it. [env: FRP_GATEWAY_CONFIG]
    #[arg(short, long, value_name = "FILE", conflicts_with = "admin")]
    config: Option<PathBuf>,
    /// The admin port. [env: FRP_GATEWAY_ADMIN] [default: http://127.0.0.1:9900]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// The admin port's token; others can see it in the list of processes, so better: [env: FRP_GATEWAY_TOKEN]
    #[arg(long)]
    token: Option<String>,
}

/// Why there is no answer. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The configuration can't be read; everything that is wrong with it.
    #[error("{0}\n(--admin URL and --token, or FRP_GATEWAY_TOKEN, work without the file)")]
    Config(String),
    /// Not an address to connect to.
    #[error("{0}")]
    BadAddress(String),
    /// Nobody answered.
    #[error("no answer from {base}: {cause}\nIs the gateway running? {source_of_base}")]
    Unreachable {
        /// Where it was looked for.
        base: String,
        /// Why not.
        cause: String,
        /// Where that address comes from.
        source_of_base: String,
    },
    /// The token is missing or wrong.
    #[error(
        "{0} wants {1}: set FRP_GATEWAY_TOKEN, or say --token TOKEN, or --config FILE with the gateway's configuration"
    )]
    Unauthorized(String, &'static str),
    /// The question makes no sense.
    #[error("{0}")]
    BadQuestion(String),
    /// Something else answers there, or another version.
    #[error("{0} doesn't answer as a frp-gateway of this version does: {1}")]
    Strange(String, String),
}

/// A gateway's admin port.
#[derive(Debug)]
pub struct Gateway {
    http: Client<HttpConnector, Full<Bytes>>,
    base: String,
    /// Where `base` comes from, for the message when nobody is there.
    source_of_base: String,
    token: Option<Secret>,
}

impl Reach {
    /// The port that is meant: `--admin`, `--config`, their environment variables, the default, in this order.
    ///
    /// # Errors
    /// The configuration can't be read, or the address is none.
    pub fn resolve(&self) -> Result<Gateway, Unanswered> {
        self.resolve_with(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn resolve_with(&self, environment: impl Fn(&str) -> Option<String>) -> Result<Gateway, Unanswered> {
        let from_file = |path: &Path| -> Result<_, Unanswered> {
            let accepted = reload::load(path).map_err(|faults| {
                let texts: Vec<_> = faults.iter().map(|fault| fault.text.as_str()).collect();
                Unanswered::Config(texts.join("\n"))
            })?;
            let (listen, file) = (accepted.config.admin.listen, path.display());
            if listen.port() == 0 {
                let told = format!("admin.listen in {file} leaves the port open (0): say --admin URL");
                return Err(Unanswered::BadAddress(told));
            }
            let base = format!("http://{}", reachable(listen));
            let told = format!("admin.listen in {file} is {listen}; --admin URL names another.");
            Ok((base, told, accepted.config.admin.token.clone()))
        };
        let (base, source_of_base, token) = if let Some(url) = &self.admin {
            (url.clone(), "Its admin.listen says where; --config FILE reads it.".to_owned(), None)
        } else if let Some(path) = &self.config {
            from_file(path)?
        } else if let Some(url) = environment("FRP_GATEWAY_ADMIN") {
            (url, "The address is FRP_GATEWAY_ADMIN's.".to_owned(), None)
        } else if let Some(path) = environment("FRP_GATEWAY_CONFIG") {
            from_file(Path::new(&path))?
        } else {
            let told = "That is the default: --config FILE reads admin.listen, --admin URL says it.";
            (DEFAULT.to_owned(), told.to_owned(), None)
        };
        let base = if base.contains("://") { base } else { format!("http://{base}") };
        if !base.starts_with("http://") {
            let told =
                format!("--admin: {base:?} must begin with http://, which is what the admin port speaks");
            return Err(Unanswered::BadAddress(told));
        }
        let given = self.token.clone().or_else(|| environment("FRP_GATEWAY_TOKEN")).map(Secret::new);
        Ok(Gateway {
            http: Client::builder(TokioExecutor::new()).build_http(),
            base: base.trim_end_matches('/').to_owned(),
            source_of_base,
            token: given.or(token),
        })
    }
}

/// An address that listens on all interfaces is reached on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}

impl Gateway {
    /// Sends a question, with `body` as JSON if there is one.
    ///
    /// # Errors
    /// See [`Unanswered`]. After 10 s nobody has answered.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, Unanswered> {
        let (status, text) = timeout(DEADLINE, self.exchange(method, path, body))
            .await
            .unwrap_or_else(|_elapsed| Err(self.unreachable("no answer within 10 s".to_owned())))?;
        match status {
            200 => self.read(&text),
            401 => Err(self.unauthorized()),
            status => Err(match serde_json::from_slice::<Fault>(&text) {
                Ok(fault) => Unanswered::BadQuestion(told(&fault)),
                Err(_) => Unanswered::Strange(self.base.clone(), format!("status {status} for {path}")),
            }),
        }
    }

    /// Orders something that takes its time and may be refused: whatever JSON it answers.
    ///
    /// # Errors
    /// See [`Unanswered`]. The gateway bounds the time, we don't.
    pub async fn order<T: DeserializeOwned>(&self, path: &str) -> Result<T, Unanswered> {
        let (status, text) = self.exchange(Method::POST, path, None).await?;
        match status {
            401 => Err(self.unauthorized()),
            404 | 405 => Err(Unanswered::Strange(self.base.clone(), format!("status {status} for {path}"))),
            _ => self.read(&text),
        }
    }

    fn read<T: DeserializeOwned>(&self, text: &[u8]) -> Result<T, Unanswered> {
        serde_json::from_slice(text)
            .map_err(|error| Unanswered::Strange(self.base.clone(), error.to_string()))
    }

    fn unauthorized(&self) -> Unanswered {
        let what = if self.token.is_some() { "another token" } else { "a token" };
        Unanswered::Unauthorized(self.base.clone(), what)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(u16, Bytes), Unanswered> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request = request
            .body(Full::from(body.unwrap_or_default()))
            .map_err(|error| Unanswered::BadAddress(format!("{}: {error}", self.base)))?;
        let answer = self.http.request(request).await.map_err(|error| self.unreachable(cause(&error)))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
        let body = body.map_err(|error| self.unreachable(error.to_string()))?;
        Ok((status, body.to_bytes()))
    }

    fn unreachable(&self, cause: String) -> Unanswered {
        Unanswered::Unreachable {
            base: self.base.clone(),
            cause,
            source_of_base: self.source_of_base.clone(),
        }
    }
}

/// The innermost reason: the outer ones only say that something went wrong.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn told(fault: &Fault) -> String {
    match fault.choices.as_slice() {
        [] => fault.error.clone(),
        choices => format!("{}\n  --listener: {}", fault.error, choices.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(reach: &Reach, environment: &[(&str, &str)]) -> Result<Gateway, Unanswered> {
        reach.resolve_with(|name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn file(admin: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.yaml");
        let rest = "frps: [ { name: a, host: 127.0.0.1, vhost_http_port: 1 } ]\n\
                    listeners: [ { name: web, bind: \"127.0.0.1:0\" } ]\n";
        std::fs::write(&path, format!("admin: {{ {admin} }}\n{rest}")).unwrap();
        (folder, path)
    }

    #[test]
    fn an_address_said_goes_before_the_file_before_the_environment_before_the_default() {
        let (_folder, path) = file("listen: \"0.0.0.0:9901\", token: \"correct-horse-battery\"");
        let base = |reach: &Reach, environment: &[(&str, &str)]| resolve(reach, environment).unwrap().base;
        let said = Reach { admin: Some("10.0.0.1:1/".into()), ..Reach::default() };
        let environment =
            [("FRP_GATEWAY_ADMIN", "http://10.0.0.2:2"), ("FRP_GATEWAY_CONFIG", "/nonexistent")];
        assert_eq!(base(&said, &environment), "http://10.0.0.1:1");
        let filed = Reach { config: Some(path.clone()), ..Reach::default() };
        assert_eq!(base(&filed, &environment), "http://127.0.0.1:9901", "every interface has loopback");
        assert_eq!(base(&Reach::default(), &environment), "http://10.0.0.2:2");
        let path = path.display().to_string();
        assert_eq!(base(&Reach::default(), &[("FRP_GATEWAY_CONFIG", &path)]), "http://127.0.0.1:9901");
        assert_eq!(base(&Reach::default(), &[]), DEFAULT);
    }

    #[test]
    fn a_token_said_goes_before_the_environments_before_the_files() {
        let (_folder, path) = file("listen: \"127.0.0.1:9901\", token: \"of-the-file-of-the-file\"");
        let token = |said: Option<&str>, environment: &[(&str, &str)]| {
            let reach =
                Reach { config: Some(path.clone()), token: said.map(ToOwned::to_owned), ..Reach::default() };
            resolve(&reach, environment).unwrap().token.unwrap().expose().to_owned()
        };
        let environment = [("FRP_GATEWAY_TOKEN", "of-the-environment")];
        assert_eq!(token(Some("said"), &environment), "said");
        assert_eq!(token(None, &environment), "of-the-environment");
        assert_eq!(token(None, &[]), "of-the-file-of-the-file");
    }

    #[test]
    fn what_cannot_be_reached_says_what_to_do() {
        let (_folder, path) = file("listen: \"127.0.0.1:0\"");
        let filed = Reach { config: Some(path), ..Reach::default() };
        let text = resolve(&filed, &[]).unwrap_err().to_string();
        assert!(text.contains("--admin URL"), "{text}");
        let https = Reach { admin: Some("https://x".into()), ..Reach::default() };
        let text = resolve(&https, &[]).unwrap_err().to_string();
        assert!(text.contains("http://"), "{text}");
        let missing = Reach { config: Some("/nonexistent/gateway.yaml".into()), ..Reach::default() };
        let text = resolve(&missing, &[]).unwrap_err().to_string();
        assert!(text.contains("/nonexistent/gateway.yaml") && text.contains("--admin"), "{text}");
    }
}
