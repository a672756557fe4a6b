//! Terminals: pseudo-terminals for payloads, the caller's own terminal in raw mode, and the copying between the two.
//!
//! Nothing here installs a handler or starts a thread: who wants signals told to the copying loop blocks them by
//! [`Signals`], and gets them back as values.
#![forbid(unsafe_code)]

mod detach;
mod raw;
mod relay;

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

use crate::error::{At, Error, Result, Step};
use crate::sys::descriptors::pty_peer;

pub use crate::sys::signals::Signals;
pub use detach::{DetachKeys, Typed};
pub use raw::Raw;
pub use relay::{Left, Relay, Source};

/// The size of a terminal's window, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
}

impl Default for Size {
    /// 24 lines of 80 characters.
    fn default() -> Size {
        Size { rows: 24, cols: 80 }
    }
}

impl Size {
    /// A size.
    pub const fn new(rows: u16, cols: u16) -> Size {
        Size { rows, cols }
    }

    /// The size of a terminal's window; `None` for what is no terminal, and for a terminal that does not know.
    pub fn of(terminal: impl AsFd) -> Option<Size> {
        let found = tcgetwinsize(terminal).ok()?;
        (found.ws_row > 0 && found.ws_col > 0).then_some(Size { rows: found.ws_row, cols: found.ws_col })
    }
}

/// Sets the size of a terminal's window by a descriptor of either end; its foreground processes get SIGWINCH if it changes.
///
/// Errors: [`Error::Sys`] at [`Step::Terminal`], `ENOTTY` for what is no terminal, `EIO` for one that is gone.
pub fn resize(terminal: impl AsFd, size: Size) -> Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).at(Step::Terminal, "ioctl", "")
}

/// A pseudo-terminal: the end that is kept, and the end that is a terminal to programs.
#[derive(Debug)]
pub struct Pty {
    /// What is written here is typed; what programs write is read here. `EIO` when the last of them is gone.
    pub master: OwnedFd,
    /// What programs get.
    pub terminal: OwnedFd,
}

impl Pty {
    /// A new one of this machine's.
    ///
    /// Errors: [`Error::Sys`] at [`Step::Terminal`], `ENOSPC` where `kernel.pty.max` is reached.
    /// Source: <https://man7.org/linux/man-pages/man7/pty.7.html>
    pub fn open(size: Size) -> Result<Pty> {
        const PTMX: &str = "/dev/ptmx";
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = openat(CWD, PTMX, flags, Mode::empty()).at(Step::Terminal, "open", PTMX)?;
        rustix::pty::unlockpt(&master).at(Step::Terminal, "ioctl", PTMX)?;
        let terminal = pty_peer(master.as_fd()).at(Step::Terminal, "ioctl", PTMX)?;
        resize(&master, size)?;
        Ok(Pty { master, terminal })
    }
}

/// The rule for sizes that callers give.
pub(crate) fn check(field: &'static str, size: Option<Size>) -> Result<()> {
    match size {
        Some(Size { rows, cols }) if rows == 0 || cols == 0 => {
            Err(Error::spec(field, format!("{rows} lines of {cols} characters is no size of a window")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_terminal_has_its_size_and_can_be_resized() {
        let pty = Pty::open(Size::new(7, 33)).unwrap();
        assert_eq!(Size::of(&pty.terminal), Some(Size::new(7, 33)));
        resize(&pty.master, Size::new(50, 120)).unwrap();
        assert_eq!(Size::of(&pty.terminal), Some(Size::new(50, 120)));
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        assert_eq!(Size::of(&pipe), None);
        assert_eq!(resize(&pipe, Size::default()).unwrap_err().errno(), Some(nix::errno::Errno::ENOTTY));
    }
}
