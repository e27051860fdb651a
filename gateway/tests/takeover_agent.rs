//! Tunnels register through the agent while every gateway is away; and tunnels from before the plugin serve beside those after it. Real
//! frps and frpc; needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/takeover.rs"]
mod takeover;

use std::time::{Duration, Instant};

use frp_gateway_loadtest::{
    http,
    lab::{
        Agent, FreePorts, Frpc, FrpcOptions, Frps, FrpsOptions, Gateway, GatewayOptions, Proxy, Relay,
        Weather, until,
    },
};
use takeover::{BINARY, KEY, SHORT_HOLD, SOON, app, options, secret};

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
    let _agent = Agent::start(BINARY, &agent_yaml, agent_at).await.expect("the agent starts");

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
        // Listing again so late that only the agent's word can explain what is known soon.
        let text =
            yaml(&frps, plugins[at], webs[at]).replace("password: lab", "password: lab, interval: 60s");
        let options = GatewayOptions::new(BINARY, &text);
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

    // A gateway that is frozen keeps nothing from the other.
    gateways[0].sigstop();
    let after = app("after");
    let _after = Frpc::start(FrpcOptions::new(&frps).user("w").proxy(Proxy::http(
        "after",
        after.addr(),
        &["after.test"],
    )))
    .await
    .expect("it registers");
    let begun = Instant::now();
    let served = async |web| {
        until("the newest tunnel", SOON, async || {
            let reply = http::get(web, "after.test", "/").await.ok()?;
            (reply.app() == Some("after")).then_some(())
        })
        .await
        .expect("it is served");
    };
    served(webs[1]).await;
    println!("the other serves one {:?} after frpc said so", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    gateways[0].sigcont();
    served(webs[0]).await;
}

#[tokio::test]
async fn tunnels_from_before_the_plugin_serve_by_vhost_in_one_pool_with_those_after_it() {
    let mut held = FreePorts::new();
    let mut port = || std::net::SocketAddr::from(([127, 0, 0, 1], held.take().expect("a port")));
    let (plugin, web) = (port(), port());
    // `old` has no plugin block yet, as far as frps is concerned.
    let mut old = Frps::start(FrpsOptions::new("old")).await.expect("frps");
    let new =
        Frps::start(options("a", frp_gateway_loadtest::lab::Version::V071, plugin)).await.expect("frps");
    let entry = old.yaml();
    let entry = entry.strip_suffix(" }").expect("flow style");
    let yaml =
        format!("{}  - {entry}, plugin: {{ secret: {} }} }}\n", yaml(&new, plugin, web), secret("old"));
    let gateway = Gateway::start_with(GatewayOptions::new(BINARY, &yaml)).await.expect("the gateway starts");
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
    let via = async |frps: &str| {
        let path = format!("/api/v1/tunnels?state=live&frps={frps}");
        gateway.api(&path).await.expect("the API answers")[0]["via"].as_str().map(ToOwned::to_owned)
    };
    // By vhost it may serve before it is listed: nobody announces it.
    until("both to be listed", SOON, async || {
        (via("old").await.is_some() && via("a").await.is_some()).then_some(())
    })
    .await
    .expect("they are");
    assert_eq!((via("old").await.as_deref(), via("a").await.as_deref()), (Some("vhost"), Some("takeover")));

    // The operator adds the block and restarts that frps: what registers anew is taken over. The twin serves meanwhile.
    let table = options("old", frp_gateway_loadtest::lab::Version::V071, plugin);
    old.restart_with(|_| table).await.expect("frps starts again");
    until("it to be taken over", SOON, async || {
        let reply = http::get(web, "app.test", "/").await.expect("an answer");
        assert_eq!(reply.status, 200, "the twin is there: {}", reply.text());
        (via("old").await.as_deref() == Some("takeover")).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()));
    let mut shares = std::collections::BTreeMap::<String, usize>::new();
    let mut connection = http::Connection::open(web).await.expect("it listens");
    for _ in 0..40 {
        let request = http::request("GET", "app.test", "/").body(http::empty());
        let reply = connection.send(request).await.expect("an answer");
        *shares.entry(reply.app().expect("an application").to_owned()).or_default() += 1;
    }
    assert_eq!((shares.get("by-vhost"), shares.get("by-port")), (Some(&20), Some(&20)), "{shares:?}");
    let direct = http::get(old.http(), "app.test", "/").await.expect("an answer");
    assert_eq!(direct.app(), None, "its vhost has it no more");
}

#[tokio::test]
async fn two_users_who_claimed_one_host_while_every_gateway_was_away_are_settled_alike_by_all() {
    let mut held = FreePorts::new();
    let mut port = || std::net::SocketAddr::from(([127, 0, 0, 1], held.take().expect("a port")));
    let (agents_at, plugins, webs) = ([port(), port()], [port(), port()], [port(), port()]);
    let version = frp_gateway_loadtest::lab::Version::V071;
    let (one, other) = (
        Frps::start(options("a", version, agents_at[0])).await.expect("frps"),
        Frps::start(options("b", version, agents_at[1])).await.expect("frps"),
    );
    let both = |at: usize| {
        let entry = other.yaml();
        let entry = entry.strip_suffix(" }").expect("flow style");
        format!(
            "{}  - {entry}, plugin: {{ secret: {} }} }}\n",
            yaml(&one, plugins[at], webs[at]),
            secret("b")
        )
    };
    let mut agents = Vec::new();
    for (at, frps) in ["a", "b"].into_iter().enumerate() {
        let listen = agents_at[at];
        let text = format!(
            "{}agent: {{ frps: {frps}, listen: \"{listen}\", gateways: [\"http://{}\", \"http://{}\"], token: agent-token-of-tests }}\n",
            both(0),
            plugins[0],
            plugins[1]
        );
        agents.push(Agent::start(BINARY, &text, listen).await.expect("the agent starts"));
    }
    let (ours, theirs) = (app("alice"), app("bob"));
    let claim = |frps: &Frps, user: &str, app: &frp_gateway_loadtest::demo::DemoApp| {
        FrpcOptions::new(frps).user(user).proxy(Proxy::http("web", app.addr(), &["app.test"]))
    };
    let _alice = Frpc::start(claim(&one, "alice", &ours)).await.expect("nobody refuses it");
    // frps tells whole seconds.
    let now =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let since = now();
    until("another second", SOON, async || (now() > since).then_some(())).await.expect("time passes");
    let _bob = Frpc::start(claim(&other, "bob", &theirs)).await.expect("nor this");
    for (at, web) in webs.iter().enumerate() {
        let options = GatewayOptions::new(BINARY, &both(at));
        let gateway = Gateway::start_with(options).await.expect("the gateway starts");
        for _ in 0..20 {
            let reply = http::get(*web, "app.test", "/").await.expect("an answer");
            assert_eq!(reply.app(), Some("alice"), "gateway {at}: {}", reply.text());
        }
        let loser = gateway.api("/api/v1/tunnels?user=bob").await.expect("the API answers");
        assert_eq!(loser[0]["conflict"], true, "gateway {at}: {loser}");
    }
    assert_eq!(theirs.requests(), 0, "nothing was sent to the younger one");
}

#[tokio::test]
async fn a_port_that_changes_hands_behind_a_cut_network_is_no_wrong_route() {
    let mut held = FreePorts::new();
    let mut port = || std::net::SocketAddr::from(([127, 0, 0, 1], held.take().expect("a port")));
    let (agent_at, plugin, web) = (port(), port(), port());
    let version = frp_gateway_loadtest::lab::Version::V071;
    let frps = Frps::start(options("a", version, agent_at).tunnel_ports(1)).await.expect("frps");
    let to_admin = Relay::start(frps.admin()).await.expect("a relay");
    let to_gateway = Relay::start(plugin).await.expect("a relay");
    let text = yaml(&frps, plugin, web);
    let agent_yaml = format!(
        "{text}agent: {{ frps: a, listen: \"{agent_at}\", gateways: [\"http://{}\"], token: agent-token-of-tests }}\n",
        to_gateway.address()
    );
    let _agent = Agent::start(BINARY, &agent_yaml, agent_at).await.expect("the agent starts");
    let text = text
        .replace(&frps.admin().to_string(), &to_admin.address().to_string())
        .replace("password: lab", "password: lab, interval: 200ms");
    let text = format!("{text}{SHORT_HOLD}\n");
    let gateway = Gateway::start_with(GatewayOptions::new(BINARY, &text)).await.expect("the gateway starts");
    let (ours, theirs) = (app("app0"), app("app1"));
    let claim = |user: &str, app: &frp_gateway_loadtest::demo::DemoApp, host: &str| {
        FrpcOptions::new(&frps).user(user).proxy(Proxy::http("web", app.addr(), &[host]))
    };
    let mut first = Frpc::start(claim("u0", &ours, "h0.test")).await.expect("it registers");
    until("the first to serve", SOON, async || {
        (http::get(web, "h0.test", "/").await.ok()?.app() == Some("app0")).then_some(())
    })
    .await
    .expect("it serves");
    // This visitor's worker keeps a connection to the tunnel.
    let mut visitor = http::Connection::open(web).await.expect("it listens");
    let ask = || http::request("GET", "h0.test", "/").body(http::empty());
    assert_eq!(visitor.send(ask()).await.expect("an answer").app(), Some("app0"));
    // A listing after all that has happened.
    let listed = async || gateway.api("/api/v1/frps").await.ok()?[0]["last_listing_at"].as_f64();
    let before = listed().await.unwrap_or_default();
    until("a listing", SOON, async || listed().await.filter(|at| *at >= before + 2.0)).await.expect("one");
    // The way to admin API and agent is cut; the way to the tunnels' ports is not.
    to_admin.turn(Weather::Refused);
    to_gateway.turn(Weather::Refused);
    until("the listing to be stale", SOON, async || {
        let stale = gateway.metric("frp_gateway_frps_listing_stale", &["frps=\"a\""]).await.ok()?;
        (stale == Some(1.0)).then_some(())
    })
    .await
    .expect("it is");
    let reply = visitor.send(ask()).await.expect("an answer");
    assert_eq!(reply.app(), Some("app0"), "a kept connection serves on: {}", reply.text());
    first.kill9();
    let _second = Frpc::start(claim("u1", &theirs, "h1.test")).await.expect("it registers");
    for n in 0..20 {
        let reply = http::get(web, "h0.test", "/").await.expect("an answer");
        assert_eq!(reply.app(), None, "request {n}: {}", reply.text());
    }
    assert_eq!(theirs.requests(), 0, "nothing was sent to another's application");
}
