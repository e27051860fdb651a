//! Lists of events, replayed.

use std::time::{Duration, SystemTime};

use frp_gateway_config::model::{AccessLog, AdaptiveLimit, Outlier, Protocol};
use lb_algos::Tick;

use super::*;
use crate::{
    control::{
        compile::{Fleet, TunnelIdentities},
        event::Known,
        state::Fixed,
        testing::{config_with, frps, frps_admin, health, listener, outlier, pool},
    },
    frps::{Listing, Proxy},
    snapshot::Route,
};

/// A control plane without hands: effects are only collected.
struct Replay {
    state: State,
    seconds: u64,
}

impl Replay {
    fn new() -> Self {
        let fixed = Fixed { workers: 2, admin: "127.0.0.1:9900".parse().unwrap(), started: Tick::ZERO };
        Self { state: State::new(fixed), seconds: 0 }
    }

    /// One event per second.
    fn event(&mut self, event: Event) -> Vec<Effect> {
        self.seconds += 1;
        let step = reduce(&self.state, event, self.now());
        self.state = step.state;
        step.effects
    }

    fn now(&self) -> Now {
        let since = Duration::from_secs(self.seconds);
        Now { tick: Tick::ZERO.saturating_add(since), wall: SystemTime::UNIX_EPOCH + since }
    }

    fn load(&mut self, change: impl FnOnce(&mut Config)) -> Vec<Effect> {
        self.event(Event::ConfigLoaded { config: config_with(change) })
    }

    fn listed(&mut self, domains: &[&str]) -> Vec<Effect> {
        let proxy = |domain: &&str| Proxy {
            name: (*domain).into(),
            domains: vec![(*domain).into()],
            locations: vec![String::new()],
            ..Proxy::default()
        };
        let listing = Listing { proxies: domains.iter().map(proxy).collect(), subdomain_host: None };
        let server = self.state.frps["a"].server.clone();
        self.event(Event::FrpsListed { frps: "a".into(), server, listing, begun: Tick::ZERO })
    }

    fn silent(&mut self) -> Vec<Effect> {
        let server = self.state.frps["a"].server.clone();
        self.event(Event::FrpsUnreachable { frps: "a".into(), server, reason: "refused".into() })
    }
}

fn with_admin(config: &mut Config) {
    config.frps[0].admin = Some(frps_admin("http://127.0.0.1:7500"));
}

/// The word of each effect, with what it is about.
fn words(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Bind { listener, key, .. } => format!("bind {listener} ({key})"),
            Effect::SwitchAccessLog(to) => format!("access log {to:?}"),
            Effect::SwitchAudit(to) => format!("audit {to:?}"),
            Effect::Publish => "publish".into(),
            Effect::PublishTunnels(hosts) => {
                format!("publish {}", hosts.iter().map(|host| &**host).collect::<Vec<_>>().join(" "))
            }
            Effect::Look { names, claimed, .. } => format!("look at {} ({claimed})", names.join(" ")),
            Effect::Close { listener } => format!("close {listener}"),
            Effect::StopPoller { frps } => format!("stop poller {frps}"),
            Effect::StartPoller { frps, .. } => format!("start poller {frps}"),
            Effect::StopProbe(key) => format!("stop probe {}/{}", key.pool, key.endpoint.frps),
            Effect::StartProbe(key, _, _) => format!("start probe {}/{}", key.pool, key.endpoint.frps),
            Effect::StopWatch { pool } => format!("stop watch {pool}"),
            Effect::StartWatch { pool } => format!("start watch {pool}"),
            Effect::StartMigration { frps } => format!("empty {frps}"),
            Effect::StopMigration { frps } => format!("use {frps} again"),
            Effect::Log(notice) => {
                let debug = format!("{notice:?}");
                format!("log {}", debug.split([' ', '{']).next().unwrap_or_default())
            }
        })
        .collect()
}

#[test]
fn the_first_configuration_binds_then_publishes_then_asks() {
    let effects = Replay::new().load(|config| {
        with_admin(config);
        config.pools[0].health = Some(health());
    });
    assert_eq!(
        words(&effects),
        [
            "bind web (listeners[0].bind)",
            "access log Off",
            "publish",
            "start poller a",
            "start probe shop/a",
            "start probe shop/b",
        ]
    );
}

#[test]
fn an_equal_configuration_is_a_success_that_changes_nothing() {
    let mut replay = Replay::new();
    replay.load(|_| {});
    assert_eq!(words(&replay.load(|_| {})), ["log NothingChanged"]);
    assert_eq!(replay.state.generation, 1);
    assert_eq!((replay.state.reloads.changed, replay.state.reloads.unchanged), (1, 1));
}

#[test]
fn a_refused_configuration_leaves_the_old_one_and_its_listings_until_a_good_one_comes() {
    let mut replay = Replay::new();
    replay.load(with_admin);
    replay.listed(&["x.test"]);
    let faults = vec![Fault::plain("bind", "listeners[0].bind", "taken")];
    assert_eq!(words(&replay.event(Event::ConfigRefused { faults })), ["log Refused"]);
    assert_eq!((replay.state.generation, replay.state.reloads.failed), (1, 1));
    assert_eq!(replay.state.reloads.faults.len(), 1, "shown in the API");
    assert_eq!(replay.state.frps["a"].tunnels(), 1);
    replay.load(with_admin);
    assert!(replay.state.reloads.faults.is_empty(), "a good one clears it, even if nothing changed");
}

#[test]
fn only_what_changed_is_touched() {
    let mut replay = Replay::new();
    replay.load(|config| {
        with_admin(config);
        config.pools[0].health = Some(health());
    });
    let effects = replay.load(|config| {
        with_admin(config);
        config.pools[0].health = Some(health());
        config.listeners.push(listener("second"));
        config.access_log = AccessLog::Stdout;
    });
    assert_eq!(
        words(&effects),
        ["bind second (listeners[1].bind)", "access log Stdout", "publish", "log Reloaded"]
    );
    let effects = replay.load(|config| {
        config.listeners = vec![listener("second")];
        config.access_log = AccessLog::Stdout;
        config.pools[0].health = Some(Health { fall: 9, ..health() });
        config.pools[0].frps.pop();
    });
    assert_eq!(
        words(&effects),
        [
            "publish",
            "close web",
            "stop poller a",
            "stop probe shop/a",
            "stop probe shop/b",
            "start probe shop/a",
            "log Reloaded",
        ]
    );
}

#[test]
fn a_pool_that_speaks_another_protocol_is_probed_in_it() {
    let mut replay = Replay::new();
    let with = |protocol| {
        move |config: &mut Config| {
            config.pools[0].health = Some(health());
            config.pools[0].protocol = protocol;
        }
    };
    let started = |effects: &[Effect]| -> Vec<_> {
        let asks = |effect: &Effect| match effect {
            Effect::StartProbe(key, h2c, _) => Some((key.endpoint.frps.to_string(), *h2c)),
            _ => None,
        };
        effects.iter().filter_map(asks).collect()
    };
    let both = |h2c| vec![("a".to_owned(), h2c), ("b".to_owned(), h2c)];
    assert_eq!(started(&replay.load(with(PoolProtocol::H1))), both(false));
    let effects = replay.load(with(PoolProtocol::H2c));
    assert_eq!(started(&effects), both(true));
    assert!(words(&effects).contains(&"stop probe shop/a".to_owned()), "{:?}", words(&effects));
}

#[test]
fn a_moved_listener_is_bound_before_anything_is_given_up() {
    let mut replay = Replay::new();
    replay.load(|_| {});
    let effects = replay.load(|config| config.listeners[0].bind = "127.0.0.1:8081".parse().unwrap());
    assert_eq!(words(&effects), ["bind web (listeners[0].bind)", "publish", "log Reloaded"]);
}

#[test]
fn a_listener_that_turns_to_datagrams_is_bound_anew_at_the_same_address() {
    let mut replay = Replay::new();
    replay.load(|config| config.listeners[0].protocol = Protocol::Tcp);
    let effects = replay.load(|config| config.listeners[0].protocol = Protocol::Udp);
    assert_eq!(words(&effects), ["bind web (listeners[0].bind)", "publish", "log Reloaded"]);
    let effects = replay.load(|config| config.listeners[0].protocol = Protocol::Tcp);
    assert_eq!(words(&effects), ["bind web (listeners[0].bind)", "publish", "log Reloaded"]);
    let effects = replay.load(|config| config.listeners[0].protocol = Protocol::Http);
    assert_eq!(words(&effects), ["publish", "log Reloaded"], "the same sockets");
}

#[test]
fn what_can_fail_comes_before_what_takes_effect() {
    let mut replay = Replay::new();
    replay.load(with_admin);
    let effects = replay.load(|config| {
        config.listeners = vec![listener("x"), listener("y")];
        config.access_log = AccessLog::Stdout;
    });
    let can_fail = |effect: &Effect| {
        matches!(effect, Effect::Bind { .. } | Effect::SwitchAccessLog(_) | Effect::SwitchAudit(_))
    };
    let first_sure = effects.iter().position(|effect| !can_fail(effect)).unwrap();
    assert!(!effects[first_sure..].iter().any(can_fail), "{:?}", words(&effects));
}

#[test]
fn a_watch_lives_as_long_as_its_pool_has_rules_or_an_adaptive_limit() {
    let watched = |config: &mut Config| config.pools[0].outlier = Some(outlier());
    let mut replay = Replay::new();
    let effects = replay.load(|_| {});
    assert!(!words(&effects).iter().any(|word| word.contains("watch")), "{:?}", words(&effects));
    let watches = |effects: Vec<Effect>| -> Vec<String> {
        words(&effects).into_iter().filter(|word| word.contains("watch")).collect()
    };
    assert_eq!(watches(replay.load(watched)), ["start watch shop"]);
    let changed = replay.load(|config| {
        watched(config);
        config.pools[0].outlier = Some(Outlier { consecutive_failures: 99, ..outlier() });
        config.pools[0].frps.reverse();
    });
    assert_eq!(watches(changed), [] as [&str; 0], "rules and members are read from the snapshot");
    let other =
        |config: &mut Config| config.pools[0].limits.adaptive = Some(AdaptiveLimit { min: 1, max: 9 });
    assert_eq!(watches(replay.load(other)), [] as [&str; 0], "the same watch does both");
    assert_eq!(watches(replay.load(|_| {})), ["stop watch shop"]);
    replay.load(watched);
    assert_eq!(watches(replay.load(|config| config.pools[0].name = "new".into())), ["stop watch shop"]);
}

#[test]
fn keys_that_are_read_at_start_only_ask_for_a_restart() {
    let mut replay = Replay::new();
    replay.load(|_| {});
    let effects = replay.load(|config| {
        config.runtime.workers = 8;
        config.admin.listen = "127.0.0.1:9901".parse().unwrap();
    });
    assert_eq!(words(&effects), ["publish", "log NeedsRestart", "log NeedsRestart", "log Reloaded"]);
}

#[test]
fn only_hosts_whose_tunnels_changed_are_published() {
    let mut replay = Replay::new();
    replay.load(with_admin);
    assert_eq!(words(&replay.listed(&["x.test"])), ["publish x.test", "log Tunnel", "log FrpsAnswers"]);
    assert_eq!(words(&replay.listed(&["x.test"])), [] as [&str; 0]);
    assert_eq!(words(&replay.listed(&["x.test", "y.test"])), ["publish y.test", "log Tunnel"]);
}

#[test]
fn a_silent_frps_keeps_its_listing_and_is_told_once_per_change() {
    let mut replay = Replay::new();
    replay.load(with_admin);
    replay.listed(&["x.test"]);
    assert_eq!(words(&replay.silent()), ["log FrpsSilent"]);
    assert_eq!(words(&replay.silent()), [] as [&str; 0]);
    let frps = &replay.state.frps["a"];
    assert!(frps.is_stale() && frps.tunnels() == 1, "{frps:?}");
    assert_eq!(words(&replay.listed(&["x.test"])), ["log FrpsAnswers"], "back, nothing new");
    assert!(!replay.state.frps["a"].is_stale());
}

#[test]
fn what_another_process_knew_of_an_frps_counts_until_that_one_answers() {
    let remembered = |replay: &mut Replay, domain: &str| {
        let proxy = Proxy { name: domain.into(), domains: vec![domain.into()], ..Proxy::default() };
        let listing = Listing { proxies: vec![proxy], subdomain_host: Some("sub.test".into()) };
        let server = replay.state.frps["a"].server.clone();
        let known = Known { frps: "a".into(), server, listing, calls_us: true, doubted: false };
        words(&replay.event(Event::FrpsRemembered(known)))
    };
    let mut replay = Replay::new();
    replay.load(with_admin);
    replay.silent();
    assert_eq!(remembered(&mut replay, "old.test"), ["publish old.test", "log Tunnel", "log FrpsSilent"]);
    let frps = &replay.state.frps["a"];
    assert!(frps.is_stale() && frps.listed && frps.tunnels() == 1, "{frps:?}");
    assert_eq!(frps.subdomain_host.as_deref(), Some("sub.test"));
    assert_eq!(remembered(&mut replay, "other.test"), [] as [&str; 0], "once");
    let told = words(&replay.listed(&["new.test"]));
    assert_eq!(told.last().map(String::as_str), Some("log FrpsAnswers"), "{told:?}");
    let frps = &replay.state.frps["a"];
    assert!(!frps.is_stale() && frps.table.contains_key("new.test") && frps.tunnels() == 1, "{frps:?}");
    assert_eq!(remembered(&mut replay, "old.test"), [] as [&str; 0], "it knows better itself");
}

#[test]
fn a_listing_survives_a_reload_but_not_a_change_of_server() {
    let mut replay = Replay::new();
    replay.load(with_admin);
    replay.listed(&["x.test"]);
    let old_server = replay.state.frps["a"].server.clone();
    replay.load(|config| {
        with_admin(config);
        config.pools.push(pool("more", &[("a", 1)]));
    });
    assert_eq!(replay.state.frps["a"].tunnels(), 1);
    replay.load(|config| {
        with_admin(config);
        config.frps[0].host = "10.0.0.9".into();
    });
    assert_eq!(replay.state.frps["a"].tunnels(), 0, "another host, another server");
    let late =
        Listing { proxies: vec![Proxy { name: "p".into(), ..Proxy::default() }], subdomain_host: None };
    replay.event(Event::FrpsListed {
        frps: "a".into(),
        server: old_server,
        listing: late,
        begun: Tick::ZERO,
    });
    assert_eq!(replay.state.frps["a"].tunnels(), 0, "the old server's last word is not the new one's");
}

#[test]
fn holders_follow_their_frps_to_its_new_position() {
    let mut replay = Replay::new();
    replay.load(with_admin);
    replay.listed(&["x.test"]);
    replay.load(|config| {
        with_admin(config);
        config.frps.insert(0, frps("first", 8000));
    });
    let config = replay.state.config.clone().unwrap();
    let fleet = Fleet { config: &config, directory: &replay.state.directory, now: Tick::ZERO };
    let tunnels = TunnelIdentities::new(1).all(fleet, Arc::new(Route::of_tunnels(None)));
    let mut holders = Vec::new();
    tunnels.holders("x.test", b"/", |frps| holders.push(frps));
    assert_eq!(holders, [1]);
}

#[test]
fn readiness_waits_for_every_first_listing_or_five_seconds_and_ends_with_a_drain() {
    let mut replay = Replay::new();
    let at = |seconds| Tick::ZERO.saturating_add(Duration::from_secs(seconds));
    assert!(replay.state.readiness(at(99)).is_err(), "no configuration, no visitors");
    replay.load(with_admin);
    let reason = replay.state.readiness(at(4)).unwrap_err();
    assert!(reason.contains("listing of a"), "{reason}");
    assert_eq!(replay.state.readiness(at(5)), Ok(()), "a dead admin API holds nobody up for long");
    replay.listed(&[]);
    assert_eq!(replay.state.readiness(at(2)), Ok(()));
    replay.event(Event::DrainBegan);
    assert!(replay.state.readiness(at(99)).is_err());
}

#[test]
fn an_frps_is_drained_by_file_or_command_and_each_ends_by_itself() {
    let mut replay = Replay::new();
    replay.load(|_| {});
    let asked = |on| Event::DrainAsked { frps: "a".into(), on };
    let moves = |effects: &[Effect]| {
        let words = words(effects);
        words
            .into_iter()
            .filter(|word| word.starts_with("empty") || word.starts_with("use"))
            .collect::<Vec<_>>()
    };
    let drained = |replay: &Replay| replay.state.config.as_ref().unwrap().frps[0].drain;
    assert_eq!(moves(&replay.event(asked(true))), ["empty a"]);
    assert!(drained(&replay));
    assert!(moves(&replay.event(asked(true))).is_empty(), "twice is once");
    assert!(
        moves(&replay.load(|config| config.frps[1].weight = 7)).is_empty(),
        "a reload forgets no command"
    );
    assert!(drained(&replay));
    assert!(moves(&replay.load(|config| config.frps[0].drain = true)).is_empty(), "the file says so too");
    assert!(moves(&replay.event(asked(false))).is_empty(), "the file still says so");
    assert!(drained(&replay));
    assert_eq!(moves(&replay.load(|_| {})), ["use a again"]);
    assert!(!drained(&replay));
}
