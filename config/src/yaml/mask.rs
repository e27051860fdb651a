//! Which values must not be shown.
//!
//! By key and not by schema, so that `pasword: hunter2` at a place where no password belongs is masked too.
//! References (`${VAR}`, `file:/x`) say nothing and stay readable.

use std::{collections::BTreeSet, rc::Rc};

use super::{Node, Span, Value};

/// Marks every secret of a tree.
pub(super) fn mark(root: &mut Node) {
    let mut texts = BTreeSet::new();
    mark_keys(root, false, &mut texts);
    if !texts.is_empty() {
        mark_equal(root, &texts);
    }
}

/// The places of all secrets.
pub(crate) fn secret_spans(root: &Node) -> Vec<Span> {
    fn walk(node: &Node, spans: &mut Vec<Span>) {
        if node.secret {
            spans.push(node.span);
        }
        match &node.value {
            Value::Null | Value::Scalar(_) => {}
            Value::List(items) => items.iter().for_each(|item| walk(item, spans)),
            Value::Map(entries) => entries.iter().for_each(|(key, value)| {
                walk(key, spans);
                walk(value, spans);
            }),
        }
    }
    let mut spans = Vec::new();
    walk(root, &mut spans);
    spans.sort_unstable();
    spans.dedup();
    spans
}

/// Whether a key of this name, or nearly this name, holds a secret.
pub(crate) fn is_secret_word(key: &str) -> bool {
    if key.len() > 64 {
        return false;
    }
    let key = key.to_lowercase();
    ["token", "passw", "pwd", "secret", "credential", "auth", "cookie", "api_key", "api-key", "apikey"]
        .iter()
        .any(|word| key.contains(word))
        || strsim::damerau_levenshtein(&key, "token") <= 1
        || strsim::damerau_levenshtein(&key, "password") <= 3
}

fn mark_keys(node: &mut Node, secret: bool, texts: &mut BTreeSet<Rc<str>>) {
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(text) => {
            node.secret = (secret && !is_reference(text)) || has_userinfo(text);
            if node.secret && text.len() >= 4 {
                texts.insert(text.clone());
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| mark_keys(item, secret, texts)),
        Value::Map(entries) => {
            for (key, value) in entries {
                let under = secret || matches!(&key.value, Value::Scalar(name) if is_secret_word(name));
                mark_keys(value, under, texts);
            }
        }
    }
}

/// A secret that was given an anchor and used again elsewhere, or was simply written twice.
fn mark_equal(node: &mut Node, texts: &BTreeSet<Rc<str>>) {
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(text) => node.secret |= texts.contains(text),
        Value::List(items) => items.iter_mut().for_each(|item| mark_equal(item, texts)),
        Value::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
            mark_equal(key, texts);
            mark_equal(value, texts);
        }),
    }
}

fn is_reference(text: &str) -> bool {
    text.starts_with("file:") || (text.starts_with("${") && text.find('}') == Some(text.len() - 1))
}

/// `http://user:password@host`.
fn has_userinfo(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}
