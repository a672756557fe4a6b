//! Which library this is.

use std::ffi::{CStr, c_char};

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version has no NUL"),
};

/// The version of the binary interface: the number in the soname, libzind.so.0.
pub const ZIND_ABI_VERSION: u32 = 0;

/// The version of the library, "0.1.0". Static; never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn zind_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The version of the library's binary interface: programs work with a library of the same number that is not older
/// than their header. Functions, status codes and fields at the end of structures are added without a change of it.
#[unsafe(no_mangle)]
pub extern "C" fn zind_abi_version() -> u32 {
    ZIND_ABI_VERSION
}
