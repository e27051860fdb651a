//! What proves to the authority that a name is ours, where the data plane finds it.
//!
//! Reading is wait-free and costs one comparison of the path when no proof could be asked for. A token that this process doesn't know
//! may be that of another gateway with the same storage: only then, and only for what looks like a token, the control plane is asked.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use rustls::sign::CertifiedKey;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Where authorities look for proofs (RFC 8555 §8.3).
pub const PREFIX: &[u8] = b"/.well-known/acme-challenge/";

/// After a name: the key of its proof by tls-alpn-01. Short: the longest name and this are the longest name of a file. Tokens
/// have no dot.
pub const ALPN: &str = ".a";

/// Longest wait for the storage to say whether a token is another gateway's.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions to the storage that may wait; further tokens are taken for nobody's.
const QUESTIONS: usize = 32;

/// A question whether another gateway knows a proof.
#[derive(Debug)]
pub struct Question {
    /// The token, or the name and [`ALPN`].
    pub key: String,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Option<Arc<str>>>,
}

/// The proofs that are under way.
#[derive(Debug)]
pub struct Proofs {
    known: ArcSwap<Known>,
    questions: mpsc::Sender<Question>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    on: bool,
    from: Arc<[IpNet]>,
    tokens: HashMap<Arc<str>, Arc<str>, foldhash::fast::RandomState>,
    certificates: HashMap<Arc<str>, Arc<CertifiedKey>, foldhash::fast::RandomState>,
}

impl Default for Proofs {
    /// None, and nobody who answers questions.
    fn default() -> Self {
        Self::new().0
    }
}

impl Proofs {
    /// None yet; the other end answers questions.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Question>) {
        let (questions, asked) = mpsc::channel(QUESTIONS);
        (Self { known: ArcSwap::default(), questions }, asked)
    }

    /// What is to be answered to `GET path` from `peer`; `None` = it isn't ours. Waits for at most 2 s, and only where the token may
    /// be another gateway's.
    pub async fn answer(&self, path: &[u8], peer: IpAddr) -> Option<Arc<str>> {
        let token = token(path)?;
        {
            let known = self.known.load();
            if !known.on || !(known.from.is_empty() || known.from.iter().any(|net| net.contains(&peer))) {
                return None;
            }
            if let Some(answer) = known.tokens.get(token) {
                return Some(Arc::clone(answer));
            }
        }
        self.ask(token.to_owned()).await
    }

    /// What another gateway with the same storage knows.
    pub async fn ask(&self, key: String) -> Option<Arc<str>> {
        let (answer, wait) = oneshot::channel();
        self.questions.try_send(Question { key, answer }).ok()?;
        timeout(PATIENCE, wait).await.ok()?.ok()?
    }

    /// The certificate that proves this name, while it is to be proved.
    #[must_use]
    pub fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.known.load().certificates.get(name).map(Arc::clone)
    }

    /// Looks whether another gateway has this name to prove; then [`Self::certificate`] has it, too.
    pub async fn look_for(&self, name: &str) {
        if self.known.load().on {
            self.ask(format!("{name}{ALPN}")).await;
        }
    }

    /// Whether proofs are answered, and to whom (empty = everyone).
    pub fn set_from(&self, on: bool, from: &[IpNet]) {
        self.change(|known| {
            known.on = on;
            known.from = from.into();
        });
    }

    /// From now on, this is answered to who asks for the token.
    pub fn put_token(&self, token: &str, answer: &str) {
        self.change(|known| drop(known.tokens.insert(token.into(), answer.into())));
    }

    /// From now on, the name is proved by this certificate.
    pub fn put_certificate(&self, name: &str, certificate: &Arc<CertifiedKey>) {
        self.change(|known| drop(known.certificates.insert(name.into(), Arc::clone(certificate))));
    }

    /// The token is nobody's any more.
    pub fn remove_token(&self, token: &str) {
        self.change(|known| drop(known.tokens.remove(token)));
    }

    /// The name isn't to be proved by this certificate any more.
    pub fn remove_certificate(&self, name: &str, certificate: &Arc<CertifiedKey>) {
        self.change(|known| {
            if known.certificates.get(name).is_some_and(|known| Arc::ptr_eq(known, certificate)) {
                known.certificates.remove(name);
            }
        });
    }

    fn change(&self, change: impl Fn(&mut Known)) {
        self.known.rcu(|known| {
            let mut known = Known::clone(known);
            change(&mut known);
            known
        });
    }
}

/// The token in this path, if it looks like one: base64url (RFC 8555 §8.3).
fn token(path: &[u8]) -> Option<&str> {
    let token = path.strip_prefix(PREFIX)?;
    let looks = (8..=256).contains(&token.len())
        && token.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if looks { std::str::from_utf8(token).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn a_known_token_is_answered_to_those_who_may_ask_and_an_unknown_one_is_nobodys() {
        let proofs = Proofs::default();
        let path = b"/.well-known/acme-challenge/token-0123";
        proofs.put_token("token-0123", "answer");
        assert_eq!(proofs.answer(path, PEER).await, None, "nothing is answered before it is configured");
        proofs.set_from(true, &[]);
        assert_eq!(proofs.answer(path, PEER).await.as_deref(), Some("answer"));
        assert_eq!(proofs.answer(b"/.well-known/acme-challenge/token-0124", PEER).await, None);
        assert_eq!(proofs.answer(b"/.well-known/acme-challenge/", PEER).await, None);
        assert_eq!(proofs.answer(b"/.well-known/acme-challenge/../token-0123", PEER).await, None);
        assert_eq!(proofs.answer(b"/token-0123", PEER).await, None);
        proofs.set_from(true, &["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(proofs.answer(path, PEER).await, None);
        assert_eq!(proofs.answer(path, "10.1.2.3".parse().unwrap()).await.as_deref(), Some("answer"));
        proofs.set_from(true, &[]);
        proofs.remove_token("token-0123");
        assert_eq!(proofs.answer(path, PEER).await, None);
    }

    #[tokio::test]
    async fn another_gateways_token_is_asked_for() {
        let (proofs, mut asked) = Proofs::new();
        proofs.set_from(true, &[]);
        let answering = async {
            let Question { key, answer } = asked.recv().await.expect("a question");
            assert_eq!(key, "token-of-another");
            answer.send(Some("its answer".into())).expect("somebody waits");
        };
        let (found, ()) =
            tokio::join!(proofs.answer(b"/.well-known/acme-challenge/token-of-another", PEER), answering);
        assert_eq!(found.as_deref(), Some("its answer"));
    }
}
