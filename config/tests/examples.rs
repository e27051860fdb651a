//! Every file that we ask people to start from is right, and says nothing that we would warn about.

use std::{fs, path::Path};

use frp_gateway_config::{Resolver, load};

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
