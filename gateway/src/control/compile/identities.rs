//! What outlives a snapshot, by identity: endpoints, verdicts, slots, counters.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use frp_gateway_config::model;
use lb_algos::{PolicyKind, Prepared, Tick};
use tokio::sync::Notify;

use super::settlement::{Settlement, Unsettled};
use crate::{
    control::relays::Relays,
    health::active::Probed,
    snapshot::{Endpoint, EndpointId, FrpsLive, Gate, Listener, MemberState, Pool, WaitQueue},
    telemetry::{
        shard::{Counter, Shards},
        stats::{ListenerShard, PoolShard, SplitStats},
    },
    tls::{Outbound, TlsSlot},
};

/// A removed listener keeps its slot at least this long: its accept queue may hold visitors that were let in.
const SLOT_REST: Duration = Duration::from_secs(5);

/// What was learnt about a member that left its pool is kept this long: a line that is taken out and put back, or moved
/// between two files, must not make a member that is known to be down look good.
pub(super) const MEMBERS_REMEMBERED: Duration = Duration::from_secs(300);
/// And of at most this many; the oldest go first.
const MOST_REMEMBERED: usize = 1024;

/// Everything that outlives a snapshot. A value: a compile reads one and makes the next.
#[derive(Debug, Clone)]
pub struct Identities {
    workers: usize,
    last_endpoint: u64,
    last_revision: u64,
    endpoints: HashMap<EndpointId, Arc<Endpoint>>,
    members: HashMap<MemberKey, Arc<MemberState>>,
    departed: HashMap<MemberKey, Departed>,
    pools: HashMap<String, PoolIdentity>,
    splits: HashMap<(String, Arc<str>), SplitIdentity>,
    listeners: HashMap<String, Arc<Listener>>,
    /// What goes on at listeners and routes that are bounded.
    loads: HashMap<(&'static str, String), Arc<Shards<Counter>>>,
    retired: Vec<Retired>,
    frps: HashMap<FrpsKey, Arc<FrpsLive>>,
    relays: Arc<Relays>,
    tls: HashMap<String, TlsSlot>,
    /// How pools speak TLS, by the name of the pool.
    outbounds: HashMap<String, Arc<Outbound>>,
}

/// Name, host and control port of an frps.
type FrpsKey = (String, String, Option<u16>);

/// Name of the pool, endpoint.
type MemberKey = (String, EndpointId);

/// What a member that left its pool had learnt.
#[derive(Debug, Clone)]
struct Departed {
    state: Arc<MemberState>,
    at: Tick,
}

/// What a pool keeps over reloads.
#[derive(Debug, Clone)]
pub(super) struct PoolIdentity {
    /// See [`Pool::slot`].
    pub(super) slot: usize,
    /// See [`Pool::revision`].
    pub(super) revision: u64,
    /// See [`Pool::stats`].
    pub(super) stats: Arc<Shards<PoolShard>>,
    /// See [`Pool::bell`].
    pub(super) bell: Arc<Notify>,
    /// See [`Pool::queue`].
    pub(super) queue: Arc<WaitQueue>,
    /// What was built for this revision.
    pub(super) tables: Tables,
    /// What it was built of.
    pub(super) shape: PoolShape,
}

/// What the policies of a pool look keys up in.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    /// See [`Pool::prepared`].
    pub(super) prepared: Prepared,
    /// See [`Pool::keyed`].
    pub(super) keyed: Option<(PolicyKind, Prepared)>,
}

/// What a worker's policy state depends on; a change means a new revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoolShape {
    /// The rule.
    pub(super) policy: PolicyKind,
    /// The rule for requests with a key.
    pub(super) keyed: Option<PolicyKind>,
    /// Endpoint numbers and weights, in order.
    pub(super) members: Vec<(u64, u32)>,
}

#[derive(Debug, Clone)]
struct SplitIdentity {
    members: Vec<EndpointId>,
    stats: Arc<SplitStats>,
}

/// A listener that is gone from the configuration but may have visitors.
#[derive(Debug, Clone)]
struct Retired {
    listener: Arc<Listener>,
    since: Tick,
}

impl Identities {
    /// Nothing is known; counters get one copy per worker.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            last_endpoint: 0,
            last_revision: 0,
            endpoints: HashMap::new(),
            members: HashMap::new(),
            departed: HashMap::new(),
            pools: HashMap::new(),
            splits: HashMap::new(),
            listeners: HashMap::new(),
            loads: HashMap::new(),
            retired: Vec::new(),
            frps: HashMap::new(),
            relays: Arc::default(),
            tls: HashMap::new(),
            outbounds: HashMap::new(),
        }
    }

    /// Makes room for what ends TLS at new listeners. Changes nothing in force.
    pub fn prepare_tls<'a>(&mut self, staged: impl Iterator<Item = (&'a str, &'a TlsSlot)>) {
        self.tls.extend(staged.map(|(name, slot)| (name.to_owned(), Arc::clone(slot))));
    }

    /// Forgets what ends TLS at listeners other than these.
    pub fn settle_tls<'a>(&mut self, staged: impl Iterator<Item = (&'a str, &'a TlsSlot)>) {
        let names: BTreeSet<&str> = staged.map(|(name, _)| name).collect();
        self.tls.retain(|name, _| names.contains(name.as_str()));
    }

    /// How pools that a configuration names speak TLS to their members. Those of others stay until [`Self::settle_outbounds`].
    pub fn prepare_outbounds<'a>(&mut self, staged: impl Iterator<Item = (&'a str, &'a Arc<Outbound>)>) {
        self.outbounds.extend(staged.map(|(name, outbound)| (name.to_owned(), Arc::clone(outbound))));
    }

    /// Forgets those of pools other than these.
    pub fn settle_outbounds<'a>(&mut self, staged: impl Iterator<Item = (&'a str, &'a Arc<Outbound>)>) {
        let names: BTreeSet<&str> = staged.map(|(name, _)| name).collect();
        self.outbounds.retain(|name, _| names.contains(name.as_str()));
    }

    /// Slot of a listener that is configured, or was until a moment ago.
    #[must_use]
    pub fn listener_slot(&self, name: &str) -> Option<usize> {
        self.listeners.get(name).or_else(|| self.retired_named(name)).map(|listener| listener.slot)
    }

    /// What a probe asks and sets. `h2c`: in HTTP/2.
    #[must_use]
    pub fn probed(&self, pool: &str, endpoint: &EndpointId, h2c: bool) -> Option<Probed> {
        Some(Probed {
            pool: pool.to_owned(),
            endpoint: Arc::clone(self.endpoints.get(endpoint)?),
            h2c,
            member: Arc::clone(self.members.get(&(pool.to_owned(), endpoint.clone()))?),
            bell: Arc::clone(&self.pools.get(pool)?.bell),
        })
    }

    /// Whether removed listeners hold on to something.
    #[must_use]
    pub fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Members that left their pools and are remembered.
    #[cfg(test)]
    pub(super) fn departed(&self) -> usize {
        self.departed.len()
    }

    /// Endpoints that pools name.
    #[cfg(test)]
    pub(super) fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    fn retired_named(&self, name: &str) -> Option<&Arc<Listener>> {
        self.retired.iter().map(|retired| &retired.listener).find(|listener| *listener.name == *name)
    }
}

/// The next [`Identities`] in the making.
#[derive(Debug)]
pub(super) struct Carry<'a> {
    old: &'a Identities,
    new: Identities,
    pool_slots: BTreeSet<usize>,
    settlement: Settlement,
}

impl<'a> Carry<'a> {
    /// Nothing is carried over yet.
    #[must_use]
    pub(super) fn new(old: &'a Identities) -> Self {
        let new = Identities {
            last_endpoint: old.last_endpoint,
            last_revision: old.last_revision,
            relays: Arc::clone(&old.relays),
            tls: old.tls.clone(),
            outbounds: old.outbounds.clone(),
            ..Identities::new(old.workers)
        };
        Self { old, new, pool_slots: BTreeSet::new(), settlement: Settlement::default() }
    }

    /// Data-plane threads.
    #[must_use]
    pub(super) fn workers(&self) -> u32 {
        u32::try_from(self.old.workers).unwrap_or(u32::MAX)
    }

    /// What was carried over or made, and what is to be done when it takes effect.
    #[must_use]
    pub(super) fn finish(mut self, now: Tick) -> (Identities, Settlement) {
        let long_gone = |departed: &Departed| now.since(departed.at) >= MEMBERS_REMEMBERED;
        let left =
            self.old.members.iter().map(|(key, state)| (key, Departed { state: Arc::clone(state), at: now }));
        let before = self.old.departed.iter().map(|(key, departed)| (key, departed.clone()));
        let mut departed: Vec<_> = left
            .chain(before)
            .filter(|(key, departed)| !self.new.members.contains_key(*key) && !long_gone(departed))
            .map(|(key, departed)| (key.clone(), departed))
            .collect();
        departed.sort_by_key(|(_, departed)| std::cmp::Reverse(departed.at));
        departed.truncate(MOST_REMEMBERED);
        self.new.departed = departed.into_iter().collect();
        (self.new, self.settlement)
    }

    /// What is known of that frps.
    pub(super) fn frps_live(&mut self, frps: &model::Frps) -> Arc<FrpsLive> {
        let key = (frps.name.clone(), frps.host.clone(), frps.control_port);
        let known = self.old.frps.get(&key).cloned();
        let live = known.unwrap_or_else(|| {
            Arc::new(FrpsLive::new(frps.name.as_str().into(), &frps.host, frps.control_port))
        });
        live.set_token(frps.token.as_ref());
        self.new.frps.insert(key, Arc::clone(&live));
        live
    }

    /// Who is relayed where.
    pub(super) fn relays(&self) -> Arc<Relays> {
        Arc::clone(&self.new.relays)
    }

    /// What ends TLS at the listener of that name.
    pub(super) fn tls(&self, listener: &str) -> Option<TlsSlot> {
        self.new.tls.get(listener).cloned()
    }

    /// The endpoint of that identity, with all that is known of it.
    pub(super) fn endpoint(&mut self, id: EndpointId) -> Arc<Endpoint> {
        if let Some(known) = self.new.endpoints.get(&id) {
            return Arc::clone(known);
        }
        let endpoint = self.old.endpoints.get(&id).cloned().unwrap_or_else(|| {
            self.new.last_endpoint += 1;
            // One that nobody has prepared refuses to speak: never in clear text.
            let known =
                id.tls.as_ref().map(|pool| self.new.outbounds.get(&**pool).cloned().unwrap_or_default());
            Arc::new(Endpoint::new(id.clone(), self.new.last_endpoint, self.old.workers).over(known))
        });
        self.new.endpoints.insert(id, Arc::clone(&endpoint));
        endpoint
    }

    /// What `pool` has learnt about `endpoint`. A member that joins a pool which serves already starts slowly. Changes
    /// nothing in a state that is known: the step may yet be undone.
    pub(super) fn member_state(
        &mut self,
        pool: &model::Pool,
        endpoint: &EndpointId,
        now: Tick,
    ) -> Arc<MemberState> {
        let key = (pool.name.clone(), endpoint.clone());
        let pool_served = self.old.pools.contains_key(&pool.name);
        let back = self.old.departed.get(&key).filter(|back| now.since(back.at) < MEMBERS_REMEMBERED);
        let known = self.old.members.get(&key).or(back.map(|back| &back.state));
        if let Some(known) = known {
            self.settlement.push(Unsettled {
                state: Arc::clone(known),
                returned: pool_served && back.is_some(),
                unchecked: pool.health.is_none(),
                unwatched: pool.outlier.is_none(),
                unlimited: pool.limits.adaptive.is_none(),
            });
        }
        let state = known
            .cloned()
            .unwrap_or_else(|| Arc::new(MemberState::new(self.old.workers, pool_served.then_some(now))));
        Arc::clone(self.new.members.entry(key).or_insert(state))
    }

    /// Reserves the slots of pools that stay, before new ones take what is free.
    pub(super) fn keep_pool_slots<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        self.pool_slots = names.filter_map(|name| Some(self.old.pools.get(name)?.slot)).collect();
    }

    /// Slot, revision and counters of a pool. Revisions are never used twice, so a slot may be.
    /// `build` is only asked for tables when the shape has changed.
    pub(super) fn pool(
        &mut self,
        name: &str,
        shape: PoolShape,
        build: impl FnOnce(&PoolShape) -> Tables,
    ) -> PoolIdentity {
        let identity = match self.old.pools.get(name) {
            Some(known) if known.shape == shape => known.clone(),
            known => {
                self.new.last_revision += 1;
                PoolIdentity {
                    slot: known.map_or_else(|| lowest_free(&self.pool_slots), |known| known.slot),
                    revision: self.new.last_revision,
                    stats: known.map_or_else(
                        || Arc::new(Shards::new(self.old.workers)),
                        |known| Arc::clone(&known.stats),
                    ),
                    bell: known.map_or_else(Arc::default, |known| Arc::clone(&known.bell)),
                    queue: known.map_or_else(Arc::default, |known| Arc::clone(&known.queue)),
                    tables: build(&shape),
                    shape,
                }
            }
        };
        self.pool_slots.insert(identity.slot);
        self.new.pools.insert(name.to_owned(), identity.clone());
        identity
    }

    /// Counters of a route with a pool; those of an endpoint that left the pool go with it.
    pub(super) fn split(&mut self, route: &str, pool: &Pool) -> Arc<SplitStats> {
        let key = (route.to_owned(), Arc::clone(&pool.name));
        if let Some(known) = self.new.splits.get(&key) {
            return Arc::clone(&known.stats);
        }
        let same_members = |known: &SplitIdentity| {
            if pool.of_tunnels {
                known.members.is_empty()
            } else {
                known.members.iter().eq(pool.members.iter().map(|member| &member.endpoint.id))
            }
        };
        let identity = match self.old.splits.get(&key) {
            Some(known) if same_members(known) => known.clone(),
            known => {
                // Tunnels come and go: one counter for all of them.
                let members: Vec<_> = if pool.of_tunnels {
                    Vec::new()
                } else {
                    pool.members.iter().map(|member| member.endpoint.id.clone()).collect()
                };
                let requests = members
                    .iter()
                    .map(|id| {
                        let at = known.and_then(|known| known.members.iter().position(|old| old == id));
                        let kept = at.zip(known).and_then(|(at, known)| known.stats.requests.get(at));
                        kept.map_or_else(|| Arc::new(Shards::new(self.old.workers)), Arc::clone)
                    })
                    .collect();
                let latency = known.map_or_else(
                    || Arc::new(Shards::new(self.old.workers)),
                    |known| Arc::clone(&known.stats.latency),
                );
                let rest = known.map_or_else(
                    || Arc::new(Shards::new(self.old.workers)),
                    |known| Arc::clone(&known.stats.rest),
                );
                SplitIdentity { members, stats: Arc::new(SplitStats { latency, requests, rest }) }
            }
        };
        let stats = Arc::clone(&identity.stats);
        self.new.splits.insert(key, identity);
        stats
    }

    /// Listeners that are not among `names` rest; those that rested long enough and have no visitor left are forgotten.
    pub(super) fn retire_listeners<'n>(&mut self, names: impl Iterator<Item = &'n str>, now: Tick) {
        let stay: BTreeSet<&str> = names.collect();
        let resting = |retired: &&Retired| {
            now.since(retired.since) < SLOT_REST || retired.listener.stats.sum(|shard| &shard.open) > 0
        };
        self.new.retired = self
            .old
            .retired
            .iter()
            .filter(|retired| !stay.contains(&*retired.listener.name))
            .filter(resting)
            .cloned()
            .collect();
        let gone = self.old.listeners.iter().filter(|(name, _)| !stay.contains(name.as_str()));
        self.new
            .retired
            .extend(gone.map(|(_, listener)| Retired { listener: Arc::clone(listener), since: now }));
        // Slots of listeners that stay are taken, whatever the order in which they are set.
        for name in stay {
            if let Some(known) = self.old.listeners.get(name).or_else(|| self.old.retired_named(name)) {
                self.new.listeners.insert(name.to_owned(), Arc::clone(known));
            }
        }
    }

    /// The bound of a listener or route (`kind`), if it has one.
    pub(super) fn gate(&mut self, kind: &'static str, name: &str, limit: Option<u32>) -> Option<Gate> {
        let limit = limit?;
        let key = (kind, name.to_owned());
        let known = self.old.loads.get(&key).map(Arc::clone);
        let load = known.unwrap_or_else(|| Arc::new(Shards::new(self.old.workers)));
        self.new.loads.insert(key, Arc::clone(&load));
        Some(Gate::new(limit, load))
    }

    /// Slot and counters for the listener of that name.
    pub(super) fn listener_identity(&self, name: &str) -> (usize, Arc<Shards<ListenerShard>>) {
        if let Some(known) = self.new.listeners.get(name) {
            return (known.slot, Arc::clone(&known.stats));
        }
        let taken = self.all_listeners().map(|listener| listener.slot).collect();
        (lowest_free(&taken), Arc::new(Shards::new(self.old.workers)))
    }

    /// Sets what the listener is now.
    pub(super) fn set_listener(&mut self, listener: Arc<Listener>) {
        self.new.listeners.insert(listener.name.to_string(), listener);
    }

    /// All listeners at their slots.
    pub(super) fn listeners_by_slot(&self) -> Vec<Option<Arc<Listener>>> {
        let len = self.all_listeners().map(|listener| listener.slot + 1).max().unwrap_or(0);
        let mut slots = vec![None; len];
        for listener in self.all_listeners() {
            slots[listener.slot] = Some(Arc::clone(listener));
        }
        slots
    }

    fn all_listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.new.listeners.values().chain(self.new.retired.iter().map(|retired| &retired.listener))
    }
}

fn lowest_free(taken: &BTreeSet<usize>) -> usize {
    (0..).find(|slot| !taken.contains(slot)).expect("there are more numbers than slots")
}
