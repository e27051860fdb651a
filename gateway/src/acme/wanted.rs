//! Which names may have a certificate, and for whom. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use frp_gateway_config::model::{Carries, Config, HostMatch};

use super::names;
use crate::control::directory::{Directory, Phase, carried_at, settle};

/// Names that may have one.
pub type Wanted = HashMap<Arc<str>, Claim>;

/// On whose behalf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// `acme.names`.
    Named,
    /// A route names it.
    Route,
    /// A live tunnel of this user claims it.
    Tunnel(Arc<str>),
}

impl Claim {
    /// Whether it is ordered before anybody asks for it. Those of routes aren't: many of them may lead elsewhere still.
    #[must_use]
    pub const fn at_once(&self) -> bool {
        match self {
            Self::Named | Self::Tunnel(_) => true,
            Self::Route => false,
        }
    }

    /// The user of FRP whose share it counts in.
    #[must_use]
    pub const fn user(&self) -> Option<&Arc<str>> {
        match self {
            Self::Tunnel(user) => Some(user),
            Self::Named | Self::Route => None,
        }
    }
}

/// All names that may have one now. Where several reasons hold for a name, the operator's come first, so that they cost no user's
/// share. O(routes + claimed hosts).
#[must_use]
pub fn wanted(config: &Config, directory: &Directory) -> Wanted {
    let mut wanted = Wanted::new();
    let Some(acme) = &config.acme else { return wanted };
    let fits = |name: &str| names::fit(name).is_ok();
    for name in acme.names.iter().filter(|name| fits(name)) {
        wanted.insert(name.as_str().into(), Claim::Named);
    }
    if acme.on_demand.routes {
        let listeners: HashSet<&str> = config
            .listeners
            .iter()
            .filter(|listener| listener.tls.as_ref().is_some_and(|tls| tls.acme))
            .map(|listener| listener.name.as_str())
            .collect();
        let served = config.routes.iter().filter(|route| {
            route.listeners.is_empty() || route.listeners.iter().any(|name| listeners.contains(&**name))
        });
        for host in served.flat_map(|route| &route.matches.hosts) {
            if let HostMatch::Exact(name) = host
                && fits(name)
            {
                wanted.entry(name.as_str().into()).or_insert(Claim::Route);
            }
        }
    }
    let serve = config.tunnels.serve || config.pools.iter().any(|pool| pool.tunnels.is_some());
    if acme.on_demand.tunnels && serve {
        for key in directory.keys().filter(|key| carried_at(key) == Carries::Http && fits(key)) {
            let owner = settle(directory.claimants(key), &config.claims)
                .into_iter()
                .flat_map(|group| group.tunnels)
                .find(|tunnel| tunnel.phase == Phase::Live && tunnel.way.carries() == Some(Carries::Http));
            if let Some(owner) = owner {
                wanted.entry(Arc::clone(key)).or_insert_with(|| Claim::Tunnel(owner.user().into()));
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests;
