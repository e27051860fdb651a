//! Labels: on an frps, and in what selects by them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    read::{At, Ctx, Fault, quoted, wrong_type},
    yaml::Value,
};

/// Longest name or value, characters.
const MAX_LABEL: usize = 64;

/// Reads a map of labels. They hold no variables: others refer to them as they are written.
pub(super) fn labels(ctx: &mut Ctx<'_>, at: &At<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let entries = match &at.node.value {
        Value::Map(entries) => entries,
        Value::Null => return labels,
        Value::Scalar(_) | Value::List(_) => {
            wrong_type::<()>(ctx, at, "a map of labels, as in { version: v2 }");
            return labels;
        }
    };
    for (name, value) in entries {
        let name_at = At { path: at.path.clone(), node: name };
        let Some(name) = label(ctx, &name_at) else { continue };
        let Some(value) = label(ctx, &at.key(&name, value)) else { continue };
        if labels.insert(name.clone(), value).is_some() {
            ctx.push(Fault::error(&name_at, "duplicate-key", format!("{} is given twice", quoted(&name))));
        }
    }
    labels
}

/// A name or a value.
fn label(ctx: &mut Ctx<'_>, at: &At<'_>) -> Option<String> {
    let Some(text) = at.raw() else { return wrong_type(ctx, at, "a short text") };
    if is_label(text) {
        return Some(text.to_owned());
    }
    let fault = Fault::error(at, "bad-label", format!("{} is no label", at.seen()));
    ctx.push(fault.help(if text.contains("${") {
        "labels hold no variables: write the text itself"
    } else {
        "write 1 to 64 characters, none of them a control character"
    }));
    None
}

fn is_label(text: &str) -> bool {
    let length = text.chars().count();
    (1..=MAX_LABEL).contains(&length) && !text.contains(char::is_control) && !text.contains("${")
}

/// All labels of a fleet as `name=value`, each once, sorted. What must not be shown is left out.
pub(super) fn words(frps_at: Option<&At<'_>>) -> Vec<String> {
    let mut words = BTreeSet::new();
    for server in frps_at.map(At::one_or_many).unwrap_or_default() {
        let labels = super::field(&server, "labels");
        let Some(Value::Map(entries)) = labels.as_ref().map(|at| &at.node.value) else { continue };
        for (key, value) in entries {
            if let (Value::Scalar(name), Value::Scalar(text)) = (&key.value, &value.value)
                && !key.secret
                && !value.secret
            {
                words.insert(format!("{name}={text}"));
            }
        }
    }
    words.into_iter().collect()
}
