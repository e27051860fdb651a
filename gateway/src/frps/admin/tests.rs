//! Against a fake admin API, in process.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    routing::get,
};
use serde_json::{Value, json};

use super::*;

/// `user:pass` in base64.
const GOOD: &str = "Basic dXNlcjpwYXNz";

async fn serve(router: Router) -> FrpsAdmin {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    crate::control::testing::frps_admin(&url)
}

async fn list(admin: &FrpsAdmin) -> Result<Listing, AdminError> {
    crate::frps::poller::list(&AdminClient::new(admin), Duration::from_secs(5)).await
}

fn v2_item(n: usize) -> Value {
    json!({"name": format!("p{n:04}"), "spec": {"type": "http", "http": {"customDomains": [format!("d{n}.test")]}},
           "status": {"phase": "online"}})
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    page: usize,
    page_size: usize,
}

#[tokio::test]
async fn every_page_of_v2_is_read() {
    let items: Arc<Vec<Value>> = Arc::new((0..450).map(v2_item).collect());
    let page = |State(items): State<Arc<Vec<Value>>>, Query(Page { page, page_size }): Query<Page>| async move {
        let items: Vec<_> = items.chunks(page_size).nth(page - 1).unwrap_or_default().to_vec();
        Json(json!({"code": 200, "data": {"total": 450, "page": page, "items": items}}))
    };
    let admin = serve(Router::new().route("/api/v2/proxies", get(page)).with_state(items)).await;
    let listing = list(&admin).await.unwrap();
    assert_eq!(listing.proxies.len(), 450);
    assert_eq!(listing.proxies[449].domains, ["d449.test"]);
}

#[tokio::test]
async fn an_frps_without_v2_is_asked_by_v1_and_subdomains_get_their_host() {
    let proxies = || async {
        Json(
            json!({"proxies": [{"name": "w", "conf": {"subdomain": "w", "locations": ["/x"]}, "status": "online"},
                                {"name": "o", "conf": null, "status": "offline"}]}),
        )
    };
    let info = || async { Json(json!({"version": "0.61.2", "subdomainHost": "lab.test"})) };
    let router = Router::new().route("/api/proxy/http", get(proxies)).route("/api/serverinfo", get(info));
    let listing = list(&serve(router).await).await.unwrap();
    assert_eq!(listing.proxies.len(), 1);
    assert_eq!((&*listing.proxies[0].domains[0], &*listing.proxies[0].locations[0]), ("w.lab.test", "/x"));
}

#[tokio::test]
async fn the_password_is_sent_and_a_wrong_one_is_called_by_its_name() {
    let check = |headers: HeaderMap| async move {
        let good = headers.get("authorization").is_some_and(|value| value == GOOD);
        if good {
            Ok(Json(json!({"data": {"total": 0, "items": null}})))
        } else {
            Err(StatusCode::UNAUTHORIZED)
        }
    };
    let admin = serve(Router::new().route("/api/v2/proxies", get(check))).await;
    assert_eq!(list(&admin).await.unwrap().proxies, []);
    let wrong = FrpsAdmin { password: frp_gateway_config::secret::Secret::new("hush"), ..admin };
    let error = list(&wrong).await.unwrap_err();
    assert!(matches!(error, AdminError::Unauthorized(401)), "{error}");
    assert!(!format!("{:?} {error}", AdminClient::new(&wrong)).contains("hush"), "never tells the password");
}

#[tokio::test]
async fn garbage_is_an_error_that_says_so() {
    let admin = serve(Router::new().route("/api/v2/proxies", get(|| async { "<html>" }))).await;
    assert!(matches!(list(&admin).await, Err(AdminError::Invalid(_))));
}

#[tokio::test]
async fn an_endless_answer_is_cut_at_the_cap() {
    let big = || async { vec![b' '; BODY_CAP + 1] };
    let admin = serve(Router::new().route("/api/v2/proxies", get(big))).await;
    assert!(matches!(list(&admin).await, Err(AdminError::TooLarge)));
}

#[tokio::test]
async fn a_server_that_never_answers_costs_no_more_than_the_deadline() {
    let admin = serve(Router::new().route("/api/v2/proxies", get(std::future::pending::<&str>))).await;
    let client = AdminClient::new(&admin);
    let result = crate::frps::poller::list(&client, Duration::from_millis(50)).await;
    assert!(matches!(result, Err(AdminError::Timeout(_))), "{result:?}");
}

#[tokio::test]
async fn a_refused_connection_names_its_cause() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = crate::control::testing::frps_admin(&format!("http://{}", listener.local_addr().unwrap()));
    drop(listener);
    let error = list(&admin).await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}
