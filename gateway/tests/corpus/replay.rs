//! Committed corpora of fuzz targets, and mutations of them, for ordinary tests.

use std::path::Path;

/// The committed seeds of a target, by name.
pub(crate) fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds: Vec<(String, Vec<u8>)> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 8, "{}: only {} files", folder.display(), seeds.len());
    seeds
}

/// Checks the seeds of a target, then `rounds` mutations of them, always the same ones.
pub(crate) fn replay(target: &str, rounds: usize, check: impl Fn(&[u8])) {
    let seeds = corpus(target);
    for (_, bytes) in &seeds {
        check(bytes);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..rounds {
        let (name, bytes) = &seeds[random.below(seeds.len())];
        let other = &seeds[random.below(seeds.len())].1;
        let mutant = mutate(bytes, other, &mut random);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&mutant)));
        assert!(outcome.is_ok(), "round {round}, from {name}: b\"{}\"", mutant.escape_ascii());
    }
}

/// One to three small changes, with pieces of `other`.
pub(crate) fn mutate(bytes: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    const TELLING: &[u8] = b"\r\n\t :;,/?#*%@[]\0\x7f\x80\xff0159aAfFxX-+_\"\\";
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(out.len() + 1);
        let length = random.below(8).min(out.len() - at);
        match random.below(6) {
            0 => drop(out.splice(at..at + length, [])),
            1 => out.insert(at, TELLING[random.below(TELLING.len())]),
            2 => {
                let piece = out[at..at + length].to_vec();
                drop(out.splice(at..at, piece));
            }
            3 => {
                let from = random.below(other.len() + 1);
                let upto = from + random.below(40).min(other.len() - from);
                drop(out.splice(at..at, other[from..upto].iter().copied()));
            }
            4 if at < out.len() => out[at] ^= 1 << random.below(8),
            _ if at < out.len() => out[at] = TELLING[random.below(TELLING.len())],
            _ => {}
        }
    }
    out
}

/// xorshift64*.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from(number).unwrap() % bound
    }
}
