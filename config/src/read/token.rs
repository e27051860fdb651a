//! Words of HTTP: tokens and statuses.

use super::{At, Ctx, Fault, text};
use crate::keys::Kind;

/// A header or cookie name.
pub(crate) fn token(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let value = text(ctx, at, kind)?;
    if is_token(&value) {
        return Some(value);
    }
    ctx.push(
        Fault::error(at, "bad-token", format!("{} is no name that HTTP allows", at.seen()))
            .help("write letters, digits and any of !#$%&'*+-.^_`|~ without spaces"),
    );
    None
}

/// A token of HTTP: what methods, field names and cookie names are made of.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// `200` or `200-399`: an inclusive range of statuses.
pub(crate) fn statuses(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<(u16, u16)> {
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
