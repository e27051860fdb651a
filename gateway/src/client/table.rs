//! Aligned columns, and colour where somebody looks at it.

use std::{
    env,
    io::{self, IsTerminal},
};

/// What a cell is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Mind,
    /// Wrong.
    Bad,
    /// Less important.
    Faint,
}

/// Whether tones are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour(bool);

impl Colour {
    /// Never.
    pub const OFF: Self = Self(false);

    /// Only on a terminal, and unless `NO_COLOR` is set to anything (<https://no-color.org>).
    #[must_use]
    pub fn of_stdout() -> Self {
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(io::stdout().is_terminal() && !unwanted)
    }

    /// `text` in the tone.
    #[must_use]
    pub fn paint(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Mind => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Plain => "",
        };
        if self.0 && !code.is_empty() && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// One cell.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    /// Words, aligned left.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// A number, aligned right.
    #[must_use]
    pub fn number(text: impl Into<String>) -> Self {
        Self { text: text.into(), right: true, ..Self::default() }
    }

    /// In this tone.
    #[must_use]
    pub const fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

/// Rows under one head.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// With these words over its columns.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        let head = head.iter().map(|word| Cell::text(*word).tone(Tone::Faint)).collect();
        Self { rows: vec![head] }
    }

    /// One more row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Appends the lines to `out`, each after `indent`. Two spaces between columns, none at a line's end. Columns without
    /// any text under their head are left out.
    pub fn write(&self, out: &mut String, indent: &str, colour: Colour) {
        let width = |column: usize| {
            let cells = || self.rows.iter().filter_map(move |row| row.get(column));
            let used = cells().skip(1).any(|cell| !cell.text.is_empty());
            used.then(|| cells().map(|cell| cell.text.chars().count()).max().unwrap_or(0))
        };
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns).map(width).collect();
        // The head of a column of numbers stands over their ends.
        let right: Vec<_> = (0..columns)
            .map(|at| self.rows.get(1).and_then(|row| row.get(at)).is_some_and(|c| c.right))
            .collect();
        for row in &self.rows {
            let mut line = String::from(indent);
            let mut owed = 0;
            for ((cell, width), right) in row.iter().zip(&widths).zip(&right) {
                let Some(width) = width else { continue };
                let pad = width - cell.text.chars().count();
                let (before, after) = if *right { (pad, 0) } else { (0, pad) };
                if !cell.text.is_empty() {
                    line.extend(std::iter::repeat_n(' ', owed + before));
                    line += &colour.paint(&cell.text, cell.tone);
                    owed = after + 2;
                } else {
                    owed += width + 2;
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "GONE", "REQ/S", "STATE"]);
        table.row(vec![
            Cell::text("seoul-1"),
            Cell::text(""),
            Cell::number("12.5"),
            Cell::text("up").tone(Tone::Good),
        ]);
        table.row(vec![
            Cell::text("b"),
            Cell::text(""),
            Cell::number(""),
            Cell::text("down").tone(Tone::Bad),
        ]);
        table.row(vec![Cell::text("größe"), Cell::text(""), Cell::number("1000.0"), Cell::text("")]);
        table
    }

    #[test]
    fn columns_are_aligned_numbers_to_the_right_and_empty_columns_left_out() {
        let mut out = String::new();
        table().write(&mut out, "  ", Colour::OFF);
        let expected =
            "  NAME      REQ/S  STATE\n  seoul-1    12.5  up\n  b                down\n  größe    1000.0\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let (mut plain, mut painted) = (String::new(), String::new());
        table().write(&mut plain, "", Colour::OFF);
        table().write(&mut painted, "", Colour(true));
        assert!(painted.contains("\x1b[31mdown\x1b[0m"), "{painted:?}");
        let mut stripped = painted;
        for code in ["\x1b[31m", "\x1b[32m", "\x1b[2m", "\x1b[0m"] {
            stripped = stripped.replace(code, "");
        }
        assert_eq!(stripped, plain);
    }
}
