//! One real frpc.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    ops::{Deref, DerefMut},
    time::Duration,
};

use serde_json::Value;

use super::{FreePorts, Frps, LabError, Process, TOKEN, Version, folder::Folder};
use crate::http;

const START_DEADLINE: Duration = Duration::from_secs(15);

/// One proxy of an frpc: what the user of FRP writes under `[[proxies]]`.
#[derive(Debug, Clone)]
pub struct Proxy {
    name: String,
    toml: String,
}

impl Proxy {
    /// `type = "http"` for `domains`.
    #[must_use]
    pub fn http(name: &str, app: SocketAddr, domains: &[&str]) -> Self {
        Self::new(name, "http", app).line(&format!("customDomains = {domains:?}"))
    }

    /// `type = "https"` for `domains`.
    #[must_use]
    pub fn https(name: &str, app: SocketAddr, domains: &[&str]) -> Self {
        Self::new(name, "https", app).line(&format!("customDomains = {domains:?}"))
    }

    /// `type = "tcp"`; remote port 0 lets frps choose within its tunnel ports.
    #[must_use]
    pub fn tcp(name: &str, app: SocketAddr, remote_port: u16) -> Self {
        Self::new(name, "tcp", app).line(&format!("remotePort = {remote_port}"))
    }

    /// Any type, without the settings that the type may demand.
    #[must_use]
    pub fn new(name: &str, kind: &str, app: SocketAddr) -> Self {
        let (ip, port) = (app.ip(), app.port());
        let toml = format!("name = {name:?}\ntype = {kind:?}\nlocalIP = \"{ip}\"\nlocalPort = {port}\n");
        Self { name: name.to_owned(), toml }
    }

    /// `locations`: string prefixes of the path.
    #[must_use]
    pub fn locations(self, locations: &[&str]) -> Self {
        self.line(&format!("locations = {locations:?}"))
    }

    /// Membership in an FRP load-balancing group.
    #[must_use]
    pub fn group(self, group: &str, key: &str) -> Self {
        self.line(&format!("loadBalancer = {{ group = {group:?}, groupKey = {key:?} }}"))
    }

    /// One of the `metadatas`, which frps's admin API and plugins show.
    #[must_use]
    pub fn metadata(self, key: &str, value: &str) -> Self {
        self.line(&format!("metadatas.{key:?} = {value:?}"))
    }

    /// One more line of this proxy's TOML, such as `transport.useEncryption = true`.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        writeln!(self.toml, "{line}").expect("a String takes every text");
        self
    }
}

/// What an frpc is started with.
#[derive(Debug, Clone)]
pub struct FrpcOptions {
    name: String,
    version: Version,
    server: SocketAddr,
    user: String,
    token: String,
    proxies: Vec<Proxy>,
    top: String,
    tables: String,
}

impl FrpcOptions {
    /// Logs in to `frps`, with its version of frp and no user.
    #[must_use]
    pub fn new(frps: &Frps) -> Self {
        Self::to(frps.control()).version(frps.version())
    }

    /// Logs in to whatever answers at `server`: an frps or a gateway's `frp` listener.
    #[must_use]
    pub fn to(server: SocketAddr) -> Self {
        Self {
            name: "frpc".into(),
            version: Version::default(),
            server,
            user: String::new(),
            token: TOKEN.into(),
            proxies: Vec::new(),
            top: String::new(),
            tables: String::new(),
        }
    }

    /// Another version of frp than the server's.
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// `user`; frps then calls the proxies `user.name`. Also this process's name in the lab.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self.name = format!("frpc-{user}");
        self
    }

    /// Another `auth.token` than the lab's.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// One more proxy.
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxies.push(proxy);
        self
    }

    /// One more top-level line, such as `clientID = "edge-1"` or `transport.poolCount = 5`.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        writeln!(self.top, "{line}").expect("a String takes every text");
        self
    }

    /// One more TOML table, header included (visitors, for example).
    #[must_use]
    pub fn table(mut self, table: &str) -> Self {
        writeln!(self.tables, "\n{table}").expect("a String takes every text");
        self
    }
}

/// A running frpc. Signals, log and pid come from [`Process`].
#[derive(Debug)]
pub struct Frpc {
    process: Process,
    options: FrpcOptions,
    admin: SocketAddr,
    folder: Folder,
    _held: FreePorts,
}

/// How one proxy is doing, by frpc's own account (`/api/status`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyStatus {
    /// Name, with the user in front if there is one.
    pub name: String,
    /// `running`, `start error`, `wait start`, …
    pub phase: String,
    /// Why not, in the server's words; else empty.
    pub error: String,
    /// For tcp: `:PORT` or `HOST:PORT` on the server.
    pub remote_address: String,
}

impl Frpc {
    /// Starts one and waits until all of its proxies run.
    ///
    /// # Errors
    /// When it isn't built, ends, or some proxy doesn't run within 15 s.
    pub async fn start(options: FrpcOptions) -> Result<Self, LabError> {
        let mut frpc = Self::start_unready(options)?;
        frpc.wait_running(START_DEADLINE).await?;
        Ok(frpc)
    }

    /// Starts one without waiting for anything.
    ///
    /// # Errors
    /// When it isn't built or can't be spawned.
    pub fn start_unready(options: FrpcOptions) -> Result<Self, LabError> {
        let mut held = FreePorts::new();
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, held.take()?));
        let folder = Folder::new(&options.name)?;
        let process = spawn(&options, admin, &folder)?;
        Ok(Self { process, options, admin, folder, _held: held })
    }

    /// Kills it if it still runs and starts it again with the same configuration; waits as [`Self::start`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn restart(&mut self) -> Result<(), LabError> {
        self.process.kill9();
        self.process = spawn(&self.options, self.admin, &self.folder)?;
        self.wait_running(START_DEADLINE).await
    }

    /// Replaces its proxies as an edited file and `frpc reload` would; does not wait for the new ones.
    ///
    /// # Errors
    /// When frpc doesn't accept the new file.
    pub async fn reload(&mut self, proxies: Vec<Proxy>) -> Result<(), LabError> {
        self.options.proxies = proxies;
        self.folder.write("frpc.toml", &configuration(&self.options, self.admin))?;
        let reply = http::get(self.admin, "frpc", "/api/reload").await?;
        if reply.status == 200 {
            return Ok(());
        }
        Err(LabError::Http { what: format!("reload of {}", self.options.name), cause: reply.text() })
    }

    /// Waits until every proxy is `running`.
    ///
    /// # Errors
    /// With the statuses when one isn't at the deadline; with the log when the process ended.
    pub async fn wait_running(&mut self, deadline: Duration) -> Result<(), LabError> {
        let admin = self.admin;
        let count = self.options.proxies.len();
        let mut seen = Vec::new();
        let asked = async || {
            seen = statuses(admin).await.ok()?;
            (seen.len() == count && seen.iter().all(|proxy| proxy.phase == "running")).then_some(())
        };
        let outcome = self.process.until("every proxy to run", deadline, asked).await;
        outcome.map_err(|error| match error {
            LabError::Timeout { what, after, detail } => {
                LabError::Timeout { what, after, detail: format!("they are {seen:?}; {detail}") }
            }
            other => other,
        })
    }

    /// How its proxies are doing.
    ///
    /// # Errors
    /// When frpc doesn't answer.
    pub async fn statuses(&self) -> Result<Vec<ProxyStatus>, LabError> {
        statuses(self.admin).await
    }

    /// The full names (`user.name`) of its proxies, as frps lists them.
    #[must_use]
    pub fn proxy_names(&self) -> Vec<String> {
        let prefix =
            if self.options.user.is_empty() { String::new() } else { format!("{}.", self.options.user) };
        self.options.proxies.iter().map(|proxy| format!("{prefix}{}", proxy.name)).collect()
    }
}

impl Deref for Frpc {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Frpc {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

async fn statuses(admin: SocketAddr) -> Result<Vec<ProxyStatus>, LabError> {
    let reply = http::get(admin, "frpc", "/api/status").await?;
    let by_kind: Value = reply.json().map_err(LabError::http("status of frpc"))?;
    let text = |proxy: &Value, key: &str| proxy[key].as_str().unwrap_or_default().to_owned();
    let kinds = by_kind.as_object().into_iter().flat_map(|kinds| kinds.values());
    let proxies = kinds.filter_map(Value::as_array).flatten();
    Ok(proxies
        .map(|proxy| ProxyStatus {
            name: text(proxy, "name"),
            phase: text(proxy, "status"),
            error: text(proxy, "err"),
            remote_address: text(proxy, "remote_addr"),
        })
        .collect())
}

fn spawn(options: &FrpcOptions, admin: SocketAddr, folder: &Folder) -> Result<Process, LabError> {
    let file = folder.write("frpc.toml", &configuration(options, admin))?;
    let program = options.version.binary("frpc")?;
    Process::spawn(&options.name, &program, folder.path(), |command| {
        command.arg("-c").arg(file);
    })
}

fn configuration(options: &FrpcOptions, admin: SocketAddr) -> String {
    let (host, port) = (options.server.ip(), options.server.port());
    let mut text = format!(
        "serverAddr = \"{host}\"\nserverPort = {port}\nauth.token = {:?}\nloginFailExit = false\n\
         log.level = \"info\"\nlog.disablePrintColor = true\n\
         webServer = {{ addr = \"127.0.0.1\", port = {} }}\n",
        options.token,
        admin.port()
    );
    if !options.user.is_empty() {
        writeln!(text, "user = {:?}", options.user).expect("a String takes every text");
    }
    text.push_str(&options.top);
    for proxy in &options.proxies {
        write!(text, "\n[[proxies]]\n{}", proxy.toml).expect("a String takes every text");
    }
    text.push_str(&options.tables);
    text
}
