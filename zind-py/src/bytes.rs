//! Large output as Python `bytes`, without holding it twice.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use zind_core::Captured;

/// Moves captured output into a `bytes` object piece by piece; each piece is freed as soon as it is copied.
pub(crate) fn from_captured<'py>(py: Python<'py>, mut captured: Captured) -> PyResult<Bound<'py, PyBytes>> {
    let len = captured.len();
    // SAFETY: with a null pointer the object's bytes are uninitialised and ours to fill until anybody else sees it; the
    // pages of a large one are not touched before that. All `len` bytes are written below.
    unsafe {
        let object = pyo3::ffi::PyBytes_FromStringAndSize(std::ptr::null(), len as pyo3::ffi::Py_ssize_t);
        let object = Bound::from_owned_ptr_or_err(py, object)?;
        let mut to = pyo3::ffi::PyBytes_AsString(object.as_ptr()).cast::<u8>();
        let mut left = len;
        while let Some(piece) = captured.pop() {
            let count = piece.len().min(left);
            std::ptr::copy_nonoverlapping(piece.as_ptr(), to, count);
            to = to.add(count);
            left -= count;
        }
        debug_assert_eq!(left, 0);
        Ok(object.cast_into_unchecked())
    }
}
