//! Any text gets an answer, and the answer can be shown.
#![no_main]

use frp_gateway_config::{Resolver, Severity, load};
use libfuzzer_sys::fuzz_target;

struct World;

impl Resolver for World {
    fn env(&self, name: &str) -> Option<String> {
        (name.len() < 4).then(|| "s3cret-v4lue".to_owned())
    }

    fn file(&self, path: &str) -> Result<String, String> {
        if path.len() < 8 { Ok("s3cret-v4lue\n".to_owned()) } else { Err("no such file".to_owned()) }
    }
}

fuzz_target!(|text: &str| {
    let loaded = load(text, "fuzz.yaml", &World);
    let failed = loaded.diagnostics.iter().any(|d| d.severity == Severity::Error);
    assert_eq!(loaded.config.is_none(), failed);
    for diagnostic in &loaded.diagnostics {
        let shown = diagnostic.to_string();
        assert!(!shown.contains("s3cret-v4lue") || text.contains("s3cret-v4lue"), "{shown}");
    }
});
