//! `zind_process` and `zind_start`: what runs, and what is about to.

use std::ffi::{c_char, c_void};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use zind_core::terminal::Size;
use zind_core::{Command, Error, Exec, Process, Start};

use crate::error::{zind_error, zind_status};
use crate::exit::{Target, zind_exit, zind_stats};
use crate::guard::{Out, free, guard, handle, quiet};
use crate::output::zind_output;
use crate::spec::zind_spec;
use crate::strings::{give_string, optional_buffer, path};

/// A container that runs, or has ended.
pub struct zind_process(pub(crate) Process);

/// A start that is under way.
pub struct zind_start(Mutex<Option<Start>>);

/// Asked whether to stop waiting. It runs in the caller's process, in the thread that waits; it must return (no
/// longjmp, no C++ exception).
pub type zind_interrupted = Option<unsafe extern "C" fn(data: *mut c_void) -> bool>;

/// The caller's question as the engine asks it.
///
/// # Safety
/// The function may be called with `data` from this thread as long as the result lives.
pub(crate) unsafe fn question(interrupted: zind_interrupted, data: *mut c_void) -> impl FnMut() -> bool {
    // SAFETY: the caller's promise.
    move || interrupted.is_some_and(|ask| unsafe { ask(data) })
}

/// Starts a container. Blocks until its program runs or failed to.
/// spec: borrowed; it can be changed, started again or freed afterwards.
/// process: receives the handle; free it with zind_process_free().
/// Returns also ZIND_STATUS_SPEC (an option breaks a rule: nothing was touched), _SYS (a step failed: nothing is left),
/// _UNSUPPORTED (this machine or user cannot, or what was required is not in force), _NOT_FOUND (a user), _TIMEOUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_run(
    spec: *const zind_spec,
    process: *mut *mut zind_process,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { zind_run_interruptible(spec, None, std::ptr::null_mut(), process, err) }
}

/// As zind_run(), and asks a function of the caller's whether to stop: after each signal that this thread handled, and a few
/// times a second. Nothing of it is left then.
/// interrupted: NULL asks nobody. data: its argument.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_run_interruptible(
    spec: *const zind_spec,
    interrupted: zind_interrupted,
    data: *mut c_void,
    process: *mut *mut zind_process,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let process = Out::handle(process, "process")?;
            let command = Command::from(handle(spec, "spec")?.0.clone());
            let mut ask = question(interrupted, data);
            process.give(zind_process(command.begin_interruptible(&mut ask)?.finish_interruptible(&mut ask)?));
            Ok(())
        })
    }
}

/// Begins a start, for an event loop: it goes on by itself while the caller does something else.
/// spec: borrowed. start: receives the handle; free it with zind_start_free().
/// Returns also ZIND_STATUS_SPEC, _SYS, _UNSUPPORTED, _NOT_FOUND as zind_run(), as far as they can be told by now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_start_begin(
    spec: *const zind_spec,
    start: *mut *mut zind_start,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let start = Out::handle(start, "start")?;
            let begun = Command::from(handle(spec, "spec")?.0.clone()).begin()?;
            start.give(zind_start(Mutex::new(Some(begun))));
            Ok(())
        })
    }
}

/// Becomes readable when zind_start_finish() will not block for long. Borrowed: the start closes it. -1 for NULL, and
/// after zind_start_finish().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_start_fd(start: *const zind_start) -> i32 {
    // SAFETY: the header's demand.
    let start = unsafe { start.as_ref() };
    quiet(-1, || {
        let begun = start.map(|start| start.0.lock().unwrap_or_else(PoisonError::into_inner));
        begun.and_then(|begun| begun.as_ref().map(|begun| begun.fd().as_raw_fd())).unwrap_or(-1)
    })
}

/// Waits until the program runs or failed to. The start can only be freed afterwards.
/// process: receives the handle; free it with zind_process_free().
/// Returns also what zind_run() returns, and ZIND_STATUS_STATE when it is called for the second time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_start_finish(
    start: *mut zind_start,
    process: *mut *mut zind_process,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { zind_start_finish_interruptible(start, None, std::ptr::null_mut(), process, err) }
}

/// As zind_start_finish(), and asks a function of the caller's whether to stop, as zind_run_interruptible(): nothing of the start is
/// left then.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_start_finish_interruptible(
    start: *mut zind_start,
    interrupted: zind_interrupted,
    data: *mut c_void,
    process: *mut *mut zind_process,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let process = Out::handle(process, "process")?;
            let begun = handle(start, "start")?.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            let begun = begun.ok_or_else(|| Error::State("this start was finished already".into()))?;
            process.give(zind_process(begun.finish_interruptible(&mut question(interrupted, data))?));
            Ok(())
        })
    }
}

/// Frees a start; one that was not finished is called off, and nothing of it is left. start: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_start_free(start: *mut zind_start) {
    // SAFETY: the header's demand.
    unsafe { free(start) }
}

/// Reads one number of a process.
///
/// # Safety
/// `process` is NULL or live.
unsafe fn number(process: *const zind_process, read: impl FnOnce(&Process) -> i32) -> i32 {
    // SAFETY: the caller's promise.
    let process = unsafe { process.as_ref() };
    quiet(-1, || process.map_or(-1, |process| read(&process.0)))
}

/// The container's first process in the caller's pid namespace: zind's PID 1 with init on, else the payload. -1 for
/// NULL. To signal or join it, prefer the functions of zind and the pidfd: numbers are reused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_pid(process: *const zind_process) -> i32 {
    // SAFETY: the header's demand.
    unsafe { number(process, Process::pid) }
}

/// A pidfd of that process, for setns(2) and the like. Borrowed: the process closes it. -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_pidfd(process: *const zind_process) -> i32 {
    // SAFETY: the header's demand.
    unsafe { number(process, |process| process.pidfd().as_raw_fd()) }
}

/// Becomes readable when the container has ended, for an event loop; zind_process_poll() then has the exit.
/// Borrowed: the process closes it; do not read from it. -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_end_fd(process: *const zind_process) -> i32 {
    // SAFETY: the header's demand.
    unsafe { number(process, |process| process.end_fd().as_raw_fd()) }
}

fn owned(fd: Option<OwnedFd>) -> i32 {
    fd.map_or(-1, IntoRawFd::into_raw_fd)
}

/// The caller's end of the pipe to standard input, once. The caller closes it. -1 if it was not piped or is taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_take_stdin(process: *mut zind_process) -> i32 {
    // SAFETY: the header's demand.
    unsafe { number(process, |process| owned(process.take_stdin())) }
}

/// The caller's end of the pipe from standard output, once. The caller closes it. -1 if it was not piped or is taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_take_stdout(process: *mut zind_process) -> i32 {
    // SAFETY: the header's demand.
    unsafe { number(process, |process| owned(process.take_stdout())) }
}

/// The caller's end of the pipe from standard error, once. The caller closes it. -1 if it was not piped or is taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_take_stderr(process: *mut zind_process) -> i32 {
    // SAFETY: the header's demand.
    unsafe { number(process, |process| owned(process.take_stderr())) }
}

/// The caller's end of the terminal, once: what is written to it is typed, what the payload writes is read from it, and
/// closing it hangs up. The caller closes it. -1 if there is none or it is taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_take_terminal(process: *mut zind_process) -> i32 {
    // SAFETY: the header's demand.
    unsafe { number(process, |process| owned(process.take_terminal())) }
}

/// Sets the size of the terminal's window, until the terminal is taken; after that, TIOCSWINSZ of ioctl_tty(2) on it.
/// Returns also ZIND_STATUS_STATE (there is none, or it is taken), _SPEC, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_resize(
    process: *const zind_process,
    rows: u16,
    cols: u16,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle(process, "process")?.0.resize(Size::new(rows, cols))?)) }
}

/// Runs a further program in a running container, in all of its namespaces and control groups.
/// spec: borrowed; what it says about the program: arguments, variables, directory, user, groups, umask, limits,
/// capabilities, privileged, no_new_privileges, seccomp, keyring, streams, terminal, passed descriptors, time limit,
/// die_with_owner. What it leaves at its default is as the container has it; the rest of it does not count.
/// out: receives a handle as of zind_run(). Killed, the program takes what it has started along and leaves the container
/// alone; it ends with the container. Under a profile with SCMP_ACT_NOTIFY it has a listener of its own: zind_process_take_notifier().
/// Returns also ZIND_STATUS_STATE (the container has ended or is paused), and what zind_run() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_exec(
    process: *const zind_process,
    spec: *const zind_spec,
    out: *mut *mut zind_process,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { zind_process_exec_interruptible(process, spec, None, std::ptr::null_mut(), out, err) }
}

/// As zind_process_exec(), and asks a function of the caller's whether to stop, as zind_run_interruptible(): nothing of the program is
/// left then, and the container goes on.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_exec_interruptible(
    process: *const zind_process,
    spec: *const zind_spec,
    interrupted: zind_interrupted,
    data: *mut c_void,
    out: *mut *mut zind_process,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let out = Out::handle(out, "out")?;
            let exec = Exec::from(&handle(spec, "spec")?.0);
            let started = handle(process, "process")?.0.exec_interruptible(&exec, &mut question(interrupted, data))?;
            out.give(zind_process(started));
            Ok(())
        })
    }
}

/// Ends the whole container at once, by SIGKILL. Nothing happens if it has ended. Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_kill(process: *mut zind_process, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle(process, "process")?.0.kill()?)) }
}

/// Sends a signal to the payload; SIGKILL ends the whole container. Nothing happens if it has ended.
/// Returns also ZIND_STATUS_SPEC for a number that is no signal, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_signal(
    process: *mut zind_process,
    signal: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle(process, "process")?.0.signal(signal)?)) }
}

/// Looks whether the container has ended, without waiting.
/// exit: begin with ZIND_EXIT_INIT; its kind is ZIND_EXIT_KIND_RUNNING as long as it has not.
/// Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_poll(
    process: *mut zind_process,
    exit: *mut zind_exit,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let exit = Target::new(exit, "exit")?;
            let ended = handle(process, "process")?.0.try_wait()?;
            exit.put(ended.map_or(zind_exit::RUNNING, Into::into));
            Ok(())
        })
    }
}

/// Waits until the container has ended. It can be waited for any number of times.
/// timeout_ms: how long to wait, in milliseconds; negative: as long as it takes. The time limit of the request itself,
/// zind_spec_set_timeout_ms(), kills the container when it is over.
/// exit: NULL, or begin with ZIND_EXIT_INIT.
/// Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over (the container goes on), and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_wait(
    process: *mut zind_process,
    timeout_ms: i64,
    exit: *mut zind_exit,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { zind_process_wait_interruptible(process, timeout_ms, None, std::ptr::null_mut(), exit, err) }
}

/// As zind_process_wait(), and asks a function of the caller's whether to stop waiting: after each signal that this
/// thread handled, and a few times a second.
/// interrupted: true ends the wait, the container goes on; NULL asks nobody. data: its argument.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_wait_interruptible(
    process: *mut zind_process,
    timeout_ms: i64,
    interrupted: zind_interrupted,
    data: *mut c_void,
    exit: *mut zind_exit,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let exit = Target::optional(exit, "exit")?;
            let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
            let process = &handle(process, "process")?.0;
            let ended = process.wait_interruptible(timeout, &mut question(interrupted, data))?;
            let ended = ended.ok_or_else(|| Error::Timeout(timeout.unwrap_or_default()))?;
            if let Some(exit) = exit {
                exit.put(ended.into());
            }
            Ok(())
        })
    }
}

/// Writes input to standard input, reads the piped streams to their ends, and waits. The streams must not have been
/// taken. The time limit of the request kills the container when it is over; what it wrote until then is kept.
/// input: len bytes; NULL and 0 for none. output: receives the handle; free it with zind_output_free().
/// Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_communicate(
    process: *mut zind_process,
    input: *const c_void,
    len: usize,
    output: *mut *mut zind_output,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { zind_process_communicate_interruptible(process, input, len, None, std::ptr::null_mut(), output, err) }
}

/// As zind_process_communicate(), and asks a function of the caller's whether to stop: after each signal that this thread handled,
/// and a few times a second.
/// interrupted: true ends it: the streams are closed, what was read is gone, and the container goes on; NULL asks nobody.
/// data: its argument.
/// Returns also ZIND_STATUS_INTERRUPTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_communicate_interruptible(
    process: *mut zind_process,
    input: *const c_void,
    len: usize,
    interrupted: zind_interrupted,
    data: *mut c_void,
    output: *mut *mut zind_output,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let output = Out::handle(output, "output")?;
            let input = optional_buffer(input, len, "input")?.unwrap_or_default();
            let process = &handle(process, "process")?.0;
            output.give(process.communicate(input.to_vec(), &mut question(interrupted, data))?.into());
            Ok(())
        })
    }
}

/// What the container uses now; once a wait or poll has seen its end, what it used over its whole life.
/// stats: begin with ZIND_STATS_INIT. Returns also ZIND_STATUS_SPEC for a struct_size that is too small.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_stats(
    process: *const zind_process,
    stats: *mut zind_stats,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let stats = Target::new(stats, "stats")?;
            stats.put(handle(process, "process")?.0.stats()?.into());
            Ok(())
        })
    }
}

/// What is in force, as a JSON object: "namespaces", "uid_map", "rootfs", "overlay", "seccomp", "capabilities",
/// "network", "in_force" (the names that zind_spec_require() takes) and others.
/// json: receives a string; free it with zind_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_isolation_json(
    process: *const zind_process,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            give_string(json, handle(process, "process")?.0.isolation().to_json().to_string());
            Ok(())
        })
    }
}

/// Frees a process handle and closes the pipes that were not taken. It neither waits nor kills: the container goes on,
/// and ends with the caller's process unless die_with_owner is off. process: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_free(process: *mut zind_process) {
    // SAFETY: the header's demand.
    unsafe { free(process) }
}

/// Mounts something in a running container, below its root, whatever the payload does to the path meanwhile.
/// type, source, target, options: as for zind_spec_add_mount(). A bind takes a source that the caller can reach; called
/// by an ordinary user it has to be an rbind if something is mounted below the source (_SYS, EINVAL), as at a start.
/// Returns also ZIND_STATUS_STATE (it has ended), _SPEC (an overlay, or tmpcopyup: those are for a start), _UNSUPPORTED
/// (an idmapped bind, called by an ordinary user), _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_mount(
    process: *const zind_process,
    r#type: *const c_char,
    source: *const c_char,
    target: *const c_char,
    options: *const *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let process = handle(process, "process")?;
            let mount = crate::spec::root::mount_of(r#type, source, target, options)?;
            Ok(process.0.mount(&mount)?)
        })
    }
}

/// Takes away what is mounted at target in a running container, and what is mounted below it.
/// Returns also ZIND_STATUS_STATE (it has ended), _SPEC (target is no absolute path), _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_umount(
    process: *const zind_process,
    target: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle(process, "process")?.0.umount(path(target, "target")?)?)) }
}
