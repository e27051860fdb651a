//! Whatever the text: an answer, never a panic; and the answer is consistent.

#![expect(clippy::unwrap_used, reason = "helpers of tests are not seen as tests by clippy")]

mod common;

use std::{fs, path::Path};

use common::Table;
use frp_gateway_config::{Severity, load};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_gets_an_answer(text in "\\PC{0,200}") {
        check(&text);
    }

    #[test]
    fn any_yaml_like_text_gets_an_answer(text in r#"([ \n\t\-:,\[\]{}&*#|>'"!%@$a-f0-9é<]|name|frps|pools|routes|listeners|match|\$\{|\n  - ){0,120}"#) {
        check(&text);
    }

    #[test]
    fn a_mutated_file_gets_an_answer(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..4, any::<char>()), 1..8),
    ) {
        let seeds = seeds();
        let mut text: Vec<char> = which.get(&seeds).chars().collect();
        for (at, kind, c) in edits {
            if text.is_empty() {
                break;
            }
            let at = at.index(text.len());
            match kind {
                0 => { text.remove(at); }
                1 => text.insert(at, c),
                2 => text.truncate(at),
                _ => text[at] = ['{', '}', '[', ']', ':', ',', '\n', '"', '&', '*'][u32::from(c) as usize % 10],
            }
        }
        check(&text.into_iter().collect::<String>());
    }

    /// One slip of the finger anywhere but in the keys themselves, in a file that is otherwise right or has a fault.
    #[test]
    fn keys_of_a_cookie_are_never_shown(
        flow in any::<bool>(),
        fault in any::<bool>(),
        at in any::<prop::sample::Index>(),
        kind in 0_usize..3,
        c in "[ \n\t:,{}\\[\\]a-z_'\"#&*-]",
    ) {
        const KEYS: [&str; 2] = ["literal-key-0123456789abcdefghijklm", "literal-old-0123456789abcdefghijklm"];
        let [key, old] = KEYS;
        let ttl = if fault { "1" } else { "1h" };
        let cookie = if flow {
            format!("{{ name: gw, key: {key}, old_key: {old}, ttl: {ttl} }}")
        } else {
            format!("\n        name: gw\n        key: {key}\n        old_key: {old}\n        ttl: {ttl}")
        };
        let text = format!(
            "frps: [ {{ name: a, host: a, vhost_http_port: 80 }} ]\nlisteners: [ {{ name: w, bind: '0.0.0.0:80' }} ]\n\
             pools:\n  - name: p\n    affinity:\n      cookie: {cookie}\n"
        );
        let edited = slip(&text, &KEYS, at, kind, &c);
        let shown = common::text(&load(&edited, "any.yaml", &Table));
        for key in KEYS {
            prop_assert!(!shown.contains(&key[..20]), "a key is shown:\n{shown}\nof:\n{edited}");
        }
    }

    #[test]
    fn secrets_of_plugins_are_never_shown(
        flow in any::<bool>(),
        fault in any::<bool>(),
        at in any::<prop::sample::Index>(),
        kind in 0_usize..3,
        c in "[ \n\t:,{}\\[\\]a-z_'\"#&*-]",
    ) {
        const KEYS: [&str; 4] = [
            "literal-key-0123456789abcdefghijklm",
            "literal-old-0123456789abcdefghijklm",
            "literal-agent-0123456789abcdefghijk",
            "literal-frps-0123456789abcdefghijkl",
        ];
        let [key, old, agent, frps] = KEYS;
        let listen = if fault { "9901" } else { "127.0.0.1:9901" };
        let (plugin, secret) = if flow {
            (
                format!("{{ listen: '{listen}', key: {key}, old_key: {old}, agent_token: {agent} }}"),
                format!("{{ secret: {frps} }}"),
            )
        } else {
            (
                format!("\n  listen: '{listen}'\n  key: {key}\n  old_key: {old}\n  agent_token: {agent}"),
                format!("\n      secret: {frps}"),
            )
        };
        let text = format!(
            "plugin: {plugin}\nfrps:\n  - name: a\n    host: a\n    admin: {{ url: 'http://a:7500', password: '${{PW}}' }}\n    \
             plugin: {secret}\nlisteners: [ {{ name: w, bind: '0.0.0.0:80' }} ]\n"
        );
        let edited = slip(&text, &KEYS, at, kind, &c);
        let shown = common::text(&load(&edited, "any.yaml", &Table));
        for key in KEYS {
            prop_assert!(!shown.contains(&key[..20]), "a secret is shown:\n{shown}\nof:\n{edited}");
        }
    }

    #[test]
    fn the_key_of_an_acme_account_is_never_shown(
        flow in any::<bool>(),
        fault in any::<bool>(),
        at in any::<prop::sample::Index>(),
        kind in 0_usize..3,
        c in "[ \n\t:,{}\\[\\]a-z_'\"#&*-]",
    ) {
        const KEY: &str = "literal-hmac-0123456789abcdefghijkl";
        let terms = !fault;
        let account = if flow {
            format!("{{ key_id: kid, hmac_key: {KEY} }}")
        } else {
            format!("\n    key_id: kid\n    hmac_key: {KEY}")
        };
        let text = format!(
            "frps: [ {{ name: a, host: a, vhost_http_port: 80 }} ]\n\
             listeners: [ {{ name: w, bind: '0.0.0.0:443', protocol: https, tls: {{ acme: true }} }} ]\n\
             acme:\n  storage: /acme\n  accept_terms: {terms}\n  external_account: {account}\n"
        );
        let edited = slip(&text, &[KEY], at, kind, &c);
        let shown = common::text(&load(&edited, "any.yaml", &Table));
        prop_assert!(!shown.contains(&KEY[..20]), "a key is shown:\n{shown}\nof:\n{edited}");
    }
}

/// One slip of the finger anywhere but in what must not be shown.
fn slip(text: &str, keys: &[&str], at: prop::sample::Index, kind: usize, c: &str) -> String {
    let mut edited: Vec<char> = text.chars().collect();
    let in_key = |i: usize| {
        keys.iter().any(|key| text.find(key).is_some_and(|start| (start..start + key.len()).contains(&i)))
    };
    let outside: Vec<usize> = (0..edited.len()).filter(|i| !in_key(*i)).collect();
    let at = outside[at.index(outside.len())];
    let c = c.chars().next().unwrap_or(' ');
    match kind {
        0 => {
            edited.remove(at);
        }
        1 => edited.insert(at, c),
        _ => edited[at] = c,
    }
    edited.into_iter().collect()
}

fn check(text: &str) {
    let loaded = load(text, "any.yaml", &Table);
    let failed = loaded.diagnostics.iter().any(|d| d.severity == Severity::Error);
    assert_eq!(loaded.config.is_none(), failed, "config without errors, or errors with config");
    let shown = common::text(&loaded);
    for secret in common::SECRETS.iter().filter(|secret| !text.contains(**secret)) {
        assert!(!shown.contains(secret), "a secret from outside the text is shown: {shown}");
    }
    let lines = text.lines().count().max(1);
    for diagnostic in &loaded.diagnostics {
        assert!((1..=lines).contains(&diagnostic.line), "line {} of {lines}", diagnostic.line);
        assert!(diagnostic.column >= 1);
        assert!(!diagnostic.to_string().is_empty());
    }
}

fn seeds() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    [
        "accept/everything",
        "accept/tunnels_everything",
        "accept/https_everything",
        "accept/acme_everything",
        "accept/anchors_and_merge",
        "reject/many_faults_in_one_file",
        "reject/alias_bomb",
        "warn/shadowed_route",
    ]
    .map(|name| fs::read_to_string(folder.join(name).with_extension("yaml")).unwrap())
    .to_vec()
}
