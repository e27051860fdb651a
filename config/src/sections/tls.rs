//! TLS and HTTP/2: of listeners, and towards pools.

use std::path::PathBuf;

use super::{field, leads, lists};
use crate::{
    keys::{self, Section},
    model::{
        Carries, Certificate, ClientAuth, ClientAuthMode, Http2, Identity, ListenerTls, PoolProtocol,
        PoolTls, Protocol, TlsVersion, UnknownName,
    },
    read::{At, Ctx, Fault, Fields, host_name, identity, path, word},
};

/// What a listener or pool without a certificate needs.
const ADD: &str = "add certificates: [ { cert: /path/chain.pem, key: /path/key.pem } ], or \"acme: true\"";

/// Opens what may be `on`, `off` or a map. `None` = off, or reported.
pub(super) fn opened<'t>(ctx: &mut Ctx<'_>, at: &At<'t>, section: &'static Section) -> Option<Fields<'t>> {
    match at.raw() {
        Some("on") => Some(Fields::empty(at, section)),
        Some("off") => None,
        _ if at.is_map() => Some(Fields::open(ctx, at, section)),
        _ => {
            // With all keys of a map commented out, on and off are equally likely to be meant.
            ctx.push(
                Fault::error(at, "wrong-type", format!("expected on, off or a map, found {}", at.seen()))
                    .help("write \"on\" or \"off\""),
            );
            None
        }
    }
}

/// `listeners[].tls`; an `https` listener must have it.
pub(super) fn of_listener(
    ctx: &mut Ctx<'_>,
    listener: &Fields<'_>,
    protocol: Protocol,
) -> Option<ListenerTls> {
    let Some(at) = listener.get("tls") else {
        if protocol == Protocol::Https {
            ctx.push(
                Fault::error(listener.at(), "missing-key", "an https listener needs certificates").help(
                    "add tls: { certificates: [ { cert: /path/chain.pem, key: /path/key.pem } ] }, or tls: { acme: true }",
                ),
            );
        }
        return None;
    };
    let fields = Fields::open(ctx, &at, &keys::TLS);
    let acme = fields.boolean(ctx, "acme");
    let list = fields.get("certificates");
    let before = ctx.error_count();
    let items = list.as_ref().map(|at| at.items(ctx)).unwrap_or_default();
    if items.is_empty() && !acme && ctx.error_count() == before && (at.is_map() || at.is_null()) {
        let (at, message) = match list {
            Some(at) => (at, "certificates lists none"),
            None => (at.clone(), "no certificate is given"),
        };
        ctx.push(Fault::error(&at, "no-certificate", message).help(ADD));
    }
    let tls = ListenerTls {
        certificates: items.iter().map(|at| certificate(ctx, at, &keys::CERTIFICATE)).collect(),
        acme,
        min_version: match fields.read(ctx, "min_version", word) {
            Some("1.3") => TlsVersion::V1_3,
            Some(_) | None => TlsVersion::V1_2,
        },
        session_tickets: fields.boolean(ctx, "session_tickets"),
        unknown_name: match fields.read(ctx, "unknown_name", word) {
            Some("refuse") => UnknownName::Refuse,
            Some(_) | None => UnknownName::First,
        },
        client_auth: fields.get("client_auth").map(|at| client_auth(ctx, &at)),
    };
    twice(ctx, &items, &tls.certificates);
    if let Some(at) = fields.get("unknown_name")
        && tls.unknown_name == UnknownName::First
        && items.is_empty()
        && acme
    {
        ctx.push(
            Fault::warning(&at, "no-effect", "there is no first certificate: none is listed")
                .help("list one under certificates, or write \"unknown_name: refuse\""),
        );
    }
    Some(tls)
}

fn certificate(ctx: &mut Ctx<'_>, at: &At<'_>, section: &'static Section) -> Certificate {
    let fields = Fields::open(ctx, at, section);
    Certificate {
        cert: fields.read(ctx, "cert", path).unwrap_or_default(),
        key: fields.read(ctx, "key", path).unwrap_or_default(),
        ocsp: fields.read(ctx, "ocsp", path),
    }
}

fn twice(ctx: &mut Ctx<'_>, items: &[At<'_>], certificates: &[Certificate]) {
    for (index, (item, certificate)) in items.iter().zip(certificates).enumerate() {
        let is_named = !certificate.cert.as_os_str().is_empty();
        if is_named && certificates.iter().take(index).any(|other| other.cert == certificate.cert) {
            let at = field(item, "cert").unwrap_or_else(|| item.clone());
            ctx.push(
                Fault::warning(&at, "duplicate-value", format!("{} is listed twice", at.seen()))
                    .help("remove one of the two: one file serves all names of its certificate"),
            );
        }
    }
}

fn client_auth(ctx: &mut Ctx<'_>, at: &At<'_>) -> ClientAuth {
    let fields = Fields::open(ctx, at, &keys::CLIENT_AUTH);
    ClientAuth {
        mode: match fields.read(ctx, "mode", word) {
            Some("optional") => ClientAuthMode::Optional,
            Some(_) | None => ClientAuthMode::Required,
        },
        trust: files(ctx, &fields, "trust", "name at least one file of authorities that are trusted"),
        crl: files(ctx, &fields, "crl", "name at least one file, or remove it: nothing is revoked then"),
        allow: identities(
            ctx,
            &fields,
            "allow",
            "name at least one identity, or remove it to let in everyone whose certificate is trusted",
        ),
    }
}

/// One path or several.
fn files(ctx: &mut Ctx<'_>, fields: &Fields<'_>, key: &'static str, help: &str) -> Vec<PathBuf> {
    let items = lists::some(ctx, fields, key, help).unwrap_or_default();
    items.iter().filter_map(|at| path(ctx, at, &keys::Kind::Path)).collect()
}

/// One identity or several.
pub(super) fn identities(
    ctx: &mut Ctx<'_>,
    fields: &Fields<'_>,
    key: &'static str,
    help: &str,
) -> Vec<Identity> {
    let items = lists::some(ctx, fields, key, help).unwrap_or_default();
    let mut found: Vec<Identity> = Vec::new();
    for at in &items {
        let Some(identity) = identity(ctx, at, &keys::Kind::Identity) else { continue };
        if found.contains(&identity) {
            ctx.push(Fault::warning(at, "duplicate-value", format!("{} is listed twice", at.seen())));
        } else {
            found.push(identity);
        }
    }
    found
}

/// `listeners[].http2`: on for https, off for http, unless it says otherwise.
pub(super) fn http2(ctx: &mut Ctx<'_>, listener: &Fields<'_>, protocol: Protocol) -> Option<Http2> {
    let fields = match listener.get("http2") {
        Some(at) => opened(ctx, &at, &keys::HTTP2)?,
        None if protocol == Protocol::Https => Fields::empty(listener.at(), &keys::HTTP2),
        None => return None,
    };
    Some(Http2 { max_streams: fields.u32(ctx, "max_streams") })
}

/// `pools[].protocol`.
pub(super) fn pool_protocol(ctx: &mut Ctx<'_>, pool: &Fields<'_>, carries: Carries) -> PoolProtocol {
    let protocol = match pool.read(ctx, "protocol", word) {
        Some("h2c") => PoolProtocol::H2c,
        Some(_) | None => PoolProtocol::H1,
    };
    let Some(at) = pool.get("protocol") else { return protocol };
    if carries != Carries::Http {
        ctx.push(
            Fault::error(
                &at,
                "no-effect",
                format!("this pool carries {}: bytes are passed on as they are", carries.word()),
            )
            .help("remove it: it is for pools of http"),
        );
    } else if protocol == PoolProtocol::H2c && pool.get("tunnels").is_none() {
        ctx.push(
            Fault::warning(
                &at,
                "vhost-speaks-h1",
                "frps speaks HTTP/1.1 to the application, whatever it is spoken to: gRPC doesn't get through",
            )
            .help(
                "make the pool of tunnels that are taken over: \"tunnels: { domain: HOST }\", with a plugin at the frps",
            ),
        );
    }
    protocol
}

/// `pools[].tls`.
pub(super) fn of_pool(
    ctx: &mut Ctx<'_>,
    pool: &Fields<'_>,
    carries: Carries,
    protocol: PoolProtocol,
) -> Option<PoolTls> {
    let at = pool.get("tls")?;
    let fields = opened(ctx, &at, &keys::POOL_TLS)?;
    let tls = PoolTls {
        trust: files(
            ctx,
            &fields,
            "trust",
            "name at least one file, or remove it to trust what the system does",
        ),
        server_name: fields.read(ctx, "server_name", host_name),
        certificate: fields.get("certificate").map(|at| certificate(ctx, &at, &keys::OWN_CERTIFICATE)),
    };
    if carries != Carries::Http {
        let message = format!("this pool carries {}: bytes are passed on as they are", carries.word());
        ctx.push(Fault::error(&at, "no-effect", message).help(leads::NO_TLS));
    } else if pool.get("tunnels").is_some() {
        ctx.push(
            Fault::error(&at, "tls-to-tunnels", "the ports of tunnels speak what their applications speak")
                .help("remove it: between frps and frpc, FRP's own transport.tls encrypts"),
        );
    } else if protocol == PoolProtocol::H2c {
        ctx.push(
            Fault::error(&at, "tls-and-h2c", "h2c is HTTP/2 without TLS")
                .help("remove \"protocol: h2c\", or remove tls"),
        );
    }
    Some(tls)
}
