//! `pools[].outlier`.

use super::switch;
use crate::{
    keys::{self, Kind},
    model::{Outlier, SuccessRatio},
    read::{At, Ctx, Fault, Fields, factor_or_off, percent},
    units::format_duration,
};

/// `off` reads as `Some(None)`.
pub(super) fn outlier(ctx: &mut Ctx<'_>, at: &At<'_>, _: &Kind) -> Option<Option<Outlier>> {
    let Some(at) = switch(ctx, at, "outlier")? else { return Some(None) };
    let before = ctx.error_count();
    let fields = Fields::open(ctx, &at, &keys::OUTLIER);
    let outlier = Outlier {
        consecutive_failures: fields.u32(ctx, "consecutive_failures"),
        consecutive_gateway_errors: fields.u32(ctx, "consecutive_gateway_errors"),
        success_ratio: fields.read(ctx, "success_ratio", success_ratio).flatten(),
        latency_factor: fields.read(ctx, "latency_factor", factor_or_off).flatten(),
        window: fields.duration(ctx, "window"),
        base_ejection: fields.duration(ctx, "base_ejection"),
        max_ejection: fields.duration(ctx, "max_ejection"),
        max_ejected: fields.percent(ctx, "max_ejected"),
    };
    if ctx.error_count() > before {
        return None;
    }
    check(ctx, &fields, &outlier);
    Some(Some(outlier))
}

/// `80%`, `off`, or a map. Null is a map without keys.
fn success_ratio(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Option<SuccessRatio>> {
    if at.raw() == Some("off") {
        return Some(None);
    }
    let (fields, minimum) = if at.raw().is_some() {
        (Fields::empty(at, &keys::SUCCESS_RATIO), percent(ctx, at, kind)?)
    } else {
        let fields = Fields::open(ctx, at, &keys::SUCCESS_RATIO);
        let minimum = fields.percent(ctx, "minimum");
        (fields, minimum)
    };
    Some(Some(SuccessRatio { minimum, min_requests: fields.u32(ctx, "min_requests") }))
}

fn check(ctx: &mut Ctx<'_>, fields: &Fields<'_>, outlier: &Outlier) {
    if outlier.base_ejection > outlier.max_ejection {
        let at = fields.get("base_ejection").unwrap_or_else(|| fields.place("max_ejection"));
        let (base, max) = (format_duration(outlier.base_ejection), format_duration(outlier.max_ejection));
        ctx.push(
            Fault::error(
                &at,
                "min-over-max",
                format!("base_ejection ({base}) is longer than max_ejection ({max})"),
            )
            .help("lower base_ejection or raise max_ejection"),
        );
    }
    if outlier.max_ejected == 0 {
        ctx.push(
            Fault::warning(&fields.place("max_ejected"), "no-effect", "nothing is ever ejected")
                .help("let max_ejected be above 0%, or write \"outlier: off\""),
        );
    }
    if outlier.consecutive_failures == 0
        && outlier.consecutive_gateway_errors == 0
        && outlier.success_ratio.is_none()
        && outlier.latency_factor.is_none()
    {
        ctx.push(
            Fault::warning(fields.at(), "no-effect", "every reason to eject is turned off")
                .help("turn one on, or write \"outlier: off\""),
        );
    }
}
