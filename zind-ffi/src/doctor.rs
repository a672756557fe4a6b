//! What works here, what not, and the cure.

use std::ffi::c_char;

use crate::error::{zind_error, zind_status};
use crate::guard::{Out, guard};
use crate::strings::give_string;

/// What works on this machine and for this user: {"ok": bool, "checks": [{"name", "ok", "detail", "cure"}]}. Looks, and
/// changes nothing.
/// json: receives a string; free it with zind_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_doctor_json(json: *mut *mut c_char, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            give_string(Out::handle(json, "json")?, zind_core::doctor().to_json().to_string());
            Ok(())
        })
    }
}

/// The same as a table for people, a line or two for each check.
/// text: receives a string; free it with zind_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_doctor_text(text: *mut *mut c_char, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            give_string(Out::handle(text, "text")?, zind_core::doctor().to_string());
            Ok(())
        })
    }
}
