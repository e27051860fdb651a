//! `pools[].health`.

use std::time::Duration;

use crate::{
    keys::{self, Kind},
    model::{Health, HealthCheck},
    read::{At, Ctx, Fault, Fields, authority, duration, statuses, text, url_path, wrong_type},
};

/// Shortest time between two probes, as in the table of keys.
const SHORTEST: Duration = Duration::from_millis(10);

/// Reads a check; `None` when what it does could not be told.
pub(super) fn health(ctx: &mut Ctx<'_>, at: &At<'_>) -> Option<Health> {
    let fields = Fields::open(ctx, at, &keys::HEALTH);
    let (interval, timeout) = (fields.duration(ctx, "interval"), fields.duration(ctx, "timeout"));
    let fast_interval = fields.read(ctx, "fast_interval", duration);
    let jitter = fields.percent(ctx, "jitter");
    let (rise, fall) = (fields.u32(ctx, "rise"), fields.u32(ctx, "fall"));
    let check = match (fields.get("tcp"), fields.get("http")) {
        (Some(at), None) => {
            Fields::open(ctx, &at, &keys::TCP_CHECK);
            HealthCheck::Tcp
        }
        (None, Some(at)) => http_check(ctx, &at),
        (None, None) if !at.is_map() && !at.is_null() => return None, // the wrong type was reported
        (None, None) => {
            ctx.push(
                Fault::error(at, "no-health-check", "neither tcp nor http is given")
                    .help("write \"tcp: {}\" or \"http: { host: app.example.com }\" into it"),
            );
            return None;
        }
        (Some(_), Some(http)) => {
            ctx.push(
                Fault::error(&http, "two-health-checks", "both tcp and http are given")
                    .help("keep one; an http probe connects anyhow"),
            );
            return None;
        }
    };
    if timeout > interval {
        let at = fields.get("timeout").or_else(|| fields.get("interval")).unwrap_or_else(|| at.clone());
        ctx.push(
            Fault::warning(&at, "timeout-over-interval", "a probe may take longer than the time between two")
                .help("let timeout be at most interval"),
        );
    }
    if let (Some(at), Some(fast)) = (fields.get("fast_interval"), fast_interval)
        && fast > interval
    {
        ctx.push(
            Fault::warning(
                &at,
                "fast-interval-over-interval",
                "probes get slower, not faster, while the last result speaks against the verdict",
            )
            .help("let fast_interval be at most interval, or remove it: a quarter of interval"),
        );
    }
    let fast_interval = fast_interval.unwrap_or_else(|| (interval / 4).max(SHORTEST));
    Some(Health { check, interval, fast_interval, jitter, timeout, rise, fall })
}

fn http_check(ctx: &mut Ctx<'_>, at: &At<'_>) -> HealthCheck {
    let fields = Fields::open(ctx, at, &keys::HTTP_CHECK);
    HealthCheck::Http {
        host: fields.read(ctx, "host", authority).unwrap_or_default(),
        path: fields.read(ctx, "path", url_path).unwrap_or_default(),
        expect: fields.read(ctx, "expect", expect).unwrap_or_default(),
        body: fields.read(ctx, "body", body),
    }
}

fn expect(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Vec<(u16, u16)>> {
    let items = at.one_or_many();
    if items.is_empty() {
        return wrong_type(ctx, at, "a status or a list of statuses");
    }
    Some(items.iter().filter_map(|item| statuses(ctx, item, kind)).collect())
}

/// An empty text is in every body.
fn body(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let body = text(ctx, at, kind)?;
    if body.is_empty() {
        ctx.push(
            Fault::error(at, "empty-marker", "an empty text is in every body")
                .help("write a text that only a healthy answer contains, or remove the key"),
        );
        return None;
    }
    Some(body)
}
