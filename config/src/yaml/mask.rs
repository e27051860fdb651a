//! Which values must not be shown.
//!
//! By key and not by schema, so that `pasword: hunter2` at a place where no password belongs is masked too.
//! References (`${VAR}`, `file:/x`) say nothing and stay readable, and so do those settings of an affinity cookie and
//! of a plugin that are no key.

use std::{collections::BTreeSet, rc::Rc};

use super::{Node, Span, Value};

/// Marks every secret of a tree.
pub(super) fn mark(root: &mut Node) {
    let mut texts = BTreeSet::new();
    mark_keys(root, Under::Nothing, &mut texts);
    mark_torn(root, &mut texts);
    if !texts.is_empty() {
        mark_equal(root, &texts);
    }
}

/// A line end in the middle of a word (`se`, `cret: hunter2`) makes a key of the file itself out of the word's end.
fn mark_torn(root: &mut Node, texts: &mut BTreeSet<Rc<str>>) {
    let Value::Map(entries) = &mut root.value else { return };
    for (key, value) in entries {
        let Value::Scalar(name) = &key.value else { continue };
        if !name.is_empty()
            && ["key", "token", "secret", "password"].iter().any(|word| word.ends_with(&**name))
        {
            mark_keys(value, Under::Secret, texts);
        }
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
    let last = key.rsplit(['_', '-']).next().unwrap_or_default();
    ["token", "passw", "pwd", "secret", "credential", "auth", "cookie", "api_key", "api-key", "apikey"]
        .iter()
        .any(|word| key.contains(word))
        || ["key", "token", "secret"].iter().any(|word| strsim::damerau_levenshtein(last, word) <= 1)
        || strsim::damerau_levenshtein(&key, "password") <= 3
}

/// What the keys above a node make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Under {
    Nothing,
    Affinity,
    /// A map of secrets and these settings. Everything but what is known to be harmless is a secret: a misspelt `key`
    /// is one.
    Holder(&'static [&'static str]),
    Secret,
}

/// Keys of an affinity cookie that are no secret.
const COOKIE_SETTINGS: &[&str] =
    &["name", "ttl", "idle", "path", "domain", "secure", "http_only", "same_site", "strict"];

/// Keys of an external account of `acme` that are no secret.
const ACCOUNT_SETTINGS: &[&str] = &["key_id"];

/// Keys of `plugin`, at the top and of an frps, that are no secret.
const PLUGIN_SETTINGS: &[&str] = &["listen", "allow"];

impl Under {
    fn key(self, key: &Node) -> Self {
        let name = match &key.value {
            Value::Scalar(name) if !name.is_empty() => name,
            // No key at all: the word before the colon may have been lost. `secret`, line end, `: hunter2`.
            Value::Null | Value::Scalar(_) => return Self::Secret,
            Value::List(_) | Value::Map(_) => return self,
        };
        match self {
            Self::Secret => Self::Secret,
            Self::Holder(settings) if settings.contains(&&**name) => Self::Nothing,
            Self::Holder(_) => Self::Secret,
            Self::Affinity if &**name == "cookie" => Self::Holder(COOKIE_SETTINGS),
            Self::Nothing | Self::Affinity if &**name == "plugin" => Self::Holder(PLUGIN_SETTINGS),
            Self::Nothing | Self::Affinity if &**name == "external_account" => Self::Holder(ACCOUNT_SETTINGS),
            // How clients show who they are: paths and names.
            Self::Nothing | Self::Affinity if &**name == "client_auth" => Self::Nothing,
            Self::Nothing | Self::Affinity if is_secret_word(name) => Self::Secret,
            Self::Nothing | Self::Affinity if &**name == "affinity" => Self::Affinity,
            Self::Nothing | Self::Affinity => Self::Nothing,
        }
    }
}

impl Under {
    /// A secret where a key is expected: `{ key: , SECRET }`, `{ token SECRET }`.
    fn is_secret_as_key(self, key: &Node) -> bool {
        let Value::Scalar(text) = &key.value else { return false };
        match self {
            // No setting has so long a name.
            Self::Holder(_) => text.len() > LONGEST_SETTING,
            Self::Nothing | Self::Affinity | Self::Secret => {
                text.contains(char::is_whitespace) && is_secret_word(text)
            }
        }
    }
}

/// A misspelt name of such a setting is at most this long, bytes; a key is longer.
const LONGEST_SETTING: usize = 16;

fn mark_keys(node: &mut Node, under: Under, texts: &mut BTreeSet<Rc<str>>) {
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(text) => {
            let secret = matches!(under, Under::Secret | Under::Holder(_));
            node.secret = (secret && !is_reference(text)) || has_userinfo(text) || is_private_key(text);
            if node.secret && text.len() >= 4 {
                texts.insert(text.clone());
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| mark_keys(item, under, texts)),
        Value::Map(entries) => {
            for (key, value) in entries {
                mark_keys(value, under.key(key), texts);
                key.secret = under.is_secret_as_key(key);
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

/// The content of a PEM file, where its path belongs.
fn is_private_key(text: &str) -> bool {
    text.contains("PRIVATE KEY-----")
}

/// `http://user:password@host`.
fn has_userinfo(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}
