//! Real frps that have a gateway (or an agent) for their plugin, and real frpc.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::panic,
    reason = "each test file uses its own part"
)]

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use frp_gateway_loadtest::{
    demo::DemoApp,
    http::{self, Reply},
    lab::{FreePorts, Frpc, FrpcOptions, Frps, FrpsOptions, Gateway, GatewayOptions, Proxy, Version, until},
};

/// Longest wait for anything; only a failing test waits so long.
pub const SOON: Duration = Duration::from_secs(30);
pub const KEY: &str = "a-key-for-tests-of-32-characters-";
pub const BINARY: &str = env!("CARGO_BIN_EXE_frp-gateway");

/// The rest of a YAML where nobody waits long for a tunnel that is away.
pub const SHORT_HOLD: &str = "tunnels: { pool: { hold: 50ms } }\npools: [ { name: default, hold: 50ms } ]";

/// A fleet with its gateway.
pub struct World {
    pub frps: Vec<Frps>,
    pub gateway: Option<Gateway>,
    pub web: SocketAddr,
    pub plugin: SocketAddr,
    names: Vec<&'static str>,
    /// The rest of the YAML.
    pub rest: String,
    /// What is written instead of what, in all of the YAML.
    pub instead: Vec<(String, String)>,
    _held: FreePorts,
}

/// The path secret of an frps.
pub fn secret(name: &str) -> String {
    format!("secret-of-frps-{name}-1")
}

/// What every frps of a world is started with.
pub fn options(name: &str, version: Version, plugin: SocketAddr) -> FrpsOptions {
    FrpsOptions::new(name)
        .version(version)
        .tunnel_ports(30)
        .line("subDomainHost = \"lab.test\"")
        .plugin(plugin, &format!("/frps/{}", secret(name)))
}

impl World {
    /// frps of these names, and a gateway that is ready.
    pub async fn start(names: &[&'static str], rest: &str) -> Self {
        Self::with(names, rest, |options| options).await
    }

    pub async fn with(
        names: &[&'static str],
        rest: &str,
        change: impl Fn(FrpsOptions) -> FrpsOptions,
    ) -> Self {
        let mut world = Self::fleet(names, rest, change).await;
        world.start_gateway().await;
        world
    }

    /// The frps alone, the gateway to be started by the test.
    pub async fn fleet(
        names: &[&'static str],
        rest: &str,
        change: impl Fn(FrpsOptions) -> FrpsOptions,
    ) -> Self {
        let mut held = FreePorts::new();
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let (web, plugin) = (local(held.take().expect("a port")), local(held.take().expect("a port")));
        let mut frps = Vec::new();
        for name in names {
            let options = change(options(name, Version::V071, plugin));
            frps.push(Frps::start(options).await.expect("frps starts"));
        }
        Self {
            frps,
            gateway: None,
            web,
            plugin,
            names: names.to_vec(),
            rest: rest.to_owned(),
            instead: Vec::new(),
            _held: held,
        }
    }

    pub fn yaml(&self) -> String {
        let entries: Vec<_> = self
            .names
            .iter()
            .zip(&self.frps)
            .map(|(name, frps)| {
                let entry = frps.yaml();
                let entry = entry.strip_suffix(" }").expect("flow style");
                format!("{entry}, plugin: {{ secret: {} }} }}", secret(name))
            })
            .collect();
        let text = format!(
            "runtime: {{ workers: 2 }}\nplugin: {{ listen: \"{}\", key: \"{KEY}\", agent_token: agent-token-of-tests }}\n\
             listeners:\n  - {{ name: web, bind: \"{}\" }}\nfrps:\n  - {}\n{}\n",
            self.plugin,
            self.web,
            entries.join("\n  - "),
            self.rest
        );
        self.instead.iter().fold(text, |text, (old, new)| text.replace(old, new))
    }

    /// A gateway that is ready.
    pub async fn start_gateway(&mut self) {
        let options = GatewayOptions::new(BINARY, &self.yaml());
        self.gateway = Some(Gateway::start_with(options).await.expect("the gateway starts"));
    }

    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("it runs")
    }

    /// An frpc of `user` at the frps of this number; does not wait for its tunnels.
    pub fn frpc_unready(&self, at: usize, user: &str, proxies: Vec<Proxy>) -> Frpc {
        let mut options = FrpcOptions::new(&self.frps[at]).user(user);
        for proxy in proxies {
            options = options.proxy(proxy);
        }
        Frpc::start_unready(options).expect("frpc starts")
    }

    /// An frpc whose tunnels the gateway knows.
    pub async fn frpc(&self, at: usize, user: &str, proxies: Vec<Proxy>) -> Frpc {
        let mut frpc = self.frpc_unready(at, user, proxies);
        frpc.wait_running(SOON).await.expect("its tunnels are up");
        let names = frpc.proxy_names();
        self.until_known(at, &names).await;
        frpc
    }

    pub async fn until_known(&self, at: usize, names: &[String]) {
        until(&format!("{names:?} to be known to the gateway"), SOON, async || {
            let known = self.tunnels(at).await;
            names.iter().all(|name| known.contains(name)).then_some(())
        })
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", self.gateway().log()));
    }

    /// Names of the tunnels that the gateway knows at an frps.
    pub async fn tunnels(&self, at: usize) -> Vec<String> {
        let path = format!("/api/v1/tunnels?state=live&frps={}", self.names[at]);
        let all = self.gateway().api(&path).await.expect("the API answers");
        let listed = all.as_array().cloned().unwrap_or_default();
        listed.iter().filter_map(|tunnel| Some(tunnel["name"].as_str()?.to_owned())).collect()
    }

    pub async fn get(&self, host: &str, path: &str) -> Reply {
        http::get(self.web, host, path).await.expect("an answer")
    }

    /// Who answers `count` requests, and how often.
    pub async fn shares(&self, host: &str, count: usize) -> BTreeMap<String, usize> {
        let mut connection = http::Connection::open(self.web).await.expect("it listens");
        let mut shares = BTreeMap::new();
        for _ in 0..count {
            let reply = connection
                .send(http::request("GET", host, "/").body(http::empty()))
                .await
                .expect("an answer");
            assert_eq!(reply.status, 200, "{host}: {}", reply.text());
            *shares.entry(reply.app().expect("an application").to_owned()).or_default() += 1;
        }
        shares
    }

    /// Waits until the gateway has logged it.
    pub async fn until_logged(&self, text: &str) {
        until(&format!("the log line {text:?}"), SOON, async || {
            self.gateway().log().contains(text).then_some(())
        })
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", self.gateway().log()));
    }
}

/// Waits until a process has logged it.
pub async fn until_frpc_says(frpc: &Frpc, text: &str) {
    until(&format!("{text:?} in the log of frpc"), SOON, async || frpc.log().contains(text).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", frpc.log()));
}

pub fn app(name: &str) -> DemoApp {
    DemoApp::start(name).expect("an application")
}
