//! "Did you mean": the nearest of a few known words.

/// The candidate nearest to `word`, if it is near enough to be what was meant.
///
/// Damerau-Levenshtein distance, case ignored, `-` and `_` alike; at most a third of the word's length (at least
/// one edit, at most three). The first of equals wins. O(candidates × length²); words over 64 characters have no
/// neighbour.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if length > 64 {
        return None;
    }
    let limit = (length / 3).clamp(1, 3);
    let word = plain(word);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates.into_iter().take(1000) {
        let distance = strsim::damerau_levenshtein(&word, &plain(candidate));
        if distance <= limit && best.is_none_or(|(d, _)| distance < d) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Help text for an unknown word: the nearest, then all (at most 12) that exist.
pub(crate) fn help(word: &str, label: &str, known: &[&str]) -> String {
    let all = list(known);
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?  {label}: {all}"),
        None => format!("{label}: {all}"),
    }
}

/// `a, b, c`, cut after twelve; `(none)` when empty.
pub(crate) fn list(words: &[&str]) -> String {
    const SHOWN: usize = 12;
    match words.len() {
        0 => "(none)".to_owned(),
        n if n > SHOWN => format!("{}, … ({} more)", words[..SHOWN].join(", "), n - SHOWN),
        _ => words.join(", "),
    }
}

fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_word() {
        let known = ["name", "host", "vhost_http_port", "weight"];
        for (word, meant) in [
            ("nmae", "name"),
            ("Host", "host"),
            ("vhost-http-port", "vhost_http_port"),
            ("wieght", "weight"),
            ("vhost_htp_prt", "vhost_http_port"),
        ] {
            assert_eq!(nearest(word, known), Some(meant), "{word}");
        }
    }

    #[test]
    fn a_far_word_finds_nothing() {
        for word in ["", "banana", "x", &"n".repeat(65)] {
            assert_eq!(nearest(word, ["name", "host"]), None, "{word}");
        }
    }

    #[test]
    fn a_long_list_is_cut() {
        let words: Vec<String> = (0..15).map(|i| format!("w{i}")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert!(list(&words).ends_with("w11, … (3 more)"));
        assert_eq!(list(&[]), "(none)");
    }
}
