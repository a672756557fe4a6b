//! A container in the foreground: its streams are the caller's, signals are passed on, its end is the exit status.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zind_core::terminal::{Left, Raw, Relay, Signals as TerminalSignals};
use zind_core::{Exit, ExitKind, Process, Spec};

use super::found;
use crate::Context;
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

/// Runs it to its end. `context`: of a container of its own, which others find.
pub fn run(spec: Spec, terminal: Terminal, context: Option<&Context>) -> Result {
    run_and(spec, terminal, context, |_| Ok(()))
}

/// The same, and `then` whatever its end was.
pub fn run_and(
    spec: Spec,
    terminal: Terminal,
    context: Option<&Context>,
    then: impl FnOnce(&Process) -> Result<()>,
) -> Result {
    let holds = terminal != Terminal::Apart { passes_signals: false };
    let signals = holds.then(|| Signals::hold(Signals::PASSED_ON)).transpose()?;
    let deadline = spec.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let process = zind_core::Command::from(spec).spawn()?;
    process.expect_no_questions()?;
    let signals = signals.as_ref();
    let end = match context {
        Some(context) if !found::ends_soon(&process, signals) => std::thread::scope(|scope| {
            let _found = found::let_others(scope, &process, context);
            stay(&process, signals, terminal, deadline)
        }),
        _ => stay(&process, signals, terminal, deadline),
    };
    then(&process)?;
    end
}

/// Stays with a running program until it ends.
pub fn stay(process: &Process, signals: Option<&Signals>, terminal: Terminal, deadline: Option<Instant>) -> Result {
    let exit = match signals {
        Some(signals) => attend(process, signals, terminal, deadline)?,
        None => ended(process)?,
    };
    told(exit)
}

/// The exit status; a word on stderr where the status alone does not tell.
pub fn told(exit: Exit) -> Result {
    match exit.kind {
        ExitKind::Timeout => Err(Failure::new("the time limit was over").code(status(exit))),
        ExitKind::Oom => Err(Failure::new("the container ran out of memory and was killed")
            .hint("give it more with --memory")
            .code(status(exit))),
        _ => Ok(status(exit)),
    }
}

/// Stays with a program that has a terminal of its own, until it ends.
/// `context`: of a container of its own, which others find.
pub fn in_terminal(process: &Process, interactive: bool, context: Option<&Context>) -> Result {
    // Before there is another thread that they could come to.
    let signals = TerminalSignals::take(&OF_OUTSIDE)?;
    std::thread::scope(|scope| {
        let _found = context.and_then(|context| found::let_others(scope, process, context));
        relay(process, interactive, &signals)
    })
}

fn relay(process: &Process, interactive: bool, signals: &TerminalSignals) -> Result {
    let Some(master) = process.take_terminal() else { return told(ended(process)?) };
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let raw = if interactive && stdin.is_terminal() { Raw::enter(&stdin)? } else { None };
    let end = process.end_fd();
    let mut relay =
        Relay::new(interactive.then(|| stdin.as_fd()), stdout.as_fd(), master.as_fd()).ended(end).signals(signals);
    let left = loop {
        match relay.run(&mut || false)? {
            Left::Signal(SIGCONT) => go_on(raw.as_ref()),
            Left::Signal(signal) => drop(process.signal(signal)),
            left => break left,
        }
    };
    drop(relay);
    drop(raw);
    if left == Left::Gone {
        // As a shell ends when its terminal does.
        drop(master);
    }
    told(outlast(process, signals)?)
}

/// After a stop the shell has set the terminal as it likes it. The kernel sends SIGCONT, too, after SIGHUP, to who has lost its terminal:
/// that it is gone shows where it is read.
pub fn go_on(raw: Option<&Raw>) {
    if let Some(raw) = raw {
        let _ = raw.resume();
    }
}

/// Without a terminal any more: it has ended, or has let go of it, or goes on though the terminal is gone.
fn outlast(process: &Process, signals: &TerminalSignals) -> Result<Exit> {
    loop {
        if let Some(exit) = process.try_wait()? {
            return Ok(exit);
        }
        let end = process.end_fd();
        let mut both = [PollFd::new(&end, PollFlags::IN), PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN)];
        match poll(&mut both, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Failure::new(format!("wait for the container: {errno}"))),
        }
        while let Some(signal) = signals.next() {
            if signal != SIGWINCH {
                // It may have ended meanwhile.
                let _ = process.signal(signal);
            }
        }
    }
}

/// What comes from outside the terminal: HUP, INT, QUIT, TERM; the size of the window; going on after a stop.
pub const OF_OUTSIDE: [i32; 6] = [SIGHUP, 2, 3, 15, SIGWINCH, SIGCONT];
pub const SIGHUP: i32 = 1;
pub const SIGCONT: i32 = 18;
const SIGWINCH: i32 = 28;

fn ended(process: &Process) -> Result<Exit> {
    Ok(process.wait(None)?.ok_or(zind_core::Error::Interrupted)?)
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
