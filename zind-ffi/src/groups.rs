//! What a running container uses and may use, pausing it, and what runs in it.

use std::ffi::c_char;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use serde_json::Value;
use zind_core::cgroup::sweep;
use zind_core::{Error, Resources, StatsEvery};

use crate::error::{zind_error, zind_status};
use crate::exit::{Target, zind_stats};
use crate::guard::{Out, free, guard, handle, handle_mut};
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

/// Readings of a container at intervals.
pub struct zind_stats_stream(StatsEvery<'static>);

/// Readings of a container now, and then at intervals until it has ended: the last one is of its whole life. A reading that
/// came too late is left out, not made up for. It makes no thread: readings are taken by who calls zind_stats_stream_next().
/// process: has to outlive the stream. interval_ms: above 0.
/// stream: receives the handle; free it with zind_stats_stream_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_stats_every(
    process: *const zind_process,
    interval_ms: u64,
    stream: *mut *mut zind_stats_stream,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand; the process outlives the stream.
    unsafe {
        guard(err, || {
            let stream = Out::handle(stream, "stream")?;
            let process: &'static zind_process = handle(process, "process")?;
            if interval_ms == 0 {
                return Err(Error::Spec { field: "interval", rule: "it must be above 0".to_owned() }.into());
            }
            stream.give(zind_stats_stream(process.0.stats_every(Duration::from_millis(interval_ms))));
            Ok(())
        })
    }
}

/// A descriptor that is readable when zind_stats_stream_next() has a reading, for an event loop, and at the container's end.
/// fd: receives it. Borrowed: the stream closes it; do not read from it. Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_stats_stream_fd(
    stream: *mut zind_stats_stream,
    fd: *mut i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let fd = Out::new(fd, "fd")?;
            fd.put(handle_mut(stream, "stream")?.0.fd()?.as_raw_fd());
            Ok(())
        })
    }
}

/// The next reading. It takes note of the container's end as a wait does.
/// timeout_ms: how long to wait for it, in milliseconds; negative: as long as it takes.
/// stats: begin with ZIND_STATS_INIT.
/// more: receives false when there are no more, and stats is left as it was: after the reading of the whole life.
/// Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over, _SPEC for a struct_size that is too small, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_stats_stream_next(
    stream: *mut zind_stats_stream,
    timeout_ms: i64,
    stats: *mut zind_stats,
    more: *mut bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let stats = Target::new(stats, "stats")?;
            let more = Out::new(more, "more")?;
            let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
            let stream = &mut handle_mut(stream, "stream")?.0;
            let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            loop {
                if stream.is_over() {
                    more.put(false);
                    return Ok(());
                }
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                if let Some(found) = stream.next_within(left)? {
                    stats.put(found.into());
                    more.put(true);
                    return Ok(());
                }
                if left.is_some_and(|left| left.is_zero()) {
                    return Err(Error::Timeout(timeout.unwrap_or_default()).into());
                }
            }
        })
    }
}

/// Frees a stream and closes its descriptor; the container is none of its business. stream: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_stats_stream_free(stream: *mut zind_stats_stream) {
    // SAFETY: the header's demand.
    unsafe { free(stream) }
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
