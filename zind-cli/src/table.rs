//! [`Table`]: rows that fit the terminal, and lists as JSON.
#![forbid(unsafe_code)]

use std::io::Write;

use serde_json::Value;

use crate::arguments::Given;
use crate::failure::{Failure, Result};
use crate::terminal;
use crate::text::printable;

/// Between two columns.
const GAP: usize = 3;
/// A column is not made narrower than this.
const NARROWEST: usize = 8;

/// Columns with headings.
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    /// These columns are right-aligned.
    right: Vec<bool>,
    /// Spaces between two columns.
    gap: usize,
}

impl Table {
    /// A table with these headings; one that begins with `>` stands to the right.
    pub fn new(headings: &[&str]) -> Table {
        let right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let headings = headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect();
        Table { headings, rows: Vec::new(), right, gap: GAP }
    }

    /// With so many spaces between columns.
    pub fn gap(mut self, spaces: usize) -> Table {
        self.gap = spaces;
        self
    }

    /// Adds a row. What a terminal could obey is taken out.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// The text, no line of it wider than `most` if that can be had by cutting.
    pub fn text(&self, most: Option<usize>) -> String {
        let mut widths: Vec<usize> = self.headings.iter().map(|heading| columns(heading)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(columns(cell));
            }
        }
        if let Some(most) = most {
            let gaps = self.gap * widths.len().saturating_sub(1);
            narrow(&mut widths, most.saturating_sub(gaps));
        }
        let mut text = String::new();
        for row in std::iter::once(&self.headings).chain(&self.rows) {
            let mut line = String::new();
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let cell = cut(cell, *width);
                let room = width - columns(&cell).min(*width);
                if self.right[index] {
                    line.extend(std::iter::repeat_n(' ', room));
                    line.push_str(&cell);
                } else {
                    line.push_str(&cell);
                    line.extend(std::iter::repeat_n(' ', room));
                }
                line.extend(std::iter::repeat_n(' ', self.gap));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Writes it to stdout; on a terminal, as wide as that is.
    pub fn print(&self) -> Result<()> {
        self.print_as(false)
    }

    /// The same; `whole`: nothing is cut, however wide the terminal is.
    pub fn print_as(&self, whole: bool) -> Result<()> {
        let width = terminal::width();
        let text = self.text(width.filter(|_| !whole));
        let (head, rest) = text.split_once('\n').unwrap_or((&text, ""));
        print(&format!("{}\n{rest}", terminal::paint(width.is_some(), "1", head)))
    }
}

/// Takes from the widest until it fits.
fn narrow(widths: &mut [usize], most: usize) {
    while widths.iter().sum::<usize>() > most {
        let Some(widest) = widths.iter_mut().max_by_key(|width| **width) else { return };
        if *widest <= NARROWEST {
            return;
        }
        *widest -= 1;
    }
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// How a list is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As a table.
    Table,
    /// As a JSON document.
    Json,
}

impl Format {
    /// Of `--format`.
    pub fn of(given: &impl Given) -> Result<Format> {
        match given.text("format") {
            None | Some("table") => Ok(Format::Table),
            Some("json" | "{{json .}}") => Ok(Format::Json),
            Some(other) => Err(Failure::new(format!("--format: {other:?} is neither table nor json"))
                .hint("there are no templates here: --format json and jq(1) do that")),
        }
    }
}

/// Writes a JSON document to stdout.
pub fn json(value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::new(error.to_string()))?;
    print(&(text + "\n"))
}

/// Writes text to stdout.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_column_gives_way() {
        let mut table = Table::new(&["NAME", ">SIZE", "COMMAND"]);
        table.row(["web".into(), "1.5GB".into(), "a very long command that goes on".into()]);
        table.row(["a".into(), "2B".into(), "sh\x1b".into()]);
        assert_eq!(table.text(None).lines().next(), Some("NAME    SIZE   COMMAND"));
        let text = table.text(Some(30));
        assert_eq!(text, "NAME    SIZE   COMMAND\nweb    1.5GB   a very long co…\na         2B   sh?\n");
        assert!(table.text(Some(5)).contains("a very …"));
    }
}
