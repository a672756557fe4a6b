//! Which library this is.

use std::ffi::c_char;

/** The version of this header, "major.minor.patch"; zind_version() is that of the library. */
pub const ZIND_VERSION: &std::ffi::CStr = c"0.1.0";

/** The version of the binary interface: the number in the soname, libzind.so.0. */
pub const ZIND_ABI_VERSION: u32 = 0;

/// The version of the library, "0.1.0". Static; never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn zind_version() -> *const c_char {
    ZIND_VERSION.as_ptr()
}

/// The version of the library's binary interface: programs work with a library of the same number that is not older
/// than their header. Functions, status codes and fields at the end of structures are added without a change of it.
#[unsafe(no_mangle)]
pub extern "C" fn zind_abi_version() -> u32 {
    ZIND_ABI_VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_crate_s() {
        assert_eq!(ZIND_VERSION.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    }
}
