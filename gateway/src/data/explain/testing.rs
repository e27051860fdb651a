//! A fleet that stands still, for tests.

use std::net::{IpAddr, Ipv4Addr};

use frp_gateway_config::model::Config;
use lb_algos::Tick;

use super::{Asked, explain, view::Explanation};
use crate::{
    control::{
        compile::{Identities, compile_bare},
        testing::config_with,
    },
    snapshot::{Listener, Member, Pool, Snapshot},
};

/// A compiled configuration at 100 s.
pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    pub(crate) now: Tick,
}

pub(crate) fn second(at: u64) -> Tick {
    Tick::from_nanos(at * 1_000_000_000)
}

impl World {
    /// The configuration of the control plane's tests, changed.
    pub(crate) fn new(change: impl FnOnce(&mut Config)) -> Self {
        let identities = Identities::new(2);
        let compiled = compile_bare(&config_with(change), 7, &identities, Tick::ZERO).unwrap();
        Self { snapshot: compiled.snapshot, now: second(100) }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.snapshot.pools[0]
    }

    pub(crate) fn member(&self, name: &str) -> &Member {
        self.pool().members.iter().find(|member| member.endpoint.label() == name).unwrap()
    }

    pub(crate) fn listener(&self) -> &Listener {
        self.snapshot.listeners[0].as_ref().unwrap()
    }

    /// Explains `GET path` of `shop.test` with these header lines.
    pub(crate) fn get(&self, path: &str, headers: &str) -> Explanation {
        self.ask("GET", &format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n{headers}\r\n"))
    }

    pub(crate) fn ask(&self, method: &str, wire: &str) -> Explanation {
        self.ask_from(Ipv4Addr::new(192, 0, 2, 7).into(), method, wire)
    }

    pub(crate) fn ask_from(&self, peer: IpAddr, method: &str, wire: &str) -> Explanation {
        let target = wire.split(' ').nth(1).unwrap();
        let path = target.split('?').next().unwrap();
        explain(&Asked {
            snapshot: &self.snapshot,
            listener: self.listener(),
            method,
            url: &format!("http://shop.test{path}"),
            wire: wire.as_bytes(),
            peer,
            client: None,
            now: self.now,
            seed: 7,
        })
    }
}
