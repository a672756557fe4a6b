//! The border: every entry point runs in [`guard`], and every pointer that comes in passes one of the readers here.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use zind_core::Error;

use crate::error::{zind_error, zind_status};

/// Why an entry point fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This argument is NULL and must not be.
    Null(&'static str),
    /// This argument is not UTF-8.
    Utf8(&'static str),
    /// The engine says no.
    Core(Error),
    /// A bug; the words of the panic.
    Panic(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Core(error)
    }
}

/// What the body of an entry point returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Runs the body of an entry point; a failure or a panic goes into `err`, unless an earlier error is there.
///
/// # Safety
/// `err` is NULL, or points to a pointer that is NULL or a live error.
pub(crate) unsafe fn guard(err: *mut *mut zind_error, body: impl FnOnce() -> Outcome) -> zind_status {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return zind_status::Ok,
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::Panic(words(panic.as_ref()).to_owned()),
    };
    let status = failure.status();
    // SAFETY: the caller's promise.
    if let Some(slot) = unsafe { err.as_mut() }
        && slot.is_null()
    {
        *slot = Box::into_raw(Box::new(zind_error::new(failure)));
    }
    status
}

/// Runs the body of an entry point that has no error to report; a panic becomes `otherwise`.
pub(crate) fn quiet<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panic")
}

/// A handle to read.
///
/// # Safety
/// `pointer` is NULL or live for `'a`.
pub(crate) unsafe fn handle<'a, T>(pointer: *const T, name: &'static str) -> Outcome<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or(Failure::Null(name))
}

/// A handle to change.
///
/// # Safety
/// `pointer` is NULL or live for `'a`, and nobody else uses it meanwhile.
pub(crate) unsafe fn handle_mut<'a, T>(pointer: *mut T, name: &'static str) -> Outcome<&'a mut T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_mut() }.ok_or(Failure::Null(name))
}

/// The memory of a result, which may be uninitialized.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Accepts the address of a result.
    ///
    /// # Safety
    /// `pointer` is NULL or may be written to until `put`.
    pub(crate) unsafe fn new(pointer: *mut T, name: &'static str) -> Outcome<Out<T>> {
        if pointer.is_null() { Err(Failure::Null(name)) } else { Ok(Out(pointer)) }
    }

    /// Stores the result.
    pub(crate) fn put(self, value: T) {
        // SAFETY: not NULL, and writable by the promise made to `new`.
        unsafe { self.0.write(value) }
    }
}

impl Out<u8> {
    /// Stores bytes, of which there are no more than the caller's buffer has.
    pub(crate) fn fill(self, bytes: &[u8]) {
        // SAFETY: not NULL, and writable by the promise made to `new`.
        unsafe { self.0.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }
}

impl<T> Out<*mut T> {
    /// As [`Out::new`], for a handle: it is NULL until [`Out::give`].
    ///
    /// # Safety
    /// As for [`Out::new`].
    pub(crate) unsafe fn handle(pointer: *mut *mut T, name: &'static str) -> Outcome<Out<*mut T>> {
        // SAFETY: the caller's promise.
        let out = unsafe { Out::new(pointer, name)? };
        // SAFETY: not NULL, and writable by the same promise.
        unsafe { pointer.write(std::ptr::null_mut()) };
        Ok(out)
    }

    /// Hands a new handle to the caller.
    pub(crate) fn give(self, value: T) {
        self.put(Box::into_raw(Box::new(value)));
    }
}

/// Takes a handle back.
///
/// # Safety
/// `pointer` is NULL, or came from [`Out::give`] and is used no more.
pub(crate) unsafe fn free<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: the caller's promise.
        quiet((), || drop(unsafe { Box::from_raw(pointer) }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn a_panic_stops_at_the_border_and_the_first_error_stays() {
        let mut error = std::ptr::null_mut();
        // SAFETY: a live slot, used by this thread only.
        let status = unsafe { guard(&raw mut error, || panic!("at {}", 7)) };
        assert_eq!(status, zind_status::Panic);
        // SAFETY: as above.
        assert_eq!(unsafe { guard(&raw mut error, || Err(Failure::Null("spec"))) }, zind_status::Null);
        // SAFETY: the error is live until it is freed.
        unsafe {
            assert_eq!(CStr::from_ptr(crate::zind_error_message(error)).to_str(), Ok("bug in zind: at 7"));
            free(error);
        }
    }
}
