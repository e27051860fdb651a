//! The JSON Schema and the reference know every key that the reader knows.

use frp_gateway_config::{NoResolver, load, reference_markdown, schema::json_schema};
use serde_json::Value;

#[test]
fn schema_allows_no_unknown_key_at_any_level() {
    fn walk(value: &Value, maps: &mut usize) {
        match value {
            Value::Object(fields) => {
                if let Some(properties) = fields.get("properties") {
                    *maps += 1;
                    assert_eq!(fields.get("additionalProperties"), Some(&Value::Bool(false)), "{properties}");
                }
                fields.values().for_each(|value| walk(value, maps));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, maps)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut maps = 0;
    walk(&json_schema(), &mut maps);
    assert!(maps >= 48, "only {maps} maps in the schema");
}

#[test]
fn schema_requires_what_the_reader_requires() {
    let schema = json_schema();
    assert_eq!(schema["required"], serde_json::json!(["frps"]));
    // Only a file for the agent alone has no listeners.
    let either = serde_json::json!([{ "required": ["listeners"] }, { "required": ["agent"] }]);
    assert_eq!(schema["anyOf"], either);
    let frps = &schema["properties"]["frps"]["items"];
    assert_eq!(frps["required"], serde_json::json!(["name", "host"]));
    assert_eq!(frps["properties"]["weight"]["default"], 1);
}

#[test]
fn every_key_of_the_schema_is_in_the_reference() {
    fn keys(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::Object(properties)) = fields.get("properties") {
                    found.extend(properties.keys().cloned());
                }
                fields.values().for_each(|value| keys(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| keys(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let page = reference_markdown();
    let mut found = Vec::new();
    keys(&json_schema(), &mut found);
    for key in found {
        assert!(page.contains(&format!("| `{key}` |")), "{key} is not in the reference");
    }
}

#[test]
fn diagnostics_are_the_same_as_json() {
    let loaded = load("frps: 1\n", "gateway.yaml", &NoResolver);
    let json = serde_json::to_value(&loaded.diagnostics).expect("diagnostics serialise");
    let first = &json[1];
    assert_eq!(first["severity"], "error", "{json}");
    assert_eq!(first["code"], "wrong-type", "{json}");
    assert_eq!((&first["line"], &first["column"]), (&1.into(), &7.into()), "{json}");
    assert_eq!(first["path"], "frps", "{json}");
}

#[test]
fn a_flood_of_faults_is_cut_and_says_so() {
    let text = "x: 1\n".repeat(5_000);
    let loaded = load(&text, "gateway.yaml", &NoResolver);
    assert_eq!(loaded.diagnostics.len(), 200);
    let help = loaded.diagnostics[199].help.clone().unwrap_or_default();
    assert!(help.contains("more faults"), "{help}");
}
