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
        "accept/anchors_and_merge",
        "reject/many_faults_in_one_file",
        "reject/alias_bomb",
        "warn/shadowed_route",
    ]
    .map(|name| fs::read_to_string(folder.join(name).with_extension("yaml")).unwrap())
    .to_vec()
}
