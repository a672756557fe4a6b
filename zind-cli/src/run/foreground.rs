//! A container in the foreground: its streams are the caller's, signals are passed on, its end is the exit status.
#![forbid(unsafe_code)]

use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zind_core::{Exit, ExitKind, Process, Spec};

use crate::failure::{Failure, Result};
use crate::signals::Signals;

/// The second and the third of these in a row mean it.
const MEANT: u32 = 3;

/// How the program stands to the caller's terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// In the same session: what the terminal sends, it gets by itself.
    Shared,
    /// In a session of its own.
    Apart {
        /// It gets the signals that zind gets.
        passes_signals: bool,
    },
}

/// Runs it to its end.
pub fn run(spec: Spec, terminal: Terminal) -> Result {
    let holds = terminal != Terminal::Apart { passes_signals: false };
    let signals = holds.then(|| Signals::hold(Signals::PASSED_ON)).transpose()?;
    let deadline = spec.timeout.map(|timeout| (Instant::now() + timeout, timeout));
    let process = zind_core::Command::from(spec).spawn()?;
    let exit = match &signals {
        Some(signals) => attend(&process, signals, terminal, deadline.map(|(at, _)| at))?,
        None => process.wait(None)?.ok_or(zind_core::Error::Interrupted)?,
    };
    match (exit.kind, deadline) {
        (ExitKind::Timeout, Some((_, timeout))) => {
            Err(Failure::new(format!("the time limit of {timeout:?} was over")).code(status(exit)))
        }
        (ExitKind::Oom, _) => Err(Failure::new("the container ran out of memory and was killed")
            .hint("give it more with --memory")
            .code(status(exit))),
        _ => Ok(status(exit)),
    }
}

/// Docker's: the code, or 128 and the signal.
pub fn status(exit: Exit) -> u8 {
    exit.code.map_or_else(|| 128 + exit.signal.unwrap_or(9) as u8, |code| code as u8)
}

/// Passes signals on until it has ended.
fn attend(process: &Process, signals: &Signals, terminal: Terminal, deadline: Option<Instant>) -> Result<Exit> {
    let mut asked = 0;
    loop {
        if let Some(exit) = process.try_wait()? {
            return Ok(exit);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            process.expire()?;
            return Ok(process.wait(None)?.ok_or(zind_core::Error::Interrupted)?);
        }
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let end = process.end_fd();
        let mut both = [PollFd::new(&end, PollFlags::IN), PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN)];
        match poll(&mut both, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Failure::new(format!("wait for the container: {errno}"))),
        }
        while let Some(signal) = signals.next() {
            if terminal == Terminal::Shared && signal.is_of_terminal {
                continue;
            }
            asked += u32::from(signal.ends());
            if asked >= MEANT && terminal != Terminal::Shared {
                process.kill()?;
            } else {
                // It may have ended meanwhile.
                let _ = process.signal(signal.number);
            }
        }
    }
}
