//! Host names of endpoints → addresses. A name that stops resolving keeps its last addresses.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{net::lookup_host, task::JoinSet, time::timeout};

use crate::snapshot::{Endpoint, EndpointId, Published, Snapshot};

/// Time between two look-ups of a name.
const INTERVAL: Duration = Duration::from_secs(30);
/// The same while some name has never resolved.
const INTERVAL_UNRESOLVED: Duration = Duration::from_secs(2);
/// Deadline of a look-up.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long a new snapshot waits for names it has no address of.
pub const FIRST_WAIT: Duration = Duration::from_secs(2);

/// Looks names up; remembers which failed, so that each failure is told once.
#[derive(Debug, Clone, Default)]
pub struct Resolver {
    failing: Arc<Mutex<HashSet<EndpointId>>>,
}

impl Resolver {
    /// Looks up the names in `snapshot` that were never looked up. Takes at most [`FIRST_WAIT`].
    pub async fn resolve_new(&self, snapshot: &Snapshot) {
        let mut new = named(snapshot);
        {
            let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
            new.retain(|endpoint| endpoint.addresses.load().is_empty() && !failing.contains(&endpoint.id));
        }
        self.resolve(new, FIRST_WAIT).await;
    }

    /// Keeps looking up the names in the snapshot in force.
    pub async fn keep_resolving(self, published: Published) {
        let mut next = INTERVAL_UNRESOLVED;
        loop {
            tokio::time::sleep(next).await;
            let endpoints = named(&published.load());
            self.failing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|id| endpoints.iter().any(|endpoint| endpoint.id == *id));
            let unresolved = |endpoint: &Arc<Endpoint>| endpoint.addresses.load().is_empty();
            self.resolve(endpoints.clone(), DEADLINE).await;
            next = if endpoints.iter().any(unresolved) { INTERVAL_UNRESOLVED } else { INTERVAL };
        }
    }

    async fn resolve(&self, endpoints: Vec<Arc<Endpoint>>, deadline: Duration) {
        let mut lookups = JoinSet::new();
        for endpoint in endpoints {
            lookups.spawn(async move {
                let found = timeout(deadline, lookup(&endpoint.id)).await;
                let found = found.unwrap_or_else(|_late| Err(format!("no answer within {deadline:?}")));
                (endpoint, found)
            });
        }
        while let Some(done) = lookups.join_next().await {
            if let Ok((endpoint, found)) = done {
                self.learn(&endpoint, found);
            }
        }
    }

    fn learn(&self, endpoint: &Endpoint, found: Result<Vec<SocketAddr>, String>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, host) = (endpoint.label(), &*endpoint.id.host);
        match found {
            Ok(addresses) => {
                if failing.remove(&endpoint.id) {
                    tracing::info!(endpoint = %name, %host, "name resolves again");
                }
                if **endpoint.addresses.load() != addresses {
                    tracing::info!(endpoint = %name, %host, ?addresses, "name resolved");
                    endpoint.addresses.store(Arc::new(addresses));
                }
            }
            Err(reason) => {
                if failing.insert(endpoint.id.clone()) {
                    let kept = endpoint.addresses.load().len();
                    tracing::warn!(endpoint = %name, %host, %reason, kept, "name does not resolve");
                }
            }
        }
    }
}

/// Every endpoint with a host name once.
fn named(snapshot: &Snapshot) -> Vec<Arc<Endpoint>> {
    let mut seen = HashSet::new();
    let members = snapshot.pools.iter().flat_map(|pool| &pool.members);
    let endpoints = members.map(|member| &member.endpoint);
    let named = endpoints.filter(|endpoint| endpoint.id.host.parse::<std::net::IpAddr>().is_err());
    named.filter(|endpoint| seen.insert(endpoint.number)).cloned().collect()
}

/// Sorted, so that a server that rotates its answers changes nothing.
async fn lookup(id: &EndpointId) -> Result<Vec<SocketAddr>, String> {
    let found = lookup_host((&*id.host, id.port)).await.map_err(|error| error.to_string())?;
    let mut addresses: Vec<_> = found.collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() { Err("no address".into()) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_resolves_to_its_addresses() {
        let id = EndpointId { frps: "a".into(), host: "localhost".into(), port: 81 };
        let endpoint = Endpoint::new(id, 1, 1);
        let resolver = Resolver::default();
        resolver.learn(&endpoint, lookup(&endpoint.id).await);
        let addresses = endpoint.addresses.load();
        assert!(
            !addresses.is_empty() && addresses.iter().all(|address| address.port() == 81),
            "{addresses:?}"
        );
    }

    #[test]
    fn a_failing_lookup_keeps_the_last_addresses() {
        let id = EndpointId { frps: "a".into(), host: "a.test".into(), port: 81 };
        let endpoint = Endpoint::new(id, 1, 1);
        let resolver = Resolver::default();
        resolver.learn(&endpoint, Ok(vec!["10.0.0.1:81".parse().unwrap()]));
        resolver.learn(&endpoint, Err("gone".into()));
        assert_eq!(endpoint.addresses.load().len(), 1);
        assert_eq!(resolver.failing.lock().unwrap().len(), 1);
        resolver.learn(&endpoint, Ok(vec!["10.0.0.2:81".parse().unwrap()]));
        assert!(resolver.failing.lock().unwrap().is_empty());
    }
}
