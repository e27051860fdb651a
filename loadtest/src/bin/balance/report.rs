//! From samples to numbers, tables and pictures.

use std::{fmt::Write as _, fs, io, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{FLEET, Times, VICTIM, load::Sample, plot};

const WRITES: &str = "writing to a String cannot fail";
/// When the newcomer joins.
pub(crate) const JOINS: Duration = Duration::from_secs(3);
/// Time between two deaths in the zone run.
pub(crate) const ZONE_STEP: Duration = Duration::from_secs(5);
/// One point of a curve.
pub(crate) const BUCKET: Duration = Duration::from_millis(500);

/// One contestant's run.
type Run = (String, Vec<Sample>);

/// What a span of a run looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    requests: usize,
    /// Share of the victim, percent.
    victim: f64,
    /// Answers that weren't 200, percent.
    failed: f64,
    p50: f64,
    p99: f64,
}

/// Looks at the requests that were due between `from` and `to`.
pub(crate) fn span(samples: &[Sample], from: Duration, to: Duration) -> Span {
    let within: Vec<_> = samples.iter().filter(|one| from <= one.due && one.due < to).collect();
    let percent = |count: usize| 100.0 * count as f64 / within.len().max(1) as f64;
    let mut latencies: Vec<f64> = within.iter().map(|one| one.latency.as_secs_f64() * 1e3).collect();
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = latencies.len().saturating_sub(1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of an index")]
        let index = (last as f64 * share).round() as usize;
        latencies.get(index).copied().unwrap_or(0.0)
    };
    Span {
        requests: within.len(),
        victim: percent(within.iter().filter(|one| one.app == Some(VICTIM)).count()),
        failed: percent(within.iter().filter(|one| one.status != 200).count()),
        p50: at(0.5),
        p99: at(0.99),
    }
}

/// A phase's settled part: the first two seconds are told apart.
fn phases(times: Times) -> [(&'static str, Duration, Duration); 9] {
    let two = Duration::from_secs(2);
    [
        ("all well", Duration::ZERO, times.slow),
        ("10 × slower: first 2 s", times.slow, times.slow + two),
        ("10 × slower: after 2 s", times.slow + two, times.well),
        ("well again: 10 s on", times.failing - Duration::from_secs(4), times.failing),
        ("fails at once: first 2 s", times.failing, times.failing + two),
        ("fails at once: after 2 s", times.failing + two, times.mended),
        ("tunnel gone: first 2 s", times.killed, times.killed + two),
        ("tunnel gone: after 2 s", times.killed + two, times.back),
        ("tunnel back: last 4 s", times.end - Duration::from_secs(4), times.end),
    ]
}

/// Writes `balance.json`, `balance.md` and the pictures.
pub(crate) fn write(
    folder: &Path,
    times: Times,
    runs: &[Run],
    newcomers: &[Run],
    zones: &[Sample],
) -> Result<(), io::Error> {
    fs::create_dir_all(folder)?;
    let mut text = String::new();
    let mut record = json!({ "fleet": FLEET, "phases": {}, "newcomer": {}, "zones": [] });
    writeln!(
        text,
        "Five frps 0.71 with one frpc and one application of 50 ms each; {} requests/s per contestant, open loop, all contestants \
         at the same time before the same fleet. Each cell: share of the victim / p99 in ms / requests without a 200. \
         A fair share is 20 %.\n",
        crate::RATE
    ).expect(WRITES);
    for (title, chosen) in [("slow", 0..4), ("failing or gone", 4..9)] {
        let phases = &phases(times)[chosen];
        let heads: Vec<_> = phases.iter().map(|(name, ..)| *name).collect();
        writeln!(text, "**One of five: {title}**\n\n| | {} |", heads.join(" | ")).expect(WRITES);
        writeln!(text, "|---|{}", "---|".repeat(heads.len())).expect(WRITES);
        for (name, samples) in runs {
            let cells: Vec<_> = phases
                .iter()
                .map(|&(phase, from, to)| {
                    let seen = span(samples, from, to);
                    record["phases"][phase][name] = value(seen);
                    format!("{:.1} % / {:.0} / {:.1} %", seen.victim, seen.p99, seen.failed)
                })
                .collect();
            writeln!(text, "| {name} | {} |", cells.join(" | ")).expect(WRITES);
        }
        text.push('\n');
    }
    newcomer_table(&mut text, &mut record, newcomers);
    zone_table(&mut text, &mut record, zones);
    for (name, _) in runs.iter().filter(|(name, _)| name.starts_with("gateway") && !name.contains('+')) {
        let file = format!("{}.svg", name.trim_start_matches("gateway "));
        fs::write(folder.join(file), plot::svg(times, runs, name))?;
    }
    fs::write(folder.join("balance.md"), &text)?;
    fs::write(folder.join("balance.json"), format!("{record:#}\n"))
}

fn newcomer_table(text: &mut String, record: &mut Value, runs: &[Run]) {
    writeln!(
        text,
        "**A fifth member joins by a live edit** (share of the newcomer in the seconds after it joined; fair: 20 %)\n\n\
         | | 1st second | 2nd | 3rd–5th | 6th–10th | 11th–14th | p99 of the first 2 s, ms | without a 200 |\n|---|---|---|---|---|---|---|---|"
    ).expect(WRITES);
    for (name, samples) in runs {
        let last = Some(FLEET - 1);
        // The edit is noticed some milliseconds after it was made.
        let joined = samples.iter().find(|one| one.app == last).map_or(JOINS, |one| one.due);
        let share = |from: u64, to: u64| {
            let within = |one: &&Sample| {
                joined + Duration::from_secs(from) <= one.due && one.due < joined + Duration::from_secs(to)
            };
            let all = samples.iter().filter(within).count().max(1);
            100.0 * samples.iter().filter(within).filter(|one| one.app == last).count() as f64 / all as f64
        };
        let shares = [share(0, 1), share(1, 2), share(2, 5), share(5, 10), share(10, 14)];
        let around = span(samples, joined, joined + Duration::from_secs(2));
        let failed = samples.iter().filter(|one| one.status != 200).count();
        record["newcomer"][name] = json!({ "shares": shares, "p99_ms": around.p99, "failed": failed });
        let cells: Vec<_> = shares.iter().map(|share| format!("{share:.1} %")).collect();
        writeln!(text, "| {name} | {} | {:.0} | {failed} |", cells.join(" | "), around.p99).expect(WRITES);
    }
    text.push('\n');
}

fn zone_table(text: &mut String, record: &mut Value, samples: &[Sample]) {
    writeln!(
        text,
        "**Own zone with two members, three elsewhere, `locality: prefer`** (from one second after each death)\n\n\
         | | stays in the own zone | requests without a 200, of all in the phase |\n|---|---|---|"
    ).expect(WRITES);
    let mut rows = Vec::new();
    for (step, name) in (0_u32..).zip(["both up", "one of two killed", "both killed"]) {
        let (from, to) = (ZONE_STEP * step, ZONE_STEP * (step + 1));
        let all: Vec<_> = samples.iter().filter(|one| from <= one.due && one.due < to).collect();
        let settled: Vec<_> =
            all.iter().filter(|one| step == 0 || one.due >= from + Duration::from_secs(1)).collect();
        let local = settled.iter().filter(|one| one.app.is_some_and(|app| app < 2)).count();
        let share = 100.0 * local as f64 / settled.len().max(1) as f64;
        let failed = all.iter().filter(|one| one.status != 200).count();
        rows.push(json!({ "phase": name, "local_percent": share, "failed": failed, "requests": all.len() }));
        writeln!(text, "| {name} | {share:.1} % | {failed} of {} |", all.len()).expect(WRITES);
    }
    record["zones"] = rows.into();
}

fn value(span: Span) -> Value {
    json!({
        "requests": span.requests, "victim_percent": span.victim, "failed_percent": span.failed,
        "p50_ms": span.p50, "p99_ms": span.p99,
    })
}

/// Share of the victim and p99 over time, one point per [`BUCKET`].
pub(crate) fn curves(samples: &[Sample], end: Duration) -> (Vec<f64>, Vec<f64>) {
    let points = (0..).map(|step| BUCKET * step).take_while(|from| *from + BUCKET <= end);
    points.map(|from| span(samples, from, from + BUCKET)).map(|span| (span.victim, span.p99)).unzip()
}
