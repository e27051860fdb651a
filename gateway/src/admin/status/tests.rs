use std::time::Duration;

use lb_algos::Tick;

use super::*;
use crate::{
    admin::testing::Admin,
    control::testing::yaml,
    data::explain::testing::{World, second},
    snapshot::Outcome,
    telemetry::shard::WorkerId,
};

const SECOND: Duration = Duration::from_secs(1);

fn states(world: &World) -> Vec<String> {
    of_pool(world.pool(), world.now).members.into_iter().map(|member| member.state).collect()
}

#[tokio::test]
async fn it_tells_listeners_pools_and_members() {
    let admin = Admin::start(&yaml("")).await;
    let snapshot = admin.rig.published.load_full();
    let _guard = snapshot.pools[0].members[0].endpoint.begin();
    let status: Status = serde_json::from_value(admin.json("/api/v1/status").await).unwrap();
    assert_eq!((status.generation, status.reload_refused, &status.not_ready), (1, false, &None));
    assert_eq!(status.listeners[0].listener, "web");
    assert!(status.listeners[0].address.is_some_and(|address| address.port() != 0));
    let pool = &status.pools[0];
    assert_eq!((pool.pool.as_str(), pool.balance.as_str(), pool.waiting), ("shop", "round_robin", 0));
    let member = &pool.members[0];
    assert_eq!((member.endpoint.as_str(), member.state.as_str(), member.in_flight), ("a", "up", 1));
}

#[test]
fn the_state_is_one_word_the_worst_one() {
    let world = World::new(|config| {
        config.pools[0].limits.in_flight = Some(1);
        config.pools[0].slow_start = Some(100 * SECOND);
        config.pools[0].frps[1].weight = 0;
    });
    let (a, b) = (world.member("a"), world.member("b"));
    assert_eq!(states(&world), ["up", "drained"]);
    a.state.rejoin(second(50));
    assert_eq!(states(&world), ["slow_start", "drained"]);
    let weights: Vec<_> =
        of_pool(world.pool(), world.now).members.iter().map(|member| member.effective_weight).collect();
    assert_eq!(weights, [0.5, 0.0]);
    let _guards = [a.endpoint.begin(), b.endpoint.begin()];
    assert_eq!(states(&world), ["full", "full"]);
    a.state.eject(second(130));
    b.state.set_healthy(false, Tick::ZERO);
    assert_eq!(states(&world), ["ejected", "unhealthy"]);
    let left = of_pool(world.pool(), world.now).members[0].ejected_for_ms;
    assert_eq!(left, Some(30_000));
    b.endpoint.connect_failed(second(99), 5 * SECOND);
    assert_eq!(states(&world), ["ejected", "down"]);
}

#[test]
fn attempts_and_failures_of_all_workers_are_counted() {
    let world = World::new(|_| {});
    let state = &world.member("a").state;
    for (worker, outcome) in [(0, Outcome::Success), (1, Outcome::Success), (1, Outcome::GatewayError)] {
        state.record(WorkerId(worker), outcome, SECOND, world.now, SECOND);
    }
    let member = &of_pool(world.pool(), world.now).members[0];
    assert_eq!((member.requests, member.failures), (3, 1));
}
