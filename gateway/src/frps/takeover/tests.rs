use frp_gateway_config::secret::Secret;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn seals() -> Seals {
    Seals::new(&Secret::new("k"), None)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other}"),
    }
}

/// As frp 0.71 sends it.
fn content() -> Map<String, Value> {
    object(json!({
        "user": { "user": "alice", "metas": { "zone": "seoul" }, "run_id": "ed64f6a78d9baafb" },
        "proxy_name": "alice.web", "proxy_type": "http", "use_encryption": true,
        "metas": { "gw_weight": "5" }, "annotations": { "note": "hello", "Frp-Gateway/claim": "forged" },
        "group": "g", "group_key": "secret", "custom_domains": ["App.test", "app2.test"],
        "locations": ["/", "/api"], "headers": { "x-from-frpc": "yes" }, "response_headers": { "x-resp": "r" },
        "http_user": "carol", "http_pwd": "s3cret", "host_header_rewrite": "inner.test:8080",
        "route_by_http_user": "dave", "something_new": [1, { "deep": true }]
    }))
}

fn take(content: &mut Map<String, Value>, subdomain_host: Option<&str>) -> Result<HttpClaim, Not> {
    let asked = Asked::read(content).unwrap();
    strip_annotations(content);
    take_over(content, &asked, ("a", "29c3"), subdomain_host, &seals())
}

#[test]
fn an_http_proxy_becomes_a_private_tcp_proxy_that_carries_what_it_was() {
    let mut changed = content();
    let claim = take(&mut changed, Some("")).unwrap();
    let sealed = changed["annotations"][ANNOTATION].as_str().unwrap().to_owned();
    assert_eq!(seals().open("a", "alice.web", &sealed), Some(claim.clone()));
    changed["annotations"][ANNOTATION] = "sealed".into();
    assert_eq!(
        Value::Object(changed),
        json!({
            "user": { "user": "alice", "metas": { "zone": "seoul" }, "run_id": "ed64f6a78d9baafb" },
            "proxy_name": "alice.web", "proxy_type": "tcp", "use_encryption": true,
            "metas": { "gw_weight": "5" }, "annotations": { "note": "hello", ANNOTATION: "sealed" },
            "something_new": [1, { "deep": true }]
        }),
        "nothing of http is left, and nothing else is lost"
    );
    assert_eq!(claim.domains, ["app.test", "app2.test"]);
    assert_eq!(claim.locations, ["/", "/api"]);
    assert_eq!((&*claim.user, &*claim.group, &*claim.route_by_http_user), ("alice", "g", "dave"));
    assert_eq!(claim.rewrite.host, "inner.test:8080");
    assert_eq!(claim.rewrite.request_headers, [("x-from-frpc".to_owned(), "yes".to_owned())]);
    assert!(claim.auth.unwrap().matches(b"carol:s3cret"));
    for secret in ["secret", "s3cret"] {
        assert!(!claim.group_key.contains(secret) && !sealed.contains(secret));
    }
}

#[test]
fn domains_are_checked_as_frps_checks_them() {
    let with = |custom: &[&str], subdomain: &str, host: Option<&str>| {
        let content = json!({ "proxy_name": "w", "proxy_type": "http", "custom_domains": custom, "subdomain": subdomain });
        take(&mut object(content), host).map(|claim| claim.domains)
    };
    assert_eq!(with(&["a.test"], "Sub", Some("frp.test")).unwrap(), ["a.test", "sub.frp.test"]);
    assert_eq!(with(&["frp.test"], "", Some("frp.test")).unwrap(), ["frp.test"], "the bare name is free");
    assert_eq!(with(&[], "sub", Some("FRP.Test")).unwrap(), ["sub.frp.test"], "routes are lower case");
    let refused = |custom: &[&str], subdomain: &str, host| match with(custom, subdomain, host) {
        Err(Not::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(&["x.frp.test"], "", Some("frp.test")),
        "custom domain [x.frp.test] should not belong to subdomain host [frp.test]"
    );
    assert_eq!(
        refused(&[], "x", Some("")),
        "subdomain is not supported because this feature is not enabled in server"
    );
    assert_eq!(refused(&[], "x.y", Some("frp.test")), "'.' and '*' are not supported in subdomain");
    assert!(matches!(with(&[], "x", None), Err(Not::Left(_))), "frps knows better as long as we don't know");
    assert!(matches!(with(&[], "", Some("")), Err(Not::Left(_))));
}

#[test]
fn what_could_not_be_done_exactly_is_left_to_frps() {
    let left = |key: &str, value: Value| {
        let mut content = content();
        content.insert(key.into(), value);
        let before = content.clone();
        let result = take(&mut content, Some(""));
        strip_annotations(&mut content.clone());
        assert!(matches!(result, Err(Not::Left(_))), "{key}: {result:?}");
        assert_eq!(content["proxy_type"], before["proxy_type"], "{key}: nothing half done");
        assert_eq!(content["custom_domains"], before["custom_domains"]);
    };
    left("headers", json!({ "Transfer-Encoding": "chunked" }));
    left("headers", json!({ "x": "a\r\nb: c" }));
    left("headers", json!({ "x": "a\0b" }));
    for name in
        ["Connection", "Content-Length", "HOST", "Upgrade", "te", "Trailer", "Keep-Alive", "Proxy-Anything"]
    {
        left("headers", json!({ name: "x" }));
        left("response_headers", json!({ name: "x" }));
    }
    left("response_headers", json!({ "a b": "c" }));
    left("response_headers", json!({ "": "c" }));
    left("host_header_rewrite", json!("a b"));
    left("metas", json!({ "gw_protocol": "h3" }));
}

proptest! {
    #[test]
    fn whatever_else_is_in_the_content_stays(key in "[a-z_]{1,12}", value in ".{0,20}", deep in any::<bool>()) {
        prop_assume!(!DROPPED.contains(&&*key) && !["proxy_type", "annotations", "proxy_name", "user", "metas"].contains(&&*key));
        let value = if deep { json!({ "x": [value] }) } else { json!(value) };
        let mut content = content();
        content.insert(key.clone(), value.clone());
        take(&mut content, Some("")).unwrap();
        prop_assert_eq!(content.get(&key), Some(&value));
    }
}
