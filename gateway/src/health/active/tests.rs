use axum::{Router, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use super::*;
use crate::snapshot::EndpointId;

fn endpoint(address: SocketAddr) -> Arc<Endpoint> {
    let id = EndpointId { frps: "a".into(), host: address.ip().to_string().into(), port: address.port() };
    Arc::new(Endpoint::new(id, 1, 1))
}

fn health(check: HealthCheck) -> Health {
    let interval = Duration::from_millis(1);
    Health { check, interval, timeout: Duration::from_secs(5), rise: 1, fall: 1 }
}

fn http_check(path: &str) -> HealthCheck {
    HealthCheck::Http { host: "app.test".into(), path: path.into(), expect: vec![(200, 399), (404, 404)] }
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
        .route("/slow", get(std::future::pending::<()>));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn the_status_decides() {
    let endpoint = endpoint(app().await);
    assert_eq!(once(&endpoint, &health(http_check("/good?x=1"))).await, Ok(()));
    assert_eq!(once(&endpoint, &health(http_check("/missing"))).await, Ok(()), "404 is expected here");
    assert_eq!(once(&endpoint, &health(http_check("/bad"))).await, Err(ProbeFailure::Status(500)));
}

#[tokio::test]
async fn a_silent_endpoint_fails_at_the_deadline() {
    let endpoint = endpoint(app().await);
    let mut health = health(http_check("/slow"));
    health.timeout = Duration::from_millis(20);
    assert_eq!(once(&endpoint, &health).await, Err(ProbeFailure::Timeout(health.timeout)));
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
    let result = once(&endpoint, &health(http_check("/"))).await;
    assert!(matches!(result, Err(ProbeFailure::Broken(_))), "{result:?}");
    assert_eq!(once(&endpoint, &health(HealthCheck::Tcp)).await, Ok(()), "a connect is all TCP asks");
}

#[tokio::test]
async fn probes_take_an_endpoint_out_and_bring_it_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (endpoint, verdict) = (endpoint(address), Arc::new(Verdict::default()));
    let probe = probe("p".into(), endpoint, Arc::clone(&verdict), health(HealthCheck::Tcp), Rng::seeded(1));
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
