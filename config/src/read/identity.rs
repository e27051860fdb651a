//! Who a client's certificate is for.

use super::{At, Ctx, Fault, address::is_host_name, text};
use crate::{
    keys::Kind,
    model::{DomainPattern, Identity, Pattern},
};

/// The three forms, for messages.
const FORMS: &str = "write \"spiffe://DOMAIN/PATH\", \"dns:NAME\" (or \"dns:*.NAME\") or \"cn:TEXT\"; \"*\" stands for any \
     characters in the first and the last";

/// `spiffe://…`, `dns:NAME`, `dns:*.NAME` or `cn:TEXT`.
pub(crate) fn identity(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Identity> {
    let value = text(ctx, at, kind)?;
    let found = match value.split_once(':') {
        Some(("spiffe", rest)) => {
            let named =
                rest.strip_prefix("//").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
            let plain = value.bytes().all(|byte| byte.is_ascii_graphic());
            (named && plain).then(|| Identity::Uri(Pattern(value.clone())))
        }
        Some(("dns", name)) => domain(name).map(Identity::Dns),
        Some(("cn", name)) => (!name.is_empty()).then(|| Identity::CommonName(Pattern(name.to_owned()))),
        Some(_) | None => None,
    };
    if found.is_none() {
        ctx.push(Fault::error(at, "bad-identity", format!("{} is no identity", at.seen())).help(FORMS));
    }
    found
}

/// `NAME` or `*.NAME`, in lower case. Never every name: then nothing would be asked.
fn domain(name: &str) -> Option<DomainPattern> {
    let plain = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    match plain.strip_prefix("*.") {
        Some(suffix) => is_host_name(suffix).then(|| DomainPattern::Below(suffix.to_owned())),
        None => is_host_name(&plain).then_some(DomainPattern::Exact(plain)),
    }
}
