//! Gateways that replace each other: their process ids and ends.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used,
    reason = "each test file uses its own part"
)]

use std::fs;

use frp_gateway_loadtest::lab::Gateway;
use rustix::process::{Pid, Signal, kill_process};

/// Processes that are nobody's child here: killed at the end whatever happens.
#[derive(Default)]
pub struct Successors(pub Vec<u32>);

impl Drop for Successors {
    fn drop(&mut self) {
        for &pid in &self.0 {
            signal(pid, Signal::KILL);
        }
    }
}

pub fn signal(pid: u32, signal: Signal) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).is_ok()
}

/// Whether it runs: one that has ended and whom nobody waited for doesn't. Its first thread may end before the others, which
/// hold its sockets.
pub fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let others = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count) > 1;
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z') || others)
}

/// Process ids of the new processes, in order.
pub fn started(gateway: &Gateway) -> Vec<u32> {
    let log = gateway.log();
    let lines = log.lines().filter(|line| line.contains("upgrade: the new process starts"));
    lines.map(|line| line.split("pid=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()).collect()
}
