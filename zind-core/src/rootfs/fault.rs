//! [`Fault`]: a call that failed, before it is known what it was about.
#![forbid(unsafe_code)]

use std::path::Path;

use rustix::io::Errno;

use crate::error::{Error, IntoErrno, Step};

/// A refusal of the kernel: the call, the errno, and a hint where there is more to say than the errno does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) call: &'static str,
    pub(crate) errno: Errno,
    pub(crate) hint: &'static str,
}

impl Fault {
    pub(crate) fn new(call: &'static str, errno: Errno) -> Fault {
        Fault { call, errno, hint: "" }
    }

    pub(crate) fn hint(self, hint: &'static str) -> Fault {
        Fault { hint, ..self }
    }

    /// The error that callers see.
    pub(crate) fn at(self, step: Step, path: &Path) -> Error {
        let error = Error::sys(step, self.call, path, self.errno.into_errno());
        let hint = if self.hint.is_empty() { usual_hint(self.errno) } else { self.hint };
        if hint.is_empty() { error } else { error.with_hint(hint) }
    }
}

/// What an errno mostly means where files are copied.
fn usual_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::OVERFLOW => {
            "the file system belongs to a user namespace in which this user or the file's owner has no id"
        }
        Errno::BUSY => "something is mounted there, so it cannot be replaced",
        Errno::XDEV => "the path leads out of the root",
        Errno::ISDIR => "there is a directory, which a file does not replace",
        _ => "",
    }
}

/// Names the call that failed.
pub(crate) trait By<T> {
    fn by(self, call: &'static str) -> Result<T, Fault>;
}

impl<T> By<T> for rustix::io::Result<T> {
    fn by(self, call: &'static str) -> Result<T, Fault> {
        self.map_err(|errno| Fault::new(call, errno))
    }
}
