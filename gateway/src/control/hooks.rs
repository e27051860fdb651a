//! Between the plugin listener and the control plane: what a handler may know, and what becomes of what it heard.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use frp_gateway_config::model::Carries;
use tokio::sync::{mpsc, watch};

use super::{
    Event, Handle,
    directory::{Phase, filed_under},
    state::State,
    task::Board,
};
use crate::frps::{
    ProxyKind,
    decide::Question,
    heard::Heard,
    plugin::{HEARD_CAP, PluginState, PluginStats, Told},
};
use crate::{snapshot::Published, telemetry::audit::AuditHandle};

/// What the plugin listener works on, and what it hears.
#[must_use]
pub fn plugin_state(board: &Board) -> (Arc<PluginState>, mpsc::Receiver<Told>) {
    let (heard, told) = mpsc::channel(HEARD_CAP);
    let (for_hosts, for_conflicts) = (Arc::clone(board), Arc::clone(board));
    let state = PluginState {
        rules: ArcSwapOption::empty(),
        allow: ArcSwapOption::empty(),
        stats: PluginStats::default(),
        subdomain_host: Box::new(move |frps| {
            let state = for_hosts.load();
            let known = state.frps.get(frps).filter(|known| known.listed)?;
            Some(known.subdomain_host.clone().unwrap_or_default())
        }),
        conflict: Box::new(move |question| conflict(&for_conflicts.load(), question)),
        heard,
        leaving: watch::Sender::new(false),
    };
    (Arc::new(state), told)
}

/// Passes on what is heard, until nobody listens.
pub async fn pass_on(
    mut told: mpsc::Receiver<Told>,
    control: Handle,
    published: Published,
    audit: AuditHandle,
) {
    while let Some(told) = told.recv().await {
        audit.heard(&told);
        let Told { frps, heard, by_agent } = told;
        let event = match heard {
            Heard::Login { user, client_id, address, refused: _, knows_token } => {
                published.load().relays.told(&frps, &address, (&user, &client_id), knows_token);
                continue;
            }
            Heard::Claim { refused: Some(_), .. } => continue,
            Heard::Claim { name, user, kind, domains, taken_over, refused: None } => {
                let Some(kind) = ProxyKind::of_word(&kind) else { continue };
                Event::TunnelClaimed { frps, name, user, kind, domains, taken_over, by_agent }
            }
            Heard::Closing { name, user: _ } => Event::TunnelClosing { frps, name, by_agent },
        };
        if !control.send(event).await {
            return;
        }
    }
}

/// Who has what is claimed, if somebody else does.
fn conflict(state: &State, question: &Question<'_>) -> Option<String> {
    for domain in question.domains {
        let carries = if question.tls { Carries::Tls } else { Carries::Http };
        let key = filed_under(carries, crate::snapshot::tunnels::key_of(domain));
        for tunnel in state.directory.claimants(&key) {
            let itself = *tunnel.frps == *question.frps && tunnel.proxy.name == question.name;
            let same_place = tunnel.http_user() == question.http_user
                && tunnel.locations().iter().any(|location| question.locations.contains(location));
            let shares = tunnel.way.claim().is_some_and(|claim| {
                question.group.is_some_and(|group| {
                    group == (&*claim.group, &*claim.group_key) && !claim.group_key.is_empty()
                })
            });
            if !itself
                && same_place
                && !shares
                && tunnel.phase == Phase::Live
                && tunnel.user() != question.user
            {
                let owner = match tunnel.user() {
                    "" => "an frpc without a user".to_owned(),
                    user => format!("user {user:?}"),
                };
                return Some(format!("{domain} is claimed by {owner} already"));
            }
        }
    }
    None
}
