//! The exact text that a user sees, file by file. `UPDATE_GOLDEN=1` writes the expectations anew.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not seen as tests by clippy")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::Table;
use frp_gateway_config::{Loaded, Severity, load, reference_markdown};

#[test]
fn accepted_files_give_a_config_and_no_diagnostic() {
    let cases = cases("accept", 78);
    for case in cases {
        let loaded = load(&read(&case), &shown(&case), &Table);
        assert!(loaded.diagnostics.is_empty(), "{}: {}", case.display(), common::text(&loaded));
        let config = loaded.config.unwrap_or_else(|| panic!("{}: no config", case.display()));
        compare(&case.with_extension("txt"), &format!("{config:#?}\n"));
    }
}

#[test]
fn warned_files_give_a_config_and_warnings() {
    for case in cases("warn", 66) {
        let loaded = load(&read(&case), &shown(&case), &Table);
        assert!(loaded.config.is_some(), "{}: {}", case.display(), common::text(&loaded));
        assert!(!loaded.diagnostics.is_empty(), "{}: no warning", case.display());
        let text = common::text(&loaded);
        shows_no_secret(&case, &loaded, &text);
        compare(&case.with_extension("txt"), &text);
    }
}

#[test]
fn rejected_files_say_exactly_what_is_wrong() {
    for case in cases("reject", 261) {
        let loaded = load(&read(&case), &shown(&case), &Table);
        assert!(loaded.config.is_none(), "{}: accepted", case.display());
        assert!(loaded.diagnostics.iter().any(|d| d.severity == Severity::Error), "{}", case.display());
        let text = common::text(&loaded);
        shows_no_secret(&case, &loaded, &text);
        let places: Vec<_> = loaded.diagnostics.iter().map(|d| (d.line, d.column)).collect();
        assert!(places.is_sorted(), "{}: not in file order: {places:?}", case.display());
        compare(&case.with_extension("txt"), &text);
    }
}

fn shows_no_secret(case: &Path, loaded: &Loaded, text: &str) {
    let json = serde_json::to_string(&loaded.diagnostics).unwrap();
    for secret in common::SECRETS {
        assert!(!text.contains(secret), "{} shows a secret:\n{text}", case.display());
        assert!(!json.contains(secret), "{} shows a secret in JSON:\n{json}", case.display());
    }
}

#[test]
fn reference_page_is_up_to_date() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/config.md");
    compare(&page, &reference_markdown());
}

fn cases(folder: &str, at_least: usize) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut found: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    found.sort();
    assert!(found.len() >= at_least, "{} has {} cases, expected {at_least}", folder.display(), found.len());
    found
}

fn shown(case: &Path) -> String {
    case.file_name().unwrap().to_string_lossy().into_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn compare(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, actual).unwrap();
        return;
    }
    assert_eq!(read(path), actual, "{} differs; UPDATE_GOLDEN=1 writes it anew", path.display());
}
