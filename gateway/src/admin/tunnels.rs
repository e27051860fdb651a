//! `GET /api/v1/tunnels`: the directory.

use std::{
    collections::{BTreeMap, HashSet},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::{Query, State},
};
use serde::{Deserialize, Serialize};

use super::App;
use crate::control::{State as ControlState, directory::Tunnel, state::FrpsState};
use crate::frps::HttpClaim;

/// Most tunnels in one answer.
const MOST: usize = 1000;

/// What is asked for; all that is given holds together.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    frps: Option<String>,
    user: Option<String>,
    /// A domain as it is claimed.
    host: Option<String>,
    state: Option<String>,
    /// How many to leave out at the beginning.
    #[serde(default)]
    offset: usize,
}

/// One tunnel. No run id, seal, password or foreign metadata.
#[derive(Debug, Serialize)]
pub struct TunnelView {
    frps: String,
    name: String,
    user: String,
    kind: &'static str,
    /// `live`, `suspect` or `claimed`.
    state: &'static str,
    /// `takeover`, `vhost` or `none`.
    via: &'static str,
    domains: Vec<String>,
    locations: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    http_user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    port: Option<u16>,
    weight: u32,
    zone: Option<String>,
    priority: u32,
    labels: BTreeMap<String, String>,
    /// Unix seconds.
    since: u64,
    /// Its frps doesn't answer: this is what was known last.
    stale: bool,
    /// It lost a claim to another user.
    conflict: bool,
    /// Why it serves nothing here, or what of it doesn't count.
    faults: Vec<String>,
}

/// All tunnels, by frps and name; at most 1,000 from `offset` on.
pub async fn tunnels(State(app): State<App>, Query(filter): Query<Filter>) -> Json<Vec<TunnelView>> {
    let (state, snapshot) = (app.control.state(), app.published.load());
    let losers: HashSet<(&str, &str)> = snapshot
        .tunnels
        .iter()
        .flat_map(|(_, host)| &host.losers)
        .map(|(frps, name)| (&**frps, &**name))
        .collect();
    let all = view(&state, &losers).filter(|tunnel| {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        is(&filter.frps, &tunnel.frps)
            && is(&filter.user, &tunnel.user)
            && is(&filter.state, tunnel.state)
            && filter.host.as_ref().is_none_or(|host| tunnel.domains.contains(host))
    });
    Json(all.skip(filter.offset).take(MOST).collect())
}

fn view<'a>(
    state: &'a ControlState,
    losers: &'a HashSet<(&str, &str)>,
) -> impl Iterator<Item = TunnelView> + 'a {
    state.frps.iter().flat_map(move |(frps, known)| {
        let listed = known.table.values().map(move |tunnel| of_tunnel(tunnel, known, losers));
        let claimed = known.claimed.iter().filter(|(name, _)| known.table.get(name.as_str()).is_none());
        listed.chain(claimed.map(move |(name, claimed)| TunnelView {
            frps: frps.clone(),
            name: name.clone(),
            user: claimed.user.clone(),
            kind: claimed.kind.word(),
            state: "claimed",
            via: if claimed.taken_over { "takeover" } else { "none" },
            domains: claimed.domains.clone(),
            locations: Vec::new(),
            http_user: String::new(),
            group: String::new(),
            port: None,
            weight: 1,
            zone: None,
            priority: 0,
            labels: BTreeMap::new(),
            since: unix(claimed.at),
            stale: known.is_stale(),
            conflict: false,
            faults: Vec::new(),
        }))
    })
}

fn of_tunnel(tunnel: &Tunnel, known: &FrpsState, losers: &HashSet<(&str, &str)>) -> TunnelView {
    let settings = &tunnel.settings;
    TunnelView {
        frps: tunnel.frps.to_string(),
        name: tunnel.proxy.name.clone(),
        user: tunnel.user().to_owned(),
        kind: tunnel.way.claim().map_or(tunnel.proxy.kind, HttpClaim::kind).word(),
        state: tunnel.phase.word(),
        via: tunnel.way.word(),
        domains: tunnel.domains().to_vec(),
        locations: tunnel.locations().to_vec(),
        http_user: tunnel.http_user().to_owned(),
        group: tunnel.way.claim().map_or(&tunnel.proxy.group, |claim| &claim.group).clone(),
        port: tunnel.proxy.port,
        weight: settings.weight.unwrap_or(1),
        zone: settings.zone.clone(),
        priority: settings.priority.unwrap_or(0),
        labels: settings.labels.clone(),
        since: unix(tunnel.since),
        stale: known.is_stale(),
        conflict: losers.contains(&(&*tunnel.frps, &*tunnel.proxy.name)),
        faults: tunnel.fault.iter().chain(&settings.faults).cloned().collect(),
    }
}

fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
