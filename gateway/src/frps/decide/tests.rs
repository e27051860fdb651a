//! The bodies are those that frps 0.71 sends.

use std::time::{Duration, Instant, SystemTime};

use frp_gateway_config::{
    model::{ClaimRule, DomainPattern, FrpsPlugin, Pattern, Plugin, TakeoverRule},
    secret::Secret,
};

use super::*;
use crate::control::testing::config_with;

const LOGIN: &str = r#"{"version":"0.1.0","op":"Login","content":{"version":"0.71.0","hostname":"vm","os":"linux","arch":"amd64","user":"alice","privilege_key":"6cbd","timestamp":1795399924,"client_id":"edge-1","metas":{"zone":"seoul"},"client_spec":{},"pool_count":1,"client_address":"127.0.0.1:48362"}}"#;
const NEW_PROXY: &str = r#"{"version":"0.1.0","op":"NewProxy","content":{"user":{"user":"alice","metas":{"zone":"seoul"},"run_id":"ed64f6a78d9baafb"},"proxy_name":"alice.web","proxy_type":"http","metas":{"weight":"5"},"annotations":{"note":"hello"},"custom_domains":["app.test","app2.test"],"locations":["/","/api"],"headers":{"x-from-frpc":"yes"},"response_headers":{"x-resp":"r"}}}"#;
const CLOSE_PROXY: &str = r#"{"version":"0.1.0","op":"CloseProxy","content":{"user":{"user":"","metas":null,"run_id":"f4c6"},"proxy_name":"life"}}"#;

fn rules(change: impl FnOnce(&mut Config)) -> Rules {
    let config = config_with(|config| {
        config.plugin = Some(Plugin {
            listen: "127.0.0.1:0".parse().unwrap(),
            key: Secret::new("k"),
            old_key: None,
            allow: Vec::new(),
            agent_token: Some(Secret::new("agent-token")),
        });
        config.frps[0].plugin = Some(FrpsPlugin { secret: Secret::new("secret-of-a") });
        change(config);
    });
    Rules::new(&config).unwrap()
}

fn decide(rules: &Rules, op: &str, body: &str) -> (Value, Decision) {
    let context = Context { subdomain_host: Some(""), conflict: &|_| None, now: at_login() };
    let decision = rules.decide("a", Call { op, id: "29c3", body: body.as_bytes() }, &context);
    (serde_json::from_slice(&decision.answer).unwrap(), decision)
}

fn claim_rule(user: &str) -> ClaimRule {
    ClaimRule {
        users: vec![Pattern(user.into())],
        frps: Vec::new(),
        token: None,
        refuse: None,
        domains: None,
        ports: None,
        max_weight: None,
        metadata: None,
    }
}

/// A moment after [`LOGIN`] was made.
fn at_login() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_399_930)
}

#[test]
fn a_login_passes_unchanged_and_tells_no_secret() {
    let (answer, decision) = decide(&rules(|_| {}), "Login", LOGIN);
    assert_eq!(answer, json!({ "reject": false, "unchange": true }), "an empty object would wipe it");
    let heard = Heard::Login {
        user: "alice".into(),
        client_id: "edge-1".into(),
        address: "127.0.0.1:48362".into(),
        refused: None,
        knows_token: false,
    };
    assert_eq!(decision.heard, Some(heard));
}

#[test]
fn who_shows_the_token_of_the_frps_that_calls_is_known_by_it_unless_refused() {
    // `printf %s open-sesame1795399924 | md5sum`
    let login = LOGIN.replace("6cbd", "a363943771a966372bd81263d2937edf");
    let rules = |token: &str| rules(|config| config.frps[0].token = Some(Secret::new(token)));
    let knows = |rules: &Rules, login: &str| match decide(rules, "Login", login).1.heard {
        Some(Heard::Login { knows_token, .. }) => knows_token,
        heard => panic!("{heard:?}"),
    };
    assert!(knows(&rules("open-sesame"), &login));
    assert!(!knows(&rules("another"), &login) && !knows(&rules("open-sesame"), LOGIN));
    assert!(!knows(&rules("open-sesame"), &login.replace("1795399924", "1795399925")));
}

#[test]
fn an_http_proxy_is_taken_over_and_told() {
    let (answer, decision) = decide(&rules(|_| {}), "NewProxy", NEW_PROXY);
    assert_eq!((&answer["reject"], &answer["unchange"]), (&json!(false), &json!(false)));
    assert_eq!(answer["content"]["proxy_type"], "tcp");
    assert_eq!(answer["content"]["user"]["run_id"], "ed64f6a78d9baafb", "the whole content goes back");
    let Some(Heard::Claim { name, domains, taken_over, refused, .. }) = decision.heard else {
        panic!("{decision:?}")
    };
    assert_eq!((&*name, domains.len(), taken_over, refused), ("alice.web", 2, true, None));
    let (again, _) = decide(&rules(|_| {}), "NewProxy", NEW_PROXY);
    assert_eq!(again, answer, "a function of the request: gateway and agents answer alike");
}

#[test]
fn closing_is_told_and_stays_as_it_is() {
    let (answer, decision) = decide(&rules(|_| {}), "CloseProxy", CLOSE_PROXY);
    assert_eq!(answer["unchange"], true);
    assert_eq!(decision.heard, Some(Heard::Closing { name: "life".into(), user: String::new() }));
}

#[test]
fn rules_take_over_by_frps_user_and_domain() {
    let rule = |users: &[&str], domains: &[DomainPattern]| TakeoverRule {
        frps: vec!["a".into()],
        users: users.iter().map(|user| Pattern((*user).into())).collect(),
        domains: domains.to_vec(),
        http: false,
        https: false,
    };
    let taken = |rule: TakeoverRule| {
        let rules = rules(|config| config.takeover.rules = vec![rule]);
        decide(&rules, "NewProxy", NEW_PROXY).1.result == "taken_over"
    };
    let (app, app2) = (DomainPattern::Exact("app.test".into()), DomainPattern::Exact("app2.test".into()));
    assert!(!taken(rule(&["ali*"], &[])));
    assert!(taken(rule(&["bob"], &[])));
    assert!(taken(rule(&[], std::slice::from_ref(&app))), "the other domain lies outside");
    assert!(!taken(rule(&[], &[app, app2])));
}

#[test]
fn what_policy_forbids_is_refused_with_its_reason() {
    let rules = rules(|config| {
        let domains = Some(vec![DomainPattern::Below("alice.test".into())]);
        config.claims.rules = vec![ClaimRule { domains, ..claim_rule("alice") }];
    });
    let (answer, decision) = decide(&rules, "NewProxy", NEW_PROXY);
    assert_eq!(answer["reject"], true);
    assert_eq!(answer["reject_reason"], "user \"alice\" may not claim app.test, only *.alice.test");
    assert!(matches!(decision.heard, Some(Heard::Claim { refused: Some(_), taken_over: false, .. })));
}

#[test]
fn a_login_that_happened_while_we_were_away_is_looked_at_with_its_first_proxy() {
    let rules = rules(|config| {
        config.claims.rules = vec![ClaimRule { token: Some(Secret::new("t")), ..claim_rule("alice") }];
    });
    for (op, body) in [("Login", LOGIN), ("NewProxy", NEW_PROXY)] {
        let (answer, _) = decide(&rules, op, body);
        assert!(answer["reject_reason"].as_str().unwrap().contains("gw_token"), "{op}: {answer}");
    }
    let shown = NEW_PROXY.replace(r#""zone":"seoul""#, r#""gw_token":"t""#);
    assert_eq!(decide(&rules, "NewProxy", &shown).1.result, "taken_over");
}

#[test]
fn a_host_that_somebody_else_has_is_refused() {
    let rules = rules(|_| {});
    let asked = |question: &Question<'_>| {
        assert_eq!((question.user, question.domains.len(), question.locations.len()), ("alice", 2, 2));
        Some("app.test belongs to user \"bob\"".to_owned())
    };
    let context = Context { subdomain_host: None, conflict: &asked, now: at_login() };
    let decision = rules.decide("a", Call { op: "NewProxy", id: "", body: NEW_PROXY.as_bytes() }, &context);
    assert_eq!(decision.result, "refused");
    assert!(String::from_utf8_lossy(&decision.answer).contains("belongs to user"));
}

#[test]
fn annotations_of_ours_that_an_frpc_wrote_are_taken_out_of_every_proxy() {
    let forged = NEW_PROXY
        .replace(r#""note":"hello""#, r#""note":"hello","frp-gateway/claim":"v1.forged""#)
        .replace(r#""proxy_type":"http""#, r#""proxy_type":"tcp""#);
    let (answer, _) = decide(&rules(|_| {}), "NewProxy", &forged);
    assert_eq!(answer["content"]["annotations"], json!({ "note": "hello" }));
    assert_eq!(
        answer["content"]["custom_domains"],
        json!(["app.test", "app2.test"]),
        "nothing else is touched"
    );
}

#[test]
fn what_is_not_understood_is_refused_and_what_was_not_asked_for_passes() {
    let rules = rules(|_| {});
    for (op, body) in [
        ("NewProxy", ""),
        ("NewProxy", "[]"),
        ("NewProxy", "{}"),
        ("NewProxy", r#"{"op":"NewProxy","content":{"proxy_name":""}}"#),
        ("Login", r#"{"op":"Login"}"#),
        ("Login", r#"{"op":"Login","content":null}"#),
        ("Login", r#"{"op":"Login","content":[]}"#),
        ("CloseProxy", r#"{"op":"CloseProxy"}"#),
        ("CloseProxy", r#"{"op":"CloseProxy","content":{"user":{"user":"u"}}}"#),
        ("Login", NEW_PROXY),
        ("Surprise", r#"{"op":"Surprise","content":{}}"#),
    ] {
        let (answer, decision) = decide(&rules, op, body);
        assert_eq!((&answer["reject"], decision.result), (&json!(true), "invalid"), "{op} {body}");
        assert_eq!(decision.heard, None);
    }
    let (answer, decision) = decide(&rules, "Ping", r#"{"op":"Ping","content":{"user":{"user":""}}}"#);
    assert!(answer["unchange"] == true && decision.why.is_some());
}

#[test]
fn a_path_names_its_frps_and_a_wrong_one_names_none() {
    let rules = rules(|_| {});
    assert_eq!(rules.frps_of("secret-of-a"), Some("a"));
    assert_eq!((rules.frps_of("secret-of-"), rules.frps_of("")), (None, None));
    assert!(rules.is_agent("agent-token") && !rules.is_agent("agent-toke") && !rules.is_agent(""));
}

#[test]
fn an_answer_with_twenty_domains_is_a_matter_of_a_millisecond_even_in_a_debug_build() {
    let rules = rules(|_| {});
    let domains: Vec<String> = (0..20).map(|n| format!("host-{n}.app.test")).collect();
    let body = NEW_PROXY.replace(r#"["app.test","app2.test"]"#, &json!(domains).to_string());
    // The fastest of some rounds: the machine has other work, too.
    let round = |_| {
        let begun = Instant::now();
        for _ in 0..50 {
            assert_eq!(decide(&rules, "NewProxy", &body).1.result, "taken_over");
        }
        begun.elapsed() / 50
    };
    let each = (0..20).map(round).min().unwrap();
    // A release build takes a tenth of it.
    assert!(each < Duration::from_millis(5), "{each:?} each, in a debug build");
}
