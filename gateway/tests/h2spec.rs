//! The whole of h2spec, over TLS and in clear. Needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/raw.rs"]
mod raw;
#[path = "common/tls.rs"]
mod tls;

use std::path::Path;

use frp_gateway_loadtest::{demo::DemoApp, lab::Gateway};
use raw::gateway;
use tls::Authority;
use tokio::process::Command;

async fn world(authority: &Authority) -> (Gateway, DemoApp) {
    let pair = authority.issue("app", &["localhost", "127.0.0.1"]);
    let app = DemoApp::start("one").expect("it starts");
    let frps = format!("{{ name: a, host: 127.0.0.1, vhost_http_port: {} }}", app.addr().port());
    let secure = format!(
        "{{ name: secure, bind: \"127.0.0.1:0\", protocol: https, tls: {{ certificates: [{pair}] }} }}"
    );
    let clear = "{ name: clear, bind: \"127.0.0.1:0\", protocol: http, http2: on }";
    (gateway(&[frps], &[&secure, clear], "pools: [ { name: p, frps: [a] } ]").await, app)
}

async fn passes(gateway: &Gateway, listener: &str, options: &[&str]) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../frp-lab/bin/h2spec/h2spec");
    let address = gateway.listener(listener).await.expect("it listens");
    let run = Command::new(&program)
        .args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "-o", "10"])
        .args(options)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("{}: {error}; run frp-lab/build", program.display()));
    let said = String::from_utf8_lossy(&run.stdout);
    let failures = said.split_once("Failures:").map_or("", |(_, failures)| failures);
    let sum = said.lines().find(|line| line.contains(" tests, ")).unwrap_or("no summary");
    assert!(run.status.success() && sum.contains("0 skipped, 0 failed"), "{listener}: {sum}\n{failures}");
    // Fewer would mean that most were never run.
    let count: u32 = sum.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default();
    assert!(count >= 145, "{sum}");
}

#[tokio::test]
async fn http2_over_tls_and_in_clear_is_as_the_specifications_say() {
    let authority = Authority::new();
    let (gateway, _app) = world(&authority).await;
    passes(&gateway, "secure", &["-t", "-k"]).await;
    passes(&gateway, "clear", &[]).await;
}
