//! Under systemd, as its protocols say: readiness, reloads, the watchdog, the end, who is the main process; and sockets
//! that systemd has bound.

#![expect(clippy::unwrap_used, reason = "helpers of tests are outside of them")]

mod common;
#[path = "common/takeover.rs"]
mod takeover;

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{Endpoint, Wire, get, ok, status};
use frp_gateway_loadtest::{
    http,
    lab::{FreePorts, Gateway, GatewayOptions, until},
};
use rustix::process::{Pid, Signal, kill_process};
use takeover::World;

const BINARY: &str = env!("CARGO_BIN_EXE_frp-gateway");
const SOON: Duration = Duration::from_secs(20);

/// What systemd would be.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, path, _folder: folder }
    }

    fn options(&self, yaml: &str) -> GatewayOptions {
        GatewayOptions::new(BINARY, yaml).env("NOTIFY_SOCKET", self.path.to_str().unwrap())
    }

    /// What was told since the last look: one text per datagram.
    fn told(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        std::iter::from_fn(|| {
            let length = self.socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
        })
        .collect()
    }

    /// Waits for a datagram that has this line; everything told up to then.
    async fn hears(&self, line: &str) -> Vec<String> {
        let mut all = Vec::new();
        let heard = until(&format!("{line:?} to be told"), SOON, async || {
            all.extend(self.told());
            all.iter().any(|one| has(one, line)).then_some(())
        })
        .await;
        assert!(heard.is_ok(), "{line:?} was never told, but {all:?}");
        all
    }
}

fn has(datagram: &str, line: &str) -> bool {
    datagram.lines().any(|one| one == line)
}

fn yaml(endpoint: &Endpoint, listeners: &str) -> String {
    format!(
        "runtime: {{ workers: 3, drain_timeout: 2s }}\n\
         frps: [ {{ name: e0, host: 127.0.0.1, vhost_http_port: {} }} ]\nlisteners: [ {listeners} ]\n",
        endpoint.address.port()
    )
}

#[tokio::test]
async fn ready_is_told_when_every_frps_has_listed_its_tunnels_and_not_when_the_process_has_started() {
    let manager = Manager::new();
    let mut world = World::fleet(&["a"], "tunnels: { serve: true }", |options| options).await;
    world.frps[0].sigstop();
    let begun = Instant::now();
    let mut gateway = Gateway::start_unready(manager.options(&world.yaml())).unwrap();
    let before = manager.hears("STATUS=waiting for the first listing of a").await;
    assert!(!before.iter().any(|one| has(one, "READY=1")), "{before:?}");
    assert_eq!(gateway.get("/readyz").await.map_or(0, |reply| reply.status), 503, "{}", gateway.log());
    world.frps[0].sigcont();
    let told = manager.hears("READY=1").await;
    assert!(told.iter().any(|one| has(one, "READY=1") && has(one, "STATUS=serving")), "{told:?}");
    // Without a listing it would have been ready after 5 s.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}\n{}", begun.elapsed(), gateway.log());
    gateway.wait_ready(Duration::from_secs(1)).await.expect("it is");
}

#[tokio::test]
async fn reloads_the_end_and_the_status_are_told() {
    let (manager, endpoint) = (Manager::new(), Endpoint::answering(ok("hello")).await);
    let text = yaml(&endpoint, "{ name: web, bind: \"127.0.0.1:0\" }");
    let mut gateway = Gateway::start_with(manager.options(&text)).await.expect("the gateway starts");
    manager.hears("READY=1").await;
    for (edited, status) in [
        (text.replace("drain_timeout: 2s", "drain_timeout: 3s"), "STATUS=serving"),
        (text.replace("workers: 3", "workers: many"), "STATUS=serving; the last reload was refused"),
    ] {
        gateway.edit(&edited).unwrap();
        let told = manager.hears(status).await;
        let reloading = told.iter().find(|one| has(one, "RELOADING=1")).unwrap_or_else(|| panic!("{told:?}"));
        let since = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(since.is_some_and(|since| since.parse::<u64>().is_ok()), "{reloading:?}");
        let ready = told.iter().find(|one| has(one, status)).unwrap();
        assert!(has(ready, "READY=1"), "a reload that isn't ended is waited for: {told:?}");
    }
    gateway.sigterm();
    manager.hears("STOPPING=1").await;
    assert_eq!(gateway.wait_exit(SOON).await.expect("it ends").code(), Some(0));
}

#[tokio::test]
async fn the_watchdog_hears_from_the_control_plane_twice_in_its_period() {
    let (manager, endpoint) = (Manager::new(), Endpoint::answering(ok("hello")).await);
    let options = manager.options(&yaml(&endpoint, "{ name: web, bind: \"127.0.0.1:0\" }"));
    let gateway = Gateway::start_with(options.env("WATCHDOG_USEC", "400000")).await.expect("it starts");
    manager.hears("WATCHDOG=1").await;
    let begun = Instant::now();
    for _ in 0..5 {
        manager.hears("WATCHDOG=1").await;
    }
    let took = begun.elapsed();
    let bounds = Duration::from_millis(700)..Duration::from_secs(3);
    assert!(bounds.contains(&took), "five times in {took:?}\n{}", gateway.log());
}

#[tokio::test]
async fn after_an_upgrade_the_new_process_is_the_main_one_and_the_old_ones_end_is_not_the_services() {
    let (manager, endpoint) = (Manager::new(), Endpoint::answering(ok("hello")).await);
    let options = manager.options(&yaml(&endpoint, "{ name: web, bind: \"127.0.0.1:0\" }"));
    // Those of the old process mean nothing to the new one.
    let mut gateway = Gateway::start_with(options.env("LISTEN_FDS", "0")).await.expect("it starts");
    manager.hears("READY=1").await;
    let post = http::request("POST", "gateway", "/api/v1/upgrade").body(http::empty());
    let reply = http::send(gateway.admin(), post).await.expect("an answer");
    let said = reply.json().unwrap();
    assert_eq!((reply.status, &said["old"]), (200, &gateway.pid().into()), "{said}\n{}", gateway.log());
    let new = i32::try_from(said["new"].as_u64().unwrap()).unwrap();
    let kill = Kill(Pid::from_raw(new).unwrap());
    assert_eq!(gateway.wait_exit(SOON).await.expect("the old process ends").code(), Some(0));
    let mut told = manager.told();
    if !told.iter().any(|one| has(one, "READY=1")) {
        told.extend(manager.hears("READY=1").await);
    }
    assert!(told.iter().any(|one| has(one, &format!("MAINPID={new}"))), "{told:?}");
    assert!(!told.iter().any(|one| has(one, "STOPPING=1")), "{told:?}");
    kill_process(kill.0, Signal::TERM).unwrap();
    manager.hears("STOPPING=1").await;
}

struct Kill(Pid);

impl Drop for Kill {
    fn drop(&mut self) {
        kill_process(self.0, Signal::KILL).ok();
    }
}

/// A process with systemd's sockets; killed at the end.
struct Activated {
    child: Child,
    log: PathBuf,
}

impl Drop for Activated {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Activated {
    fn spawn(command: &mut Command, folder: &Path) -> Self {
        let log = folder.join("log");
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stderr(output).spawn().unwrap();
        Self { child, log }
    }

    /// Does what systemd does for the sockets at descriptors 3 and 4.
    fn with(sockets: [OwnedFd; 2], names: &str, file: &Path) -> Self {
        let script = "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, BINARY, "run", "-c"]).arg(file);
        command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names);
        let [one, other] = sockets;
        command.stdin(Stdio::from(one)).stdout(Stdio::from(other));
        Self::spawn(&mut command, file.parent().unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn file(folder: &Path, admin: u16, text: &str) -> PathBuf {
    let path = folder.join("gateway.yaml");
    fs::write(&path, format!("{text}admin: {{ listen: \"127.0.0.1:{admin}\" }}\n")).unwrap();
    path
}

async fn answers(address: SocketAddr, who: &Activated) {
    let answered = until("an answer", SOON, async || {
        http::get(address, "app.test", "/").await.ok().filter(|reply| reply.status == 200)
    });
    assert!(answered.await.is_ok(), "nobody answers at {address}\n{}", who.log());
}

#[tokio::test]
async fn systemds_sockets_are_used_by_name_or_address_and_what_nobody_wants_is_named() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let (folder, mut ports) = (tempfile::tempdir().unwrap(), FreePorts::new());
    let admin = ports.take().unwrap();
    let by_name = TcpListener::bind("127.0.0.1:0").unwrap();
    let by_address = TcpListener::bind("127.0.0.1:0").unwrap();
    let (named, other) = (by_name.local_addr().unwrap(), by_address.local_addr().unwrap());
    let listeners = format!("{{ name: web, bind: \"127.0.0.1:0\" }}, {{ name: more, bind: \"{other}\" }}");
    let path = file(folder.path(), admin, &yaml(&endpoint, &listeners));
    let sockets = || [by_name.try_clone().unwrap().into(), by_address.try_clone().unwrap().into()];
    let mut gateway = Activated::with(sockets(), "web:something", &path);
    answers(named, &gateway).await;
    answers(other, &gateway).await;
    assert!(!gateway.log().contains("WARN"), "{}", gateway.log());
    // Three workers share each.
    let asked = (0..60).map(|_| http::get(named, "app.test", "/"));
    for reply in futures_util::future::join_all(asked).await {
        assert_eq!(reply.expect("an answer").status, 200);
    }

    // It crashes: visitors wait in the queue of the socket for the next one.
    gateway.child.kill().unwrap();
    gateway.child.wait().unwrap();
    let mut waiting = Wire::connect(named).await;
    waiting.send(get("/")).await;
    file(folder.path(), admin, &yaml(&endpoint, "{ name: web, bind: \"127.0.0.1:0\" }"));
    let again = Activated::with(sockets(), "web:something", &path);
    assert_eq!(status(&waiting.head().await), 200, "{}", again.log());
    let warned = format!("something ({other})");
    let told = until("the warning", SOON, async || {
        let log = again.log();
        (log.contains(&warned) && log.contains("no listener of the configuration")).then_some(())
    });
    assert!(told.await.is_ok(), "{}", again.log());
}

#[tokio::test]
async fn an_activated_gateway_upgrades_with_the_same_sockets() {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let (folder, mut ports) = (tempfile::tempdir().unwrap(), FreePorts::new());
    let port = ports.take().unwrap();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, console) = (web.local_addr().unwrap(), admin.local_addr().unwrap());
    let path = file(folder.path(), port, &yaml(&endpoint, "{ name: web, bind: \"127.0.0.1:0\" }"));
    let mut gateway = Activated::with([web.into(), admin.into()], "web:admin", &path);
    answers(address, &gateway).await;
    let post = http::request("POST", "gateway", "/api/v1/upgrade").body(http::empty());
    let reply = http::send(console, post).await.expect("the admin socket is systemd's, too");
    let said = reply.json().unwrap();
    assert_eq!(reply.status, 200, "{said}\n{}", gateway.log());
    let _kill = Kill(Pid::from_raw(i32::try_from(said["new"].as_u64().unwrap()).unwrap()).unwrap());
    assert_eq!(gateway.child.wait().unwrap().code(), Some(0), "{}", gateway.log());
    answers(address, &gateway).await;
    let old = said["old"].as_u64().unwrap();
    assert_ne!(Some(old), said["new"].as_u64());
}

#[tokio::test]
async fn systemd_socket_activate_starts_the_gateway_with_its_first_visitor() {
    let tool = Path::new("/usr/bin/systemd-socket-activate");
    if !tool.exists() {
        println!("systemd-socket-activate isn't here: the other tests pass sockets as it would");
        return;
    }
    let endpoint = Endpoint::answering(ok("hello")).await;
    let (folder, mut ports) = (tempfile::tempdir().unwrap(), FreePorts::new());
    let (admin, port) = (ports.take().unwrap(), ports.take().unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let path = file(folder.path(), admin, &yaml(&endpoint, &format!("{{ name: web, bind: \"{address}\" }}")));
    let mut command = Command::new(tool);
    command.args(["-l", &address.to_string(), "--", BINARY, "run", "-c"]).arg(path);
    let gateway = Activated::spawn(&mut command, folder.path());
    let listens = until("systemd to listen", SOON, async || {
        tokio::net::TcpStream::connect(address).await.is_ok().then_some(())
    });
    assert!(listens.await.is_ok(), "{}", gateway.log());
    answers(address, &gateway).await;
    assert!(!gateway.log().contains("WARN"), "{}", gateway.log());
}
