//! `hold` and `proxy_protocol` of a pool.

use super::leads;
use crate::{
    keys::{self, Kind},
    model::{Carries, Hold, ProxyHeader},
    read::{At, Ctx, Fault, Fields, duration_or_off, size, word},
};

pub(super) fn hold(ctx: &mut Ctx<'_>, pool: &Fields<'_>) -> Option<Hold> {
    pool.read(ctx, "hold", read).flatten()
}

/// `3s`, `off`, or a map.
fn read(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Option<Hold>> {
    let fields =
        if at.is_map() { Fields::open(ctx, at, &keys::HOLD) } else { Fields::empty(at, &keys::HOLD) };
    let time = if at.is_map() { Some(fields.duration(ctx, "time")) } else { duration_or_off(ctx, at, kind)? };
    Some(time.map(|time| Hold {
        time,
        requests: fields.u32(ctx, "requests"),
        bytes: fields.read(ctx, "bytes", size).unwrap_or_default(),
    }))
}

pub(super) fn proxy_protocol(ctx: &mut Ctx<'_>, pool: &Fields<'_>, carries: Carries) -> Option<ProxyHeader> {
    let at = pool.get("proxy_protocol")?;
    let version = pool.read(ctx, "proxy_protocol", word)?;
    if matches!(carries, Carries::Http | Carries::Udp) {
        ctx.push(
            Fault::error(
                &at,
                "no-effect",
                format!("this pool carries {}: no PROXY protocol header is sent", carries.word()),
            )
            .help(leads::NO_PROXY_HEADER),
        );
    }
    Some(if version == "v1" { ProxyHeader::V1 } else { ProxyHeader::V2 })
}
