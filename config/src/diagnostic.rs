//! What the user reads when a file is wrong: place, code, key, what was seen, what to write.

use std::fmt;

use serde::Serialize;

use crate::{
    read::Fault,
    yaml::{Span, is_secret_word},
};

/// Most diagnostics of one run; a file that is no configuration at all need not be repeated line by line.
const MAX_DIAGNOSTICS: usize = 200;
/// Longest excerpt, characters; of a longer line the part around the fault is shown.
const MAX_EXCERPT: usize = 140;
/// Longest line that is quoted at all, bytes.
const MAX_LINE: usize = 16 << 10;
/// Stands for a secret in an excerpt.
const MASK: &str = "***";

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// There is no configuration.
    Error,
    /// It is legal but surely unmeant.
    Warning,
}

/// One fault of a file. `Display` gives the text for a terminal, `Serialize` the same as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Stable, in kebab-case: `unknown-pool`.
    pub code: &'static str,
    /// Name of the file, as given to [`crate::load`].
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Path of keys: `routes[2].pools[0].name`; empty when it is about the whole file.
    pub path: String,
    /// What is wrong, with the value seen. Never a secret.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// The source line, secrets masked.
    pub excerpt: String,
    /// Characters before the marked part of `excerpt`, and its length (at least 1).
    pub marked: (usize, usize),
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}:{}:{}: {severity}[{}]: ", self.file, self.line, self.column, self.code)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len() + 1);
        // Tabs are kept under the line, so that the carets stand where the terminal puts the text.
        let indent: String =
            self.excerpt.chars().take(self.marked.0).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(self.marked.1);
        write!(f, "{}\n{gutter}|\n{number} |", self.message)?;
        if !self.excerpt.is_empty() {
            write!(f, " {}", self.excerpt)?;
        }
        write!(f, "\n{gutter}| {indent}{carets}")?;
        if let Some(help) = &self.help {
            for (i, line) in help.lines().enumerate() {
                let lead = if i == 0 { "= help:" } else { "       " };
                write!(f, "\n{gutter}{lead} {line}")?;
            }
        }
        Ok(())
    }
}

/// A text whose lines may be quoted.
pub(crate) struct Source<'t> {
    file: &'t str,
    lines: Vec<&'t str>,
    /// Places of secrets, sorted.
    secrets: Vec<Span>,
    /// False when the text is no tree, so that secrets must be guessed.
    parsed: bool,
}

impl<'t> Source<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str, secrets: Vec<Span>) -> Self {
        Self { file, lines: text.lines().collect(), secrets, parsed: true }
    }

    /// A text that the parser refused.
    pub(crate) fn unparsed(file: &'t str, text: &'t str) -> Self {
        Self { parsed: false, ..Self::new(file, text, Vec::new()) }
    }

    /// Faults → diagnostics: in file order, none twice (aliases repeat a place), at most [`MAX_DIAGNOSTICS`].
    pub(crate) fn explain(&self, mut faults: Vec<Fault>) -> Vec<Diagnostic> {
        faults.sort_by_key(|fault| fault.span.start);
        let mut diagnostics: Vec<Diagnostic> = Vec::new();
        // Errors first when there are too many: a warning must not push the reason of the refusal out.
        if faults.len() > MAX_DIAGNOSTICS && faults.iter().any(|f| f.severity == Severity::Error) {
            faults.retain(|fault| fault.severity == Severity::Error);
        }
        let dropped = faults.len().saturating_sub(MAX_DIAGNOSTICS);
        faults.truncate(MAX_DIAGNOSTICS);
        for fault in faults {
            let next = self.diagnostic(fault);
            let seen = |d: &Diagnostic| {
                (d.line, d.column, d.code, &d.message) == (next.line, next.column, next.code, &next.message)
            };
            if !diagnostics.iter().rev().take_while(|d| d.line == next.line).any(seen) {
                diagnostics.push(next);
            }
        }
        if let Some(last) = diagnostics.last_mut()
            && dropped > 0
        {
            let more = format!("({dropped} more faults after this one are not shown)");
            last.help = Some(last.help.take().map_or(more.clone(), |help| format!("{help}\n{more}")));
        }
        diagnostics
    }

    fn diagnostic(&self, fault: Fault) -> Diagnostic {
        // An unclosed quote is noticed at the end of the text, which is one past the last line.
        let line = fault.span.start.line.clamp(1, self.lines.len().max(1));
        let source = self.lines.get(line - 1).copied().unwrap_or_default();
        let length = source.chars().count();
        let beyond = line != fault.span.start.line;
        let column = if beyond { length + 1 } else { fault.span.start.column.min(length + 1) };
        let end = match fault.span.end {
            end if beyond || end.line == line => end.column.min(length + 1),
            _ => source.trim_end().chars().count() + 1,
        };
        let (excerpt, marked) = self.excerpt(line, source, (column - 1, end.saturating_sub(1)));
        let Fault { severity, code, span: _, path, message, help } = fault;
        let file = self.file.to_owned();
        Diagnostic { severity, code, file, line, column, path, message, help, excerpt, marked }
    }

    /// The line as it may be shown, and where the characters `from..to` of it have gone.
    fn excerpt(&self, line: usize, source: &str, (from, to): (usize, usize)) -> (String, (usize, usize)) {
        if !self.parsed && self.may_hold_secret(line) {
            return (MASK.to_owned(), (0, MASK.len()));
        }
        if source.len() > MAX_LINE {
            return (String::new(), (0, 1));
        }
        let source: Vec<char> = source.chars().collect();
        // The parser counts blanks after a closing quote as part of the value.
        let trimmed = |from: usize, to: usize| {
            let to = to.min(source.len()).max(from);
            let blanks =
                source.get(from..to).unwrap_or_default().iter().rev().take_while(|c| c.is_whitespace());
            (from, to - blanks.count())
        };
        let (from, to) = trimmed(from, to);
        let mut masks: Vec<(usize, usize)> = self
            .secrets
            .iter()
            .filter(|span| (span.start.line..=span.end.line).contains(&line))
            .map(|span| {
                let from = if span.start.line == line { span.start.column - 1 } else { 0 };
                trimmed(from, if span.end.line == line { span.end.column - 1 } else { source.len() })
            })
            .collect();
        // `token: # SECRET`, `plugin: #{ secret: SECRET }`: where a secret was commented out, its comment is none to show.
        if let Some(comment) = comment(&source)
            && (holds_secret_word(&source.iter().collect::<String>())
                || holds_random_word(&source[comment..].iter().collect::<String>()))
        {
            masks.retain(|(first, _)| *first < comment);
            masks.push((comment, source.len()));
        }
        let mut shown: Vec<char> = Vec::new();
        let (mut start, mut end) = (None, 0);
        let mut ahead = masks.iter().peekable();
        for (i, c) in source.iter().copied().enumerate() {
            while ahead.next_if(|(_, end)| *end <= i).is_some() {}
            let mask = ahead.peek().filter(|(first, _)| *first <= i);
            if i == from {
                start = Some(shown.len());
            }
            match mask {
                // `from` inside a mask points at the mask.
                Some((first, _)) if i == *first => shown.extend(MASK.chars()),
                Some(_) if i == from => start = Some(shown.len().saturating_sub(MASK.len())),
                Some(_) => {}
                None => shown.push(if c.is_control() && c != '\t' { '\u{fffd}' } else { c }),
            }
            if i < to {
                end = shown.len();
            }
        }
        let start = start.unwrap_or(shown.len());
        window(&shown, start, end.max(start + 1))
    }

    /// Without a tree: does this line, or the key whose value runs into it, look like a secret?
    fn may_hold_secret(&self, line: usize) -> bool {
        for text in self.lines[..line.min(self.lines.len())].iter().rev() {
            if holds_secret_word(text) || holds_random_word(text) {
                return true;
            }
            if text.contains("://") && text.contains('@') {
                return true;
            }
            if text.contains(':') {
                return false;
            }
        }
        false
    }
}

/// Whether a word of a line looks like the key of a secret.
fn holds_secret_word(text: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && is_secret_word(word);
    text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-')).any(is_word)
}

/// Whether a word of a line is as long as a key and has a digit: its own key may stand on the line before.
fn holds_random_word(text: &str) -> bool {
    const LONG: usize = 24;
    let in_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '-');
    text.split(|c| !in_key(c)).any(|word| word.len() >= LONG && word.contains(|c: char| c.is_ascii_digit()))
}

/// Where a comment may begin: at a `#` that begins the line or follows a blank.
fn comment(line: &[char]) -> Option<usize> {
    (0..line.len()).find(|&i| line[i] == '#' && (i == 0 || line[i - 1].is_whitespace()))
}

/// The part of a long line around what is marked.
fn window(line: &[char], start: usize, end: usize) -> (String, (usize, usize)) {
    if line.len() <= MAX_EXCERPT {
        let text: String = line.iter().collect();
        return (text.trim_end().to_owned(), (start, (end - start).max(1)));
    }
    let first = start.saturating_sub(MAX_EXCERPT / 3).min(line.len() - MAX_EXCERPT);
    let last = first + MAX_EXCERPT;
    let lead = if first > 0 { "…" } else { "" };
    let tail = if last < line.len() { "…" } else { "" };
    let text: String = line[first..last].iter().collect();
    let shift = first - lead.chars().count();
    ((format!("{lead}{text}{tail}")), (start - shift, end.min(last).saturating_sub(start).max(1)))
}
