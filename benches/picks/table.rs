//! What was measured, as Markdown, and its place in `RESULTS.md`.

use std::{fmt::Write, fs, io, process::Command};

use crate::{FLEETS, Plan, contestant::Contestant, pingora, tower_p2c};

const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/RESULTS.md");
const FROM: &str = "<!-- benches/picks: from here -->";
const TO: &str = "<!-- benches/picks: to here -->";

/// Ours, and the peer that does the same job.
const PAIRS: [(&str, &str); 6] = [
    ("round_robin", pingora::ROUND_ROBIN),
    ("random", pingora::RANDOM),
    ("maglev, bound off", pingora::FNV),
    ("ring_hash, bound off", pingora::CONSISTENT),
    ("least_request", tower_p2c::PENDING),
    ("peak_ewma", tower_p2c::EWMA),
];

/// A run.
pub(crate) struct Report<'a> {
    pub(crate) plan: Plan,
    pub(crate) contestants: &'a [Contestant],
}

impl Report<'_> {
    pub(crate) fn markdown(&self) -> String {
        let mut text = self.head();
        text += "\n| ratio of ns per pick; below 1 ours is cheaper |";
        text += &columns("");
        for (ours, peer) in PAIRS {
            let peers = [peer.to_owned(), format!("{peer}{}", tower_p2c::OWN)];
            for peer in peers.iter().filter(|peer| self.has(peer) && self.has(ours)) {
                let ratio =
                    |size, threads| Some(self.nanos(ours, size, threads)? / self.nanos(peer, size, threads)?);
                text += &row(&format!("{ours} ÷ {peer}"), |size, threads| {
                    ratio(size, threads).map_or("–".into(), |ratio| format!("{ratio:.2}"))
                });
                text += "\n";
            }
        }
        text += "\n| ns per pick of each thread |";
        text += &columns(" allocations per pick |");
        for name in self.names() {
            text += &row(name, |size, threads| {
                self.nanos(name, size, threads)
                    .map_or("–".into(), |nanos| format!("{nanos:.*}", usize::from(nanos < 99.5)))
            });
            let _infallible = writeln!(text, " {} |", self.allocations(name));
        }
        text
    }

    fn head(&self) -> String {
        let output = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
            output.map_or("?".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let file = |path| fs::read_to_string(path).unwrap_or_default();
        let cpu = file("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kept: usize = self.contestants.iter().map(|one| one.quiet.len()).sum();
        let dropped: usize = self.contestants.iter().map(|one| one.disturbed.len()).sum();
        let never_quiet = self.contestants.iter().filter(|one| one.quiet.is_empty()).count();
        let mut spread: Vec<f64> = self
            .contestants
            .iter()
            .filter_map(Contestant::sorted)
            .map(|nanos| (nanos[nanos.len() / 2] / nanos[0] - 1.0) * 100.0)
            .collect();
        spread.sort_by(f64::total_cmp);
        let spread = |part: usize| spread.get(spread.len() * part / 10).copied().unwrap_or_default();
        format!(
            "{} on {}, {} cores, kernel {}; commit {}, tower {}, pingora-load-balancing {}. {} rounds of {} ms at least. \
            Disturbed rounds: {dropped}, quiet ones: {kept}, contestants without a quiet one: {never_quiet}. The median round of \
            a contestant is {:.0} % above its least (in the middle; of one in ten {:.0} % and more). Plain call: {:.1} ns.\n",
            output("date", &["-u", "+%F %R UTC"]),
            cpu.map_or("?", |(_, cpu)| cpu),
            crate::contestant::cores().map_or(0, |cores| cores.len()),
            file("/proc/sys/kernel/osrelease").trim(),
            output("git", &["describe", "--always", "--dirty"]),
            locked_version("tower"),
            locked_version("pingora-load-balancing"),
            self.plan.rounds,
            self.plan.slice.as_millis(),
            spread(5),
            spread(9),
            self.plain(FLEETS[0]),
        )
    }

    /// Each name once, in order, but for the plain call.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for contestant in self.contestants {
            if contestant.name != tower_p2c::PLAIN && !names.contains(&contestant.name.as_str()) {
                names.push(&contestant.name);
            }
        }
        names
    }

    fn has(&self, name: &str) -> bool {
        self.contestants.iter().any(|one| one.name == name)
    }

    fn all_of(&self, name: &str) -> impl Iterator<Item = &Contestant> {
        self.contestants.iter().filter(move |one| one.name == name)
    }

    /// For tower without what the call itself costs.
    fn nanos(&self, name: &str, size: usize, threads: usize) -> Option<f64> {
        let nanos = self.all_of(name).find(|one| one.size == size && one.threads() == threads)?.figure()?;
        Some(if name.starts_with("tower") { nanos - self.plain(size) } else { nanos })
    }

    fn plain(&self, size: usize) -> f64 {
        self.all_of(tower_p2c::PLAIN)
            .find(|one| one.size == size)
            .and_then(Contestant::figure)
            .unwrap_or_default()
    }

    fn allocations(&self, name: &str) -> String {
        let most = self.all_of(name).map(|one| one.allocations).fold(0.0, f64::max);
        if most == 0.0 { "0".into() } else { format!("{most:.1}") }
    }
}

/// Replaces what is between the marks.
pub(crate) fn write(report: &str) -> io::Result<()> {
    let text = fs::read_to_string(RESULTS)?;
    let around = text.split_once(FROM).and_then(|(before, rest)| Some((before, rest.split_once(TO)?.1)));
    let (before, after) =
        around.ok_or_else(|| io::Error::other(format!("{RESULTS}: no marks {FROM} … {TO}")))?;
    fs::write(RESULTS, format!("{before}{FROM}\n\n{report}\n{TO}{after}"))
}

/// What follows the first cell of a table's head.
fn columns(more: &str) -> String {
    let mut text = String::new();
    for size in FLEETS {
        let _infallible = write!(text, " {size} | 2 threads |");
    }
    text += more;
    let rules = "---|".repeat(1 + text.matches('|').count());
    format!("{text}\n|{rules}\n")
}

fn row(name: &str, cell: impl Fn(usize, usize) -> String) -> String {
    let mut text = format!("| {name} |");
    for size in FLEETS {
        let _infallible = write!(text, " {} | {} |", cell(size, 1), cell(size, 2));
    }
    text
}

fn locked_version(package: &str) -> &'static str {
    let lock = include_str!("../../Cargo.lock");
    let entry = format!("name = \"{package}\"\nversion = \"");
    lock.split_once(&entry).and_then(|(_, rest)| rest.split_once('"')).map_or("?", |(version, _)| version)
}
