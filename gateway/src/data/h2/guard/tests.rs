use std::time::{Duration, Instant};

use super::{Frames, Guard, MOST, OF_ANSWER, OF_RESET, PER_SECOND, kind};
use crate::data::h2::PREFACE;

const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

fn frame(kind: u8, length: usize) -> Vec<u8> {
    let length_bytes = u32::try_from(length).expect("small").to_be_bytes();
    let mut bytes = vec![length_bytes[1], length_bytes[2], length_bytes[3], kind, 0, 0, 0, 0, 1];
    bytes.resize(9 + length, 0);
    bytes
}

fn guard(at: Instant) -> Guard {
    let mut guard = Guard::new(at);
    guard.came(PREFACE, || at);
    guard
}

/// How many of these are let through, all at once.
fn most(kind: u8, length: usize) -> u32 {
    let at = Instant::now();
    let mut guard = guard(at);
    let bytes = frame(kind, length);
    let mut count = 0;
    while !guard.is_flooded() && count < 100_000 {
        guard.came(&bytes, || at);
        count += 1;
    }
    count - 1
}

#[test]
fn frames_are_found_however_the_bytes_are_cut() {
    let frames = [(kind::SETTINGS, 0), (PING, 8), (kind::DATA, 70_000), (WINDOW_UPDATE, 4), (kind::DATA, 1)];
    let bytes: Vec<u8> = frames.iter().flat_map(|(kind, length)| frame(*kind, *length)).collect();
    for cut in [1, 2, 3, 7, 8, 9, 10, 16, 17, 18, 1000, 16_384, bytes.len()] {
        let (mut reader, mut seen) = (Frames::default(), Vec::new());
        for part in bytes.chunks(cut) {
            reader.pass(part, |length, kind| seen.push((kind, length)));
        }
        assert_eq!(seen, frames, "cut every {cut} bytes");
    }
}

#[test]
fn floods_are_noticed_and_payload_is_none() {
    assert_eq!(most(PING, 8), MOST);
    assert_eq!(most(WINDOW_UPDATE, 4), MOST);
    assert_eq!(most(kind::SETTINGS, 0), MOST / super::OF_SETTINGS);
    assert_eq!(most(kind::RST_STREAM, 4), MOST / OF_RESET);
    assert_eq!(most(kind::DATA, 0), MOST, "frames of DATA without any");
    assert_eq!(most(kind::DATA, 1), 99_999, "data are bounded elsewhere");
    assert_eq!(most(kind::HEADERS, 20), 99_999, "requests are bounded elsewhere");
}

#[test]
fn a_long_download_earns_its_window_updates() {
    let at = Instant::now();
    let mut guard = guard(at);
    for number in 0..1_000_000 {
        guard.goes(&frame(kind::DATA, 30), || at);
        guard.came(&frame(WINDOW_UPDATE, 4), || at);
        guard.came(&frame(WINDOW_UPDATE, 4), || at);
        guard.came(&frame(PING, 8), || at);
        assert!(!guard.is_flooded(), "after {number} frames");
    }
}

#[test]
fn time_is_worth_points_up_to_a_bound() {
    let begin = Instant::now();
    let mut guard = guard(begin);
    let ping = frame(PING, 8);
    (0..MOST).for_each(|_| guard.came(&ping, || begin));
    assert!(!guard.is_flooded());
    for second in 1..100 {
        let now = begin + Duration::from_secs(second);
        (0..PER_SECOND).for_each(|_| guard.came(&ping, || now));
        assert!(!guard.is_flooded(), "in second {second}");
    }
    let later = begin + Duration::from_secs(1_000_000);
    (0..MOST).for_each(|_| guard.came(&ping, || later));
    assert!(!guard.is_flooded());
    guard.came(&ping, || later);
    assert!(guard.is_flooded(), "a long wait isn't worth more than a new connection");
}

#[test]
fn resets_that_we_are_made_to_send_count_and_answers_make_up_for_some() {
    let at = Instant::now();
    let mut guard = guard(at);
    for _ in 0..MOST / OF_RESET {
        guard.goes(&frame(kind::RST_STREAM, 4), || at);
    }
    assert!(!guard.is_flooded());
    guard.goes(&frame(kind::HEADERS, 30), || at);
    assert_eq!(guard.points, OF_ANSWER);
    guard.goes(&frame(kind::RST_STREAM, 4), || at);
    assert!(guard.is_flooded());
}
