//! System calls on the calling thread: mount(2), umount2(2), pivot_root(2), chroot(2), unshare(2), setns(2),
//! sethostname(2), setdomainname(2).
//!
//! Nothing here makes a process or undoes anything. The kernel keeps namespaces for each thread (the user namespace
//! excepted), and root and working directory for each group of threads that shares them, so in a program with several
//! threads these calls change the calling thread, or are refused. Whoever wants a command to run in namespaces of its
//! own starts a container instead.
//!
//! A refusal is an [`Error::Sys`] at [`Step::Call`] whose hint tells the likely reason, as far as it can be found out
//! after the fact; text with a NUL byte is an [`Error::Spec`].
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, IntoErrno, Result, Step};
use crate::mount::flags::{
    self, MNT_DETACH, MNT_EXPIRE, MS_BIND, MS_MOVE, MS_PRIVATE, MS_REC, MS_REMOUNT, MS_SHARED, MS_SLAVE, MS_UNBINDABLE,
};
use crate::namespace::kind::Kind;
use crate::proc::{self, Status};
use crate::sys::descriptors::{Relation, namespace_behind};

/// Every flag of clone(2), clone3(2) and unshare(2) that zind's callers have a use for, by its C name.
pub const CLONE: &[(&str, u64)] = &[
    ("CLONE_NEWTIME", libc::CLONE_NEWTIME as u64),
    ("CLONE_VM", libc::CLONE_VM as u64),
    ("CLONE_FS", libc::CLONE_FS as u64),
    ("CLONE_FILES", libc::CLONE_FILES as u64),
    ("CLONE_SIGHAND", libc::CLONE_SIGHAND as u64),
    ("CLONE_PIDFD", libc::CLONE_PIDFD as u64),
    ("CLONE_PTRACE", libc::CLONE_PTRACE as u64),
    ("CLONE_VFORK", libc::CLONE_VFORK as u64),
    ("CLONE_PARENT", libc::CLONE_PARENT as u64),
    ("CLONE_THREAD", libc::CLONE_THREAD as u64),
    ("CLONE_NEWNS", libc::CLONE_NEWNS as u64),
    ("CLONE_SYSVSEM", libc::CLONE_SYSVSEM as u64),
    ("CLONE_UNTRACED", libc::CLONE_UNTRACED as u64),
    ("CLONE_NEWCGROUP", libc::CLONE_NEWCGROUP as u64),
    ("CLONE_NEWUTS", libc::CLONE_NEWUTS as u64),
    ("CLONE_NEWIPC", libc::CLONE_NEWIPC as u64),
    ("CLONE_NEWUSER", libc::CLONE_NEWUSER as u64),
    ("CLONE_NEWPID", libc::CLONE_NEWPID as u64),
    ("CLONE_NEWNET", libc::CLONE_NEWNET as u64),
    ("CLONE_IO", 0x8000_0000),
    ("CLONE_CLEAR_SIGHAND", 0x1_0000_0000),
    ("CLONE_INTO_CGROUP", 0x2_0000_0000),
];

/// What the kernel demands a single thread for.
const SINGLE_THREADED: u64 = (libc::CLONE_NEWUSER | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_VM) as u64;

const PROPAGATION: u64 = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE;

/// `CAP_SYS_CHROOT` and `CAP_SYS_ADMIN`: capabilities(7).
const CAP_SYS_CHROOT: u32 = 18;
const CAP_SYS_ADMIN: u32 = 21;

/// The longest data that the kernel takes, in bytes: a page less its NUL. What is longer it would cut off silently.
const MAX_DATA: usize = 4095;

/// Mounts a file system, binds, moves, or changes mounts: mount(2), with `flags` of
/// [`MS`](crate::mount::flags::MS).
///
/// `data` is the file system's own options, `b"size=1m,mode=700"`, at most 4095 bytes.
///
/// Errors: `EPERM` without `CAP_SYS_ADMIN` over the mount namespace, and for what that namespace may not change;
/// `EBUSY`, `EINVAL`, `ENODEV`, `ENOENT`, `ENOSPC` (too many mounts) and others.
/// Source: <https://man7.org/linux/man-pages/man2/mount.2.html>
pub fn mount(
    source: Option<&OsStr>,
    target: &Path,
    fstype: Option<&str>,
    flags: u64,
    data: Option<&[u8]>,
) -> Result<()> {
    no_nul("source", source.map_or(&[], OsStr::as_bytes))?;
    no_nul("target", target.as_os_str().as_bytes())?;
    no_nul("fstype", fstype.unwrap_or_default().as_bytes())?;
    no_nul("data", data.unwrap_or_default())?;
    if data.unwrap_or_default().len() > MAX_DATA {
        return Err(Error::spec("data", format!("is longer than the {MAX_DATA} bytes that mount(2) takes")));
    }
    let bits = nix::mount::MsFlags::from_bits_retain(flags as libc::c_ulong);
    nix::mount::mount(source, target, fstype, bits, data)
        .map_err(|errno| refused("mount", target, errno, mount_hint(errno, source, target, fstype, flags)))
}

/// Unmounts what is mounted on `target`: umount2(2), with `flags` of [`MNT`](crate::mount::flags::MNT).
///
/// Errors: `EBUSY` while it is in use, `EINVAL` if nothing is mounted there or the mount came with a more privileged
/// namespace, `EPERM`, `EAGAIN` from the first call with `MNT_EXPIRE`.
/// Source: <https://man7.org/linux/man-pages/man2/umount.2.html>
pub fn umount(target: &Path, flags: u64) -> Result<()> {
    no_nul("target", target.as_os_str().as_bytes())?;
    let bits = nix::mount::MntFlags::from_bits_retain(int("flags", flags)?);
    nix::mount::umount2(target, bits).map_err(|errno| {
        let hint = match errno {
            Errno::EBUSY if flags & MNT_DETACH == 0 => {
                "something still uses it: an open file, a working directory, a mount below; MNT_DETACH detaches it now \
                 and cleans up later"
                    .into()
            }
            Errno::EINVAL => {
                "nothing is mounted exactly there, or the mount came along from a more privileged mount namespace and \
                 is locked, or MNT_EXPIRE is combined with MNT_FORCE or MNT_DETACH"
                    .into()
            }
            Errno::EAGAIN if flags & MNT_EXPIRE != 0 => {
                "the mount is marked as expired now; the next call unmounts it if it was not used meanwhile".into()
            }
            Errno::ENOENT => "there is no such path".into(),
            Errno::EPERM => mount_privilege(),
            _ => String::new(),
        };
        refused("umount2", target, errno, hint)
    })
}

/// Makes the mount `new_root` the root of the mount namespace and puts the old root on `put_old`: pivot_root(2).
///
/// Every process of the namespace whose root or working directory is the old root gets the new one. The caller's
/// working directory is otherwise unchanged: call chdir("/") next. `pivot_root(".", ".")` stacks the old root on the
/// new one, from where `umount(".", MNT_DETACH)` removes it.
///
/// Errors: `EINVAL` when one of the rules in the hint is broken, `EBUSY`, `ENOTDIR`, `EPERM`.
/// Source: <https://man7.org/linux/man-pages/man2/pivot_root.2.html>
pub fn pivot_root(new_root: &Path, put_old: &Path) -> Result<()> {
    no_nul("new_root", new_root.as_os_str().as_bytes())?;
    no_nul("put_old", put_old.as_os_str().as_bytes())?;
    nix::unistd::pivot_root(new_root, put_old).map_err(|errno| {
        let hint = match errno {
            Errno::EINVAL if chrooted() => {
                "the current root is not a mount point (this process is in a chroot), so there is no mount to replace"
                    .into()
            }
            Errno::EINVAL => {
                "new_root must be a mount point (bind it on itself), put_old must be at or below new_root, the current \
                 root must be a mount and not the initial ramfs, and neither the mount above new_root nor the one \
                 above the current root may be shared (mount / with MS_REC|MS_PRIVATE first)"
                    .into()
            }
            Errno::EBUSY => "new_root or put_old is on the mount of the current root, or a mount is on put_old".into(),
            Errno::ENOTDIR => "both must be directories".into(),
            Errno::ENOENT => "both must exist".into(),
            Errno::EPERM => mount_privilege(),
            _ => String::new(),
        };
        refused("pivot_root", new_root, errno, hint)
    })
}

/// Changes the root directory of the calling thread and of those it shares it with: chroot(2).
///
/// The working directory stays where it is, even outside: call chdir("/") next. Not a border for who has
/// `CAP_SYS_CHROOT`; [`pivot_root`] is.
///
/// Errors: `EPERM` without `CAP_SYS_CHROOT`, `ENOENT`, `ENOTDIR`, `EACCES`.
/// Source: <https://man7.org/linux/man-pages/man2/chroot.2.html>
pub fn chroot(path: &Path) -> Result<()> {
    no_nul("path", path.as_os_str().as_bytes())?;
    nix::unistd::chroot(path).map_err(|errno| {
        let hint = match errno {
            Errno::EPERM if has_capability(CAP_SYS_CHROOT) => outer_refusal(),
            Errno::EPERM => "needs CAP_SYS_CHROOT; zind.run(argv, rootfs=path) gives a command its own root".into(),
            _ => String::new(),
        };
        refused("chroot", path, errno, hint)
    })
}

/// Sets the host name of the calling thread's UTS namespace: sethostname(2); at most 64 bytes.
///
/// Errors: `EPERM` without `CAP_SYS_ADMIN` over the UTS namespace, `EINVAL` for a longer name.
/// Source: <https://man7.org/linux/man-pages/man2/sethostname.2.html>
pub fn sethostname(name: &OsStr) -> Result<()> {
    set_name("sethostname", "hostname", name, rustix::system::sethostname)
}

/// Sets the NIS domain name of the calling thread's UTS namespace: setdomainname(2); at most 64 bytes.
///
/// Errors: as for [`sethostname`].
/// Source: <https://man7.org/linux/man-pages/man2/getdomainname.2.html>
pub fn setdomainname(name: &OsStr) -> Result<()> {
    set_name("setdomainname", "domainname", name, rustix::system::setdomainname)
}

fn set_name(
    syscall: &'static str,
    field: &'static str,
    name: &OsStr,
    set: fn(&[u8]) -> rustix::io::Result<()>,
) -> Result<()> {
    no_nul(field, name.as_bytes())?;
    set(name.as_bytes()).map_err(|errno| {
        let hint = match errno {
            rustix::io::Errno::INVAL => format!("the name has {} bytes, and 64 are allowed", name.len()),
            rustix::io::Errno::PERM if has_capability(CAP_SYS_ADMIN) => {
                "this UTS namespace belongs to an outer user namespace; make one of your own first: \
                 unshare(CLONE_NEWUTS)"
                    .into()
            }
            rustix::io::Errno::PERM => format!(
                "needs CAP_SYS_ADMIN in the user namespace that owns the UTS namespace; zind.run(argv, {field}=...) \
                 gives a command its own"
            ),
            _ => String::new(),
        };
        refused(syscall, Path::new(name), errno.into_errno(), hint)
    })
}

/// Moves the calling thread into new namespaces, or ends its sharing with other threads: unshare(2).
///
/// `flags` are those of [`CLONE`] that unshare(2) takes. A new pid or time namespace is for the children made from then
/// on, not for the caller; after `CLONE_NEWPID` the thread can start no further threads.
///
/// Errors: `EINVAL` for `CLONE_NEWUSER` in a process with several threads, and for flags or kinds the kernel does not
/// know; `EPERM`; `ENOSPC` or `EUSERS` beyond a limit on namespaces.
/// Source: <https://man7.org/linux/man-pages/man2/unshare.2.html>
pub fn unshare(flags: u64) -> Result<()> {
    let bits = CloneFlags::from_bits_retain(int("flags", flags)?);
    nix::sched::unshare(bits)
        .map_err(|errno| refused("unshare", &clone_names(flags), errno, unshare_hint(errno, flags)))
}

/// Moves the calling thread into the namespace that `fd` stands for, or into those of a process given by a pidfd:
/// setns(2).
///
/// `flags` is the kind expected (0: any), or, with a pidfd, the set of kinds to join, all or none of them. A pid or
/// time namespace is for the children made from then on, not for the caller.
///
/// Errors: `EINVAL` for a user or mount namespace in a process with several threads (`EUSERS` for a time namespace),
/// for the wrong kind, for a pid namespace that is not below the caller's; `EPERM`; `EBADF`.
/// Source: <https://man7.org/linux/man-pages/man2/setns.2.html>
pub fn setns(fd: BorrowedFd<'_>, flags: u64) -> Result<()> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let object = link.unwrap_or_else(|_| format!("descriptor {}", fd.as_raw_fd()).into());
    enter(fd, flags, &object, namespace_kind(&object))
}

/// The user namespace that owns the namespace `fd` stands for: `NS_GET_USERNS` of ioctl_ns(2).
///
/// Errors: `EPERM` if it is outside of the caller's user namespace.
pub fn owner_of_namespace(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    behind(fd, Relation::Owner, "the caller's user namespace does not contain the owner")
}

/// The namespace above the pid or user namespace `fd` stands for: `NS_GET_PARENT` of ioctl_ns(2).
///
/// Errors: `EPERM` if it is outside of the caller's own; `EINVAL` for another kind.
pub fn parent_of_namespace(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    behind(fd, Relation::Parent, "the caller's own namespace does not contain the parent")
}

/// The network namespace of a socket: `SIOCGSKNS`. With `process`, `socket` is the number of a descriptor there.
///
/// Errors: [`Error::NotFound`] if there is no such process; `EBADF`, `ENOTSOCK`/`ENOTTY`; `EPERM` where the caller may not
/// trace the process, or has no `CAP_NET_ADMIN` over the namespace.
/// Source: <https://man7.org/linux/man-pages/man2/pidfd_getfd.2.html>
pub fn network_of_socket(process: i32, socket: i32) -> Result<OwnedFd> {
    let gone = || Error::NotFound { what: "process", name: process.to_string() };
    let number = rustix::process::Pid::from_raw(process).filter(|_| process > 0).ok_or_else(gone)?;
    let object = PathBuf::from(format!("/proc/{process}/fd/{socket}"));
    let fail = |call: &'static str, errno: rustix::io::Errno, hint: &str| {
        refused(call, &object, errno.into_errno(), hint.to_owned())
    };
    let pidfd = match rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Err(gone()),
        result => result.map_err(|errno| fail("pidfd_open", errno, ""))?,
    };
    let flags = rustix::process::PidfdGetfdFlags::empty();
    let socket = rustix::process::pidfd_getfd(&pidfd, socket, flags).map_err(|errno| {
        fail("pidfd_getfd", errno, "it takes the right to trace the process, and an open descriptor")
    })?;
    namespace_behind(socket.as_fd(), Relation::OfSocket)
        .map_err(|errno| refused("ioctl", &object, errno, "is it a socket? it takes CAP_NET_ADMIN, too".to_owned()))
}

fn behind(fd: BorrowedFd<'_>, relation: Relation, why: &str) -> Result<OwnedFd> {
    namespace_behind(fd, relation).map_err(|errno| {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default();
        let hint = if errno == Errno::EPERM { why } else { "" };
        refused("ioctl", &link, errno, hint.to_owned())
    })
}

/// Moves the calling thread into the namespace that the file `path` stands for: `/proc/<pid>/ns/net`, or a file that a
/// namespace was bound to. `flags` is the kind expected; 0 takes any.
///
/// Errors: those of [`setns`], and of open(2) on `path`.
/// Source: <https://man7.org/linux/man-pages/man2/setns.2.html>
pub fn setns_path(path: &Path, flags: u64) -> Result<()> {
    no_nul("path", path.as_os_str().as_bytes())?;
    // Without NONBLOCK a named pipe would keep the caller waiting.
    let mode = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, mode, Mode::empty()).map_err(|errno| {
        let hint = match errno {
            rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => {
                "the namespace files of a process open only to who may trace it: its own user, or CAP_SYS_PTRACE"
            }
            rustix::io::Errno::NOENT => "the process is gone, or the kernel lacks this kind of namespace",
            _ => "",
        };
        refused("openat", path, errno.into_errno(), hint.into())
    })?;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default();
    enter(fd.as_fd(), flags, path, namespace_kind(&link))
}

/// Moves the calling thread into the namespaces of a process, of all the kinds in `flags` at once or of none of them:
/// setns(2) with a pidfd, so that a reused number cannot lead elsewhere half-way.
///
/// Errors: [`Error::NotFound`] if there is no such process; [`Error::Spec`] without a kind in `flags`; those of
/// [`setns`].
/// Source: <https://man7.org/linux/man-pages/man2/setns.2.html>
pub fn setns_pid(pid: i32, flags: u64) -> Result<()> {
    int("flags", flags)?;
    if flags == 0 {
        return Err(Error::spec("flags", "name the kinds of namespaces to join: CLONE_NEW*"));
    }
    let gone = || Error::NotFound { what: "process", name: pid.to_string() };
    if pid <= 0 {
        return Err(gone());
    }
    let number = rustix::process::Pid::from_raw(pid).ok_or_else(gone)?;
    let pidfd = match rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Err(gone()),
        Err(errno) => {
            let hint = match errno {
                rustix::io::Errno::INVAL | rustix::io::Errno::NOENT => {
                    "this is the number of a thread, not of a process"
                }
                _ => "",
            };
            return Err(refused("pidfd_open", Path::new(&pid.to_string()), errno.into_errno(), hint.into()));
        }
    };
    match enter(pidfd.as_fd(), flags, Path::new(&format!("process {pid}")), None) {
        Err(error) if error.errno() == Some(Errno::ESRCH) => Err(gone()),
        other => other,
    }
}

/// setns(2); `kind` is that of the file, `None` for a pidfd.
fn enter(fd: BorrowedFd<'_>, flags: u64, object: &Path, kind: Option<Kind>) -> Result<()> {
    nix::sched::setns(fd, CloneFlags::from_bits_retain(int("flags", flags)?)).map_err(|errno| {
        let kinds = kind.map_or(flags, Kind::flag);
        refused("setns", object, errno, setns_hint(errno, flags, kinds, kind))
    })
}

fn setns_hint(errno: Errno, flags: u64, kinds: u64, kind: Option<Kind>) -> String {
    let has = |kind: Kind| kinds & kind.flag() != 0;
    match errno {
        Errno::EINVAL if kind.is_some_and(|kind| flags != 0 && flags != kind.flag()) => {
            let kind = kind.map_or("", Kind::name);
            format!("the file stands for a {kind} namespace, the flags ask for {}", names(flags))
        }
        Errno::EINVAL if (has(Kind::User) || has(Kind::Mount)) && threads() > 1 => one_thread(),
        Errno::EINVAL if has(Kind::User) => {
            "a process cannot join the user namespace it is in already, nor one that is not below it".into()
        }
        Errno::EINVAL if has(Kind::Pid) => "a pid namespace can be joined only from itself or one above it".into(),
        Errno::EINVAL => "neither a namespace file nor a pidfd, or flags that it does not take".into(),
        Errno::EUSERS if has(Kind::Time) && threads() > 1 => one_thread(),
        Errno::EPERM if has(Kind::User) => {
            "needs CAP_SYS_ADMIN in that user namespace, which its owner has from outside; a chroot forbids it".into()
        }
        Errno::EPERM => "needs CAP_SYS_ADMIN in the caller's user namespace and in the one that owns the namespace \
            (and CAP_SYS_CHROOT for a mount namespace), by pidfd or process number also the right to trace it; \
            for a container of this user join its user namespace too, with CLONE_NEWUSER in the flags"
            .into(),
        Errno::ENOMEM => "out of memory, or the pid namespace has lost its first process".into(),
        _ => String::new(),
    }
}

fn unshare_hint(errno: Errno, flags: u64) -> String {
    let asked = || Kind::ALL.into_iter().filter(|kind| flags & kind.flag() != 0);
    match errno {
        Errno::EINVAL if flags & SINGLE_THREADED != 0 && threads() > 1 => one_thread(),
        Errno::EINVAL => match asked().find(|kind| !Path::new("/proc/self/ns").join(kind.name()).exists()) {
            Some(kind) => format!("the kernel was built without {kind} namespaces"),
            None => "unshare(2) does not take all of these flags".into(),
        },
        Errno::ENOSPC | Errno::EUSERS => {
            let limits: Vec<String> = asked()
                .filter_map(|kind| {
                    let name = format!("user.max_{kind}_namespaces");
                    proc::sysctl(&name).map(|limit| format!("{name} is {limit}"))
                })
                .collect();
            format!(
                "too many namespaces of this user here or in an outer user namespace, or user or pid namespaces nested \
                 deeper than 32 levels; {}",
                limits.join(", ")
            )
        }
        Errno::EPERM if flags & Kind::User.flag() != 0 => {
            let obstacles = user_namespace_obstacles();
            match obstacles.is_empty() {
                true => format!("in a chroot the kernel refuses new user namespaces; else {}", outer_refusal()),
                false => {
                    obstacles.into_iter().map(|(what, cure)| format!("{what}: {cure}")).collect::<Vec<_>>().join("; ")
                }
            }
        }
        Errno::EPERM if has_capability(CAP_SYS_ADMIN) => outer_refusal(),
        Errno::EPERM => {
            "needs CAP_SYS_ADMIN; an ordinary user gets it inside a new user namespace: add CLONE_NEWUSER".into()
        }
        _ => String::new(),
    }
}

fn mount_hint(errno: Errno, source: Option<&OsStr>, target: &Path, fstype: Option<&str>, flags: u64) -> String {
    let source = Path::new(source.unwrap_or_default());
    let new = flags & (MS_REMOUNT | MS_BIND | MS_MOVE | PROPAGATION) == 0;
    match errno {
        Errno::EPERM if !has_capability(CAP_SYS_ADMIN) => mount_privilege(),
        Errno::EPERM if flags & MS_REMOUNT != 0 => {
            "a mount that came along from a more privileged mount namespace keeps its ro, nosuid, nodev, noexec and \
             atime flags: repeat those it has"
                .into()
        }
        Errno::EPERM if new && matches!(fstype, Some("proc" | "sysfs")) => {
            "in a user namespace these are mounted only where the caller already sees one that nothing is mounted \
             over, and with a pid namespace (proc) or network namespace (sysfs) of its own"
                .into()
        }
        Errno::EPERM if new => {
            "a user namespace may mount only some file systems (proc, sysfs, tmpfs, devpts, mqueue, overlay, fuse, \
             cgroup2, binfmt_misc); for others be root outside of it"
                .into()
        }
        Errno::EPERM => {
            "the mount namespace belongs to an outer user namespace: make one of your own first, unshare(CLONE_NEWNS)"
                .into()
        }
        Errno::ENOSPC => format!(
            "too many mounts in this mount namespace, or no space for a device: fs.mount-max is {}",
            proc::sysctl("fs.mount-max").as_deref().unwrap_or("not readable")
        ),
        Errno::EBUSY if flags & MS_REMOUNT != 0 => {
            "files on it are open for writing; to make only this mount read-only add MS_BIND".into()
        }
        Errno::EBUSY => "source or target is in use: mounted already, or another overlay's upperdir or workdir".into(),
        Errno::ENODEV => format!(
            "the kernel has no file system {} (see /proc/filesystems); its module may have to be loaded",
            fstype.unwrap_or("of this type")
        ),
        Errno::ENOENT if target.symlink_metadata().is_err() => "the target does not exist: make it first".into(),
        Errno::ENOENT if (flags & (MS_BIND | MS_MOVE)) != 0 && source.symlink_metadata().is_err() => {
            format!("the source {} does not exist", source.display())
        }
        Errno::ENOENT => "a path in the source or the data does not exist".into(),
        Errno::ENOTDIR => "a directory can be mounted only on a directory, a file only on a file".into(),
        Errno::ENOTBLK => "the source is not a block device; an image file needs a loop device".into(),
        Errno::EACCES => "a path cannot be searched, a read-only device lacks MS_RDONLY, or the device is on a nodev \
            mount"
            .into(),
        Errno::EINVAL if flags & (MS_REMOUNT | PROPAGATION) != 0 => {
            "the target must be a mount point (bind it on itself), and only one propagation type can be given, alone \
             or with MS_REC"
                .into()
        }
        Errno::EINVAL if flags & MS_MOVE != 0 => {
            "the source must be a mount point whose mount above is not shared, and the target not below it".into()
        }
        Errno::EINVAL if flags & MS_BIND != 0 && flags & MS_REC == 0 => {
            "mounts below the source that came along from a more privileged mount namespace cannot be uncovered: add \
             MS_REC; and an unbindable mount cannot be bound"
                .into()
        }
        Errno::EINVAL if flags & MS_BIND != 0 => "the source is not in this mount namespace, or is unbindable".into(),
        Errno::EINVAL => "the file system refused an option in data or the source; the kernel log tells which".into(),
        _ => String::new(),
    }
}

fn mount_privilege() -> String {
    if has_capability(CAP_SYS_ADMIN) {
        return "the mount namespace belongs to an outer user namespace, or the mount is locked to one: make a mount \
            namespace of your own first, unshare(CLONE_NEWNS)"
            .into();
    }
    "needs CAP_SYS_ADMIN in the user namespace that owns the mount namespace; a command gets both of its own with \
     zind.run(argv, namespaces={\"user\": \"new\", \"mnt\": \"new\"})"
        .into()
}

fn outer_refusal() -> String {
    "a security module, or the seccomp filter of a container around this process, refuses it; zind doctor tells more"
        .into()
}

fn one_thread() -> String {
    format!(
        "the kernel refuses this in a process with more than one thread, and this one has {}; start a child instead: \
         zind.spawn / Command / zind_run",
        threads()
    )
}

/// Why this process cannot make user namespaces, each with its cure; empty if no reason is known.
pub(crate) fn user_namespace_obstacles() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut sysctl = |name: &str, bad: &str, cure: &str| {
        if proc::sysctl(name).as_deref() == Some(bad) {
            found.push((format!("{name} is {bad}"), format!("as root: {cure}")));
        }
    };
    sysctl("user.max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000");
    if !has_capability(CAP_SYS_ADMIN) {
        sysctl("kernel.unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1");
        sysctl(
            "kernel.apparmor_restrict_unprivileged_userns",
            "1",
            "give the program an AppArmor profile with the rule `userns,`, or sysctl -w \
             kernel.apparmor_restrict_unprivileged_userns=0",
        );
    }
    if chrooted() {
        found.push((
            "this process is in a chroot, where the kernel refuses new user namespaces".into(),
            "make the root a mount and use pivot_root instead".into(),
        ));
    }
    if !own_ids_are_mapped() {
        found.push((
            "the caller's user or group id is not mapped in its user namespace".into(),
            "write uid_map and gid_map of the namespace around it first".into(),
        ));
    }
    found
}

/// Whether the root directory is not the root of a mount.
fn chrooted() -> bool {
    let Ok(text) = std::fs::read("/proc/thread-self/mountinfo") else { return false };
    !text.split(|byte| *byte == b'\n').any(|line| line.split(|byte| *byte == b' ').nth(4) == Some(b"/"))
}

fn own_ids_are_mapped() -> bool {
    let Ok(maps) = proc::Proc::current().and_then(|own| own.id_maps()) else { return true };
    let has = |map: &[crate::namespace::idmap::IdMap], id: u32| {
        map.iter().any(|line| id.checked_sub(line.container).is_some_and(|offset| offset < line.size))
    };
    has(&maps.uid, rustix::process::geteuid().as_raw()) && has(&maps.gid, rustix::process::getegid().as_raw())
}

/// Whether the calling thread has this capability in effect.
pub(crate) fn has_capability(number: u32) -> bool {
    effective_capabilities() & (1 << number) != 0
}

/// The calling thread's effective capabilities; bit N stands for capability number N.
pub(crate) fn effective_capabilities() -> u64 {
    rustix::thread::capabilities(None).map_or(0, |sets| sets.effective.bits())
}

fn threads() -> u32 {
    Status::of_this_thread().and_then(|status| status.threads()).unwrap_or(1)
}

/// The kind in `net:[4026531840]`.
fn namespace_kind(link: &Path) -> Option<Kind> {
    let (name, _) = link.to_str()?.split_once(":[")?;
    Kind::from_name(name)
}

fn names(flags: u64) -> String {
    flags::names(CLONE, flags)
}

fn clone_names(flags: u64) -> PathBuf {
    names(flags).into()
}

fn refused(syscall: &'static str, object: &Path, errno: Errno, hint: String) -> Error {
    Error::sys(Step::Call, syscall, object, errno).with_hint(hint)
}

fn no_nul(field: &'static str, bytes: &[u8]) -> Result<()> {
    match bytes.contains(&0) {
        true => Err(Error::spec(field, "contains a NUL byte")),
        false => Ok(()),
    }
}

/// The flags as the C library's `int`: what it cannot hold it would drop silently.
fn int(field: &'static str, flags: u64) -> Result<libc::c_int> {
    match u32::try_from(flags) {
        Ok(bits) => Ok(bits as libc::c_int),
        Err(_) => Err(Error::spec(field, format!("{flags:#x} has bits above the 32 that the call takes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `body` in a thread with mount, UTS and network namespaces of its own; without the right to, says so.
    fn in_own_namespaces(body: impl FnOnce() + Send + 'static) {
        if !has_capability(CAP_SYS_ADMIN) {
            eprintln!("skipped: needs CAP_SYS_ADMIN");
            return;
        }
        std::thread::spawn(|| {
            unshare(Kind::Mount.flag() | Kind::Uts.flag() | Kind::Net.flag()).unwrap();
            mount(None, Path::new("/"), None, MS_REC | MS_PRIVATE, None).unwrap();
            body()
        })
        .join()
        .unwrap();
    }

    fn hint(result: Result<()>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.step(), Some(Step::Call));
        error.hint().unwrap_or_default().to_owned()
    }

    #[test]
    fn text_with_nul_is_refused_by_field() {
        let field = |result: Result<()>| match result {
            Err(Error::Spec { field, rule }) if rule == "contains a NUL byte" => field,
            other => panic!("{other:?}"),
        };
        let nul = OsStr::new("a\0b");
        let path = Path::new(nul);
        let fine = Path::new("/nonexistent");
        assert_eq!(field(mount(Some(nul), fine, None, 0, None)), "source");
        assert_eq!(field(mount(None, path, None, 0, None)), "target");
        assert_eq!(field(mount(None, fine, Some("a\0"), 0, None)), "fstype");
        assert_eq!(field(mount(None, fine, None, 0, Some(b"a\0"))), "data");
        assert_eq!(field(umount(path, 0)), "target");
        assert_eq!(field(pivot_root(path, fine)), "new_root");
        assert_eq!(field(pivot_root(fine, path)), "put_old");
        assert_eq!(field(chroot(path)), "path");
        assert_eq!(field(sethostname(nul)), "hostname");
        assert_eq!(field(setdomainname(nul)), "domainname");
        assert_eq!(field(setns_path(path, 0)), "path");
    }

    #[test]
    fn what_the_kernel_would_cut_off_is_refused() {
        let long = vec![b'a'; MAX_DATA + 1];
        let result = mount(None, Path::new("/nonexistent"), Some("tmpfs"), 0, Some(&long));
        assert!(matches!(result, Err(Error::Spec { field: "data", .. })));
        assert!(matches!(unshare(1 << 32), Err(Error::Spec { field: "flags", .. })));
        assert!(matches!(umount(Path::new("/nonexistent"), 1 << 40), Err(Error::Spec { field: "flags", .. })));
    }

    #[test]
    fn a_user_namespace_needs_a_single_thread() {
        std::thread::spawn(|| {
            let error = unshare(Kind::User.flag() | Kind::Uts.flag()).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EINVAL));
            assert_eq!(
                (error.syscall(), error.path()),
                (Some("unshare"), Some(Path::new("CLONE_NEWUTS|CLONE_NEWUSER")))
            );
            assert!(error.hint().unwrap().contains("more than one thread"), "{error}");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn joining_user_mount_and_time_namespaces_needs_a_single_thread() {
        std::thread::spawn(|| {
            assert!(hint(setns_path(Path::new("/proc/self/ns/user"), 0)).contains("more than one thread"));
            if !has_capability(CAP_SYS_ADMIN) {
                return eprintln!("skipped: needs CAP_SYS_ADMIN");
            }
            for kind in ["mnt", "time"] {
                assert!(hint(setns_path(&Path::new("/proc/self/ns").join(kind), 0)).contains("more than one thread"));
            }
            assert!(hint(setns_pid(std::process::id() as i32, Kind::Mount.flag())).contains("more than one thread"));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn wrong_kinds_and_missing_processes_are_told() {
        let own = Path::new("/proc/self/ns/uts");
        assert!(hint(setns_path(own, Kind::Net.flag())).contains("stands for a uts namespace"));
        assert!(hint(setns_path(Path::new("/dev/null"), 0)).contains("neither a namespace file"));
        assert!(matches!(setns_pid(i32::MAX, Kind::Net.flag()), Err(Error::NotFound { what: "process", .. })));
        assert!(matches!(setns_pid(-5, Kind::Net.flag()), Err(Error::NotFound { .. })));
        assert!(matches!(setns_pid(1, 0), Err(Error::Spec { field: "flags", .. })));
    }

    #[test]
    fn names_are_those_of_the_threads_own_namespace() {
        let before = rustix::system::uname();
        in_own_namespaces(|| {
            sethostname(OsStr::new("of-a-thread")).unwrap();
            setdomainname(OsStr::new("of.a.thread")).unwrap();
            assert_eq!(rustix::system::uname().nodename(), c"of-a-thread");
            assert_eq!(rustix::system::uname().domainname(), c"of.a.thread");
            assert!(hint(sethostname(OsStr::new(&"x".repeat(65)))).contains("65 bytes"));
        });
        assert_eq!(rustix::system::uname().nodename(), before.nodename());
    }

    #[test]
    fn mounts_come_and_go() {
        in_own_namespaces(|| {
            let at = Path::new("/proc/sys");
            let tmpfs = |data: &[u8]| mount(Some(OsStr::new("zind")), at, Some("tmpfs"), 0, Some(data));
            tmpfs(b"size=64k").unwrap();
            std::fs::write(at.join("file"), "x").unwrap();
            let file = std::fs::File::open(at.join("file")).unwrap();
            assert!(hint(umount(at, 0)).contains("MNT_DETACH"));
            umount(at, MNT_DETACH).unwrap();
            drop(file);
            assert!(hint(umount(at, 0)).contains("nothing is mounted"));
            assert!(hint(tmpfs(b"size=nonsense")).contains("option in data"));
            assert!(hint(mount(None, at, Some("no-such-fs"), 0, None)).contains("no-such-fs"));
            assert!(
                hint(mount(None, Path::new("/proc/none"), Some("tmpfs"), 0, None)).contains("target does not exist")
            );
            assert!(hint(mount(None, at, None, MS_REMOUNT, None)).contains("mount point"));
            let none = Some(OsStr::new("/proc/none"));
            assert!(hint(mount(none, at, None, MS_BIND, None)).contains("source /proc/none"));
        });
    }

    #[test]
    fn roots_are_changed_by_the_rules() {
        in_own_namespaces(|| {
            let at = Path::new("/proc/sys");
            assert!(hint(pivot_root(at, at)).contains("must be a mount point"));
            assert!(hint(pivot_root(Path::new("/"), Path::new("/"))).contains("current root"));
            mount(Some(OsStr::new("zind")), at, Some("tmpfs"), 0, None).unwrap();
            std::fs::write(at.join("mark"), "x").unwrap();
            assert_eq!(chroot(Path::new("/proc/none")).unwrap_err().errno(), Some(Errno::ENOENT));
            chroot(at).unwrap();
            assert!(Path::new("/mark").exists());
        });
    }

    #[test]
    fn an_ordinary_user_is_told_what_it_takes() {
        if has_capability(CAP_SYS_ADMIN) {
            return eprintln!("skipped: has CAP_SYS_ADMIN");
        }
        assert!(hint(mount(None, Path::new("/proc"), Some("tmpfs"), 0, None)).contains("namespaces="));
        assert!(hint(umount(Path::new("/proc"), 0)).contains("CAP_SYS_ADMIN"));
        assert!(hint(pivot_root(Path::new("/proc"), Path::new("/proc"))).contains("CAP_SYS_ADMIN"));
        assert!(hint(chroot(Path::new("/proc"))).contains("CAP_SYS_CHROOT"));
        assert!(hint(sethostname(OsStr::new("x"))).contains("hostname="));
        assert!(hint(unshare(Kind::Net.flag())).contains("CLONE_NEWUSER"));
        assert!(hint(setns_path(Path::new("/proc/self/ns/net"), 0)).contains("CAP_SYS_ADMIN"));
    }
}
