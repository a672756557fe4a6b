//! `zind_notifier` and `zind_violations`: system call filters while they work.

use std::ffi::{c_char, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use zind_core::{Call, Error, Notifier, Violation, Violations};

use crate::error::{zind_error, zind_status};
use crate::exit::{OfSize, Target};
use crate::guard::{Failure, Out, Outcome, free, guard, handle, quiet};
use crate::process::zind_process;
use crate::strings::give_string;

/// Whoever decides about the calls for which a container's profile says SCMP_ACT_NOTIFY.
pub struct zind_notifier(Notifier);

/// What a container's filter refuses.
pub struct zind_violations(Violations);

/// A system call that waits for an answer. What its arguments point to can be changed by the program at any time: never let
/// it proceed because of what was found there. Begin with ZIND_CALL_INIT.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct zind_call {
    /// sizeof(zind_call), set by the caller; no more than this is written.
    pub struct_size: usize,
    /// The number of this question; 0: there are no more calls.
    pub id: u64,
    /// The thread that called, in the caller's pid namespace.
    pub pid: i32,
    /// The number of the call.
    pub number: u32,
    /// Its arguments.
    pub args: [u64; 6],
    /// Where the program is.
    pub instruction_pointer: u64,
    /// AUDIT_ARCH_*: the convention of the call; 0 for one that zind does not know.
    pub arch: u32,
    /// Its name; empty where the kernel has none.
    pub name: [c_char; 36],
}

/// A call that the filter refused. Begin with ZIND_VIOLATION_INIT.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct zind_violation {
    /// sizeof(zind_violation), set by the caller; no more than this is written.
    pub struct_size: usize,
    /// What it failed with; 0: there are no more.
    pub errno_: i32,
    /// The thread that called, in the caller's pid namespace.
    pub pid: i32,
    /// Its arguments.
    pub args: [u64; 6],
    /// The number of the call.
    pub number: u32,
    /// AUDIT_ARCH_*: the convention of the call; 0 for one that zind does not know.
    pub arch: u32,
    /// Its name; empty where the kernel has none.
    pub name: [c_char; 40],
}

// SAFETY: repr(C), numbers only.
unsafe impl OfSize for zind_call {
    const FIRST_SIZE: usize = size_of::<zind_call>();
}

// SAFETY: repr(C), numbers only.
unsafe impl OfSize for zind_violation {
    const FIRST_SIZE: usize = size_of::<zind_violation>();
}

/// With a NUL at the end; the longest of the kernel's has 23 bytes.
fn name<const N: usize>(text: Option<&str>) -> [c_char; N] {
    let mut name = [0; N];
    for (slot, byte) in name.iter_mut().take(N - 1).zip(text.unwrap_or_default().bytes()) {
        *slot = byte as c_char;
    }
    name
}

impl From<Call> for zind_call {
    fn from(call: Call) -> zind_call {
        zind_call {
            struct_size: 0,
            id: call.id,
            pid: call.pid,
            number: call.number,
            args: call.arguments,
            instruction_pointer: call.instruction_pointer,
            arch: call.arch.map_or(0, |arch| arch.audit()),
            name: name(call.name()),
        }
    }
}

impl From<Violation> for zind_violation {
    fn from(violation: Violation) -> zind_violation {
        zind_violation {
            struct_size: 0,
            errno_: violation.errno,
            pid: violation.pid,
            args: violation.arguments,
            number: violation.number,
            arch: violation.arch.map_or(0, |arch| arch.audit()),
            name: name(violation.name()),
        }
    }
}

/// # Safety
/// `call` is NULL, or points to a call.
unsafe fn of(call: *const zind_call) -> Outcome<Call> {
    // SAFETY: the caller's promise.
    let call = unsafe { handle(call, "call")? };
    Ok(Call::of_id(call.id, call.pid))
}

fn timeout_of(timeout_ms: i64) -> Option<Duration> {
    u64::try_from(timeout_ms).ok().map(Duration::from_millis)
}

/// Takes the listener of the payload's filter, once. Until calls are answered, the threads that made them wait.
/// notifier: receives the handle; free it with zind_notifier_free(). The process need not live as long.
/// Returns also ZIND_STATUS_STATE if the profile asks about no call, names an agent (listenerPath), or it was taken before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_take_notifier(
    process: *const zind_process,
    notifier: *mut *mut zind_notifier,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let notifier = Out::handle(notifier, "notifier")?;
            let none = || Error::State("the filter has no listener, or it was taken".to_owned());
            notifier.give(zind_notifier(handle(process, "process")?.0.take_notifier().ok_or_else(none)?));
            Ok(())
        })
    }
}

/// The listener, readable when a call waits, or there will be none: for an event loop, or for ioctl(2) with the structures of
/// <linux/seccomp.h>. Borrowed: the notifier closes it. -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_notifier_fd(notifier: *const zind_notifier) -> i32 {
    // SAFETY: the header's demand.
    let notifier = unsafe { notifier.as_ref() };
    quiet(-1, || notifier.map_or(-1, |notifier| notifier.0.fd().as_raw_fd()))
}

/// The next call that waits for an answer. Any thread may call it.
/// timeout_ms: how long to wait, in milliseconds; negative: as long as it takes.
/// call: begin with ZIND_CALL_INIT; its id is 0 when there are no more.
/// Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_notifier_next(
    notifier: *const zind_notifier,
    timeout_ms: i64,
    call: *mut zind_call,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let call = Target::new(call, "call")?;
            let timeout = timeout_of(timeout_ms);
            let notifier = &handle(notifier, "notifier")?.0;
            match notifier.receive(timeout)? {
                Some(found) => call.put(found.into()),
                None if notifier.is_over() => call.put(Call::of_id(0, 0).into()),
                None => return Err(Error::Timeout(timeout.unwrap_or_default()).into()),
            }
            Ok(())
        })
    }
}

/// The call returns value, without having been run.
/// Returns also ZIND_STATUS_STATE if nobody waits for it any more, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_notifier_answer(
    notifier: *const zind_notifier,
    call: *const zind_call,
    value: i64,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle(notifier, "notifier")?.0.answer(&of(call)?, value)?)) }
}

/// The call fails with errno_value (1 to 4095), without having been run.
/// Returns also ZIND_STATUS_STATE if nobody waits for it any more, _SPEC, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_notifier_refuse(
    notifier: *const zind_notifier,
    call: *const zind_call,
    errno_value: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle(notifier, "notifier")?.0.refuse(&of(call)?, errno_value)?)) }
}

/// The kernel runs the call, whatever its arguments point to by then.
/// Returns also ZIND_STATUS_STATE if nobody waits for it any more, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_notifier_proceed(
    notifier: *const zind_notifier,
    call: *const zind_call,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(handle(notifier, "notifier")?.0.proceed(&of(call)?)?)) }
}

/// Gives whoever called a copy of a descriptor; the call goes on waiting.
/// target: the number it gets there, in place of what that was; negative: one that is free.
/// number: NULL, or receives it.
/// Returns also ZIND_STATUS_STATE if nobody waits for it any more, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_notifier_add_fd(
    notifier: *const zind_notifier,
    call: *const zind_call,
    fd: i32,
    target: i32,
    close_on_exec: bool,
    number: *mut i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand; the descriptor is the caller's for as long as this runs.
    unsafe {
        guard(err, || {
            let target = u32::try_from(target).ok();
            let found = handle(notifier, "notifier")?.0.add_fd(&of(call)?, borrow(fd)?, target, close_on_exec)?;
            number.as_mut().into_iter().for_each(|number| *number = found);
            Ok(())
        })
    }
}

/// The call returns a copy of a descriptor, in one step. From Linux 5.14 on.
/// Returns also ZIND_STATUS_STATE if nobody waits for it any more, and _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_notifier_answer_fd(
    notifier: *const zind_notifier,
    call: *const zind_call,
    fd: i32,
    close_on_exec: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand; the descriptor is the caller's for as long as this runs.
    unsafe {
        guard(err, || {
            handle(notifier, "notifier")?.0.answer_fd(&of(call)?, borrow(fd)?, close_on_exec)?;
            Ok(())
        })
    }
}

/// # Safety
/// The descriptor stays open for as long as the result is used.
unsafe fn borrow<'a>(fd: i32) -> Outcome<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(Error::spec("fd", format!("{fd} is no descriptor")).into());
    }
    // SAFETY: the caller's promise, and it is not -1.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Reads memory of whoever called, who still waited after it.
/// buffer: receives size bytes at most. read: receives how many there were.
/// Returns also ZIND_STATUS_STATE if nobody waits any more, and _SYS: EFAULT where nothing is mapped, EPERM where the
/// caller may not trace it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_notifier_read(
    notifier: *const zind_notifier,
    call: *const zind_call,
    address: u64,
    buffer: *mut c_void,
    size: usize,
    read: *mut usize,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let read = Out::new(read, "read")?;
            if buffer.is_null() && size > 0 {
                return Err(Failure::Null("buffer"));
            }
            let mut bytes = vec![0; size.min(LARGEST)];
            let length = handle(notifier, "notifier")?.0.read_memory(&of(call)?, address, &mut bytes)?;
            ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.cast(), length.min(bytes.len()));
            read.put(length);
            Ok(())
        })
    }
}

/// As much is read at once, in bytes.
const LARGEST: usize = 16 << 20;

/// Writes into the memory of whoever called.
/// written: NULL, or receives how many bytes of size were.
/// Returns also ZIND_STATUS_STATE and _SYS as for zind_notifier_read().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_notifier_write(
    notifier: *const zind_notifier,
    call: *const zind_call,
    address: u64,
    bytes: *const c_void,
    size: usize,
    written: *mut usize,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            if bytes.is_null() && size > 0 {
                return Err(Failure::Null("bytes"));
            }
            let bytes = if size == 0 { &[] } else { std::slice::from_raw_parts(bytes.cast::<u8>(), size) };
            let length = handle(notifier, "notifier")?.0.write_memory(&of(call)?, address, bytes)?;
            written.as_mut().into_iter().for_each(|written| *written = length);
            Ok(())
        })
    }
}

/// Frees a notifier and closes the listener: calls that wait, and all later ones, fail with ENOSYS. notifier: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_notifier_free(notifier: *mut zind_notifier) {
    // SAFETY: the header's demand.
    unsafe { free(notifier) }
}

/// What the filter refuses by an errno, as it happens, from the start on. It takes zind_spec_set_violations().
/// violations: receives the handle; free it with zind_violations_free(). The process need not live as long.
/// Returns also ZIND_STATUS_STATE if it was started without.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_violations(
    process: *const zind_process,
    violations: *mut *mut zind_violations,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let violations = Out::handle(violations, "violations")?;
            violations.give(zind_violations(handle(process, "process")?.0.violations()?));
            Ok(())
        })
    }
}

/// Readable when there is a violation, or there will be no more; for an event loop. Borrowed; do not read from it. -1 for
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_violations_fd(violations: *const zind_violations) -> i32 {
    // SAFETY: the header's demand.
    let violations = unsafe { violations.as_ref() };
    quiet(-1, || violations.map_or(-1, |violations| violations.0.fd().as_raw_fd()))
}

/// The next violation.
/// timeout_ms: how long to wait, in milliseconds; negative: as long as it takes.
/// violation: begin with ZIND_VIOLATION_INIT; its errno_ is 0 when there are no more.
/// Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_violations_next(
    violations: *const zind_violations,
    timeout_ms: i64,
    violation: *mut zind_violation,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let violation = Target::new(violation, "violation")?;
            let timeout = timeout_of(timeout_ms);
            let violations = &handle(violations, "violations")?.0;
            match violations.next_within(timeout)? {
                Some(found) => violation.put(found.into()),
                None if violations.is_over() => violation.put(NO_MORE),
                None => return Err(Error::Timeout(timeout.unwrap_or_default()).into()),
            }
            Ok(())
        })
    }
}

const NO_MORE: zind_violation =
    zind_violation { struct_size: 0, errno_: 0, pid: 0, args: [0; 6], number: 0, arch: 0, name: [0; 40] };

/// How many were not kept because nobody read them. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_violations_lost(violations: *const zind_violations) -> u64 {
    // SAFETY: the header's demand.
    let violations = unsafe { violations.as_ref() };
    quiet(0, || violations.map_or(0, |violations| violations.0.lost()))
}

/// Frees violations; the filter goes on. violations: NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_violations_free(violations: *mut zind_violations) {
    // SAFETY: the header's demand.
    unsafe { free(violations) }
}

/// The smallest profile, in OCI's JSON, under which the calls pass that there were so far: after the end, all of them. It
/// takes zind_spec_set_seccomp(spec, "learn").
/// json: receives a string; free it with zind_string_free().
/// Returns also ZIND_STATUS_STATE if it was started without.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_process_learned_json(
    process: *const zind_process,
    json: *mut *mut c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let json = Out::handle(json, "json")?;
            give_string(json, handle(process, "process")?.0.learned()?);
            Ok(())
        })
    }
}
