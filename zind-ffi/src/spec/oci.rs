//! Requests from and to OCI's config.json.

use std::ffi::c_char;

use zind_core::Spec;

use super::zind_spec;
use crate::error::{zind_error, zind_status};
use crate::guard::{Out, guard, handle};
use crate::strings::{give_string, path, text};

/// A new request from the text of an OCI config.json of version 1. Relative paths in it are relative to the directory that
/// the process is in at the start. The setters change it further.
/// json: borrowed. spec: receives the handle; free it with zind_spec_free().
/// Returns also ZIND_STATUS_UTF8, and _SPEC for what is no such document and for what zind cannot do: the field is OCI's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_from_json(
    json: *const c_char,
    spec: *mut *mut zind_spec,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let spec = Out::handle(spec, "spec")?;
            spec.give(zind_spec(Spec::from_oci(text(json, "json")?)?));
            Ok(())
        })
    }
}

/// A new request from an OCI bundle: a directory with a config.json, or the path of such a file. Relative paths in it are
/// relative to that directory.
/// bundle: borrowed. spec: receives the handle; free it with zind_spec_free().
/// Returns also ZIND_STATUS_SPEC as zind_spec_from_json(), and _SYS if the file cannot be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_from_bundle(
    bundle: *const c_char,
    spec: *mut *mut zind_spec,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let spec = Out::handle(spec, "spec")?;
            spec.give(zind_spec(Spec::from_bundle(path(bundle, "bundle")?)?));
            Ok(())
        })
    }
}

/// The OCI config.json of a request, nothing lost: what OCI has no word for is in annotations.
/// json: receives the text; free it with zind_string_free().
/// Returns also ZIND_STATUS_SPEC for a request that holds descriptors, which only this process has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_to_json(
    spec: *const zind_spec,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            give_string(json, handle(spec, "spec")?.0.to_oci()?);
            Ok(())
        })
    }
}
