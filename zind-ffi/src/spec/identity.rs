//! Setters: who the payload is to the kernel: ids, limits, scheduling, session.

use std::ffi::c_char;

use zind_core::{Rlimit, Scheduler, User, parse_rlimit_name};

use super::{set, zind_spec};
use crate::error::{zind_error, zind_status};
use crate::guard::{Failure, Outcome};
use crate::strings::{optional_list, optional_text, text};

/// Who the payload runs as.
/// user: "name", "name:group", "1000", "1000:1000", looked up in the container; NULL for root of the container, or the
/// caller at the low level. Returns also ZIND_STATUS_UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_user(
    spec: *mut zind_spec,
    user: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.user = optional_text(user, "user")?.map(|user| User::Name(user.into()));
            Ok(())
        })
    }
}

/// Who the payload runs as, by number. gid: UINT32_MAX for the group that the container's /etc/passwd names, else 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_user_ids(
    spec: *mut zind_spec,
    uid: u32,
    gid: u32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.user = Some(User::Ids(uid, (gid != u32::MAX).then_some(gid)));
            Ok(())
        })
    }
}

/// Supplementary groups.
/// groups: names or numbers, an array that ends with NULL; NULL for none, or the caller's at the low level.
/// Returns also ZIND_STATUS_UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_groups(
    spec: *mut zind_spec,
    groups: *const *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let utf8 = |group: &std::ffi::OsStr| group.to_str().map(str::to_owned).ok_or(Failure::Utf8("groups"));
            let groups = optional_list(groups).map(|groups| groups.into_iter().map(utf8).collect::<Outcome<_>>());
            spec.groups = groups.transpose()?;
            Ok(())
        })
    }
}

/// File mode creation mask, 022 by default. mask: UINT32_MAX for the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_umask(
    spec: *mut zind_spec,
    mask: u32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.umask = (mask != u32::MAX).then_some(mask);
            Ok(())
        })
    }
}

/// A resource limit: setrlimit(2).
/// name: "nofile", "RLIMIT_NOFILE". soft, hard: UINT64_MAX for unlimited.
/// Returns also ZIND_STATUS_UTF8 or _SPEC for a name that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_rlimit(
    spec: *mut zind_spec,
    name: *const c_char,
    soft: u64,
    hard: u64,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let resource = parse_rlimit_name(text(name, "name")?)?;
            let limit = |value: u64| (value != u64::MAX).then_some(value);
            spec.rlimits.retain(|known| known.resource != resource);
            spec.rlimits.push(Rlimit { resource, soft: limit(soft), hard: limit(hard) });
            Ok(())
        })
    }
}

/// Who is killed first when memory runs out: -1000 (never) to 1000 (first). adjustment: INT32_MIN for the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_oom_score_adj(
    spec: *mut zind_spec,
    adjustment: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.oom_score_adj = (adjustment != i32::MIN).then_some(adjustment);
            Ok(())
        })
    }
}

/// Nice value, -20 to 19. nice: INT32_MIN for the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_nice(spec: *mut zind_spec, nice: i32, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.nice = (nice != i32::MIN).then_some(nice);
            Ok(())
        })
    }
}

/// Scheduling policy: sched(7).
/// policy: SCHED_* of <sched.h>. priority: 1 to 99 for the real-time policies, else 0. flags: SCHED_FLAG_*.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_scheduler(
    spec: *mut zind_spec,
    policy: u32,
    priority: u32,
    flags: u64,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.scheduler = Some(Scheduler { policy, priority, flags, deadline_ns: (0, 0, 0) });
            Ok(())
        })
    }
}

/// The policy SCHED_DEADLINE, in nanoseconds. flags: SCHED_FLAG_*.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_scheduler_deadline(
    spec: *mut zind_spec,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
    flags: u64,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let policy = libc::SCHED_DEADLINE as u32;
            let deadline_ns = (runtime_ns, deadline_ns, period_ns);
            spec.scheduler = Some(Scheduler { policy, priority: 0, flags, deadline_ns });
            Ok(())
        })
    }
}

/// A session of its own: setsid(2). On for containers, off for the low level.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_setsid(
    spec: *mut zind_spec,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.session.setsid = on;
            Ok(())
        })
    }
}

/// The process group to join; 0 makes a new one. pgid: -1 for the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_pgid(spec: *mut zind_spec, pgid: i32, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.session.pgid = (pgid >= 0).then_some(pgid);
            Ok(())
        })
    }
}

/// The controlling terminal.
/// fd: the terminal as a descriptor of the payload, 0 to 2 or one that is passed. controlling: make it the controlling
/// terminal, for which setsid must be on. foreground: put the process group into its foreground.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_ctty(
    spec: *mut zind_spec,
    fd: i32,
    controlling: bool,
    foreground: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.session.ctty = fd;
            spec.session.setctty = controlling;
            spec.session.foreground = foreground;
            Ok(())
        })
    }
}

/// Give up the controlling terminal.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_noctty(
    spec: *mut zind_spec,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.session.noctty = on;
            Ok(())
        })
    }
}

/// Execution domain: personality(2). persona: UINT32_MAX for the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_personality(
    spec: *mut zind_spec,
    persona: u32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.personality = (persona != u32::MAX).then_some(persona);
            Ok(())
        })
    }
}

/// A signal for the payload when the process above it ends. signal: 0 for none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_pdeathsig(
    spec: *mut zind_spec,
    signal: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.pdeathsig = (signal != 0).then_some(signal);
            Ok(())
        })
    }
}

/// Stop the payload before its first instruction, for a tracer: PTRACE_TRACEME.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_ptrace(
    spec: *mut zind_spec,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.ptrace = on;
            Ok(())
        })
    }
}
