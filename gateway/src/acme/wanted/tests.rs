use std::time::{Duration, SystemTime};

use frp_gateway_config::model::{Acme, Challenge, ListenerTls, OnDemand, Protocol, TlsVersion, UnknownName};

use super::*;
use crate::{
    control::{
        directory::{Judge, Table, Touched},
        testing::{config_with, frps_admin, listener, route},
    },
    frps::Proxy,
};

fn acme() -> Acme {
    Acme {
        directory: "https://acme.test/dir".into(),
        trust: None,
        email: None,
        storage: "/nowhere".into(),
        challenges: vec![Challenge::Http01],
        names: vec!["named.test".into(), "both.test".into(), "10.0.0.1".into()],
        on_demand: OnDemand { routes: true, tunnels: true },
        per_user: 50,
        external_account: None,
        profile: None,
        from: Vec::new(),
    }
}

fn config(change: impl FnOnce(&mut Config)) -> Arc<Config> {
    config_with(|config| {
        config.frps[0].admin = Some(frps_admin("http://127.0.0.1:7500"));
        config.tunnels.serve = true;
        config.acme = Some(acme());
        let mut secure = listener("secure");
        secure.protocol = Protocol::Https;
        secure.tls = Some(ListenerTls {
            certificates: Vec::new(),
            acme: true,
            min_version: TlsVersion::V1_2,
            session_tickets: true,
            unknown_name: UnknownName::First,
            client_auth: None,
        });
        config.listeners.push(secure);
        change(config);
    })
}

/// Tunnels `USER.NAME` with what they claim.
fn directory(config: &Config, tunnels: &[(&str, &[&str])]) -> Directory {
    let (mut directory, mut table, mut touched) = (Directory::default(), Table::new_sync(), Touched::new());
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
    let judge = Judge { config, seals: None, frps: &config.frps[0], now };
    for (started, (name, domains)) in tunnels.iter().enumerate() {
        let proxy = Proxy {
            name: (*name).into(),
            user: name.split_once('.').map_or("", |(user, _)| user).into(),
            domains: domains.iter().map(ToString::to_string).collect(),
            locations: vec![String::new()],
            started: started.to_string(),
            ..Proxy::default()
        };
        let tunnel = judge.tunnel(proxy, None);
        directory.replace(&mut table, name, Some(tunnel), &mut touched);
    }
    directory
}

fn found(config: &Config, tunnels: &[(&str, &[&str])]) -> Vec<(String, Claim)> {
    let all = wanted(config, &directory(config, tunnels));
    let mut all: Vec<_> = all.into_iter().map(|(name, claim)| (name.to_string(), claim)).collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

#[test]
fn names_of_the_operator_come_first_then_routes_then_tunnels() {
    let config = config(|config| {
        config.routes.push(route("both", "both.test", "shop"));
    });
    let all =
        found(&config, &[("alice.web", &["a.test", "both.test", "shop.test"]), ("bob.web", &["b.test"])]);
    let expected = [
        ("a.test", Claim::Tunnel("alice".into())),
        ("b.test", Claim::Tunnel("bob".into())),
        ("both.test", Claim::Named),
        ("named.test", Claim::Named),
        ("shop.test", Claim::Route),
    ];
    assert_eq!(all, expected.map(|(name, claim)| (name.to_owned(), claim)), "no address among them");
}

#[test]
fn wildcards_addresses_and_names_without_a_dot_get_none_whoever_claims_them() {
    let config = config(|config| {
        config.acme.as_mut().unwrap().names.clear();
        config.routes.clear();
        let mut below = route("below", "x.test", "shop");
        below.matches.hosts = vec![HostMatch::Wildcard("x.test".into()), HostMatch::Exact("10.0.0.1".into())];
        config.routes.push(below);
    });
    let all = found(&config, &[("alice.web", &["*.a.test", "localhost", "127.0.0.1", "a_b.test"])]);
    assert_eq!(all, []);
}

#[test]
fn a_host_that_two_users_claim_is_of_the_one_who_serves_it() {
    let config = config(|config| config.acme.as_mut().unwrap().names.clear());
    let all = found(&config, &[("alice.web", &["a.test"]), ("bob.web", &["a.test"])]);
    assert!(all.contains(&("a.test".into(), Claim::Tunnel("alice".into()))), "{all:?}");
}

#[test]
fn what_on_demand_leaves_out_or_no_such_listener_serves_gets_none() {
    let none = |config: &mut Config| {
        config.acme.as_mut().unwrap().on_demand = OnDemand { routes: false, tunnels: false };
    };
    let names = |all: Vec<(String, Claim)>| all.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let tunnels: &[(&str, &[&str])] = &[("alice.web", &["a.test"])];
    assert_eq!(names(found(&config(none), tunnels)), ["both.test", "named.test"]);
    let elsewhere = config(|config| config.routes[0].listeners = vec!["web".into()]);
    assert_eq!(names(found(&elsewhere, tunnels)), ["a.test", "both.test", "named.test"]);
    let unserved = config(|config| config.tunnels.serve = false);
    assert_eq!(names(found(&unserved, tunnels)), ["both.test", "named.test", "shop.test"]);
    let off = config(|config| config.acme = None);
    assert_eq!(found(&off, tunnels), []);
}
