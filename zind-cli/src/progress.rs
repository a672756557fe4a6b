//! [`Bars`]: long work on a terminal, a line for each piece of it.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use zind_core::{Progress, ProgressEvent, ProgressKind};

use crate::failure::{Failure, Result};
use crate::signals::Signals;
use crate::terminal;
use crate::text::size;

/// Between two drawings.
const PAUSE: Duration = Duration::from_millis(80);
/// More lines than this are not drawn.
const MOST_LINES: usize = 16;
const BAR: usize = 24;

/// Draws on stderr if that is a terminal; else says nothing. Stops the work when a signal asks for it.
pub struct Bars {
    width: Option<usize>,
    lines: Vec<Line>,
    drawn: usize,
    last: Option<Instant>,
    signals: Option<Signals>,
    came: Option<i32>,
}

struct Line {
    layer: Option<(usize, usize)>,
    kind: ProgressKind,
    name: String,
    done: u64,
    total: Option<u64>,
}

impl Bars {
    /// For this call.
    pub fn new(quiet: bool) -> Result<Bars> {
        Ok(Bars::with(quiet, Some(Signals::hold(Signals::ENDING)?)))
    }

    fn with(quiet: bool, signals: Option<Signals>) -> Bars {
        let width = if quiet { None } else { terminal::stderr_width() };
        Bars { width, lines: Vec::new(), drawn: 0, last: None, signals, came: None }
    }

    /// The work of these results has ended: the bars are wiped, and a signal becomes the exit status.
    pub fn end<T>(&mut self, result: zind_core::Result<T>) -> Result<T> {
        self.wipe();
        result.map_err(|error| match (error, self.came) {
            (zind_core::Error::Interrupted, Some(signal)) => Failure::new("interrupted").code(128 + signal as u8),
            (error, _) => error.into(),
        })
    }

    fn wipe(&mut self) {
        if self.drawn > 0 {
            let _ = write!(std::io::stderr(), "\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
        self.lines.clear();
    }

    fn draw(&mut self, width: usize) {
        let mut text = String::new();
        if self.drawn > 0 {
            let _ = write!(text, "\x1b[{}A", self.drawn);
        }
        let skipped = self.lines.len().saturating_sub(MOST_LINES);
        for line in &self.lines[skipped..] {
            let shown: String = line.text().chars().take(width.saturating_sub(1)).collect();
            let _ = writeln!(text, "\r\x1b[2K{shown}");
        }
        self.drawn = self.lines.len() - skipped;
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

impl Line {
    fn text(&self) -> String {
        let what = match self.layer {
            Some((index, of)) => format!("{} {}/{of}", self.kind.name(), index + 1),
            None => self.kind.name().to_owned(),
        };
        let head = format!("{:<14} {:<12} ", what, self.name);
        match self.total.filter(|total| *total > 0) {
            Some(total) => {
                let full = (u128::from(self.done.min(total)) * BAR as u128 / u128::from(total)) as usize;
                let bar: String = "=".repeat(full) + &" ".repeat(BAR - full);
                format!("{head}[{bar}] {} / {}", size(self.done), size(total))
            }
            None if self.done > 0 => head + &size(self.done),
            None => head,
        }
    }
}

impl Progress for Bars {
    fn step(&mut self, event: &ProgressEvent<'_>) {
        let Some(width) = self.width else { return };
        let name = event.digest.map(|digest| digest.short()).unwrap_or_default();
        let same = |line: &&mut Line| line.layer == event.layer && (event.layer.is_some() || line.name == name);
        match self.lines.iter_mut().find(same) {
            Some(line) => {
                (line.kind, line.done, line.total) = (event.kind, event.done, event.total);
                if !name.is_empty() {
                    line.name = name;
                }
            }
            None => self.lines.push(Line {
                layer: event.layer,
                kind: event.kind,
                name,
                done: event.done,
                total: event.total,
            }),
        }
        let is_end = event.total == Some(event.done);
        if is_end || self.last.is_none_or(|last| last.elapsed() >= PAUSE) {
            self.draw(width);
            self.last = Some(Instant::now());
        }
    }

    fn interrupted(&mut self) -> bool {
        if self.came.is_none() {
            self.came = self.signals.as_ref().and_then(Signals::next).map(|came| came.number);
        }
        self.came.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_of_how_much() {
        let line = |done, total| {
            Line { layer: Some((1, 3)), kind: ProgressKind::Download, name: "abc".to_owned(), done, total }.text()
        };
        assert_eq!(
            line(5000, Some(10_000)),
            format!("download 2/3   abc          [{:<24}] 5kB / 10kB", "=".repeat(12))
        );
        assert_eq!(line(5000, None), "download 2/3   abc          5kB");
        assert!(line(20, Some(10)).contains(&"=".repeat(24)));
        assert!(line(u64::MAX, Some(u64::MAX)).contains(&"=".repeat(24)));
    }
}
