//! Which part of a pool serves: the own zone as far as it can, standbys in need, all in a panic, newcomers little by little.

#[path = "common/apps.rs"]
mod apps;
mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use apps::{App, apply, frps, metric, setup, shares, start};
use common::{eventually, ok};
use frp_gateway_loadtest::lab::Gateway;

const ALL: [&str; 4] = ["near-1", "near-2", "far-1", "far-2"];
const ZONE: &str = "zone: z1\n";

/// Two members in the gateway's zone, two in another.
async fn four() -> [App; 4] {
    [App::start(ALL[0]).await, App::start(ALL[1]).await, App::start(ALL[2]).await, App::start(ALL[3]).await]
}

fn zoned(apps: &[App; 4]) -> Vec<String> {
    let zones = ["z1", "z1", "z2", "z2"];
    apps.iter()
        .zip(zones)
        .map(|(app, zone)| frps(app.name, app.address, &format!(", zone: {zone}")))
        .collect()
}

/// The same, give or take the turns that a part of a pool owes or is owed when it begins to serve alone.
fn alike<const N: usize>(got: [usize; N], want: [usize; N]) {
    let all = got.iter().zip(want);
    let close = all.clone().all(|(got, want)| if want == 0 { *got == 0 } else { got.abs_diff(want) <= 4 });
    assert!(close, "{got:?}, expected about {want:?}");
}

async fn down(gateway: &Gateway, name: &str) {
    eventually(&format!("{name} is found unhealthy"), async || {
        metric(gateway, "endpoint_up", &[&format!("endpoint=\"{name}\"")]).await.to_string() == "0"
    })
    .await;
}

#[tokio::test]
async fn the_own_zone_serves_everything_while_it_is_whole() {
    let apps = four().await;
    let text = setup(1, &zoned(&apps), "", ", locality: prefer", ZONE);
    let (gateway, address) = start(&text).await;
    alike(shares(address, ALL, 1000).await, [500, 500, 0, 0]);
    let local = metric(&gateway, "pool_picks_total", &[r#"among="local""#]).await;
    assert_eq!(local.to_string(), "1000");
}

#[tokio::test]
async fn without_a_preference_zones_do_not_matter() {
    let apps = four().await;
    let (_gateway, address) = start(&setup(1, &zoned(&apps), "", "", ZONE)).await;
    assert_eq!(shares(address, ALL, 1000).await, [250; 4]);
}

fn spills([near_1, near_2, far_1, far_2]: [usize; 4]) {
    let all = near_1 + near_2 + far_1 + far_2;
    assert_eq!(near_1, 0, "it is dead");
    let share = near_2 as f64 / all as f64;
    assert!((share - 0.7).abs() < 0.06, "{share}: half the zone × 1.4 is 70 %");
    assert!(far_1.abs_diff(far_2) <= all / 50, "the rest goes to both others alike: {far_1} and {far_2}");
}

#[tokio::test]
async fn what_the_zone_cannot_carry_spills_when_a_member_refuses() {
    let mut apps = four().await;
    let text = setup(1, &zoned(&apps), "", ", locality: prefer, fail_timeout: 1m", ZONE);
    let (_gateway, address) = start(&text).await;
    apps[0].die().await;
    shares(address, ALL, 10).await; // one of these finds out
    spills(shares(address, ALL, 3000).await);
}

#[tokio::test]
async fn what_the_zone_cannot_carry_spills_when_a_member_is_unhealthy() {
    let mut apps = four().await;
    let health = "health: { tcp: {}, interval: 50ms, fast_interval: 50ms, fall: 1 }";
    let text = setup(1, &zoned(&apps), "", &format!(", locality: prefer, {health}"), ZONE);
    let (gateway, address) = start(&text).await;
    apps[0].die().await;
    down(&gateway, ALL[0]).await;
    spills(shares(address, ALL, 3000).await);
}

#[tokio::test]
async fn the_spill_over_factor_is_the_operators() {
    let mut apps = four().await;
    let pool = ", locality: { prefer: { spill: 2 } }, fail_timeout: 1m";
    let (_gateway, address) = start(&setup(1, &zoned(&apps), "", pool, ZONE)).await;
    apps[0].die().await;
    shares(address, ALL, 10).await;
    assert_eq!(shares(address, ALL, 500).await, [0, 500, 0, 0]);
}

#[tokio::test]
async fn when_the_own_zone_is_gone_the_others_serve_everything_until_it_is_back() {
    let mut apps = four().await;
    let text = setup(1, &zoned(&apps), "", ", locality: prefer, fail_timeout: 300ms", ZONE);
    let (_gateway, address) = start(&text).await;
    apps[0].die().await;
    apps[1].die().await;
    let [near_1, near_2, far_1, far_2] = shares(address, ALL, 1000).await;
    assert_eq!((near_1, near_2, far_1 + far_2), (0, 0, 1000));
    assert!(far_1.abs_diff(far_2) < 100, "{far_1} and {far_2}");
    apps[0].come_back().await;
    apps[1].come_back().await;
    eventually("the own zone serves again", async || shares(address, ALL, 20).await == [10, 10, 0, 0]).await;
}

#[tokio::test]
async fn a_standby_serves_nothing_until_no_primary_can_and_then_everything() {
    const NAMES: [&str; 3] = ["one", "two", "standby"];
    let mut apps = [App::start(NAMES[0]).await, App::start(NAMES[1]).await, App::start(NAMES[2]).await];
    let frps: Vec<_> = apps.iter().map(|app| frps(app.name, app.address, "")).collect();
    let pool = ", frps: [one, two, { name: standby, priority: 1 }], fail_timeout: 300ms";
    let (gateway, address) = start(&setup(1, &frps, "", pool, "")).await;
    alike(shares(address, NAMES, 300).await, [150, 150, 0]);
    apps[0].die().await;
    assert_eq!(shares(address, NAMES, 300).await, [0, 300, 0], "one primary is enough");
    apps[1].die().await;
    assert_eq!(shares(address, NAMES, 300).await, [0, 0, 300]);
    let standby = metric(&gateway, "pool_picks_total", &[r#"among="standby""#]).await;
    assert!(standby >= 200.0, "{standby}");
    apps[1].come_back().await;
    eventually("the primary serves again", async || shares(address, NAMES, 20).await == [0, 20, 0]).await;
}

/// Three members of which two fail their health checks, although they serve.
async fn two_of_three_unhealthy(pool: &str) -> ([App; 3], Gateway, [usize; 3]) {
    const NAMES: [&str; 3] = ["good", "bad-1", "bad-2"];
    async fn app(name: &'static str, healthy: bool) -> App {
        App::answering(name, move |request| async move {
            if request.starts_with("GET /healthz") && !healthy {
                "HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n".to_owned()
            } else {
                ok(name)
            }
        })
        .await
    }
    let apps = [app(NAMES[0], true).await, app(NAMES[1], false).await, app(NAMES[2], false).await];
    let frps: Vec<_> = apps.iter().map(|app| frps(app.name, app.address, "")).collect();
    let health =
        "health: { http: { host: app.test, path: /healthz }, interval: 50ms, fast_interval: 50ms, fall: 1 }";
    let (gateway, address) = start(&setup(1, &frps, "", &format!(", {health}{pool}"), "")).await;
    down(&gateway, NAMES[1]).await;
    down(&gateway, NAMES[2]).await;
    let shares = shares(address, NAMES, 300).await;
    (apps, gateway, shares)
}

#[tokio::test]
async fn in_a_panic_health_is_ignored() {
    let (_apps, gateway, shares) = two_of_three_unhealthy(", panic_threshold: 50%").await;
    alike(shares, [100; 3]);
    let panic = metric(&gateway, "pool_picks_total", &[r#"among="panic""#]).await;
    assert_eq!(panic.to_string(), "300");
}

#[tokio::test]
async fn above_the_panic_threshold_or_without_one_only_the_healthy_serve() {
    for pool in ["", ", panic_threshold: 33%"] {
        let (_apps, _gateway, shares) = two_of_three_unhealthy(pool).await;
        assert_eq!(shares, [300, 0, 0], "{pool}");
    }
}

#[tokio::test]
async fn a_newcomer_begins_with_little_and_grows_to_its_full_share() {
    const WINDOW: Duration = Duration::from_secs(3);
    const NAMES: [&str; 2] = ["old", "new"];
    let apps = [App::start(NAMES[0]).await, App::start(NAMES[1]).await];
    let frps: Vec<_> = apps.iter().map(|app| frps(app.name, app.address, "")).collect();
    let pool = |members: &str| format!(", frps: [{members}], slow_start: 3s");
    let (gateway, address) = start(&setup(1, &frps, "", &pool("old"), "")).await;
    assert_eq!(shares(address, NAMES, 100).await, [100, 0]);
    let begun = Instant::now();
    apply(&gateway, &setup(1, &frps, "", &pool("old, new"), "")).await;
    let [_, early] = shares(address, NAMES, 100).await;
    // Half the window is not over, so it has less than half its weight: under a third of all.
    if begun.elapsed() < WINDOW / 2 {
        assert!((1..=34).contains(&early), "{early} of 100 after {:?}", begun.elapsed());
    }
    eventually("it has its full share", async || shares(address, NAMES, 100).await == [50, 50]).await;
    assert!(begun.elapsed() >= WINDOW * 2 / 3, "only after {:?}", begun.elapsed());
}

#[tokio::test]
async fn who_comes_back_begins_with_little_as_well() {
    const NAMES: [&str; 2] = ["steady", "sick"];
    let well = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&well);
    let sick =
        App::answering(NAMES[1], move |request| {
            let fails = request.starts_with("GET /healthz") && !asked.load(SeqCst);
            async move {
                if fails { "HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n".into() } else { ok(NAMES[1]) }
            }
        })
        .await;
    let steady = App::start(NAMES[0]).await;
    let frps = [frps(NAMES[0], steady.address, ""), frps(NAMES[1], sick.address, "")];
    let health = "health: { http: { host: app.test, path: /healthz }, interval: 50ms, fast_interval: 50ms, fall: 1, rise: 1 }";
    let (gateway, address) = start(&setup(1, &frps, "", &format!(", slow_start: 20s, {health}"), "")).await;
    down(&gateway, NAMES[1]).await;
    assert_eq!(shares(address, NAMES, 100).await, [100, 0]);
    well.store(true, SeqCst);
    eventually("it is back", async || {
        metric(&gateway, "endpoint_up", &[r#"endpoint="sick""#]).await.to_string() == "1"
    })
    .await;
    let [_, share] = shares(address, NAMES, 100).await;
    assert!((1..=34).contains(&share), "{share} of 100 at the beginning of 20 s");
}

#[tokio::test]
async fn nobody_starts_slowly_when_the_gateway_does() {
    const NAMES: [&str; 2] = ["one", "two"];
    let apps = [App::start(NAMES[0]).await, App::start(NAMES[1]).await];
    let frps = [frps(NAMES[0], apps[0].address, ""), frps(NAMES[1], apps[1].address, ", weight: 3")];
    let (_gateway, address) = start(&setup(1, &frps, "", ", slow_start: 1h", "")).await;
    assert_eq!(shares(address, NAMES, 100).await, [25, 75]);
}
