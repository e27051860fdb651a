//! Hashes that are the same on every machine, in every version.

use xxhash_rust::xxh3::Xxh3;

/// XXH3-64 of the parts. Where one part ends and the next begins matters: each is preceded by its length.
///
/// Part of what replicas must agree on, so it never changes.
#[must_use]
pub fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = Xxh3::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest()
}

/// Two numbers into one, each bit of which depends on all of theirs. SplitMix64's finalizer; a few multiplications.
///
/// Part of what replicas must agree on, too.
pub(crate) const fn mix(a: u64, b: u64) -> u64 {
    let mut mixed = a ^ b.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A hash as one of `0..bound`, each equally likely; 0 when `bound` is 0.
pub(crate) const fn reduce(hash: u64, bound: u64) -> u64 {
    ((hash as u128 * bound as u128) >> 64) as u64
}
