//! [`Report`]: what the launcher tells the library, one fixed-size message at a time.

use crate::step::Step;

/// A milestone or a failure: which step, which element of it, and the errno or exit value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Report {
    /// The number of a [`Step`].
    pub step: u16,
    /// Which element of a list the step was at (the mount, the limit, the descriptor); of `Started` 1 if the root was moved
    /// over the old one; of `Signaled` [`KILLED_FOR_MEMORY`], [`SPARED`], or 0 where nobody can tell.
    pub index: u16,
    /// `errno(3)` of a failure; the exit code or signal number of an end; a pid for `Ready`.
    pub value: i32,
    /// What the container used, in a report of its end.
    pub usage: Usage,
}

/// Resource usage of the payload and everything it waited for: `getrusage(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Usage {
    /// CPU time in user mode, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_us: u64,
    /// The largest resident set of one process, in bytes.
    pub max_rss: u64,
}

impl Usage {
    /// Nothing used, nothing known.
    pub const NONE: Usage = Usage { user_us: 0, system_us: 0, max_rss: 0 };
}

impl Report {
    /// A report without usage.
    pub const fn new(step: Step, index: usize, value: i32) -> Report {
        Report { step: step as u16, index: index as u16, value, usage: Usage::NONE }
    }

    /// True for a milestone, false for a failure.
    pub const fn is_milestone(&self) -> bool {
        self.step < 20
            || self.step == Step::HandedTerminal as u16
            || self.step == Step::HandedListener as u16
            || self.step == Step::LookAtMe as u16
    }
}

/// SIGKILL came from the kernel, because memory ran out.
pub const KILLED_FOR_MEMORY: usize = 1;
/// SIGKILL came from somebody else, whether or not memory ran out before.
pub const SPARED: usize = 2;

/// How many bytes one report has on the socket.
pub const REPORT_SIZE: usize = core::mem::size_of::<Report>();

/// The word that lets a waiting launcher go on; every other byte the library sends is a signal number.
pub const GO: u8 = 0;
