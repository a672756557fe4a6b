//! `zind_spec`: what is asked for. One file per part of it.

// In the order of the header.
mod command;

pub(crate) mod root;

mod namespaces;

mod streams;

mod identity;

mod security;

mod resources;

mod life;

mod oci;

use zind_core::Spec;

use crate::error::{zind_error, zind_status};
use crate::guard::{Out, Outcome, free, guard, handle, handle_mut};

pub use command::*;
pub use identity::*;
pub use life::*;
pub use namespaces::*;
pub use oci::*;
pub use resources::*;
pub use root::*;
pub use security::*;
pub use streams::*;

/// What to run, and in what. Can be started any number of times, also from several threads at once.
pub struct zind_spec(pub(crate) Spec);

/// The body of every setter.
///
/// # Safety
/// `spec` is NULL or a live handle that nobody else uses meanwhile; `err` as for [`guard`].
pub(crate) unsafe fn set(
    spec: *mut zind_spec,
    err: *mut *mut zind_error,
    change: impl FnOnce(&mut Spec) -> Outcome,
) -> zind_status {
    // SAFETY: the caller's promise.
    unsafe { guard(err, || change(&mut handle_mut(spec, "spec")?.0)) }
}

/// A new request for a container: everything new, nothing shared, no privileges, no network. It needs
/// zind_spec_set_args() before it can run.
/// spec: receives the handle; free it with zind_spec_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_new(spec: *mut *mut zind_spec, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            Out::handle(spec, "spec")?.give(zind_spec(Spec::default()));
            Ok(())
        })
    }
}

/// A new request for a plain process that shares everything with the caller until told otherwise: the starting point of
/// what unshare(1) and nsenter(1) do.
/// spec: receives the handle; free it with zind_spec_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_low_level_new(spec: *mut *mut zind_spec, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            Out::handle(spec, "spec")?.give(zind_spec(Spec::low_level(std::iter::empty::<&str>())));
            Ok(())
        })
    }
}

/// A second request that asks for the same; later changes to one do not change the other.
/// copy: receives the handle; free it with zind_spec_free(). Both share the descriptors that were set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_copy(
    spec: *const zind_spec,
    copy: *mut *mut zind_spec,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let copy = Out::handle(copy, "copy")?;
            copy.give(zind_spec(handle(spec, "spec")?.0.clone()));
            Ok(())
        })
    }
}

/// Frees a request and closes the descriptors it holds; what was started from it goes on. spec: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_free(spec: *mut zind_spec) {
    // SAFETY: the header's demand.
    unsafe { free(spec) }
}
