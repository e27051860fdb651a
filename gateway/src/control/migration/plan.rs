//! Who belongs to whom, and who has too many: pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Client;
use crate::{
    control::directory::Tunnel,
    snapshot::{Endpoint, Member, Pool, Snapshot},
};

/// Whether a tunnel is this client's. The v1 admin API doesn't tell the client: then the user decides.
pub(super) fn belongs(tunnel: &Tunnel, client: &Client) -> bool {
    let (Some(user), Some(client_id)) = (&client.user, &client.client_id) else { return false };
    let owner = match tunnel.way.claim() {
        Some(claim) => &claim.user,
        None if tunnel.proxy.user.is_empty() => return tunnel_user(tunnel) == user,
        None => &tunnel.proxy.user,
    };
    owner == user && (tunnel.proxy.client_id.is_empty() || tunnel.proxy.client_id == *client_id)
}

/// What the name says of the user, where nothing else does.
fn tunnel_user(tunnel: &Tunnel) -> &str {
    tunnel.proxy.name.split_once('.').map_or("", |(user, _)| user)
}

/// Whether none of these clients has it. Visitors' sides of stcp and the like have no tunnel.
pub(super) fn is_unmovable(tunnel: &Tunnel, clients: &[Client]) -> bool {
    !clients.iter().any(|client| belongs(tunnel, client))
}

/// Endpoints of these tunnels of an frps, and whether each of their pools has somebody else who can serve.
pub(super) fn endpoints(
    snapshot: &Snapshot,
    frps: &str,
    names: &BTreeSet<Arc<str>>,
) -> (Vec<Arc<Endpoint>>, bool) {
    let (mut found, mut twins) = (BTreeMap::new(), true);
    for pool in snapshot.every_pool() {
        let of_these = |member: &&Member| {
            let id = &member.endpoint.id;
            *id.frps == *frps
                && match &id.tunnel {
                    Some(tunnel) => names.contains(&*tunnel.name),
                    // The vhost port serves all of its tunnels.
                    None => !names.is_empty(),
                }
        };
        let mut any = false;
        for member in pool.members.iter().filter(of_these) {
            any = true;
            found.insert(member.endpoint.number, Arc::clone(&member.endpoint));
        }
        twins &= !any || has_other(pool, frps);
    }
    (found.into_values().collect(), twins)
}

fn has_other(pool: &Pool, frps: &str) -> bool {
    pool.members.iter().any(|member| {
        *member.endpoint.id.frps != *frps
            && member.weight > 0
            && member.state.is_healthy()
            && !member.endpoint.is_gone()
            && member.endpoint.is_open()
    })
}

/// Of (weight, clients), the one with the largest surplus over its share, if moving one of its clients to the one with the largest lack makes the two
/// more even.
pub(super) fn largest_surplus(counts: &[(u32, usize)]) -> Option<usize> {
    // Clients per weight, before and after a move, compared without division.
    let per = |(weight, clients): (u32, usize)| clients as f64 / f64::from(weight.max(1));
    let order = |one: &usize, other: &usize| per(counts[*one]).total_cmp(&per(counts[*other]));
    let most = (0..counts.len()).max_by(order)?;
    let least = (0..counts.len()).min_by(order)?;
    let (from, to) = (counts[most], counts[least]);
    (most != least && from.1 > 0 && per((to.0, to.1 + 1)) <= per((from.0, from.1 - 1)) + f64::EPSILON)
        .then_some(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_move_until_the_shares_are_even_and_no_further() {
        let after = |mut counts: Vec<(u32, usize)>| {
            for _ in 0..100 {
                let Some(from) = largest_surplus(&counts) else { break };
                let per = |index: &usize| counts[*index].1 as f64 / f64::from(counts[*index].0);
                let to = (0..counts.len()).min_by(|one, other| per(one).total_cmp(&per(other))).unwrap();
                counts[from].1 -= 1;
                counts[to].1 += 1;
            }
            counts.iter().map(|(_, clients)| *clients).collect::<Vec<_>>()
        };
        assert_eq!(after(vec![(1, 12), (1, 0), (1, 0)]), [4, 4, 4]);
        assert_eq!(after(vec![(1, 3), (1, 2)]), [3, 2], "one too many is nobody's surplus");
        assert_eq!(after(vec![(2, 0), (1, 9)]), [6, 3], "by weight");
        assert_eq!(largest_surplus(&[(1, 5)]), None, "nowhere to go");
        assert_eq!(largest_surplus(&[]), None);
    }
}
