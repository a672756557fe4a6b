//! What a running container uses and may use, pausing it, and what runs in it.

use std::ffi::c_char;
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;
use zind_core::Resources;
use zind_core::cgroup::sweep;

use crate::error::{zind_error, zind_status};
use crate::guard::{Out, guard, handle};
use crate::process::zind_process;
use crate::strings::{give_string, optional_path, text};

/// Everything that zind_process_stats() tells and more, as a JSON object: "cpu_user", "cpu_system", "cpu_throttled",
/// "wall" (seconds), "memory_current", "memory_peak", "memory_anon", "memory_file", "memory_swap" (bytes), "pids",
/// "oom_kills", "io" (a list by device), "pressure" and others; null is unknown.
/// json: receives a string; free it with zind_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_stats_json(
    process: *const zind_process,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            give_string(json, handle(process, "process")?.0.stats()?.to_json().to_string());
            Ok(())
        })
    }
}

/// Changes limits of a running container. resources: as for zind_spec_set_resources_json(); what is not in there stays as
/// it is, -1 takes a limit away.
/// Returns also ZIND_STATUS_UTF8, _SPEC, _UNSUPPORTED, _STATE (it has ended, or was started without resources or without
/// that controller), _SYS (EBUSY: more memory is in use, and cannot be taken back).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_update(
    process: *const zind_process,
    resources: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let process = handle(process, "process")?;
            let resources = Resources::from_oci_json(text(resources, "resources")?)?;
            Ok(process.0.update(&resources)?)
        })
    }
}

/// Stops everything in a container until zind_process_resume(), and waits until all of it has stopped.
/// Returns also ZIND_STATUS_STATE (it has ended, or was started without resources), _UNSUPPORTED (no freezer), _SYS
/// (ETIMEDOUT: something of it sleeps in the kernel).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_pause(process: *const zind_process, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle(process, "process")?.0.pause()?)) }
}

/// Lets everything in a container go on. Returns also what zind_process_pause() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_resume(process: *const zind_process, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle(process, "process")?.0.resume()?)) }
}

/// Tells whether a container is paused. Returns also what zind_process_pause() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_is_paused(
    process: *const zind_process,
    paused: *mut bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let paused = Out::new(paused, "paused")?;
            paused.put(handle(process, "process")?.0.is_paused()?);
            Ok(())
        })
    }
}

/// Everything that runs in a container, zind's PID 1 included, as a JSON list of objects: "pid", "ppid" (the caller's
/// numbers), "container_pid", "uid", "name", "cmdline", "state", "threads", "rss" (bytes), "cpu" (seconds); an empty one
/// once it has ended. json: receives a string; free it with zind_string_free(). Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_list_json(
    process: *const zind_process,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            let list = handle(process, "process")?.0.processes()?;
            give_string(json, Value::from_iter(list.iter().map(zind_core::ProcessInfo::to_json)).to_string());
            Ok(())
        })
    }
}

/// Removes the control groups that crashed processes left behind, below the caller's own groups or below parent (NULL: the
/// own ones); what runs in one is killed, unless it was started with die_with_owner off. Every start with resources does it
/// too, every few seconds at most.
/// removed: receives a JSON list of paths; free it with zind_string_free(). Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_groups_sweep(
    parent: *const c_char,
    removed: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let removed = Out::handle(removed, "removed")?;
            let text = |path: &std::path::PathBuf| String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
            let paths = sweep(optional_path(parent))?;
            give_string(removed, Value::from_iter(paths.iter().map(text)).to_string());
            Ok(())
        })
    }
}
