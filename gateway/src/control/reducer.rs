//! (state, event) → next state and effects. Pure: no I/O, no clock, no tokio; a test replays lists of events.

mod drains;
mod tunnels;

use std::{collections::BTreeMap, sync::Arc};

use frp_gateway_config::model::{AccessLog, Config, FrpsAdmin, Health, Listener, Pool, PoolProtocol};

use self::tunnels::Seen;
use super::{
    effect::{Effect, Notice, ProbeKey},
    event::Event,
    state::{Claimed, Fault, FrpsState, Now, Reloads, ServerKey, State},
};
use crate::{data::sockets::Kind, frps::seal::Seals, snapshot::EndpointId};

/// What comes of an event.
#[derive(Debug)]
pub struct Step {
    /// The next state; in force only if the effects that can fail don't.
    pub state: State,
    /// To be run in order.
    pub effects: Vec<Effect>,
}

/// Applies one event.
#[must_use]
pub fn reduce(state: &State, event: Event, now: Now) -> Step {
    match event {
        Event::ConfigLoaded { config } => {
            let mut state = state.clone();
            let drained = config.frps.iter().filter(|frps| frps.drain);
            state.file_drains = drained.map(|frps| frps.name.clone()).collect();
            let config = drains::overlay(&state, config);
            config_loaded(&state, config, now)
        }
        Event::DrainAsked { frps, on } => {
            let state = drains::asked(state, frps, on);
            match &state.config {
                Some(config) => config_loaded(&state, drains::overlay(&state, Arc::clone(config)), now),
                None => Step { state, effects: Vec::new() },
            }
        }
        Event::ConfigRefused { faults } => config_refused(state, faults, now),
        Event::FrpsListed { frps, server, listing, begun: _ } => {
            tunnels::listed(state, &frps, &server, listing, now)
        }
        Event::FrpsRemembered(known) => tunnels::remembered(state, known, now),
        Event::FrpsUnreachable { frps, server, reason } => frps_unreachable(state, &frps, &server, reason),
        Event::TunnelsSeen { frps, server, online, gone, lapsed } => {
            tunnels::seen(state, &frps, &server, Seen { online, gone, lapsed }, now)
        }
        Event::TunnelClaimed { frps, name, user, kind, domains, taken_over, by_agent: _ } => {
            let claimed = Claimed { user, kind, domains, taken_over, at: now.wall };
            tunnels::claimed(state, frps, name, claimed)
        }
        Event::TunnelClosing { frps, name, by_agent: _ } => tunnels::closing(state, frps, name),
        Event::DrainBegan => Step { state: State { draining: true, ..state.clone() }, effects: Vec::new() },
    }
}

fn config_loaded(old: &State, config: Arc<Config>, now: Now) -> Step {
    let mut reloads = Reloads {
        last_success: Some(now.wall),
        last_try: Some(now.wall),
        faults: Vec::new(),
        ..old.reloads.clone()
    };
    if old.config.as_ref() == Some(&config) {
        reloads.unchanged += 1;
        return Step {
            state: State { reloads, ..old.clone() },
            effects: vec![Effect::Log(Notice::NothingChanged)],
        };
    }
    reloads.changed += 1;
    let generation = old.generation + 1;
    let before = old.config.as_deref();
    let (mut effects, closed) = listeners(before, &config);
    if before.is_none_or(|before| before.access_log != config.access_log) {
        effects.push(Effect::SwitchAccessLog(config.access_log.clone()));
    }
    if before.map_or(&AccessLog::Off, |before| &before.audit) != &config.audit {
        effects.push(Effect::SwitchAudit(config.audit.clone()));
    }
    effects.push(Effect::Publish);
    effects.extend(closed.iter().map(|name| Effect::Close { listener: name.clone() }));
    effects.extend(pollers(before, &config));
    effects.extend(probes(before, &config));
    effects.extend(watches(before, &config));
    effects.extend(drains::migrations(before, &config));
    effects.extend(needs_restart(old, &config).map(Effect::Log));
    if let Some(before) = before {
        let changes = Box::new(frp_gateway_config::diff(before, &config));
        effects.push(Effect::Log(Notice::Reloaded { generation, changes }));
    }
    let mut addresses = old.addresses.clone();
    addresses.retain(|name, _| config.listeners.iter().any(|listener| listener.name == *name));
    let mut state = State { generation, addresses, reloads, frps: frps_states(old, &config), ..old.clone() };
    if before.is_none_or(|before| before.plugin != config.plugin) {
        state.seals =
            config.plugin.as_ref().map(|plugin| Arc::new(Seals::new(&plugin.key, plugin.old_key.as_ref())));
    }
    state.config = Some(config);
    tunnels::judge_all(&mut state, now);
    Step { state, effects }
}

/// Binds for new and moved listeners; names of those that are gone.
fn listeners(before: Option<&Config>, config: &Config) -> (Vec<Effect>, Vec<String>) {
    let old = before.map_or(&[][..], |before| &before.listeners);
    let binds = config
        .listeners
        .iter()
        .enumerate()
        .filter(|(_, new)| config.has_own_sockets(new))
        .filter(|(_, new)| {
            !old.iter().any(|old| {
                before.is_some_and(|before| before.has_own_sockets(old))
                    && old.name == new.name
                    && old.bind == new.bind
                    && Kind::of(old.protocol) == Kind::of(new.protocol)
            })
        })
        .map(|(index, new)| Effect::Bind {
            listener: new.name.clone(),
            address: new.bind,
            kind: Kind::of(new.protocol),
            key: format!("listeners[{index}].bind"),
        })
        .collect();
    let stays = |old: &Listener| {
        config.listeners.iter().any(|new| new.name == old.name && config.has_own_sockets(new))
            || before.is_some_and(|before| !before.has_own_sockets(old))
                && config.listeners.iter().any(|new| new.name == old.name)
    };
    let gone = old.iter().filter(|old| !stays(old));
    (binds, gone.map(|old| old.name.clone()).collect())
}

fn pollers(before: Option<&Config>, config: &Config) -> impl Iterator<Item = Effect> + use<> {
    let wanted = |config: &Config| -> BTreeMap<String, (ServerKey, FrpsAdmin)> {
        let with_admin = config.frps.iter().filter_map(|frps| Some((frps, frps.admin.clone()?)));
        with_admin.map(|(frps, admin)| (frps.name.clone(), (ServerKey::new(frps, &admin), admin))).collect()
    };
    let (stop, start) = difference(&before.map(wanted).unwrap_or_default(), wanted(config));
    stop.into_iter()
        .map(|frps| Effect::StopPoller { frps })
        .chain(start.into_iter().map(|(frps, (server, admin))| Effect::StartPoller { frps, server, admin }))
}

fn probes(before: Option<&Config>, config: &Config) -> impl Iterator<Item = Effect> + use<> {
    let (stop, start) = difference(&before.map(wanted_probes).unwrap_or_default(), wanted_probes(config));
    stop.into_iter()
        .map(Effect::StopProbe)
        .chain(start.into_iter().map(|(key, (h2c, health))| Effect::StartProbe(key, h2c, health)))
}

/// What is asked, and whether in HTTP/2.
fn wanted_probes(config: &Config) -> BTreeMap<ProbeKey, (bool, Health)> {
    let mut wanted = BTreeMap::new();
    for pool in &config.pools {
        let Some(health) = &pool.health else { continue };
        for member in &pool.frps {
            if let Some(frps) = config.frps.iter().find(|frps| frps.name == member.frps)
                && let Some(endpoint) = EndpointId::of(frps, pool.carries, member.port)
            {
                let endpoint = endpoint.spoken_to_by(pool);
                let h2c = pool.protocol == PoolProtocol::H2c;
                wanted.insert(ProbeKey { pool: pool.name.clone(), endpoint }, (h2c, health.clone()));
            }
        }
    }
    wanted
}

fn watches(before: Option<&Config>, config: &Config) -> impl Iterator<Item = Effect> + use<> {
    let wanted = |config: &Config| -> BTreeMap<String, ()> {
        let watched = |pool: &&Pool| pool.outlier.is_some() || pool.limits.adaptive.is_some();
        config.pools.iter().filter(watched).map(|pool| (pool.name.clone(), ())).collect()
    };
    let (stop, start) = difference(&before.map(wanted).unwrap_or_default(), wanted(config));
    stop.into_iter()
        .map(|pool| Effect::StopWatch { pool })
        .chain(start.into_iter().map(|(pool, ())| Effect::StartWatch { pool }))
}

/// Keys to stop (gone or changed), then entries to start (new or changed).
fn difference<K: Ord + Clone, V: PartialEq>(
    old: &BTreeMap<K, V>,
    new: BTreeMap<K, V>,
) -> (Vec<K>, Vec<(K, V)>) {
    let stop =
        old.iter().filter(|(key, value)| new.get(key) != Some(value)).map(|(key, _)| key.clone()).collect();
    let start = new.into_iter().filter(|(key, value)| old.get(key) != Some(value)).collect();
    (stop, start)
}

fn needs_restart(old: &State, config: &Config) -> impl Iterator<Item = Notice> + use<> {
    let (workers, admin) = (config.runtime.workers, config.admin.listen);
    let workers = (workers != old.fixed.workers).then(|| Notice::NeedsRestart {
        key: "runtime.workers",
        running: old.fixed.workers.to_string(),
        configured: workers.to_string(),
    });
    let admin = (admin != old.fixed.admin).then(|| Notice::NeedsRestart {
        key: "admin.listen",
        running: old.fixed.admin.to_string(),
        configured: admin.to_string(),
    });
    workers.into_iter().chain(admin)
}

/// Listings survive as long as they belong to the same server.
fn frps_states(old: &State, config: &Config) -> BTreeMap<String, FrpsState> {
    let with_admin = config.frps.iter().filter_map(|frps| Some((frps, frps.admin.as_ref()?)));
    with_admin
        .map(|(frps, admin)| {
            let server = ServerKey::new(frps, admin);
            let known = old.frps.get(&frps.name).filter(|known| known.server == server).cloned();
            (frps.name.clone(), known.unwrap_or_else(|| FrpsState::unknown(server)))
        })
        .collect()
}

fn config_refused(old: &State, faults: Vec<Fault>, now: Now) -> Step {
    let reloads = Reloads {
        failed: old.reloads.failed + 1,
        last_try: Some(now.wall),
        faults: faults.clone(),
        ..old.reloads.clone()
    };
    Step { state: State { reloads, ..old.clone() }, effects: vec![Effect::Log(Notice::Refused { faults })] }
}

/// A poller that was just stopped may have had its last word under way: then `None`.
fn same_server<'a>(state: &'a mut State, name: &str, server: &ServerKey) -> Option<&'a mut FrpsState> {
    state.frps.get_mut(name).filter(|frps| frps.server == *server)
}

fn frps_unreachable(old: &State, name: &str, server: &ServerKey, reason: String) -> Step {
    let mut state = old.clone();
    let mut effects = Vec::new();
    if let Some(frps) = same_server(&mut state, name, server)
        && frps.fault.replace(reason.clone()).is_none()
    {
        let kept = frps.tunnels();
        effects.push(Effect::Log(Notice::FrpsSilent { frps: name.to_owned(), reason, kept }));
    }
    Step { state, effects }
}

#[cfg(test)]
mod tests;
