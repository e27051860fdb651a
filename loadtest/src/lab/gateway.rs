//! The gateway under test, as a process with a file.

use std::{
    env,
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::{FreePorts, LabError, Process, binaries::existing, folder::Folder};
use crate::http::{self, Reply};

const START_DEADLINE: Duration = Duration::from_secs(15);
const ADMIN_MARK: &str = "@ADMIN@";

/// What a gateway is started with.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    binary: PathBuf,
    yaml: String,
    environment: Vec<(OsString, OsString)>,
    arguments: Vec<OsString>,
}

impl GatewayOptions {
    /// `BINARY run -c FILE` with `yaml` in the file. `FRP_GATEWAY_BIN` overrides `binary`.
    ///
    /// `@ADMIN@` in the YAML becomes a free `127.0.0.1:PORT`; without it and without an `admin:` section one is added.
    #[must_use]
    pub fn new(binary: impl AsRef<Path>, yaml: &str) -> Self {
        let binary = env::var_os("FRP_GATEWAY_BIN").map_or_else(|| binary.as_ref().to_owned(), PathBuf::from);
        Self { binary, yaml: yaml.to_owned(), environment: Vec::new(), arguments: Vec::new() }
    }

    /// One environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// One more argument after `run -c FILE`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }
}

/// A running gateway. Signals, log, pid and [`Process::wait_exit`] come from [`Process`].
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    admin: SocketAddr,
    folder: Folder,
    _held: FreePorts,
}

impl Gateway {
    /// Starts one and waits until `/readyz` says 200.
    ///
    /// # Errors
    /// When the binary is missing, the process ends (bad YAML: the log is in the error) or isn't ready within 15 s.
    pub async fn start(binary: impl AsRef<Path>, yaml: &str) -> Result<Self, LabError> {
        Self::start_with(GatewayOptions::new(binary, yaml)).await
    }

    /// As [`Self::start`], with arguments and environment.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(options: GatewayOptions) -> Result<Self, LabError> {
        let mut gateway = Self::start_unready(options)?;
        gateway.wait_ready(START_DEADLINE).await?;
        Ok(gateway)
    }

    /// Starts one without waiting for anything.
    ///
    /// # Errors
    /// When the binary is missing or can't be spawned.
    pub fn start_unready(options: GatewayOptions) -> Result<Self, LabError> {
        let GatewayOptions { binary, yaml, environment, arguments } = options;
        let binary = existing(binary, "run cargo build -p frp-gateway")?;
        let mut held = FreePorts::new();
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, held.take()?));
        let folder = Folder::new("gateway")?;
        let file = folder.write("gateway.yaml", &with_admin(&yaml, admin))?;
        let process = Process::spawn("gateway", &binary, folder.path(), |command| {
            command.arg("run").arg("-c").arg(file).args(arguments).envs(environment);
        })?;
        Ok(Self { process, admin, folder, _held: held })
    }

    /// Waits until `/readyz` says 200.
    ///
    /// # Errors
    /// With the log when the process ended or the deadline passed.
    pub async fn wait_ready(&mut self, deadline: Duration) -> Result<(), LabError> {
        let admin = self.admin;
        let asked =
            async || http::get(admin, "gateway", "/readyz").await.ok().filter(|reply| reply.status == 200);
        self.process.until("/readyz to say 200", deadline, asked).await.map(drop)
    }

    /// The admin listener.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Path of its YAML file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.yaml")
    }

    /// Replaces the YAML by rename, as editors do. `@ADMIN@` and a missing `admin:` are treated as at the start.
    ///
    /// Returns at once; the gateway sees it by itself.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn edit(&self, yaml: &str) -> Result<(), LabError> {
        self.folder.write("gateway.yaml", &with_admin(yaml, self.admin)).map(drop)
    }

    /// The address that the listener called `name` is bound to, by `/api/v1/listeners`.
    ///
    /// # Errors
    /// When the API doesn't answer or has no such listener.
    pub async fn listener(&self, name: &str) -> Result<SocketAddr, LabError> {
        let listeners = self.api("/api/v1/listeners").await?;
        let entries = listeners.as_array().into_iter().flatten();
        let found = entries.clone().find(|entry| entry["name"] == name);
        found.and_then(|entry| entry["address"].as_str()?.parse().ok()).ok_or_else(|| LabError::Http {
            what: format!("listener {name:?}"),
            cause: format!("/api/v1/listeners says {listeners}"),
        })
    }

    /// GET on the admin listener; the answer must be 200 with JSON.
    ///
    /// # Errors
    /// When it isn't.
    pub async fn api(&self, path: &str) -> Result<Value, LabError> {
        let reply = self.get(path).await?;
        if reply.status != 200 {
            let cause = format!("{} {}", reply.status, reply.text());
            return Err(LabError::Http { what: format!("gateway's {path}"), cause });
        }
        reply.json().map_err(LabError::http(format!("gateway's {path}")))
    }

    /// GET on the admin listener, whatever it answers.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub async fn get(&self, path: &str) -> Result<Reply, LabError> {
        http::get(self.admin, "gateway", path).await
    }

    /// Sum of all samples of `name` in `/metrics` whose labels contain every one of `labels` (as `key="value"`);
    /// `None` when there is no such sample.
    ///
    /// # Errors
    /// When `/metrics` doesn't answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<Option<f64>, LabError> {
        Ok(sum_of(&self.get("/metrics").await?.text(), name, labels))
    }
}

impl Deref for Gateway {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Gateway {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn with_admin(yaml: &str, admin: SocketAddr) -> String {
    if yaml.contains(ADMIN_MARK) {
        yaml.replace(ADMIN_MARK, &admin.to_string())
    } else if yaml.lines().any(|line| line.starts_with("admin:")) {
        yaml.to_owned()
    } else {
        // Behind the rest, so that line numbers in messages stay those of the test's text.
        format!("{}\nadmin: {{ listen: \"{admin}\" }}\n", yaml.trim_end())
    }
}

fn sum_of(exposition: &str, name: &str, labels: &[&str]) -> Option<f64> {
    exposition
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (of_sample, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            labels.iter().all(|label| of_sample.split(',').any(|other| other == *label)).then_some(())?;
            value.split_whitespace().next()?.parse::<f64>().ok()
        })
        .reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_chosen_by_whole_name_and_labels() {
        let text = "# HELP x_total help\nx_total{pool=\"a\",class=\"2xx\"} 3\nx_total{pool=\"b\",class=\"2xx\"} 4\n\
                    x_total_more 9\nplain 1.5\n";
        assert_eq!(sum_of(text, "x_total", &[]), Some(7.0));
        assert_eq!(sum_of(text, "x_total", &["pool=\"a\""]), Some(3.0));
        assert_eq!(sum_of(text, "x_total", &["pool=\"c\""]), None);
        assert_eq!(sum_of(text, "plain", &[]), Some(1.5));
    }

    #[test]
    fn the_admin_address_is_filled_in_or_added_at_the_end() {
        let admin = SocketAddr::from(([127, 0, 0, 1], 9));
        assert_eq!(with_admin("admin: { listen: \"@ADMIN@\" }", admin), "admin: { listen: \"127.0.0.1:9\" }");
        assert_eq!(with_admin("frps: []\n", admin), "frps: []\nadmin: { listen: \"127.0.0.1:9\" }\n");
        assert_eq!(with_admin("admin: {}\n", admin), "admin: {}\n");
    }
}
