//! `pools[].limits`.

use super::switch;
use crate::{
    keys::{self, Kind},
    model::{AdaptiveLimit, Limits, Queue},
    read::{At, Ctx, Fault, Fields},
};

pub(super) fn limits(ctx: &mut Ctx<'_>, pool: &Fields<'_>) -> Limits {
    let read = pool.read(ctx, "limits", |ctx, at, _| {
        let before = ctx.error_count();
        let fields = Fields::open(ctx, at, &keys::POOL_LIMITS);
        let limits = Limits {
            connections: fields.optional_u32(ctx, "connections"),
            in_flight: fields.optional_u32(ctx, "in_flight"),
            queue: fields.read(ctx, "queue", queue).unwrap_or(NO_QUEUE),
            adaptive: fields.read(ctx, "adaptive", adaptive).flatten(),
        };
        if ctx.error_count() == before {
            check(ctx, &fields, &limits);
        }
        Some(limits)
    });
    read.unwrap_or(Limits { connections: None, in_flight: None, queue: NO_QUEUE, adaptive: None })
}

const NO_QUEUE: Queue = Queue { size: 0, timeout: std::time::Duration::ZERO };

/// `off`, or a map. Null is a map without keys.
fn queue(ctx: &mut Ctx<'_>, at: &At<'_>, _: &Kind) -> Option<Queue> {
    if at.raw() == Some("off") {
        return Some(NO_QUEUE);
    }
    let fields = Fields::open(ctx, at, &keys::QUEUE);
    Some(Queue { size: fields.u32(ctx, "size"), timeout: fields.duration(ctx, "timeout") })
}

fn adaptive(ctx: &mut Ctx<'_>, at: &At<'_>, _: &Kind) -> Option<Option<AdaptiveLimit>> {
    let Some(at) = switch(ctx, at, "adaptive")? else { return Some(None) };
    let before = ctx.error_count();
    let fields = Fields::open(ctx, &at, &keys::ADAPTIVE);
    let (min, max) = (fields.u32(ctx, "min"), fields.u32(ctx, "max"));
    if ctx.error_count() == before && min > max {
        let at = fields.get("min").unwrap_or_else(|| fields.place("max"));
        ctx.push(
            Fault::error(&at, "min-over-max", format!("min ({min}) is above max ({max})"))
                .help("lower min or raise max"),
        );
    }
    Some(Some(AdaptiveLimit { min, max }))
}

fn check(ctx: &mut Ctx<'_>, fields: &Fields<'_>, limits: &Limits) {
    let limited = limits.connections.is_some() || limits.in_flight.is_some() || limits.adaptive.is_some();
    if let Some(at) = fields.get("queue")
        && !limited
        && at.raw() != Some("off")
    {
        ctx.push(
            Fault::warning(&at, "no-effect", "queue has no effect: without a limit no request ever waits")
                .help("give in_flight, connections or adaptive beside it, or remove it"),
        );
    }
    let adaptive = fields.get("adaptive");
    let max = adaptive.as_ref().and_then(|at| super::field(at, "max"));
    if let (Some(adaptive), Some(in_flight), Some(at)) = (limits.adaptive, limits.in_flight, max)
        && adaptive.max > in_flight
    {
        ctx.push(
            Fault::warning(
                &at,
                "adaptive-over-limit",
                format!("max ({}) is never reached: in_flight allows {in_flight}", adaptive.max),
            )
            .help("let max be at most in_flight, or remove one of the two"),
        );
    }
}
