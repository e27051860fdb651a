//! Any bytes; what must hold is in `invariants.rs`.
#![no_main]

#[path = "../../tests/corpus/http1/invariants.rs"]
#[allow(dead_code, reason = "other targets use the rest")]
mod invariants;

use frp_gateway::http1::Method;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for method in [Method::Get, Method::Head] {
        drop(invariants::response(bytes, method));
    }
});
