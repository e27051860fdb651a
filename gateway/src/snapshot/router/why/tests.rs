use frp_gateway_config::model::{self, HostMatch, PathMatch, ValueKind, ValueMatch};

use super::*;
use crate::snapshot::{Found, Tunnels};

struct Fake {
    host: &'static str,
    path: &'static str,
    query: Option<&'static str>,
    method: &'static str,
    headers: Vec<(&'static str, &'static str)>,
}

impl Request for Fake {
    fn host(&self) -> &str {
        self.host
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn query(&self) -> Option<&[u8]> {
        self.query.map(str::as_bytes)
    }
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn any_header(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.headers.iter().any(|(n, v)| n.as_bytes() == name && test(v.as_bytes()))
    }
    fn is_basic_user(&self, user: &str) -> bool {
        self.headers.contains(&("authorization", user))
    }
    fn client(&self) -> Option<&crate::tls::ClientIdentity> {
        None
    }
    fn is_https(&self) -> bool {
        false
    }
}

fn get(host: &'static str, path: &'static str) -> Fake {
    Fake { host, path, query: None, method: "GET", headers: Vec::new() }
}

fn value(name: &str, value: ValueKind) -> ValueMatch {
    ValueMatch { name: name.into(), value }
}

fn router(routes: Vec<(&str, Vec<HostMatch>, model::RouteMatch)>) -> Router {
    Router::new(routes.into_iter().map(|(name, hosts, matches)| {
        let route = model::Route {
            redirect: None,
            hsts: None,
            client: None,
            name: name.into(),
            matches,
            pools: Vec::new(),
            timeout: None,
            in_flight: None,
            listeners: Vec::new(),
        };
        (hosts, Arc::new(Route::compile(&route, Vec::new(), None).expect("no bad regex")))
    }))
}

fn matches(path: PathMatch, change: impl FnOnce(&mut model::RouteMatch)) -> model::RouteMatch {
    let mut matches = model::RouteMatch {
        client: Vec::new(),
        hosts: Vec::new(),
        path,
        methods: Vec::new(),
        headers: Vec::new(),
        query: Vec::new(),
    };
    change(&mut matches);
    matches
}

/// One route per way to miss.
fn example() -> Router {
    let shop = || vec![HostMatch::Exact("shop.test".into())];
    let prefix = |path: &str| PathMatch::Prefix(path.into());
    router(vec![
        ("everything", Vec::new(), matches(prefix("/"), |_| {})),
        ("wild", vec![HostMatch::Wildcard("test".into())], matches(prefix("/"), |_| {})),
        ("shop", shop(), matches(prefix("/"), |_| {})),
        ("api", shop(), matches(prefix("/api"), |_| {})),
        ("post", shop(), matches(prefix("/api"), |m| m.methods = vec!["POST".into(), "PUT".into()])),
        (
            "canary",
            shop(),
            matches(prefix("/api"), |m| {
                m.headers = vec![value("x-canary", ValueKind::Exact("hush-hush".into()))];
            }),
        ),
        ("beta", shop(), matches(prefix("/api"), |m| m.query = vec![value("beta", ValueKind::Present)])),
        ("v2", shop(), matches(PathMatch::Regex("/v[2-9]/.*".into()), |_| {})),
        (
            "other",
            vec![HostMatch::Exact("other.test".into()), HostMatch::Wildcard("x.test".into())],
            matches(prefix("/"), |_| {}),
        ),
    ])
}

fn judged(router: &Router, request: &Fake) -> Vec<(String, String)> {
    let judged = router.judge(request);
    judged.into_iter().map(|one| (one.route.name.to_string(), one.verdict.to_string())).collect()
}

#[test]
fn every_route_is_listed_in_order_of_precedence_with_the_first_condition_that_failed() {
    let mut request = get("shop.test", "/api/cart");
    request.headers = vec![("x-canary", "no")];
    let expected = [
        ("v2", "path: only ~ /v[2-9]/.*"),
        ("post", "method: only POST, PUT"),
        ("canary", "header x-canary has another value"),
        ("beta", "query beta is absent"),
        ("api", "matched"),
        ("shop", "less specific than api"),
        ("wild", "less specific than api"),
        ("everything", "less specific than api"),
        ("other", "host: only *.x.test, other.test"),
    ]
    .map(|(name, why)| (name.to_owned(), why.to_owned()));
    assert_eq!(judged(&example(), &request), expected);
}

#[test]
fn no_value_of_a_header_or_parameter_is_shown() {
    let mut request = get("shop.test", "/api");
    request.headers = vec![("x-canary", "visitors-secret")];
    let shown = format!("{:?}", judged(&example(), &request));
    assert!(!shown.contains("hush-hush") && !shown.contains("visitors-secret"), "{shown}");
}

#[test]
fn what_matched_is_what_a_request_finds() {
    let router = example();
    for host in ["shop.test", "other.test", "a.x.test", "a.b.test", "nobody.example"] {
        for path in ["/", "/api", "/apix", "/api/x", "/v3/x"] {
            for method in ["GET", "POST"] {
                for query in [None, Some("beta=1"), Some("a=2")] {
                    for headers in [vec![], vec![("x-canary", "hush-hush")]] {
                        let request = Fake { host, path, query, method, headers };
                        let tunnels = Tunnels::default();
                        let found = router.find(&tunnels, &request).and_then(|found| match found {
                            Found::Route(route) => Some(route.name.to_string()),
                            Found::Tunnels(_) => None,
                        });
                        let matched: Vec<_> = router
                            .judge(&request)
                            .into_iter()
                            .filter(|one| one.verdict == Verdict::Matched)
                            .map(|one| one.route.name.to_string())
                            .collect();
                        let what = format!("{method} {host}{path} {query:?}");
                        assert_eq!(matched, found.into_iter().collect::<Vec<_>>(), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn conditions_are_told_in_words() {
    let told: Vec<_> = example()
        .judge(&get("shop.test", "/"))
        .into_iter()
        .map(|one| (one.route.name.to_string(), one.route.conditions()))
        .filter(|(_, conditions)| !conditions.is_empty())
        .collect();
    let expected = [
        ("v2", "path ~ /v[2-9]/.*"),
        ("post", "path /api/…, method POST or PUT"),
        ("canary", "path /api/…, header x-canary"),
        ("beta", "path /api/…, query beta present"),
        ("api", "path /api/…"),
    ]
    .map(|(name, conditions)| (name.to_owned(), conditions.to_owned()));
    assert_eq!(told, expected);
}
