//! Processes: signals, waiting, what they used, sessions, limits, and how this one ends.

use core::arch::asm;

use super::descriptors::close;
use super::{EINTR, Result, again_if_interrupted, is_hidden};

pub fn exit(code: i32) -> ! {
    let _ = call!(EXIT_GROUP, code);
    // A filter may refuse even that. There is one thread, or none that matters any more.
    let _ = call!(EXIT, code);
    die()
}

/// Ends by a signal, without a call.
fn die() -> ! {
    // SAFETY: an instruction that is none.
    unsafe { asm!("ud2", options(noreturn)) }
}

/// Ends this thread only.
pub fn exit_thread() -> ! {
    let _ = call!(EXIT, 0);
    die()
}

pub fn yield_cpu() {
    let _ = call!(SCHED_YIELD);
}

/// What the kernel sets in the word of [`mark_at_death`]: `FUTEX_OWNER_DIED`.
pub const OWNER_DIED: u32 = 0x4000_0000;

/// When this process ends, however that comes, the kernel marks a word that has its number: before its children lose it. An error
/// means that nobody will. Source: set_robust_list(2), the kernel's `Documentation/locking/robust-futexes.rst`
pub fn mark_at_death(word: *mut u32) -> Result {
    use core::sync::atomic::{AtomicUsize, Ordering};
    // `struct robust_list_head`: a list of none, how far words are from their entries, and the entry that is being worked on.
    static HEAD: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
    let head = (&raw const HEAD) as usize;
    HEAD[0].store(head, Ordering::Relaxed);
    HEAD[2].store(word as usize, Ordering::Relaxed);
    call!(SET_ROBUST_LIST, head, size_of_val(&HEAD))
}

/// Blocks or unblocks every signal.
pub fn set_all_signals_blocked(blocked: bool) -> Result {
    const SIG_SETMASK: usize = 2;
    let mask: u64 = if blocked { !0 } else { 0 };
    call!(RT_SIGPROCMASK, SIG_SETMASK, &raw const mask, 0, 8)
}

/// Every disposition back to the default: what the caller ignores is no business of the payload's.
pub fn reset_signals() {
    let default = [0u64; 4];
    for signal in 1..=64 {
        let _ = call!(RT_SIGACTION, signal, default.as_ptr(), 0, 8);
    }
}

/// A descriptor from which every signal can be read.
pub fn signalfd() -> Result<i32> {
    const SFD_CLOEXEC: usize = 0o2000000;
    let mask: u64 = !0;
    call!(SIGNALFD4, -1i32, &raw const mask, 8, SFD_CLOEXEC).map(|fd| fd as i32)
}

/// Nanoseconds: since 1970, or, with `monotonic`, since some moment.
pub fn now_ns(monotonic: bool) -> u64 {
    let mut time = [0u64; 2];
    let _ = call!(CLOCK_GETTIME, u32::from(monotonic), time.as_mut_ptr());
    time[0] * 1_000_000_000 + time[1]
}

pub fn pidfd_send_signal(pidfd: i32, signal: i32) -> Result {
    call!(PIDFD_SEND_SIGNAL, pidfd, signal, 0, 0)
}

/// Waits for the end of a child: its status.
pub fn wait_for(pid: i32) -> Result<i32> {
    const WALL: i32 = 0x4000_0000;
    let mut status = 0i32;
    again_if_interrupted(|| call!(WAIT4, pid, &raw mut status, WALL, 0)).map(|_| status)
}

pub fn getppid() -> i32 {
    call!(GETPPID).unwrap_or(0) as i32
}

pub fn getpid() -> i32 {
    call!(GETPID).unwrap_or(0) as i32
}

pub fn pidfd_open(pid: i32) -> Result<i32> {
    call!(PIDFD_OPEN, pid, 0).map(|fd| fd as i32)
}

/// Takes back the memory of a process that was killed; `EINVAL` for one that was not.
pub fn process_mrelease(pidfd: i32) -> Result {
    call!(PROCESS_MRELEASE, pidfd, 0)
}

/// To a process, or to the group of one (`-pid`), or to all (-1).
pub fn kill(pid: i32, signal: i32) -> Result {
    const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 4;
    let errno = match call!(KILL, pid, signal) {
        Err(errno) if is_hidden(errno) && pid != -1 => errno,
        other => return other,
    };
    // Also where it is this user that may not.
    let pidfd = pidfd_open(pid.saturating_abs()).map_err(|_| errno)?;
    let send = |flags: u32| call!(PIDFD_SEND_SIGNAL, pidfd, signal, 0, flags);
    let sent = match pid {
        // Before Linux 6.9 it is for the one process only.
        ..0 => send(PIDFD_SIGNAL_PROCESS_GROUP).or_else(|_| send(0)),
        _ => send(0),
    };
    close(pidfd);
    sent
}

/// Until this child has ended.
pub fn reap(pid: i32) {
    const WALL: i32 = 0x4000_0000;
    while call!(WAIT4, pid, 0, WALL, 0) == Err(EINTR) {}
}

/// Any child that ended or stopped: its pid and status.
pub fn wait_any(flags: i32) -> Result<(i32, i32)> {
    wait_any_with(flags, core::ptr::null_mut())
}

/// The same; and what it and its own children have used, as [`usage_of_children`] has it.
pub fn wait_any_and_usage(flags: i32) -> Result<(i32, i32, (u64, u64, u64))> {
    let mut usage = [0u64; 18];
    let (pid, status) = wait_any_with(flags, usage.as_mut_ptr())?;
    Ok((pid, status, usage_of(&usage)))
}

fn wait_any_with(flags: i32, usage: *mut u64) -> Result<(i32, i32)> {
    const WALL: i32 = 0x4000_0000;
    let mut status = 0i32;
    let pid = again_if_interrupted(|| call!(WAIT4, -1i32, &raw mut status, WALL | flags, usage))?;
    Ok((pid as i32, status))
}

/// User time, system time (microseconds) and largest resident set (bytes) of all children waited for.
pub fn usage_of_children() -> (u64, u64, u64) {
    const RUSAGE_CHILDREN: i32 = -1;
    let mut usage = [0u64; 18];
    if call!(GETRUSAGE, RUSAGE_CHILDREN, usage.as_mut_ptr()).is_err() {
        return (0, 0, 0);
    }
    usage_of(&usage)
}

/// Of a `struct rusage`.
fn usage_of(usage: &[u64; 18]) -> (u64, u64, u64) {
    (usage[0] * 1_000_000 + usage[1], usage[2] * 1_000_000 + usage[3], usage[4] * 1024)
}

pub fn setsid() -> Result {
    call!(SETSID)
}

/// The session we are in.
pub fn getsid() -> Result<i32> {
    call!(GETSID, 0).map(|session| session as i32)
}

pub fn setpgid(group: i32) -> Result {
    call!(SETPGID, 0, group)
}

pub fn prlimit(resource: u64, soft: u64, hard: u64) -> Result {
    let limit = [soft, hard];
    call!(PRLIMIT64, 0, resource, limit.as_ptr(), 0)
}

/// Soft and hard limit.
pub fn get_limit(resource: u64) -> Result<[u64; 2]> {
    // No limit that anybody sets, for a call that does nothing.
    let mut limit = [u64::MAX - 0xff; 2];
    call!(PRLIMIT64, 0, resource, 0, limit.as_mut_ptr())?;
    Ok(limit)
}

pub fn set_nice(nice: i32) -> Result {
    const PRIO_PROCESS: usize = 0;
    call!(SETPRIORITY, PRIO_PROCESS, 0, nice)
}

pub fn sched_setattr<T>(attributes: &T) -> Result {
    call!(SCHED_SETATTR, 0, &raw const *attributes, 0)
}

pub fn personality(persona: u32) -> Result {
    call!(PERSONALITY, persona)
}

pub fn ptrace_me() -> Result {
    call!(PTRACE, 0, 0, 0, 0)
}

/// Lets a traced child go, with a signal for it.
pub fn ptrace_detach(pid: i32, signal: i32) -> Result {
    const PTRACE_DETACH: usize = 17;
    call!(PTRACE, PTRACE_DETACH, pid, 0, signal)
}
