//! The binary as its operator meets it: exit codes, what is said at a failed start, signals.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are outside of them")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

const BINARY: &str = env!("CARGO_BIN_EXE_frp-gateway");

fn yaml(admin: &str, web: &str) -> String {
    format!(
        "admin: {{ listen: \"{admin}\" }}\n\
         runtime: {{ workers: 1, drain_timeout: 5s }}\n\
         frps: [ {{ name: a, host: 127.0.0.1, vhost_http_port: 1 }} ]\n\
         listeners: [ {{ name: web, bind: \"{web}\", protocol: http }} ]\n"
    )
}

fn file(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("gateway.yaml");
    fs::write(&path, text).unwrap();
    path
}

/// Runs to the end.
fn run(arguments: &[&str], path: &Path) -> Output {
    Command::new(BINARY).args(arguments).arg(path).output().unwrap()
}

/// A gateway that serves; killed at the end whatever happens.
struct Gateway {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Gateway {
    fn start(path: &Path) -> Self {
        let mut child = Command::new(BINARY)
            .args(["run", "--log-format", "json", "-c"])
            .arg(path)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        Self { child, lines }
    }

    /// The first log line with that message.
    fn logged(&mut self, message: &str) -> serde_json::Value {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "ended without saying {message:?}");
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            if event["message"] == message {
                return event;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("still running after 20 s");
    }
}

#[test]
fn check_says_ok_with_0_and_everything_that_is_wrong_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let good = run(&["check"], &file(folder.path(), &yaml("127.0.0.1:9900", "127.0.0.1:8080")));
    let said = String::from_utf8(good.stdout).unwrap();
    assert_eq!(good.status.code(), Some(0), "{said}");
    assert!(said.contains("ok (1 frps, 1 listener, 1 pool, "), "{said}");
    let wrong = yaml("127.0.0.1:9900", "nowhere").replace("workers: 1", "workers: many");
    let path = file(folder.path(), &wrong);
    let bad = run(&["check"], &path);
    let said = String::from_utf8(bad.stdout).unwrap();
    assert_eq!(bad.status.code(), Some(2), "{said}");
    assert!(said.contains("runtime.workers") && said.contains("listeners[0].bind"), "{said}");
    assert!(said.ends_with("gateway.yaml: 2 errors, 0 warnings\n"), "{said}");
    let json = run(&["check", "--format", "json"], &path);
    let said: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.status.code(), &said["ok"], &said["errors"]), (Some(2), &false.into(), &2.into()));
}

#[test]
fn a_start_with_a_bad_configuration_ends_with_2_and_all_errors() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = yaml("127.0.0.1:0", "nowhere").replace("workers: 1", "workers: many");
    let ended = run(&["run", "-c"], &file(folder.path(), &wrong));
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("runtime.workers") && said.contains("listeners[0].bind"), "{said}");
}

#[test]
fn a_start_on_a_taken_port_ends_with_1_and_names_address_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (text, key) in [
        (yaml(&address, "127.0.0.1:0"), "admin.listen"),
        (yaml("127.0.0.1:0", &address), "listeners[0].bind"),
    ] {
        let ended = run(&["run", "-c"], &file(folder.path(), &text));
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains(key) && said.contains(&address), "{said}");
    }
}

#[test]
fn sigterm_ends_with_0_after_the_drain_and_a_second_one_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), &yaml("127.0.0.1:0", "127.0.0.1:0"));
    let mut gateway = Gateway::start(&path);
    gateway.logged("started");
    gateway.signal(Signal::TERM);
    gateway.logged("stopped");
    assert_eq!(gateway.exit_code(), Some(0));

    let mut gateway = Gateway::start(&path);
    let web = gateway.logged("listening")["address"].as_str().unwrap().to_owned();
    gateway.logged("started");
    // A request that never ends holds the drain up.
    let mut visitor = TcpStream::connect(web).unwrap();
    std::io::Write::write_all(&mut visitor, b"GET / HTTP/1.1\r\nHost: a.test\r\n").unwrap();
    gateway.signal(Signal::TERM);
    gateway.logged("draining");
    let begun = Instant::now();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit_code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(4), "not at once: {:?}", begun.elapsed());
    let mut rest = Vec::new();
    drop(visitor.read_to_end(&mut rest));
}

#[test]
fn sighup_reloads() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), &yaml("127.0.0.1:0", "127.0.0.1:0"));
    let mut gateway = Gateway::start(&path);
    gateway.logged("started");
    gateway.signal(Signal::HUP);
    gateway.logged("reload: nothing changed");
}
