//! System calls on the calling thread, with the reason of a refusal.

use std::ffi::c_char;

use zind_core::{Step, lowlevel};

use crate::error::{zind_error, zind_status};
use crate::guard::guard;
use crate::strings::{borrowed, bytes, optional_bytes, optional_text, path};

/// Moves the calling thread into new namespaces: unshare(2), with a hint in the error about the likely reason.
/// flags: CLONE_NEW* and others of <sched.h>. Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_unshare(flags: u64, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(lowlevel::unshare(flags)?)) }
}

/// Moves the calling thread into the namespace that a descriptor stands for, or into those of a pidfd: setns(2).
/// fd: borrowed. flags: the CLONE_NEW* kind expected, 0 for any; with a pidfd, the kinds to join.
/// Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_setns(fd: i32, flags: u64, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(lowlevel::setns(borrowed(fd, Step::Call, "setns")?, flags)?)) }
}

/// As zind_setns(), the namespace that a file stands for: "/proc/1/ns/net", or one it was pinned to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_setns_path(path: *const c_char, flags: u64, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(lowlevel::setns_path(self::path(path, "path")?, flags)?)) }
}

/// As zind_setns(), the namespaces of a process, all the kinds in flags at once or none of them.
/// Returns also ZIND_STATUS_NOT_FOUND (no such process), _SPEC (no kind in flags), _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_setns_pid(pid: i32, flags: u64, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(lowlevel::setns_pid(pid, flags)?)) }
}

/// Mounts, binds, moves or changes a mount: mount(2).
/// source, fstype, data: NULL where the call does not need them. target: the mount point. flags: MS_* of <sys/mount.h>.
/// Returns also ZIND_STATUS_SPEC (data is longer than a page), _UTF8 (fstype), _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_mount(
    source: *const c_char,
    target: *const c_char,
    fstype: *const c_char,
    flags: u64,
    data: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        guard(err, || {
            let data = optional_bytes(data).map(|data| data.as_encoded_bytes());
            let (target, fstype) = (path(target, "target")?, optional_text(fstype, "fstype")?);
            Ok(lowlevel::mount(optional_bytes(source), target, fstype, flags, data)?)
        })
    }
}

/// Unmounts what is mounted on target: umount2(2). flags: MNT_* and UMOUNT_NOFOLLOW of <sys/mount.h>.
/// Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_umount(target: *const c_char, flags: u64, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(lowlevel::umount(path(target, "target")?, flags)?)) }
}

/// Makes the mount new_root the root of the mount namespace and puts the old root on put_old: pivot_root(2).
/// Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_pivot_root(
    new_root: *const c_char,
    put_old: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(lowlevel::pivot_root(path(new_root, "new_root")?, path(put_old, "put_old")?)?)) }
}

/// Changes the root directory of the calling thread and of those it shares it with: chroot(2). The working directory
/// stays: call chdir("/") next. Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_chroot(path: *const c_char, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(lowlevel::chroot(self::path(path, "path")?)?)) }
}

/// Sets the host name of the calling thread's UTS namespace, at most 64 bytes: sethostname(2).
/// Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_sethostname(name: *const c_char, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(lowlevel::sethostname(bytes(name, "name")?)?)) }
}

/// Sets the NIS domain name of the calling thread's UTS namespace, at most 64 bytes: setdomainname(2).
/// Returns also ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_setdomainname(name: *const c_char, err: *mut *mut zind_error) -> zind_status {
    // SAFETY: the header's demand.
    unsafe { guard(err, || Ok(lowlevel::setdomainname(bytes(name, "name")?)?)) }
}
