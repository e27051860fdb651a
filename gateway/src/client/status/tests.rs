use super::*;
use crate::golden;

fn member(endpoint: &str, state: &str, requests: u64) -> MemberStatus {
    MemberStatus {
        endpoint: endpoint.into(),
        zone: None,
        state: state.into(),
        verdicts: vec!["up".into()],
        priority: 0,
        weight: 1,
        effective_weight: 1.0,
        in_flight: 2,
        limit: None,
        connections: 3,
        latency_ms: None,
        ejected_for_ms: None,
        requests,
        failures: 0,
    }
}

fn pool(name: &str, members: Vec<MemberStatus>) -> PoolStatus {
    PoolStatus {
        pool: name.into(),
        balance: "least_request".into(),
        panic: false,
        waiting: 0,
        retries: 0,
        budget_exhausted: 0,
        hedges: 0,
        overflowed: 0,
        exhausted: 0,
        members,
    }
}

fn status(at_ms: u64, pools: Vec<PoolStatus>) -> Status {
    Status {
        at_ms,
        generation: 3,
        reload_refused: false,
        not_ready: None,
        listeners: Vec::new(),
        frps: Vec::new(),
        pools,
        certificates: CertificatesStatus::default(),
    }
}

/// What the first pool's members got between two readings of their counts, a second apart.
fn between(before: &[u64], after: &[u64]) -> Vec<(f64, Option<f64>)> {
    let reading = |at, counts: &[u64]| {
        let members = counts.iter().enumerate().map(|(n, count)| member(&format!("e{n}"), "up", *count));
        status(at, vec![pool("p", members.collect())])
    };
    let report = compare(&reading(1000, before), &reading(2000, after));
    report.pools[0].members.iter().map(|member| (member.requests_per_second, member.share)).collect()
}

#[test]
fn rates_and_shares_are_those_of_the_interval() {
    assert_eq!(between(&[10, 50], &[40, 60]), [(30.0, Some(75.0)), (10.0, Some(25.0))]);
    assert_eq!(between(&[10, 50], &[10, 50]), [(0.0, None), (0.0, None)], "nothing to have a share of");
    assert_eq!(between(&[], &[3]), [(3.0, Some(100.0))], "a member that is new begins at 0");
    assert_eq!(between(&[100], &[5]), [(5.0, Some(100.0))], "so does one that began anew");
}

#[test]
fn the_shares_of_a_pool_add_up_to_a_hundred() {
    for counts in
        [vec![1, 1, 1], vec![1; 7], vec![999, 1], vec![0, 1, 2, 3, 5, 8], vec![u64::MAX, u64::MAX, 1]]
    {
        let shares = shares(&counts);
        let tenths: f64 = shares.iter().flatten().map(|share| (share * 10.0).round()).sum();
        assert!((tenths - 1000.0).abs() < 0.1, "{counts:?} → {shares:?}");
    }
}

#[test]
fn a_gateway_that_restarted_in_between_is_read_from_its_beginning() {
    let reading = |at, count| status(at, vec![pool("p", vec![member("a", "up", count)])]);
    let report = compare(&reading(50_000, 400), &reading(500, 20));
    assert_eq!((report.interval_seconds, report.pools[0].requests_per_second), (0.5, 40.0), "{report:?}");
}

/// A fleet with one member per state.
fn fleet() -> Report {
    let mut members = vec![
        member("seoul-1", "up", 600),
        member("seoul-2", "slow_start", 200),
        member("seoul-3", "ejected", 100),
        member("tokyo-1", "down", 100),
        member("spare-1", "standby", 0),
        member("old-1", "drained", 0),
    ];
    for (at, zone) in ["seoul", "seoul", "seoul", "tokyo"].into_iter().enumerate() {
        members[at].zone = Some(zone.into());
        members[at].latency_ms = Some([3.25, 48.0, 1520.4, 51.7][at]);
    }
    members[0].limit = Some(40);
    (members[1].weight, members[1].effective_weight) = (4, 1.5);
    members[1].verdicts = vec!["slow start at 38 %".into()];
    (members[2].ejected_for_ms, members[2].failures) = (Some(12_000), 25);
    members[2].verdicts = vec!["ejected for 12.0 s".into()];
    members[3].verdicts = vec!["down for 0.9 s".into()];
    members[4].priority = 1;
    (members[5].weight, members[5].effective_weight) = (0, 0.0);
    members[5].verdicts = vec!["weight 0".into()];
    let mut after = status(3000, vec![pool("shop", members), pool("idle", vec![member("seoul-1", "up", 0)])]);
    (after.pools[0].waiting, after.pools[0].retries, after.pools[0].overflowed) = (4, 15, 6);
    after.reload_refused = true;
    after.not_ready = Some("waiting for the first listing of tokyo-1".into());
    after.listeners = vec![
        ListenerStatus { listener: "web".into(), address: Some("10.0.0.1:80".parse().unwrap()), open: 120 },
        ListenerStatus { listener: "old".into(), address: None, open: 1 },
    ];
    let frps = |name: &str, stale: bool, fault: Option<&str>| FrpsStatus {
        frps: name.into(),
        stale,
        fault: fault.map(ToOwned::to_owned),
        tunnels: 12,
    };
    after.frps = vec![frps("seoul-1", false, None), frps("tokyo-1", true, Some("connection refused"))];
    let mut before = after.clone();
    before.at_ms = 1000;
    for pool in &mut before.pools {
        (pool.retries, pool.overflowed) = (0, 0);
        pool.members.iter_mut().for_each(|member| (member.requests, member.failures) = (0, 0));
    }
    compare(&before, &after)
}

#[test]
fn the_text_of_a_fixed_fleet_is_the_golden_one() {
    golden::check("src/client/status/fleet.txt", &text(&fleet(), Colour::OFF));
}

#[test]
fn the_json_says_the_same_in_numbers() {
    let json = serde_json::to_value(fleet()).unwrap();
    let member = &json["pools"][0]["members"][0];
    assert_eq!((&member["endpoint"], &member["share"]), (&"seoul-1".into(), &60.0.into()));
    assert_eq!((&member["requests_per_second"], &member["requests"]), (&300.0.into(), &600.into()));
    assert_eq!(
        (&json["pools"][0]["pool"], &json["pools"][0]["retries_per_second"]),
        (&"shop".into(), &7.5.into())
    );
}

#[test]
fn certificates_that_expire_first_are_shown_and_what_is_refused_is_told() {
    use crate::tls::{more::MoreCertificates, testing::Extra};
    let mut view = Extra::default().shown().remove(0);
    view.fault = Some("/etc/gw/shop.pem: not PEM".into());
    let mut report = compare(&status(1000, Vec::new()), &status(2000, Vec::new()));
    assert!(!text(&report, Colour::OFF).contains("certificates"), "there are none");
    report.certificates = CertificatesStatus { total: 3, first: vec![view] };
    let said = text(&report, Colour::OFF);
    for part in [
        "certificates: 3",
        "shop.test +1",
        "CN=Test Root",
        "2024-02-12",
        "  12",
        "acme",
        "and 2 that expire later",
        "newer content is refused: /etc/gw/shop.pem: not PEM",
    ] {
        assert!(said.contains(part), "{part:?} in\n{said}");
    }
}
