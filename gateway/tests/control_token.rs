//! Where the gateway knows the token of an frps, a client that shows it replaces its own older connection at once, though the kernel
//! of that still answers. Real frps and frpc; needs `frp-lab/build`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test shows why, and a good one what it measured"
)]

#[path = "common/control.rs"]
mod control;
#[path = "common/takeover.rs"]
mod takeover;

use std::time::{Duration, Instant};

use control::Site;
use frp_gateway_loadtest::{
    demo::DemoApp,
    http,
    lab::{Frpc, FrpcOptions, Proxy, TOKEN, until},
};
use takeover::{SOON, app};

/// frps with this line, and a gateway that takes `known` for their token.
async fn site(names: &[&'static str], known: &str, line: &str) -> Site {
    let mut site = Site::unstarted(names, "", "", line).await;
    site.world.instead.push(("control_port:".into(), format!("token: \"{known}\", control_port:")));
    site.world.start_gateway().await;
    site
}

const CLEAR: &str = "transport.tls.enable = false";

/// A client called `edge`.
fn edge(site: &Site, app: &DemoApp, token: &str, lines: &[&str]) -> FrpcOptions {
    let options = site
        .options("u", vec![Proxy::http("web", app.addr(), &["h0.test"])])
        .line("clientID = \"edge\"")
        .token(token);
    lines.iter().fold(options, |options, line| options.line(line))
}

/// Until this application answers for the host; how long that took.
async fn until_served_by(site: &Site, name: &str) -> Duration {
    let begun = Instant::now();
    let what = format!("{name} to serve");
    let served = until(&what, SOON, async || {
        let reply = http::get(site.world.web, "h0.test", "/").await.ok()?;
        (reply.app() == Some(name)).then_some(())
    });
    served.await.unwrap_or_else(|error| panic!("{error}\n{}", site.world.gateway().log()));
    begun.elapsed()
}

fn count(site: &Site, what: &str) -> usize {
    site.world.gateway().log().matches(what).count()
}

async fn until_logged(site: &Site, what: &str) {
    until(what, SOON, async || (count(site, what) > 0).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", site.world.gateway().log()));
}

async fn replaced_at_once(lines: &[&str], of_frps: &str) {
    let site = site(&["a", "b"], TOKEN, of_frps).await;
    let (old, new) = (app("old"), app("new"));
    let mut first = site.frpc(edge(&site, &old, TOKEN, lines)).await;
    until_served_by(&site, "old").await;
    // The process stands still, and its kernel acknowledges whatever is sent to it.
    first.sigstop();
    let begun = Instant::now();
    let _second = site.frpc(edge(&site, &new, TOKEN, lines)).await;
    until_served_by(&site, "new").await;
    let took = begun.elapsed();
    println!("{lines:?}: a stopped client was replaced after {took:?}");
    assert_eq!(count(&site, "by_token=true"), 1, "{}", site.world.gateway().log());
    assert_eq!(count(&site, "gone=false"), 0, "it waited for nothing:\n{}", site.world.gateway().log());
}

#[tokio::test]
async fn who_shows_the_token_replaces_a_stopped_client_at_once_on_the_v1_wire() {
    replaced_at_once(&[CLEAR], "").await;
}

#[tokio::test]
async fn who_shows_the_token_replaces_a_stopped_client_at_once_on_the_v2_wire() {
    replaced_at_once(&[CLEAR, "transport.wireProtocol = \"v2\""], "").await;
}

#[tokio::test]
async fn who_shows_the_token_replaces_a_stopped_client_at_once_without_mux() {
    const OFF: &str = "transport.tcpMux = false";
    replaced_at_once(&[CLEAR, OFF], OFF).await;
}

#[tokio::test]
async fn behind_tls_that_is_passed_through_the_next_try_of_who_shows_the_token_replaces_a_stopped_client() {
    let site = site(&["a"], TOKEN, "").await;
    let (old, new) = (app("old"), app("new"));
    let mut first = site.frpc(edge(&site, &old, TOKEN, &[])).await;
    until_served_by(&site, "old").await;
    first.sigstop();
    let begun = Instant::now();
    let _second = site.frpc(edge(&site, &new, TOKEN, &[])).await;
    until_served_by(&site, "new").await;
    println!("behind TLS, a stopped client was replaced after {:?}", begun.elapsed());
    until_logged(&site, "an older connection was cut for one that knows the token").await;
}

#[tokio::test]
async fn who_does_not_know_the_token_replaces_nobody_and_who_is_believed_is_not_cut_in_turn() {
    let site = site(&["a", "b"], TOKEN, "").await;
    let (old, new, stranger) = (app("old"), app("new"), app("stranger"));
    let first = site.frpc(edge(&site, &old, TOKEN, &[CLEAR])).await;
    until_served_by(&site, "old").await;

    let _stranger = Frpc::start_unready(edge(&site, &stranger, "lab-toke", &[CLEAR])).expect("it starts");
    until_logged(&site, "gone=false").await;
    assert_eq!(count(&site, "by_token=true"), 0, "{}", site.world.gateway().log());
    until_served_by(&site, "old").await;

    // Two that live and have one name: the later one is believed, and the earlier one, which dials again, waits in vain.
    let waited = count(&site, "gone=false");
    let _second = site.frpc(edge(&site, &new, TOKEN, &[CLEAR])).await;
    until_served_by(&site, "new").await;
    until("the earlier one to have waited", SOON, async || {
        (count(&site, "gone=false") > waited).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}\n{}", first.log(), site.world.gateway().log()));
    assert_eq!(count(&site, "by_token=true"), 1, "{}", site.world.gateway().log());
    until_served_by(&site, "new").await;
}

#[tokio::test]
async fn where_the_gateway_knows_another_token_a_client_that_answers_stays() {
    let site = site(&["a"], "that-of-yesterday", "").await;
    let (old, new) = (app("old"), app("new"));
    let _first = site.frpc(edge(&site, &old, TOKEN, &[CLEAR])).await;
    until_served_by(&site, "old").await;
    let _second = Frpc::start_unready(edge(&site, &new, TOKEN, &[CLEAR])).expect("it starts");
    until_logged(&site, "gone=false").await;
    assert_eq!(count(&site, "by_token=true"), 0, "{}", site.world.gateway().log());
    until_served_by(&site, "old").await;
}
