//! What listings, looks and plugin calls make of the directory.

use super::{Step, same_server};
use crate::{
    control::{
        directory::{Directory, Judge, Phase, Table, Touched, Tunnel},
        effect::{Effect, Notice, TunnelEvent},
        event::Known,
        state::{Claimed, MOST_CLAIMED, Now, ServerKey, State},
    },
    frps::{Listing, Proxy},
};

/// What looks at single tunnels came to.
pub(super) struct Seen {
    /// Online.
    pub(super) online: Vec<Proxy>,
    /// Names of those that are not.
    pub(super) gone: Vec<String>,
    /// Names of those that were announced and didn't come up.
    pub(super) lapsed: Vec<String>,
}

/// A whole listing.
pub(super) fn listed(old: &State, name: &str, server: &ServerKey, listing: Listing, now: Now) -> Step {
    let mut state = old.clone();
    let Some(frps) = same_server(&mut state, name, server) else {
        return Step { state, effects: Vec::new() };
    };
    let was_stale = frps.is_stale();
    (frps.fault, frps.listed, frps.listed_at) = (None, true, Some(now.wall));
    frps.subdomain_host = listing.subdomain_host;
    let gone: Vec<String> = {
        // Both are sorted by name.
        let mut listed = listing.proxies.iter().map(|proxy| &*proxy.name).peekable();
        let mut gone = Vec::new();
        for known in frps.table.keys() {
            while listed.next_if(|name| **name < **known).is_some() {}
            if listed.peek() != Some(&&**known) {
                gone.push(known.to_string());
            }
        }
        gone
    };
    let mut effects = apply(&mut state, name, listing.proxies, gone, now);
    if was_stale {
        let tunnels = state.frps.get(name).map_or(0, super::FrpsState::tunnels);
        effects.push(Effect::Log(Notice::FrpsAnswers { frps: name.to_owned(), tunnels }));
    }
    Step { state, effects }
}

/// Takes over what another process knew of an frps that hasn't told us anything yet. It is stale from the beginning.
pub(super) fn remembered(old: &State, known: Known, now: Now) -> Step {
    let Known { frps: name, server, listing, calls_us: _, doubted: _ } = known;
    let mut state = old.clone();
    let Some(frps) = same_server(&mut state, &name, &server).filter(|frps| !frps.listed) else {
        return Step { state, effects: Vec::new() };
    };
    frps.listed = true;
    frps.subdomain_host = listing.subdomain_host;
    let reason = frps.fault.take().unwrap_or_else(|| "it has not answered yet".to_owned());
    frps.fault = Some(reason.clone());
    let mut effects = apply(&mut state, &name, listing.proxies, Vec::new(), now);
    let kept = state.frps.get(&name).map_or(0, super::FrpsState::tunnels);
    effects.push(Effect::Log(Notice::FrpsSilent { frps: name, reason, kept }));
    Step { state, effects }
}

/// Looks at single tunnels.
pub(super) fn seen(old: &State, name: &str, server: &ServerKey, seen: Seen, now: Now) -> Step {
    let mut state = old.clone();
    if same_server(&mut state, name, server).is_none() {
        return Step { state, effects: Vec::new() };
    }
    let mut effects = apply(&mut state, name, seen.online, seen.gone, now);
    for lapsed in seen.lapsed {
        let Some(claimed) = state.frps.get_mut(name).and_then(|frps| frps.claimed.remove(&lapsed)) else {
            continue;
        };
        state.counts.lapsed += 1;
        effects.push(Effect::Log(Notice::Tunnel {
            event: TunnelEvent::Lapsed,
            frps: name.to_owned(),
            name: lapsed,
            user: claimed.user,
            domains: claimed.domains,
            way: "none",
            reason: None,
        }));
    }
    Step { state, effects }
}

/// A plugin call announced a tunnel. Nothing is true yet.
pub(super) fn claimed(old: &State, frps: String, name: String, claimed: Claimed) -> Step {
    let mut state = old.clone();
    let Some(known) = state.frps.get_mut(&frps) else { return Step { state, effects: Vec::new() } };
    if known.claimed.len() < MOST_CLAIMED || known.claimed.contains_key(&name) {
        known.claimed.insert(name.clone(), claimed);
    }
    state.counts.claimed += 1;
    Step { state, effects: vec![Effect::Look { frps, names: vec![name], claimed: true }] }
}

/// A plugin call said that a tunnel was closed. A new one of its name may be there already: look.
pub(super) fn closing(old: &State, frps: String, name: String) -> Step {
    let mut state = old.clone();
    let mut touched = Touched::new();
    let Some(known) = state.frps.get_mut(&frps) else { return Step { state, effects: Vec::new() } };
    if let Some(tunnel) = known.table.get(&*name).filter(|tunnel| tunnel.phase == Phase::Live) {
        let suspect = Tunnel {
            frps: tunnel.frps.clone(),
            proxy: tunnel.proxy.clone(),
            phase: Phase::Suspect,
            since: tunnel.since,
            way: tunnel.way.clone(),
            settings: tunnel.settings.clone(),
            fault: tunnel.fault.clone(),
        };
        state.directory.replace(&mut known.table, &name, Some(suspect), &mut touched);
    }
    state.counts.closing += 1;
    let mut effects = Vec::new();
    if !touched.is_empty() {
        effects.push(Effect::PublishTunnels(touched));
    }
    effects.push(Effect::Look { frps, names: vec![name], claimed: false });
    Step { state, effects }
}

/// Everything is judged anew by the configuration in `state`: keys, claims and vhost ports may be others.
pub(super) fn judge_all(state: &mut State, now: Now) {
    let Some(config) = state.config.clone() else { return };
    let seals = state.seals.clone();
    let mut directory = Directory::default();
    for frps in &config.frps {
        let Some(known) = state.frps.get_mut(&frps.name) else { continue };
        let judge = Judge { config: &config, seals: seals.as_deref(), frps, now: now.wall };
        let mut table = Table::new_sync();
        for (name, tunnel) in &known.table {
            let judged = judge.tunnel(tunnel.proxy.clone(), Some(tunnel));
            directory.replace(&mut table, name, Some(judged), &mut Touched::new());
        }
        known.table = table;
    }
    state.directory = directory;
}

fn apply(state: &mut State, name: &str, online: Vec<Proxy>, gone: Vec<String>, now: Now) -> Vec<Effect> {
    let mut touched = Touched::new();
    let mut notices = Vec::new();
    let (Some(config), Some(known)) = (state.config.clone(), state.frps.get_mut(name)) else {
        return Vec::new();
    };
    let Some(frps) = config.frps.iter().find(|frps| frps.name == name) else { return Vec::new() };
    let seals = state.seals.clone();
    let judge = Judge { config: &config, seals: seals.as_deref(), frps, now: now.wall };
    for proxy in online {
        known.claimed.remove(&proxy.name);
        let before = known.table.get(&*proxy.name).cloned();
        if before.as_ref().is_some_and(|before| before.phase == Phase::Live && before.proxy == proxy) {
            continue;
        }
        let tunnel = judge.tunnel(proxy, before.as_deref());
        let event = match &before {
            None => Some(TunnelEvent::Live),
            // It was only suspected.
            Some(before) if before.proxy == tunnel.proxy => None,
            Some(_) => Some(TunnelEvent::Changed),
        };
        match event {
            Some(TunnelEvent::Live) => state.counts.live += 1,
            Some(_) => state.counts.changed += 1,
            None => {}
        }
        notices.extend(event.map(|event| notice(event, &tunnel, None)));
        let before_said = before.as_ref().map(|before| (&before.fault, &before.settings.faults));
        if before_said != Some((&tunnel.fault, &tunnel.settings.faults)) {
            let said = tunnel.fault.iter().chain(&tunnel.settings.faults);
            notices.extend(said.map(|fault| notice(TunnelEvent::Fault, &tunnel, Some(fault.clone()))));
        }
        let key = tunnel.proxy.name.clone();
        state.directory.replace(&mut known.table, &key, Some(tunnel), &mut touched);
    }
    for gone in gone {
        if let Some(tunnel) = known.table.get(&*gone).cloned() {
            state.counts.gone += 1;
            notices.push(notice(TunnelEvent::Gone, &tunnel, None));
            state.directory.replace(&mut known.table, &gone, None, &mut touched);
        }
    }
    let mut effects = Vec::new();
    if !touched.is_empty() {
        effects.push(Effect::PublishTunnels(touched));
    }
    effects.extend(notices.into_iter().map(Effect::Log));
    effects
}

fn notice(event: TunnelEvent, tunnel: &Tunnel, reason: Option<String>) -> Notice {
    Notice::Tunnel {
        event,
        frps: tunnel.frps.to_string(),
        name: tunnel.proxy.name.clone(),
        user: tunnel.user().to_owned(),
        domains: tunnel.domains().to_vec(),
        way: tunnel.way.word(),
        reason,
    }
}
