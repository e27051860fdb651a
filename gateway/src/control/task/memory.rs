//! What one process knows of the fleet and the next one goes by, after an upgrade.

use std::time::Duration;

use super::Control;
use crate::{
    clock,
    control::event::{Event, Known, Memory},
    frps::Listing,
    snapshot::Tunnels,
};

impl Control {
    /// What is known here.
    pub(super) fn memory(&mut self) -> Memory {
        let (now, present) = (clock::now(), self.parts.published.load());
        let hosts = present
            .tunnels
            .known_or_away(now)
            .map(|(key, away)| (key.to_string(), u64::try_from(away.as_millis()).unwrap_or(u64::MAX)));
        let hosts = hosts.collect();
        let (drains, relays) = (self.state.drains.clone(), present.relays.inheritance());
        Memory { frps: self.known(), hosts, drains, relays }
    }

    /// Goes by what another process knew. Clients are not its concern: see [`Relays::inherit`](crate::control::relays::Relays).
    pub(super) async fn remember(&mut self, memory: Memory) {
        for frps in memory.drains {
            self.apply_or_refuse(Event::DrainAsked { frps, on: true }).await;
        }
        for known in memory.frps {
            self.apply_or_refuse(Event::FrpsRemembered(known)).await;
        }
        self.publish_tunnels();
        let now = clock::now();
        let mut tunnels = Tunnels::clone(&self.parts.published.load().tunnels);
        for (key, away) in &memory.hosts {
            tunnels.remember(key, Duration::from_millis(*away), now);
        }
        self.store(tunnels);
        self.show();
    }

    fn known(&mut self) -> Vec<Known> {
        let listed = self.state.frps.iter().filter(|(_, frps)| frps.listed);
        let known = listed.map(|(name, frps)| {
            let watch = self.tunnels.watch(name);
            Known {
                frps: name.clone(),
                server: frps.server.clone(),
                listing: Listing {
                    proxies: frps.table.values().map(|tunnel| tunnel.proxy.clone()).collect(),
                    subdomain_host: frps.subdomain_host.clone(),
                },
                calls_us: watch.calls_us(),
                doubted: watch.is_doubted(),
            }
        });
        known.collect()
    }
}
