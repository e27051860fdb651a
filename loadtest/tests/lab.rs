//! The lab starts real frps and frpc, steers them, and leaves nothing behind. Needs `frp-lab/build`.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use frp_gateway_loadtest::{
    demo::DemoApp,
    http,
    lab::{Frpc, FrpcOptions, Frps, FrpsOptions, Gateway, LabError, Proxy, Version, until},
};

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn both_versions_of_frp_carry_a_request_and_list_the_tunnel() {
    for version in [Version::V071, Version::V061] {
        let mut frps = Frps::start(FrpsOptions::new("a").version(version)).await.unwrap();
        let app = DemoApp::start("shop").unwrap();
        let options = FrpcOptions::new(&frps)
            .user("alice")
            .proxy(Proxy::http("web", app.addr(), &["app.test", "app2.test"]).metadata("weight", "5"))
            .proxy(Proxy::tcp("raw", app.addr(), 0).line("transport.useEncryption = true"));
        let mut frpc = Frpc::start(options).await.unwrap();

        let reply = http::get(frps.http(), "app2.test", "/").await.unwrap();
        assert_eq!((reply.status, reply.app()), (200, Some("shop")), "{version:?}");
        assert_eq!(frps.online().await.unwrap(), ["alice.raw", "alice.web"], "{version:?}");
        assert_eq!(frpc.proxy_names(), ["alice.web", "alice.raw"]);
        let raw =
            frpc.statuses().await.unwrap().into_iter().find(|proxy| proxy.name.ends_with("raw")).unwrap();
        let port = raw.remote_address.rsplit(':').next().unwrap().parse().unwrap();
        let through = http::get(([127, 0, 0, 1], port).into(), "whatever.test", "/").await.unwrap();
        assert_eq!(through.app(), Some("shop"), "{version:?}: remote port {port}");

        frpc.reload(vec![Proxy::http("new", app.addr(), &["new.test"])]).await.unwrap();
        frps.wait_online(&["alice.new"], SOON).await.unwrap();
        frpc.kill9();
        frps.wait_offline(&["alice.new"], SOON).await.unwrap();
    }
}

#[tokio::test]
async fn the_fake_404_is_what_frps_sends() {
    for version in [Version::V071, Version::V061] {
        let frps = Frps::start(FrpsOptions::new("a").version(version)).await.unwrap();
        let app = DemoApp::start("shop").unwrap();
        let mut real = http::get(frps.http(), "nobody.test", "/").await.unwrap();
        let mut fake = http::get(app.addr(), "nobody.test", "/fake404").await.unwrap();
        assert!(real.headers.remove("date").is_some() && fake.headers.remove("date").is_some());
        assert_eq!(
            (real.status, real.headers, real.body),
            (fake.status, fake.headers, fake.body),
            "{version:?}"
        );
    }
}

#[tokio::test]
async fn a_restarted_frps_gets_its_clients_back_on_the_same_ports() {
    let mut frps = Frps::start(FrpsOptions::new("a")).await.unwrap();
    let app = DemoApp::start("shop").unwrap();
    let _frpc = Frpc::start(FrpcOptions::new(&frps).proxy(Proxy::http("web", app.addr(), &["app.test"])))
        .await
        .unwrap();
    let address = frps.http();
    frps.kill9();
    http::get(address, "app.test", "/").await.expect_err("a killed frps refuses connections");
    frps.restart().await.unwrap();
    frps.wait_online(&["web"], SOON).await.unwrap();
    assert_eq!(http::get(address, "app.test", "/").await.unwrap().app(), Some("shop"));
}

#[tokio::test]
async fn a_frozen_frpc_hangs_requests_until_it_is_thawed() {
    let frps = Frps::start(FrpsOptions::new("a")).await.unwrap();
    let app = DemoApp::start("shop").unwrap();
    let mut frpc = Frpc::start(FrpcOptions::new(&frps).proxy(Proxy::http("web", app.addr(), &["app.test"])))
        .await
        .unwrap();
    frpc.sigstop();
    let request = http::get(frps.http(), "app.test", "/");
    tokio::pin!(request);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut request).await;
    assert!(early.is_err(), "answered through a frozen frpc: {early:?}");
    frpc.sigcont();
    assert_eq!(request.await.unwrap().app(), Some("shop"));
}

#[tokio::test]
async fn a_failed_start_tells_what_the_process_said() {
    let error =
        Frps::start(FrpsOptions::new("a").line("noSuchOption = 1")).await.expect_err("strict options");
    assert!(
        matches!(error, LabError::Exited { .. }) && error.to_string().contains("noSuchOption"),
        "{error}"
    );
    let error = Gateway::start("no/such/program", "").await.expect_err("no binary");
    assert!(env::var_os("FRP_GATEWAY_BIN").is_some() || matches!(error, LabError::Missing { .. }), "{error}");
}

#[tokio::test]
async fn sigterm_ends_a_process_and_a_drop_leaves_none_behind() {
    let mut frps = Frps::start(FrpsOptions::new("a")).await.unwrap();
    frps.sigterm();
    frps.wait_exit(SOON).await.unwrap();
    let mut frozen = Frps::start(FrpsOptions::new("b")).await.unwrap();
    let pid = frozen.pid();
    assert!(lives(pid));
    frozen.sigstop();
    drop(frozen);
    assert!(!lives(pid), "frps {pid} outlived its owner");
}

/// Not a test: the victim of the next one.
#[tokio::test]
#[ignore = "started by a_killed_owner_takes_its_processes_along"]
async fn owner_that_is_killed() {
    if env::var_os("FRP_LAB_OWNER").is_none() {
        return;
    }
    let frps = Frps::start(FrpsOptions::new("orphan")).await.unwrap();
    println!("\npid {}", frps.pid());
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_killed_owner_takes_its_processes_along() {
    if !Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "true"])
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("skipped: no setpriv with --pdeathsig here");
        return;
    }
    let mut owner = Command::new(env::current_exe().unwrap())
        .args(["owner_that_is_killed", "--exact", "--ignored", "--nocapture"])
        .env("FRP_LAB_OWNER", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let pid = lines.find_map(|line| line.unwrap().strip_prefix("pid ")?.parse().ok());
    let alive = pid.is_some_and(lives);
    owner.kill().unwrap();
    owner.wait().unwrap();
    let pid = pid.expect("the owner prints the pid of its frps");
    assert!(alive, "frps {pid} runs while its owner does");
    until("the orphan to end", SOON, async || (!lives(pid)).then_some(())).await.unwrap();
}

/// Whether the process runs (a zombie doesn't).
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}
