//! `frp-gateway agent` as a process: what frps would get, what gateways are told, signals and exit codes. No frps: its calls are made
//! here, byte by byte.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are outside of them")]

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock, Mutex,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
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
/// Longest wait for anything; only a failing test waits so long.
const SOON: Duration = Duration::from_secs(20);

fn yaml(gateways: &[SocketAddr], rest: &str) -> String {
    let gateways: Vec<_> = gateways.iter().map(|at| format!("\"http://{at}\"")).collect();
    format!(
        "plugin: {{ key: \"{KEY}\", agent_token: {TOKEN} }}\n\
         frps: [ {{ name: a, host: 127.0.0.1, vhost_http_port: 1, admin: {{ url: \"http://127.0.0.1:1\", user: u, password: p }}, plugin: {{ secret: {SECRET} }} }} ]\n\
         listeners: [ {{ name: web, bind: \"127.0.0.1:0\" }} ]\n\
         agent: {{ frps: a, listen: \"127.0.0.1:0\", gateways: [{}], token: {TOKEN} }}\n{rest}",
        gateways.join(", ")
    )
}

/// The process; killed at the end whatever happens.
struct Agent {
    child: Child,
    lines: Receiver<Value>,
    file: PathBuf,
    at: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn command(file: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["agent", "--log-format", "json", "-c"]).arg(file);
    command
}

impl Agent {
    fn start(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.yaml");
        fs::write(&file, text).unwrap();
        let mut child = command(&file).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                // A diagnostic at a failed start is no JSON.
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut agent =
            Self { child, lines, file, at: SocketAddr::from(([127, 0, 0, 1], 0)), _folder: folder };
        agent.at = agent.logged("agent started")["address"].as_str().unwrap().parse().unwrap();
        agent
    }

    /// The next log line with that message.
    fn logged(&self, message: &str) -> Value {
        let deadline = Instant::now() + SOON;
        let mut others = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line["message"] == message => return line,
                Ok(line) => others.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("it never said {message:?}, but {others:#?}")
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("still running after {SOON:?}");
    }

    fn edit(&self, text: &str) {
        let new = self.file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, &self.file).unwrap();
    }

    fn login(&self, user: &str) -> Value {
        call(&mut TcpStream::connect(self.at).unwrap(), "Login", &login(user))
    }
}

fn login(user: &str) -> Value {
    json!({ "version": "0.71.0", "user": user, "privilege_key": "6cbd", "run_id": "5ec2e7", "client_address": "127.0.0.1:5" })
}

fn new_proxy(user: &str, domain: &str) -> Value {
    json!({
        "user": { "user": user, "metas": null, "run_id": "5ec2e7" },
        "proxy_name": format!("{user}.web"), "proxy_type": "http", "custom_domains": [domain],
    })
}

fn head_and_body(op: &str, content: &Value) -> (String, String) {
    let body = json!({ "version": "0.1.0", "op": op, "content": content }).to_string();
    let head = format!(
        "POST /frps/{SECRET}?version=0.1.0&op={op} HTTP/1.1\r\nHost: agent\r\nX-Frp-Reqid: 29c3\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (head, body)
}

/// As frps calls; the answer's JSON.
fn call(stream: &mut TcpStream, op: &str, content: &Value) -> Value {
    let (head, body) = head_and_body(op, content);
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let (head, body) = message(&mut BufReader::new(stream)).expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    serde_json::from_slice(&body).unwrap()
}

/// Head and body of one message; `None` at the end.
fn message(from: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    from.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// What a gateway was told: its head and its JSON.
struct Report {
    head: String,
    json: Value,
}

/// A gateway's plugin listener, as far as agents see it: keeps what it is told, and refuses what a gateway would.
struct FakeGateway {
    at: SocketAddr,
    reports: Receiver<Report>,
    /// Users of logins that were told and not yet asked for.
    users: Vec<String>,
}

/// Largest body that a gateway reads.
const GATEWAY_READS: usize = 256 * 1024;

impl FakeGateway {
    fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let at = listener.local_addr().unwrap();
        let (sender, reports) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                thread::spawn(move || {
                    let mut writer = stream.try_clone().unwrap();
                    let mut reader = BufReader::new(stream);
                    while let Some((head, body)) = message(&mut reader) {
                        let fits = body.len() <= GATEWAY_READS;
                        let status = if fits { "204 No Content" } else { "413 Content Too Large" };
                        if fits {
                            drop(sender.send(Report { head, json: serde_json::from_slice(&body).unwrap() }));
                        }
                        if write!(writer, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { at, reports, users: Vec::new() }
    }

    fn next(&self) -> Report {
        self.reports.recv_timeout(SOON).expect("a report")
    }

    /// Waits until it was told of that login.
    fn until_login(&mut self, user: &str) {
        while !self.users.iter().any(|told| told == user) {
            let report = self.next();
            let heard = report.json["heard"].as_array().unwrap();
            self.users.extend(heard.iter().map(|one| one["user"].as_str().unwrap().to_owned()));
        }
    }
}

/// An address where nobody listens but who asked for it.
fn nobody() -> SocketAddr {
    static HELD: LazyLock<Mutex<FreePorts>> = LazyLock::new(|| Mutex::new(FreePorts::new()));
    SocketAddr::from(([127, 0, 0, 1], HELD.lock().unwrap().take().unwrap()))
}

#[test]
fn a_file_without_agent_section_ends_with_2_and_says_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.yaml");
    let text = yaml(&[nobody()], "");
    let without: String =
        text.lines().filter(|line| !line.starts_with("agent:")).map(|line| format!("{line}\n")).collect();
    for (text, wanted) in [
        (without, "agent: error[no-agent]: this file has no agent section; write agent: { frps: NAME"),
        (text.replace("agent: { frps: a,", "agent: { frps: b,"), "agent.frps: "),
    ] {
        fs::write(&file, &text).unwrap();
        let ended = command(&file).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{said}");
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn a_taken_address_ends_with_1_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.yaml");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fs::write(
        &file,
        yaml(&[nobody()], "").replace("\"127.0.0.1:0\", gateways", &format!("\"{address}\", gateways")),
    )
    .unwrap();
    let ended = command(&file).output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("agent.listen") && said.contains(&address), "{said}");
}

#[test]
fn frps_is_answered_while_no_gateway_is_there() {
    let agent = Agent::start(&yaml(&[nobody(), nobody()], ""));
    let begun = Instant::now();
    let mut frps = TcpStream::connect(agent.at).unwrap();
    assert_eq!(call(&mut frps, "Login", &login("alice")), json!({ "reject": false, "unchange": true }));
    let answer = call(&mut frps, "NewProxy", &new_proxy("alice", "x.test"));
    assert_eq!(answer["content"]["proxy_type"], "tcp", "taken over: {answer}");
    assert_eq!(answer["content"]["proxy_name"], "alice.web", "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn every_gateway_is_told_at_once_in_order_and_without_secrets_whoever_else_hangs() {
    // Accepts, and never answers.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let (one, other) = (FakeGateway::start(), FakeGateway::start());
    let agent = Agent::start(&yaml(&[hangs.local_addr().unwrap(), nobody(), one.at, other.at], ""));
    let mut frps = TcpStream::connect(agent.at).unwrap();
    call(&mut frps, "Login", &login("alice"));
    call(&mut frps, "NewProxy", &new_proxy("alice", "x.test"));
    call(
        &mut frps,
        "CloseProxy",
        &json!({ "user": { "user": "alice", "run_id": "5ec2e7" }, "proxy_name": "alice.web" }),
    );
    for gateway in [one, other] {
        let begun = Instant::now();
        let mut heard = Vec::new();
        while heard.len() < 3 {
            let Report { head, json } = gateway.next();
            assert!(head.starts_with("POST /agent HTTP/1.1\r\n"), "{head}");
            assert!(head.to_ascii_lowercase().contains(&format!("authorization: bearer {TOKEN}")), "{head}");
            assert_eq!(json["frps"], "a", "{json}");
            let text = json.to_string();
            for secret in ["5ec2e7", "6cbd", SECRET, KEY, TOKEN] {
                assert!(!text.contains(secret), "{secret} in {text}");
            }
            heard.extend(json["heard"].as_array().unwrap().clone());
        }
        let ops: Vec<_> = heard.iter().map(|one| one["op"].as_str().unwrap()).collect();
        assert_eq!(ops, ["login", "claim", "closing"]);
        assert_eq!(heard[1]["taken_over"], true, "{heard:?}");
        assert!(begun.elapsed() < Duration::from_secs(2), "not delayed by the others: {:?}", begun.elapsed());
    }
}

#[test]
fn a_gateway_that_comes_later_is_told_and_its_state_is_logged_once() {
    let at = nobody();
    let agent = Agent::start(&yaml(&[at], ""));
    agent.login("early");
    agent.logged("gateway cannot be told; it will find out by listing");
    for _ in 0..20 {
        agent.login("later");
    }
    let mut gateway = FakeGateway::on(TcpListener::bind(at).unwrap());
    gateway.until_login("early");
    let warned = |line: &Value| line["level"] == "WARN";
    let mut between = Vec::new();
    loop {
        let line = agent.lines.recv_timeout(SOON).expect("a line");
        if line["message"] == "gateway is told again" {
            break;
        }
        between.push(line);
    }
    assert!(!between.iter().any(warned), "one line per change of state: {between:#?}");
}

#[test]
fn calls_too_large_for_one_report_are_told_in_several() {
    let at = nobody();
    let agent = Agent::start(&yaml(&[at], ""));
    let mut frps = TcpStream::connect(agent.at).unwrap();
    // 100 × 10 KB wait for the gateway: four times what it reads at once.
    let long = "x".repeat(10_000);
    for number in 0..100 {
        call(&mut frps, "Login", &login(&format!("{long}{number}")));
    }
    let mut gateway = FakeGateway::on(TcpListener::bind(at).unwrap());
    call(&mut frps, "Login", &login("last"));
    gateway.until_login("last");
    assert_eq!(gateway.users.len(), 101, "all of them");
}

#[test]
fn edits_take_effect_while_calls_keep_coming() {
    let mut gateway = FakeGateway::start();
    let agent = Agent::start(&yaml(&[gateway.at], ""));
    let mut frps = TcpStream::connect(agent.at).unwrap();
    assert_eq!(call(&mut frps, "Login", &login("mallory"))["reject"], false);
    let refuse = "claims: { rules: [ { users: [mallory], refuse: \"ask ops\" } ] }\n";
    agent.edit(&yaml(&[gateway.at], refuse));
    // More often than the file is looked at.
    let deadline = Instant::now() + SOON;
    loop {
        let answer = call(&mut frps, "NewProxy", &new_proxy("mallory", "x.test"));
        if answer["reject"] == true {
            assert!(answer["reject_reason"].as_str().unwrap().ends_with("ask ops"), "{answer}");
            break;
        }
        assert!(Instant::now() < deadline, "the edit never took effect");
        thread::sleep(Duration::from_millis(20));
    }
    // A wrong file changes nothing.
    agent.edit("plugin: {");
    agent.logged("reload refused, the old configuration stays in force");
    assert_eq!(call(&mut frps, "NewProxy", &new_proxy("mallory", "x.test"))["reject"], true);
    call(&mut frps, "Login", &login("after"));
    gateway.until_login("after");
}

#[test]
fn a_gateway_added_by_an_edit_is_told_and_the_others_lose_nothing() {
    let at = nobody();
    let agent = Agent::start(&yaml(&[at], ""));
    agent.login("waits");
    agent.logged("gateway cannot be told; it will find out by listing");
    let mut added = FakeGateway::start();
    agent.edit(&yaml(&[at, added.at], ""));
    agent.signal(Signal::HUP);
    agent.logged("reloaded");
    agent.login("new");
    added.until_login("new");
    let mut gateway = FakeGateway::on(TcpListener::bind(at).unwrap());
    gateway.until_login("new");
    assert_eq!(gateway.users, ["waits", "new"], "what waited for it over the reload");
}

#[test]
fn sigterm_answers_what_is_in_flight_tells_what_was_heard_and_ends_with_0() {
    let mut gateway = FakeGateway::start();
    let mut agent = Agent::start(&yaml(&[gateway.at, nobody()], ""));
    // Its body is still under way.
    let mut frps = TcpStream::connect(agent.at).unwrap();
    let (head, body) = head_and_body("Login", &login("half"));
    frps.write_all(format!("{head}{}", &body[..10]).as_bytes()).unwrap();
    // Its answer proves that the agent has accepted the first, too.
    agent.login("whole");
    agent.signal(Signal::TERM);
    agent.logged("agent stops");
    frps.write_all(&body.as_bytes()[10..]).unwrap();
    let (head, _) = message(&mut BufReader::new(&frps)).expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let refused = TcpStream::connect(agent.at).map_err(|error| error.kind());
    assert!(matches!(refused, Err(ErrorKind::ConnectionRefused)), "it accepts no more: {refused:?}");
    let begun = Instant::now();
    assert_eq!(agent.exit_code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    gateway.until_login("half");
}

#[test]
fn a_second_sigterm_ends_at_once() {
    // Accepts, and never answers: telling it what was heard would take seconds.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut agent = Agent::start(&yaml(&[hangs.local_addr().unwrap()], ""));
    agent.login("alice");
    agent.signal(Signal::TERM);
    agent.logged("agent stops");
    let begun = Instant::now();
    agent.signal(Signal::TERM);
    agent.logged("second signal, agent stopped at once");
    assert_eq!(agent.exit_code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn an_agent_that_is_its_own_gateway_does_not_go_round_in_circles() {
    // The agent's port must be known before it starts.
    let at = nobody();
    let mut gateway = FakeGateway::start();
    let text = yaml(&[at, gateway.at], "").replace("listen: \"127.0.0.1:0\"", &format!("listen: \"{at}\""));
    let agent = Agent::start(&text);
    agent.login("once");
    agent.logged("an agent reports to this agent: agent.gateways should name gateways");
    agent.login("end");
    gateway.until_login("end");
    assert_eq!(gateway.users, ["once", "end"]);
}
