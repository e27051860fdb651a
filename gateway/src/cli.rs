//! The command line. Exit codes: 0 ok, 1 failed, 2 bad configuration (or bad arguments, or no gateway there to ask).

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};
use frp_gateway_config::{Severity, units};
use serde_json::json;

use crate::{
    admin::{api::UpgradeView, explain::Ask},
    ca,
    client::{
        self,
        reach::{Gateway, Reach, Unanswered},
        table::Colour,
    },
    control::{Fault, reload::System},
    lifecycle::{self, Ending, StartError},
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
    /// Serve. SIGHUP reloads, SIGTERM drains, SIGUSR2 upgrades.
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
    /// Answer one frps as its server plugin, and tell the gateways: runs beside each frps. SIGHUP reloads, SIGTERM ends.
    Agent {
        /// The configuration: the gateways' own, with an `agent` section.
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
    /// Say where a request or a connection would go and why, by the running gateway's live state. Nothing is sent to any endpoint.
    ///
    /// Ends with 0 when an endpoint would get it, 1 when none would, 2 when there is no answer.
    Explain {
        /// What is asked for: `http://HOST:PORT/PATH`, `tcp://HOST:PORT`, `udp://HOST:PORT` or `tls://NAME:PORT`.
        #[arg(required_unless_present = "listener")]
        url: Option<String>,
        /// A header that goes with it; may be repeated.
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
        headers: Vec<(String, String)>,
        /// Its method.
        #[arg(short = 'X', long, default_value = "GET")]
        method: String,
        /// The visitor's address. Default: 127.0.0.1.
        #[arg(long, value_name = "IP")]
        from: Option<IpAddr>,
        /// Whose certificate is shown: `spiffe://…`, `dns:NAME` or `cn:TEXT`. Default: none is.
        #[arg(long, value_name = "IDENTITY")]
        client: Option<String>,
        /// Where it comes in. Default: the listener on the URL's port, or the only one.
        #[arg(long, value_name = "NAME")]
        listener: Option<String>,
        /// How the result looks.
        #[arg(long, value_enum, default_value = "text")]
        format: Output,
        #[command(flatten)]
        reach: Reach,
    },
    /// Show the running gateway's pools: state, load, latency and live share of every endpoint.
    Status {
        /// Go on until interrupted.
        #[arg(short, long)]
        watch: bool,
        /// Time over which rates and shares are taken.
        #[arg(short, long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
        interval: Duration,
        /// How the result looks; JSON is one object per line.
        #[arg(long, value_enum, default_value = "text")]
        format: Output,
        #[command(flatten)]
        reach: Reach,
    },
    /// Empty an frps: no new clients, no new requests where others can serve; its clients are moved one by one.
    ///
    /// With --wait, ends with 0 when it is empty, 1 when some of its clients can't be moved, 2 when there is no answer.
    Drain {
        /// Name of the frps.
        frps: String,
        /// Wait until nobody is left who can be moved.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Use an frps again that was drained by command.
    Undrain {
        /// Name of the frps.
        frps: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Spread clients evenly again, gently: one by one, until it is even or a move fails.
    Rebalance {
        #[command(flatten)]
        reach: Reach,
    },
    /// Replace the running gateway by the program that now is where it was started from, without losing a visitor.
    ///
    /// Ends with 0 when the new process serves, 1 when the old one serves on (and says why), 2 when there is no answer.
    Upgrade {
        /// How the result looks.
        #[arg(long, value_enum, default_value = "text")]
        format: Output,
        #[command(flatten)]
        reach: Reach,
    },
    /// A small certificate authority in a folder: certificates for frpc, gateways and frps, their renewal and revocation. No network.
    Ca(ca::command::Arguments),
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
        Command::Run { config, log_format, log_level } => {
            run(|| lifecycle::run(config), *log_format, *log_level)
        }
        Command::Agent { config, log_format, log_level } => {
            run(|| crate::agent::run(config), *log_format, *log_level)
        }
        Command::Check { file, format } => check(file, *format),
        Command::Explain { url, headers, method, from, client, listener, format, reach } => {
            let ask = Ask {
                url: url.clone().unwrap_or_default(),
                method: method.clone(),
                headers: headers.clone(),
                from: *from,
                client: client.clone(),
                listener: listener.clone(),
            };
            with_gateway(reach, async |gateway| explain(&gateway, &ask, *format).await)
        }
        Command::Status { watch, interval, format, reach } => {
            with_gateway(reach, async |gateway| status(&gateway, *interval, *watch, *format).await)
        }
        Command::Drain { frps, wait, reach } => {
            with_gateway(reach, async |gateway| drain(&gateway, frps, true, *wait).await)
        }
        Command::Undrain { frps, reach } => {
            with_gateway(reach, async |gateway| drain(&gateway, frps, false, false).await)
        }
        Command::Rebalance { reach } => with_gateway(reach, async |gateway| rebalance(&gateway).await),
        Command::Upgrade { format, reach } => {
            with_gateway(reach, async |gateway| upgrade(&gateway, *format).await)
        }
        Command::Ca(arguments) => certificates(arguments),
        Command::Schema => say(frp_gateway_config::schema::json_schema()),
        Command::Version => say(concat!("frp-gateway ", env!("CARGO_PKG_VERSION"))),
    })
}

fn run(serve: impl FnOnce() -> Result<Ending, StartError>, format: log::Format, level: log::Level) -> u8 {
    if let Err(error) = log::init(format, level) {
        complain(&format!("frp-gateway: logging cannot start: {error}"));
        return FAILED;
    }
    let ending = serve();
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
        | StartError::Agent { .. }
        | StartError::System { .. }
        | StartError::Metrics(_)
        | StartError::Control(_)
        | StartError::Cancelled => {}
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

fn certificates(arguments: &ca::command::Arguments) -> u8 {
    let Err(error) = ca::command::run(arguments) else { return OK };
    complain(&format!("frp-gateway: {error}"));
    if error.is_askers() { BAD_CONFIG } else { FAILED }
}

/// Asks the running gateway; what can't be asked is complained about.
fn with_gateway(reach: &Reach, ask: impl AsyncFnOnce(Gateway) -> Result<u8, Unanswered>) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("frp-gateway: cannot start: {error}"));
            return FAILED;
        }
    };
    let asked = reach.resolve().and_then(|gateway| runtime.block_on(ask(gateway)));
    asked.unwrap_or_else(|unanswered| {
        complain(&format!("frp-gateway: {unanswered}"));
        BAD_CONFIG
    })
}

async fn drain(gateway: &Gateway, frps: &str, on: bool, wait: bool) -> Result<u8, Unanswered> {
    let view = client::drain::ask(gateway, frps, on).await?;
    if !on {
        say(format!("{frps}: in use"));
        return Ok(OK);
    }
    if !wait {
        let progress = view.drains.get(frps).cloned().unwrap_or_default();
        say(client::drain::text(frps, &progress));
        return Ok(OK);
    }
    let progress = client::drain::wait(gateway, frps, |line| {
        say(line);
    })
    .await?;
    Ok(if progress.state == "drained" { OK } else { FAILED })
}

async fn rebalance(gateway: &Gateway) -> Result<u8, Unanswered> {
    let told = client::drain::rebalance(gateway).await?;
    say(format!("{} moved", counted(usize::try_from(told.moved).unwrap_or(usize::MAX), "client", "clients")));
    match told.error {
        None => Ok(OK),
        Some(error) => {
            complain(&format!("frp-gateway: stopped: {error}"));
            Ok(FAILED)
        }
    }
}

async fn explain(gateway: &Gateway, ask: &Ask, output: Output) -> Result<u8, Unanswered> {
    let told = client::explain::ask(gateway, ask).await?;
    match output {
        Output::Json => say(as_json(&told)),
        Output::Text => say(client::explain::text(&told, Colour::of_stdout()).trim_end()),
    };
    Ok(if client::explain::is_served(&told) { OK } else { FAILED })
}

async fn status(gateway: &Gateway, every: Duration, watch: bool, output: Output) -> Result<u8, Unanswered> {
    let mut before = client::status::ask(gateway).await?;
    loop {
        tokio::time::sleep(every).await;
        let after = match client::status::ask(gateway).await {
            Ok(after) => after,
            // It may be restarting.
            Err(gone @ Unanswered::Unreachable { .. }) if watch => {
                complain(&format!("frp-gateway: {gone}"));
                continue;
            }
            Err(unanswered) => return Err(unanswered),
        };
        let report = client::status::compare(&before, &after);
        before = after;
        let shown = match output {
            Output::Json => as_json(&report),
            Output::Text => {
                let text = client::status::text(&report, Colour::of_stdout());
                match (watch, io::stdout().is_terminal()) {
                    // Home and clear.
                    (true, true) => format!("\x1b[H\x1b[2J{}", text.trim_end()),
                    (true, false) => text,
                    (false, _) => text.trim_end().to_owned(),
                }
            }
        };
        // Nobody reads any more: `status --watch | head`.
        if writeln!(io::stdout(), "{shown}").is_err() || !watch {
            return Ok(OK);
        }
    }
}

async fn upgrade(gateway: &Gateway, output: Output) -> Result<u8, Unanswered> {
    let told: UpgradeView = gateway.order("/api/v1/upgrade").await?;
    match (output, told.new) {
        (Output::Json, _) => drop(say(as_json(&told))),
        (Output::Text, Some(new)) => drop(say(format!("upgraded: process {new} serves, {} ends", told.old))),
        (Output::Text, None) => {
            let why = told.error.as_deref().unwrap_or("no reason was given");
            complain(&format!("frp-gateway: not upgraded, process {} serves on: {why}", told.old));
        }
    }
    Ok(if told.new.is_some() { OK } else { FAILED })
}

/// One line.
fn as_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| json!({ "error": error.to_string() }).to_string())
}

/// `NAME: VALUE`, as in curl.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// A positive duration, as in the configuration.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = units::parse_duration(text).map_err(|error| error.help)?;
    if interval < Duration::from_millis(100) { Err("at least 100ms".to_owned()) } else { Ok(interval) }
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
