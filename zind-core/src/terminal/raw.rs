//! [`Raw`]: the caller's terminal, handing on every key as it is.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

use crate::error::{At, Result, Step};

/// A terminal in raw mode; dropped, also by a panic, it is as it was before.
///
/// A signal that ends the process drops nothing: who wants the terminal restored then takes such signals by
/// [`Signals`](super::Signals), and lets this go before ending.
#[derive(Debug)]
pub struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Sets raw mode: no echo, no line editing, Ctrl-C and Ctrl-Z are characters like others. `None` for what is no terminal.
    ///
    /// Errors: [`Error::Sys`](crate::Error::Sys) at [`Step::Terminal`].
    /// Source: `cfmakeraw` in <https://man7.org/linux/man-pages/man3/termios.3.html>
    pub fn enter(terminal: impl AsFd) -> Result<Option<Raw>> {
        let terminal = terminal.as_fd();
        if !isatty(terminal) {
            return Ok(None);
        }
        let before = tcgetattr(terminal).at(Step::Terminal, "tcgetattr", "")?;
        let raw = Raw { terminal: terminal.try_clone_to_owned().at(Step::Terminal, "dup", "")?, before };
        raw.resume()?;
        Ok(Some(raw))
    }

    /// As it was before, until [`Raw::resume`]: for a caller that stops itself meanwhile.
    ///
    /// Errors: as of [`Raw::enter`].
    pub fn suspend(&self) -> Result<()> {
        self.set(&self.before)
    }

    /// Raw again.
    ///
    /// Errors: as of [`Raw::enter`].
    pub fn resume(&self) -> Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        self.set(&raw)
    }

    fn set(&self, mode: &Termios) -> Result<()> {
        // At once: waiting until all output is shown could take for ever. What is typed meanwhile is kept.
        let set = rustix::io::retry_on_intr(|| tcsetattr(&self.terminal, OptionalActions::Now, mode));
        set.at(Step::Terminal, "tcsetattr", "")
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = self.suspend();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use rustix::termios::LocalModes;

    use super::*;
    use crate::terminal::{Pty, Size};

    #[test]
    fn the_mode_comes_back_on_every_way_out() {
        let pty = Pty::open(Size::default()).unwrap();
        let is_raw =
            || !tcgetattr(&pty.terminal).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO);
        assert!(!is_raw());
        let raw = Raw::enter(&pty.terminal).unwrap().unwrap();
        assert!(is_raw());
        raw.suspend().unwrap();
        assert!(!is_raw());
        raw.resume().unwrap();
        assert!(is_raw());
        drop(raw);
        assert!(!is_raw());
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _raw = Raw::enter(&pty.terminal).unwrap();
            assert!(is_raw());
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err() && !is_raw());
    }

    #[test]
    fn what_is_no_terminal_is_left_alone() {
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        assert!(Raw::enter(&pipe).unwrap().is_none());
    }
}
