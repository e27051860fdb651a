//! JSON Schema of the YAML, for editors. Made from the table of keys, so it can't lag behind the reader.

use serde_json::{Map, Value, json};

use crate::keys::{Key, Kind, Need, ROOT, Section};

/// A text that contains a `${VAR}`: allowed wherever a number or unit is expected.
const VARIABLE: &str = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}";

/// The schema (draft 2020-12) of a whole file.
///
/// It knows shapes, words and ranges of numbers; what needs more than one place (references, addresses bound
/// twice) only [`crate::load`] can tell. Every valid file is valid under it.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = section(&ROOT);
    if let Value::Object(fields) = &mut schema {
        fields.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        fields.insert("title".to_owned(), json!("frp-gateway configuration"));
        // A file for the agent alone has no listeners.
        fields.insert("required".to_owned(), json!(["frps"]));
        fields.insert("anyOf".to_owned(), json!([{ "required": ["listeners"] }, { "required": ["agent"] }]));
    }
    schema
}

fn section(section: &Section) -> Value {
    let properties: Map<String, Value> =
        section.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> =
        section.keys.iter().filter(|key| matches!(key.need, Need::Required)).map(|key| key.name).collect();
    let mut schema = json!({
        "type": if required.is_empty() { json!(["object", "null"]) } else { json!("object") },
        "description": section.about,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = kind(&key.kind);
    schema["description"] = json!(key.meaning);
    if let Need::Default(default) = key.need {
        schema["default"] = match key.kind {
            _ if default == "{}" => json!({}),
            Kind::Integer(..) => default.parse::<u64>().map_or(json!(default), |number| json!(number)),
            Kind::Bool => json!(default == "true"),
            _ => json!(default),
        };
    }
    schema
}

fn kind(kind_of: &Kind) -> Value {
    // A text in YAML may be written as a number or a boolean: `zone: 1`.
    let text = json!({ "type": ["string", "number", "boolean"] });
    match kind_of {
        Kind::Text | Kind::Secret | Kind::Statuses => text,
        Kind::Name | Kind::Reference(_) => {
            json!({ "type": ["string", "number", "boolean"], "pattern": r"^[A-Za-z0-9_.-]{1,64}$|\$\{" })
        }
        Kind::Label => json!({ "type": ["string", "number", "boolean"], "minLength": 1, "maxLength": 64 }),
        Kind::Host
        | Kind::Token
        | Kind::Domain
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
        | Kind::Method => json!({ "type": ["string", "number"] }),
        Kind::Integer(min, max) => json!({ "anyOf": [
            { "type": "integer", "minimum": min, "maximum": max },
            { "type": "string", "pattern": format!("^[0-9]+$|{VARIABLE}") },
        ] }),
        Kind::Duration(..) => json!({ "type": "string", "pattern": duration("") }),
        Kind::DurationOrOff(..) => json!({ "type": ["string", "boolean"], "pattern": duration("off|") }),
        Kind::Size(..) => json!({ "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": format!("^[0-9]+(B|KiB|MiB|GiB)?$|{VARIABLE}") },
        ] }),
        Kind::Percent(min, max) => json!({ "anyOf": [
            { "type": "integer", "minimum": min, "maximum": max },
            { "type": "string", "pattern": format!("^[0-9]+%?$|{VARIABLE}") },
        ] }),
        Kind::Factor(min, max) => json!({ "anyOf": [
            { "type": "number", "minimum": as_factor(*min), "maximum": as_factor(*max) },
            { "type": "string", "pattern": format!(r"^[0-9]+(\.[0-9]{{1,2}})?$|{VARIABLE}") },
        ] }),
        Kind::Bool => json!({ "anyOf": [
            { "enum": [true, false, "true", "false"] },
            { "type": "string", "pattern": VARIABLE },
        ] }),
        Kind::Word(words, _) => {
            // YAML 1.1 readers, some editors among them, take `off` for a boolean.
            let off = words.contains(&"off").then_some(json!(false));
            let on = words.contains(&"on").then_some(json!(true));
            // `min_version: 1.2` and `status: 301` are numbers in YAML.
            let numbers =
                words.iter().filter_map(|word| serde_json::from_str::<serde_json::Number>(word).ok());
            let allowed: Vec<Value> = words
                .iter()
                .map(|word| json!(word))
                .chain(numbers.map(Value::Number))
                .chain(off)
                .chain(on)
                .collect();
            json!({ "anyOf": [{ "enum": allowed }, { "type": "string", "pattern": VARIABLE }] })
        }
        Kind::True => json!({ "enum": [true, "true"] }),
        Kind::Section(inner) => section(inner),
        Kind::List(item) => json!({ "type": ["array", "null"], "items": kind(item) }),
        Kind::OneOrMany(item) => {
            json!({ "anyOf": [kind(item), { "type": ["array", "null"], "items": kind(item) }] })
        }
        Kind::Either(kinds) => json!({ "anyOf": kinds.iter().map(kind).collect::<Vec<_>>() }),
        Kind::Map(value) => json!({ "type": ["object", "null"], "additionalProperties": kind(value) }),
    }
}

/// Percent as a number of times.
fn as_factor(percent: u64) -> f64 {
    f64::from(u32::try_from(percent).unwrap_or(u32::MAX)) / 100.0
}

fn duration(also: &str) -> String {
    format!("^({also}([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$|{VARIABLE}")
}
