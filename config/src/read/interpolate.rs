//! `${VAR}` in values, `file:/path` in secrets.

use super::{At, Ctx, Fault};

/// The text of a scalar with every `${VAR}` replaced; `$${` stands for `${`, any other `$` for itself.
///
/// What a variable holds is not looked at again, so it can't smuggle in another reference.
pub(super) fn interpolate(ctx: &mut Ctx<'_>, at: &At<'_>, raw: &str) -> Option<String> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    let mut good = true;
    while let Some(start) = rest.find("${") {
        let (before, reference) = (&rest[..start], &rest[start + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            text += before;
            text += "${";
            rest = reference;
            continue;
        }
        text += before;
        let Some((name, after)) = reference.split_once('}') else {
            ctx.push(bad_reference(at, "\"${\" without \"}\""));
            return None;
        };
        if is_variable(name) {
            match ctx.resolver.env(name) {
                Some(value) => text += &value,
                None => {
                    let message = format!("the environment variable {name} is not set");
                    ctx.push(
                        Fault::error(at, "missing-variable", message)
                            .help(format!("set {name} for the process, or write the value here")),
                    );
                    good = false;
                }
            }
        } else {
            ctx.push(bad_reference(at, "between \"${\" and \"}\" stands no variable name"));
            good = false;
        }
        rest = after;
    }
    text += rest;
    good.then_some(text)
}

/// The content of the file that a secret names, without the line end that editors add.
pub(super) fn read_file(ctx: &mut Ctx<'_>, at: &At<'_>, path: &str) -> Option<String> {
    match ctx.resolver.file(path) {
        Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(reason) => {
            let message = format!("cannot read the file {}: {reason}", super::quoted(path));
            ctx.push(
                Fault::error(at, "unreadable-file", message)
                    .help("give a path that the gateway's user can read: \"file:/run/secrets/token\""),
            );
            None
        }
    }
}

fn bad_reference(at: &At<'_>, what: &str) -> Fault {
    Fault::error(at, "bad-reference", format!("{what}, found {}", at.shown()))
        .help("write ${NAME} with letters, digits and _ ; for a plain \"${\" write \"$${\"")
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
