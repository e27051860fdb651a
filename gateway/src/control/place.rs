//! Where a client goes. Pure: what is known of each frps and the rule in, an order of preference out.

use frp_gateway_config::model::Place;
use lb_algos::Tick;

/// A listing shows the tunnels of clients that were placed this long before it began, if they have any.
const SETTLED: std::time::Duration = std::time::Duration::from_millis(500);

/// One frps as the rule sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Hash of its name.
    pub key: u64,
    /// Its share; 0 = no new clients.
    pub weight: u32,
    /// It is being emptied.
    pub draining: bool,
    /// It did not take the last client.
    pub down: bool,
    /// See [`crate::snapshot::FrpsLive::tunnels`].
    pub tunnels: u32,
    /// Clients relayed to it.
    pub clients: u32,
}

impl Candidate {
    /// Whether new clients go here at all.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        self.badness() == 0
    }

    /// 0 = eligible. Above it, the lower the better: an frps that is down may be up by now, and one that is being emptied
    /// still works.
    fn badness(&self) -> u8 {
        u8::from(self.down) + 2 * u8::from(self.draining || self.weight == 0)
    }
}

/// Indices of `candidates`, best first. Those that aren't eligible come last: a client that has nowhere to go is worse off.
///
/// O(n log n). Equal ones come in the order of a hash of `key` and their name. Weight 0 counts as 1 where it comes to that.
/// `source`: hash of the client's address; it decides alone under [`Place::SourceIp`] (weighted rendezvous: when an frps leaves,
/// only its own clients move).
#[must_use]
pub fn order(candidates: &[Candidate], rule: Place, source: u64) -> Vec<usize> {
    let mut all: Vec<usize> = (0..candidates.len()).collect();
    let weight = |one: &Candidate| u64::from(one.weight.max(1));
    // a / wa < b / wb without dividing.
    let less = |a: u32, one: &Candidate, b: u32, other: &Candidate| {
        (u64::from(a) * weight(other)).cmp(&(u64::from(b) * weight(one)))
    };
    all.sort_by(|one, other| {
        let (one, other) = (&candidates[*one], &candidates[*other]);
        let clients = || less(one.clients, one, other.clients, other);
        let hash = || rendezvous(other, source).total_cmp(&rendezvous(one, source));
        one.badness().cmp(&other.badness()).then_with(|| match rule {
            Place::LeastTunnels => {
                less(one.tunnels, one, other.tunnels, other).then_with(clients).then_with(hash)
            }
            Place::LeastClients => clients().then_with(hash),
            Place::SourceIp => hash(),
        })
    });
    all
}

/// Weighted rendezvous score, the highest wins: −w / ln(h), h uniform in (0, 1).
#[expect(clippy::cast_precision_loss, reason = "53 bits of a hash are enough")]
fn rendezvous(candidate: &Candidate, key: u64) -> f64 {
    let hash = lb_algos::stable_hash(&[&key.to_be_bytes(), &candidate.key.to_be_bytes()]);
    let uniform = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(candidate.weight.max(1)) / uniform.ln()
}

/// Tunnels as last listed, and the clients whose tunnels that listing can't have: forty that dial at once are spread evenly,
/// though the admin API shows none of them yet.
#[derive(Debug, Default)]
pub struct Backlog {
    listed: u32,
    /// Oldest first.
    pending: Vec<(u64, Tick)>,
}

impl Backlog {
    /// Tunnels, each pending client counted as one.
    #[must_use]
    pub fn load(&self) -> u32 {
        self.listed.saturating_add(u32::try_from(self.pending.len()).unwrap_or(u32::MAX))
    }

    /// A client was placed.
    pub fn placed(&mut self, client: u64, now: Tick) {
        self.pending.push((client, now));
    }

    /// A client left.
    pub fn left(&mut self, client: u64) {
        self.pending.retain(|(pending, _)| *pending != client);
    }

    /// A listing that began at `begun`. Who came just before it may be in it or not; growth that older clients don't explain is
    /// theirs.
    pub fn listed(&mut self, begun: Tick, tunnels: u32) {
        let settled = self.pending.partition_point(|(_, at)| begun.since(*at) >= SETTLED);
        let before = self.pending.partition_point(|(_, at)| *at < begun);
        let growth = usize::try_from(tunnels.saturating_sub(self.listed)).unwrap_or(usize::MAX);
        let explained = settled + growth.saturating_sub(settled).min(before - settled);
        self.pending.drain(..explained);
        self.listed = tunnels;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(key: u64, weight: u32) -> Candidate {
        Candidate { key, weight, draining: false, down: false, tunnels: 0, clients: 0 }
    }

    fn at(ms: u64) -> Tick {
        Tick::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn clients_that_dial_at_once_are_spread_by_weight() {
        let mut all = [candidate(1, 1), candidate(2, 2), candidate(3, 1)];
        for source in 0..40 {
            let best = order(&all, Place::LeastTunnels, source)[0];
            all[best].tunnels += 1;
            all[best].clients += 1;
        }
        assert_eq!(all.map(|one| one.tunnels), [10, 20, 10]);
    }

    #[test]
    fn what_is_not_eligible_comes_last_and_the_least_bad_of_it_first() {
        let all = [
            Candidate { draining: true, down: true, ..candidate(1, 1) },
            Candidate { draining: true, ..candidate(2, 1) },
            Candidate { down: true, ..candidate(3, 1) },
            Candidate { tunnels: 1000, ..candidate(4, 1) },
            candidate(5, 0),
        ];
        for rule in [Place::LeastTunnels, Place::LeastClients, Place::SourceIp] {
            let order = order(&all, rule, 7);
            assert_eq!(order[..2], [3, 2], "{rule:?}: {order:?}");
            assert_eq!(order[4], 0, "{rule:?}: {order:?}");
        }
    }

    #[test]
    fn only_clients_of_the_frps_that_left_move_under_source_ip_and_shares_follow_weights() {
        let all = [candidate(10, 1), candidate(20, 2), candidate(30, 1)];
        let mut shares = [0u32; 3];
        for source in 0..4000 {
            let before = order(&all, Place::SourceIp, source);
            shares[before[0]] += 1;
            let mut without = all;
            without[0].draining = true;
            let after = order(&without, Place::SourceIp, source);
            let expected = if before[0] == 0 { before[1] } else { before[0] };
            assert_eq!(after[0], expected, "source {source}");
        }
        assert!((1800..2200).contains(&shares[1]), "{shares:?}");
        assert!((850..1150).contains(&shares[0]), "{shares:?}");
    }

    #[test]
    fn a_pending_client_counts_until_a_listing_shows_its_tunnel() {
        let mut backlog = Backlog::default();
        for client in 0..4 {
            backlog.placed(client, at(1000));
        }
        assert_eq!(backlog.load(), 4);
        backlog.listed(at(1010), 3);
        assert_eq!(backlog.load(), 4, "three are listed, one is still to come");
        backlog.listed(at(1600), 4);
        assert_eq!(backlog.load(), 4, "all are listed");
        backlog.placed(9, at(1700));
        backlog.listed(at(1650), 4);
        assert_eq!(backlog.load(), 5, "it came after the listing began");
        backlog.left(9);
        assert_eq!(backlog.load(), 4);
    }

    proptest! {
        #[test]
        fn every_candidate_is_in_the_order_once_and_no_eligible_one_behind_another(
            states in prop::collection::vec((0u32..3, any::<bool>(), any::<bool>(), 0u32..50, 0u32..50), 0..9),
            source in any::<u64>(),
            rule in prop::sample::select(vec![Place::LeastTunnels, Place::LeastClients, Place::SourceIp]),
        ) {
            let all: Vec<_> = (0..).zip(&states).map(|(key, (weight, draining, down, tunnels, clients))| Candidate {
                key, weight: *weight, draining: *draining, down: *down, tunnels: *tunnels, clients: *clients,
            }).collect();
            let order = order(&all, rule, source);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..all.len()).collect::<Vec<_>>());
            let eligible: Vec<_> = order.iter().map(|at| all[*at].is_eligible()).collect();
            prop_assert!(eligible.windows(2).all(|pair| pair[0] || !pair[1]), "{:?}", eligible);
        }

        #[test]
        fn a_backlog_never_counts_more_than_listed_and_placed(
            steps in prop::collection::vec((0u8..3, 0u64..2000, 0u32..30), 0..40),
        ) {
            let (mut backlog, mut now, mut placed, mut listed) = (Backlog::default(), 0, 0, 0);
            for (client, (kind, wait, n)) in (0..).zip(steps) {
                now += wait;
                match kind {
                    0 => { backlog.placed(client, at(now)); placed += 1; }
                    1 => { backlog.listed(at(now), n); listed = n; }
                    _ => backlog.left(client.saturating_sub(1)),
                }
                prop_assert!(backlog.load() >= listed && backlog.load() <= listed + placed);
            }
        }
    }
}
