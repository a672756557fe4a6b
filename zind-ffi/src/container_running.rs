//! `zind_container`: what can be done with one that runs.

use std::ffi::{c_char, c_void};

use serde_json::Value;
use zind_core::terminal::Size;
use zind_core::{Exec, Resources};

use crate::container::{on, zind_container};
use crate::copy::zind_root;
use crate::error::{zind_error, zind_status};
use crate::events::{triggers, zind_events};
use crate::exit::{Target, zind_stats};
use crate::guard::{Out, handle};
use crate::process::{question, zind_interrupted, zind_process};
use crate::spec::zind_spec;
use crate::strings::{give_string, path, text};

/// Runs a further program in a running container; all as zind_process_exec() has it.
/// Returns also ZIND_STATUS_STATE if it does not run or is paused, _NOT_FOUND, and what zind_process_exec() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_exec(
    container: *const zind_container,
    spec: *const zind_spec,
    process: *mut *mut zind_process,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { zind_container_exec_interruptible(container, spec, None, std::ptr::null_mut(), process, err) }
}

/// As zind_container_exec(), and asks a function of the caller's whether to stop, as zind_run_interruptible(): nothing of the program is
/// left then, and the container goes on.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_exec_interruptible(
    container: *const zind_container,
    spec: *const zind_spec,
    interrupted: zind_interrupted,
    data: *mut c_void,
    process: *mut *mut zind_process,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let process = Out::handle(process, "process")?;
            let exec = Exec::from(&handle(spec, "spec")?.0);
            process.give(zind_process(container.exec_interruptible(&exec, &mut question(interrupted, data))?));
            Ok(())
        })
    }
}

/// Stops everything in it until zind_container_resume(), and waits until all of it has stopped. It takes a spec with resources.
/// Returns also ZIND_STATUS_STATE (it does not run, is paused already, or has no control group), _UNSUPPORTED (no freezer),
/// _NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_pause(
    container: *const zind_container,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { on(container, err, |container| Ok(container.pause()?)) }
}

/// As zind_container_pause(), and asks a function of the caller's whether to stop, as zind_container_start_interruptible(): while
/// somebody else changes this container, as who starts it does while its hooks run. It goes on then.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_pause_interruptible(
    container: *const zind_container,
    interrupted: zind_interrupted,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { on(container, err, |container| Ok(container.pause_interruptible(&mut question(interrupted, data))?)) }
}

/// Lets everything in it go on. Returns also what zind_container_pause() returns; _STATE is for one that is not paused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_resume(
    container: *const zind_container,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { on(container, err, |container| Ok(container.resume()?)) }
}

/// Changes limits, of what runs and of each start that follows. resources: as for zind_spec_set_resources_json(); what is not in
/// there stays as it is, -1 takes a limit away. A container that does not run needs none from before.
/// Returns also ZIND_STATUS_NOT_FOUND, and what zind_process_update() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_update_json(
    container: *const zind_container,
    resources: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let resources = Resources::from_oci_json(text(resources, "resources")?)?;
            Ok(container.update(&resources)?)
        })
    }
}

/// As zind_container_update_json(), and asks a function of the caller's whether to stop, as zind_container_pause_interruptible().
/// Nothing is changed then. Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_update_json_interruptible(
    container: *const zind_container,
    resources: *const c_char,
    interrupted: zind_interrupted,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let resources = Resources::from_oci_json(text(resources, "resources")?)?;
            Ok(container.update_interruptible(&resources, &mut question(interrupted, data))?)
        })
    }
}

/// What it uses now; once it has ended, what it used over its whole life. stats: begin with ZIND_STATS_INIT.
/// Returns also ZIND_STATUS_STATE if it was never started, _SPEC for a struct_size that is too small, _NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_stats(
    container: *const zind_container,
    stats: *mut zind_stats,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let stats = Target::new(stats, "stats")?;
            stats.put(container.stats()?.into());
            Ok(())
        })
    }
}

/// The same with all that is known, as zind_process_stats_json(). json: receives a string; free it with zind_string_free().
/// Returns also what zind_container_stats() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_stats_json(
    container: *const zind_container,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let json = Out::handle(json, "json")?;
            give_string(json, container.stats()?.to_json().to_string());
            Ok(())
        })
    }
}

/// Everything that runs in it, as zind_process_list_json(); an empty list while it does not run.
/// json: receives a string; free it with zind_string_free(). Returns also ZIND_STATUS_NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_processes_json(
    container: *const zind_container,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let json = Out::handle(json, "json")?;
            let list = container.processes()?;
            give_string(json, Value::from_iter(list.iter().map(zind_core::ProcessInfo::to_json)).to_string());
            Ok(())
        })
    }
}

/// What happens in it as it happens, as zind_process_events().
/// events: receives the handle; free it with zind_events_free().
/// Returns also ZIND_STATUS_NOT_FOUND, and what zind_process_events() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_events(
    container: *const zind_container,
    pressure: *const *const c_char,
    events: *mut *mut zind_events,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let events = Out::handle(events, "events")?;
            events.give(zind_events(container.events(&triggers(pressure)?)?));
            Ok(())
        })
    }
}

/// Gives its terminal another size; whoever runs in its foreground is told by SIGWINCH.
/// Returns also ZIND_STATUS_STATE without a terminal, or if it does not run; _NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_resize(
    container: *const zind_container,
    rows: u16,
    cols: u16,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { on(container, err, |container| Ok(container.resize(Size::new(rows, cols))?)) }
}

/// The inside of its root, with all its mounts, for copying files in and out while it runs.
/// root: receives the handle; free it with zind_root_free(). Returns also ZIND_STATUS_STATE if it does not run; _NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_root(
    container: *const zind_container,
    root: *mut *mut zind_root,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let root = Out::handle(root, "root")?;
            root.give(zind_root(container.root()?));
            Ok(())
        })
    }
}

/// Mounts something in it while it runs, as zind_process_mount(). The next start is without it.
/// Returns also ZIND_STATUS_NOT_FOUND, and what zind_process_mount() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_mount(
    container: *const zind_container,
    r#type: *const c_char,
    source: *const c_char,
    target: *const c_char,
    options: *const *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let mount = crate::spec::root::mount_of(r#type, source, target, options)?;
            Ok(container.mount(&mount)?)
        })
    }
}

/// Takes away what is mounted at target in it, and what is mounted below that.
/// Returns also ZIND_STATUS_NOT_FOUND, and what zind_process_umount() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_umount(
    container: *const zind_container,
    target: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { on(container, err, |container| Ok(container.umount(path(target, "target")?)?)) }
}
