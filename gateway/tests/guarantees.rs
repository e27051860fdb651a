//! `docs/guarantees.md` names tests that there are.

#![allow(clippy::panic, reason = "a failed test shows why")]

use std::{fs, path::Path};

/// Names between backquotes that end like this, in a text.
fn quoted<'a>(text: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split('`').skip(1).step_by(2).filter(move |name| name.ends_with(end))
}

#[test]
fn every_promise_names_tests_that_there_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(folder.join("../docs/guarantees.md")).expect("the page");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert!(rows.len() > 20, "{} promises", rows.len());
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        let [when, promised, _, shown] = cells[..] else { panic!("not four cells: {row}") };
        assert!(!when.trim().is_empty() && !promised.trim().is_empty(), "{row}");
        let mut files = quoted(shown, ".rs").peekable();
        assert!(files.peek().is_some(), "nothing shows it: {row}");
        for file in files {
            let test = fs::read_to_string(folder.join("tests").join(file));
            let test = test.unwrap_or_else(|error| panic!("{file}: {error}\n{row}"));
            assert!(test.contains("#[test]") || test.contains("#[tokio::test"), "{file} holds no test");
            assert!(!test.contains("#[ignore"), "{file}: a test that isn't run shows nothing");
        }
    }
}
