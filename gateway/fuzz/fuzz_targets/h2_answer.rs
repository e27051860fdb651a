//! Any bytes; what must hold is in `invariants.rs`.
#![no_main]

#[path = "../../tests/corpus/h2/invariants.rs"]
#[allow(dead_code, reason = "other targets use the rest")]
mod invariants;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| invariants::h2_answer(bytes));
