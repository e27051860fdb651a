//! One authority: our account there, and how a certificate is had from it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use frp_gateway_config::model::{Acme, Challenge};
use instant_acme::{
    Account, AccountBuilder, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeType,
    Error, ExternalAccountKey, Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use tokio::sync::Mutex;

use super::{
    client::{AcmeClient, Asked},
    proofs::{ALPN, Proofs},
    storage::{Storage, Stored},
};
use crate::tls::provider;

/// How long the authority may take to look at a proof, and to sign.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(200))
    .backoff(1.3)
    .timeout(Duration::from_secs(90));

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The authority can't be reached, or doesn't answer as it should.
    #[error("{0}")]
    Unreachable(String),
    /// The authority refuses, in its own words.
    #[error("{0}")]
    Refused(String),
    /// Too many; not before that time, if it says one.
    #[error("{0}")]
    Limited(String, Option<SystemTime>),
    /// The folder can't be read or written.
    #[error("acme.storage: {0}")]
    Storage(#[from] std::io::Error),
    /// A key or a request can't be made.
    #[error("{0}")]
    Own(String),
}

impl Failure {
    /// Label in metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Refused(_) => "refused",
            Self::Limited(..) => "limited",
            Self::Storage(_) => "storage",
            Self::Own(_) => "internal",
        }
    }
}

/// One authority, as the configuration has it.
pub struct Authority {
    /// What is configured.
    pub settings: Acme,
    /// What is kept of it.
    pub storage: Arc<Storage>,
    proofs: Arc<Proofs>,
    asked: Asked,
    account: Mutex<Option<Account>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("directory", &self.settings.directory).finish_non_exhaustive()
    }
}

impl Authority {
    /// Nothing is asked of it yet.
    #[must_use]
    pub fn new(settings: Acme, storage: Arc<Storage>, proofs: Arc<Proofs>) -> Self {
        Self { settings, storage, proofs, asked: Asked::default(), account: Mutex::default() }
    }

    /// Orders a certificate for a name; `replaced` is the present one, whose place it takes.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn order(
        &self,
        name: &str,
        user: Option<&str>,
        replaced: Option<&CertificateDer<'_>>,
    ) -> Result<Stored, Failure> {
        let mut tried = None;
        for challenge in &self.settings.challenges {
            match self.order_by(name, *challenge, replaced).await {
                Ok((chain, key)) => {
                    return Ok(Stored { name: name.to_owned(), user: user.map(str::to_owned), chain, key });
                }
                // Another way may do what this one didn't.
                Err(Unproved::Unproved(why)) => {
                    tried.get_or_insert_with(Vec::new).push(format!("{}: {why}", word(*challenge)));
                }
                Err(Unproved::Failed(failure)) => return Err(failure),
            }
        }
        Err(Failure::Refused(tried.unwrap_or_default().join("; ")))
    }

    /// When the authority would have a certificate renewed (RFC 9773), and when to ask again. `None` = it doesn't say.
    ///
    /// # Errors
    /// It can't be reached.
    pub async fn renewal(
        &self,
        leaf: &CertificateDer<'_>,
    ) -> Result<Option<((SystemTime, SystemTime), Duration)>, Failure> {
        let Ok(id) = CertificateIdentifier::try_from(leaf) else { return Ok(None) };
        let account = self.account(false).await?;
        match account.renewal_info(&id).await {
            Ok((info, again)) => {
                let window = info.suggested_window;
                Ok(Some(((window.start.into(), window.end.into()), again)))
            }
            Err(Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(self.failure(error)),
        }
    }

    async fn order_by(
        &self,
        name: &str,
        challenge: Challenge,
        replaced: Option<&CertificateDer<'_>>,
    ) -> Result<(String, String), Unproved> {
        let mut order = self.begin(name, replaced).await?;
        let proof = self.prove(&mut order, challenge).await?;
        let status = order.poll_ready(&PATIENCE).await;
        match status {
            Ok(OrderStatus::Ready | OrderStatus::Valid) => {}
            Ok(_) | Err(Error::Api(_)) => {
                let why = match why_unproved(&mut order).await {
                    Some(why) => why,
                    None => match status {
                        Err(error) => return Err(self.failure(error).into()),
                        Ok(status) => format!("the order is {status:?}"),
                    },
                };
                return Err(Unproved::Unproved(why));
            }
            Err(error) => return Err(self.failure(error).into()),
        }
        drop(proof);
        let own = |error: rcgen::Error| Unproved::Failed(Failure::Own(error.to_string()));
        let key = KeyPair::generate().map_err(own)?;
        let mut wish = CertificateParams::new(vec![name.to_owned()]).map_err(own)?;
        wish.distinguished_name = DistinguishedName::new();
        let wish = wish.serialize_request(&key).map_err(own)?;
        let fail = |error| Unproved::Failed(self.failure(error));
        order.finalize_csr(wish.der()).await.map_err(fail)?;
        let chain = order.poll_certificate(&PATIENCE).await.map_err(fail)?;
        Ok((chain, key.serialize_pem()))
    }

    /// Opens an order. An account that the authority has forgotten is made anew, once.
    async fn begin(&self, name: &str, replaced: Option<&CertificateDer<'_>>) -> Result<Order, Failure> {
        let identifiers = [Identifier::Dns(name.to_owned())];
        let mut replaces = replaced.and_then(|leaf| CertificateIdentifier::try_from(leaf).ok());
        let mut forgotten = false;
        loop {
            let account = self.account(forgotten).await?;
            let mut wish = NewOrder::new(&identifiers);
            if let Some(id) = &replaces {
                wish = wish.replaces(id.clone());
            }
            if let Some(profile) = &self.settings.profile {
                wish = wish.profile(profile);
            }
            match account.new_order(&wish).await {
                Ok(order) => return Ok(order),
                // To say what is replaced is a courtesy: without it the certificate comes as well.
                Err(Error::Unsupported(_)) if replaces.is_some() => replaces = None,
                Err(Error::Api(problem)) if is(&problem, "accountDoesNotExist") && !forgotten => {
                    tracing::warn!(
                        directory = self.settings.directory,
                        "the authority doesn't know our account: another one is made"
                    );
                    forgotten = true;
                }
                Err(Error::Api(problem))
                    if replaces.is_some()
                        && !is(&problem, "rateLimited")
                        && !is(&problem, "rejectedIdentifier") =>
                {
                    tracing::debug!(name, %problem, "order without the certificate that it replaces");
                    replaces = None;
                }
                // What it reflects of the certificate to be replaced isn't what was sent.
                Err(Error::Other(_)) if replaces.is_some() => replaces = None,
                Err(error) => return Err(self.failure(error)),
            }
        }
    }

    /// Shows the proofs that the order asks for, and tells the authority. They are there until the result is dropped.
    async fn prove(&self, order: &mut Order, by: Challenge) -> Result<Vec<Shown>, Unproved> {
        let fail = |error| Unproved::Failed(self.failure(error));
        let mut shown = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(fail)?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Invalid
                | AuthorizationStatus::Revoked
                | AuthorizationStatus::Expired
                | AuthorizationStatus::Deactivated => {
                    let why = format!("the authorization is {:?}", authorization.status);
                    return Err(Unproved::Unproved(why));
                }
            }
            let name = authorization.identifier().to_string();
            let kind = match by {
                Challenge::Http01 => ChallengeType::Http01,
                Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            };
            let Some(mut challenge) = authorization.challenge(kind) else {
                return Err(Unproved::Unproved("the authority doesn't offer it".to_owned()));
            };
            let key = challenge.key_authorization();
            let mut shown_by = None;
            let (slot, proof) = match by {
                Challenge::Http01 => {
                    self.proofs.put_token(&challenge.token, key.as_str());
                    (challenge.token.clone(), key.as_str().to_owned())
                }
                Challenge::TlsAlpn01 => {
                    let digest = key.digest();
                    let certificate = proof_certificate(&name, digest.as_ref()).map_err(Failure::Own)?;
                    self.proofs.put_certificate(&name, &certificate);
                    shown_by = Some(certificate);
                    (format!("{name}{ALPN}"), URL_SAFE_NO_PAD.encode(digest.as_ref()))
                }
            };
            shown.push(Shown {
                proofs: Arc::clone(&self.proofs),
                storage: Arc::clone(&self.storage),
                certificate: shown_by,
                name,
                slot: slot.clone(),
            });
            let storage = Arc::clone(&self.storage);
            blocking(move || storage.put_proof(&slot, &proof)).await??;
            challenge.set_ready().await.map_err(fail)?;
        }
        Ok(shown)
    }

    /// Our account. `anew`: the one that is known is none.
    async fn account(&self, anew: bool) -> Result<Account, Failure> {
        let mut known = self.account.lock().await;
        if anew {
            *known = None;
        }
        if let Some(account) = &*known {
            return Ok(account.clone());
        }
        let account = self.find_account(anew).await?;
        *known = Some(account.clone());
        Ok(account)
    }

    async fn find_account(&self, anew: bool) -> Result<Account, Failure> {
        // Gateways that start together share one account.
        let deadline = SystemTime::now() + Duration::from_secs(90);
        loop {
            let storage = Arc::clone(&self.storage);
            let kept = blocking(move || storage.account::<AccountCredentials>()).await??;
            if let Some(kept) = kept.filter(|_| !anew) {
                let built = self.builder().await?.from_credentials(kept).await;
                return built.map_err(|error| self.failure(error));
            }
            let storage = Arc::clone(&self.storage);
            let made = blocking(move || {
                let lock = storage.lock("account", SystemTime::now())?;
                if lock.is_some() && anew {
                    storage.retire_account()?;
                }
                // Someone may have made one in between.
                let kept: Option<AccountCredentials> = if anew { None } else { storage.account()? };
                Ok::<_, std::io::Error>((lock, kept.is_some()))
            })
            .await??;
            match made {
                (Some(_lock), true) => {}
                (Some(lock), false) => {
                    let account = self.make_account().await;
                    drop(lock);
                    return account;
                }
                (None, _) if SystemTime::now() > deadline => {
                    return Err(Failure::Own(
                        "another gateway has been making the account for 90 s".to_owned(),
                    ));
                }
                (None, _) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn make_account(&self) -> Result<Account, Failure> {
        let contact = self.settings.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wish =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let external = match &self.settings.external_account {
            None => None,
            Some((id, key)) => {
                let key = URL_SAFE_NO_PAD.decode(key.expose().trim_end_matches('=')).map_err(|error| {
                    Failure::Own(format!("acme.external_account.hmac_key: not base64url: {error}"))
                })?;
                Some(ExternalAccountKey::new(id.clone(), &key))
            }
        };
        let directory = self.settings.directory.clone();
        let made = self.builder().await?.create(&wish, directory, external.as_ref()).await;
        let (account, credentials) = made.map_err(|error| self.failure(error))?;
        let storage = Arc::clone(&self.storage);
        blocking(move || storage.put_account(&credentials)).await??;
        tracing::info!(directory = self.settings.directory, account = account.id(), "ACME account made");
        Ok(account)
    }

    async fn builder(&self) -> Result<AccountBuilder, Failure> {
        let (trust, asked) = (self.settings.trust.clone(), Arc::clone(&self.asked));
        let client = blocking(move || AcmeClient::new(trust.as_deref(), asked)).await?;
        let client = client.map_err(|error| Failure::Own(format!("acme.trust: {error}")))?;
        Ok(Account::builder_with_http(Box::new(client)))
    }

    fn failure(&self, error: Error) -> Failure {
        let asked = self.asked.load(Relaxed);
        let asked = (asked > 0).then(|| UNIX_EPOCH + Duration::from_millis(asked));
        match error {
            Error::Api(problem) if is(&problem, "rateLimited") || problem.status == Some(429) => {
                Failure::Limited(tell(&problem), asked.filter(|until| *until > SystemTime::now()))
            }
            Error::Api(problem) if problem.status.is_some_and(|status| status >= 500) => {
                match asked.filter(|until| *until > SystemTime::now()) {
                    Some(until) => Failure::Limited(tell(&problem), Some(until)),
                    None => Failure::Unreachable(tell(&problem)),
                }
            }
            Error::Api(problem) => Failure::Refused(tell(&problem)),
            Error::Json(error) => {
                Failure::Unreachable(format!("its answer isn't that of an authority: {error}"))
            }
            Error::Crypto | Error::KeyRejected => Failure::Own(error.to_string()),
            error => Failure::Unreachable(error.to_string()),
        }
    }
}

/// Why an order by one challenge came to nothing.
enum Unproved {
    /// The authority didn't see what it wanted.
    Unproved(String),
    Failed(Failure),
}

impl From<Failure> for Unproved {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<std::io::Error> for Unproved {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// A proof that can be seen. Dropping it takes it away.
struct Shown {
    proofs: Arc<Proofs>,
    storage: Arc<Storage>,
    /// `None` = by a token.
    certificate: Option<Arc<CertifiedKey>>,
    name: String,
    slot: String,
}

impl Drop for Shown {
    fn drop(&mut self) {
        match &self.certificate {
            None => self.proofs.remove_token(&self.slot),
            Some(certificate) => self.proofs.remove_certificate(&self.name, certificate),
        }
        self.storage.remove_proof(&self.slot);
    }
}

/// The certificate of RFC 8737 §3: self-signed, for the one name, with the digest of the key authorization.
///
/// # Errors
/// It can't be made.
pub fn proof_certificate(name: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, String> {
    // rcgen would panic.
    if digest.len() != 32 {
        return Err(format!("a digest of {} bytes", digest.len()));
    }
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let mut parts = CertificateParams::new(vec![name.to_owned()]).map_err(|error| error.to_string())?;
    parts.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = parts.self_signed(&key).map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let key = provider().key_provider.load_private_key(key).map_err(|error| error.to_string())?;
    // Not checked against its key: the critical extension is unknown to whoever would check.
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key)))
}

/// What the authority saw instead of the proof.
async fn why_unproved(order: &mut Order) -> Option<String> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.ok()?;
        let state = authorization.refresh().await.ok()?;
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return Some(tell(problem));
        }
    }
    None
}

/// The authority's own words, on one line.
fn tell(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("problem");
    let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
    let mut text = format!("{kind}: {}", problem.detail.as_deref().unwrap_or("no detail given"));
    for part in &problem.subproblems {
        text.push_str(&format!("; {part}"));
    }
    // It goes into logs.
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(1_000).collect()
}

fn is(problem: &Problem, kind: &str) -> bool {
    problem.r#type.as_deref().is_some_and(|own| own.strip_prefix("urn:ietf:params:acme:error:") == Some(kind))
}

const fn word(challenge: Challenge) -> &'static str {
    match challenge {
        Challenge::Http01 => "http-01",
        Challenge::TlsAlpn01 => "tls-alpn-01",
    }
}

/// Work that blocks, away from the control thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::Own(error.to_string()))
}
