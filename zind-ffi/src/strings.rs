//! Text and bytes across the border.

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_void};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use zind_core::{At, Errno, Error, Step};

use crate::guard::{Failure, Out, Outcome, quiet};

/// Frees a string that a function of zind made. string: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_string_free(string: *mut c_char) {
    if !string.is_null() {
        // SAFETY: made by `give_string`, by the header's demand.
        quiet((), || drop(unsafe { CString::from_raw(string) }));
    }
}

/// Any bytes up to the NUL; `None` for NULL.
///
/// # Safety
/// `pointer` is NULL or a NUL-terminated string that lives for `'a`.
pub(crate) unsafe fn optional_bytes<'a>(pointer: *const c_char) -> Option<&'a OsStr> {
    // SAFETY: the caller's promise.
    (!pointer.is_null()).then(|| OsStr::from_bytes(unsafe { CStr::from_ptr(pointer) }.to_bytes()))
}

/// Any bytes up to the NUL.
///
/// # Safety
/// As for [`optional_bytes`].
pub(crate) unsafe fn bytes<'a>(pointer: *const c_char, name: &'static str) -> Outcome<&'a OsStr> {
    // SAFETY: the caller's promise.
    unsafe { optional_bytes(pointer) }.ok_or(Failure::Null(name))
}

/// A path; `None` for NULL.
///
/// # Safety
/// As for [`optional_bytes`].
pub(crate) unsafe fn optional_path<'a>(pointer: *const c_char) -> Option<&'a Path> {
    // SAFETY: the caller's promise.
    unsafe { optional_bytes(pointer) }.map(Path::new)
}

/// A path.
///
/// # Safety
/// As for [`optional_bytes`].
pub(crate) unsafe fn path<'a>(pointer: *const c_char, name: &'static str) -> Outcome<&'a Path> {
    // SAFETY: the caller's promise.
    unsafe { bytes(pointer, name) }.map(Path::new)
}

/// UTF-8; `None` for NULL.
///
/// # Safety
/// As for [`optional_bytes`].
pub(crate) unsafe fn optional_text<'a>(pointer: *const c_char, name: &'static str) -> Outcome<Option<&'a str>> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { optional_bytes(pointer) };
    bytes.map(|bytes| bytes.to_str().ok_or(Failure::Utf8(name))).transpose()
}

/// UTF-8.
///
/// # Safety
/// As for [`optional_bytes`].
pub(crate) unsafe fn text<'a>(pointer: *const c_char, name: &'static str) -> Outcome<&'a str> {
    // SAFETY: the caller's promise.
    unsafe { optional_text(pointer, name)? }.ok_or(Failure::Null(name))
}

/// The strings of an array that ends with NULL, as `execve(2)` has it; `None` for NULL.
///
/// # Safety
/// `pointer` is NULL, or a NULL-terminated array of NUL-terminated strings that lives for `'a`.
pub(crate) unsafe fn optional_list<'a>(pointer: *const *const c_char) -> Option<Vec<&'a OsStr>> {
    if pointer.is_null() {
        return None;
    }
    let mut list = Vec::new();
    // SAFETY: the caller's promise; no element behind the NULL is read.
    while let Some(bytes) = unsafe { optional_bytes(*pointer.add(list.len())) } {
        list.push(bytes);
    }
    Some(list)
}

/// The strings of an array that ends with NULL.
///
/// # Safety
/// As for [`optional_list`].
pub(crate) unsafe fn list<'a>(pointer: *const *const c_char, name: &'static str) -> Outcome<Vec<&'a OsStr>> {
    // SAFETY: the caller's promise.
    unsafe { optional_list(pointer) }.ok_or(Failure::Null(name))
}

/// An array and its length; NULL is empty if the length says so too.
///
/// # Safety
/// `pointer` is NULL or has `len` elements that live for `'a`.
pub(crate) unsafe fn slice<'a, T>(pointer: *const T, len: usize, name: &'static str) -> Outcome<&'a [T]> {
    match (pointer.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Failure::Null(name)),
        // SAFETY: the caller's promise.
        (false, len) => Ok(unsafe { std::slice::from_raw_parts(pointer, len) }),
    }
}

/// A buffer and its length; `None` for NULL with length 0.
///
/// # Safety
/// As for [`slice`].
pub(crate) unsafe fn optional_buffer<'a>(
    pointer: *const c_void,
    len: usize,
    name: &'static str,
) -> Outcome<Option<&'a [u8]>> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { slice(pointer.cast::<u8>(), len, name)? };
    Ok((!pointer.is_null()).then_some(bytes))
}

/// Copies of strings.
pub(crate) fn owned(list: Vec<&OsStr>) -> Vec<OsString> {
    list.into_iter().map(OsStr::to_owned).collect()
}

/// A descriptor of the caller's for the length of a call.
///
/// # Safety
/// `fd` stays open for `'a`, if it is.
pub(crate) unsafe fn borrowed<'a>(fd: i32, step: Step, syscall: &'static str) -> Outcome<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(Error::sys(step, syscall, fd.to_string(), Errno::EBADF).into());
    }
    // SAFETY: not -1; open by the caller's promise, and if not, the kernel says so.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// A duplicate of a descriptor of the caller's, close-on-exec.
///
/// # Safety
/// As for [`borrowed`].
pub(crate) unsafe fn duplicate(fd: i32) -> Outcome<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd_here = unsafe { borrowed(fd, Step::ArrangeFds, "fcntl")? };
    Ok(fd_here.try_clone_to_owned().at(Step::ArrangeFds, "fcntl", fd.to_string())?)
}

/// A C string; what would end it early is replaced.
pub(crate) fn c_string(bytes: impl Into<Vec<u8>>) -> CString {
    let mut bytes = bytes.into();
    bytes.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b'?');
    CString::new(bytes).unwrap_or_default()
}

/// Hands a string to the caller, who frees it by [`zind_string_free`].
pub(crate) fn give_string(out: Out<*mut c_char>, bytes: impl Into<Vec<u8>>) {
    out.put(c_string(bytes).into_raw());
}
