//! System calls made with arguments that the kernel must refuse, or that only ask: does it have the call?
//!
//! `ENOSYS` means no (an old kernel, or a seccomp filter that hides the call); any other errno means that the call was
//! looked at. None of them changes anything.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

/// The errno with which the kernel refused; `UnknownErrno` (0) where it did not.
fn refusal(result: libc::c_long) -> Errno {
    match Errno::result(result) {
        Ok(_) => Errno::from_raw(0),
        Err(errno) => errno,
    }
}

/// Soft and hard limit of this process by its number. `None` where a filter refuses to tell.
pub(crate) fn limit(resource: u32) -> Option<(u64, u64)> {
    let mut found = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: our own process; the kernel writes the one structure, which is live and of its type.
    let result = unsafe { libc::prlimit64(0, resource as _, std::ptr::null(), &raw mut found) };
    (result == 0).then_some((found.rlim_cur, found.rlim_max))
}

/// Policy and priority of the calling thread.
pub(crate) fn scheduling() -> Option<(i32, i32)> {
    let mut priority: libc::c_int = 0;
    // SAFETY: `struct sched_param` of the system call is one number, which is live.
    let (policy, asked) = unsafe {
        (
            libc::syscall(libc::SYS_sched_getscheduler, 0_usize),
            libc::syscall(libc::SYS_sched_getparam, 0_usize, &raw mut priority),
        )
    };
    (policy >= 0 && asked == 0).then_some((policy as i32, priority))
}

/// `clone3(2)` with an argument structure of size 0: `EINVAL` where the call exists.
pub fn clone3() -> Errno {
    // SAFETY: the kernel refuses a size below CLONE_ARGS_SIZE_VER0 before it reads the structure or makes a process.
    refusal(unsafe { libc::syscall(libc::SYS_clone3, ptr::null_mut::<libc::c_void>(), 0_usize) })
}

/// `mount_setattr(2)` with a structure of size 0: `EINVAL` where the call exists.
pub fn mount_setattr() -> Errno {
    // SAFETY: the path is a live C string, and the kernel refuses a size below MOUNT_ATTR_SIZE_VER0 before it reads
    // the structure.
    refusal(unsafe {
        libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), 0_u32, ptr::null_mut::<libc::c_void>(), 0_usize)
    })
}

/// True if the mount interface of Linux 5.2 and 5.12 is hidden, in whole or in part. Whether the caller may mount is
/// another question.
pub(crate) fn newer_mounts_are_hidden() -> bool {
    const NONE: *const libc::c_char = ptr::null();
    // SAFETY: a null pointer where the kernel reads a path: EFAULT, or EPERM before that.
    let [fsopen, open_tree, move_mount] = unsafe {
        [
            refusal(libc::syscall(libc::SYS_fsopen, NONE, 0_u32)),
            refusal(libc::syscall(libc::SYS_open_tree, -1, NONE, 0_u32)),
            refusal(libc::syscall(libc::SYS_move_mount, -1, NONE, -1, NONE, 0_u32)),
        ]
    };
    // SAFETY: no descriptor -1 is open, nothing is read: EBADF, or EPERM and EINVAL before that.
    let [fsconfig, fsmount] = unsafe {
        [
            refusal(libc::syscall(libc::SYS_fsconfig, -1, 0_u32, NONE, NONE, 0)),
            refusal(libc::syscall(libc::SYS_fsmount, -1, 0_u32, 0_u32)),
        ]
    };
    let mount_setattr = mount_setattr();
    // Those look at their arguments first, so that EPERM can only be a filter's; the others at the privilege.
    if [fsopen, fsconfig, fsmount, open_tree, move_mount, mount_setattr].contains(&Errno::ENOSYS)
        || [fsconfig, open_tree, mount_setattr].contains(&Errno::EPERM)
    {
        return true;
    }
    let look_later = [fsopen, fsmount, move_mount];
    if !look_later.contains(&Errno::EPERM) || crate::lowlevel::has_capability(CAP_SYS_ADMIN) {
        return look_later.contains(&Errno::EPERM);
    }
    // Only a filter could tell us something else than one who may mount.
    has_filter() && are_refused_with_privilege()
}

/// There is a seccomp filter around the calling thread.
fn has_filter() -> bool {
    const SECCOMP_MODE_FILTER: libc::c_int = 2;
    // SAFETY: takes a number.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) == SECCOMP_MODE_FILTER }
}

/// One of the mount calls is EPERM to one who may mount, too. Asked once for each number of filters, of which none is ever taken
/// away: it takes two namespaces.
fn are_refused_with_privilege() -> bool {
    /// Twice the number of filters, and 1 if that is so; 0: nobody has asked.
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let filters = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:")?.trim().parse::<u32>().ok());
    let known = KNOWN.load(Ordering::Relaxed);
    if filters.is_some_and(|filters| filters > 0 && known >> 1 == u64::from(filters)) {
        return known & 1 != 0;
    }
    let Ok(answers) = super::clone::mount_calls_with_privilege() else { return false };
    let are_refused = answers.contains(&Errno::EPERM);
    KNOWN.store(u64::from(filters.unwrap_or(0)) << 1 | u64::from(are_refused), Ordering::Relaxed);
    are_refused
}

const CAP_SYS_ADMIN: u32 = 21;

/// `statx(2)` with flags that there are none of: `EINVAL` where the call exists.
pub fn statx() -> Errno {
    let mut found = std::mem::MaybeUninit::<libc::statx>::uninit();
    // SAFETY: the path is a live C string, and so is the structure; flags and mask that nobody knows are refused before it is written.
    refusal(unsafe { libc::syscall(libc::SYS_statx, -1, c"".as_ptr(), -1, u32::MAX, found.as_mut_ptr()) })
}

/// `pidfd_send_signal(2)` with a descriptor that cannot be: `EBADF` where the call exists.
pub fn pidfd_send_signal() -> Errno {
    // SAFETY: no process is behind -1, and the null pointer stands for the usual siginfo.
    refusal(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, -1, 0, ptr::null::<libc::c_void>(), 0) })
}

/// `close_range(2)` of a range that ends before it begins: `EINVAL` where the call exists.
pub fn close_range() -> Errno {
    // SAFETY: the kernel refuses an inverted range, so no descriptor is closed; no pointers.
    refusal(unsafe { libc::syscall(libc::SYS_close_range, 1_u32, 0_u32, 0_u32) })
}

/// `setns(2)` with a descriptor that cannot be: `EBADF` where the call is allowed.
pub fn setns() -> Errno {
    // SAFETY: no pointers, and no namespace behind -1.
    refusal(unsafe { libc::syscall(libc::SYS_setns, -1, 0) })
}

/// The version of Landlock's interface.
///
/// Errors: `ENOSYS` without Landlock, `EOPNOTSUPP` where it was disabled at boot.
/// Source: <https://man7.org/linux/man-pages/man2/landlock_create_ruleset.2.html>
pub fn landlock_abi() -> Result<u32, Errno> {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with this flag the kernel demands a null pointer and size 0, and only returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<libc::c_void>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    Errno::result(version).map(|version| version as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_refused_and_not_carried_out() {
        for errno in [clone3(), mount_setattr(), close_range()] {
            assert!(matches!(errno, Errno::EINVAL | Errno::ENOSYS | Errno::EPERM), "{errno}");
        }
    }

    #[test]
    fn one_who_may_mount_is_asked_in_namespaces_of_its_own() {
        let before = std::fs::read_link("/proc/thread-self/ns/user").unwrap();
        match super::super::clone::mount_calls_with_privilege() {
            Ok(answers) => assert!(!answers.contains(&Errno::from_raw(0)), "{answers:?}"),
            Err(errno) => {
                assert!(matches!(errno, Errno::EPERM | Errno::EACCES | Errno::ENOSPC | Errno::EUSERS), "{errno}")
            }
        }
        assert_eq!(std::fs::read_link("/proc/thread-self/ns/user").unwrap(), before);
    }

    #[test]
    fn landlock_tells_its_version_or_why_not() {
        match landlock_abi() {
            Ok(version) => assert!(version >= 1),
            Err(errno) => assert!(matches!(errno, Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM), "{errno}"),
        }
    }
}
