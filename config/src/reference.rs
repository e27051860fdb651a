//! The reference page `docs/reference/config.md`, made from the table of keys.

use std::time::Duration;

use crate::{
    keys::{Key, Kind, Need, ROOT, Section},
    units::{DURATION_FORMS, SIZE_FORMS, format_duration, format_factor, format_size},
};

/// Every key with type, default, range and meaning, as Markdown.
#[must_use]
pub fn reference_markdown() -> String {
    let mut page = format!(
        "# Configuration reference\n\n\
         <!-- Generated from config/src/keys by the test `reference_page_is_up_to_date`; \
         UPDATE_GOLDEN=1 writes it anew. -->\n\n\
         One YAML file. All faults of a file are reported in one run, each with its place; unknown keys are faults.\n\n\
         - **duration**: {DURATION_FORMS}. A bare number is no duration.\n\
         - **size**: {SIZE_FORMS}.\n\
         - **percent**: 20% or 20, whole. **factor**: 1.25, with at most two decimals.\n\
         - A default of `{{}}` is a map of which every key has its default.\n\
         - **name**: 1 to 64 letters, digits, `_`, `.` or `-`; names become metric labels and hold no variables.\n\
         - **variables**: `${{NAME}}` in any other value is replaced by the environment variable; `$${{` is a plain `${{`.\n\
         - **secret**: the value, `${{NAME}}`, or `file:/path` (a line end at its end is dropped). Never shown anywhere.\n\
         - **path**: of a file or folder, without `file:`; what is in it is never written into this file.\n\
         - **identity**: who a client's certificate is for: `spiffe://…`, `dns:NAME`, `dns:*.NAME` or `cn:TEXT`; `*` stands for \
         any characters in the first and the last.\n\
         - Anchors, aliases and `<<` work; a file has at most 4 MiB, 200,000 values (of at most 16 KiB each) and 64 levels.\n"
    );
    let mut sections = Vec::new();
    collect(&ROOT, &mut sections);
    for section in sections {
        write_section(&mut page, section);
    }
    page
}

/// A section and those below it, in reading order.
fn collect(section: &'static Section, found: &mut Vec<&'static Section>) {
    if found.iter().any(|seen| std::ptr::eq(*seen, section)) {
        return;
    }
    found.push(section);
    for key in section.keys {
        collect_kind(&key.kind, found);
    }
}

fn collect_kind(kind: &'static Kind, found: &mut Vec<&'static Section>) {
    match kind {
        Kind::Section(section) => collect(section, found),
        Kind::List(inner) | Kind::OneOrMany(inner) | Kind::Map(inner) => collect_kind(inner, found),
        Kind::Either(kinds) => kinds.iter().for_each(|kind| collect_kind(kind, found)),
        Kind::Text
        | Kind::Name
        | Kind::Secret
        | Kind::Host
        | Kind::Authority
        | Kind::Url
        | Kind::HttpsUrl
        | Kind::Path
        | Kind::Identity
        | Kind::Address
        | Kind::Network
        | Kind::HostPattern
        | Kind::UrlPath
        | Kind::Regex
        | Kind::Method
        | Kind::Statuses
        | Kind::Token
        | Kind::Domain
        | Kind::Label
        | Kind::Bool
        | Kind::Integer(..)
        | Kind::Duration(..)
        | Kind::DurationOrOff(..)
        | Kind::Size(..)
        | Kind::Percent(..)
        | Kind::Factor(..)
        | Kind::Word(..)
        | Kind::True
        | Kind::Reference(_) => {}
    }
}

fn write_section(page: &mut String, section: &Section) {
    let title =
        if section.title.is_empty() { "Top level".to_owned() } else { format!("`{}`", section.title) };
    page.push_str(&format!("\n## {title}\n\n{}\n", section.about));
    if !section.keys.is_empty() {
        page.push_str("\n| key | type | default | range | meaning |\n| --- | --- | --- | --- | --- |\n");
        section.keys.iter().for_each(|key| write_key(page, key));
    }
    if !section.planned.is_empty() {
        let names: Vec<String> = section.planned.iter().map(|(name, _)| format!("`{name}`")).collect();
        page.push_str(&format!("\nNot supported yet: {}.\n", names.join(", ")));
    }
}

fn write_key(page: &mut String, key: &Key) {
    let default = match key.need {
        Need::Required => "**required**".to_owned(),
        Need::Optional => "—".to_owned(),
        Need::Default(text) => format!("`{text}`"),
    };
    let (kind, range) = (kind(&key.kind), range(&key.kind));
    // A bar would end the cell, even within backquotes.
    let meaning = key.meaning.replace('|', "\\|");
    page.push_str(&format!("| `{}` | {kind} | {default} | {range} | {meaning} |\n", key.name));
}

fn kind(kind_of: &Kind) -> String {
    let plain = match kind_of {
        Kind::Text => "text",
        Kind::Name => "name",
        Kind::Secret => "secret",
        Kind::Host => "IP address or DNS name",
        Kind::Authority => "host, perhaps with `:port`",
        Kind::Url => "URL",
        Kind::Address => "IP:PORT",
        Kind::Network => "CIDR or IP address",
        Kind::HostPattern => "host or `*.host`",
        Kind::UrlPath => "path, begins with `/`",
        Kind::Regex => "regular expression",
        Kind::Method => "HTTP method",
        Kind::Statuses => "status or range",
        Kind::Token => "HTTP token",
        Kind::Domain => "DNS name",
        Kind::Label => "text, 1 to 64 characters",
        Kind::HttpsUrl => "URL, `https://…`",
        Kind::Path => "path",
        Kind::Identity => "identity",
        Kind::Bool => "`true` or `false`",
        Kind::Integer(..) => "integer",
        Kind::Duration(..) => "duration",
        Kind::DurationOrOff(..) => "duration or `off`",
        Kind::Size(..) => "size",
        Kind::Percent(..) => "percent",
        Kind::Factor(..) => "factor",
        Kind::True => "`true`",
        Kind::Section(section) => return format!("map [`{}`]", section.title),
        Kind::Reference(section) => return format!("name of one of `{section}`"),
        Kind::Word(words, _) => {
            return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        }
        Kind::List(item) => return format!("list of: {}", kind(item)),
        Kind::OneOrMany(item) => return format!("{}, or a list", kind(item)),
        Kind::Either(kinds) => return kinds.iter().map(kind).collect::<Vec<_>>().join("; or "),
        Kind::Map(value) => return format!("map of names to: {}", kind(value)),
    };
    plain.to_owned()
}

fn range(kind: &Kind) -> String {
    let (min, max) = kind.range();
    let duration = |ms: u64| format_duration(Duration::from_millis(ms));
    match kind {
        Kind::Integer(..) => format!("{min} to {max}"),
        Kind::Duration(..) | Kind::DurationOrOff(..) => format!("{} to {}", duration(min), duration(max)),
        Kind::Size(..) if max == u64::MAX => format!("from {}", format_size(min)),
        Kind::Size(..) => format!("{} to {}", format_size(min), format_size(max)),
        Kind::Percent(..) => format!("{min}% to {max}%"),
        Kind::Factor(..) => format!("{} to {}", format_factor(min), format_factor(max)),
        Kind::Either(kinds) => kinds.iter().map(range).find(|range| !range.is_empty()).unwrap_or_default(),
        _ => String::new(),
    }
}
