//! Setters: what the container may use.

use std::ffi::c_char;

use zind_core::Resources;

use super::{set, zind_spec};
use crate::error::{zind_error, zind_status};
use crate::guard::Outcome;
use crate::strings::{optional_path, optional_text, text};

/// The body of the setters of one limit.
///
/// # Safety
/// As for [`set`].
unsafe fn limit(
    spec: *mut zind_spec,
    err: *mut *mut zind_error,
    change: impl FnOnce(&mut Resources) -> Outcome,
) -> zind_status {
    // SAFETY: the caller's promise.
    unsafe { set(spec, err, |spec| change(spec.resources.get_or_insert_with(Resources::new))) }
}

/// What the container may use, all at once: the linux.resources object of OCI as JSON, which takes the place of what was
/// set before. What OCI has no field for is in its "unified" object: files of cgroup v2 with their texts, like
/// {"memory.high": "64000000"}. "{}" limits nothing, but makes a control group: for readings, and to pause.
/// json: NULL for no group at all, the default. A limit that cannot be set fails the start.
/// Returns also ZIND_STATUS_UTF8, _SPEC (no such object, a value without sense, an unknown field), _UNSUPPORTED (a field
/// that no kernel has any more).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_resources_json(
    spec: *mut zind_spec,
    json: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.resources = optional_text(json, "json")?.map(Resources::from_oci_json).transpose()?;
            Ok(())
        })
    }
}

/// Most memory in bytes, page cache and tmpfs included; beyond it something of the container is killed. UINT64_MAX: no
/// limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_memory(
    spec: *mut zind_spec,
    bytes: u64,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        limit(spec, err, |resources| {
            resources.memory = Some(bytes);
            Ok(())
        })
    }
}

/// Most swap space in bytes, by itself; 0 is none, UINT64_MAX no limit. On cgroup v1 it needs zind_spec_set_memory() too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_swap(
    spec: *mut zind_spec,
    bytes: u64,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        limit(spec, err, |resources| {
            resources.swap = Some(bytes);
            Ok(())
        })
    }
}

/// CPUs it may use: 0.5 is half of one, INFINITY is no limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_cpus(spec: *mut zind_spec, cpus: f64, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        limit(spec, err, |resources| {
            resources.cpus = Some(cpus);
            Ok(())
        })
    }
}

/// CPUs it may run on, as a list: "0-3,7". Returns also ZIND_STATUS_UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_cpuset(
    spec: *mut zind_spec,
    cpus: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        limit(spec, err, |resources| {
            resources.cpuset_cpus = Some(text(cpus, "cpus")?.into());
            Ok(())
        })
    }
}

/// Most processes and threads of the payload's; zind's own PID 1 does not count. UINT64_MAX: no limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_pids(spec: *mut zind_spec, most: u64, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        limit(spec, err, |resources| {
            resources.pids = Some(most);
            Ok(())
        })
    }
}

/// The control group below which the container's is made: a path from the root of the hierarchies, made where it is
/// missing and removed with the container it was made for, unless others are in it then. NULL, the default: wherever the
/// caller may make groups.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_cgroup_parent(
    spec: *mut zind_spec,
    path: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.cgroup_parent = optional_path(path).map(Into::into);
            Ok(())
        })
    }
}
