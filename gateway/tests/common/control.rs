//! A fleet whose frpc all dial the gateway.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::panic,
    reason = "each test file uses its own part"
)]

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use frp_gateway_loadtest::lab::{FreePorts, Frpc, FrpcOptions, Proxy, until};

use crate::takeover::{SOON, World};

/// A world with an `frp` listener.
pub struct Site {
    pub world: World,
    /// Where frpc dial.
    pub frp: SocketAddr,
    _held: FreePorts,
}

impl Site {
    /// `settings` of the `frp` listener, such as `together: user`; `rest` of the YAML.
    pub async fn start(names: &[&'static str], settings: &str, rest: &str) -> Self {
        Self::with(names, settings, rest, "").await
    }

    /// The same; every frps has this line too.
    pub async fn with(names: &[&'static str], settings: &str, rest: &str, line: &str) -> Self {
        let mut site = Self::unstarted(names, settings, rest, line).await;
        site.world.start_gateway().await;
        site
    }

    /// The same, but for the gateway, which is yet to be started.
    pub async fn unstarted(names: &[&'static str], settings: &str, rest: &str, line: &str) -> Self {
        let mut world = World::fleet(names, rest, |options| options.line(line)).await;
        let mut held = FreePorts::new();
        let frp = SocketAddr::from(([127, 0, 0, 1], held.take().expect("a port")));
        let comma = if settings.is_empty() { "" } else { ", " };
        let listener =
            format!("listeners:\n  - {{ name: frp, protocol: frp, bind: \"{frp}\"{comma}{settings} }}\n");
        world.instead.push(("listeners:\n".into(), listener));
        Self { world, frp, _held: held }
    }

    /// What an frpc of `user` that dials the gateway is started with.
    pub fn options(&self, user: &str, proxies: Vec<Proxy>) -> FrpcOptions {
        let options = FrpcOptions::to(self.frp).user(user);
        proxies.into_iter().fold(options, FrpcOptions::proxy)
    }

    /// One that is connected and has its tunnels up.
    pub async fn frpc(&self, options: FrpcOptions) -> Frpc {
        let mut frpc = Frpc::start_unready(options).expect("frpc starts");
        let up = frpc.wait_running(SOON).await;
        up.unwrap_or_else(|error| panic!("{error}\n{}\n{}", frpc.log(), self.world.gateway().log()));
        frpc
    }

    /// Clients as the gateway lists them: (user, frps), sorted.
    pub async fn clients(&self) -> Vec<(String, String)> {
        let all = self.world.gateway().api("/api/v1/clients").await.expect("the API answers");
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("?").to_owned();
        let mut all: Vec<_> = all
            .as_array()
            .into_iter()
            .flatten()
            .map(|client| (text(&client["user"]), text(&client["frps"])))
            .collect();
        all.sort();
        all
    }

    /// How many clients each frps has, by the gateway's account.
    pub async fn spread(&self) -> BTreeMap<String, usize> {
        let mut spread = BTreeMap::new();
        for (_, frps) in self.clients().await {
            *spread.entry(frps).or_default() += 1;
        }
        spread
    }

    /// Waits until this holds for the clients that the gateway lists.
    pub async fn until_clients(&self, what: &str, holds: impl Fn(&[(String, String)]) -> bool) -> Instant {
        let seen = until(what, SOON, async || holds(&self.clients().await).then_some(())).await;
        if let Err(error) = seen {
            panic!("{error}: {:?}\n{}", self.clients().await, self.world.gateway().log());
        }
        Instant::now()
    }

    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let name = format!("frp_gateway_control_connections{name}");
        self.world.gateway().metric(&name, labels).await.expect("metrics").unwrap_or_default()
    }
}
