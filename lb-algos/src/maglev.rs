//! Maglev hashing.

use std::sync::Arc;

use crate::{
    Ask, Fleet, Pick, Place, Policy, Rng,
    bounded_load::Walk,
    hash::{mix, reduce},
};

/// Slots of an ordinary table; a prime. The paper's "small" size.
const SLOTS: usize = 65_537;

/// Slots for more than [`MANY`] endpoints; the paper's "big" size.
const MANY_SLOTS: usize = 655_373;

/// Above this a slot more or less would be a tenth of an endpoint's share.
const MANY: usize = SLOTS / 10;

/// Slots tried for one key before all endpoints are compared. With half of them ineligible, 1 in 256 keys gets there.
const TRIES: u64 = 8;

/// Picks by the request's key: equal keys meet the same endpoint as long as it is eligible and not overloaded.
///
/// - Shares follow weights within one slot in 65,537: for `n` equal endpoints within `n` / 65,537 of a share, so 1 % at 655
///   and 4.6 % at 3,000. That is [`RingHash`](crate::RingHash)'s weak side, which is off by some 8 % at any size.
/// - One of `n` leaves: its keys move, and up to 2 % of the others' (measured 0.1 to 1 %).
/// - Owner ineligible: the key is hashed anew, up to 8 times, so the keys of a dead endpoint spread over all. Owner's live
///   weight below that of the table (slow start): it keeps that part of its keys.
/// - With a bound, an endpoint takes a key only while that leaves it within its share of all that is in flight; else the
///   key goes on the same way, always to the same next endpoint.
/// - No key: a random one.
/// - Cost: O(1), one cache miss in a table shared by all workers; O(n) when 8 slots were of no use, with a bound whenever an
///   endpoint asked is not idle, and for all keys without a table of this fleet's size. No allocation; `rebuild` is O(1).
/// - `None` only when no eligible endpoint has weight > 0.
///
/// Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4; weights as in Envoy.
#[derive(Debug, Default)]
pub struct Maglev {
    bound: Option<u32>,
    table: Option<Arc<MaglevTable>>,
}

impl Maglev {
    /// Has no table yet. `bound`: what an endpoint may have in flight, percent of its fair share, ≥ 100.
    #[must_use]
    pub fn new(bound: Option<u32>) -> Self {
        Self { bound, table: None }
    }

    /// As given to [`Maglev::new`].
    #[must_use]
    pub fn bound(&self) -> Option<u32> {
        self.bound
    }

    /// What keys are looked up in from now on; used while its size is the fleet's.
    pub fn set_table(&mut self, table: Option<Arc<MaglevTable>>) {
        self.table = table;
    }
}

impl Policy for Maglev {
    fn pick<F: Fleet + ?Sized>(&mut self, fleet: &F, ask: Ask, rng: &mut Rng) -> Option<Pick> {
        let key = ask.key.unwrap_or_else(|| rng.next_u64());
        let mut walk = Walk::new(key, self.bound);
        let table = self.table.as_ref().filter(|table| table.weights.len() == fleet.len());
        let index =
            table.and_then(|table| table.walk(key, fleet, &mut walk)).or_else(|| walk.rendezvous(fleet))?;
        Some(walk.reason(ask).of(index))
    }

    fn rebuild<F: Fleet + ?Sized>(&mut self, _fleet: &F) {}
}

/// Which endpoint owns which slot. 128 KiB.
#[derive(Debug)]
pub struct MaglevTable {
    slots: Box<[u16]>,
    /// Of each endpoint, as built.
    weights: Box<[u32]>,
}

impl MaglevTable {
    /// The table of those places. The same for the same set of keys and weights, whatever their order.
    ///
    /// About 2 ms and at most 1.3 MB, for any size. Empty, so that keys are looked up at O(n), when no place has weight or
    /// there are more than 65,536.
    #[must_use]
    pub fn build(places: &[Place<'_>]) -> Self {
        Self::with_slots(places, if places.len() <= MANY { SLOTS } else { MANY_SLOTS })
    }

    fn with_slots(places: &[Place<'_>], size: usize) -> Self {
        let weights: Box<[u32]> = places.iter().map(|place| place.weight).collect();
        let mut turns = Turn::all(places, size);
        let heaviest = weights.iter().copied().max().map_or(0, u64::from);
        if turns.is_empty() || places.len() > usize::from(u16::MAX) + 1 {
            return Self { slots: Box::default(), weights };
        }
        let mut slots = vec![0; size].into_boxed_slice();
        let mut taken = vec![false; size];
        let (mut left, mut round) = (size, 0);
        while left > 0 {
            round += 1;
            for turn in &mut turns {
                // The heaviest has a turn each round, one of half the weight every other round.
                if round * turn.weight < turn.owed {
                    continue;
                }
                turn.owed += heaviest;
                while taken[turn.slot] {
                    turn.step(size);
                }
                taken[turn.slot] = true;
                slots[turn.slot] = turn.place;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        Self { slots, weights }
    }

    fn walk<F: Fleet + ?Sized>(&self, key: u64, fleet: &F, walk: &mut Walk) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        (0..TRIES).find_map(|attempt| {
            let slot = usize::try_from(reduce(mix(key, attempt), self.slots.len() as u64)).ok()?;
            let index = usize::from(self.slots[slot]);
            walk.takes(fleet, index, self.weights[index]).then_some(index)
        })
    }
}

/// One place while the table fills: its own order of slots, and when it may take the next.
struct Turn {
    key: u64,
    place: u16,
    weight: u64,
    owed: u64,
    slot: usize,
    skip: usize,
}

impl Turn {
    fn all(places: &[Place<'_>], size: usize) -> Vec<Self> {
        let below = |hash: u64, bound: usize| usize::try_from(reduce(hash, bound as u64)).unwrap_or(0);
        let turn = |(place, at): (u16, &Place<'_>)| Self {
            key: at.key,
            place,
            weight: u64::from(at.weight),
            owed: u64::from(at.weight),
            slot: below(mix(at.key, 0), size),
            // From 1 to size - 1: the size is prime, so every slot is visited.
            skip: 1 + below(mix(at.key, 1), size - 1),
        };
        let mut turns: Vec<Self> =
            (0..=u16::MAX).zip(places).filter(|(_, at)| at.weight > 0).map(turn).collect();
        turns.sort_by_key(|turn| turn.key);
        turns
    }

    fn step(&mut self, size: usize) {
        self.slot += self.skip;
        if self.slot >= size {
            self.slot -= size;
        }
    }
}
