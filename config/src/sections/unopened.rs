//! What of a pool means nothing where its traffic is passed on unopened: connections, TLS of others, datagrams.

use super::field;
use crate::{
    model::{Affinity, Carries, HealthCheck, Pool},
    read::{Ctx, Fault, Fields},
};

/// What can't work is an error, what has no effect a warning.
pub(super) fn check(ctx: &mut Ctx<'_>, fields: &Fields<'_>, pool: &Pool) {
    let carries = pool.carries;
    if carries == Carries::Http {
        return;
    }
    let what = format!("this pool carries {}", carries.word());
    if let (Some(at), Some(Affinity::Cookie(_) | Affinity::Header(_) | Affinity::Query(_))) =
        (fields.get("affinity"), &pool.affinity)
    {
        ctx.push(
            Fault::error(&at, "not-visible", format!("{what}: no cookie, header or query is seen"))
                .help("write \"affinity: source_ip\""),
        );
    }
    if let (Carries::Udp, Some(at)) = (carries, fields.get("health")) {
        ctx.push(
            Fault::error(
                &at,
                "no-probe",
                format!("{what}: nothing can be asked that every application answers"),
            )
            .help("remove health: a member that nobody listens at is found by its visitors' datagrams"),
        );
    } else if let (Some(at), Some(check)) =
        (fields.get("health"), pool.health.as_ref().map(|health| &health.check))
        && let Some(word) = match check {
            HealthCheck::Tcp => None,
            HealthCheck::Http { .. } => Some("http"),
            HealthCheck::Grpc { .. } => Some("grpc"),
        }
    {
        let at = field(&at, word).unwrap_or(at);
        ctx.push(
            Fault::error(&at, "not-visible", format!("{what}: a probe by {word} would get no answer"))
                .help("write \"health: { tcp: {} }\""),
        );
    }
    if let Some(retry) = fields.get("retry") {
        for (key, why) in [
            ("on", "no status is seen"),
            ("hedge", "a connection can't be given twice"),
            ("per_try_timeout", "no answer is awaited; connect_timeout bounds each connect"),
        ] {
            if let Some(at) = field(&retry, key) {
                ctx.push(
                    Fault::error(&at, "not-visible", format!("{what}: {why}"))
                        .help(format!("remove retry.{key}")),
                );
            }
        }
    }
    for key in ["keepalive", "absent_timeout"] {
        // frps says of a server name, too, that it has no such tunnel.
        if (key, carries) == ("absent_timeout", Carries::Tls) {
            continue;
        }
        if let Some(at) = fields.get(key) {
            ctx.push(
                Fault::warning(&at, "no-effect", format!("{key} has no effect: {what}"))
                    .help("remove it: it is for pools of http"),
            );
        }
    }
    if let (Carries::Tls, Some(at), Some(_), None) =
        (carries, fields.get("proxy_protocol"), pool.proxy_protocol, &pool.tunnels)
    {
        ctx.push(
            Fault::error(
                &at,
                "no-effect",
                "frps closes a connection to its vhost_https_port that begins with it",
            )
            .help("remove it; an application that must see its visitors goes behind a tcp tunnel"),
        );
    }
}
