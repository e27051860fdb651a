//! The audit log of a running gateway: who did what, to the last line, and no secret. No frps: its calls are made here.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are outside of them")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use frp_gateway_loadtest::lab::FreePorts;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_frp-gateway");
const KEY: &str = "a-key-for-tests-of-32-characters-";
const TOKEN: &str = "agent-token-of-tests";
const SECRET: &str = "secret-of-frps-a-1";
const LOGIN_TOKEN: &str = "token-of-alice-1";
/// Longest wait for anything; only a failing test waits so long.
const SOON: Duration = Duration::from_secs(20);

/// The process; killed at the end whatever happens.
struct Gateway {
    child: Child,
    audit: PathBuf,
    plugin: SocketAddr,
    _ports: FreePorts,
    _folder: tempfile::TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Gateway {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut ports = FreePorts::new();
        let plugin = SocketAddr::from(([127, 0, 0, 1], ports.take().unwrap()));
        let (file, audit) = (folder.path().join("gateway.yaml"), folder.path().join("audit.log"));
        let text = format!(
            "admin: {{ listen: \"127.0.0.1:0\" }}\nruntime: {{ workers: 1 }}\naudit: {}\n\
             plugin: {{ listen: \"{plugin}\", key: \"{KEY}\", agent_token: {TOKEN} }}\n\
             frps:\n  - {{ name: a, host: 127.0.0.1, vhost_http_port: 1, admin: {{ url: \"http://127.0.0.1:1\", user: u, password: p }}, plugin: {{ secret: {SECRET} }} }}\n\
             listeners: [ {{ name: web, bind: \"127.0.0.1:0\" }} ]\n\
             claims: {{ rules: [ {{ users: [alice], token: {LOGIN_TOKEN}, domains: [x.test] }} ] }}\n",
            audit.display()
        );
        fs::write(&file, text).unwrap();
        let mut child =
            Command::new(BINARY).args(["run", "-c"]).arg(&file).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        while !log.contains(" started ") {
            assert_ne!(said.read_line(&mut log).unwrap(), 0, "{log}");
        }
        thread::spawn(move || said.read_to_end(&mut Vec::new()));
        Self { child, audit, plugin, _ports: ports, _folder: folder }
    }

    fn post(&self, path: &str, header: &str, body: &Value) -> String {
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.plugin).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: gateway\r\n{header}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn call(&self, op: &str, content: &Value) -> String {
        let path = format!("/frps/{SECRET}?version=0.1.0&op={op}");
        self.post(&path, "", &json!({ "version": "0.1.0", "op": op, "content": content }))
    }

    fn terminate(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let deadline = Instant::now() + SOON;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "still running");
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(0));
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

#[test]
fn lines_from_just_before_the_end_are_written() {
    let mut gateway = Gateway::start();
    gateway.terminate();
    let lines = lines(&gateway.audit);
    let draining = lines.iter().any(|line| line["event"] == "draining" && line["by"] == "admin");
    assert!(draining, "{lines:#?}");
}

#[test]
fn calls_of_frps_and_reports_of_agents_are_told_apart_and_no_secret_is_written() {
    let mut gateway = Gateway::start();
    let login = |token: &str| {
        json!({
            "user": "alice", "privilege_key": "6cbd", "run_id": "5ec2e7",
            "client_address": "10.0.0.9:5", "metas": { "gw_token": token },
        })
    };
    assert!(gateway.call("Login", &login(LOGIN_TOKEN)).contains("\"unchange\":true"));
    assert!(gateway.call("Login", &login("a-wrong-token-1")).contains("\"reject\":true"));
    let proxy = |domain: &str| {
        json!({
            "user": { "user": "alice", "metas": { "gw_token": LOGIN_TOKEN }, "run_id": "5ec2e7" },
            "proxy_name": "alice.web", "proxy_type": "http", "custom_domains": [domain],
            "http_user": "u", "http_pwd": "basic-password-1", "group": "g", "group_key": "group-key-1",
        })
    };
    assert!(gateway.call("NewProxy", &proxy("x.test")).contains("\"unchange\":false"));
    assert!(gateway.call("NewProxy", &proxy("other.test")).contains("\"reject\":true"));
    let report =
        json!({ "frps": "a", "heard": [ { "op": "closing", "name": "alice.web", "user": "alice" } ] });
    let answer = gateway.post("/agent", &format!("Authorization: Bearer {TOKEN}\r\n"), &report);
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    // It was answered once it was passed on, so it is written before the end.
    let deadline = Instant::now() + SOON;
    while !fs::read_to_string(&gateway.audit).unwrap().contains("closing") {
        assert!(Instant::now() < deadline, "{:#?}", lines(&gateway.audit));
        thread::sleep(Duration::from_millis(10));
    }
    gateway.terminate();
    let lines = lines(&gateway.audit);
    let told: Vec<_> = lines
        .iter()
        .filter(|line| line["by"] == "frps" || line["by"] == "agent")
        .map(|line| (line["event"].as_str().unwrap(), line["by"].as_str().unwrap()))
        .collect();
    let wanted = [
        ("login", "frps"),
        ("login_refused", "frps"),
        ("takeover", "frps"),
        ("claim_refused", "frps"),
        ("closing", "agent"),
    ];
    assert_eq!(told, wanted, "{lines:#?}");
    for line in &lines {
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
        let text = line.to_string();
        for secret in [
            KEY,
            TOKEN,
            SECRET,
            LOGIN_TOKEN,
            "a-wrong-token-1",
            "6cbd",
            "5ec2e7",
            "basic-password-1",
            "group-key-1",
        ] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
