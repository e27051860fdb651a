//! The fuzz targets of what isn't HTTP, on a stable toolchain: their committed corpora, and a bounded number of mutations.
//!
//! `UPDATE_GOLDEN=1` writes the seeds anew. What fuzzing finds beyond them is committed beside them, and stays.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

#[path = "corpus/committed.rs"]
mod committed;
#[path = "corpus/wire/invariants.rs"]
mod invariants;
#[path = "corpus/replay.rs"]
mod replay;
#[path = "corpus/wire/seeds.rs"]
mod seeds;

use replay::replay;

/// Mutations per target, each with all checks at all cuts.
const ROUNDS: usize = 20_000;

#[test]
fn the_committed_seeds_are_those_of_the_generator() {
    committed::check(seeds::all());
}

#[test]
fn proxy_headers_mean_the_same_however_they_are_cut_and_are_written_as_they_are_read() {
    replay("proxy_header", ROUNDS, invariants::proxy_header);
}

#[test]
fn client_hellos_mean_the_same_however_they_are_cut_and_their_names_are_plain() {
    replay("client_hello", ROUNDS, invariants::client_hello);
}

#[test]
fn frp_clients_are_told_apart_alike_however_their_bytes_are_cut() {
    replay("frp_wire", ROUNDS, invariants::frp_wire);
}

#[test]
fn websocket_frames_end_where_a_reader_of_all_of_them_says() {
    replay("websocket_frames", ROUNDS, invariants::websocket_frames);
}

#[test]
fn every_plugin_call_is_answered_in_frps_own_words_and_tells_no_secret() {
    replay("plugin_call", ROUNDS, invariants::plugin_call);
}
