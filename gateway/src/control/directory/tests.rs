use std::time::{Duration, SystemTime};

use frp_gateway_config::{model::Pattern, secret::Secret};

use super::*;
use crate::control::testing::{config_with, frps_admin};

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A fleet of `a` and `b`, both with us for a plugin.
struct World {
    config: Arc<Config>,
    seals: Seals,
    directory: Directory,
    tables: BTreeMap<&'static str, Table>,
}

impl World {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let config = config_with(|config| {
            for frps in &mut config.frps {
                frps.admin = Some(frps_admin("http://127.0.0.1:7500"));
            }
            change(config);
        });
        let tables = BTreeMap::from([("a", Table::new_sync()), ("b", Table::new_sync())]);
        Self { config, seals: Seals::new(&Secret::new(KEY), None), directory: Directory::default(), tables }
    }

    fn vhost(&mut self, frps: &'static str, name: &str, started: u64, domains: &[&str]) -> Touched {
        let user = name.split_once('.').map_or("", |(user, _)| user);
        let proxy = Proxy {
            name: name.into(),
            user: user.into(),
            domains: domains.iter().map(ToString::to_string).collect(),
            locations: vec![String::new()],
            started: started.to_string(),
            ..Proxy::default()
        };
        self.put(frps, proxy)
    }

    fn put(&mut self, frps: &'static str, proxy: Proxy) -> Touched {
        let (name, mut touched) = (proxy.name.clone(), Touched::new());
        let table = self.tables.get_mut(frps).unwrap();
        let frps = self.config.frps.iter().find(|one| one.name == frps).unwrap();
        let judge = Judge { config: &self.config, seals: Some(&self.seals), frps, now: at(100) };
        let tunnel = judge.tunnel(proxy, table.get(&*name).map(|tunnel| &**tunnel));
        self.directory.replace(table, &name, Some(tunnel), &mut touched);
        touched
    }

    fn remove(&mut self, frps: &'static str, name: &str) -> Touched {
        let mut touched = Touched::new();
        self.directory.replace(self.tables.get_mut(frps).unwrap(), name, None, &mut touched);
        touched
    }

    /// `LOCATION: names / names of losers`, per group.
    fn settled(&self, key: &str) -> Vec<String> {
        let names =
            |all: &[&Arc<Tunnel>]| all.iter().map(|tunnel| &*tunnel.proxy.name).collect::<Vec<_>>().join(" ");
        settle(self.directory.claimants(key), &self.config.claims)
            .iter()
            .map(|group| format!("{}: {} / {}", group.location, names(&group.tunnels), names(&group.losers)))
            .collect()
    }
}

fn keys(touched: &Touched) -> Vec<&str> {
    touched.iter().map(|key| &**key).collect()
}

#[test]
fn a_host_is_touched_when_its_claimants_change_and_only_then() {
    let mut world = World::new(|_| {});
    assert_eq!(keys(&world.vhost("a", "web", 1, &["x.test", "*.y.test"])), [".y.test", "x.test"]);
    assert_eq!(keys(&world.vhost("a", "web", 1, &["x.test", "*.y.test"])), [] as [&str; 0]);
    assert_eq!(keys(&world.vhost("a", "web", 1, &["x.test"])), [".y.test", "x.test"]);
    assert!(world.directory.claimants(".y.test").is_empty());
    assert_eq!(keys(&world.remove("a", "web")), ["x.test"]);
    assert_eq!(world.directory.keys().count(), 0, "what nobody claims is forgotten");
}

#[test]
fn a_host_belongs_to_the_user_who_came_first_and_to_all_his_tunnels() {
    let mut world = World::new(|_| {});
    world.vhost("b", "alice.web", 5, &["x.test"]);
    world.vhost("a", "bob.web", 9, &["x.test"]);
    world.vhost("a", "alice.web", 12, &["x.test"]);
    assert_eq!(world.settled("x.test"), [": alice.web alice.web / bob.web"]);
    world.remove("b", "alice.web");
    assert_eq!(world.settled("x.test"), [": bob.web / alice.web"], "bob is the older one now");
}

#[test]
fn users_share_a_host_where_policy_says_so() {
    let mut world = World::new(|config| config.claims.share = true);
    world.vhost("b", "alice.web", 5, &["x.test"]);
    world.vhost("a", "bob.web", 9, &["x.test"]);
    assert_eq!(world.settled("x.test"), [": bob.web alice.web / "]);
}

#[test]
fn a_suspect_serves_only_where_nobody_else_does() {
    let mut world = World::new(|_| {});
    for (frps, name) in [("a", "one"), ("b", "two")] {
        world.vhost(frps, name, 1, &["x.test"]);
    }
    let mut suspect = |frps: &'static str, name: &str| {
        let table = world.tables.get_mut(frps).unwrap();
        let tunnel = table.get(name).unwrap();
        let suspect = Tunnel {
            frps: Arc::clone(&tunnel.frps),
            proxy: tunnel.proxy.clone(),
            phase: Phase::Suspect,
            since: tunnel.since,
            way: tunnel.way.clone(),
            settings: tunnel.settings.clone(),
            fault: None,
        };
        world.directory.replace(table, name, Some(suspect), &mut Touched::new());
        world.settled("x.test")
    };
    assert_eq!(suspect("a", "one"), [": two / "]);
    assert_eq!(suspect("b", "two"), [": one two / "], "better than nobody");
}

#[test]
fn locations_go_in_descending_order_and_those_for_a_user_first() {
    let mut world = World::new(|_| {});
    let mut proxy = Proxy {
        name: "web".into(),
        domains: vec!["x.test".into()],
        locations: vec!["/".into(), "/api".into(), "/api/v2".into()],
        ..Proxy::default()
    };
    world.put("a", proxy.clone());
    assert_eq!(world.settled("x.test"), ["/api/v2: web / ", "/api: web / ", "/: web / "]);
    let claim = HttpClaim {
        domains: vec!["x.test".into()],
        locations: vec![String::new()],
        route_by_http_user: "carol".into(),
        ..HttpClaim::default()
    };
    proxy.sealed = Some(world.seals.seal("a", "for-carol", &claim));
    (proxy.name, proxy.kind, proxy.port) = ("for-carol".into(), ProxyKind::Tcp, Some(7001));
    world.put("a", proxy.clone());
    assert_eq!(world.settled("x.test").first().map(String::as_str), Some(": for-carol / "));

    // The same seal under another name, or on another frps, opens nothing.
    proxy.name = "stolen".into();
    world.put("a", proxy.clone());
    proxy.name = "for-carol".into();
    world.put("b", proxy);
    let stolen = [world.tables["a"].get("stolen").unwrap(), world.tables["b"].get("for-carol").unwrap()];
    for tunnel in stolen {
        assert!(tunnel.way == Way::None && tunnel.fault.is_some(), "{tunnel:?}");
    }
}

#[test]
fn a_pool_selects_by_all_that_it_names() {
    let mut world = World::new(|_| {});
    let mut proxy = Proxy {
        name: "team-a.web".into(),
        user: "team-a".into(),
        domains: vec!["x.test".into()],
        ..Proxy::default()
    };
    proxy.metadatas.insert("gw_label_version".into(), "v2".into());
    world.put("a", proxy);
    let tunnel = world.tables["a"].get("team-a.web").unwrap();
    let all = model::TunnelSelector {
        domains: vec!["x.test".into()],
        users: vec![Pattern("team-*".into())],
        names: vec![Pattern("*.web".into())],
        labels: BTreeMap::from([("version".into(), "v2".into())]),
        frps: vec!["a".into()],
    };
    assert!(selects(&all, tunnel), "{tunnel:?}");
    for other in [
        model::TunnelSelector { domains: vec!["y.test".into()], ..all.clone() },
        model::TunnelSelector { users: vec![Pattern("bob".into())], ..all.clone() },
        model::TunnelSelector { names: vec![Pattern("web".into())], ..all.clone() },
        model::TunnelSelector { labels: BTreeMap::from([("version".into(), "v1".into())]), ..all.clone() },
        model::TunnelSelector { frps: vec!["b".into()], ..all.clone() },
    ] {
        assert!(!selects(&other, tunnel), "{other:?}");
    }
}

#[test]
fn tunnels_of_ports_are_filed_by_name_and_those_of_https_apart_from_http() {
    let mut world = World::new(|config| config.frps[0].vhost_https_port = Some(8443));
    let tcp = |port| Proxy {
        name: "alice.ssh".into(),
        kind: ProxyKind::Tcp,
        port: Some(port),
        started: "1".into(),
        ..Proxy::default()
    };
    assert_eq!(keys(&world.put("a", tcp(6000))), ["tcp alice.ssh"]);
    assert_eq!(keys(&world.put("b", tcp(6001))), ["tcp alice.ssh"]);
    assert_eq!(world.directory.claimants("tcp alice.ssh").len(), 2);
    let ports: Vec<_> = world
        .directory
        .claimants("tcp alice.ssh")
        .iter()
        .filter_map(|tunnel| Some(tunnel.way.registration()?.port))
        .collect();
    assert_eq!(ports, [6000, 6001]);
    let https = Proxy {
        name: "web".into(),
        kind: ProxyKind::Https,
        domains: vec!["app.test".into(), "*.wild.test".into()],
        locations: vec![String::new()],
        ..Proxy::default()
    };
    assert_eq!(keys(&world.put("a", https.clone())), ["tls .wild.test", "tls app.test"]);
    assert!(world.directory.claimants("app.test").is_empty(), "http is another matter");
    assert!(keys(&world.put("b", https)).is_empty(), "b has no vhost_https_port here");
    assert_eq!(keys(&world.remove("a", "alice.ssh")), ["tcp alice.ssh"]);
    for (key, carries) in [
        ("tls app.test", Carries::Tls),
        ("tcp x", Carries::Tcp),
        ("udp x", Carries::Udp),
        ("tcp", Carries::Http),
    ] {
        assert_eq!(carried_at(key), carries, "{key}");
    }
}

#[test]
fn a_domain_that_looks_like_another_kind_of_key_is_nobodys() {
    let mut world = World::new(|_| {});
    assert_eq!(keys(&world.vhost("a", "evil", 1, &["tls app.test", "tcp ssh", "ok.test"])), ["ok.test"]);
}

#[test]
fn a_port_outside_a_users_claims_is_not_served() {
    let mut world = World::new(|config| {
        config.claims.rules = vec![model::ClaimRule {
            users: vec![Pattern("alice".into())],
            frps: Vec::new(),
            token: None,
            refuse: None,
            domains: None,
            ports: Some(vec![(6000, 6010)]),
            max_weight: None,
            metadata: None,
        }];
    });
    let tcp = |name: &str, port| Proxy {
        name: name.into(),
        user: "alice".into(),
        kind: ProxyKind::Tcp,
        port: Some(port),
        ..Proxy::default()
    };
    assert_eq!(keys(&world.put("a", tcp("in", 6010))), ["tcp in"]);
    assert!(keys(&world.put("a", tcp("out", 6011))).is_empty());
    let fault = world.tables["a"].get("out").unwrap().fault.clone();
    assert_eq!(fault.as_deref(), Some("user \"alice\" may not claim port 6011, only 6000-6010"));
}
