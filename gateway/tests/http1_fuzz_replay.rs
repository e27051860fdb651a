//! The fuzz targets on a stable toolchain: their committed corpus, and a bounded number of mutations of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "corpus/http1/invariants.rs"]
mod invariants;
#[path = "corpus/replay.rs"]
mod replay;

use frp_gateway::http1::{ChunkedDecoder, Method, RequestHead, ResponseHead};
use replay::{Random, corpus, mutate, replay};

/// Mutations per target, each with all checks at all cuts.
const ROUNDS: usize = 4_000;
/// Mutations that only have to be survived, in bounds.
const QUICK_ROUNDS: usize = 100_000;

#[test]
fn request_head_corpus_and_its_mutations_keep_the_invariants() {
    replay("request_head", ROUNDS, |bytes| drop(invariants::request(bytes)));
}

#[test]
fn response_head_corpus_and_its_mutations_keep_the_invariants() {
    replay("response_head", ROUNDS, |bytes| {
        for method in [Method::Get, Method::Head] {
            drop(invariants::response(bytes, method));
        }
    });
}

#[test]
fn chunked_corpus_and_its_mutations_keep_the_invariants() {
    replay("chunked", ROUNDS, |bytes| drop(invariants::chunked(bytes)));
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
