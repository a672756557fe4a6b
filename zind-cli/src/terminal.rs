//! What the terminal is like: its width, and whether it shows colours.
#![forbid(unsafe_code)]

use std::io::IsTerminal;

/// Columns of the terminal that stdout is, by `COLUMNS` or by asking it; `None`: it is none.
pub fn width() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let told = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    told.or_else(|| columns(&stdout)).filter(|columns| *columns > 0)
}

/// Columns of the terminal that stderr is.
pub fn stderr_width() -> Option<usize> {
    let stderr = std::io::stderr();
    stderr.is_terminal().then(|| columns(&stderr).filter(|columns| *columns > 0).unwrap_or(80))
}

fn columns(of: impl std::os::fd::AsFd) -> Option<usize> {
    rustix::termios::tcgetwinsize(of).ok().map(|size| usize::from(size.ws_col))
}

/// Colours a word if that stream is a terminal that shows colours: <https://no-color.org>.
pub fn paint(terminal: bool, colour: &str, text: &str) -> String {
    if terminal && shows_colours() { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

fn shows_colours() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}
