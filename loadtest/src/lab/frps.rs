//! One real frps.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    ops::{Deref, DerefMut},
    time::Duration,
};

use serde_json::Value;

use super::{FreePorts, LabError, Process, Version, folder::Folder};
use crate::http;

/// User of every frps admin API in the lab.
pub const ADMIN_USER: &str = "admin";
/// Password of every frps admin API in the lab.
pub const ADMIN_PASSWORD: &str = "lab";
/// `auth.token` of every frps and frpc in the lab.
pub const TOKEN: &str = "lab-token";

const BASIC_AUTH: &str = "Basic YWRtaW46bGFi";
const START_DEADLINE: Duration = Duration::from_secs(10);

/// What an frps is started with.
#[derive(Debug, Clone)]
pub struct FrpsOptions {
    name: String,
    version: Version,
    tunnel_ports: u16,
    top: String,
    tables: String,
}

impl FrpsOptions {
    /// frp 0.71 with vhost HTTP and HTTPS, tcpmux, admin API and 8 tunnel ports. `name` is the lab's, frps has none.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let name = name.to_owned();
        Self { name, version: Version::default(), tunnel_ports: 8, top: String::new(), tables: String::new() }
    }

    /// Another version of frp.
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// How many ports `allowPorts` holds for `remotePort` tunnels (at least 1).
    #[must_use]
    pub fn tunnel_ports(mut self, count: u16) -> Self {
        self.tunnel_ports = count.max(1);
        self
    }

    /// Registers a server plugin at `http://ADDRESS/PATH` for Login, NewProxy and CloseProxy.
    #[must_use]
    pub fn plugin(self, address: SocketAddr, path: &str) -> Self {
        self.table(&format!(
            "[[httpPlugins]]\nname = \"gateway\"\naddr = \"http://{address}\"\npath = {path:?}\n\
             ops = [\"Login\", \"NewProxy\", \"CloseProxy\"]\n"
        ))
    }

    /// One more top-level line, such as `transport.heartbeatTimeout = 6` or `subDomainHost = "lab.test"`.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        writeln!(self.top, "{line}").expect("a String takes every text");
        self
    }

    /// One more TOML table, header included.
    #[must_use]
    pub fn table(mut self, table: &str) -> Self {
        writeln!(self.tables, "\n{table}").expect("a String takes every text");
        self
    }
}

/// A running frps. Signals, log and pid come from [`Process`].
#[derive(Debug)]
pub struct Frps {
    process: Process,
    options: FrpsOptions,
    ports: Ports,
    folder: Folder,
    _held: FreePorts,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    control: u16,
    http: u16,
    https: u16,
    tcpmux: u16,
    admin: u16,
    tunnels: u16,
}

impl Frps {
    /// Starts one and waits until its admin API answers.
    ///
    /// # Errors
    /// When it isn't built, ends (bad option) or isn't ready within 10 s.
    pub async fn start(options: FrpsOptions) -> Result<Self, LabError> {
        let mut held = FreePorts::new();
        let ports = Ports {
            control: held.take()?,
            http: held.take()?,
            https: held.take()?,
            tcpmux: held.take()?,
            admin: held.take()?,
            tunnels: held.block(options.tunnel_ports)?,
        };
        let folder = Folder::new(&format!("frps-{}", options.name))?;
        let process = spawn(&options, ports, &folder)?;
        let mut frps = Self { process, options, ports, folder, _held: held };
        frps.ready().await?;
        Ok(frps)
    }

    /// Kills it if it still runs and starts it again: same ports, same configuration, empty memory.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn restart(&mut self) -> Result<(), LabError> {
        self.process.kill9();
        self.process = spawn(&self.options, self.ports, &self.folder)?;
        self.ready().await
    }

    /// As [`Self::restart`], with changed options: an operator edits frps.toml. The ports stay, and their number.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn restart_with(
        &mut self,
        change: impl FnOnce(FrpsOptions) -> FrpsOptions,
    ) -> Result<(), LabError> {
        let tunnel_ports = self.options.tunnel_ports;
        self.options = change(self.options.clone());
        self.options.tunnel_ports = tunnel_ports;
        self.restart().await
    }

    /// `bindPort`, where frpc log in.
    #[must_use]
    pub fn control(&self) -> SocketAddr {
        local(self.ports.control)
    }

    /// `vhostHTTPPort`.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        local(self.ports.http)
    }

    /// `vhostHTTPSPort`.
    #[must_use]
    pub fn https(&self) -> SocketAddr {
        local(self.ports.https)
    }

    /// `tcpmuxHTTPConnectPort`.
    #[must_use]
    pub fn tcpmux(&self) -> SocketAddr {
        local(self.ports.tcpmux)
    }

    /// The admin API (`webServer`).
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        local(self.ports.admin)
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.options.version
    }

    /// The entry for `frps:` in a gateway's YAML: name, host, control and vhost port and admin API, in flow style.
    #[must_use]
    pub fn yaml(&self) -> String {
        format!(
            "{{ name: {}, host: 127.0.0.1, control_port: {}, vhost_http_port: {}, admin: {{ url: \"http://{}\", user: {ADMIN_USER}, \
             password: {ADMIN_PASSWORD} }} }}",
            self.options.name,
            self.ports.control,
            self.ports.http,
            self.admin()
        )
    }

    /// GET on the admin API.
    ///
    /// # Errors
    /// When there is no answer, or not 200 with JSON.
    pub async fn admin_get(&self, path: &str) -> Result<Value, LabError> {
        let what = format!("admin API of frps {}: {path}", self.options.name);
        let reply = http::send(
            self.admin(),
            http::request("GET", "frps", path).header("authorization", BASIC_AUTH).body(http::empty()),
        )
        .await?;
        if reply.status != 200 {
            return Err(LabError::Http { what, cause: format!("{} {}", reply.status, reply.text()) });
        }
        reply.json().map_err(LabError::http(what))
    }

    /// Full names (`user.proxy`) of the proxies that are live now, sorted. Admin API v2, or v1 before 0.71.
    ///
    /// # Errors
    /// When the admin API doesn't answer.
    pub async fn online(&self) -> Result<Vec<String>, LabError> {
        let mut names = match self.version() {
            Version::V071 => self.online_v2().await?,
            Version::V061 => self.online_v1().await?,
        };
        names.sort();
        Ok(names)
    }

    /// Waits until all of `names` (full: `user.proxy`) are live.
    ///
    /// # Errors
    /// When they aren't at the deadline, or the process ended.
    pub async fn wait_online(&mut self, names: &[&str], deadline: Duration) -> Result<(), LabError> {
        self.wait_listing(&format!("{names:?} to be online"), deadline, |online| {
            names.iter().all(|name| online.iter().any(|other| other == name))
        })
        .await
    }

    /// Waits until none of `names` (full: `user.proxy`) is live.
    ///
    /// # Errors
    /// When one still is at the deadline, or the process ended.
    pub async fn wait_offline(&mut self, names: &[&str], deadline: Duration) -> Result<(), LabError> {
        self.wait_listing(&format!("{names:?} to be offline"), deadline, |online| {
            !names.iter().any(|name| online.iter().any(|other| other == name))
        })
        .await
    }

    async fn wait_listing(
        &mut self,
        what: &str,
        deadline: Duration,
        met: impl Fn(&[String]) -> bool,
    ) -> Result<(), LabError> {
        let what = format!("{what} at frps {}", self.options.name);
        super::until(&what, deadline, async || self.online().await.ok().filter(|names| met(names)).map(drop))
            .await
            .map_err(|error| match self.process.exit_status() {
                Some(status) => {
                    LabError::Exited { name: self.options.name.clone(), status, log: self.process.log() }
                }
                None => error,
            })
    }

    async fn online_v2(&self) -> Result<Vec<String>, LabError> {
        let mut names = Vec::new();
        for page in 1.. {
            let path = format!("/api/v2/proxies?status=online&pageSize=200&page={page}");
            let listing = self.admin_get(&path).await?;
            let items = listing["data"]["items"].as_array().cloned().unwrap_or_default();
            names.extend(items.iter().filter_map(|item| Some(item["name"].as_str()?.to_owned())));
            if items.len() < 200 {
                break;
            }
        }
        Ok(names)
    }

    async fn online_v1(&self) -> Result<Vec<String>, LabError> {
        let mut names = Vec::new();
        for kind in ["http", "https", "tcp", "udp", "tcpmux", "stcp", "sudp", "xtcp"] {
            let listing = self.admin_get(&format!("/api/proxy/{kind}")).await?;
            let items = listing["proxies"].as_array().cloned().unwrap_or_default();
            let live = items.iter().filter(|item| item["status"] == "online");
            names.extend(live.filter_map(|item| Some(item["name"].as_str()?.to_owned())));
        }
        Ok(names)
    }

    async fn ready(&mut self) -> Result<(), LabError> {
        let admin = self.admin();
        let asked =
            async || http::get(admin, "frps", "/healthz").await.ok().filter(|reply| reply.status == 200);
        self.process.until("frps to be ready", START_DEADLINE, asked).await.map(drop)
    }
}

impl Deref for Frps {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Frps {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn spawn(options: &FrpsOptions, ports: Ports, folder: &Folder) -> Result<Process, LabError> {
    let Ports { control, http, https, tcpmux, admin, tunnels } = ports;
    let last = tunnels + options.tunnel_ports - 1;
    let text = format!(
        "bindAddr = \"127.0.0.1\"\nbindPort = {control}\nproxyBindAddr = \"127.0.0.1\"\n\
         vhostHTTPPort = {http}\nvhostHTTPSPort = {https}\ntcpmuxHTTPConnectPort = {tcpmux}\n\
         auth.token = \"{TOKEN}\"\nlog.level = \"info\"\nlog.disablePrintColor = true\nenablePrometheus = true\n\
         allowPorts = [ {{ start = {tunnels}, end = {last} }} ]\n\
         webServer = {{ addr = \"127.0.0.1\", port = {admin}, user = \"{ADMIN_USER}\", password = \"{ADMIN_PASSWORD}\" }}\n\
         {}{}",
        options.top, options.tables
    );
    let file = folder.write("frps.toml", &text)?;
    let program = options.version.binary("frps")?;
    Process::spawn(&format!("frps-{}", options.name), &program, folder.path(), |command| {
        command.arg("-c").arg(file);
    })
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
