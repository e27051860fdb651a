//! A world with a few variables and one file.

use frp_gateway_config::{Loaded, Resolver};

/// What no diagnostic may contain.
pub(crate) const SECRETS: [&str; 22] = [
    "t0ken-secret",
    "pa55-secret",
    "from-file-secret",
    "affinity-secret",
    "affinity-s3cret",
    "short-secret",
    "0.2468",
    "1357",
    "hunter2",
    "hunter3",
    "hunter4",
    "hunter5",
    "hunter2hunter2",
    "plugin-s3cret",
    "plugin-0ld",
    "frps-s3cret",
    "agent-s3cret",
    "alice-s3cret",
    "literal-s3cret",
    "blank s3cret",
    "acme-s3cret",
    "acme s3cret",
];

/// Answers from a fixed table.
#[derive(Debug)]
pub(crate) struct Table;

impl Resolver for Table {
    fn env(&self, name: &str) -> Option<String> {
        let value = match name {
            "TOKEN" => "t0ken-secret",
            "PW" => "pa55-secret",
            "AFFINITY_KEY" => "affinity-secret-0123456789abcdefghij",
            "OLD_AFFINITY_KEY" => "affinity-s3cret-0123456789abcdefghij",
            "SHORT_KEY" => "short-secret",
            "PLUGIN_KEY" => "plugin-s3cret-0123456789abcdefghij",
            "OLD_PLUGIN_KEY" => "plugin-0ld-0123456789abcdefghijklmn",
            "FRPS_A" => "frps-s3cret-a-0123456789",
            "FRPS_B" => "frps-s3cret-b-0123456789",
            "AGENT_TOKEN" => "agent-s3cret-0123456789",
            "ALICE" => "alice-s3cret",
            "HMAC_KEY" => "acme-s3cret-0123456789",
            "BLANK" => "blank s3cret/0123456789",
            "PORTS" => "1357-20",
            "FRACTION" => "0.2468",
            "NUMBER" => "1357",
            "PORT" => "8080",
            "SECONDS" => "45",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn file(&self, path: &str) -> Result<String, String> {
        match path {
            "/run/secrets/token" => Ok("from-file-secret\n".to_owned()),
            _ => Err("no such file".to_owned()),
        }
    }
}

/// All diagnostics as the command line prints them.
pub(crate) fn text(loaded: &Loaded) -> String {
    loaded.diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n")).collect()
}
