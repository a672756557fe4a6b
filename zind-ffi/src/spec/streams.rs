//! Setters: the standard streams and passed descriptors.

use std::ffi::c_char;
use std::sync::Arc;

use zind_core::terminal::Size;
use zind_core::{Error, Stdio};

use super::{set, zind_spec};
use crate::error::{zind_error, zind_status};
use crate::guard::Outcome;
use crate::strings::{duplicate, path};

/// Where a standard stream goes. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum zind_stdio {
    /// The caller's own stream of the same number: the default.
    Inherit = 0,
    /// /dev/null
    Null = 1,
    /// A pipe; the caller takes the other end from the zind_process.
    Pipe = 2,
    /// For stderr: wherever stdout goes.
    Stdout = 3,
}

/// The stream of a number that may be anything.
fn stdio(field: &'static str, how: i32) -> Outcome<Stdio> {
    const INHERIT: i32 = zind_stdio::Inherit as i32;
    const NULL: i32 = zind_stdio::Null as i32;
    const PIPE: i32 = zind_stdio::Pipe as i32;
    const STDOUT: i32 = zind_stdio::Stdout as i32;
    match how {
        INHERIT => Ok(Stdio::Inherit),
        NULL => Ok(Stdio::Null),
        PIPE => Ok(Stdio::Pipe),
        STDOUT => Ok(Stdio::Stdout),
        other => Err(Error::spec(field, format!("{other} is no zind_stdio")).into()),
    }
}

/// A terminal of this size in place of the three streams, the controlling one of a session of its own. Its other end is
/// zind_process_take_terminal(). rows, cols: lines, and characters in a line; 0 and 0: no terminal, the default.
/// Returns also ZIND_STATUS_SPEC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_terminal(
    spec: *mut zind_spec,
    rows: u16,
    cols: u16,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            if (rows == 0) != (cols == 0) {
                return Err(Error::spec("terminal", format!("{rows} lines of {cols} characters is no size")).into());
            }
            spec.terminal = (rows > 0).then(|| Size::new(rows, cols));
            Ok(())
        })
    }
}

/// Standard input. how: a zind_stdio. Returns also ZIND_STATUS_SPEC for another number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_stdin(spec: *mut zind_spec, how: i32, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.stdin = stdio("stdin", how)?;
            Ok(())
        })
    }
}

/// Standard input is this descriptor.
/// fd: borrowed; the spec keeps a duplicate. Returns also ZIND_STATUS_SYS (EBADF).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_stdin_fd(
    spec: *mut zind_spec,
    fd: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.stdin = Stdio::Fd(Arc::new(duplicate(fd)?));
            Ok(())
        })
    }
}

/// Standard input is a file of the caller's, opened for reading at the start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_stdin_file(
    spec: *mut zind_spec,
    path: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.stdin = Stdio::File(self::path(path, "path")?.into());
            Ok(())
        })
    }
}

/// Standard output. how: a zind_stdio. Returns also ZIND_STATUS_SPEC for another number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_stdout(
    spec: *mut zind_spec,
    how: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.stdout = stdio("stdout", how)?;
            Ok(())
        })
    }
}

/// Standard output is this descriptor.
/// fd: borrowed; the spec keeps a duplicate, which holds a pipe open for its reader until the spec is freed or set
/// otherwise. Returns also ZIND_STATUS_SYS (EBADF).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_stdout_fd(
    spec: *mut zind_spec,
    fd: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.stdout = Stdio::Fd(Arc::new(duplicate(fd)?));
            Ok(())
        })
    }
}

/// Standard output is a file of the caller's, created or emptied at the start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_stdout_file(
    spec: *mut zind_spec,
    path: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.stdout = Stdio::File(self::path(path, "path")?.into());
            Ok(())
        })
    }
}

/// Standard error. how: a zind_stdio. Returns also ZIND_STATUS_SPEC for another number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_stderr(
    spec: *mut zind_spec,
    how: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.stderr = stdio("stderr", how)?;
            Ok(())
        })
    }
}

/// Standard error is this descriptor.
/// fd: borrowed; the spec keeps a duplicate, which holds a pipe open for its reader until the spec is freed or set
/// otherwise. Returns also ZIND_STATUS_SYS (EBADF).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_stderr_fd(
    spec: *mut zind_spec,
    fd: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.stderr = Stdio::Fd(Arc::new(duplicate(fd)?));
            Ok(())
        })
    }
}

/// Standard error is a file of the caller's, created or emptied at the start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_stderr_file(
    spec: *mut zind_spec,
    path: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.stderr = Stdio::File(self::path(path, "path")?.into());
            Ok(())
        })
    }
}

/// The payload gets this descriptor under the same number; all others but the standard streams are closed.
/// fd: a number from 3 on. Only the number is kept: it must be open at the start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_pass_fd(spec: *mut zind_spec, fd: i32, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            if !spec.pass_fds.contains(&fd) {
                spec.pass_fds.push(fd);
            }
            Ok(())
        })
    }
}
