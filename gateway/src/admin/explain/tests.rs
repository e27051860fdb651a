use serde_json::{Value, json};

use crate::{admin::testing::Admin, control::testing::yaml};

fn two_listeners() -> String {
    yaml("")
        .replace("listeners:\n", "listeners:\n  - { name: other, bind: \"127.0.0.1:0\", protocol: http }\n")
}

async fn explain(admin: &Admin, ask: Value) -> (u16, Value) {
    admin.post("/api/v1/explain", &ask).await
}

#[tokio::test]
async fn an_answer_names_route_pool_and_endpoint() {
    let admin = Admin::start(&yaml("")).await;
    let (status, told) = explain(&admin, json!({"url": "http://Shop.TEST./cart?q=hush"})).await;
    assert_eq!(status, 200, "{told}");
    assert_eq!(
        (&told["route"], &told["pool"], &told["ending"]["endpoint"], &told["ending"]["reason"]),
        (&json!("shop"), &json!("shop"), &json!("a"), &json!("turn"))
    );
    assert_eq!(told["url"], "http://Shop.TEST./cart?…", "a query is not repeated");
    assert_eq!(
        (&told["method"], &told["from"], &told["listener"]),
        (&json!("GET"), &json!("127.0.0.1"), &json!("web"))
    );
    assert_eq!(told["pools"][0]["candidates"][0]["address"], "127.0.0.1:8001");
}

#[tokio::test]
async fn method_headers_and_host_are_those_given() {
    let more = "  - { name: api, match: { host: shop.test, method: [POST], headers: { x-v: { present: true } } }, pool: shop }\n";
    let text = yaml("").replace("listeners:\n", &format!("{more}listeners:\n"));
    let admin = Admin::start(&text).await;
    let (_, told) = explain(&admin, json!({"url": "shop.test", "method": "POST"})).await;
    assert_eq!(told["route"], "shop", "{told}");
    let why =
        |told: &Value| told["routes"].as_array().unwrap().iter().find(|one| one["route"] == "api").cloned();
    assert_eq!(why(&told).unwrap()["why"], "header x-v is absent");
    let headers = json!([["X-V", "1"], ["Host", "shop.test"]]);
    let (_, told) =
        explain(&admin, json!({"url": "http://10.0.0.1/", "method": "POST", "headers": headers})).await;
    assert_eq!(told["route"], "api", "Host is the one given: {told}");
}

#[tokio::test]
async fn the_listener_is_the_one_named_or_the_one_on_that_port() {
    let admin = Admin::start(&two_listeners()).await;
    let port = |name: &str| admin.rig.handle.state().addresses[name].port();
    for name in ["web", "other"] {
        let url = format!("http://shop.test:{}/", port(name));
        assert_eq!(explain(&admin, json!({ "url": url })).await.1["listener"], name);
        let named = explain(&admin, json!({"url": "http://shop.test/", "listener": name})).await.1;
        assert_eq!(named["listener"], name);
    }
    for (ask, error) in [
        (json!({"url": "http://shop.test/"}), "no listener is on port 80"),
        (json!({"url": "http://shop.test/", "listener": "wep"}), "no http listener is called \"wep\""),
    ] {
        let (status, told) = explain(&admin, ask).await;
        assert!(status == 400 && told["error"].as_str().unwrap().starts_with(error), "{told}");
        let choices = json!([
            format!("other (127.0.0.1:{})", port("other")),
            format!("web (127.0.0.1:{})", port("web"))
        ]);
        assert_eq!(told["choices"], choices);
    }
}

#[tokio::test]
async fn a_question_that_makes_no_sense_gets_400_and_says_what_is_wrong_without_values() {
    let admin = Admin::start(&yaml("")).await;
    for (ask, part) in [
        (json!({"url": "ftp://x/"}), "http or https"),
        (json!({"url": "http://"}), "url: "),
        (json!({"url": "http://user:hush@x/"}), "no user and password"),
        (json!({"url": "x", "method": "G T"}), "method"),
        (json!({"url": "x", "headers": [["a b", "hush"]]}), "\"a b\" is not a header"),
        (json!({"url": "x", "headers": [["a", "hush\r\nHost: y"]]}), "\"a\" is not a header"),
        (json!({"url": "x", "from": "nowhere"}), "from"),
        (json!({"uri": "x"}), "uri"),
        (json!({}), "url"),
    ] {
        let (status, told) = explain(&admin, ask.clone()).await;
        let error = told["error"].as_str().unwrap_or_default();
        assert!(status == 400 && error.contains(part) && !error.contains("hush"), "{ask}: {status} {told}");
    }
}

#[tokio::test]
async fn what_no_route_serves_is_an_answer_too() {
    let admin = Admin::start(&yaml("")).await;
    let (status, told) = explain(&admin, json!({"url": "http://nobody.test/"})).await;
    let ending = json!({"result": "refused", "status": 404, "class": "no_route", "why": "No route leads to this host and path."});
    assert_eq!((status, &told["ending"], &told["route"]), (200, &ending, &Value::Null));
    assert_eq!(told["routes"][0]["why"], "host: only shop.test");
}

#[tokio::test]
async fn explaining_and_status_want_the_token() {
    let text = yaml("")
        .replace("listen: \"127.0.0.1:0\"", "listen: \"127.0.0.1:0\", token: \"correct-horse-battery\"");
    let admin = Admin::start(&text).await;
    assert_eq!(explain(&admin, json!({"url": "http://shop.test/"})).await.0, 401);
    assert_eq!(admin.get("/api/v1/status").await.0, 401);
    let (status, body) = admin.ask("GET", "/api/v1/status", Some("correct-horse-battery")).await;
    assert!(status == 200 && !body.contains("correct-horse"), "{status} {body}");
}

#[tokio::test]
async fn a_client_of_frp_is_not_routed_and_the_answer_says_so() {
    let more = "  - { name: ctl, bind: \"127.0.0.1:0\", protocol: frp, place: least_clients }\n";
    let text = yaml("").replace("vhost_http_port: 8001 }", "vhost_http_port: 8001, control_port: 7000 }");
    let admin = Admin::start(&format!("{text}{more}")).await;
    for url in ["", "http://shop.test/"] {
        let (status, told) = explain(&admin, json!({"url": url, "listener": "ctl"})).await;
        assert!(status == 400 && told["error"].as_str().unwrap().contains("placed there"), "{told}");
    }
}
