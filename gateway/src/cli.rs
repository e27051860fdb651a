//! The command line. Exit codes: 0 ok, 1 failed, 2 bad configuration (or bad arguments).

use std::{
    fmt::Display,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};
use frp_gateway_config::Severity;
use serde_json::json;

use crate::{
    control::{Fault, reload::System},
    lifecycle::{self, StartError},
    telemetry::log,
};

const OK: u8 = 0;
const FAILED: u8 = 1;
const BAD_CONFIG: u8 = 2;

/// Load balancing in front of a fleet of FRP servers.
#[derive(Debug, Parser)]
#[command(name = "frp-gateway", version, about)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve. SIGHUP reloads, SIGTERM drains.
    Run {
        /// The configuration; edits take effect live.
        #[arg(short, long, value_name = "FILE", env = "FRP_GATEWAY_CONFIG")]
        config: PathBuf,
        /// How log lines look.
        #[arg(long, value_enum, default_value = "text", env = "FRP_GATEWAY_LOG_FORMAT")]
        log_format: log::Format,
        /// From which level on lines are written.
        #[arg(long, value_enum, default_value = "info", env = "FRP_GATEWAY_LOG_LEVEL")]
        log_level: log::Level,
    },
    /// Check a configuration and print everything that is wrong with it.
    Check {
        /// The configuration.
        file: PathBuf,
        /// How the result looks.
        #[arg(long, value_enum, default_value = "text")]
        format: Output,
    },
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Print the version.
    Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Does what the arguments say.
#[must_use]
pub fn main(arguments: &Arguments) -> ExitCode {
    ExitCode::from(match &arguments.command {
        Command::Run { config, log_format, log_level } => run(config, *log_format, *log_level),
        Command::Check { file, format } => check(file, *format),
        Command::Schema => say(frp_gateway_config::schema::json_schema()),
        Command::Version => say(concat!("frp-gateway ", env!("CARGO_PKG_VERSION"))),
    })
}

fn run(config: &Path, format: log::Format, level: log::Level) -> u8 {
    if let Err(error) = log::init(format, level) {
        complain(&format!("frp-gateway: logging cannot start: {error}"));
        return FAILED;
    }
    let ending = lifecycle::run(config);
    log::flush();
    let Err(error) = ending else { return OK };
    let all = |faults: &[Fault]| faults.iter().for_each(|fault| complain(&fault.text));
    match &error {
        StartError::Config(faults) => {
            all(faults);
            complain(&format!("frp-gateway: {error}"));
            return BAD_CONFIG;
        }
        StartError::Effect(faults) => all(faults),
        StartError::Admin { .. }
        | StartError::System { .. }
        | StartError::Metrics(_)
        | StartError::Control(_) => {}
    }
    complain(&format!("frp-gateway: {error}"));
    FAILED
}

fn check(file: &Path, output: Output) -> u8 {
    let name = file.display().to_string();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            complain(&format!("{name}: {error}"));
            return BAD_CONFIG;
        }
    };
    let loaded = frp_gateway_config::load(&text, &name, &System);
    let count = |severity| loaded.diagnostics.iter().filter(|one| one.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let ok = loaded.config.is_some();
    match output {
        Output::Json => {
            say(json!({
                "file": name, "ok": ok, "errors": errors, "warnings": warnings,
                "diagnostics": loaded.diagnostics,
            }));
        }
        Output::Text => {
            for diagnostic in &loaded.diagnostics {
                say(diagnostic);
            }
            let summary = match &loaded.config {
                Some(config) => format!(
                    "{name}: ok ({}, {}, {}, {}{})",
                    counted(config.frps.len(), "frps", "frps"),
                    counted(config.listeners.len(), "listener", "listeners"),
                    counted(config.pools.len(), "pool", "pools"),
                    counted(config.routes.len(), "route", "routes"),
                    if warnings > 0 {
                        format!("; {}", counted(warnings, "warning", "warnings"))
                    } else {
                        String::new()
                    },
                ),
                None => format!(
                    "{name}: {}, {}",
                    counted(errors, "error", "errors"),
                    counted(warnings, "warning", "warnings")
                ),
            };
            say(summary);
        }
    }
    if ok { OK } else { BAD_CONFIG }
}

fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A line of result. A reader that went away (`| head`) is no failure of ours.
fn say(line: impl Display) -> u8 {
    drop(writeln!(io::stdout(), "{line}"));
    OK
}

/// A line about what went wrong.
fn complain(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}
