//! Names of hosts → addresses. A name that stops resolving keeps its last addresses.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{net::lookup_host, task::JoinSet, time::timeout};

use crate::snapshot::{Host, Published, Snapshot};

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
    failing: Arc<Mutex<HashSet<Arc<str>>>>,
}

impl Resolver {
    /// Looks up the names in `snapshot` that were never looked up. Takes at most [`FIRST_WAIT`].
    pub async fn resolve_new(&self, snapshot: &Snapshot) {
        let mut new = named(snapshot);
        {
            let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
            new.retain(|host| host.addresses.load().is_empty() && !failing.contains(&host.name));
        }
        self.resolve(new, FIRST_WAIT).await;
    }

    /// Keeps looking up the names in the snapshot in force.
    pub async fn keep_resolving(self, published: Published) {
        let mut next = INTERVAL_UNRESOLVED;
        loop {
            tokio::time::sleep(next).await;
            let hosts = named(&published.load());
            self.failing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|name| hosts.iter().any(|host| host.name == *name));
            let unresolved = |host: &Arc<Host>| host.addresses.load().is_empty();
            self.resolve(hosts.clone(), DEADLINE).await;
            next = if hosts.iter().any(unresolved) { INTERVAL_UNRESOLVED } else { INTERVAL };
        }
    }

    async fn resolve(&self, hosts: Vec<Arc<Host>>, deadline: Duration) {
        let mut lookups = JoinSet::new();
        for host in hosts {
            lookups.spawn(async move {
                let found = timeout(deadline, lookup(&host.name)).await;
                let found = found.unwrap_or_else(|_late| Err(format!("no answer within {deadline:?}")));
                (host, found)
            });
        }
        while let Some(done) = lookups.join_next().await {
            if let Ok((host, found)) = done {
                self.learn(&host, found);
            }
        }
    }

    fn learn(&self, host: &Host, found: Result<Vec<IpAddr>, String>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let name = &*host.name;
        match found {
            Ok(addresses) => {
                if failing.remove(name) {
                    tracing::info!(host = %name, "name resolves again");
                }
                if **host.addresses.load() != addresses {
                    tracing::info!(host = %name, ?addresses, "name resolved");
                    host.addresses.store(Arc::new(addresses));
                }
            }
            Err(reason) => {
                if failing.insert(Arc::clone(&host.name)) {
                    let kept = host.addresses.load().len();
                    tracing::warn!(host = %name, %reason, kept, "name does not resolve");
                }
            }
        }
    }
}

/// Every host with a name once.
fn named(snapshot: &Snapshot) -> Vec<Arc<Host>> {
    let mut seen = HashSet::new();
    let members = snapshot.pools.iter().flat_map(|pool| &pool.members);
    let hosts = members.map(|member| &member.endpoint.host).chain(&snapshot.tunnel_hosts);
    let hosts = hosts.chain(snapshot.frps.iter().map(|frps| &frps.live.host));
    hosts.filter(|host| host.is_name() && seen.insert(Arc::as_ptr(host))).cloned().collect()
}

/// Sorted, so that a server that rotates its answers changes nothing.
async fn lookup(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = lookup_host((name, 0)).await.map_err(|error| error.to_string())?;
    let mut addresses: Vec<_> = found.map(|address| address.ip()).collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() { Err("no address".into()) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_resolves_to_its_addresses() {
        let host = Host::new("localhost".into());
        let resolver = Resolver::default();
        resolver.learn(&host, lookup(&host.name).await);
        let addresses = host.addresses.load();
        assert!(!addresses.is_empty() && addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
    }

    #[test]
    fn a_failing_lookup_keeps_the_last_addresses() {
        let host = Host::new("a.test".into());
        let resolver = Resolver::default();
        resolver.learn(&host, Ok(vec!["10.0.0.1".parse().unwrap()]));
        resolver.learn(&host, Err("gone".into()));
        assert_eq!(host.addresses.load().len(), 1);
        assert_eq!(resolver.failing.lock().unwrap().len(), 1);
        resolver.learn(&host, Ok(vec!["10.0.0.2".parse().unwrap()]));
        assert!(resolver.failing.lock().unwrap().is_empty());
    }
}
