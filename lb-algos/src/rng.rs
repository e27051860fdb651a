//! Chance as policies see it: a seeded generator that the caller owns.

/// xoshiro256++ 1.0, seeded by SplitMix64: fast, 32 bytes, period 2²⁵⁶ − 1. Not for secrets.
///
/// Equal seeds give equal sequences on every machine, so whatever a policy did can be replayed. One per worker thread,
/// each with its own seed. Blackman and Vigna, "Scrambled Linear Pseudorandom Number Generators", ACM TOMS 47(4), 2021;
/// Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
#[derive(Debug, Clone)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The generator of `seed`; every seed is good, 0 too.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let mut mix = seed;
        // SplitMix64 never gives four zeros in a row, the one state xoshiro can't leave.
        Self { state: std::array::from_fn(|_| split_mix(&mut mix)) }
    }

    /// 64 random bits. O(1).
    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.state;
        let out = s0.wrapping_add(*s3).rotate_left(23).wrapping_add(*s0);
        let shifted = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= shifted;
        *s3 = s3.rotate_left(45);
        out
    }

    /// A number in `0..bound`, each equally likely (no modulo bias); 0 when `bound` is 0.
    ///
    /// O(1): one multiplication; redraws with probability < `bound` / 2³². Lemire, "Fast Random Integer Generation in an
    /// Interval", ACM TOMACS 29(1), 2019.
    pub fn below(&mut self, bound: u32) -> u32 {
        let mut wide = u64::from(self.next_u32()) * u64::from(bound);
        if low32(wide) < bound {
            // 2³² mod bound: so many low halves would be hit once too often. `max` only matters for bound 0.
            let unfair = bound.wrapping_neg() % bound.max(1);
            while low32(wide) < unfair {
                wide = u64::from(self.next_u32()) * u64::from(bound);
            }
        }
        high32(wide)
    }

    /// As [`Rng::below`], for 64 bits.
    pub fn below_u64(&mut self, bound: u64) -> u64 {
        let mut wide = u128::from(self.next_u64()) * u128::from(bound);
        if low64(wide) < bound {
            let unfair = bound.wrapping_neg() % bound.max(1);
            while low64(wide) < unfair {
                wide = u128::from(self.next_u64()) * u128::from(bound);
            }
        }
        high64(wide)
    }

    /// A number in `[0, 1)`: one of 2⁵³ evenly spaced ones, each equally likely.
    pub fn f64(&mut self) -> f64 {
        // 53 bits: a double holds them exactly.
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The upper half: xoshiro's lowest bits are its weakest.
    fn next_u32(&mut self) -> u32 {
        high32(self.next_u64())
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[expect(clippy::cast_possible_truncation, reason = "the half that is wanted")]
fn low32(wide: u64) -> u32 {
    wide as u32
}

fn high32(wide: u64) -> u32 {
    (wide >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the half that is wanted")]
fn low64(wide: u128) -> u64 {
    wide as u64
}

fn high64(wide: u128) -> u64 {
    (wide >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_sequence_of_its_authors() {
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let expected = [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
            9_228_616_714_210_784_205,
            9_973_669_472_204_895_162,
            14_011_001_112_246_962_877,
            12_406_186_145_184_390_807,
        ];
        assert_eq!(expected.map(|_| rng.next_u64()), expected);
    }

    #[test]
    fn the_seeding_gives_the_sequence_of_its_authors() {
        let mut state = 1_234_567;
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(expected.map(|_| split_mix(&mut state)), expected);
    }

    #[test]
    fn below_stays_below_and_below_nothing_or_one_is_zero() {
        let mut rng = Rng::seeded(1);
        for bound in [1, 2, 3, 7, 1 << 31, u32::MAX] {
            assert!((0..1000).all(|_| rng.below(bound) < bound), "bound {bound}");
            assert!((0..1000).all(|_| rng.below_u64(u64::from(bound)) < u64::from(bound)), "bound {bound}");
        }
        assert!((0..1000).all(|_| rng.below_u64(u64::MAX) < u64::MAX));
        assert_eq!((rng.below(0), rng.below_u64(0), rng.below(1), rng.below_u64(1)), (0, 0, 0, 0));
    }

    #[test]
    fn below_is_unbiased_where_the_range_does_not_divide() {
        // bound = 3/4 of the range: without redrawing, multiples of 3 would come twice as often as the others.
        let mut rng = Rng::seeded(2);
        let threes = (0..60_000).filter(|_| rng.below(3 << 30).is_multiple_of(3)).count();
        assert!((19_400..20_600).contains(&threes), "a third of 60000 expected, got {threes}");
        let threes = (0..60_000).filter(|_| rng.below_u64(3 << 62).is_multiple_of(3)).count();
        assert!((19_400..20_600).contains(&threes), "a third of 60000 expected, got {threes}");
    }

    #[test]
    fn f64_is_in_range_and_centred() {
        let mut rng = Rng::seeded(3);
        let draws: Vec<f64> = (0..10_000).map(|_| rng.f64()).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.015, "mean {mean}");
    }

    #[test]
    fn seeds_decide_the_sequence() {
        let draw = |seed| Rng::seeded(seed).next_u64();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
