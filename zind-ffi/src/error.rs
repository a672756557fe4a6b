//! `zind_status` and `zind_error`: what went wrong, as a number, as text, and as its parts.

use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;

use zind_core::Error;

use crate::guard::{Failure, free, quiet};
use crate::strings::c_string;

/// What a function returns. Numbers are never reused, and new ones come at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum zind_status {
    /// Done.
    Ok = 0,
    /// An argument is NULL that must not be.
    Null = 1,
    /// A name is not UTF-8.
    Utf8 = 2,
    /// An option breaks a rule, see zind_error_field(); nothing was touched.
    Spec = 3,
    /// The kernel refused, see zind_error_step(), _syscall(), _errno(), _path(); nothing of the container is left.
    Sys = 4,
    /// This machine or user cannot do what was asked for.
    Unsupported = 5,
    /// The handle is in a state that does not allow the call.
    State = 6,
    /// There is no such thing.
    NotFound = 7,
    /// The time allowed was over.
    Timeout = 8,
    /// The caller's function asked to stop.
    Interrupted = 9,
    /// A bug in zind.
    Panic = 10,
    /// An image, a layer or an archive is broken or hostile; nothing of it is used.
    Image = 11,
    /// A registry refused, or could not be reached, see zind_error_registry(), _registry_status(), _registry_code().
    Registry = 12,
    /// A program that had to exit with 0 did not: a step of a build.
    Failed = 13,
    /// There is one of that name already.
    Exists = 14,
}

const STATUS_NAMES: [&std::ffi::CStr; 15] = [
    c"ok",
    c"null",
    c"utf8",
    c"spec",
    c"sys",
    c"unsupported",
    c"state",
    c"not_found",
    c"timeout",
    c"interrupted",
    c"panic",
    c"image",
    c"registry",
    c"failed",
    c"exists",
];

/// What went wrong. All its strings are borrowed from it until zind_error_free().
pub struct zind_error {
    status: zind_status,
    message: CString,
    step: Option<(i32, CString)>,
    syscall: Option<CString>,
    errno: i32,
    path: Option<CString>,
    field: Option<CString>,
    hint: Option<CString>,
    registry: Option<(CString, CString)>,
    http_status: i32,
}

impl Failure {
    pub(crate) fn status(&self) -> zind_status {
        match self {
            Failure::Null(_) => zind_status::Null,
            Failure::Utf8(_) => zind_status::Utf8,
            Failure::Panic(_) => zind_status::Panic,
            Failure::Core(error) => match error {
                Error::Sys { .. } => zind_status::Sys,
                Error::Spec { .. } => zind_status::Spec,
                Error::Unsupported { .. } => zind_status::Unsupported,
                Error::NotFound { .. } => zind_status::NotFound,
                Error::Exists { .. } => zind_status::Exists,
                Error::Timeout(_) => zind_status::Timeout,
                Error::Image { .. } => zind_status::Image,
                Error::Registry { .. } => zind_status::Registry,
                Error::Failed { .. } => zind_status::Failed,
                Error::Interrupted => zind_status::Interrupted,
                // Also what a later engine adds.
                _ => zind_status::State,
            },
        }
    }
}

impl zind_error {
    pub(crate) fn new(failure: Failure) -> zind_error {
        let status = failure.status();
        let plain = |message: String, field: Option<&str>| zind_error {
            status,
            message: c_string(message),
            step: None,
            syscall: None,
            errno: 0,
            path: None,
            field: field.map(c_string),
            hint: None,
            registry: None,
            http_status: 0,
        };
        match failure {
            Failure::Null(name) => plain(format!("{name}: is NULL"), Some(name)),
            Failure::Utf8(name) => plain(format!("{name}: is not UTF-8"), Some(name)),
            Failure::Panic(words) => plain(format!("bug in zind: {words}"), None),
            Failure::Core(error) => zind_error {
                step: error.step().map(|step| (step as i32, c_string(step.name()))),
                syscall: error.syscall().map(c_string),
                errno: error.errno().map_or(0, |errno| errno as i32),
                path: error.path().map(|path| c_string(path.as_os_str().as_bytes())),
                hint: error.hint().map(c_string),
                registry: error.registry().map(|(name, _, code)| (c_string(name), c_string(code))),
                http_status: error.registry().and_then(|(_, status, _)| status).map_or(0, i32::from),
                ..plain(error.to_string(), error.field())
            },
        }
    }
}

/// The name of a status: "ok", "not_found"; "unknown" for a number this library does not know. Static; never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn zind_status_name(status: i32) -> *const c_char {
    let name = usize::try_from(status).ok().and_then(|number| STATUS_NAMES.get(number));
    name.map_or(c"unknown".as_ptr(), |name| name.as_ptr())
}

/// Reads one part of an error; `otherwise` for NULL.
///
/// # Safety
/// `error` is NULL or live.
unsafe fn part<T>(error: *const zind_error, otherwise: T, read: impl FnOnce(&zind_error) -> Option<T>) -> T {
    // SAFETY: the caller's promise.
    let error = unsafe { error.as_ref() };
    quiet(None, || error.and_then(read)).unwrap_or(otherwise)
}

/// The address of one string of an error; NULL where there is none.
///
/// # Safety
/// `error` is NULL or live.
unsafe fn string(error: *const zind_error, read: impl FnOnce(&zind_error) -> Option<&CString>) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { part(error, std::ptr::null(), |error| read(error).map(|string| string.as_ptr())) }
}

/// The status of the call that failed; ZIND_STATUS_OK for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_error_status(error: *const zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { part(error, zind_status::Ok, |error| Some(error.status)) }
}

/// What happened, to what, why, and what to do, in one line: "execute the program nope: No such file or directory
/// (ENOENT) from execve; ...". Borrowed from the error; "" for NULL, never NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_error_message(error: *const zind_error) -> *const c_char {
    // SAFETY: the header's demand.
    unsafe { part(error, c"".as_ptr(), |error| Some(error.message.as_ptr())) }
}

/// What zind was doing, as a stable name: "Exec", "Mount". Borrowed from the error; NULL if no step failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_error_step(error: *const zind_error) -> *const c_char {
    // SAFETY: the header's demand.
    unsafe { string(error, |error| error.step.as_ref().map(|(_, name)| name)) }
}

/// The stable number of the step; 0 if no step failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_error_step_number(error: *const zind_error) -> i32 {
    // SAFETY: the header's demand.
    unsafe { part(error, 0, |error| error.step.as_ref().map(|(number, _)| *number)) }
}

/// The system call that failed: "openat2". Borrowed from the error; NULL if there is none, or more than one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_error_syscall(error: *const zind_error) -> *const c_char {
    // SAFETY: the header's demand.
    unsafe { string(error, |error| error.syscall.as_ref()) }
}

/// The errno(3) of that call; 0 if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_error_errno(error: *const zind_error) -> i32 {
    // SAFETY: the header's demand.
    unsafe { part(error, 0, |error| Some(error.errno)) }
}

/// The path, name or number that it was about. Borrowed from the error; NULL if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_error_path(error: *const zind_error) -> *const c_char {
    // SAFETY: the header's demand.
    unsafe { string(error, |error| error.path.as_ref()) }
}

/// The option or argument that breaks a rule: "uid_map", "argv". Borrowed from the error; NULL if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_error_field(error: *const zind_error) -> *const c_char {
    // SAFETY: the header's demand.
    unsafe { string(error, |error| error.field.as_ref()) }
}

/// What to do about it. Borrowed from the error; NULL if zind does not know.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_error_hint(error: *const zind_error) -> *const c_char {
    // SAFETY: the header's demand.
    unsafe { string(error, |error| error.hint.as_ref()) }
}

/// The registry that refused, as host and port. Borrowed from the error; NULL if it was none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_error_registry(error: *const zind_error) -> *const c_char {
    // SAFETY: the header's demand.
    unsafe { string(error, |error| error.registry.as_ref().map(|(name, _)| name)) }
}

/// The code of its refusal: one of the distribution-spec's ("MANIFEST_UNKNOWN", "UNAUTHORIZED"), or in small letters zind's own
/// ("dns", "connect", "tls", "timeout", "proxy", "redirect", "protocol", "content"). Borrowed from the error; NULL if it
/// was none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_error_registry_code(error: *const zind_error) -> *const c_char {
    // SAFETY: the header's demand.
    unsafe { string(error, |error| error.registry.as_ref().map(|(_, code)| code)) }
}

/// The HTTP status of its refusal; 0 if there was no answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_error_registry_status(error: *const zind_error) -> i32 {
    // SAFETY: the header's demand.
    unsafe { part(error, 0, |error| Some(error.http_status)) }
}

/// Frees an error. error: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_error_free(error: *mut zind_error) {
    // SAFETY: the header's demand.
    unsafe { free(error) }
}

/// Frees the error in *err, if there is one, and makes *err NULL, ready for the next calls. err: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_error_clear(err: *mut *mut zind_error) {
    // SAFETY: the header's demand.
    if let Some(slot) = unsafe { err.as_mut() } {
        // SAFETY: as above; nobody can find the error after this.
        unsafe { free(std::mem::replace(slot, std::ptr::null_mut())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_name() {
        let last = zind_status::Exists as usize;
        assert_eq!(STATUS_NAMES.len(), last + 1);
        assert_eq!(STATUS_NAMES[zind_status::NotFound as usize], c"not_found");
    }
}
