use super::*;

struct Fake {
    host: &'static str,
    path: &'static str,
    query: Option<&'static str>,
    method: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    client: Option<ClientIdentity>,
    https: bool,
}

fn get(host: &'static str, path: &'static str) -> Fake {
    Fake { host, path, query: None, method: "GET", headers: Vec::new(), client: None, https: false }
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
    fn client(&self) -> Option<&ClientIdentity> {
        self.client.as_ref()
    }
    fn is_https(&self) -> bool {
        self.https
    }
}

fn route(name: &str, hosts: &[&str], path: model::PathMatch) -> model::Route {
    model::Route {
        redirect: None,
        hsts: None,
        client: None,
        name: name.into(),
        matches: model::RouteMatch {
            client: Vec::new(),
            hosts: hosts
                .iter()
                .map(|host| match host.strip_prefix("*.") {
                    Some(suffix) => model::HostMatch::Wildcard(suffix.into()),
                    None => model::HostMatch::Exact((*host).into()),
                })
                .collect(),
            path,
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
        },
        pools: Vec::new(),
        timeout: None,
        in_flight: None,
        listeners: Vec::new(),
    }
}

fn prefix(path: &str) -> model::PathMatch {
    model::PathMatch::Prefix(path.into())
}

fn exact(name: &str) -> model::ValueKind {
    model::ValueKind::Exact(name.into())
}

fn router(routes: Vec<model::Route>) -> Router {
    Router::new(routes.into_iter().map(|route| {
        let compiled = Route::compile(&route, Vec::new(), None).expect("test routes compile");
        (route.matches.hosts, Arc::new(compiled))
    }))
}

fn name(router: &Router, request: &Fake) -> Option<String> {
    match router.find(&Tunnels::default(), request)? {
        Found::Route(route) => Some(route.name.to_string()),
        Found::Tunnels(_) => None,
    }
}

#[test]
fn the_most_specific_host_wins_and_falls_through_when_its_routes_do_not_match() {
    let router = router(vec![
        route("any", &[], prefix("/")),
        route("wide", &["*.test"], prefix("/")),
        route("wild", &["*.shop.test"], prefix("/")),
        route("exact", &["a.shop.test"], prefix("/api")),
    ]);
    let find = |host, path| name(&router, &get(host, path)).expect("there is a route for any host");
    assert_eq!(find("a.shop.test", "/api"), "exact");
    assert_eq!(find("a.shop.test", "/"), "wild");
    assert_eq!(find("x.y.shop.test", "/"), "wild", "a wildcard spans labels");
    assert_eq!(find("shop.test", "/"), "wide", "a wildcard is never the bare name");
    assert_eq!(find("test", "/"), "any");
    assert_eq!(find("", "/"), "any");
}

#[test]
fn a_prefix_ends_at_a_segment_boundary() {
    let router = router(vec![route("api", &[], prefix("/api")), route("slash", &[], prefix("/dir/"))]);
    for path in ["/api", "/api/", "/api/x"] {
        assert_eq!(name(&router, &get("h", path)).as_deref(), Some("api"), "{path}");
    }
    for path in ["/apix", "/ap", "/", "/API"] {
        assert_eq!(name(&router, &get("h", path)), None, "{path}");
    }
    assert_eq!(name(&router, &get("h", "/dir")).as_deref(), Some("slash"));
}

#[test]
fn precedence_is_that_of_the_gateway_api() {
    let mut by_method = route("method", &[], prefix("/a"));
    by_method.matches.methods = vec!["POST".into(), "PUT".into()];
    let mut by_header = route("header", &[], prefix("/a"));
    by_header.matches.headers = vec![model::ValueMatch { name: "x-v".into(), value: exact("2") }];
    let mut by_query = route("query", &[], prefix("/a"));
    by_query.matches.query = vec![model::ValueMatch { name: "q".into(), value: model::ValueKind::Present }];
    let router = router(vec![
        route("short", &[], prefix("/")),
        by_query,
        route("plain", &[], prefix("/a")),
        by_header,
        by_method,
        route("second", &[], prefix("/a")),
        route("regex", &[], model::PathMatch::Regex("/a/[0-9]+".into())),
        route("long", &[], prefix("/a/b")),
        route("exact", &[], model::PathMatch::Exact("/a/7".into())),
    ]);
    let full = |method, path| Fake {
        host: "h",
        path,
        query: Some("z=1&q"),
        method,
        headers: vec![("x-v", "1"), ("x-v", "2")],
        client: None,
        https: false,
    };
    let find = |request: &Fake| name(&router, request).expect("`/` matches everything");
    assert_eq!(find(&full("POST", "/a/7")), "exact");
    assert_eq!(find(&full("POST", "/a/77")), "regex");
    assert_eq!(find(&full("POST", "/a/77x")), "method", "a regular expression is anchored at both ends");
    assert_eq!(find(&full("POST", "/a/b")), "long");
    assert_eq!(find(&full("GET", "/a")), "header", "any of several values may match");
    assert_eq!(find(&Fake { headers: Vec::new(), ..full("GET", "/a") }), "query");
    assert_eq!(find(&get("h", "/a")), "plain", "file order is the last tie-break");
    assert_eq!(find(&get("h", "/z")), "short");
}

#[test]
fn a_query_condition_looks_at_the_first_parameter_of_that_name() {
    let mut only = route("only", &[], prefix("/"));
    only.matches.query = vec![model::ValueMatch { name: "v".into(), value: exact("1") }];
    let router = router(vec![only]);
    let with = |query| name(&router, &Fake { query, ..get("h", "/") }).is_some();
    assert!(with(Some("a=2&v=1")) && with(Some("v=1&v=2")));
    assert!(!with(Some("v=2&v=1")) && !with(Some("v")) && !with(Some("")) && !with(None));
}

fn client(text: &str) -> Option<ClientIdentity> {
    Some(ClientIdentity::supposed(text).expect("an identity"))
}

#[test]
fn a_condition_on_the_certificate_comes_after_all_others_and_falls_through() {
    let mut robots = route("robots", &["h"], prefix("/"));
    robots.matches.client = vec![model::Identity::Uri(model::Pattern("spiffe://fleet/*".into()))];
    let router =
        router(vec![route("everybody", &["h"], prefix("/")), robots, route("api", &["h"], prefix("/api"))]);
    let find = |path, client| name(&router, &Fake { client, ..get("h", path) }).expect("a route");
    assert_eq!(find("/", None), "everybody");
    assert_eq!(find("/", client("spiffe://fleet/7")), "robots");
    assert_eq!(find("/", client("spiffe://other/7")), "everybody");
    assert_eq!(find("/api", client("spiffe://fleet/7")), "api", "a longer path goes first");
}

#[test]
fn a_route_tells_why_a_client_is_refused() {
    let compiled = |allow: Option<Vec<model::Identity>>| {
        let mut route = route("r", &[], prefix("/"));
        route.client = allow.map(|allow| model::ClientRule { allow });
        Route::compile(&route, Vec::new(), None).expect("it compiles")
    };
    let robots = vec![model::Identity::CommonName(model::Pattern("robot-*".into()))];
    assert_eq!(compiled(None).refuses(None), None);
    assert_eq!(compiled(Some(vec![])).refuses(None), Some("no certificate"));
    assert_eq!(compiled(Some(vec![])).refuses(client("cn:x").as_ref()), None);
    assert_eq!(compiled(Some(robots.clone())).refuses(client("cn:robot-7").as_ref()), None);
    let refused = compiled(Some(robots)).refuses(client("cn:x").as_ref());
    assert_eq!(refused, Some("not one of those let in"));
}

#[test]
fn a_redirect_is_only_for_visitors_who_come_without_tls() {
    let mut away = route("away", &["h"], prefix("/"));
    away.redirect = Some(model::Redirect::Https { port: None, status: 308 });
    let router = router(vec![away, route("site", &["h"], prefix("/"))]);
    assert_eq!(name(&router, &get("h", "/x")).as_deref(), Some("away"));
    let secure = Fake { https: true, ..get("h", "/x") };
    assert_eq!(name(&router, &secure).as_deref(), Some("site"), "or it would go in circles");
}

#[test]
fn hsts_says_what_the_route_says() {
    let line = |include_subdomains, preload| {
        let mut route = route("r", &[], prefix("/"));
        let max_age = Duration::from_secs(600);
        route.hsts = Some(model::Hsts { max_age, include_subdomains, preload });
        String::from_utf8(Route::compile(&route, Vec::new(), None).expect("it compiles").hsts.into())
            .expect("ascii")
    };
    assert_eq!(line(false, false), "Strict-Transport-Security: max-age=600\r\n");
    assert_eq!(line(true, true), "Strict-Transport-Security: max-age=600; includeSubDomains; preload\r\n");
}
