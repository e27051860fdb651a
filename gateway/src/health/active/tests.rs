use axum::{Router, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use super::*;
use crate::snapshot::EndpointId;

fn endpoint(address: SocketAddr) -> Arc<Endpoint> {
    let id = EndpointId {
        frps: "a".into(),
        host: address.ip().to_string().into(),
        port: address.port(),
        tunnel: None,
        tls: None,
    };
    Arc::new(Endpoint::new(id, 1, 1))
}

fn health(check: HealthCheck) -> Health {
    let interval = Duration::from_millis(1);
    Health {
        check,
        interval,
        fast_interval: interval,
        jitter: 10,
        timeout: Duration::from_secs(5),
        rise: 1,
        fall: 1,
    }
}

fn http_check(path: &str) -> HealthCheck {
    HealthCheck::Http {
        host: "app.test".into(),
        path: path.into(),
        expect: vec![(200, 399), (404, 404)],
        body: None,
    }
}

async fn app() -> SocketAddr {
    let router = Router::new()
        .route(
            "/good",
            get(|headers: axum::http::HeaderMap| async move {
                if headers[HOST] == "app.test" { StatusCode::OK } else { StatusCode::MISDIRECTED_REQUEST }
            }),
        )
        .route("/bad", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .route("/page", get(|| async { "<html>all is well</html>" }))
        .route("/far", get(|| async { format!("{}needle", "x".repeat(BODY_LOOKED_AT - 6)) }))
        .route("/too-far", get(|| async { format!("{}needle", "x".repeat(BODY_LOOKED_AT - 5)) }))
        .route("/never-ends", get(never_ending))
        .route("/slow", get(std::future::pending::<()>));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Says "one tw" and "o three" at once, and then nothing for ever.
async fn never_ending() -> axum::body::Body {
    let pieces = futures_util::stream::iter(["one tw", "o three"].map(Ok::<_, std::io::Error>));
    axum::body::Body::from_stream(futures_util::StreamExt::chain(pieces, futures_util::stream::pending()))
}

fn body_check(path: &str, text: &str) -> HealthCheck {
    let mut check = http_check(path);
    if let HealthCheck::Http { body, .. } = &mut check {
        *body = Some(text.into());
    }
    check
}

#[tokio::test]
async fn the_body_decides_where_text_is_wanted() {
    let endpoint = endpoint(app().await);
    let probe = async |path: &str, text: &str| once(&endpoint, false, &health(body_check(path, text))).await;
    assert_eq!(probe("/page", "all is well").await, Ok(()));
    assert_eq!(probe("/page", "all is lost").await, Err(ProbeFailure::Body));
    assert_eq!(probe("/bad", "").await, Err(ProbeFailure::Status(500)), "the status comes first");
    assert_eq!(probe("/far", "needle").await, Ok(()), "its last byte is the last that is looked at");
    assert_eq!(probe("/too-far", "needle").await, Err(ProbeFailure::Body), "64 KiB and no more");
}

#[tokio::test]
async fn text_over_two_pieces_is_found_without_waiting_for_the_end() {
    let endpoint = endpoint(app().await);
    assert_eq!(once(&endpoint, false, &health(body_check("/never-ends", "two"))).await, Ok(()));
    let mut health = health(body_check("/never-ends", "four"));
    health.timeout = Duration::from_millis(50);
    let waited = once(&endpoint, false, &health).await;
    assert_eq!(waited, Err(ProbeFailure::Timeout(health.timeout)), "the deadline holds for the body, too");
}

#[test]
fn probes_come_faster_while_in_doubt_and_within_their_jitter() {
    let second = Duration::from_secs(1);
    let mut health = health(HealthCheck::Tcp);
    (health.interval, health.fast_interval, health.jitter) = (8 * second, 2 * second, 25);
    let mut rng = Rng::seeded(1);
    for (in_doubt, low, high) in [(false, 6.0, 10.0), (true, 1.5, 2.5)] {
        let (low, high) = (second.mul_f64(low), second.mul_f64(high));
        let waits: Vec<_> = (0..1000).map(|_| pause(&health, in_doubt, &mut rng)).collect();
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*least >= low && *most <= high, "{least:?} to {most:?}");
        assert!((*most - *least) > (high - low) * 9 / 10, "spread over it all: {least:?} to {most:?}");
    }
    health.jitter = 0;
    assert_eq!(pause(&health, false, &mut rng), 8 * second);
    health.fast_interval = 99 * second;
    assert_eq!(pause(&health, true, &mut rng), 8 * second, "doubt never makes it slower");
}

#[test]
fn only_successes_in_a_row_within_one_ejection_speak_for_its_end() {
    let (first, second) = (Some(Tick::from_nanos(10)), Some(Tick::from_nanos(20)));
    let mut comeback = Comeback::default();
    let mut observe = |success, until| comeback.observe(success, until, 2);
    assert!(!observe(true, None) && !observe(true, None), "nothing to come back from");
    assert!(!observe(true, first), "what was seen before doesn't count");
    assert!(!observe(false, first) && !observe(true, first));
    assert!(!observe(true, second), "another ejection begins at nothing");
    assert!(observe(true, second));
}

#[tokio::test]
async fn an_ejected_endpoint_is_asked_back_by_http_probes_but_not_by_connects() {
    let endpoint = endpoint(app().await);
    for (check, wanted) in [(http_check("/good"), true), (HealthCheck::Tcp, false)] {
        let (member, bell) = (Arc::new(MemberState::new(1, None)), Arc::new(Notify::new()));
        member.eject(Tick::MAX);
        let mut health = health(check);
        health.rise = 2;
        let probed = Probed {
            pool: "p".into(),
            h2c: false,
            endpoint: Arc::clone(&endpoint),
            member: Arc::clone(&member),
            bell: Arc::clone(&bell),
        };
        let probing = tokio::spawn(probe(probed, health, Rng::seeded(1)));
        if wanted {
            timeout(Duration::from_secs(10), bell.notified()).await.expect("the watch is woken");
        } else {
            // A bell that must not ring is waited for as long as some thirty probes take.
            timeout(Duration::from_millis(50), bell.notified()).await.expect_err("a connect proves nothing");
        }
        probing.abort();
        assert_eq!(member.take_asked_back(), wanted);
    }
}

#[tokio::test]
async fn the_status_decides() {
    let endpoint = endpoint(app().await);
    assert_eq!(once(&endpoint, false, &health(http_check("/good?x=1"))).await, Ok(()));
    assert_eq!(once(&endpoint, false, &health(http_check("/missing"))).await, Ok(()), "404 is expected here");
    assert_eq!(once(&endpoint, false, &health(http_check("/bad"))).await, Err(ProbeFailure::Status(500)));
}

#[tokio::test]
async fn a_silent_endpoint_fails_at_the_deadline() {
    let endpoint = endpoint(app().await);
    let mut health = health(http_check("/slow"));
    health.timeout = Duration::from_millis(20);
    assert_eq!(once(&endpoint, false, &health).await, Err(ProbeFailure::Timeout(health.timeout)));
}

#[tokio::test]
async fn what_is_not_http_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = endpoint(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream)
        }
    });
    let result = once(&endpoint, false, &health(http_check("/"))).await;
    assert!(matches!(result, Err(ProbeFailure::Broken(_))), "{result:?}");
    assert_eq!(once(&endpoint, false, &health(HealthCheck::Tcp)).await, Ok(()), "a connect is all TCP asks");
}

#[tokio::test]
async fn probes_take_an_endpoint_out_and_bring_it_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (endpoint, verdict) = (endpoint(address), Arc::new(MemberState::new(1, None)));
    let probed = Probed {
        pool: "p".into(),
        endpoint,
        h2c: false,
        member: Arc::clone(&verdict),
        bell: Arc::new(Notify::new()),
    };
    let probe = probe(probed, health(HealthCheck::Tcp), Rng::seeded(1));
    let probing = tokio::spawn(probe);
    drop(listener);
    until(|| !verdict.is_healthy()).await;
    let back = TcpListener::bind(address).await.unwrap();
    until(|| verdict.is_healthy()).await;
    probing.abort();
    drop(back);
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.expect("the verdict changes within 10 s");
}
