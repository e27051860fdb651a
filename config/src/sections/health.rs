//! `pools[].health`.

use std::time::Duration;

use super::field;
use crate::{
    keys::{self, Kind},
    model::{Carries, Health, HealthCheck, Pool},
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
    let check = match (fields.get("tcp"), fields.get("http"), fields.get("grpc")) {
        (Some(at), None, None) => {
            Fields::open(ctx, &at, &keys::TCP_CHECK);
            HealthCheck::Tcp
        }
        (None, Some(at), None) => http_check(ctx, &at),
        (None, None, Some(at)) => grpc_check(ctx, &at),
        (None, None, None) if !at.is_map() && !at.is_null() => return None, // the wrong type was reported
        (None, None, None) => {
            ctx.push(
                Fault::error(at, "no-health-check", "neither tcp nor http nor grpc is given")
                    .help("write \"tcp: {}\", \"http: { host: app.example.com }\" or \"grpc: {}\" into it"),
            );
            return None;
        }
        (tcp, http, grpc) => {
            let given = [("tcp", &tcp), ("http", &http), ("grpc", &grpc)];
            let given: Vec<_> = given.iter().filter_map(|(name, at)| at.as_ref().map(|_| *name)).collect();
            let both = if given.len() == 2 { "both " } else { "" };
            let at = grpc.as_ref().or(http.as_ref()).unwrap_or(at);
            ctx.push(
                Fault::error(at, "two-health-checks", format!("{both}{} are given", given.join(" and ")))
                    .help("keep one; every probe connects anyhow"),
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

/// A gRPC probe must get through to the application, and frps's vhost speaks HTTP/1.1 to it.
pub(super) fn reachable(ctx: &mut Ctx<'_>, fields: &Fields<'_>, pool: &Pool) {
    let check = pool.health.as_ref().map(|health| &health.check);
    if let (Some(HealthCheck::Grpc { .. }), None, Carries::Http) = (check, &pool.tunnels, pool.carries)
        && let Some(at) = fields.get("health").and_then(|at| field(&at, "grpc"))
    {
        ctx.push(
            Fault::error(
                &at,
                "grpc-through-vhost",
                "frps's vhost speaks HTTP/1.1 to the application: a gRPC probe would never succeed",
            )
            .help(
                "write \"health: { http: { host: HOST } }\" or \"health: { tcp: {} }\", or make the pool of tunnels that are \
                 taken over: \"tunnels: { domain: HOST }\"",
            ),
        );
    }
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

fn grpc_check(ctx: &mut Ctx<'_>, at: &At<'_>) -> HealthCheck {
    let fields = Fields::open(ctx, at, &keys::GRPC_CHECK);
    HealthCheck::Grpc {
        host: fields.read(ctx, "host", authority).unwrap_or_default(),
        service: fields.read(ctx, "service", text).unwrap_or_default(),
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
