use std::{
    collections::BTreeSet,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use super::*;
use crate::{
    control::{
        relays::Refusal,
        testing::{Rig, yaml},
    },
    data::access_log::AccessLogHandle,
    telemetry::shard::WorkerId,
};

#[test]
fn the_reference_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/metrics.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, reference()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, reference(), "UPDATE_GOLDEN=1 cargo test -p frp-gateway metrics");
}

#[test]
fn names_follow_the_conventions() {
    for Metric { name, kind, help, .. } in TABLE {
        assert!(name.starts_with("frp_gateway_"), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert!(help.ends_with('.'), "{name}: {help}");
    }
    let names: BTreeSet<_> = TABLE.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), TABLE.len(), "a name is there twice");
}

/// A scrape of a gateway in which everything has happened once.
async fn scrape() -> String {
    let frps_admin = "vhost_http_port: 8001, admin: { url: \"http://127.0.0.1:1\", user: u, password: p }";
    let text = yaml("")
        .replace("vhost_http_port: 8001", frps_admin)
        .replace("frps: [a]", "frps: [a], outlier: {}, limits: { adaptive: {} }");
    let text = format!("{text}\ntunnels: {{ serve: true }}\n");
    let rig = Rig::start(&text).await;
    let snapshot = rig.published.load_full();
    let split = &snapshot.routes[0].splits[0];
    split.stats.requests[0].of(WorkerId(0)).by_class[1].inc();
    split.stats.requests[0].of(WorkerId(1)).by_class[1].inc();
    split.stats.latency.of(WorkerId(1)).observe_ns(3_000_000);
    snapshot.pools[0].stats.of(WorkerId(0)).picks.by_reason[0][0].inc();
    let listener = snapshot.listeners[0].as_ref().unwrap().stats.of(WorkerId(0));
    listener.relays[0].inc();
    listener.handshakes[0].inc();
    listener.clients_refused[0].inc();
    listener.clients_cut[3].inc();
    listener.relayed[1].inc();
    let relays = &snapshot.relays;
    relays.refused(&snapshot.listeners[0].as_ref().unwrap().name, Refusal::Slow);
    relays.touch(&snapshot.listeners[0].as_ref().unwrap().name, "a");
    snapshot.tunnel_stats.other.of(WorkerId(0)).by_class[1].inc();
    let (plugin, _told) = crate::control::hooks::plugin_state(&rig.handle.board());
    plugin.stats.calls[1][1].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    rig.handle.certificates().set_more(Arc::new(crate::tls::testing::Extra::default()));
    let heard = Some((plugin, crate::telemetry::audit::AuditHandle::off()));
    let metrics = collect::Metrics::new(
        Arc::clone(&rig.published),
        rig.handle.board(),
        AccessLogHandle::off(),
        Arc::clone(rig.handle.certificates()),
        heard,
    )
    .unwrap();
    String::from_utf8(metrics.encode().unwrap()).unwrap()
}

#[tokio::test]
async fn a_scrape_has_every_metric_of_the_reference_and_no_other() {
    let text = scrape().await;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let scraped: BTreeSet<_> = types.collect();
    let own = TABLE.iter().map(|metric| (metric.name, metric.kind.word()));
    let documented: BTreeSet<_> = own.chain(PROCESS.map(|(name, kind, _)| (name, kind.word()))).collect();
    assert_eq!(scraped, documented);
}

#[test]
fn the_alerts_ask_for_metrics_that_there_are() {
    let rules = include_str!("../../../../deploy/prometheus/alerts.yaml");
    let words = rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let asked: BTreeSet<_> =
        words.filter(|word| word.starts_with("frp_gateway_") || word.starts_with("process_")).collect();
    let known: BTreeSet<_> =
        TABLE.iter().map(|metric| metric.name).chain(PROCESS.map(|(name, ..)| name)).collect();
    assert!(asked.len() >= 10, "{asked:?}");
    assert!(asked.is_subset(&known), "not there: {:?}", asked.difference(&known));
}

#[tokio::test]
async fn shards_are_summed_and_untouched_request_series_left_out() {
    let text = scrape().await;
    let requests: Vec<_> =
        text.lines().filter(|line| line.starts_with("frp_gateway_requests_total")).collect();
    let only = r#"frp_gateway_requests_total{route="shop",pool="shop",endpoint="a",class="2xx"} 2"#;
    assert_eq!(requests, [only]);
    let labels = r#"route="shop",pool="shop""#;
    for line in [
        format!("frp_gateway_request_duration_seconds_bucket{{{labels},le=\"0.0025\"}} 0"),
        format!("frp_gateway_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 1"),
        format!("frp_gateway_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 1"),
        format!("frp_gateway_request_duration_seconds_sum{{{labels}}} 0.003"),
        "frp_gateway_own_answers_total{listener=\"web\",class=\"no_route\"} 0".into(),
        "frp_gateway_frps_listing_stale{frps=\"a\"} 1".into(),
    ] {
        assert!(text.lines().any(|has| has == line), "{line} is missing in:\n{text}");
    }
}

/// Skipped where `promtool` isn't installed.
#[tokio::test]
async fn promtool_has_nothing_to_complain_of() {
    let text = scrape().await;
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        println!("promtool is not installed: not checked");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let done = promtool.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
