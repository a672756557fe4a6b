//! [`Error`]: which step, on what object, which errno, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
pub use zind_init::step::Step;

use crate::process::Exit;

/// `Result` with zind's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, as data.
///
/// A variant says what the caller can do; [`Error::step`] says where it happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused. Nothing of the container is left.
    #[error("{}", SysMessage { step: *step, syscall, object, errno: *errno, hint })]
    Sys {
        /// What zind was doing.
        step: Step,
        /// The system call, `"openat2"`; empty where a step is more than one call.
        syscall: &'static str,
        /// The path, name or number it was about; may be empty.
        object: PathBuf,
        /// The errno of the call.
        errno: Errno,
        /// What to do; may be empty.
        hint: String,
    },
    /// The request breaks a rule; nothing on the host was touched.
    #[error("{field}: {rule}")]
    Spec {
        /// The option, by its public name: `"uid_map"`, `"argv"`.
        field: &'static str,
        /// The rule that is broken, with the offending value.
        rule: String,
    },
    /// This machine or user cannot do what was asked for.
    #[error("{feature} is not available here: {needs}")]
    Unsupported {
        /// What was asked for, in the words of `require` and `isolation`.
        feature: String,
        /// What it would take.
        needs: String,
    },
    /// The object is in a state that does not allow the call.
    #[error("{0}")]
    State(String),
    /// There is no such thing.
    #[error("{what} not found: {name}")]
    NotFound {
        /// The kind of thing: `"process"`, `"user"`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// There is one of that name already.
    #[error("{what} exists: {name}")]
    Exists {
        /// The kind of thing: `"container"`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A registry, or the way to it, refused; what was fetched whole until then is kept in the store.
    #[error("{}", RegistryMessage { registry, status: *status, code, detail, hint })]
    Registry {
        /// The registry, as host and port, or the host that was reached in its place.
        registry: String,
        /// The HTTP status; `None` where there was no answer.
        status: Option<u16>,
        /// The code of the OCI distribution-spec: `"MANIFEST_UNKNOWN"`, `"UNAUTHORIZED"`; or zind's own in small letters:
        /// `"dns"`, `"connect"`, `"tls"`, `"timeout"`, `"protocol"`, `"redirect"`, `"content"`, `"proxy"`.
        code: String,
        /// What happened, to what.
        detail: String,
        /// What to do; may be empty.
        hint: String,
    },
    /// An image, a layer or an archive is not what it should be: a wrong digest, a broken or hostile entry, a document
    /// beyond the limits. Nothing of it is used.
    #[error("{what}: {rule}")]
    Image {
        /// Which blob and which entry in it: `"layer sha256:1f…, entry etc/passwd"`. Foreign names are escaped.
        what: String,
        /// The rule that is broken, with the offending value.
        rule: String,
    },
    /// A program that had to succeed did not.
    #[error("{what}: {argv:?} {}", ended(*exit))]
    Failed {
        /// What it was part of: `"step 3 of the build"`.
        what: String,
        /// The program and its arguments.
        argv: Vec<String>,
        /// How it ended.
        exit: Exit,
    },
    /// The time allowed was over.
    #[error("timed out after {:?}", .0)]
    Timeout(std::time::Duration),
    /// The wait was interrupted by the caller (a signal handler asked to stop).
    #[error("interrupted")]
    Interrupted,
}

fn ended(exit: Exit) -> String {
    match (exit.code, exit.signal) {
        (Some(code), _) => format!("exited with {code}"),
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

struct SysMessage<'a> {
    step: Step,
    syscall: &'a str,
    object: &'a Path,
    errno: Errno,
    hint: &'a str,
}

impl fmt::Display for SysMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.step.words())?;
        if !self.object.as_os_str().is_empty() {
            write!(f, " {}", self.object.display())?;
        }
        write!(f, ": {} ({})", describe(self.errno), ErrnoName(self.errno))?;
        if !self.syscall.is_empty() {
            write!(f, " from {}", self.syscall)?;
        }
        write!(f, "; {}", if self.hint.is_empty() { usual_cause(self.errno) } else { self.hint })
    }
}

struct RegistryMessage<'a> {
    registry: &'a str,
    status: Option<u16>,
    code: &'a str,
    detail: &'a str,
    hint: &'a str,
}

impl fmt::Display for RegistryMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "registry {}: {} ({}", self.registry, self.detail, self.code)?;
        if let Some(status) = self.status {
            write!(f, ", HTTP {status}")?;
        }
        f.write_str(")")?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

/// What `strerror(3)` says: `"No such file or directory"`.
pub fn describe(errno: Errno) -> String {
    let text = io::Error::from_raw_os_error(errno as i32).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// What an errno mostly means, where nothing more is known.
fn usual_cause(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT => "there is no such file or directory",
        Errno::ENOTDIR => "a part of the path is no directory",
        Errno::EISDIR => "it is a directory",
        Errno::ELOOP => "there is a symbolic link where none may be, or too many of them",
        Errno::EEXIST => "it is there already",
        Errno::EACCES => "its permissions do not allow it to this user",
        Errno::EPERM => {
            "this user lacks the privilege, or a filter around this process refuses the call; doctor() tells what it may do here"
        }
        Errno::EROFS => "the file system is read-only",
        Errno::ENOSPC => "the disk, or a limit of the kernel, is full",
        Errno::EDQUOT => "the disk quota is used up",
        Errno::ENOMEM => "memory ran out, or a limit of it is reached",
        Errno::EMFILE => "this process has as many files open as it may: RLIMIT_NOFILE",
        Errno::ENFILE => "the system has as many files open as it may: fs.file-max",
        Errno::EAGAIN => {
            "a limit is reached for now: of processes (pids of the container, RLIMIT_NPROC), memory or locks"
        }
        Errno::EBADF => "the descriptor is not open, or not for this",
        Errno::EBUSY => "it is in use",
        Errno::ENOSYS => "this kernel, or a filter around this process, does not have the call",
        Errno::ENODEV | Errno::EOPNOTSUPP => "this kernel or file system cannot do it",
        Errno::ESRCH => "there is no such process any more",
        Errno::EINVAL => "the kernel finds no sense in the arguments",
        _ => "see the man page of the call, and docs/steps.md for the step",
    }
}

struct ErrnoName(Errno);

impl fmt::Display for ErrnoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Errno::UnknownErrno => f.write_str("unknown errno"),
            known => write!(f, "{known:?}"),
        }
    }
}

impl Error {
    /// A refusal of the kernel.
    pub fn sys(step: Step, syscall: &'static str, object: impl Into<PathBuf>, errno: Errno) -> Error {
        Error::Sys { step, syscall, object: object.into(), errno, hint: String::new() }
    }

    /// A broken rule of the request.
    pub fn spec(field: &'static str, rule: impl Into<String>) -> Error {
        Error::Spec { field, rule: rule.into() }
    }

    /// A broken image, layer or archive.
    pub fn image(what: impl Into<String>, rule: impl Into<String>) -> Error {
        Error::Image { what: what.into(), rule: rule.into() }
    }

    /// Something this machine or user cannot do.
    pub fn unsupported(feature: impl Into<String>, needs: impl Into<String>) -> Error {
        Error::Unsupported { feature: feature.into(), needs: needs.into() }
    }

    /// The same error with a hint; errors that carry none stay as they are.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Error {
        if let Error::Sys { hint, .. } | Error::Registry { hint, .. } = &mut self {
            *hint = text.into();
        }
        self
    }

    /// What zind was doing, where a step failed.
    pub fn step(&self) -> Option<Step> {
        match self {
            Error::Sys { step, .. } => Some(*step),
            _ => None,
        }
    }

    /// The errno of the call that failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Sys { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// The name of the system call that failed.
    pub fn syscall(&self) -> Option<&'static str> {
        match self {
            Error::Sys { syscall, .. } if !syscall.is_empty() => Some(syscall),
            _ => None,
        }
    }

    /// The path or object of the failure.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Error::Sys { object, .. } if !object.as_os_str().is_empty() => Some(object),
            _ => None,
        }
    }

    /// The option that breaks a rule.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Error::Spec { field, .. } => Some(field),
            _ => None,
        }
    }

    /// The registry that refused, the HTTP status, and the code.
    pub fn registry(&self) -> Option<(&str, Option<u16>, &str)> {
        match self {
            Error::Registry { registry, status, code, .. } => Some((registry, *status, code)),
            _ => None,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Sys { hint, errno, .. } if hint.is_empty() => Some(usual_cause(*errno)),
            Error::Sys { hint, .. } => Some(hint),
            Error::Unsupported { needs, .. } => Some(needs),
            Error::Registry { hint, .. } if !hint.is_empty() => Some(hint),
            _ => None,
        }
    }
}

/// Makes a call again that a signal has interrupted.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Turns a failed call into an [`Error::Sys`] with its step, call and object.
pub trait At<T> {
    /// Names what was being done, by which call, to what.
    fn at(self, step: Step, syscall: &'static str, object: impl AsRef<Path>) -> Result<T>;
}

/// Errors of other crates that are an errno at heart.
pub trait IntoErrno {
    /// The errno; `EIO` where there is none.
    fn into_errno(self) -> Errno;
}

impl IntoErrno for Errno {
    fn into_errno(self) -> Errno {
        self
    }
}

impl IntoErrno for rustix::io::Errno {
    fn into_errno(self) -> Errno {
        Errno::from_raw(self.raw_os_error())
    }
}

impl IntoErrno for io::Error {
    fn into_errno(self) -> Errno {
        self.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
    }
}

impl<T, E: IntoErrno> At<T> for std::result::Result<T, E> {
    fn at(self, step: Step, syscall: &'static str, object: impl AsRef<Path>) -> Result<T> {
        self.map_err(|error| Error::sys(step, syscall, object.as_ref(), error.into_errno()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_step_object_errno_call_and_hint() {
        let error = Error::sys(Step::Mount, "move_mount", "/proc", Errno::EPERM).with_hint("run as root");
        assert_eq!(error.to_string(), "mount /proc: Operation not permitted (EPERM) from move_mount; run as root");
    }

    #[test]
    fn a_registrys_message_names_it_and_what_it_says() {
        let error = Error::Registry {
            registry: "r.test:5000".into(),
            status: Some(404),
            code: "MANIFEST_UNKNOWN".into(),
            detail: "manifest a:1: manifest unknown".into(),
            hint: "check the tag".into(),
        };
        let text = "registry r.test:5000: manifest a:1: manifest unknown (MANIFEST_UNKNOWN, HTTP 404); check the tag";
        assert_eq!(error.to_string(), text);
        assert_eq!(error.registry(), Some(("r.test:5000", Some(404), "MANIFEST_UNKNOWN")));
        assert_eq!(error.hint(), Some("check the tag"));
    }

    #[test]
    fn io_errors_keep_their_errno() {
        let result: Result<()> =
            Err(io::Error::from_raw_os_error(libc::ENOSPC)).at(Step::WriteFile, "write", "/etc/hosts");
        assert_eq!(result.unwrap_err().errno(), Some(Errno::ENOSPC));
    }
}
