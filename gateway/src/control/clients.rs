//! The relayed clients as those that can be moved: joined with the tunnels that the admin APIs list.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, OnceLock},
};

use super::{
    migration::{Client, Clients},
    relays::{RelayInfo, Relays, RunHash},
    state::State,
    task::Board,
};
use crate::{frp_wire::RunId, snapshot::Published};

/// Clients that came through an `frp` listener.
#[derive(Debug)]
pub struct RelayedClients {
    published: Published,
    board: OnceLock<Board>,
}

impl RelayedClients {
    /// As the snapshot in force says.
    #[must_use]
    pub fn new(published: Published) -> Self {
        Self { published, board: OnceLock::new() }
    }

    /// Where the tunnels are listed; before, nobody can be moved. Only the first call counts.
    pub fn know(&self, board: Board) {
        self.board.get_or_init(|| board);
    }
}

impl Clients for RelayedClients {
    fn of(&self, frps: &str) -> Vec<Client> {
        let Some(board) = self.board.get() else { return Vec::new() };
        joined(&self.published.load().relays, &board.load(), frps)
    }

    fn cut(&self, id: u64) -> bool {
        self.published.load().relays.cut(id)
    }
}

/// The clients of an frps. One without a `clientID` is listed by its run id, which is kept here as a hash only: so the listing is
/// asked which of its clients has that hash. Where TLS hid the login, the run id is that of the one client of its user that is left
/// over; what was found out is remembered, so that it stays known when others come.
///
/// O(connections + tunnels of the frps).
pub fn joined(relays: &Arc<Relays>, state: &State, frps: &str) -> Vec<Client> {
    let mut clients = relays.of(frps);
    clients.retain(|info| info.kind.is_client());
    let mut listed: BTreeSet<(&str, &str)> = BTreeSet::new();
    if let Some(known) = state.frps.get(frps) {
        let tunnels = known.table.values().filter(|tunnel| !tunnel.proxy.client_id.is_empty());
        listed.extend(tunnels.map(|tunnel| (tunnel.user(), tunnel.proxy.client_id.as_str())));
    }
    let hash = |client_id: &str| RunId::new(client_id.to_owned()).map(|id| relays.hash(&id));
    let mut by_hash: HashMap<RunHash, &str> = HashMap::new();
    if clients.iter().any(|info| info.client_id.is_empty() && info.run.is_some()) {
        by_hash.extend(listed.iter().filter_map(|(_, client_id)| Some((hash(client_id)?, *client_id))));
    }
    let named = |info: &RelayInfo| {
        if !info.client_id.is_empty() {
            return Some(info.client_id.clone());
        }
        by_hash.get(&info.run?).map(|client_id| (*client_id).to_owned())
    };
    let mut names: Vec<Option<String>> = clients.iter().map(named).collect();
    let users: BTreeSet<&str> = clients.iter().filter_map(|info| info.user.as_deref()).collect();
    for user in users {
        let of_user = |info: &RelayInfo| info.user.as_deref() == Some(user);
        let nameless: Vec<usize> = (0..clients.len())
            .filter(|at| names[*at].is_none() && clients[*at].run.is_none() && of_user(&clients[*at]))
            .collect();
        let left: Vec<&str> = listed
            .iter()
            .filter(|(owner, id)| *owner == user && !names.iter().any(|name| name.as_deref() == Some(*id)))
            .map(|(_, id)| *id)
            .collect();
        if let (&[at], &[client_id]) = (&nameless[..], &left[..]) {
            names[at] = Some(client_id.to_owned());
            if let Some(run) = hash(client_id) {
                relays.logged_in(clients[at].id, run);
            }
        }
    }
    clients
        .into_iter()
        .zip(names)
        .map(|(info, client_id)| Client { id: info.id, peer: info.peer, user: info.user, client_id })
        .collect()
}
