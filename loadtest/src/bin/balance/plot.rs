//! A picture without a library: two panels over one time axis.

use std::{fmt::Write as _, time::Duration};

use crate::{Times, load::Sample, report};

const WRITES: &str = "writing to a String cannot fail";
const WIDTH: f64 = 860.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const PANEL: f64 = 170.0;
const GAP: f64 = 46.0;
const TOP: f64 = 66.0;
/// Drawn thin behind the policy, where they ran.
const PEERS: [(&str, &str); 3] =
    [("gateway round_robin", "#8a8f98"), ("haproxy leastconn", "#d08a2e"), ("nginx least_conn", "#4f9a5b")];
const OURS: &str = "#2f6fde";

/// Share of the victim above, p99 below, from the start until it has recovered from being slow.
pub(crate) fn svg(times: Times, runs: &[(String, Vec<Sample>)], name: &str) -> String {
    let end = times.failing;
    let height = TOP + 2.0 * PANEL + GAP + 44.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"14\" font-weight=\"bold\">{name}: one of five turns 10 × slower</text>\n"
    );
    let mut lines: Vec<(&str, &str, f64)> =
        PEERS.iter().filter(|(peer, _)| *peer != name).map(|(peer, colour)| (*peer, *colour, 1.0)).collect();
    lines.push((name, OURS, 2.4));
    let known: Vec<_> = lines
        .iter()
        .filter_map(|(who, colour, width)| {
            let (_, samples) = runs.iter().find(|(run, _)| run == who)?;
            Some((*who, *colour, *width, report::curves(samples, end)))
        })
        .collect();
    for (at, (who, colour, ..)) in known.iter().enumerate() {
        let x = LEFT + 195.0 * at as f64;
        writeln!(
            out,
            "<line x1=\"{x}\" y1=\"34\" x2=\"{}\" y2=\"34\" stroke=\"{colour}\" stroke-width=\"3\"/><text x=\"{}\" y=\"38\">{who}</text>",
            x + 18.0,
            x + 24.0
        ).expect(WRITES);
    }
    let most_p99 = known.iter().flat_map(|(.., (_, p99))| p99.iter().copied()).fold(100.0, f64::max);
    let panels =
        [("share of the slow one, %", 40.0, 10.0), ("p99, ms", (most_p99 / 100.0).ceil() * 100.0, 200.0)];
    for (panel, (title, most, tick)) in panels.into_iter().enumerate() {
        let top = TOP + (PANEL + GAP) * panel as f64;
        frame(&mut out, times, end, top, title, most, tick);
        for (_, colour, width, (share, p99)) in &known {
            let values = if panel == 0 { share } else { p99 };
            let points: Vec<_> = (0_u32..)
                .zip(values)
                .map(|(step, value)| {
                    let middle = report::BUCKET * step + report::BUCKET / 2;
                    format!("{:.1},{:.1}", x_of(middle, end), top + PANEL * (1.0 - value.min(most) / most))
                })
                .collect();
            writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
                points.join(" ")
            )
            .expect(WRITES);
        }
    }
    writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">seconds</text>", WIDTH / 2.0, height - 6.0)
        .expect(WRITES);
    out += "</svg>\n";
    out
}

fn frame(out: &mut String, times: Times, end: Duration, top: f64, title: &str, most: f64, tick: f64) {
    let (from, to) = (x_of(times.slow, end), x_of(times.well, end));
    writeln!(
        out,
        "<rect x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{PANEL}\" fill=\"#f3e3e3\"/>\
         <text x=\"{LEFT}\" y=\"{}\">{title}</text>",
        to - from,
        top - 6.0
    )
    .expect(WRITES);
    let mut value = 0.0;
    while value <= most + 0.001 {
        let y = top + PANEL * (1.0 - value / most);
        writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0
        ).expect(WRITES);
        value += tick;
    }
    for seconds in (0..=end.as_secs()).step_by(5) {
        let x = x_of(Duration::from_secs(seconds), end);
        writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{seconds}</text>",
            top + PANEL + 16.0
        )
        .expect(WRITES);
    }
}

fn x_of(at: Duration, end: Duration) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * at.as_secs_f64() / end.as_secs_f64()
}
