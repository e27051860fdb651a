//! A world with a few variables and one file.

use frp_gateway_config::{Loaded, Resolver};

/// What no diagnostic may contain.
pub(crate) const SECRETS: [&str; 6] =
    ["t0ken-secret", "pa55-secret", "from-file-secret", "hunter2", "hunter3", "hunter2hunter2"];

/// Answers from a fixed table.
#[derive(Debug)]
pub(crate) struct Table;

impl Resolver for Table {
    fn env(&self, name: &str) -> Option<String> {
        let value = match name {
            "TOKEN" => "t0ken-secret",
            "PW" => "pa55-secret",
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
