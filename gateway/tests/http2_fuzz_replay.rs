//! The fuzz targets of HTTP/2, certificates, the admin API and configurations, on a stable toolchain: their committed
//! corpora, and a bounded number of mutations.
//!
//! `UPDATE_GOLDEN=1` writes the seeds anew (but those of certificates, which have keys of their own). What fuzzing finds beyond
//! them is committed beside them, and stays.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

#[path = "corpus/committed.rs"]
mod committed;
#[path = "corpus/h2/invariants.rs"]
mod invariants;
#[path = "corpus/replay.rs"]
mod replay;
#[path = "corpus/h2/seeds.rs"]
mod seeds;

use replay::replay;

#[test]
fn the_committed_seeds_are_those_of_the_generator() {
    committed::check(seeds::all());
}

#[test]
fn requests_over_http_2_say_the_same_in_http_1_and_nothing_else() {
    replay("h2_request", 60_000, invariants::h2_request);
}

#[test]
fn answers_reach_visitors_over_http_2_whole_however_they_are_cut_or_not_at_all() {
    replay("h2_answer", 4_000, invariants::h2_answer);
}

#[test]
fn floods_are_found_however_their_bytes_are_cut() {
    replay("h2_guard", 3_000, invariants::h2_guard);
}

#[test]
fn requests_to_applications_over_http_2_are_the_same_back_in_http_1() {
    replay("h2c_request", 60_000, invariants::h2c_request);
}

#[test]
fn what_is_told_of_certificates_is_plain_text() {
    replay("certificate", 20_000, invariants::certificate);
}

#[test]
fn whatever_an_admin_api_says_costs_no_more_than_itself() {
    replay("admin_api", 30_000, invariants::admin_api);
}

#[test]
fn every_file_is_a_configuration_or_has_errors_with_a_place() {
    replay("config_file", 1_500, invariants::config_file);
}
