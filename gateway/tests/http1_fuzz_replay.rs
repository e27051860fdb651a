//! The fuzz targets on a stable toolchain: their committed corpus, and a bounded number of mutations of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "corpus/http1/invariants.rs"]
mod invariants;

use std::path::Path;

use frp_gateway::http1::{ChunkedDecoder, Method, RequestHead, ResponseHead};

/// Mutations per target, each with all checks at all cuts.
const ROUNDS: usize = 4_000;
/// Mutations that only have to be survived, in bounds.
const QUICK_ROUNDS: usize = 100_000;

#[test]
fn request_head_corpus_and_its_mutations_keep_the_invariants() {
    replay("request_head", |bytes| drop(invariants::request(bytes)));
}

#[test]
fn response_head_corpus_and_its_mutations_keep_the_invariants() {
    replay("response_head", |bytes| {
        for method in [Method::Get, Method::Head] {
            drop(invariants::response(bytes, method));
        }
    });
}

#[test]
fn chunked_corpus_and_its_mutations_keep_the_invariants() {
    replay("chunked", |bytes| drop(invariants::chunked(bytes)));
}

#[test]
fn a_hundred_thousand_mutations_never_panic_and_their_spans_stay_in_bounds() {
    let seeds: Vec<_> = ["request_head", "response_head", "chunked"].into_iter().flat_map(corpus).collect();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut request, mut response) = (RequestHead::default(), ResponseHead::default());
    let mut complete = [0; 3];
    for round in 0..QUICK_ROUNDS {
        let (name, bytes) = &seeds[random.below(seeds.len())];
        let mutant = mutate(bytes, &seeds[random.below(seeds.len())].1, &mut random);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut spans = vec![];
            if request.parse(&mutant, &invariants::LIMITS) == Ok(true) {
                complete[0] += 1;
                spans.extend([request.method_span, request.target, request.path, request.host]);
                spans.extend(request.query.into_iter().chain([request.host_name]));
                spans.extend(request.fields.iter().flat_map(|field| [field.name, field.value]));
                assert!(request.len <= mutant.len(), "a head of {} bytes", request.len);
            }
            if response.parse(&mutant, &invariants::LIMITS, Method::Get) == Ok(true) {
                complete[1] += 1;
                spans.push(response.reason);
                spans.extend(response.fields.iter().flat_map(|field| [field.name, field.value]));
                assert!(response.len <= mutant.len(), "a head of {} bytes", response.len);
            }
            if let Ok(scan) = ChunkedDecoder::default().scan(&mutant) {
                complete[2] += usize::from(scan.done);
                assert!(scan.consumed <= mutant.len(), "{scan:?}");
            }
            for span in spans {
                let (start, end) = (span.start as usize, span.end as usize);
                assert!(mutant.get(start..end).is_some(), "{span:?} of {} bytes", mutant.len());
            }
        }));
        assert!(outcome.is_ok(), "round {round}, from {name}: b\"{}\"", mutant.escape_ascii());
    }
    assert!(complete.iter().all(|count| *count >= 1_000), "too few survive mutation: {complete:?}");
}

/// The committed seeds of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
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

fn replay(target: &str, check: impl Fn(&[u8])) {
    let seeds = corpus(target);
    for (_, bytes) in &seeds {
        check(bytes);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..ROUNDS {
        let (name, bytes) = &seeds[random.below(seeds.len())];
        let other = &seeds[random.below(seeds.len())].1;
        let mutant = mutate(bytes, other, &mut random);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&mutant)));
        assert!(outcome.is_ok(), "round {round}, from {name}: b\"{}\"", mutant.escape_ascii());
    }
}

fn mutate(bytes: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
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
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from(number).unwrap() % bound
    }
}
