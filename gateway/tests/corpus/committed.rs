//! Seeds that a generator makes, beside those that are committed.

use std::path::Path;

/// A target's folder, and its seeds by name.
pub(crate) type Corpus = (&'static str, Vec<(&'static str, Vec<u8>)>);

/// Checks that the committed seeds are these; `UPDATE_GOLDEN=1` writes them anew.
pub(crate) fn check(all: impl IntoIterator<Item = Corpus>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, seeds) in all {
        let folder = root.join(target);
        for (name, bytes) in seeds {
            let file = folder.join(name);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&file, &bytes).unwrap();
            }
            let committed = std::fs::read(&file).unwrap_or_default();
            assert!(committed == bytes, "{target}/{name} differs; UPDATE_GOLDEN=1 writes it anew");
        }
    }
}
