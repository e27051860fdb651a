//! Reads the tables in this folder: `word word bytes`, one case per line, `#` for comments.
//!
//! Bytes are escaped: `\r`, `\n`, `\t`, `\0`, `\\`, `\xHH`; `\s` is a space at the end of a line; `\{n:text}` repeats an
//! escaped text n times.

/// One line of a table.
#[derive(Debug)]
pub(crate) struct Case {
    /// Line number, from 1.
    pub(crate) line: usize,
    /// The words before the bytes.
    pub(crate) words: Vec<String>,
    /// What goes over the wire.
    pub(crate) bytes: Vec<u8>,
}

/// Reads a table whose lines have `words` words before the bytes.
pub(crate) fn read(file: &str, words: usize) -> Vec<Case> {
    let path = format!("{}/tests/corpus/http1/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| {
            let mut parts = line.splitn(words + 1, ' ');
            let words = parts.by_ref().take(words).map(str::to_owned).collect();
            let bytes = parts.next().unwrap_or_else(|| panic!("{file}:{}: no bytes", index + 1));
            Case { line: index + 1, words, bytes: unescape(bytes) }
        })
        .collect()
}

/// Resolves the escapes.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = rest.as_bytes()[at + 1];
        rest = &rest[at + 2..];
        match escape {
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'0' => out.push(0),
            b's' => out.push(b' '),
            b'\\' => out.push(b'\\'),
            b'x' => {
                out.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                rest = &rest[2..];
            }
            b'{' => {
                let (count, tail) = rest.split_once(':').unwrap();
                let (unit, tail) = tail.split_once('}').unwrap();
                let unit = unescape(unit);
                (0..count.parse().unwrap()).for_each(|_| out.extend_from_slice(&unit));
                rest = tail;
            }
            other => panic!("unknown escape \\{}", char::from(other)),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out
}
