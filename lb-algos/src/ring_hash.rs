//! Ring hashing.

use std::sync::Arc;

use crate::{Ask, Fleet, Pick, Place, Policy, Rng, bounded_load::Walk};

/// Points of an endpoint of weight 1, as in nginx.
const POINTS: u64 = 160;

/// Points of a whole ring at most: 4 MiB.
const MOST_POINTS: u64 = 1 << 19;

/// Points tried for one key before all endpoints are compared.
const TRIES: usize = 64;

/// Picks by the request's key, with the owners of nginx's `hash … consistent` and of memcached clients ("ketama").
///
/// - Same owners as nginx for the same keys, hosts, ports and weights: for caches behind both. Else prefer
///   [`Maglev`](crate::Maglev), whose shares are even; with 160 points they are off by some 8 %.
/// - One of `n` leaves: only its keys move.
/// - Owner ineligible: the next point's endpoint, so the keys of a dead endpoint spread over all. Owner's live weight below
///   that of the ring (slow start): it keeps that part of its keys.
/// - With a bound, an endpoint takes a key only while that leaves it within its share of all that is in flight; else the
///   key goes on the same way, always to the same next endpoint.
/// - No key: a random one.
/// - Cost: O(log points), 160 × Σ weight of them; O(n) when 64 points were of no use, with a bound whenever an endpoint
///   asked is not idle, and for all keys without a ring of this fleet's size. No allocation; `rebuild` is O(1).
/// - `None` only when no eligible endpoint has weight > 0.
///
/// Karger et al., "Consistent Hashing and Random Trees", STOC 1997; points as in nginx,
/// `ngx_http_upstream_hash_module.c`.
#[derive(Debug, Default)]
pub struct RingHash {
    bound: Option<u32>,
    ring: Option<Arc<Ring>>,
}

impl RingHash {
    /// Has no ring yet. `bound`: what an endpoint may have in flight, percent of its fair share, ≥ 100.
    #[must_use]
    pub fn new(bound: Option<u32>) -> Self {
        Self { bound, ring: None }
    }

    /// As given to [`RingHash::new`].
    #[must_use]
    pub fn bound(&self) -> Option<u32> {
        self.bound
    }

    /// What keys are looked up in from now on; used while its size is the fleet's.
    pub fn set_ring(&mut self, ring: Option<Arc<Ring>>) {
        self.ring = ring;
    }
}

impl Policy for RingHash {
    fn pick<F: Fleet + ?Sized>(&mut self, fleet: &F, ask: Ask, rng: &mut Rng) -> Option<Pick> {
        let key = ask.key.unwrap_or_else(|| rng.next_u64());
        let mut walk = Walk::new(key, self.bound);
        let ring = self.ring.as_ref().filter(|ring| ring.weights.len() == fleet.len());
        let index =
            ring.and_then(|ring| ring.walk(key, fleet, &mut walk)).or_else(|| walk.rendezvous(fleet))?;
        Some(walk.reason(ask).of(index))
    }

    fn rebuild<F: Fleet + ?Sized>(&mut self, _fleet: &F) {}
}

/// Points on a circle of 2³², each owned by an endpoint. 8 bytes per point.
#[derive(Debug)]
pub struct Ring {
    /// By hash, each hash once.
    points: Box<[Point]>,
    /// Of each endpoint, as built.
    weights: Box<[u32]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    hash: u32,
    owner: u32,
}

impl Ring {
    /// The ring of those places: 160 × weight points for each, as nginx has them.
    ///
    /// Where that would be more than 524,288 in all, weights are divided by their greatest common divisor, and if it is
    /// still too much, the points by a power of two, down to one: shares stay, nginx's owners don't. O(p log p) for p
    /// points: 0.1 ms for 1,000, some 50 ms for the most.
    #[must_use]
    pub fn build(places: &[Place<'_>]) -> Self {
        let weights: Box<[u32]> = places.iter().map(|place| place.weight).collect();
        let (divisor, shift) = scale(&weights);
        let mut points: Vec<Point> = Vec::new();
        for (owner, place) in (0..u32::MAX).zip(places).filter(|(_, place)| place.weight > 0) {
            let mut base = crc32fast::Hasher::new();
            base.update(place.host.as_bytes());
            base.update(b"\0");
            base.update(place.port.to_string().as_bytes());
            let mut hash = 0_u32;
            for _ in 0..((u64::from(place.weight) / divisor * POINTS) >> shift).max(1) {
                // Each point follows from the one before.
                let mut hasher = base.clone();
                hasher.update(&hash.to_le_bytes());
                hash = hasher.finalize();
                points.push(Point { hash, owner });
            }
        }
        points.sort_unstable();
        points.dedup_by_key(|point| point.hash);
        Self { points: points.into(), weights }
    }

    fn walk<F: Fleet + ?Sized>(&self, key: u64, fleet: &F, walk: &mut Walk) -> Option<usize> {
        let hash = fold(key);
        let start = self.points.partition_point(|point| point.hash < hash);
        let (before, after) = self.points.split_at(start);
        let mut refused = None;
        after.iter().chain(before).take(TRIES).find_map(|point| {
            let index = usize::try_from(point.owner).ok()?;
            // Points of one endpoint in a row are common in small fleets: one question answers them all.
            if refused.replace(index) == Some(index) {
                return None;
            }
            walk.takes(fleet, index, self.weights[index]).then_some(index)
        })
    }
}

/// What to divide weights by, and by which power of two their points.
fn scale(weights: &[u32]) -> (u64, u32) {
    let points =
        |divisor: u64| weights.iter().map(|&weight| u64::from(weight) / divisor * POINTS).sum::<u64>();
    if points(1) <= MOST_POINTS {
        return (1, 0);
    }
    let divisor = weights.iter().map(|&weight| u64::from(weight)).fold(0, gcd);
    // A power of two, so that it seldom changes when one endpoint joins or leaves.
    let shift = (0..64).find(|shift| points(divisor) >> shift <= MOST_POINTS).unwrap_or(63);
    (divisor, shift)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A key as a point: itself, if it is one.
#[expect(clippy::cast_possible_truncation, reason = "both halves are in it")]
const fn fold(key: u64) -> u32 {
    (key ^ (key >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(weights: &[u32]) -> Vec<Place<'static>> {
        (1000..)
            .zip(weights)
            .map(|(port, &weight)| Place { host: "10.0.0.1", port, key: 0, weight })
            .collect()
    }

    #[test]
    fn each_endpoint_has_160_points_per_weight() {
        let ring = Ring::build(&places(&[1, 3, 0]));
        let of = |owner| ring.points.iter().filter(|point| point.owner == owner).count();
        assert_eq!([of(0), of(1), of(2)], [160, 480, 0]);
    }

    #[test]
    fn great_weights_keep_their_proportions_and_the_ring_its_size() {
        for (weights, expected) in [
            (vec![3_000_000_000, 1_000_000_000], [480.0, 160.0]),
            (vec![u32::MAX, u32::MAX / 2], [320_000.0, 160_000.0]),
        ] {
            let ring = Ring::build(&places(&weights));
            let of = |owner| ring.points.iter().filter(|point| point.owner == owner).count() as f64;
            assert!(ring.points.len() as u64 <= MOST_POINTS, "{weights:?}: {}", ring.points.len());
            let (ratio, ideal) = (of(0) / of(1), expected[0] / expected[1]);
            assert!((ratio / ideal - 1.0).abs() < 0.01, "{weights:?}: {ratio} instead of {ideal}");
        }
    }

    #[test]
    fn an_empty_ring_owns_nothing() {
        assert!(Ring::build(&[]).points.is_empty());
        assert!(Ring::build(&places(&[0, 0])).points.is_empty());
    }
}
