//! `frp-gateway explain`: the answer first, then why.

use axum::http::Method;

use super::{
    reach::{Gateway, Unanswered},
    table::{Cell, Colour, Table, Tone},
};
use crate::{
    admin::explain::Ask,
    data::explain::view::{Candidate, Ending, Explanation, PoolView},
};

/// Asks what would become of the request.
///
/// # Errors
/// See [`Unanswered`].
pub async fn ask(gateway: &Gateway, ask: &Ask) -> Result<Explanation, Unanswered> {
    let body = serde_json::to_vec(ask).map_err(|error| Unanswered::BadQuestion(error.to_string()))?;
    gateway.ask(Method::POST, "/api/v1/explain", Some(body)).await
}

/// Whether the request reaches an endpoint.
#[must_use]
pub const fn is_served(told: &Explanation) -> bool {
    matches!(told.ending, Ending::Picked { .. })
}

/// The whole answer as text, several lines.
#[must_use]
pub fn text(told: &Explanation, colour: Colour) -> String {
    let mut out = headline(told, colour);
    out += &format!(
        "\nlistener {}, from {}, configuration generation {}\n",
        told.listener, told.from, told.generation
    );
    // A connection whose server name doesn't matter has no routes.
    if !told.method.is_empty() || !told.routes.is_empty() {
        write_routes(&mut out, told, colour);
    }
    for pool in &told.pools {
        out.push('\n');
        write_pool(&mut out, told, pool, colour);
    }
    out
}

fn write_routes(out: &mut String, told: &Explanation, colour: Colour) {
    *out += "\nroutes, in order of precedence\n";
    let mut table = Table::new(&["", "ROUTE", "VERDICT", "CONDITIONS"]);
    for route in &told.routes {
        let matched = route.verdict == "matched";
        table.row(vec![
            Cell::text(if matched { "→" } else { "" }),
            Cell::text(&route.route),
            Cell::text(&route.why).tone(if matched { Tone::Good } else { Tone::Plain }),
            Cell::text(&route.conditions),
        ]);
    }
    if told.routes.is_empty() {
        *out += "  none\n";
    } else {
        table.write(out, "  ", colour);
    }
}

/// One line: where it goes.
fn headline(told: &Explanation, colour: Colour) -> String {
    let mut line = match told.method.as_str() {
        "" => told.url.clone(),
        method => format!("{method} {}", told.url),
    };
    if let Some(route) = &told.route {
        line += &format!(" → route {route}");
    }
    if let Some(pool) = &told.pool {
        line += &format!(" → pool {pool}");
    }
    let (name, rest, tone) = ending(&told.ending);
    line + " → " + &colour.paint(&name, tone) + &rest
}

/// What comes of it, and the rest of the sentence.
fn ending(ending: &Ending) -> (String, String, Tone) {
    match ending {
        Ending::Picked { endpoint, reason, among, of, certain } => {
            let draw = if *certain { "" } else { "; one draw" };
            (endpoint.clone(), format!(" ({}{draw})", why(reason, among, *of)), Tone::Good)
        }
        Ending::Waits { waiting } => {
            let line = match waiting {
                0 => "nobody waits yet".to_owned(),
                waiting => format!("{waiting} wait already"),
            };
            ("waits in line".to_owned(), format!(" (all are at their limits, {line})"), Tone::Mind)
        }
        Ending::Redirected { status, location } => {
            (format!("{status} redirect"), format!(" (to {location})"), Tone::Good)
        }
        Ending::Refused { status, class, why } => {
            let closed = || format!("closed, {class}");
            let name = status.map_or_else(closed, |status| format!("{status} {class}"));
            (name, format!(" ({why})"), Tone::Bad)
        }
    }
}

/// Words for the access log's `pick` and `among`. An unknown one (a newer gateway) stands as it is.
fn why(reason: &str, among: &str, of: usize) -> String {
    let reason = match reason {
        "turn" => format!("its turn, of {of}"),
        "chance" => format!("by chance, of {of}"),
        "least_loaded" => format!("least loaded of {of}"),
        "cheapest" => format!("cheapest of {of}"),
        "hash" => format!("hash of the key, {of} eligible"),
        "hash_spill" => format!("hash of the key, whose owner is at its bound, {of} eligible"),
        "session" => "session cookie".to_owned(),
        other => format!("{other}, of {of}"),
    };
    let among = match among {
        "all" => "",
        "holders" => "holders of the host",
        "local" => "local zone",
        "remote" => "other zones",
        "standby" => "standby",
        "panic" => "health is ignored",
        "ejected" => "nobody else is left than ejected ones",
        "down" => "nobody else is left than those that are down",
        other => other,
    };
    if among.is_empty() { reason } else { format!("{reason}, {among}") }
}

fn write_pool(out: &mut String, told: &Explanation, pool: &PoolView, colour: Colour) {
    let mut line = format!("pool {}", pool.pool);
    if told.pools.len() > 1 {
        let drawn = if pool.drawn { ", drawn for this request" } else { "" };
        line += &format!(" (weight {}: {:.0} % of the route{drawn})", pool.weight, pool.percent);
    }
    line += &format!(", {}", pool.balance);
    if let Some(key) = &pool.key {
        line += &format!(", hashed by {key}");
    }
    if pool.waiting > 0 {
        line += &format!(", {} in line", pool.waiting);
    }
    out.push_str(&line);
    out.push('\n');
    if let Ending::Picked { reason, among, .. } = &pool.ending {
        if !pool.drawn {
            let (name, rest, tone) = ending(&pool.ending);
            *out += &format!("  → {}{rest}\n", colour.paint(&name, tone));
        }
        *out += &format!("  access log: pick={reason} among={among}\n");
    } else if !pool.drawn {
        let (name, rest, tone) = ending(&pool.ending);
        *out += &format!("  → {}{rest}\n", colour.paint(&name, tone));
    }
    let head = [
        "",
        "ENDPOINT",
        "ADDRESS",
        "ZONE",
        "PRIORITY",
        "WEIGHT",
        "IN FLIGHT",
        "CONNS",
        "LATENCY",
        "SCORE",
        "DRY RUNS",
        "ELIGIBLE",
        "VERDICT",
    ];
    let mut table = Table::new(&head);
    let priorities = pool.candidates.iter().any(|one| one.priority > 0);
    for one in &pool.candidates {
        table.row(row(one, priorities));
    }
    table.write(out, "  ", colour);
    if let Some(score) = &pool.score {
        *out += &format!("  score: {score}\n");
    }
    for note in &pool.notes {
        *out += &format!("  note: {note}\n");
    }
}

fn row(one: &Candidate, priorities: bool) -> Vec<Cell> {
    let zone = one
        .zone
        .as_ref()
        .map_or(String::new(), |zone| if one.local { format!("{zone} (own)") } else { zone.clone() });
    let eligible = match &one.why_not {
        None => Cell::text("yes").tone(Tone::Good),
        Some(why) => Cell::text(format!("no: {why}")).tone(Tone::Bad),
    };
    // What already stands as the reason isn't told twice.
    let told = |verdict: &&String| {
        one.why_not.as_ref().is_none_or(|why| *verdict != why) && (verdict.as_str() != "up" || one.eligible)
    };
    let verdicts: Vec<_> = one.verdicts.iter().filter(told).map(String::as_str).collect();
    vec![
        Cell::text(if one.picked { "→" } else { "" }),
        Cell::text(&one.endpoint),
        Cell::text(&one.address),
        Cell::text(zone),
        Cell::number(if priorities { one.priority.to_string() } else { String::new() }),
        Cell::number(weight(one.weight, one.effective_weight)),
        Cell::number(of_limit(one.in_flight, one.limit)),
        Cell::number(of_limit(one.connections, one.connection_limit)),
        Cell::number(one.latency_ms.map_or("–".to_owned(), milliseconds)),
        Cell::number(match (one.rank, one.score) {
            (Some(rank), _) => format!("#{}", rank + 1),
            (None, Some(score)) => format!("{score:.2}"),
            (None, None) => String::new(),
        }),
        Cell::number(if one.share > 0.0 { format!("{:.0} %", one.share) } else { "–".to_owned() }),
        eligible,
        Cell::text(verdicts.join(", ")),
    ]
}

/// The configured weight, and what slow start leaves of it.
pub(super) fn weight(weight: u32, effective: f64) -> String {
    if effective < f64::from(weight) { format!("{effective:.1} of {weight}") } else { weight.to_string() }
}

/// `3`, or `3/5` where there is a limit.
pub(super) fn of_limit(count: u32, limit: Option<u32>) -> String {
    limit.map_or_else(|| count.to_string(), |limit| format!("{count}/{limit}"))
}

/// With as many places as tell something.
pub(super) fn milliseconds(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

#[cfg(test)]
mod tests;
