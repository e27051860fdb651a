use std::sync::Arc;

use ipnet::IpNet;
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{
    control::testing,
    http1::{HeadLimits, Method},
    snapshot::Router,
    telemetry::shard::Shards,
};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 65536, line_bytes: 8192, fields: 200 };
const PEER: &str = "192.0.2.7";

fn listener(trusted: &[&str]) -> Listener {
    let config = testing::listener("web");
    Listener {
        tls: None,
        passthrough: None,
        http2: None,
        pool: None,
        name: "web".into(),
        slot: 0,
        protocol: config.protocol,
        frp: None,
        router: Arc::new(Router::default()),
        proxy_protocol: Vec::new(),
        trusted_proxies: trusted.iter().map(|net| net.parse::<IpNet>().unwrap()).collect(),
        timeouts: config.timeouts,
        limits: config.limits,
        head_limits: LIMITS,
        gate: None,
        stats: Arc::new(Shards::new(1)),
    }
}

fn onward<'a>(listener: &'a Listener, rewrite: Option<&'a Rewrite>) -> Onward<'a> {
    Onward {
        listener,
        peer: PEER.parse().unwrap(),
        client: None,
        upgrade: false,
        hide_cookie: None,
        rewrite,
        direct: true,
        ask_first: false,
    }
}

fn homeward(rewrite: Option<&Rewrite>) -> Homeward<'_> {
    Homeward { version: Version::Http11, keep_alive: true, strip: false, set_cookie: b"", rewrite, hsts: b"" }
}

fn pairs(set: &[(&str, &str)]) -> Vec<(String, String)> {
    set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn asking(host: &str, set: &[(&str, &str)]) -> Rewrite {
    Rewrite { host: host.into(), request_headers: pairs(set), response_headers: Vec::new() }
}

fn answering(set: &[(&str, &str)]) -> Rewrite {
    Rewrite { response_headers: pairs(set), ..Rewrite::default() }
}

fn parse(wire: &[u8]) -> RequestHead {
    let mut head = RequestHead::default();
    let parsed = head.parse(wire, &LIMITS);
    assert_eq!(parsed.ok(), Some(true), "{:?}", String::from_utf8_lossy(wire));
    head
}

fn parse_answer(wire: &[u8]) -> ResponseHead {
    let mut head = ResponseHead::default();
    let parsed = head.parse(wire, &LIMITS, Method::Get);
    assert_eq!(parsed.ok(), Some(true), "{:?}", String::from_utf8_lossy(wire));
    head
}

/// Values of the fields of that name, as they stand in a head.
fn values(fields: &[Field], wire: &[u8], name: &str) -> Vec<String> {
    let named = fields.iter().filter(|field| field.name.of(wire).eq_ignore_ascii_case(name.as_bytes()));
    named.map(|field| String::from_utf8_lossy(field.value.of(wire)).into_owned()).collect()
}

/// The head that goes to the endpoint.
fn sent(wire: &str, onward: Onward<'_>) -> String {
    let mut out = b"what the buffer held before".to_vec();
    request(&mut out, &parse(wire.as_bytes()), wire.as_bytes(), onward);
    String::from_utf8(out).unwrap()
}

/// The head that goes to the visitor.
fn answered(wire: &str, homeward: Homeward<'_>) -> String {
    let mut out = b"what the buffer held before".to_vec();
    response(&mut out, &parse_answer(wire.as_bytes()), wire.as_bytes(), homeward);
    String::from_utf8(out).unwrap()
}

#[test]
fn nothing_to_rewrite_is_the_same_as_no_rewrite() {
    let listener = listener(&[]);
    let empty = Rewrite::default();
    let request = "GET /a?b HTTP/1.1\r\nHost: app.test\r\nX-A: 1\r\nx-a: 2\r\n\r\n";
    assert_eq!(
        sent(request, onward(&listener, None)),
        "GET /a?b HTTP/1.1\r\nHost: app.test\r\nX-A: 1\r\nx-a: 2\r\nX-Forwarded-For: 192.0.2.7\r\n\
         X-Forwarded-Proto: http\r\nX-Forwarded-Host: app.test\r\nVia: 1.1 frp-gateway\r\n\r\n"
    );
    assert_eq!(sent(request, onward(&listener, None)), sent(request, onward(&listener, Some(&empty))));
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: 1\r\n\r\n";
    assert_eq!(answered(answer, homeward(None)), answer);
    assert_eq!(answered(answer, homeward(Some(&empty))), answer);
}

#[test]
fn a_host_rewrite_changes_host_and_leaves_the_visitors_in_x_forwarded_host() {
    let listener = listener(&[]);
    let rewrite = asking("inner.test:81", &[]);
    for request in [
        "GET /a?b HTTP/1.1\r\nHost: app.test:80\r\nX-Forwarded-Host: forged\r\n\r\n",
        "GET http://app.test:80/a?b HTTP/1.1\r\nHost: app.test\r\n\r\n",
        "GET http://app.test:80/a?b HTTP/1.0\r\n\r\n",
    ] {
        let sent = sent(request, onward(&listener, Some(&rewrite)));
        let head = parse(sent.as_bytes());
        assert!(sent.starts_with("GET /a?b HTTP/1.1\r\nHost: inner.test:81\r\n"), "{sent}");
        assert_eq!(values(&head.fields, sent.as_bytes(), "host"), ["inner.test:81"], "{sent}");
        assert_eq!(values(&head.fields, sent.as_bytes(), "x-forwarded-host"), ["app.test:80"], "{sent}");
    }
}

#[test]
fn a_request_set_replaces_what_visitor_proxies_and_gateway_would_say() {
    let listener = listener(&["192.0.2.0/24"]);
    let names = [
        "X-Any",
        "x-forwarded-for",
        "X-FORWARDED-PROTO",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Real-IP",
        "Forwarded",
        "Via",
        "Accept-Encoding",
        "Cookie",
        "Authorization",
        "User-Agent",
    ];
    let set: Vec<_> = names.iter().map(|name| (*name, "of frpc")).collect();
    let rewrite = asking("", &set);
    let said: String = names.iter().map(|name| format!("{name}: one\r\n{name}: two\r\n")).collect();
    for fields in [said.as_str(), "", "Connection: x-any\r\nX-Any: hop\r\n"] {
        let request = format!("GET / HTTP/1.1\r\nHost: app.test\r\nX-Kept: 1\r\n{fields}\r\n");
        let onward = Onward { direct: false, hide_cookie: Some(b"gw"), ..onward(&listener, Some(&rewrite)) };
        let sent = sent(&request, onward);
        let head = parse(sent.as_bytes());
        for name in names {
            assert_eq!(values(&head.fields, sent.as_bytes(), name), ["of frpc"], "{name}: {sent}");
        }
        assert_eq!(values(&head.fields, sent.as_bytes(), "x-kept"), ["1"], "{sent}");
        assert_eq!(head.fields.len(), names.len() + 2, "{sent}");
    }
}

#[test]
fn a_name_set_in_two_cases_is_one_field() {
    let listener = listener(&[]);
    let set = [("X-A", "upper"), ("x-a", "lower")];
    let sent =
        sent("GET / HTTP/1.1\r\nHost: a\r\nX-a: 0\r\n\r\n", onward(&listener, Some(&asking("", &set))));
    assert_eq!(values(&parse(sent.as_bytes()).fields, sent.as_bytes(), "x-a"), ["lower"], "{sent}");
    let home = answered("HTTP/1.1 204 No\r\nX-a: 0\r\n\r\n", homeward(Some(&answering(&set))));
    assert_eq!(values(&parse_answer(home.as_bytes()).fields, home.as_bytes(), "x-a"), ["lower"], "{home}");
}

#[test]
fn a_response_set_replaces_what_the_application_says_and_not_our_session() {
    let rewrite = answering(&[("Server", "of frpc"), ("set-cookie", "b=2"), ("X-New", "of frpc")]);
    let wire =
        "HTTP/1.1 200 OK\r\nserver: app\r\nSet-Cookie: a=1\r\nSet-Cookie: c=3\r\nContent-Length: 3\r\n\r\n";
    let home = answered(wire, Homeward { set_cookie: b"Set-Cookie: gw=x\r\n", ..homeward(Some(&rewrite)) });
    let head = parse_answer(home.as_bytes());
    assert_eq!(values(&head.fields, home.as_bytes(), "server"), ["of frpc"], "{home}");
    assert_eq!(values(&head.fields, home.as_bytes(), "set-cookie"), ["b=2", "gw=x"], "{home}");
    assert_eq!(values(&head.fields, home.as_bytes(), "x-new"), ["of frpc"], "{home}");
    assert_eq!(head.body, ResponseBody::Length(3), "{home}");
}

#[test]
fn a_response_set_goes_with_101_and_with_no_other_interim_head() {
    let rewrite = answering(&[("X-New", "of frpc"), ("X-Old", "of frpc")]);
    let mut out = Vec::new();
    for (line, goes) in [("101 Switching", true), ("103 Early Hints", false), ("100 Continue", false)] {
        let wire =
            format!("HTTP/1.1 {line}\r\nConnection: upgrade\r\nUpgrade: websocket\r\nx-old: app\r\n\r\n");
        let head = parse_answer(wire.as_bytes());
        interim(&mut out, &head, wire.as_bytes(), b"Set-Cookie: gw=x\r\n", Some(&rewrite));
        let home = parse_answer(&out);
        let text = String::from_utf8_lossy(&out);
        let expected = if goes { ["of frpc"] } else { ["app"] };
        assert_eq!(values(&home.fields, &out, "x-old"), expected, "{text}");
        assert_eq!(values(&home.fields, &out, "x-new").len(), usize::from(goes), "{text}");
        assert_eq!(values(&home.fields, &out, "set-cookie").len(), usize::from(goes), "{text}");
        assert_eq!(home.upgrade, goes, "{text}");
    }
}

#[test]
fn neither_application_nor_tunnel_can_pass_for_the_gateway() {
    let rewrite = answering(&[("X-FRP-Gateway", "no_tunnel")]);
    let wire = "HTTP/1.1 404 Not Found\r\nX-Frp-Gateway: no_tunnel\r\nContent-Length: 0\r\n\r\n";
    let home = answered(wire, homeward(Some(&rewrite)));
    assert!(!home.to_ascii_lowercase().contains(OWN_ANSWER), "{home}");
    let mut out = Vec::new();
    for line in ["101 Switching", "103 Early Hints"] {
        let wire =
            format!("HTTP/1.1 {line}\r\nConnection: upgrade\r\nUpgrade: x\r\nx-frp-gateway: y\r\n\r\n");
        interim(&mut out, &parse_answer(wire.as_bytes()), wire.as_bytes(), b"", Some(&rewrite));
        let text = String::from_utf8_lossy(&out).to_ascii_lowercase();
        assert!(!text.contains(OWN_ANSWER), "{text}");
    }
}

/// Names that any head and any set may have: few, so that they meet, in any case.
#[test]
fn only_the_gateway_says_who_the_client_is_and_only_of_a_certificate_that_was_shown() {
    let wire = "GET / HTTP/1.1\r\nHost: a.test\r\nClient-Cert: :AAAA:\r\nclient_cert: :AAAA:\r\nClient-Cert-Chain: :AAAA:\r\n\
                X-Forwarded-Client-Identity: cn:admin\r\nX_Forwarded_Client_Identity: cn:admin\r\nX-Kept: 1\r\n\r\n";
    let set = asking("", &[("Client-Cert", "mine")]);
    for trusted in [&[][..], &["192.0.2.0/24"]] {
        let listener = listener(trusted);
        for rewrite in [None, Some(&set)] {
            let head = sent(wire, onward(&listener, rewrite)).to_ascii_lowercase();
            assert!(!head.contains("client") && head.contains("\r\nx-kept: 1\r\n"), "{head}");
        }
        let mut client = ClientIdentity::supposed("cn:robot").expect("an identity");
        client.fields = b"Client-Cert: :BBBB:\r\nX-Forwarded-Client-Identity: cn:robot\r\n".as_slice().into();
        for rewrite in [None, Some(&set)] {
            let head = sent(wire, Onward { client: Some(&client), ..onward(&listener, rewrite) });
            assert_eq!(head.matches("Client-Cert").count(), 1, "{head}");
            assert!(head.contains("\r\nClient-Cert: :BBBB:\r\n"), "{head}");
            assert!(head.contains("\r\nX-Forwarded-Client-Identity: cn:robot\r\n"), "{head}");
            assert!(!head.contains("admin") && !head.contains("AAAA") && !head.contains("mine"), "{head}");
        }
    }
}

#[test]
fn hsts_of_the_route_stands_instead_of_the_applications_and_without_it_that_one_stays() {
    let wire = "HTTP/1.1 200 OK\r\nstrict-transport-security: max-age=1\r\nContent-Length: 0\r\n\r\n";
    let set = answering(&[("Strict-Transport-Security", "max-age=2")]);
    let hsts = b"Strict-Transport-Security: max-age=600\r\n";
    for rewrite in [None, Some(&set)] {
        let head = answered(wire, Homeward { hsts, ..homeward(rewrite) }).to_ascii_lowercase();
        assert_eq!(head.matches("strict-transport-security: max-age=600\r\n").count(), 1, "{head}");
        assert_eq!(head.matches("strict-transport-security").count(), 1, "{head}");
    }
    assert!(answered(wire, homeward(None)).contains("max-age=1"));
    assert!(answered(wire, homeward(Some(&set))).contains("max-age=2"));
}

fn names() -> impl Strategy<Value = String> {
    let known = select(
        &[
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-real-ip",
            "forwarded",
            "via",
            "accept-encoding",
            "cookie",
            "authorization",
            "user-agent",
            "set-cookie",
            "server",
            "date",
            "content-type",
            "content-encoding",
            "cache-control",
            "x-request-id",
            "x-a",
            "x-b",
            "x-frp-gateway",
        ][..],
    );
    let token = "[a-zA-Z0-9!#$%&'*+.^_|~-]{1,20}";
    let name = prop_oneof![6 => known.prop_map(ToOwned::to_owned), 1 => token];
    (name, any::<u32>()).prop_filter_map("frames or belongs to one connection", |(name, upper)| {
        let in_case = |(at, letter): (usize, char)| match upper >> (at % 32) & 1 {
            0 => letter.to_ascii_lowercase(),
            _ => letter.to_ascii_uppercase(),
        };
        // What a set is left to frps for.
        let known = Known::of(name.as_bytes());
        let frames = known.is_hop()
            || matches!(known, Known::Host | Known::ContentLength | Known::Trailer | Known::Expect);
        (!frames).then(|| name.chars().enumerate().map(in_case).collect())
    })
}

fn field_values() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[ -~\t]{0,24}", 1 => "[ -~é☃]{0,12}", 1 => Just("gw=1; a=2".to_owned())]
}

fn sets() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((names(), field_values()), 0..6)
}

fn lines() -> impl Strategy<Value = String> {
    let line = (names(), field_values()).prop_map(|(name, value)| format!("{name}: {value}\r\n"));
    let lone = select(
        &[
            "Connection: x-a, close\r\n",
            "Connection: keep-alive\r\n",
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
            "Keep-Alive: 5\r\n",
            "TE: trailers\r\n",
            "Trailer: x-t\r\n",
            "Proxy-Authorization: Basic eA==\r\n",
            "HTTP2-Settings: x\r\n",
        ][..],
    );
    vec(prop_oneof![6 => line, 1 => lone.prop_map(ToOwned::to_owned)], 0..12).prop_map(|lines| lines.concat())
}

fn framings() -> impl Strategy<Value = &'static str> {
    select(&["", "Content-Length: 5\r\n", "content-length: 0\r\n", "Transfer-Encoding: chunked\r\n"][..])
}

/// What the set comes to: each name once, the last one counts.
fn effective(set: &[(String, String)]) -> Vec<(&str, &str)> {
    let is_last = |(index, (name, _)): &(usize, &(String, String))| {
        !set[index + 1..].iter().any(|(later, _)| later.eq_ignore_ascii_case(name))
    };
    set.iter()
        .enumerate()
        .filter(is_last)
        .map(|(_, (name, value))| (name.as_str(), value.trim_matches([' ', '\t'])))
        .collect()
}

fn framing_fields(fields: &[Field], wire: &[u8]) -> Vec<(String, String)> {
    let framing =
        fields.iter().filter(|field| matches!(field.known, Known::ContentLength | Known::TransferEncoding));
    let text = |span: crate::http1::Span| String::from_utf8_lossy(span.of(wire)).to_ascii_lowercase();
    framing.map(|field| (text(field.name), text(field.value))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn any_request_goes_out_with_each_set_field_once_and_its_framing_as_it_was(
        (target, host) in select(&[("/a?b=%20;c", "app.test:8080"), ("http://app.test/x", "app.test"), ("/", "[::1]:80")][..]),
        version in select(&["HTTP/1.1", "HTTP/1.0"][..]),
        expect in select(&["", "Expect: 100-continue\r\n"][..]),
        (before, framing, after) in (lines(), framings(), lines()),
        rewritten in select(&["", "inner.test", "10.0.0.1:81"][..]),
        set in sets(),
        (trusted, ask_first, direct, hide) in any::<(bool, bool, bool, bool)>(),
    ) {
        // The parser refuses chunks in 1.0.
        let framing = if version == "HTTP/1.0" { framing.strip_prefix("Transfer-Encoding: chunked\r\n").unwrap_or(framing) } else { framing };
        let wire = format!("POST {target} {version}\r\n{before}{framing}Host: {host}\r\n{expect}{after}\r\n");
        let wire = wire.as_bytes();
        let head = parse(wire);
        let listener = listener(if trusted { &["192.0.2.0/24"] } else { &[] });
        let rewrite = Rewrite { host: rewritten.into(), request_headers: set.clone(), response_headers: Vec::new() };
        let onward = Onward {
            upgrade: head.upgrade,
            hide_cookie: hide.then_some(&b"gw"[..]),
            direct,
            ask_first,
            ..onward(&listener, Some(&rewrite))
        };
        let mut out = Vec::new();
        request(&mut out, &head, wire, onward);
        let text = String::from_utf8_lossy(&out);
        let mut sent = RequestHead::default();
        prop_assert_eq!(sent.parse(&out, &LIMITS), Ok(true), "{}", text);
        prop_assert_eq!(sent.len, out.len(), "one head and nothing behind it: {}", text);
        for (name, value) in effective(&set) {
            prop_assert_eq!(values(&sent.fields, &out, name), [value], "{}: {}", name, text);
        }
        prop_assert_eq!(sent.body, head.body, "{}", text);
        prop_assert_eq!(framing_fields(&sent.fields, &out), framing_fields(&head.fields, wire), "{}", text);
        prop_assert_eq!(sent.form, TargetForm::Origin);
        prop_assert_eq!((sent.method_span.of(&out), sent.path.of(&out)), (head.method_span.of(wire), head.path.of(wire)));
        prop_assert_eq!(sent.query.map(|query| query.of(&out)), head.query.map(|query| query.of(wire)));
        let host = if rewritten.is_empty() { head.host.of(wire) } else { rewritten.as_bytes() };
        prop_assert_eq!(sent.host.of(&out), host, "{}", text);
        prop_assert_eq!(sent.upgrade, head.upgrade, "{}", text);
        prop_assert_eq!(sent.expect_continue, head.expect_continue || ask_first, "{}", text);
        prop_assert!(sent.keep_alive, "the endpoint's connection is ours: {}", text);
    }

    #[test]
    fn any_answer_comes_home_with_each_set_field_once_and_its_framing_as_it_was(
        status in select(&[200_u16, 204, 304, 404, 503][..]),
        (before, framing, after) in (lines(), framings(), lines()),
        set in sets(),
        (keep_alive, http10) in any::<(bool, bool)>(),
    ) {
        // The parser refuses a body in a 204.
        let framing = if status == 204 { "Content-Length: 0\r\n" } else { framing };
        let wire = format!("HTTP/1.1 {status} Text\r\n{before}{framing}{after}\r\n");
        let wire = wire.as_bytes();
        let head = parse_answer(wire);
        let rewrite = Rewrite { response_headers: set.clone(), ..Rewrite::default() };
        let strip = http10 && head.body == ResponseBody::Chunked;
        let version = if http10 { Version::Http10 } else { Version::Http11 };
        let homeward = Homeward { version, keep_alive, strip, ..homeward(Some(&rewrite)) };
        let mut out = Vec::new();
        response(&mut out, &head, wire, homeward);
        let text = String::from_utf8_lossy(&out);
        let mut home = ResponseHead::default();
        prop_assert_eq!(home.parse(&out, &LIMITS, Method::Get), Ok(true), "{}", text);
        prop_assert_eq!(home.len, out.len(), "one head and nothing behind it: {}", text);
        for (name, value) in effective(&set) {
            let expected: &[&str] = if name.eq_ignore_ascii_case(OWN_ANSWER) { &[] } else { &[value] };
            prop_assert_eq!(values(&home.fields, &out, name), expected, "{}: {}", name, text);
        }
        prop_assert_eq!(home.status, head.status);
        prop_assert_eq!(home.body, if strip { ResponseBody::UntilClose } else { head.body }, "{}", text);
        // Where there is no body there is nothing to frame, and 204 must not tell a length.
        let mut kept = framing_fields(&head.fields, wire);
        kept.retain(|(name, _)| match name.as_str() {
            "transfer-encoding" => head.body == ResponseBody::Chunked && !strip,
            _ => status != 204,
        });
        prop_assert_eq!(framing_fields(&home.fields, &out), kept, "{}", text);
        prop_assert_eq!(values(&home.fields, &out, "upgrade").len(), 0, "{}", text);
    }

    #[test]
    fn any_change_of_protocol_comes_home_with_each_set_field_once(
        (before, after, set) in (lines(), lines(), sets()),
    ) {
        let wire = format!("HTTP/1.1 101 Text\r\n{before}Connection: upgrade\r\nUpgrade: websocket\r\n{after}\r\n");
        let wire = wire.as_bytes();
        let head = parse_answer(wire);
        let rewrite = Rewrite { response_headers: set.clone(), ..Rewrite::default() };
        let mut out = Vec::new();
        interim(&mut out, &head, wire, b"", Some(&rewrite));
        let text = String::from_utf8_lossy(&out);
        let home = parse_answer(&out);
        for (name, value) in effective(&set) {
            let expected: &[&str] = if name.eq_ignore_ascii_case(OWN_ANSWER) { &[] } else { &[value] };
            prop_assert_eq!(values(&home.fields, &out, name), expected, "{}: {}", name, text);
        }
        prop_assert!(home.upgrade && home.len == out.len(), "{}", text);
    }
}
