//! Clients of FRP by their certificates: frpc's own `transport.tls` settings, judged where TLS ends at the gateway; the frps behind
//! it stays as it is. Real frps and frpc; needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/certified.rs"]
mod certified;
#[path = "common/control.rs"]
mod control;
#[path = "common/takeover.rs"]
mod takeover;
#[path = "common/tls.rs"]
mod tls;

use std::time::{Duration, Instant};

use certified::{Client, ClientAuthority};
use control::Site;
use frp_gateway_loadtest::{
    demo::DemoApp,
    http,
    lab::{Frpc, Proxy, until},
};
use takeover::{SOON, app};
use tls::Authority;

/// An frp listener that judges clients by this authority.
async fn site(server: &Authority, clients: &ClientAuthority, allow: &str) -> Site {
    let pair = server.issue("gate", &["gate.test"]);
    let auth =
        format!("{{ trust: \"{}\", crl: \"{}\"{allow} }}", clients.shown("ca.pem"), clients.shown("crl.pem"));
    let audit = format!("audit: {{ output: \"{}\" }}", clients.shown("audit"));
    Site::start(&["a", "b"], &format!("tls: {{ certificates: [{pair}], client_auth: {auth} }}"), &audit).await
}

struct Served {
    app: DemoApp,
    frpc: Frpc,
}

/// An frpc that shows a certificate and serves `NAME.test`, once it is up.
async fn served(site: &Site, name: &str, client: &Client) -> Served {
    let app = app(name);
    let options = site.options(name, vec![Proxy::http("web", app.addr(), &[&format!("{name}.test")])]);
    let options = client.frpc().iter().fold(options, |options, line| options.line(line));
    let served = Served { app, frpc: site.frpc(options).await };
    answers(site, name, true).await;
    served
}

/// Waits until `NAME.test` is served, or isn't any more.
async fn answers(site: &Site, name: &str, wanted: bool) {
    let what = format!("{name}.test to be {}served", if wanted { "" } else { "no longer " });
    until(&what, SOON, async || {
        let reply = http::get(site.world.web, &format!("{name}.test"), "/").await.ok()?;
        ((reply.app() == Some(name)) == wanted).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", site.world.gateway().log()));
}

async fn refusals(site: &Site, reason: &str) -> f64 {
    let labels = ["listener=\"frp\"", &format!("reason=\"{reason}\"")];
    let count = site.world.gateway().metric("frp_gateway_clients_refused_total", &labels).await;
    count.expect("metrics").unwrap_or_default()
}

async fn certificates(site: &Site) -> Vec<(String, String)> {
    let all = site.world.gateway().api("/api/v1/clients").await.expect("the API answers");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("?").to_owned();
    let all = all.as_array().into_iter().flatten();
    let mut all: Vec<_> = all.map(|client| (text(&client["user"]), text(&client["certificate"]))).collect();
    all.sort();
    all
}

#[tokio::test]
async fn frpc_are_known_by_their_certificates_and_refused_one_by_one() {
    let (server, clients) = (Authority::new(), ClientAuthority::new("fleet"));
    let site = site(&server, &clients, ", allow: \"spiffe://fleet.test/frpc/*\"").await;
    let _one = served(&site, "one", &clients.issue("spiffe://fleet.test/frpc/1", 1)).await;
    let _two = served(&site, "two", &clients.issue("spiffe://fleet.test/frpc/2", 2)).await;
    let known = certificates(&site).await;
    let expected = [("one", "spiffe://fleet.test/frpc/1"), ("two", "spiffe://fleet.test/frpc/2")];
    assert_eq!(known, expected.map(|(user, name)| (user.to_owned(), name.to_owned())));

    let audit = std::fs::read_to_string(clients.path("audit")).expect("a log");
    let placed = |line: &&str| line.contains("\"event\":\"client\"");
    let lines: Vec<_> = audit.lines().filter(placed).collect();
    assert_eq!(lines.len(), 2, "{audit}");
    for part in
        ["\"client\":\"spiffe://fleet.test/frpc/1\"", "\"user\":\"one\"", "\"frps\":", "\"serial\":\"01\""]
    {
        assert!(lines[0].contains(part), "{part}: {audit}");
    }

    // Of the same name: frpc shows nothing that isn't of an authority which the gateway asks for.
    let strangers = ClientAuthority::new("fleet");
    let of = |client: Client| client.frpc().to_vec();
    let refused = [
        ("plain", vec!["transport.tls.enable = false".to_owned()], "no_certificate"),
        ("nobody", Vec::new(), "no_certificate"),
        ("stranger", of(strangers.issue("spiffe://fleet.test/frpc/3", 3)), "unknown_issuer"),
        ("admin", of(clients.issue("spiffe://fleet.test/admin", 4)), "not_allowed"),
    ];
    for (user, lines, reason) in refused {
        let before = refusals(&site, reason).await;
        let options = site.options(user, Vec::new());
        let options = lines.iter().fold(options, |options, line| options.line(line));
        let _frpc = Frpc::start_unready(options).expect("frpc starts");
        until(reason, SOON, async || (refusals(&site, reason).await > before + 0.5).then_some(()))
            .await
            .unwrap_or_else(|error| panic!("{user}: {error}\n{}", site.world.gateway().log()));
    }
    assert!(site.metric("_refused_total", &["reason=\"certificate\""]).await >= 4.0);
    assert_eq!(certificates(&site).await.len(), 2, "nobody else came in");
}

#[tokio::test]
async fn a_revoked_frpc_is_cut_at_once_and_no_other() {
    let (server, clients) = (Authority::new(), ClientAuthority::new("fleet"));
    let site = site(&server, &clients, "").await;
    let bad = served(&site, "bad", &clients.issue("spiffe://fleet.test/frpc/7", 7)).await;
    let good = served(&site, "good", &clients.issue("spiffe://fleet.test/frpc/8", 8)).await;
    let before = site.world.gateway().api("/api/v1/clients").await.expect("the API answers");
    let id_of = |all: &serde_json::Value, user: &str| {
        all.as_array()
            .into_iter()
            .flatten()
            .find(|client| client["user"] == user)
            .map(|client| client["id"].clone())
    };

    let begun = Instant::now();
    clients.revoke(&[7]);
    site.until_clients("the revoked one to be cut", |all| all.iter().all(|(user, _)| user != "bad")).await;
    let cut = begun.elapsed();
    // Less than a second where nothing else runs.
    assert!(cut < Duration::from_secs(4), "it took {cut:?}");
    println!("cut after {cut:?}");
    answers(&site, "bad", false).await;
    until("it to be refused when it comes back", SOON, async || {
        (refusals(&site, "revoked").await >= 1.0).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", site.world.gateway().log()));

    answers(&site, "good", true).await;
    let after = site.world.gateway().api("/api/v1/clients").await.expect("the API answers");
    assert_eq!(id_of(&before, "good"), id_of(&after, "good"), "its connection is the same as before");
    drop((bad.app, bad.frpc, good.app, good.frpc));
}
