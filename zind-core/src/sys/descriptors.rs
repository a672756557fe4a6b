//! Calls that make descriptors or hand them over: pidfds, memory files, detached trees.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use rustix::fs::{Mode, OFlags};

/// `openat(2)`, whoever sends signals meanwhile.
pub(crate) fn openat(
    dir: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    rustix::io::retry_on_intr(|| rustix::fs::openat(&dir, path, flags, mode))
}

/// `pidfd_open(2)`.
pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: two numbers; the kernel returns a new descriptor.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: fresh, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `pidfd_send_signal(2)`; where a filter hides it, `kill(2)` with the number that the descriptor has in that moment.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: numbers and a null pointer, which stands for the usual siginfo.
    let result = Errno::result(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0)
    });
    match result.map(drop) {
        // The kernel, too, says EPERM: then the other call does so as well.
        Err(errno @ (Errno::ENOSYS | Errno::EPERM)) => match pid_of(pidfd) {
            // SAFETY: two numbers, of which the first is above 0: one process.
            Some(Some(pid)) => Errno::result(unsafe { libc::kill(pid, signal) }).map(drop),
            Some(None) => Err(Errno::ESRCH),
            None => Err(errno),
        },
        other => other,
    }
}

/// The number of the process behind a pidfd in our own pid namespace: `Some(None)` if it has ended and was reaped, `None` where that
/// cannot be told: proc_pid_fdinfo(5).
fn pid_of(pidfd: BorrowedFd<'_>) -> Option<Option<i32>> {
    // A procfs of another pid namespace has other numbers.
    let own = std::fs::read_link("/proc/self").ok()?;
    (own.to_str()?.parse() == Ok(std::process::id())).then_some(())?;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid: i32 = text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    match pid {
        1.. => Some(Some(pid)),
        -1 => Some(None),
        _ => None,
    }
}

/// A descriptor number given by the caller, borrowed for as long as the request it stands in.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD takes no pointer.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Which kind of namespace a descriptor stands for, as a `CLONE_NEW*` flag: `NS_GET_NSTYPE` of ioctl_ns(2).
pub(crate) fn namespace_type(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: this ioctl takes no argument.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) }).map(|flag| flag as u64)
}

/// A namespace that another one, or a socket, leads to: its owner (`NS_GET_USERNS`) or its parent (`NS_GET_PARENT` of
/// ioctl_ns(2)); or the network namespace of a socket (`SIOCGSKNS`).
pub(crate) fn namespace_behind(fd: BorrowedFd<'_>, relation: Relation) -> Result<OwnedFd, Errno> {
    let request: libc::c_ulong = match relation {
        Relation::Owner => 0xb701,
        Relation::Parent => 0xb702,
        Relation::OfSocket => 0x894c,
    };
    // SAFETY: these ioctls take no argument and return a new descriptor.
    let fd = Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request) })?;
    // SAFETY: fresh, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How one namespace leads to another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Relation {
    /// The user namespace that owns it.
    Owner,
    /// The one above, of a pid or user namespace.
    Parent,
    /// The network namespace of a socket.
    OfSocket,
}

/// The terminal end of the pseudo-terminal whose other end this is, with no path on the way: `TIOCGPTPEER` of
/// ioctl_tty(2).
pub(crate) fn pty_peer(master: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const TIOCGPTPEER: libc::c_ulong = 0x5441;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: this ioctl takes a number and returns a new descriptor.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), TIOCGPTPEER, flags) })?;
    // SAFETY: fresh, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Begins to write a range of a file to its disk, and waits for nothing: `SYNC_FILE_RANGE_WRITE` of sync_file_range(2). It
/// promises nothing, but a later `fsync(2)` has less to do.
pub(crate) fn begin_sync(file: BorrowedFd<'_>, from: u64, length: u64) -> Result<(), Errno> {
    let (from, length) = (i64::try_from(from).unwrap_or(i64::MAX), i64::try_from(length).unwrap_or(0));
    // SAFETY: a descriptor and numbers.
    Errno::result(unsafe { libc::sync_file_range(file.as_raw_fd(), from, length, libc::SYNC_FILE_RANGE_WRITE) })
        .map(drop)
}
