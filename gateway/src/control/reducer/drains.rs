//! Which frps are emptied: what the file says, and what an operator asks for: until a restart, upgrades pass it on.

use std::{collections::BTreeSet, sync::Arc};

use frp_gateway_config::model::Config;

use super::super::{effect::Effect, state::State};

/// An operator wants it so.
pub(super) fn asked(old: &State, frps: String, on: bool) -> State {
    let mut state = old.clone();
    if on {
        state.drains.insert(frps);
    } else {
        state.drains.remove(&frps);
    }
    state
}

/// The configuration with what file and operators together want drained.
pub(super) fn overlay(state: &State, mut config: Arc<Config>) -> Arc<Config> {
    let drains = |name: &String| state.drains.contains(name) || state.file_drains.contains(name);
    if config.frps.iter().any(|frps| frps.drain != drains(&frps.name)) {
        for frps in &mut Arc::make_mut(&mut config).frps {
            frps.drain = drains(&frps.name);
        }
    }
    config
}

/// Whose clients begin to be moved, and whose don't any more.
pub(super) fn migrations(before: Option<&Config>, config: &Config) -> impl Iterator<Item = Effect> + use<> {
    let drained = |config: &Config| -> BTreeSet<String> {
        config.frps.iter().filter(|frps| frps.drain).map(|frps| frps.name.clone()).collect()
    };
    let (old, new) = (before.map(drained).unwrap_or_default(), drained(config));
    let stop: Vec<_> =
        old.difference(&new).map(|frps| Effect::StopMigration { frps: frps.clone() }).collect();
    let start: Vec<_> =
        new.difference(&old).map(|frps| Effect::StartMigration { frps: frps.clone() }).collect();
    stop.into_iter().chain(start)
}
