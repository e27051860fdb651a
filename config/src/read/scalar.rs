//! Texts, numbers, durations, sizes, secrets.

use std::{path::PathBuf, time::Duration};

use super::{At, Ctx, Fault, interpolate};
use crate::{
    keys::Kind,
    secret::Secret,
    suggest,
    units::{
        DURATION_FORMS, SIZE_FORMS, format_duration, format_factor, format_size, parse_duration,
        parse_factor, parse_percent, parse_size,
    },
};

/// Longest name; names become metric labels.
const MAX_NAME: usize = 64;

/// A text with its variables replaced. Numbers and booleans are texts too: `zone: 1` needs no quotes.
pub(crate) fn text(ctx: &mut Ctx<'_>, at: &At<'_>, _: &Kind) -> Option<String> {
    match at.raw() {
        Some(raw) => interpolate::interpolate(ctx, at, raw),
        None => wrong_type(ctx, at, "a text"),
    }
}

/// A name: `[A-Za-z0-9_.-]{1,64}`. No variables: other keys refer to it as it is written.
pub(crate) fn name(ctx: &mut Ctx<'_>, at: &At<'_>, _: &Kind) -> Option<String> {
    let Some(name) = at.raw() else { return wrong_type(ctx, at, "a name") };
    if is_name(name) {
        return Some(name.to_owned());
    }
    let message = format!("{} is no name", at.seen());
    ctx.push(
        Fault::error(at, "bad-name", message)
            .help("write 1 to 64 letters, digits, \"_\", \".\" or \"-\"; names become metric labels"),
    );
    None
}

pub(crate) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// A whole number within the range of its key.
pub(crate) fn integer(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<u64> {
    let (min, max) = kind.range();
    let allowed = format!("a whole number from {min} to {max}");
    let Some(raw) = at.raw() else { return wrong_type(ctx, at, &allowed) };
    let value = interpolate::interpolate(ctx, at, raw)?;
    let digits = value.strip_prefix('-').unwrap_or(&value);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return wrong_type(ctx, at, &allowed);
    }
    match value.parse() {
        Ok(number) if (min..=max).contains(&number) => Some(number),
        _ => out_of_range(ctx, at, format!("write {allowed}")),
    }
}

/// A duration within the range of its key.
pub(crate) fn duration(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Duration> {
    let Some(raw) = at.raw() else { return wrong_type(ctx, at, "a duration like 10s") };
    let value = interpolate::interpolate(ctx, at, raw)?;
    let (min, max) = kind.range();
    let (low, high) = (Duration::from_millis(min), Duration::from_millis(max));
    match parse_duration(&value) {
        Ok(duration) if (low..=high).contains(&duration) => Some(duration),
        Ok(_) => {
            let help = format!("write a duration from {} to {}", format_duration(low), format_duration(high));
            out_of_range(ctx, at, help)
        }
        Err(bad) => {
            // The help may repeat the value, which must not be when it came out of a variable.
            let help =
                if raw == value { bad.help } else { format!("write a duration like {DURATION_FORMS}") };
            ctx.push(Fault::error(at, "bad-duration", format!("{} is no duration", at.seen())).help(help));
            None
        }
    }
}

/// A duration, or `off`, which reads as `Some(None)`.
pub(crate) fn duration_or_off(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Option<Duration>> {
    if at.raw() == Some("off") { Some(None) } else { duration(ctx, at, kind).map(Some) }
}

/// A size in bytes within the range of its key.
pub(crate) fn size(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<u64> {
    let Some(raw) = at.raw() else { return wrong_type(ctx, at, "a size like 64KiB") };
    let value = interpolate::interpolate(ctx, at, raw)?;
    let (min, max) = kind.range();
    match parse_size(&value) {
        Ok(size) if (min..=max).contains(&size) => Some(size),
        Ok(_) => {
            let help = format!("write a size from {} to {}", format_size(min), format_size(max));
            out_of_range(ctx, at, help)
        }
        Err(bad) => {
            let help = if raw == value { bad.help } else { format!("write a size like {SIZE_FORMS}") };
            ctx.push(Fault::error(at, "bad-size", format!("{} is no size", at.seen())).help(help));
            None
        }
    }
}

/// `true` or `false`; what else YAML has called so is refused with what to write.
pub(crate) fn boolean(ctx: &mut Ctx<'_>, at: &At<'_>, _: &Kind) -> Option<bool> {
    let Some(raw) = at.raw() else { return wrong_type(ctx, at, "true or false") };
    match interpolate::interpolate(ctx, at, raw)?.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        other => {
            let fault =
                Fault::error(at, "wrong-type", format!("expected true or false, found {}", at.seen()));
            ctx.push(match other {
                "yes" | "on" => fault.help("write true"),
                "no" | "off" => fault.help("write false"),
                _ => fault,
            });
            None
        }
    }
}

/// Percent within the range of its key.
pub(crate) fn percent(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<u32> {
    let Some(raw) = at.raw() else { return wrong_type(ctx, at, "a percent like 20%") };
    let value = interpolate::interpolate(ctx, at, raw)?;
    let (min, max) = kind.range();
    match parse_percent(&value) {
        Ok(percent) if (min..=max).contains(&percent) => u32::try_from(percent).ok(),
        Ok(_) => out_of_range(ctx, at, format!("write a percent from {min}% to {max}%")),
        Err(bad) => {
            // The help repeats the value, which must not be when it came out of a variable.
            let help = if raw == value { bad.help } else { "write a whole percent like 20%".to_owned() };
            ctx.push(Fault::error(at, "bad-percent", format!("{} is no percent", at.seen())).help(help));
            None
        }
    }
}

/// A factor within the range of its key, in percent.
pub(crate) fn factor(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<u32> {
    let Some(raw) = at.raw() else { return wrong_type(ctx, at, "a factor like 1.25") };
    let value = interpolate::interpolate(ctx, at, raw)?;
    let (min, max) = kind.range();
    match parse_factor(&value) {
        Ok(percent) if (min..=max).contains(&percent) => u32::try_from(percent).ok(),
        Ok(_) => {
            let help = format!("write a factor from {} to {}", format_factor(min), format_factor(max));
            out_of_range(ctx, at, help)
        }
        Err(bad) => {
            let help = if raw == value { bad.help } else { "write a factor like 1.25".to_owned() };
            ctx.push(Fault::error(at, "bad-factor", format!("{} is no factor", at.seen())).help(help));
            None
        }
    }
}

/// A factor, or `off`, which reads as `Some(None)`.
pub(crate) fn factor_or_off(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Option<u32>> {
    if at.raw() == Some("off") { Some(None) } else { factor(ctx, at, kind).map(Some) }
}

/// One of the words of its key.
pub(crate) fn word(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<&'static str> {
    let (Some((words, planned)), Some(raw)) = (kind.words(), at.raw()) else {
        return wrong_type(ctx, at, "a word");
    };
    let value = interpolate::interpolate(ctx, at, raw)?;
    if let Some(word) = words.iter().find(|word| **word == value) {
        return Some(word);
    }
    ctx.push(if planned.contains(&value.as_str()) {
        Fault::error(at, "not-supported-yet", format!("{} is not supported by this version", at.seen()))
            .help(format!("supported: {}", suggest::list(words)))
    } else {
        Fault::error(at, "unknown-value", format!("{} is not known here", at.seen()))
            .help(suggest::help(&value, "allowed", words))
    });
    None
}

/// A secret: `${VAR}`, `file:/path`, or the value itself. Never empty.
pub(crate) fn secret(ctx: &mut Ctx<'_>, at: &At<'_>, _: &Kind) -> Option<Secret> {
    let Some(raw) = at.raw() else { return wrong_type(ctx, at, "a secret") };
    let mut value = interpolate::interpolate(ctx, at, raw)?;
    // Only where the file itself says so: a variable whose content begins with "file:" is a value.
    if raw.starts_with("file:") {
        let path = value.strip_prefix("file:").unwrap_or_default().to_owned();
        value = interpolate::read_file(ctx, at, &path)?;
    }
    if value.is_empty() {
        ctx.push(
            Fault::error(at, "empty-secret", "the secret is empty")
                .help("write \"${NAME}\" for an environment variable or \"file:/path\" for a file"),
        );
        return None;
    }
    Some(Secret::new(value))
}

/// The path of a file or folder. Whether it is there, only the gateway can tell.
pub(crate) fn path(ctx: &mut Ctx<'_>, at: &At<'_>, _: &Kind) -> Option<PathBuf> {
    let Some(raw) = at.raw() else { return wrong_type(ctx, at, "a path") };
    let value = interpolate::interpolate(ctx, at, raw)?;
    let help = if value.contains("-----BEGIN") {
        // Perhaps a private key: what was written is not repeated.
        let message = "this is the content of a file, not its path";
        ctx.push(Fault::error(at, "bad-file", message).help("write it to a file and give its path"));
        return None;
    } else if value.is_empty() {
        "write the path of a file"
    } else if raw.starts_with("file:") {
        "write the path alone, without \"file:\""
    } else if value.contains(char::is_control) {
        "write a path on one line"
    } else {
        return Some(value.into());
    };
    ctx.push(Fault::error(at, "bad-file", format!("{} is no path", at.seen())).help(help));
    None
}

/// A path of a URL: begins with `/`, printable ASCII without spaces.
pub(crate) fn url_path(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let path = text(ctx, at, kind)?;
    let printable = path.bytes().all(|b| b.is_ascii_graphic());
    if path.starts_with('/') && printable && !path.contains('#') {
        return Some(path);
    }
    let fault = Fault::error(at, "bad-path", format!("{} is no path", at.seen()));
    ctx.push(fault.help(if printable {
        "write a path that begins with \"/\", without \"#\""
    } else {
        "write a path that begins with \"/\"; it is compared byte for byte, so write other characters as %XX"
    }));
    None
}

/// Reports a value of the wrong type.
pub(crate) fn wrong_type<T>(ctx: &mut Ctx<'_>, at: &At<'_>, expected: &str) -> Option<T> {
    ctx.push(Fault::error(at, "wrong-type", format!("expected {expected}, found {}", at.seen())));
    None
}

fn out_of_range<T>(ctx: &mut Ctx<'_>, at: &At<'_>, help: String) -> Option<T> {
    ctx.push(Fault::error(at, "out-of-range", format!("{} is out of range", at.seen())).help(help));
    None
}
