//! Committed texts, for tests. `UPDATE_GOLDEN=1` writes them anew.

use std::path::Path;

/// Compares `actual` with the file at `path`, which begins at this crate's folder.
pub(crate) fn check(path: &str, actual: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(expected, actual, "{path} differs; UPDATE_GOLDEN=1 writes it anew\n{actual}");
}
