use std::time::{Duration, SystemTime};

use frp_gateway_config::{
    model::{HostMatch, PathMatch, Pattern, TunnelSelector},
    secret::Secret,
};

use super::*;
use crate::{
    control::{
        compile::{CompileError, Compiled, Identities, compile},
        directory::{Judge, Table, Touched},
        testing::{config_with, frps_admin, pool, route},
    },
    frps::{BasicAuth, Proxy, ProxyKind, seal::Seals},
    snapshot::{Found, Route, Snapshot, router},
};

/// A fleet of `a` and `b` whose tunnels are served by themselves, and one listener.
struct World {
    config: Arc<Config>,
    seals: Seals,
    directory: Directory,
    tables: HashMap<&'static str, Table>,
    tunnels: TunnelIdentities,
    identities: Identities,
    snapshot: Snapshot,
    seconds: u64,
}

struct Ask {
    host: &'static str,
    path: &'static str,
    user: &'static str,
}

impl router::Request for Ask {
    fn host(&self) -> &str {
        self.host
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn query(&self) -> Option<&[u8]> {
        None
    }
    fn method(&self) -> &[u8] {
        b"GET"
    }
    fn any_header(&self, _: &[u8], _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
    fn is_basic_user(&self, user: &str) -> bool {
        self.user == user
    }
    fn client(&self) -> Option<&crate::tls::ClientIdentity> {
        None
    }
    fn is_https(&self) -> bool {
        false
    }
}

impl World {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let config = config_with(|config| {
            (config.tunnels.serve, config.routes) = (true, Vec::new());
            for frps in &mut config.frps {
                frps.admin = Some(frps_admin("http://127.0.0.1:7500"));
            }
            change(config);
        });
        let mut world = Self {
            config,
            seals: Seals::new(&Secret::new("k"), None),
            directory: Directory::default(),
            tables: HashMap::from([("a", Table::new_sync()), ("b", Table::new_sync())]),
            tunnels: TunnelIdentities::new(2),
            identities: Identities::new(2),
            snapshot: Snapshot::default(),
            seconds: 0,
        };
        world.compile().unwrap();
        world
    }

    fn compile(&mut self) -> Result<(), CompileError> {
        self.seconds += 1;
        let now = Tick::ZERO.saturating_add(Duration::from_secs(self.seconds));
        let fleet = Fleet { config: &self.config, directory: &self.directory, now };
        let Compiled { mut snapshot, identities, settlement } =
            compile(fleet, self.seconds, &mut self.tunnels, &self.identities)?;
        snapshot.tunnels = Arc::new(self.tunnels.all(fleet, Arc::new(Route::of_tunnels(None))));
        settlement.apply(now);
        (self.snapshot, self.identities) = (snapshot, identities);
        Ok(())
    }

    /// Puts a tunnel that was taken over in place; `call` tells its registrations apart.
    fn direct(
        &mut self,
        frps: &'static str,
        name: &str,
        call: &str,
        change: impl FnOnce(&mut HttpClaim, &mut Proxy),
    ) {
        let mut claim = HttpClaim {
            call: call.into(),
            domains: vec!["x.test".into()],
            locations: vec![String::new()],
            ..HttpClaim::default()
        };
        let mut proxy =
            Proxy { name: name.into(), kind: ProxyKind::Tcp, port: Some(7001), ..Proxy::default() };
        change(&mut claim, &mut proxy);
        proxy.sealed = Some(self.seals.seal(frps, name, &claim));
        self.put(frps, name, Some(proxy));
    }

    fn vhost(&mut self, frps: &'static str, name: &str, domain: &str) {
        let domains = vec![domain.to_owned()];
        let proxy = Proxy { name: name.into(), domains, locations: vec![String::new()], ..Proxy::default() };
        self.put(frps, name, Some(proxy));
    }

    fn put(&mut self, frps: &'static str, name: &str, proxy: Option<Proxy>) {
        let server = self.config.frps.iter().find(|server| server.name == frps).unwrap();
        let table = self.tables.get_mut(frps).unwrap();
        let now = SystemTime::UNIX_EPOCH;
        let judge = Judge { config: &self.config, seals: Some(&self.seals), frps: server, now };
        let new = proxy.map(|proxy| judge.tunnel(proxy, table.get(name).map(|tunnel| &**tunnel)));
        let mut touched = Touched::new();
        self.directory.replace(table, name, new, &mut touched);
        self.seconds += 1;
        let now = Tick::ZERO.saturating_add(Duration::from_secs(self.seconds));
        let fleet = Fleet { config: &self.config, directory: &self.directory, now };
        let mut tunnels = Tunnels::clone(&self.snapshot.tunnels);
        for key in touched {
            let host = self.tunnels.host(fleet, &key);
            tunnels.set(&key, host, now);
        }
        self.snapshot.tunnels = Arc::new(tunnels);
    }

    /// Name of the route, or labels of the members of the tunnels' pool.
    fn find(&self, host: &'static str, path: &'static str, user: &'static str) -> String {
        let router = &self.snapshot.listeners[0].as_ref().unwrap().router;
        match router.find(&self.snapshot.tunnels, &Ask { host, path, user }) {
            None => "nobody".into(),
            Some(Found::Route(route)) => route.name.to_string(),
            Some(Found::Tunnels(route)) => labels(&route.split.pool),
        }
    }

    fn pool(&self, host: &'static str) -> Arc<Pool> {
        let router = &self.snapshot.listeners[0].as_ref().unwrap().router;
        match router.find(&self.snapshot.tunnels, &Ask { host, path: "/", user: "" }) {
            Some(Found::Tunnels(route)) => Arc::clone(&route.split.pool),
            other => panic!("{other:?}"),
        }
    }
}

fn labels(pool: &Pool) -> String {
    pool.members.iter().map(|member| member.endpoint.label()).collect::<Vec<_>>().join(" ")
}

fn members(pool: &Pool) -> Vec<(&str, u32, u16)> {
    pool.members
        .iter()
        .map(|member| (member.endpoint.label(), member.weight, member.endpoint.id.port))
        .collect()
}

#[test]
fn each_tunnel_is_a_member_and_all_of_one_vhost_are_one() {
    let mut world = World::new(|config| config.frps[1].weight = 3);
    assert_eq!(world.find("x.test", "/", ""), "nobody");
    world.direct("a", "web", "1", |_, _| {});
    world.direct("a", "web2", "1", |_, proxy| {
        proxy.port = Some(7002);
        proxy.metadatas.insert("gw_weight".into(), "5".into());
    });
    world.vhost("b", "old", "x.test");
    world.vhost("b", "older", "x.test");
    let pool = world.pool("x.test");
    assert_eq!(members(&pool), [("a/web", 1, 7001), ("a/web2", 5, 7002), ("b", 6, 8002)]);
    assert!(pool.auto && pool.of_tunnels && &*pool.name == "auto:x.test");
    world.put("a", "web2", None);
    assert_eq!(world.find("x.test", "/", ""), "a/web b");
}

#[test]
fn a_route_of_the_file_wins_a_tie_and_what_is_more_specific_wins_otherwise() {
    let mut world = World::new(|config| {
        let mut api = route("api", "x.test", "shop");
        api.matches.path = PathMatch::Prefix("/api".into());
        let mut wild = route("wild", "y.test", "shop");
        wild.matches.hosts = vec![HostMatch::Wildcard("test".into())];
        let mut any = route("any", "z", "shop");
        any.matches.hosts.clear();
        let mut exact = route("exact", "x.test", "shop");
        exact.matches.path = PathMatch::Exact("/deep/er/one".into());
        config.routes = vec![api, wild, any, exact];
    });
    world.direct("a", "root", "1", |_, _| {});
    world.direct("a", "deep", "1", |claim, _| claim.locations = vec!["/deep/er".into(), "/api/".into()]);
    world.direct("a", "any", "1", |claim, _| claim.domains = vec!["*".into()]);
    assert_eq!(world.find("x.test", "/", ""), "a/root", "an exact host beats the wildcard");
    assert_eq!(world.find("x.test", "/api/1", ""), "api", "on a tie the file wins");
    assert_eq!(world.find("x.test", "/deep/er/two", ""), "a/deep", "the longer path");
    assert_eq!(world.find("x.test", "/deep/er/one", ""), "exact", "an exact path");
    assert_eq!(world.find("other.test", "/", ""), "wild");
    assert_eq!(world.find("nobody.example", "/", ""), "any", "on a tie, for every host too");
}

#[test]
fn wildcards_locations_and_users_match_as_in_frps() {
    let mut world = World::new(|_| {});
    let claim = |domain: &str, location: &str, user: &str| {
        let (domain, location, user) = (domain.to_owned(), location.to_owned(), user.to_owned());
        move |claim: &mut HttpClaim, _: &mut Proxy| {
            (claim.domains, claim.locations) = (vec![domain], vec![location]);
            claim.route_by_http_user = user;
        }
    };
    world.direct("a", "wild", "1", claim("*.w.test", "", ""));
    world.direct("a", "top", "1", claim("*.test", "", ""));
    world.direct("a", "only", "1", claim("x.w.test", "/only", ""));
    world.direct("a", "carol", "1", claim("x.w.test", "", "carol"));
    assert_eq!(world.find("a.b.w.test", "/", ""), "a/wild", "a wildcard spans labels");
    assert_eq!(world.find("w.test", "/", ""), "nobody", "never the bare name, and two labels try none");
    assert_eq!(world.find("x.w.test", "/onlyx", ""), "a/only", "a location is a plain prefix");
    assert_eq!(world.find("x.w.test", "/else", ""), "a/wild", "no location falls through to the wildcard");
    assert_eq!(world.find("x.w.test", "/only", "carol"), "a/carol", "those for the user go first");
    assert_eq!(world.find("x.w.test", "/else", "dave"), "a/wild");
}

#[test]
fn what_is_known_of_a_tunnel_survives_a_new_registration_but_no_connection_does() {
    let mut world = World::new(|_| {});
    world.direct("a", "web", "1", |_, _| {});
    world.direct("a", "twin", "1", |_, proxy| proxy.port = Some(7002));
    let before = world.pool("x.test");
    world.direct("a", "web", "2", |_, _| {});
    let after = world.pool("x.test");
    let web =
        |pool: &Pool| pool.members.iter().position(|member| member.endpoint.label() == "a/web").unwrap();
    let (old, new) = (&before.members[web(&before)], &after.members[web(&after)]);
    assert!(Arc::ptr_eq(&old.state, &new.state), "latency and verdicts stay");
    assert_eq!(old.key, new.key, "sessions stay");
    assert_ne!(old.endpoint.number, new.endpoint.number, "the same port, another registration");
    assert_eq!((before.slot, &before.name), (after.slot, &after.name));
    assert_ne!(before.revision, after.revision);
    let twin = |pool: &Pool| {
        pool.members.iter().find(|member| member.endpoint.label() == "a/twin").unwrap().endpoint.number
    };
    assert_eq!(twin(&before), twin(&after), "others don't notice");
    assert!(old.endpoint.is_gone(), "at once, for requests that hold the snapshot before");
    let fleet = Fleet { config: &world.config, directory: &world.directory, now: Tick::ZERO };
    world.tunnels.tidy(fleet);
    assert!(!new.endpoint.is_gone());
}

#[test]
fn a_pool_of_tunnels_follows_them_and_a_reload_changes_nothing_else() {
    let mut world = World::new(|config| {
        let mut shop = pool("v2", &[]);
        shop.tunnels = Some(TunnelSelector {
            domains: vec!["x.test".into()],
            users: vec![Pattern("*".into())],
            names: Vec::new(),
            labels: std::collections::BTreeMap::from([("version".into(), "v2".into())]),
            frps: Vec::new(),
        });
        config.pools = vec![shop];
        config.routes = vec![route("shop", "x.test", "v2")];
    });
    let version = |version: &str| {
        let version = version.to_owned();
        move |_: &mut HttpClaim, proxy: &mut Proxy| {
            proxy.metadatas.insert("gw_label_version".into(), version);
        }
    };
    world.direct("a", "one", "1", version("v1"));
    world.direct("a", "two", "1", version("v2"));
    world.direct("b", "two", "1", version("v2"));
    world.compile().unwrap();
    let pool = Arc::clone(&world.snapshot.pools[0]);
    assert_eq!(labels(&pool), "a/two b/two");
    assert!(pool.of_tunnels && !pool.auto);
    assert_eq!(world.find("x.test", "/", ""), "shop");
    world.compile().unwrap();
    assert_eq!(world.snapshot.pools[0].revision, pool.revision, "nothing has changed");
    assert!(Arc::ptr_eq(&world.snapshot.pools[0].members[0].state, &pool.members[0].state));
    world.put("b", "two", None);
    world.compile().unwrap();
    assert_eq!(labels(&world.snapshot.pools[0]), "a/two");
}

#[test]
fn slots_of_hosts_that_are_gone_are_used_again_and_nothing_piles_up() {
    let mut world = World::new(|_| {});
    for round in 0..50 {
        let call = round.to_string();
        for name in ["one", "two", "three"] {
            world.direct("a", name, &call, |claim, _| claim.domains = vec![format!("{name}.test")]);
        }
        for name in ["one", "two", "three"] {
            world.put("a", name, None);
        }
        let fleet =
            Fleet { config: &world.config, directory: &world.directory, now: Tick::from_nanos(round + 1) };
        world.tunnels.tidy(fleet);
    }
    assert!(world.tunnels.slots <= 3, "{} slots", world.tunnels.slots);
    assert!(world.tunnels.endpoints.is_empty() && world.tunnels.pools.is_empty());
    assert!(world.snapshot.tunnels.is_empty());
    let much_later = Tick::ZERO.saturating_add(REMEMBERED * 3);
    let fleet = Fleet { config: &world.config, directory: &world.directory, now: much_later };
    world.tunnels.tidy(fleet);
    assert!(world.tunnels.lasting.is_empty());
}

#[test]
fn pools_of_vhost_ports_prefer_every_server_that_has_the_host_whoever_claims_it() {
    let mut world = World::new(|config| config.tunnels.serve = false);
    for (frps, user) in [("a", "alice"), ("b", "bob")] {
        let proxy = Proxy {
            name: format!("{user}.web"),
            user: user.into(),
            domains: vec!["x.test".into()],
            locations: vec![String::new()],
            ..Proxy::default()
        };
        world.put(frps, &proxy.name.clone(), Some(proxy));
    }
    let mut holders = Vec::new();
    world.snapshot.tunnels.holders("x.test", b"/", |frps| holders.push(frps));
    assert_eq!(holders, [0, 1]);
}

#[test]
fn a_guarded_tunnel_makes_its_pool_guarded() {
    let mut world = World::new(|_| {});
    world.direct("a", "web", "1", |claim, _| claim.auth = Some(BasicAuth::of("s", "carol", "pw")));
    let pool = world.pool("x.test");
    assert!(pool.guarded && pool.members[0].auth().is_some_and(|auth| auth.matches(b"carol:pw")));
}

#[test]
fn two_tunnels_of_one_name_hash_apart_and_one_alone_wherever_it_is() {
    let mut world = World::new(|config| config.tunnels.pool.balance = model::Balance::Maglev);
    world.direct("a", "web", "1", |_, _| {});
    let here = world.pool("x.test").members[0].key;
    world.put("a", "web", None);
    world.direct("b", "web", "1", |_, _| {});
    let there = world.pool("x.test").members[0].key;
    assert_eq!(here >> 32, there >> 32, "known again on another frps");
    assert_ne!(here, there);
}
