//! `zind_container`: how it starts, ends, and is waited for; `zind_ending`: the same for an event loop.

use std::ffi::{c_char, c_void};
use std::os::fd::AsRawFd;
use std::time::Duration;

use zind_core::container::{Ending, Ready};
use zind_core::{Error, Exec};

use crate::container::{on, zind_container};
use crate::container_attach::zind_attachment;
use crate::containers::timeout_of;
use crate::error::{zind_error, zind_status};
use crate::exit::{Target, zind_exit};
use crate::guard::{Out, Outcome, free, guard, handle, quiet};
use crate::process::{question, zind_interrupted};
use crate::spec::zind_spec;
use crate::strings::{give_string, text};

/// A wait for the end of a container, through all restarts, by a descriptor.
pub struct zind_ending(Ending);

/// Starts it. On return its program runs, below a monitor of its own, which keeps its output and tells how it ends. It ends with
/// this process, unless it was made with die_with_owner off, or zind_container_detach() is called.
/// Returns also ZIND_STATUS_STATE if it runs, or somebody else starts it, and what zind_run() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_start(
    container: *const zind_container,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { on(container, err, |container| Ok(container.start()?)) }
}

/// As zind_container_start(), and asks a function of the caller's whether to stop: after each signal that this thread handled,
/// and a few times a second. Nothing of it runs then.
/// interrupted: NULL asks nobody. data: its argument.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_start_interruptible(
    container: *const zind_container,
    interrupted: zind_interrupted,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { on(container, err, |container| Ok(container.start_interruptible(&mut question(interrupted, data))?)) }
}

/// What hooks complained of whose failure changes nothing (poststart, poststop) since it was asked last, by this handle: a JSON
/// array of texts.
/// json: receives a string; free it with zind_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_take_warnings_json(
    container: *const zind_container,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let json = Out::handle(json, "json")?;
            give_string(json, serde_json::json!(container.take_warnings()).to_string());
            Ok(())
        })
    }
}

/// As zind_container_start(), attached from the first byte of its output on.
/// attachment: receives the handle; free it with zind_attachment_free().
/// Returns also what zind_container_attach() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_start_attached(
    container: *const zind_container,
    attachment: *mut *mut zind_attachment,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { zind_container_start_attached_interruptible(container, None, std::ptr::null_mut(), attachment, err) }
}

/// As zind_container_start_attached(), and asks a function of the caller's whether to stop, as zind_container_start_interruptible().
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_start_attached_interruptible(
    container: *const zind_container,
    interrupted: zind_interrupted,
    data: *mut c_void,
    attachment: *mut *mut zind_attachment,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let attachment = Out::handle(attachment, "attachment")?;
            attachment.give(zind_attachment::of(container.start_attached(&mut question(interrupted, data))?));
            Ok(())
        })
    }
}

/// Waits for its end, through all restarts. One with ZIND_CONTAINER_AUTO_REMOVE, which is deleted then, still tells it to the handle
/// that has started it.
/// timeout_ms: how long to wait, in milliseconds; negative: as long as it takes.
/// exit: NULL, or begin with ZIND_EXIT_INIT.
/// Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over (the container goes on), _STATE if it was never started,
/// _NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_wait(
    container: *const zind_container,
    timeout_ms: i64,
    exit: *mut zind_exit,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { zind_container_wait_interruptible(container, timeout_ms, None, std::ptr::null_mut(), exit, err) }
}

/// As zind_container_wait(), and asks a function of the caller's whether to stop waiting: after each signal that this thread
/// handled, and a few times a second.
/// interrupted: true ends the wait, the container goes on; NULL asks nobody. data: its argument.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_wait_interruptible(
    container: *const zind_container,
    timeout_ms: i64,
    interrupted: zind_interrupted,
    data: *mut c_void,
    exit: *mut zind_exit,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let exit = Target::optional(exit, "exit")?;
            let timeout = timeout_of(timeout_ms);
            let ended = container.wait_interruptible(timeout, &mut question(interrupted, data))?;
            let ended = ended.ok_or_else(|| Error::Timeout(timeout.unwrap_or_default()))?;
            if let Some(exit) = exit {
                exit.put(ended.into());
            }
            Ok(())
        })
    }
}

/// Begins to wait for its end, through all restarts, for an event loop.
/// ending: receives the handle, free it with zind_ending_free(); or NULL, with ZIND_STATUS_OK, if it has ended, or is being
/// started or ended just now: ask zind_container_wait().
/// Returns also ZIND_STATUS_STATE if it was never started, _NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_ending(
    container: *const zind_container,
    ending: *mut *mut zind_ending,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let ending = Out::handle(ending, "ending")?;
            if let Some(found) = container.ending()? {
                ending.give(zind_ending(found));
            }
            Ok(())
        })
    }
}

/// Becomes readable at the end. Borrowed: the ending closes it; do not read from it. -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_ending_fd(ending: *const zind_ending) -> i32 {
    // SAFETY: the header's demand.
    let ending = unsafe { ending.as_ref() };
    quiet(-1, || ending.map_or(-1, |ending| ending.0.fd().as_raw_fd()))
}

/// How it ended, once the descriptor is readable; without waiting.
/// exit: begin with ZIND_EXIT_INIT; its kind is ZIND_EXIT_KIND_RUNNING if it has not ended. If the descriptor is readable then,
/// as many wait for the container as can be told: ask zind_container_wait().
/// Returns also what zind_container_wait() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_ending_exit(
    ending: *const zind_ending,
    exit: *mut zind_exit,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let exit = Target::new(exit, "exit")?;
            exit.put(handle(ending, "ending")?.0.exit()?.map_or(zind_exit::RUNNING, Into::into));
            Ok(())
        })
    }
}

/// Frees an ending and closes its descriptor; the container goes on. ending: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_ending_free(ending: *mut zind_ending) {
    // SAFETY: the header's demand.
    unsafe { free(ending) }
}

/// Sends a signal to its program; SIGKILL ends the whole container, and it is not started again.
/// Returns also ZIND_STATUS_STATE if it does not run, _SPEC for a number that is no signal, _NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_kill(
    container: *const zind_container,
    signal: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { on(container, err, |container| Ok(container.kill(signal)?)) }
}

/// Asks it to end by its stop signal, and ends it when patience_ms is over; it is not started again. One that has ended already
/// is left alone.
/// patience_ms: in milliseconds. exit: NULL, or begin with ZIND_EXIT_INIT.
/// Returns also ZIND_STATUS_STATE if it was never started, _NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_stop(
    container: *const zind_container,
    patience_ms: u64,
    exit: *mut zind_exit,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let exit = Target::optional(exit, "exit")?;
            let ended = container.stop(Duration::from_millis(patience_ms))?;
            if let Some(exit) = exit {
                exit.put(ended.into());
            }
            Ok(())
        })
    }
}

/// As zind_container_stop(), and asks a function of the caller's whether to stop waiting, as zind_container_wait_interruptible().
/// It was asked to end then, and may still do so.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_stop_interruptible(
    container: *const zind_container,
    patience_ms: u64,
    interrupted: zind_interrupted,
    data: *mut c_void,
    exit: *mut zind_exit,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let exit = Target::optional(exit, "exit")?;
            let patience = Duration::from_millis(patience_ms);
            let ended = container.stop_interruptible(patience, &mut question(interrupted, data))?;
            if let Some(exit) = exit {
                exit.put(ended.into());
            }
            Ok(())
        })
    }
}

/// Asks it to end by its stop signal, and that it is not started again, without waiting.
/// is_running: NULL, or receives false if it has ended already.
/// Returns also what zind_container_stop() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_begin_stop(
    container: *const zind_container,
    is_running: *mut bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let was_running = container.begin_stop()?;
            if !is_running.is_null() {
                is_running.write(was_running);
            }
            Ok(())
        })
    }
}

/// Stops it, if it runs, as zind_container_stop(), and starts it.
/// Returns also what zind_container_stop() and zind_container_start() return.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_restart(
    container: *const zind_container,
    patience_ms: u64,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { on(container, err, |container| Ok(container.restart(Duration::from_millis(patience_ms))?)) }
}

/// As zind_container_restart(), and asks a function of the caller's whether to stop, as zind_container_start_interruptible(): then it
/// is stopped, or still running and asked to end.
/// interrupted: NULL asks nobody. data: its argument.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_restart_interruptible(
    container: *const zind_container,
    patience_ms: u64,
    interrupted: zind_interrupted,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let patience = Duration::from_millis(patience_ms);
            Ok(container.restart_interruptible(patience, &mut question(interrupted, data))?)
        })
    }
}

/// Lets it go on when the program that has started it, or is going to, ends.
/// Returns also ZIND_STATUS_NOT_FOUND, _STATE, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_detach(
    container: *const zind_container,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { on(container, err, |container| Ok(container.detach()?)) }
}

/// As zind_container_detach(), and asks as zind_container_pause_interruptible(). Nothing is changed then.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_detach_interruptible(
    container: *const zind_container,
    interrupted: zind_interrupted,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { on(container, err, |container| Ok(container.detach_interruptible(&mut question(interrupted, data))?)) }
}

/// Gives it another name. Returns also ZIND_STATUS_UTF8, _SPEC for a name that is none, _EXISTS, _NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_rename(
    container: *const zind_container,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { on(container, err, |container| Ok(container.rename(text(name, "name")?)?)) }
}

/// As zind_container_rename(), and asks as zind_container_pause_interruptible(). It has its old name then.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_rename_interruptible(
    container: *const zind_container,
    name: *const c_char,
    interrupted: zind_interrupted,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            let name = text(name, "name")?;
            Ok(container.rename_interruptible(name, &mut question(interrupted, data))?)
        })
    }
}

/// Deletes it with all it has: changes, log, name. The handle is still to be freed.
/// force: one that runs is ended first, and one whose state cannot be read is taken away, too.
/// Returns also ZIND_STATUS_STATE if it runs, _NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_delete(
    container: *const zind_container,
    force: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { on(container, err, |container| Ok(container.delete(force)?)) }
}

/// As zind_container_delete(), and asks a function of the caller's whether to stop, as zind_container_start_interruptible(): while
/// somebody else changes it, and while hooks run.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_delete_interruptible(
    container: *const zind_container,
    force: bool,
    interrupted: zind_interrupted,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| Ok(container.delete_interruptible(force, &mut question(interrupted, data))?))
    }
}

/// Waits until something in its network namespace listens on a TCP port.
/// timeout_ms: how long to wait, in milliseconds.
/// Returns also ZIND_STATUS_STATE, with the end of its log, if timeout_ms is over first or it has ended; _NOT_FOUND, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_wait_port(
    container: *const zind_container,
    port: u16,
    timeout_ms: u64,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { zind_container_wait_port_interruptible(container, port, timeout_ms, None, std::ptr::null_mut(), err) }
}

/// As zind_container_wait_port(), and asks a function of the caller's whether to stop waiting, a few times a second.
/// interrupted: true ends the wait, the container goes on; NULL asks nobody. data: its argument.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_wait_port_interruptible(
    container: *const zind_container,
    port: u16,
    timeout_ms: u64,
    interrupted: zind_interrupted,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { wait_ready(container, timeout_ms, interrupted, data, err, || Ok(Ready::Port(port))) }
}

/// Waits until a line with this in it has been written since its start. Returns also ZIND_STATUS_UTF8, and what
/// zind_container_wait_port() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_wait_line(
    container: *const zind_container,
    part: *const c_char,
    timeout_ms: u64,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { zind_container_wait_line_interruptible(container, part, timeout_ms, None, std::ptr::null_mut(), err) }
}

/// As zind_container_wait_line(), and asks a function of the caller's, as zind_container_wait_port_interruptible().
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_wait_line_interruptible(
    container: *const zind_container,
    part: *const c_char,
    timeout_ms: u64,
    interrupted: zind_interrupted,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        wait_ready(container, timeout_ms, interrupted, data, err, || Ok(Ready::Line(text(part, "part")?.to_owned())))
    }
}

/// Waits until a program that is run in it, again and again, exits with 0. spec: as for zind_container_exec().
/// Returns also what zind_container_wait_port() and zind_container_exec() return.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_wait_command(
    container: *const zind_container,
    spec: *const zind_spec,
    timeout_ms: u64,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { zind_container_wait_command_interruptible(container, spec, timeout_ms, None, std::ptr::null_mut(), err) }
}

/// As zind_container_wait_command(), and asks a function of the caller's, as zind_container_wait_port_interruptible(). A program that
/// runs then is killed.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_container_wait_command_interruptible(
    container: *const zind_container,
    spec: *const zind_spec,
    timeout_ms: u64,
    interrupted: zind_interrupted,
    data: *mut c_void,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        wait_ready(container, timeout_ms, interrupted, data, err, || {
            Ok(Ready::Command(Box::new(Exec::from(&handle(spec, "spec")?.0))))
        })
    }
}

/// Waits until a container is as `ready` says.
///
/// # Safety
/// As of the functions above.
unsafe fn wait_ready(
    container: *const zind_container,
    timeout_ms: u64,
    interrupted: zind_interrupted,
    data: *mut c_void,
    err: *mut *mut zind_error,
    ready: impl FnOnce() -> Outcome<Ready>,
) -> zind_status {
    let timeout = Duration::from_millis(timeout_ms);
    // SAFETY: the header's demand.
    unsafe {
        on(container, err, |container| {
            Ok(container.wait_ready_interruptible(&ready()?, timeout, &mut question(interrupted, data))?)
        })
    }
}
