//! Signals as a descriptor: no handler, no global state.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::failure::{Failure, Result};

/// A signal that came.
#[derive(Clone, Copy)]
pub struct Came {
    /// Its number.
    pub number: i32,
    /// The kernel sent it: a key of the terminal, or its end.
    pub is_of_terminal: bool,
}

impl Came {
    /// It asks to end.
    pub fn ends(self) -> bool {
        self.number == Signal::SIGINT as i32 || self.number == Signal::SIGTERM as i32
    }
}

/// `si_code` of what the kernel sends by itself: sigaction(2).
const SI_KERNEL: i32 = 0x80;

/// Signals that are held back and read instead.
pub struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Those that ask to end.
    pub const ENDING: &[Signal] = &[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    /// Those that are passed on to a program in the foreground.
    pub const PASSED_ON: &[Signal] = &[
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGCONT,
    ];

    /// Holds these back from now on. To be called before the first thread.
    pub fn hold(signals: &[Signal]) -> Result<Signals> {
        let set: SigSet = signals.iter().copied().collect();
        let fail = |errno: nix::errno::Errno| Failure::new(format!("hold signals back: {}", errno.desc()));
        set.thread_block().map_err(fail)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals { descriptor: SignalFd::with_flags(&set, flags).map_err(fail)? })
    }

    /// The next one that came.
    pub fn next(&self) -> Option<Came> {
        let info = self.descriptor.read_signal().ok().flatten()?;
        Some(Came { number: info.ssi_signo as i32, is_of_terminal: info.ssi_code == SI_KERNEL })
    }

    /// Becomes readable when one comes.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
