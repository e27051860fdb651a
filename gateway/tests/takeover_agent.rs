//! Tunnels register through the agent while every gateway is away; and tunnels from before the plugin serve beside those after it. Real
//! frps and frpc; needs `frp-lab/build`.

#[path = "common/takeover.rs"]
mod takeover;

use std::time::{Duration, Instant};

use frp_gateway_loadtest::{
    http,
    lab::{FreePorts, Frpc, FrpcOptions, Frps, FrpsOptions, Gateway, GatewayOptions, Proxy, until},
};
use takeover::{BINARY, KEY, SOON, app, options, secret};

/// A process of ours that isn't a gateway.
struct Agent {
    child: std::process::Child,
    _folder: tempfile::TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Agent {
    async fn start(yaml: &str, listen: std::net::SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("agent.yaml");
        std::fs::write(&file, yaml).expect("written");
        let child =
            std::process::Command::new(BINARY).args(["agent", "-c"]).arg(&file).spawn().expect("it starts");
        let agent = Self { child, _folder: folder };
        until("the agent", SOON, async || {
            http::get(listen, "agent", "/healthz").await.is_ok_and(|reply| reply.status == 200).then_some(())
        })
        .await
        .expect("the agent answers");
        agent
    }
}

fn yaml(frps: &Frps, plugin: std::net::SocketAddr, web: std::net::SocketAddr) -> String {
    let entry = frps.yaml();
    let entry = entry.strip_suffix(" }").expect("flow style");
    format!(
        "plugin: {{ listen: \"{plugin}\", key: \"{KEY}\", agent_token: agent-token-of-tests }}\n\
         listeners: [ {{ name: web, bind: \"{web}\" }} ]\nfrps:\n  - {entry}, plugin: {{ secret: {} }} }}\n",
        secret("a")
    )
}

#[tokio::test]
async fn tunnels_register_while_every_gateway_is_away_and_are_served_by_the_first_poll() {
    let mut held = FreePorts::new();
    let mut port = || std::net::SocketAddr::from(([127, 0, 0, 1], held.take().expect("a port")));
    let (agent_at, plugins, webs) = (port(), [port(), port()], [port(), port()]);
    let mut frps =
        Frps::start(options("a", frp_gateway_loadtest::lab::Version::V071, agent_at)).await.expect("frps");
    let agent_yaml = format!(
        "{}agent: {{ frps: a, listen: \"{agent_at}\", gateways: [\"http://{}\", \"http://{}\"], token: agent-token-of-tests }}\n",
        yaml(&frps, plugins[0], webs[0]),
        plugins[0],
        plugins[1]
    );
    let _agent = Agent::start(&agent_yaml, agent_at).await;

    // No gateway anywhere.
    let (early, late) = (app("early"), app("late"));
    let _early = Frpc::start(FrpcOptions::new(&frps).user("u").proxy(Proxy::http(
        "early",
        early.addr(),
        &["early.test"],
    )))
    .await
    .expect("it registers");
    frps.wait_online(&["u.early"], SOON).await.expect("live");
    let mut gateways = Vec::new();
    for at in 0..2 {
        let options = GatewayOptions::new(BINARY, &yaml(&frps, plugins[at], webs[at]));
        gateways.push(Gateway::start_with(options).await.expect("the gateway starts"));
        let reply = http::get(webs[at], "early.test", "/").await.expect("an answer");
        assert_eq!(reply.app(), Some("early"), "gateway {at}, at its first request: {}", reply.text());
    }

    // Both hear of a new one at once, long before their next poll.
    let _late = Frpc::start(FrpcOptions::new(&frps).user("v").proxy(Proxy::http(
        "late",
        late.addr(),
        &["late.test"],
    )))
    .await
    .expect("it registers");
    let begun = Instant::now();
    for web in webs {
        until("the new tunnel", SOON, async || {
            let reply = http::get(web, "late.test", "/").await.ok()?;
            (reply.app() == Some("late")).then_some(())
        })
        .await
        .expect("it is served");
    }
    println!("both gateways serve a new tunnel {:?} after frpc said so", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn tunnels_from_before_the_plugin_serve_by_vhost_in_one_pool_with_those_after_it() {
    let mut held = FreePorts::new();
    let mut port = || std::net::SocketAddr::from(([127, 0, 0, 1], held.take().expect("a port")));
    let (plugin, web) = (port(), port());
    // `old` has no plugin block yet, as far as frps is concerned.
    let old = Frps::start(FrpsOptions::new("old")).await.expect("frps");
    let new =
        Frps::start(options("a", frp_gateway_loadtest::lab::Version::V071, plugin)).await.expect("frps");
    let yaml = format!("{}  - {}\n", yaml(&new, plugin, web), old.yaml());
    let _gateway = Gateway::start_with(GatewayOptions::new(BINARY, &yaml)).await.expect("the gateway starts");
    let (one, two) = (app("by-vhost"), app("by-port"));
    let proxy = |app: &frp_gateway_loadtest::demo::DemoApp| Proxy::http("web", app.addr(), &["app.test"]);
    let _one = Frpc::start(FrpcOptions::new(&old).user("u").proxy(proxy(&one))).await.expect("frpc");
    let _two = Frpc::start(FrpcOptions::new(&new).user("u").proxy(proxy(&two))).await.expect("frpc");
    until("both to serve", SOON, async || {
        let mut apps = Vec::new();
        for _ in 0..8 {
            apps.push(http::get(web, "app.test", "/").await.ok()?.app()?.to_owned());
        }
        (apps.contains(&"by-vhost".to_owned()) && apps.contains(&"by-port".to_owned())).then_some(())
    })
    .await
    .expect("both serve");
}
