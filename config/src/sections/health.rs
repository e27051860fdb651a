//! `pools[].health`.

use crate::{
    keys::{self, Kind},
    model::{Health, HealthCheck},
    read::{At, Ctx, Fault, Fields, authority, text, url_path, wrong_type},
};

/// Reads a check; `None` when what it does could not be told.
pub(super) fn health(ctx: &mut Ctx<'_>, at: &At<'_>) -> Option<Health> {
    let fields = Fields::open(ctx, at, &keys::HEALTH);
    let (interval, timeout) = (fields.duration(ctx, "interval"), fields.duration(ctx, "timeout"));
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
    Some(Health { check, interval, timeout, rise, fall })
}

fn http_check(ctx: &mut Ctx<'_>, at: &At<'_>) -> HealthCheck {
    let fields = Fields::open(ctx, at, &keys::HTTP_CHECK);
    HealthCheck::Http {
        host: fields.read(ctx, "host", authority).unwrap_or_default(),
        path: fields.read(ctx, "path", url_path).unwrap_or_default(),
        expect: fields.read(ctx, "expect", expect).unwrap_or_default(),
    }
}

fn expect(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Vec<(u16, u16)>> {
    let items = at.one_or_many();
    if items.is_empty() {
        return wrong_type(ctx, at, "a status or a list of statuses");
    }
    Some(items.iter().filter_map(|item| statuses(ctx, item, kind)).collect())
}

/// `200` or `200-399`.
fn statuses(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<(u16, u16)> {
    let value = text(ctx, at, kind)?;
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten().filter(|s| (100..=599).contains(s))
    };
    let (low, high) = value.split_once('-').unwrap_or((&value, &value));
    match (status(low.trim()), status(high.trim())) {
        (Some(low), Some(high)) if low <= high => Some((low, high)),
        _ => {
            ctx.push(
                Fault::error(at, "bad-status", format!("{} is no status", at.seen()))
                    .help("write a status from 100 to 599, or a range from low to high: \"200-399\""),
            );
            None
        }
    }
}
