//! Every file that we ask people to start from is right, and says nothing that we would warn about.

use std::{fs, path::Path};

use frp_gateway_config::{Resolver, Severity, load};

/// Every variable is set, to something long enough for a key.
#[derive(Debug)]
struct AllSet;

impl Resolver for AllSet {
    fn env(&self, name: &str) -> Option<String> {
        Some(format!("{name}-0123456789abcdefghijklmnopqrstuvwxyz"))
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("examples read no files, but {path} is named"))
    }
}

#[test]
fn every_example_is_accepted_without_a_diagnostic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let mut found = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        found += 1;
        let loaded = load(&fs::read_to_string(&path).unwrap(), &path.display().to_string(), &AllSet);
        let shown: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
        assert!(loaded.config.is_some() && shown.is_empty(), "{}:\n{}", path.display(), shown.join("\n"));
    }
    assert!(found >= 13, "only {found} examples in {}", folder.display());
}

/// Sections that every file has; a piece of one may lack them.
const REST: [(&str, &str); 3] = [
    (
        "frps",
        "frps: [ { name: a, host: 10.0.0.11, control_port: 7000, vhost_http_port: 8080, plugin: { secret: \"${SECRET}\" }, \
         admin: { url: \"http://10.0.0.11:7500\", password: \"${PASSWORD}\" } } ]",
    ),
    ("plugin", "plugin: { key: \"${KEY}\" }"),
    ("listeners", "listeners: [ { name: web, bind: \"0.0.0.0:80\" } ]"),
];

/// What is wrong with a piece only because it is one: it names what stands elsewhere.
const ELSEWHERE: [&str; 6] =
    ["unknown-pool", "unknown-frps", "no-routes", "no-acme", "no-vhost-port", "unreadable-file"];

#[test]
fn every_piece_of_configuration_in_the_documents_has_keys_and_values_that_there_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut found = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let page = fs::read_to_string(&path).unwrap();
        let mut lines = page.lines();
        while let Some(fence) = lines.find(|line| line.trim_start() == "```yaml") {
            found += 1;
            let indent = fence.len() - fence.trim_start().len();
            let piece = lines.by_ref().take_while(|line| line.trim_start() != "```");
            let piece: Vec<_> = piece.map(|line| line.get(indent..).unwrap_or_default()).collect();
            let whole = completed(&piece);
            let loaded = load(&whole, &path.display().to_string(), &AllSet);
            let wrong = loaded.diagnostics.iter().filter(|found| !ELSEWHERE.contains(&found.code));
            let wrong: Vec<String> =
                wrong.filter(|found| found.severity == Severity::Error).map(ToString::to_string).collect();
            assert!(wrong.is_empty(), "{}:\n{whole}\n{}", path.display(), wrong.join("\n"));
        }
    }
    assert!(found >= 19, "only {found} pieces in {}", folder.display());
}

/// A piece with the sections that it lacks. An entry alone is a listener.
fn completed(piece: &[&str]) -> String {
    let entry = piece.first().is_some_and(|line| line.trim_start().starts_with("- "));
    let given = |key: &str| {
        piece.iter().any(|line| line.starts_with(&format!("{key}:"))) || (entry && key == "listeners")
    };
    let rest = REST.iter().filter(|(key, _)| !given(key)).map(|(_, text)| *text);
    let head = if entry { "listeners:" } else { "" };
    [head].into_iter().chain(piece.iter().copied()).chain(rest).collect::<Vec<_>>().join("\n")
}
