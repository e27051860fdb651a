//! Pebble: a real certificate authority for tests, and a DNS server by which every name leads to loopback.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{FreePorts, LabError, Process, binaries, folder::Folder};
use crate::http;

const START_DEADLINE: Duration = Duration::from_secs(20);

/// What an authority is started with.
#[derive(Debug, Clone)]
pub struct PebbleOptions {
    /// Its own certificate for `127.0.0.1` (PEM).
    pub certificate: PathBuf,
    /// The key of that.
    pub key: PathBuf,
    /// Port where it looks for proofs by http-01.
    pub http: u16,
    /// Port where it looks for proofs by tls-alpn-01.
    pub tls: u16,
    /// How long its certificates live, whole seconds.
    pub life: Duration,
    /// Profiles beside the default one, and how long their certificates live, whole seconds.
    pub profiles: Vec<(String, Duration)>,
    /// Accounts are made for those alone who have one of these: key ids, and HMAC keys (base64url). Empty = for everybody.
    pub external: Vec<(String, String)>,
}

/// A running authority. It forgets everything when it ends. Signals and log come from [`Process`].
#[derive(Debug)]
pub struct Pebble {
    process: Process,
    _dns: Process,
    directory: SocketAddr,
    management: SocketAddr,
    names: SocketAddr,
    dns: SocketAddr,
    folder: Folder,
    _held: FreePorts,
}

impl Pebble {
    /// Starts one, and its DNS server, and waits until both listen.
    ///
    /// # Errors
    /// When a program is missing (run `frp-lab/build pebble`), ends, or doesn't listen within 20 s.
    pub async fn start(options: &PebbleOptions) -> Result<Self, LabError> {
        let mut held = FreePorts::new();
        let mut local = || Ok::<_, LabError>(SocketAddr::from((Ipv4Addr::LOCALHOST, held.take()?)));
        let (directory, management, names, dns) = (local()?, local()?, local()?, local()?);
        let folder = Folder::new("pebble")?;
        folder.write("pebble.json", &config(options, directory, management))?;
        let program = binaries::pebble("pebble-challtestsrv")?;
        let mut server = Process::spawn("challtestsrv", &program, folder.path(), |command| {
            let (dns, names) = (dns.to_string(), names.to_string());
            command.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dnsserver", &dns]);
            command.args([
                "-management",
                &names,
                "-http01",
                "",
                "-https01",
                "",
                "-tlsalpn01",
                "",
                "-doh",
                "",
            ]);
        })?;
        listens(&mut server, names).await?;
        let process = spawn(folder.path(), dns)?;
        let mut pebble =
            Self { process, _dns: server, directory, management, names, dns, folder, _held: held };
        listens(&mut pebble.process, directory).await?;
        Ok(pebble)
    }

    /// Kills it and starts it anew: with another root, and without a memory.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn restart(&mut self) -> Result<(), LabError> {
        self.process.kill9();
        self.process = spawn(self.folder.path(), self.dns)?;
        listens(&mut self.process, self.directory).await
    }

    /// Address of its directory.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.directory)
    }

    /// Where `GET /roots/0` gives its root, by https.
    #[must_use]
    pub fn management(&self) -> SocketAddr {
        self.management
    }

    /// Has a name lead to another address than 127.0.0.1.
    ///
    /// # Errors
    /// The DNS server doesn't answer.
    pub async fn point(&self, name: &str, to: Ipv4Addr) -> Result<(), LabError> {
        let body = format!("{{\"host\": \"{name}.\", \"addresses\": [\"{to}\"]}}");
        let request = http::request("POST", "dns", "/add-a").body(http::full(body));
        let mut connection = http::Connection::open(self.names).await?;
        connection.send(request).await.map(drop)
    }
}

fn spawn(folder: &Path, dns: SocketAddr) -> Result<Process, LabError> {
    let program = binaries::pebble("pebble")?;
    Process::spawn("pebble", &program, folder, |command| {
        command.args(["-config", "pebble.json", "-strict", "-dnsserver", &dns.to_string()]);
        command.env("PEBBLE_VA_NOSLEEP", "1").current_dir(folder);
    })
}

async fn listens(process: &mut Process, address: SocketAddr) -> Result<(), LabError> {
    let connected = async || TcpStream::connect(address).ok();
    process.until("it to listen", START_DEADLINE, connected).await.map(drop)
}

fn config(options: &PebbleOptions, directory: SocketAddr, management: SocketAddr) -> String {
    let PebbleOptions { certificate, key, http, tls, life, profiles, external } = options;
    let profile = |life: &Duration| serde_json::json!({ "description": "as the test wants it", "validityPeriod": life.as_secs() });
    let mut all = serde_json::Map::from_iter([("default".to_owned(), profile(life))]);
    all.extend(profiles.iter().map(|(name, life)| (name.clone(), profile(life))));
    let external: serde_json::Map<_, _> =
        external.iter().map(|(id, key)| (id.clone(), key.clone().into())).collect();
    serde_json::json!({ "pebble": {
        "listenAddress": directory.to_string(),
        "managementListenAddress": management.to_string(),
        "certificate": certificate,
        "privateKey": key,
        "httpPort": http,
        "tlsPort": tls,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": !external.is_empty(),
        "externalAccountMACKeys": external,
        "retryAfter": { "authz": 1, "order": 1 },
        "keyAlgorithm": "ecdsa",
        "profiles": all,
    } })
    .to_string()
}

impl Deref for Pebble {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Pebble {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
