//! Names of certificates: a folder, a common name, and the last part of a SPIFFE id at once.

use std::path::Path;

use super::{CaError, files};

/// RFC 5280, upper bound of a common name.
const LONGEST: usize = 64;
/// More than this in one go is a slip of the keyboard.
const MOST: u32 = 100_000;

/// Checks one.
///
/// # Errors
/// [`CaError::BadName`].
pub(super) fn check(name: &str) -> Result<(), CaError> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > LONGEST {
        "it is longer than 64 characters"
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        "it begins with neither a letter nor a digit"
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        "it has other characters than letters, digits, '.', '_' and '-'"
    } else {
        return Ok(());
    };
    Err(CaError::BadName { name: name.to_owned(), why })
}

/// All names that a command is about, each once, in the order they were given: from arguments, a file with one per line (`#` begins a
/// comment), and `PREFIX1` … `PREFIXn`, with leading zeros so that they sort.
///
/// # Errors
/// A bad name, an unreadable file, a count out of 1 to 100,000.
pub(super) fn collect(
    given: &[String],
    from: Option<&Path>,
    numbered: Option<(u32, &str)>,
) -> Result<Vec<String>, CaError> {
    let mut names = given.to_vec();
    if let Some(path) = from {
        let text = files::read_text(path)?;
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        names.extend(lines.filter(|line| !line.is_empty()).map(str::to_owned));
    }
    if let Some((count, prefix)) = numbered {
        if !(1..=MOST).contains(&count) {
            return Err(CaError::argument(format!("--count {count} is out of range"), "1 to 100000"));
        }
        let width = count.to_string().len();
        names.extend((1..=count).map(|n| format!("{prefix}{n:0width$}")));
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names.iter().try_for_each(|name| check(name))?;
    Ok(names)
}

/// `text` with `{name}` replaced.
pub(super) fn fill(text: &str, name: &str) -> String {
    text.replace("{name}", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_names_sort_and_nothing_comes_twice() {
        let names = collect(&["edge-01".into(), "b".into()], None, Some((12, "edge-"))).unwrap();
        assert_eq!((names.len(), &*names[0], &*names[2], &*names[12]), (13, "edge-01", "edge-02", "edge-12"));
    }

    #[test]
    fn a_name_never_leaves_its_folder() {
        for bad in ["", ".", "..", "a/b", "../a", "-a", ".a", "a b", "a\0", "ä", &"x".repeat(65)] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "edge-1", "gate.example.com", "A_1", &"x".repeat(64)] {
            assert!(check(good).is_ok(), "{good:?}");
        }
    }
}
