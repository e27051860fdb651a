//! What outlives a snapshot, by identity: endpoints, verdicts, slots, counters.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use lb_algos::{PolicyKind, Tick};

use crate::{
    snapshot::{Endpoint, EndpointId, Listener, Pool, Verdict},
    telemetry::{
        shard::Shards,
        stats::{ListenerShard, PoolShard, SplitStats},
    },
};

/// A removed listener keeps its slot at least this long: its accept queue may hold visitors that were let in.
const SLOT_REST: Duration = Duration::from_secs(5);

/// Everything that outlives a snapshot. A value: a compile reads one and makes the next.
#[derive(Debug, Clone)]
pub struct Identities {
    workers: usize,
    last_endpoint: u64,
    last_revision: u64,
    endpoints: HashMap<EndpointId, Arc<Endpoint>>,
    verdicts: HashMap<(String, EndpointId), Arc<Verdict>>,
    pools: HashMap<String, PoolIdentity>,
    splits: HashMap<(String, Arc<str>), SplitIdentity>,
    listeners: HashMap<String, Arc<Listener>>,
    retired: Vec<Retired>,
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
    shape: PoolShape,
}

/// What a worker's policy state depends on; a change means a new revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoolShape {
    /// The rule.
    pub(super) policy: PolicyKind,
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
            verdicts: HashMap::new(),
            pools: HashMap::new(),
            splits: HashMap::new(),
            listeners: HashMap::new(),
            retired: Vec::new(),
        }
    }

    /// Slot of a listener that is configured, or was until a moment ago.
    #[must_use]
    pub fn listener_slot(&self, name: &str) -> Option<usize> {
        self.listeners.get(name).or_else(|| self.retired_named(name)).map(|listener| listener.slot)
    }

    /// What a probe sets.
    #[must_use]
    pub fn probed(&self, pool: &str, endpoint: &EndpointId) -> Option<(Arc<Endpoint>, Arc<Verdict>)> {
        let verdict = self.verdicts.get(&(pool.to_owned(), endpoint.clone()))?;
        Some((Arc::clone(self.endpoints.get(endpoint)?), Arc::clone(verdict)))
    }

    /// Whether removed listeners hold on to something.
    #[must_use]
    pub fn has_retired(&self) -> bool {
        !self.retired.is_empty()
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
}

impl<'a> Carry<'a> {
    /// Nothing is carried over yet.
    #[must_use]
    pub(super) fn new(old: &'a Identities) -> Self {
        let new = Identities {
            last_endpoint: old.last_endpoint,
            last_revision: old.last_revision,
            ..Identities::new(old.workers)
        };
        Self { old, new, pool_slots: BTreeSet::new() }
    }

    /// What was carried over or made.
    #[must_use]
    pub(super) fn finish(self) -> Identities {
        self.new
    }

    /// The endpoint of that identity, with all that is known of it.
    pub(super) fn endpoint(&mut self, id: EndpointId) -> Arc<Endpoint> {
        if let Some(known) = self.new.endpoints.get(&id) {
            return Arc::clone(known);
        }
        let endpoint = self.old.endpoints.get(&id).cloned().unwrap_or_else(|| {
            self.new.last_endpoint += 1;
            Arc::new(Endpoint::new(id.clone(), self.new.last_endpoint, self.old.workers))
        });
        self.new.endpoints.insert(id, Arc::clone(&endpoint));
        endpoint
    }

    /// What `pool`'s checks say about `endpoint`.
    pub(super) fn verdict(&mut self, pool: &str, endpoint: &EndpointId) -> Arc<Verdict> {
        let key = (pool.to_owned(), endpoint.clone());
        let verdict = self.old.verdicts.get(&key).cloned().unwrap_or_default();
        Arc::clone(self.new.verdicts.entry(key).or_insert(verdict))
    }

    /// Reserves the slots of pools that stay, before new ones take what is free.
    pub(super) fn keep_pool_slots<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        self.pool_slots = names.filter_map(|name| Some(self.old.pools.get(name)?.slot)).collect();
    }

    /// Slot, revision and counters of a pool. Revisions are never used twice, so a slot may be.
    pub(super) fn pool(&mut self, name: &str, shape: PoolShape) -> PoolIdentity {
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
            known.members.iter().eq(pool.members.iter().map(|member| &member.endpoint.id))
        };
        let identity = match self.old.splits.get(&key) {
            Some(known) if same_members(known) => known.clone(),
            known => {
                let members: Vec<_> = pool.members.iter().map(|member| member.endpoint.id.clone()).collect();
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
                SplitIdentity { members, stats: Arc::new(SplitStats { latency, requests }) }
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
