//! Clients that serve a host each, and what operators do to them.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::panic,
    reason = "each test file uses its own part"
)]

use std::process::Stdio;

use frp_gateway_loadtest::{
    http,
    lab::{Frpc, Proxy, until},
};
use tokio::process::Command;

use crate::{
    control::Site,
    ledger::{Ledger, app},
    takeover::{BINARY, SOON},
};

/// Waits until somebody answers for `host`.
pub async fn served(site: &Site, host: &str) {
    until(&format!("{host} to be served"), SOON, async || {
        (http::get(site.world.web, host, "/").await.ok()?.status == 200).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", site.world.gateway().log()));
}

/// One client for each of these lists of lines: users `u0`, `u1` …, hosts `h0.test`, `h1.test` ….
pub async fn fleet_of(site: &Site, ledger: &Ledger, lines: &[&[&str]]) -> Vec<Frpc> {
    let mut clients = Vec::new();
    for (n, lines) in lines.iter().enumerate() {
        let host = format!("h{n}.test");
        let proxy = Proxy::http("web", app("app", ledger).await, &[&host]);
        let options = site.options(&format!("u{n}"), vec![proxy]);
        clients.push(site.frpc(lines.iter().fold(options, |options, line| options.line(line))).await);
        served(site, &host).await;
    }
    clients
}

/// So many with nothing special.
pub async fn fleet(site: &Site, ledger: &Ledger, count: usize) -> Vec<Frpc> {
    fleet_of(site, ledger, &vec![&[][..]; count]).await
}

/// Runs a command against the gateway; exit code, output.
pub async fn command(site: &Site, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(BINARY);
    command.args(arguments).arg("--admin").arg(format!("http://{}", site.world.gateway().admin()));
    let ended = command.stdin(Stdio::null()).output().await.expect("it runs");
    let text =
        format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    (ended.status.code().unwrap_or(-1), text)
}
