//! `pools[].retry`.

use std::time::Duration;

use crate::{
    keys::{self, Kind, Section},
    model::{Backoff, Budget, Hedge, Retry},
    read::{At, Ctx, Fault, Fields, duration, duration_or_off, percent, statuses, wrong_type},
    units::format_duration,
};

const NO_WAIT: Backoff = Backoff { base: Duration::ZERO, max: Duration::ZERO };
const NO_BUDGET: Budget = Budget { percent: 0, floor: 0 };

pub(super) fn retry(ctx: &mut Ctx<'_>, pool: &Fields<'_>) -> Retry {
    let read = pool.read(ctx, "retry", |ctx, at, _| {
        let before = ctx.error_count();
        let fields = Fields::open(ctx, at, &keys::RETRY);
        let retry = Retry {
            attempts: fields.u32(ctx, "attempts"),
            per_try_timeout: fields.read(ctx, "per_try_timeout", duration),
            on: fields.read(ctx, "on", on).unwrap_or_default(),
            budget: fields
                .read(ctx, "budget", |ctx, at, kind| budget(ctx, at, kind, &keys::BUDGET))
                .unwrap_or(NO_BUDGET),
            backoff: fields.read(ctx, "backoff", backoff).unwrap_or(NO_WAIT),
            hedge: fields.read(ctx, "hedge", hedge).flatten(),
        };
        if ctx.error_count() == before {
            unmeant(ctx, &fields, &retry);
        }
        Some(retry)
    });
    let never = Retry {
        attempts: 0,
        per_try_timeout: None,
        on: Vec::new(),
        budget: NO_BUDGET,
        backoff: NO_WAIT,
        hedge: None,
    };
    read.unwrap_or(never)
}

/// Statuses of failures: others are answers that a visitor asked for.
fn on(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Vec<(u16, u16)>> {
    let mut ranges = Vec::new();
    for item in at.one_or_many() {
        let Some((low, high)) = statuses(ctx, &item, kind) else { continue };
        if low < 400 {
            ctx.push(
                Fault::error(&item, "bad-status", format!("{} is no failure", item.seen()))
                    .help("write statuses from 400 to 599: an answer below 400 is never thrown away"),
            );
            continue;
        }
        ranges.push((low, high));
    }
    Some(ranges)
}

/// `20%`, or `{ percent: 20%, floor: 3 }`.
fn budget(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind, section: &'static Section) -> Option<Budget> {
    let (fields, percent) = if at.raw().is_some() {
        (Fields::empty(at, section), percent(ctx, at, kind)?)
    } else {
        let fields = Fields::open(ctx, at, section);
        let percent = fields.percent(ctx, "percent");
        (fields, percent)
    };
    Some(Budget { percent, floor: fields.u32(ctx, "floor") })
}

/// `off`, or a map.
fn backoff(ctx: &mut Ctx<'_>, at: &At<'_>, _: &Kind) -> Option<Backoff> {
    if at.raw() == Some("off") {
        return Some(NO_WAIT);
    }
    let before = ctx.error_count();
    let fields = Fields::open(ctx, at, &keys::BACKOFF);
    let backoff = Backoff { base: fields.duration(ctx, "base"), max: fields.duration(ctx, "max") };
    if ctx.error_count() == before && backoff.base > backoff.max {
        let at = fields.get("base").unwrap_or_else(|| fields.place("max"));
        let (base, max) = (format_duration(backoff.base), format_duration(backoff.max));
        ctx.push(
            Fault::error(&at, "min-over-max", format!("base ({base}) is longer than max ({max})"))
                .help("lower base or raise max; \"backoff: off\" is no wait at all"),
        );
    }
    Some(backoff)
}

/// `300ms`, `off`, or a map.
fn hedge(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Option<Hedge>> {
    if at.is_null() {
        return wrong_type(ctx, at, "a duration like 300ms, off, or a map");
    }
    let (fields, after) = if at.raw().is_some() {
        let Some(after) = duration_or_off(ctx, at, kind)? else { return Some(None) };
        (Fields::empty(at, &keys::HEDGE), Some(after))
    } else {
        let fields = Fields::open(ctx, at, &keys::HEDGE);
        let after = fields.read(ctx, "after", duration);
        (fields, after)
    };
    let budget = fields.read(ctx, "budget", |ctx, at, kind| budget(ctx, at, kind, &keys::HEDGE_BUDGET));
    Some(Some(Hedge { after: after?, budget: budget? }))
}

/// Legal, but surely unmeant.
fn unmeant(ctx: &mut Ctx<'_>, fields: &Fields<'_>, retry: &Retry) {
    if let (Some(at), 0) = (fields.get("on"), retry.attempts) {
        ctx.push(
            Fault::warning(&at, "no-effect", "on has no effect: attempts is 0")
                .help("let attempts be at least 1, or remove \"on\""),
        );
    }
    if let (Some(hedge), Some(per_try)) = (retry.hedge, retry.per_try_timeout)
        && hedge.after >= per_try
    {
        let (after, per_try) = (format_duration(hedge.after), format_duration(per_try));
        ctx.push(
            Fault::warning(
                &fields.place("hedge"),
                "no-time-for-hedge",
                format!("the first attempt ends before the second begins: after ({after}) is not below per_try_timeout ({per_try})"),
            )
            .help("lower after, or raise per_try_timeout"),
        );
    }
}
