//! Table of live tunnels: the listings of all frps, merged into what a request looks up.

use std::collections::BTreeMap;

use frp_gateway_config::model::Config;

use super::state::FrpsState;
use crate::snapshot::tunnels::{Holder, Tunnels};

/// Merges the listings in use, stale ones too: an admin API that fails says nothing about the tunnels.
///
/// Holders name an frps by its position in `config.frps`. Equal listings give equal tables.
#[must_use]
pub fn merge(config: &Config, listings: &BTreeMap<String, FrpsState>) -> Tunnels {
    let mut tunnels = Tunnels::default();
    for (index, frps) in (0_u32..).zip(&config.frps) {
        let Some(listing) = listings.get(&frps.name).and_then(|state| state.listing.as_ref()) else {
            continue;
        };
        for proxy in &listing.proxies {
            for domain in &proxy.domains {
                let locations = proxy.locations.iter().map(|location| location.as_str().into()).collect();
                tunnels.insert(domain, Holder { frps: index, locations });
            }
        }
    }
    tunnels
}
