//! `subDomainHost` of the frps beside an agent: as configured, else asked in the background, so that no plugin call waits for it.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use frp_gateway_config::model::{Config, FrpsAdmin};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::frps::{admin::AdminClient, plugin::SubdomainHosts};

/// Deadline of one question.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause after an answer: frps may be restarted with another one.
const KNOWN: Duration = Duration::from_secs(60);
/// Pause while there is none.
const UNKNOWN: Duration = Duration::from_secs(2);

/// What is known, and the task that keeps it so.
#[derive(Debug)]
pub(super) struct SubdomainHost {
    /// `None` = not known; empty = frps has none.
    known: Arc<ArcSwapOption<String>>,
    asking: Option<JoinHandle<()>>,
}

impl Drop for SubdomainHost {
    fn drop(&mut self) {
        self.stop();
    }
}

impl SubdomainHost {
    /// Begins to ask the frps of `config`, its only one, if that is needed.
    pub(super) fn follow(config: &Config) -> Self {
        let mut host = Self { known: Arc::default(), asking: None };
        host.ask(config);
        host
    }

    /// Takes over a changed configuration. What another server said is forgotten.
    pub(super) fn change(&mut self, old: &Config, new: &Config) {
        if asked(old) != asked(new) {
            self.stop();
            self.known.store(None);
            self.ask(new);
        }
    }

    /// What a handler reads.
    pub(super) fn known(&self) -> SubdomainHosts {
        let known = Arc::clone(&self.known);
        Box::new(move |_| known.load().as_ref().map(|host| String::clone(host)))
    }

    fn ask(&mut self, config: &Config) {
        self.asking = asked(config)
            .map(|(frps, admin)| tokio::spawn(ask(frps.to_owned(), admin.clone(), Arc::clone(&self.known))));
    }

    fn stop(&mut self) {
        if let Some(task) = self.asking.take() {
            task.abort();
        }
    }
}

/// Whom to ask; nobody when the file says it.
fn asked(config: &Config) -> Option<(&str, &FrpsAdmin)> {
    let frps = config.frps.first().filter(|frps| frps.subdomain_host.is_none())?;
    Some((&frps.name, frps.admin.as_ref()?))
}

async fn ask(frps: String, admin: FrpsAdmin, known: Arc<ArcSwapOption<String>>) {
    let mut is_answering = true;
    loop {
        // A client of its own each time: what it remembers is what we want to know anew.
        let client = AdminClient::new(&admin);
        let reason = match timeout(PATIENCE, client.subdomain_host()).await {
            Ok(Ok(host)) => {
                if !is_answering {
                    tracing::info!(%frps, "frps tells its subDomainHost");
                }
                is_answering = true;
                known.store(Some(Arc::new(host)));
                sleep(KNOWN).await;
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_late) => format!("no answer within {PATIENCE:?}"),
        };
        if is_answering && known.load().is_none() {
            tracing::warn!(
                %frps, %reason,
                "frps does not tell its subDomainHost; proxies with a subdomain are left to it meanwhile"
            );
            is_answering = false;
        }
        sleep(UNKNOWN).await;
    }
}
