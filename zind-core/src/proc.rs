//! [`Proc`]: one process as `/proc/<pid>` shows it.
//!
//! What a process can write there itself (its name, arguments, environment, paths) is hostile input: reads are bounded,
//! names that are not UTF-8 survive, and text that makes no sense is an error, never a panic.
#![forbid(unsafe_code)]

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::error::{At, Error, IntoErrno, Result, Step};
use crate::namespace::idmap::IdMap;
use crate::namespace::kind::Kind;

/// The most that is read of one file, in bytes.
const MAX_FILE: usize = 16 << 20;

const MEMORY_CHUNK: usize = 1 << 20;

const PERMISSION_HINT: &str = "the kernel shows this only to whoever may trace the process: its own user while the \
    process is dumpable and holds no more capabilities, or CAP_SYS_PTRACE in its user namespace";

/// A process, held by its directory below `/proc`.
///
/// The handle stays with the process it was opened for: when that one has ended and its number is in use again, every
/// reading fails with [`Error::NotFound`].
///
/// Errors of the readings: [`Error::NotFound`] (`what` is `"process"`) when the process is gone; [`Error::Sys`] at
/// [`Step::Proc`] with `EACCES` or `EPERM` when the caller may not trace the process (as an ordinary user, one that has
/// ended and was not waited for either), `EFBIG` for more than 16 MiB of
/// text, `EBADMSG` for text that cannot be understood.
///
/// Source: <https://man7.org/linux/man-pages/man5/proc_pid.5.html>
#[derive(Debug)]
pub struct Proc {
    dir: OwnedFd,
    path: PathBuf,
    pid: i32,
}

/// An open file descriptor of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fd {
    /// Its number.
    pub number: i32,
    /// What it refers to, as the kernel words it: a path, `socket:[123]`, `pipe:[123]`, `anon_inode:[eventfd]`; with
    /// ` (deleted)` at the end for a file without a name.
    pub target: PathBuf,
}

/// A mapping of a process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// What the process may do with it.
    pub perms: Perms,
    /// Offset of the first byte in the file, in bytes.
    pub offset: u64,
    /// Device of the file, as `st_dev` of stat(2); 0 without a file.
    pub dev: u64,
    /// Inode of the file; 0 without a file.
    pub inode: u64,
    /// The file, or a name in brackets such as `[heap]`; as the kernel words it: a newline is `\012`, and a file
    /// without a name has ` (deleted)` at the end.
    pub path: Option<PathBuf>,
}

/// Permissions of a [`Map`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perms {
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub exec: bool,
    /// Writes are seen by the others who map the file; private (copy on write) otherwise.
    pub shared: bool,
}

/// What identifies a namespace: two processes are in the same one exactly if both numbers are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId {
    /// `st_dev` of the file below `/proc/<pid>/ns`.
    pub dev: u64,
    /// Its inode, the number in `net:[4026531840]`.
    pub inode: u64,
}

/// The id maps of a process's user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMaps {
    /// `uid_map`. Host ids are those of the reader's user namespace; 4294967295 where it has none.
    pub uid: Vec<IdMap>,
    /// `gid_map`, likewise.
    pub gid: Vec<IdMap>,
}

/// Membership of a process in one control group hierarchy.
///
/// Source: <https://man7.org/linux/man-pages/man7/cgroups.7.html>, `/proc/[pid]/cgroup`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupMembership {
    /// Number of the hierarchy; 0 is cgroup v2.
    pub hierarchy: u32,
    /// Controllers of a v1 hierarchy, or its `name=...`; empty for cgroup v2.
    pub controllers: Vec<String>,
    /// Path below the hierarchy's root, as seen from the reader's cgroup namespace: it begins with `/..` for a group
    /// outside of that, and ends in ` (deleted)` for a group that was removed.
    pub path: PathBuf,
}

impl Proc {
    /// The process with this number in the pid namespace of `/proc`.
    ///
    /// Errors: [`Error::NotFound`] when there is none (or `hidepid` hides it); [`Error::Sys`] at [`Step::Proc`] when
    /// `/proc` is not a mounted procfs.
    pub fn open(pid: i32) -> Result<Proc> {
        if pid <= 0 {
            return Err(gone(pid));
        }
        Proc::open_at(PathBuf::from(format!("/proc/{pid}")), pid)
    }

    /// The calling process, whatever its number in the pid namespace of `/proc`.
    ///
    /// Where the kernel tells per thread (namespaces, capabilities, working directory), it is the main thread.
    /// Errors: [`Error::Sys`] at [`Step::Proc`] when `/proc` is not a mounted procfs.
    pub fn current() -> Result<Proc> {
        Proc::open_at("/proc/self".into(), rustix::process::getpid().as_raw_nonzero().get())
    }

    fn open_at(path: PathBuf, pid: i32) -> Result<Proc> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) if is_procfs("/proc") => return Err(gone(pid)),
            Err(rustix::io::Errno::NOENT) => return Err(no_procfs(path)),
            Err(errno) => return Err(errno).at(Step::Proc, "openat", path),
        };
        // A process that believes in a forged /proc would signal or trace the wrong one.
        match rustix::fs::fstatfs(&dir) {
            Ok(fs) if fs.f_type == rustix::fs::PROC_SUPER_MAGIC => Ok(Proc { dir, path, pid }),
            Ok(_) => Err(no_procfs(path)),
            Err(errno) => Err(errno).at(Step::Proc, "fstatfs", path),
        }
    }

    /// The number the process was opened with; for [`Proc::current`] the caller's own.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether the process still exists; one that has ended and was not waited for does.
    pub fn exists(&self) -> bool {
        rustix::fs::statat(&self.dir, "stat", AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The arguments; empty for kernel threads and for processes that have ended.
    ///
    /// A process can overwrite them, and then they may be anything.
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_cmdline.5.html>
    pub fn cmdline(&self) -> Result<Vec<OsString>> {
        Ok(split_nul(&self.read("cmdline")?))
    }

    /// The working directory; with ` (deleted)` at the end if it was removed.
    ///
    /// Errors: as for every reading; `ENOENT` for a process that has ended and was not waited for.
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_cwd.5.html>
    pub fn cwd(&self) -> Result<PathBuf> {
        self.link("cwd")
    }

    /// The root directory, as seen from the caller's root.
    ///
    /// Errors: as for [`Proc::cwd`].
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_root.5.html>
    pub fn root(&self) -> Result<PathBuf> {
        self.link("root")
    }

    /// The program; with ` (deleted)` at the end if it was removed.
    ///
    /// Errors: as for [`Proc::cwd`]; `ENOENT` for kernel threads too.
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_exe.5.html>
    pub fn exe(&self) -> Result<PathBuf> {
        self.link("exe")
    }

    /// The environment the program was started with; an entry without `=` has an empty value.
    ///
    /// Later changes by the process are seen only if it overwrote the strings in place.
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_environ.5.html>
    pub fn environ(&self) -> Result<Vec<(OsString, OsString)>> {
        match self.open_file("environ") {
            // Newer kernels say ESRCH where older ones give no text: there is no memory any more.
            Err(Error::NotFound { .. }) if self.exists() => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(file) => Ok(parse_environ(&self.read_whole(&file, "environ")?)),
        }
    }

    /// The open file descriptors by number; one that is closed meanwhile is left out.
    ///
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_fd.5.html>
    pub fn fds(&self) -> Result<Vec<Fd>> {
        let dir = self.open_with("fd", OFlags::DIRECTORY)?;
        let entries = rustix::fs::Dir::read_from(&dir).map_err(|errno| self.error("fd", "getdents64", errno))?;
        let mut fds = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|errno| self.error("fd", "getdents64", errno))?;
            let Some(number) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else { continue };
            match rustix::fs::readlinkat(&dir, entry.file_name(), Vec::new()) {
                Ok(target) => fds.push(Fd { number, target: OsString::from_vec(target.into_bytes()).into() }),
                Err(rustix::io::Errno::NOENT) => (),
                Err(errno) => return Err(self.error(&format!("fd/{number}"), "readlinkat", errno)),
            }
        }
        fds.sort_unstable_by_key(|fd| fd.number);
        Ok(fds)
    }

    /// The memory mappings by address; empty for kernel threads and for processes that have ended.
    ///
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_maps.5.html>
    pub fn maps(&self) -> Result<Vec<Map>> {
        self.read_lines("maps", parse_map)
    }

    /// Up to `len` bytes of the process's memory from the address `offset` on; less where the mapped memory ends.
    ///
    /// Errors: as for every reading; [`Error::Sys`] with `EIO` if nothing is mapped at `offset`, with `ESRCH` for a
    /// process that has no memory (kernel threads; one that has ended and was not waited for).
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_mem.5.html>
    pub fn mem(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let file = self.open_file("mem").map_err(|error| match error {
            Error::NotFound { .. } if self.exists() => {
                Error::sys(Step::Proc, "openat", self.path.join("mem"), Errno::ESRCH)
                    .with_hint("the process has no memory: it is a kernel thread, or it has ended")
            }
            other => other,
        })?;
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let done = bytes.len();
            bytes.resize(done + (len - done).min(MEMORY_CHUNK), 0);
            let read = match offset.checked_add(done as u64) {
                Some(at) => rustix::io::pread(&file, &mut bytes[done..], at),
                None => Ok(0),
            };
            bytes.truncate(done + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => break,
                Ok(_) => (),
                Err(rustix::io::Errno::INTR) => (),
                Err(_) if done > 0 => break,
                Err(errno) => {
                    let error = self.error("mem", "pread64", errno);
                    return Err(match errno {
                        rustix::io::Errno::IO => {
                            error.with_hint(format!("nothing readable is mapped at {offset:#x}; see maps"))
                        }
                        _ => error,
                    });
                }
            }
        }
        Ok(bytes)
    }

    /// Scheduling, times and memory of the process: the 52 fields of `stat`.
    ///
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
    pub fn stat(&self) -> Result<Stat> {
        Stat::parse(&self.read("stat")?).ok_or_else(|| self.nonsense("stat"))
    }

    /// The size of the process's memory in pages.
    ///
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html>
    pub fn statm(&self) -> Result<Statm> {
        let text = self.read("statm")?;
        std::str::from_utf8(&text).ok().and_then(Statm::parse).ok_or_else(|| self.nonsense("statm"))
    }

    /// The lines of `status`, with ready getters for the common ones.
    ///
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>
    pub fn status(&self) -> Result<Status> {
        Ok(Status::parse(&self.read("status")?))
    }

    /// The namespaces the process is in, in the order of [`Kind::ALL`].
    ///
    /// A kind that the kernel was built without is left out; of a process that has ended, only the user namespace is
    /// left. See [`Proc::children_namespaces`] for those that its children will be in.
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_ns.5.html>
    pub fn namespaces(&self) -> Result<Vec<(Kind, NamespaceId)>> {
        self.namespace_files(Kind::ALL.map(|kind| (kind, kind.name())))
    }

    /// The pid and time namespaces of the children that the process makes from now on: `pid_for_children`,
    /// `time_for_children`.
    ///
    /// A pid namespace that was made by unshare(2) and has no first process yet is left out.
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_ns.5.html>
    pub fn children_namespaces(&self) -> Result<Vec<(Kind, NamespaceId)>> {
        self.namespace_files([(Kind::Pid, "pid_for_children"), (Kind::Time, "time_for_children")])
    }

    fn namespace_files(
        &self,
        files: impl IntoIterator<Item = (Kind, &'static str)>,
    ) -> Result<Vec<(Kind, NamespaceId)>> {
        let mut found = Vec::new();
        for (kind, name) in files {
            let file = format!("ns/{name}");
            match rustix::fs::statat(&self.dir, &file, AtFlags::empty()) {
                Ok(stat) => found.push((kind, NamespaceId { dev: stat.st_dev, inode: stat.st_ino })),
                Err(rustix::io::Errno::NOENT) if self.exists() => (),
                Err(errno) => return Err(self.error(&file, "newfstatat", errno)),
            }
        }
        Ok(found)
    }

    /// `uid_map` and `gid_map` of the process's user namespace; empty while they are not written.
    ///
    /// Source: <https://man7.org/linux/man-pages/man7/user_namespaces.7.html>
    pub fn id_maps(&self) -> Result<IdMaps> {
        Ok(IdMaps { uid: self.read_lines("uid_map", parse_id_map)?, gid: self.read_lines("gid_map", parse_id_map)? })
    }

    /// Whether setgroups(2) is allowed in the process's user namespace: `"allow"` or `"deny"`; `None` where the kernel
    /// has no such file.
    ///
    /// Source: <https://man7.org/linux/man-pages/man7/user_namespaces.7.html>
    pub fn setgroups(&self) -> Result<Option<String>> {
        match self.read("setgroups") {
            Ok(text) => Ok(Some(String::from_utf8_lossy(&text).trim().to_owned())),
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The control groups of the process, one for each hierarchy.
    ///
    /// Source: <https://man7.org/linux/man-pages/man7/cgroups.7.html>
    pub fn cgroup(&self) -> Result<Vec<CgroupMembership>> {
        self.read_lines("cgroup", parse_cgroup)
    }

    /// The beginning of a file, at most `limit` bytes, whatever follows.
    pub(crate) fn read_prefix(&self, name: &str, limit: usize) -> Result<Vec<u8>> {
        self.read_open(&self.open_file(name)?, name, limit)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        self.read_whole(&self.open_file(name)?, name)
    }

    fn read_whole(&self, file: &OwnedFd, name: &str) -> Result<Vec<u8>> {
        let bytes = self.read_open(file, name, MAX_FILE + 1)?;
        if bytes.len() > MAX_FILE {
            return Err(Error::sys(Step::Proc, "read", self.path.join(name), Errno::EFBIG)
                .with_hint(format!("more than {MAX_FILE} bytes are not read of a file below /proc")));
        }
        Ok(bytes)
    }

    fn read_open(&self, file: &OwnedFd, name: &str, limit: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < limit {
            let done = bytes.len();
            bytes.resize(limit.min(done + done.clamp(4 << 10, 1 << 20)), 0);
            let read = rustix::io::read(file, &mut bytes[done..]);
            bytes.truncate(done + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => (),
                Err(errno) => return Err(self.error(name, "read", errno)),
            }
        }
        Ok(bytes)
    }

    fn read_lines<T>(&self, name: &str, parse: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
        let text = self.read(name)?;
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(parse).collect::<Option<_>>().ok_or_else(|| self.nonsense(name))
    }

    fn open_file(&self, name: &str) -> Result<OwnedFd> {
        self.open_with(name, OFlags::NOFOLLOW)
    }

    fn open_with(&self, name: &str, flags: OFlags) -> Result<OwnedFd> {
        rustix::fs::openat(&self.dir, name, flags | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| self.error(name, "openat", errno))
    }

    fn link(&self, name: &str) -> Result<PathBuf> {
        match rustix::fs::readlinkat(&self.dir, name, Vec::new()) {
            Ok(target) => Ok(OsString::from_vec(target.into_bytes()).into()),
            Err(rustix::io::Errno::NOENT) if self.exists() => {
                Err(Error::sys(Step::Proc, "readlinkat", self.path.join(name), Errno::ENOENT)
                    .with_hint("the process has none: it is a kernel thread, or it has ended"))
            }
            Err(errno) => Err(self.error(name, "readlinkat", errno)),
        }
    }

    fn error(&self, name: &str, syscall: &'static str, errno: rustix::io::Errno) -> Error {
        let error = Error::sys(Step::Proc, syscall, self.path.join(name), errno.into_errno());
        match errno {
            rustix::io::Errno::SRCH => gone(self.pid),
            rustix::io::Errno::NOENT if !self.exists() => gone(self.pid),
            rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => error.with_hint(PERMISSION_HINT),
            _ => error,
        }
    }

    fn nonsense(&self, name: &str) -> Error {
        Error::sys(Step::Proc, "", self.path.join(name), Errno::EBADMSG)
            .with_hint("the text does not have the form that proc(5) describes")
    }
}

impl AsFd for Proc {
    /// The directory `/proc/<pid>`, for calls of the `*at` family.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

fn gone(pid: i32) -> Error {
    Error::NotFound { what: "process", name: pid.to_string() }
}

pub(crate) fn no_procfs(path: PathBuf) -> Error {
    Error::sys(Step::Proc, "openat", path, Errno::ENOENT).with_hint("no procfs is mounted on /proc: mount one")
}

/// Whether a procfs is mounted on this path.
pub(crate) fn is_procfs(path: impl AsRef<Path>) -> bool {
    rustix::fs::statfs(path.as_ref()).is_ok_and(|fs| fs.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// Declares a structure of numbers that the kernel prints on one line in this order.
macro_rules! numbers {
    (
        $(#[$struct_doc:meta])* $name:ident { $($(#[$text_doc:meta])* $text:ident: $text_type:ty,)* }
        $($(#[$doc:meta])* $field:ident: $type:ty,)*
    ) => {
        $(#[$struct_doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$text_doc])* pub $text: $text_type,)*
            $($(#[$doc])* pub $field: $type,)*
        }

        impl $name {
            /// The numeric fields by name, in the kernel's order.
            pub fn numbers(&self) -> Vec<(&'static str, i128)> {
                vec![$((stringify!($field), i128::from(self.$field)),)*]
            }

            fn from_words($($text: $text_type,)* words: &str) -> Option<$name> {
                let mut words = words.split_ascii_whitespace();
                Some($name { $($text,)* $($field: words.next()?.parse().ok()?,)* })
            }
        }
    };
}

numbers! {
    /// What `/proc/<pid>/stat` tells.
    ///
    /// Times are in clock ticks, `sysconf(_SC_CLK_TCK)` (100) a second. Addresses, `wchan` and `exit_code` are 0 for a
    /// reader who may not trace the process.
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
    Stat {
        /// (1) The process's number.
        pid: i32,
        /// (2) The name of the program, cut to 15 bytes; the process can change it to any bytes.
        comm: OsString,
        /// (3) `R` running, `S` sleeping, `D` waiting for a disk, `Z` zombie, `T` stopped, `t` stopped by a tracer, `I`
        /// idle kernel thread, `X` dead.
        state: char,
    }
    /// (4) The parent; 0 if it is in an outer pid namespace.
    ppid: i32,
    /// (5) The process group.
    pgrp: i32,
    /// (6) The session.
    session: i32,
    /// (7) Device number of the controlling terminal; 0 without one.
    tty_nr: i32,
    /// (8) The foreground process group of that terminal; -1 without one.
    tpgid: i32,
    /// (9) The kernel's `PF_*` flags.
    flags: u32,
    /// (10) Page faults that needed no reading from disk.
    minflt: u64,
    /// (11) Those of children that were waited for.
    cminflt: u64,
    /// (12) Page faults that needed reading from disk.
    majflt: u64,
    /// (13) Those of children that were waited for.
    cmajflt: u64,
    /// (14) Ticks in user mode.
    utime: u64,
    /// (15) Ticks in kernel mode.
    stime: u64,
    /// (16) Ticks in user mode of children that were waited for.
    cutime: i64,
    /// (17) Ticks in kernel mode of children that were waited for.
    cstime: i64,
    /// (18) Nice value plus 20, or the negative real-time priority minus 1.
    priority: i64,
    /// (19) Nice value, 19 (low) to -20 (high).
    nice: i64,
    /// (20) Number of threads.
    num_threads: i64,
    /// (21) Always 0.
    itrealvalue: i64,
    /// (22) Ticks between boot and the start of the process.
    starttime: u64,
    /// (23) Virtual memory, in bytes.
    vsize: u64,
    /// (24) Resident memory, in pages; [`Proc::statm`] and `smaps` are more exact.
    rss: i64,
    /// (25) Soft limit of `RLIMIT_RSS`, in bytes.
    rsslim: u64,
    /// (26) Address above which the program's text begins.
    startcode: u64,
    /// (27) Address below which it ends.
    endcode: u64,
    /// (28) Address of the bottom of the stack.
    startstack: u64,
    /// (29) Stack pointer of a process that is about to end; 0 otherwise.
    kstkesp: u64,
    /// (30) Instruction pointer of a process that is about to end; 0 otherwise.
    kstkeip: u64,
    /// (31) Pending signals below 32; use `SigPnd` of [`Proc::status`].
    signal: u64,
    /// (32) Blocked signals below 32; use `SigBlk`.
    blocked: u64,
    /// (33) Ignored signals below 32; use `SigIgn`.
    sigignore: u64,
    /// (34) Caught signals below 32; use `SigCgt`.
    sigcatch: u64,
    /// (35) 1 if the process waits in the kernel.
    wchan: u64,
    /// (36) Always 0.
    nswap: u64,
    /// (37) Always 0.
    cnswap: u64,
    /// (38) The signal the parent gets when the process ends.
    exit_signal: i32,
    /// (39) The processor it ran on last.
    processor: i32,
    /// (40) Real-time priority, 1 to 99; 0 for others.
    rt_priority: u32,
    /// (41) Scheduling policy, `SCHED_*`.
    policy: u32,
    /// (42) Ticks of waiting for block devices.
    delayacct_blkio_ticks: u64,
    /// (43) Ticks of running a virtual processor.
    guest_time: u64,
    /// (44) Those of children that were waited for.
    cguest_time: i64,
    /// (45) Address above which the program's data begins.
    start_data: u64,
    /// (46) Address below which it ends.
    end_data: u64,
    /// (47) Address above which the heap grows.
    start_brk: u64,
    /// (48) Address of the first argument.
    arg_start: u64,
    /// (49) Address behind the last argument.
    arg_end: u64,
    /// (50) Address of the environment.
    env_start: u64,
    /// (51) Address behind the environment.
    env_end: u64,
    /// (52) Status of a process that has ended, as waitpid(2) gives it.
    exit_code: i32,
}

impl Stat {
    fn parse(text: &[u8]) -> Option<Stat> {
        // The name can hold any byte but NUL, `)` and newline included; what follows it is numbers only.
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')').filter(|close| *close > open)?;
        let pid = std::str::from_utf8(&text[..open]).ok()?.trim_end().parse().ok()?;
        let comm = OsStr::from_bytes(&text[open + 1..close]).to_owned();
        let (state, words) = std::str::from_utf8(&text[close + 1..]).ok()?.trim_start().split_once(' ')?;
        let mut state = state.chars();
        match (state.next(), state.next()) {
            (Some(letter), None) => Stat::from_words(pid, comm, letter, words),
            _ => None,
        }
    }
}

numbers! {
    /// What `/proc/<pid>/statm` tells, in pages (`sysconf(_SC_PAGESIZE)`, 4096 bytes on most machines).
    ///
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html>
    Statm {}
    /// Virtual memory.
    size: u64,
    /// Resident memory.
    resident: u64,
    /// Resident memory that is backed by files or shared.
    shared: u64,
    /// Program text.
    text: u64,
    /// Always 0.
    lib: u64,
    /// Data and stack.
    data: u64,
    /// Always 0.
    dt: u64,
}

impl Statm {
    fn parse(text: &str) -> Option<Statm> {
        Statm::from_words(text)
    }
}

/// What `/proc/<pid>/status` tells.
///
/// Source: <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    name: OsString,
    fields: Vec<(String, String)>,
}

/// The five capability sets of a process; bit N stands for capability number N.
///
/// Source: <https://man7.org/linux/man-pages/man7/capabilities.7.html>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// `CapInh`
    pub inheritable: u64,
    /// `CapPrm`
    pub permitted: u64,
    /// `CapEff`
    pub effective: u64,
    /// `CapBnd`
    pub bounding: u64,
    /// `CapAmb`
    pub ambient: u64,
}

impl Status {
    fn parse(text: &[u8]) -> Status {
        let mut name = OsString::new();
        let mut fields = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (key, value) = (&line[..colon], line[colon + 1..].trim_ascii_end());
            let value = value.strip_prefix(b"\t").unwrap_or(value);
            if key == b"Name" && fields.is_empty() {
                name = unescape_name(line[colon + 1..].strip_prefix(b"\t").unwrap_or(&line[colon + 1..]));
            }
            fields.push((String::from_utf8_lossy(key).into_owned(), String::from_utf8_lossy(value).into_owned()));
        }
        Status { name, fields }
    }

    /// The status of the calling thread, whose capabilities may differ from those of the process.
    pub(crate) fn of_this_thread() -> Option<Status> {
        if !is_procfs("/proc") {
            return None;
        }
        Some(Status::parse(&std::fs::read("/proc/thread-self/status").ok()?))
    }

    /// Every line as name and value, in the kernel's order; bytes that are not UTF-8 are replaced.
    pub fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// The value of the first line with this name: `get("VmRSS")` is `Some("1024 kB")`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The name of the program, cut to 15 bytes; the process can change it to any bytes.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// The letter of the state, as in [`Stat::state`].
    pub fn state(&self) -> Option<char> {
        self.get("State")?.chars().next()
    }

    /// The parent; 0 if it is in an outer pid namespace.
    pub fn ppid(&self) -> Option<i32> {
        self.get("PPid")?.parse().ok()
    }

    /// Real, effective, saved and file system user id.
    pub fn uids(&self) -> Option<[u32; 4]> {
        self.numbers("Uid")?.try_into().ok()
    }

    /// Real, effective, saved and file system group id.
    pub fn gids(&self) -> Option<[u32; 4]> {
        self.numbers("Gid")?.try_into().ok()
    }

    /// The supplementary groups.
    pub fn groups(&self) -> Vec<u32> {
        self.numbers("Groups").unwrap_or_default()
    }

    /// The process's number in each pid namespace, from that of `/proc` to its own.
    pub fn ns_pids(&self) -> Vec<i32> {
        self.numbers("NSpid").unwrap_or_default()
    }

    /// The capability sets.
    pub fn capabilities(&self) -> Option<CapabilitySets> {
        let set = |key| u64::from_str_radix(self.get(key)?, 16).ok();
        Some(CapabilitySets {
            inheritable: set("CapInh")?,
            permitted: set("CapPrm")?,
            effective: set("CapEff")?,
            bounding: set("CapBnd")?,
            ambient: set("CapAmb")?,
        })
    }

    /// Whether `no_new_privs` is set: PR_SET_NO_NEW_PRIVS(2const).
    pub fn no_new_privs(&self) -> Option<bool> {
        Some(self.get("NoNewPrivs")? != "0")
    }

    /// The seccomp mode: 0 none, 1 strict, 2 filter. `None` where the kernel has no seccomp.
    pub fn seccomp(&self) -> Option<u32> {
        self.get("Seccomp")?.parse().ok()
    }

    /// Number of threads.
    pub fn threads(&self) -> Option<u32> {
        self.get("Threads")?.parse().ok()
    }

    fn numbers<T: FromStr>(&self, key: &str) -> Option<Vec<T>> {
        self.get(key)?.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
    }
}

/// A path of mountinfo, in which the kernel shows spaces, tabs, newlines and backslashes as `\040` and the like.
pub(crate) fn unescape_path(word: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, tail)) = rest.split_first() {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', behind @ ..] if *first == b'\\' => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = behind;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out).into()
}

/// The kernel shows a newline in the name as `\n` and a backslash as `\\`.
fn unescape_name(text: &[u8]) -> OsString {
    let mut name = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let decoded = match (byte, bytes.peek()) {
            (b'\\', Some(b'n')) => Some(b'\n'),
            (b'\\', Some(b'\\')) => Some(b'\\'),
            _ => None,
        };
        if decoded.is_some() {
            bytes.next();
        }
        name.push(decoded.unwrap_or(byte));
    }
    OsString::from_vec(name)
}

/// The strings that each end in NUL; the last one may lack it.
fn split_nul(text: &[u8]) -> Vec<OsString> {
    if text.is_empty() {
        return Vec::new();
    }
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    text.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).to_owned()).collect()
}

fn parse_environ(text: &[u8]) -> Vec<(OsString, OsString)> {
    let entries = split_nul(text).into_iter().filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let bytes = entry.as_bytes();
            // A leading `=` belongs to the name, as std and the shells have it.
            match bytes.iter().skip(1).position(|byte| *byte == b'=') {
                Some(at) => {
                    (OsStr::from_bytes(&bytes[..=at]).to_owned(), OsStr::from_bytes(&bytes[at + 2..]).to_owned())
                }
                None => (entry, OsString::new()),
            }
        })
        .collect()
}

fn parse_map(line: &[u8]) -> Option<Map> {
    // Five words without spaces, then padding, then a path that may hold anything.
    let mut rest = line;
    let mut word = || {
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        rest = tail.strip_prefix(b" ").unwrap_or(tail);
        std::str::from_utf8(word).ok()
    };
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = word()?.split_once('-')?;
    let perms = word()?.as_bytes();
    let offset = hex(word()?)?;
    let (major, minor) = word()?.split_once(':')?;
    let dev = rustix::fs::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let inode = word()?.parse().ok()?;
    let path = rest.trim_ascii_start();
    let [read, write, exec, shared] = perms else { return None };
    Some(Map {
        start: hex(start)?,
        end: hex(end)?,
        perms: Perms { read: *read == b'r', write: *write == b'w', exec: *exec == b'x', shared: *shared == b's' },
        offset,
        dev,
        inode,
        path: (!path.is_empty()).then(|| OsStr::from_bytes(path).into()),
    })
}

fn parse_id_map(line: &[u8]) -> Option<IdMap> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let mut number = || words.next()?.parse().ok();
    let map = IdMap { container: number()?, host: number()?, size: number()? };
    words.next().is_none().then_some(map)
}

fn parse_cgroup(line: &[u8]) -> Option<CgroupMembership> {
    let mut parts = line.splitn(3, |byte| *byte == b':');
    let hierarchy = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let controllers = std::str::from_utf8(parts.next()?).ok()?;
    let path = OsStr::from_bytes(parts.next()?).into();
    let controllers = controllers.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    Some(CgroupMembership { hierarchy, controllers, path })
}

/// The value of a sysctl, `"kernel.ostype"`; `None` if it does not exist or cannot be read.
pub(crate) fn sysctl(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(name.replace('.', "/"))).ok()?;
    Some(text.trim().to_owned())
}

/// The text with control characters replaced, so that it cannot act on a terminal.
pub(crate) fn printable(text: &OsStr) -> String {
    text.to_string_lossy().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat_line(comm: &[u8]) -> Vec<u8> {
        let numbers: Vec<String> = (4..=52).map(|number: u32| number.to_string()).collect();
        [b"1234 (", comm, b") S ", numbers.join(" ").as_bytes(), b"\n"].concat()
    }

    #[test]
    fn a_name_made_of_parentheses_does_not_shift_the_fields() {
        for comm in [&b"a) R 1 (b"[..], b")", b"(", b"", b"x) Z 1 1 1\n7 (y", b"\xff\xfe) \n"] {
            let stat = Stat::parse(&stat_line(comm)).unwrap();
            assert_eq!(stat.comm.as_bytes(), comm);
            assert_eq!((stat.pid, stat.state, stat.ppid, stat.exit_code), (1234, 'S', 4, 52));
        }
    }

    #[test]
    fn stat_fields_stand_at_the_numbers_of_the_man_page() {
        let stat = Stat::parse(&stat_line(b"sh")).unwrap();
        let numbers = stat.numbers();
        assert_eq!(numbers.len(), 49);
        assert!(numbers.iter().zip(4..).all(|((_, value), field)| *value == field));
        assert_eq!((stat.starttime, stat.rss, stat.processor, stat.env_end), (22, 24, 39, 51));
    }

    #[test]
    fn malformed_stat_is_refused() {
        let whole = stat_line(b"sh");
        for bad in
            [&b""[..], b"(", b")", b")(", b"1", b"1 (sh", b"1 (sh)", b"1 (sh) S", b"x (sh) S 1", b"1 (sh) SS 1 2"]
        {
            assert_eq!(Stat::parse(bad), None, "{bad:?}");
        }
        let close = whole.iter().position(|byte| *byte == b')').unwrap();
        for end in 0..whole.len() - 3 {
            assert_eq!(Stat::parse(&whole[..end]), None, "cut at {end} (name ends at {close})");
        }
    }

    #[test]
    fn every_prefix_and_every_byte_of_noise_is_survived() {
        let samples: [&[u8]; 4] = [
            b"7f00-7f10 r-xp 00001000 fe:00 42 /bin/a b",
            b"0 1000 65536",
            b"4:memory,cpu:/a:b",
            b"Name:\ta\\nb\nUid:\t1\t2\t3\t4\n",
        ];
        for sample in samples {
            for at in 0..sample.len() {
                for byte in [0, b' ', b':', b'-', b'9', b'\n', 0xff] {
                    let mut text = sample.to_vec();
                    text[at] = byte;
                    for text in [&text[..], &text[..at]] {
                        let _ = (Stat::parse(text), parse_map(text), parse_id_map(text), parse_cgroup(text));
                        let status = Status::parse(text);
                        let _ = (status.uids(), status.capabilities(), parse_environ(text), split_nul(text));
                    }
                }
            }
        }
    }

    #[test]
    fn arguments_may_be_empty_and_need_no_final_nul() {
        assert_eq!(split_nul(b""), Vec::<OsString>::new());
        assert_eq!(split_nul(b"\0"), [""]);
        assert_eq!(split_nul(b"a\0\0b\0"), ["a", "", "b"]);
        assert_eq!(split_nul(b"overwritten title"), ["overwritten title"]);
        assert_eq!(split_nul(b"\xff\0")[0].as_bytes(), b"\xff");
    }

    #[test]
    fn environment_splits_at_the_first_equals_sign() {
        let pairs = parse_environ(b"A=1=2\0B=\0junk\0=C:=x\0\0");
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.to_str().unwrap(), v.to_str().unwrap())).collect();
        assert_eq!(pairs, [("A", "1=2"), ("B", ""), ("junk", ""), ("=C:", "x")]);
    }

    #[test]
    fn maps_keep_spaces_of_paths() {
        let map = parse_map(b"7f5c000-7f5d000 r-xs 00002000 fe:01 77      /a dir/ f (deleted)").unwrap();
        assert_eq!((map.start, map.end, map.offset, map.inode), (0x7f5c000, 0x7f5d000, 0x2000, 77));
        assert_eq!(map.dev, rustix::fs::makedev(254, 1));
        assert_eq!(map.perms, Perms { read: true, write: false, exec: true, shared: true });
        assert_eq!(map.path.as_deref(), Some(Path::new("/a dir/ f (deleted)")));
        assert_eq!(parse_map(b"1000-2000 ---p 00000000 00:00 0 ").unwrap().path, None);
        assert_eq!(parse_map(b"1000-2000 ---p 00000000 00:00"), None);
    }

    #[test]
    fn id_maps_take_three_numbers() {
        let text = b"         0     100000      65536";
        assert_eq!(parse_id_map(text), Some(IdMap { container: 0, host: 100000, size: 65536 }));
        assert_eq!(parse_id_map(b"0 0 4294967295").unwrap().size, u32::MAX);
        assert_eq!(parse_id_map(b"0 0 4294967296"), None);
        assert_eq!(parse_id_map(b"0 0 1 1"), None);
    }

    #[test]
    fn cgroup_paths_may_hold_colons() {
        let group = parse_cgroup(b"9:name=systemd:/a:b c").unwrap();
        assert_eq!((group.hierarchy, group.controllers, group.path), (9, vec!["name=systemd".into()], "/a:b c".into()));
        assert_eq!(parse_cgroup(b"0::/").unwrap().controllers, Vec::<String>::new());
    }

    #[test]
    fn status_is_read_by_name() {
        let text = b"Name:\ta\\nUid:\\\\x\nUmask:\t0022\nState:\tS (sleeping)\nPPid:\t7\nUid:\t1\t2\t3\t4\n\
            Groups:\t5 6 \nNSpid:\t900\t1\nThreads:\t3\nCapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\n\
            CapEff:\t0000000000200000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n\
            Seccomp:\t2\n";
        let status = Status::parse(text);
        assert_eq!(status.name(), "a\nUid:\\x");
        assert_eq!(status.fields()[1], ("Umask".to_owned(), "0022".to_owned()));
        assert_eq!((status.state(), status.ppid(), status.uids()), (Some('S'), Some(7), Some([1, 2, 3, 4])));
        assert_eq!((status.gids(), status.groups(), status.ns_pids()), (None, vec![5, 6], vec![900, 1]));
        assert_eq!((status.no_new_privs(), status.seccomp(), status.threads()), (Some(true), Some(2), Some(3)));
        assert_eq!(status.capabilities().unwrap().effective, 1 << 21);
    }

    #[test]
    fn own_process_reads_as_it_is() {
        let own = Proc::current().unwrap();
        assert_eq!(own.stat().unwrap().pid, own.pid());
        assert_eq!(own.cmdline().unwrap(), std::env::args_os().collect::<Vec<_>>());
        assert_eq!(own.cwd().unwrap(), std::env::current_dir().unwrap());
        assert_eq!(own.exe().unwrap(), std::env::current_exe().unwrap());
        assert!(!own.environ().unwrap().is_empty() && own.root().is_ok() && own.statm().unwrap().size > 0);
        assert!(own.fds().unwrap().iter().any(|fd| fd.target == Path::new("/proc").join(own.pid().to_string())));
        assert_eq!(own.status().unwrap().uids().unwrap()[0], rustix::process::getuid().as_raw());
        assert!(own.namespaces().unwrap().iter().any(|(kind, id)| *kind == Kind::Mount && id.inode != 0));
        let children = own.children_namespaces().unwrap();
        assert_eq!(children[0], *own.namespaces().unwrap().iter().find(|(kind, _)| *kind == Kind::Pid).unwrap());
        assert!(!own.id_maps().unwrap().uid.is_empty() && own.setgroups().unwrap().is_some());
        own.cgroup().unwrap();
        assert!(own.exists());
    }

    #[test]
    fn memory_is_read_up_to_the_end_of_the_mapping() {
        let own = Proc::current().unwrap();
        let secret = *b"seen through /proc";
        assert_eq!(own.mem(secret.as_ptr().addr() as u64, secret.len()).unwrap(), secret);
        let maps = own.maps().unwrap();
        let stack = maps.iter().find(|map| map.path.as_deref() == Some(Path::new("[stack]"))).unwrap();
        assert_eq!(own.mem(stack.end - 10, usize::MAX).unwrap().len(), 10);
        assert_eq!(own.mem(0, 1).unwrap_err().errno(), Some(Errno::EIO));
        assert!(own.mem(0, 0).unwrap().is_empty());
        assert!(own.mem(u64::MAX, 1).is_err());
    }

    #[test]
    fn no_process_is_not_found() {
        for pid in [0, -1, i32::MIN, i32::MAX] {
            assert!(matches!(Proc::open(pid), Err(Error::NotFound { what: "process", .. })), "{pid}");
        }
    }

    #[test]
    fn a_dead_process_stays_dead() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let proc = Proc::open(child.id() as i32).unwrap();
        assert!(proc.exists() && proc.namespaces().unwrap().len() >= 7);
        child.kill().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while proc.stat().unwrap().state != 'Z' && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!((proc.cmdline().unwrap(), proc.maps().unwrap()), (vec![], vec![]));
        // An ordinary user may no longer look into a process without memory.
        let forbidden = |error: &Error| error.errno() == Some(Errno::EACCES);
        assert!(proc.environ().map_or_else(|error| forbidden(&error), |pairs| pairs.is_empty()));
        assert!(proc.fds().map_or_else(|error| forbidden(&error), |fds| fds.is_empty()));
        assert!(proc.cwd().is_err_and(|error| forbidden(&error) || error.errno() == Some(Errno::ENOENT)));
        assert!(proc.mem(0x1000, 1).is_err_and(|error| matches!(error, Error::Sys { .. })));
        child.wait().unwrap();
        assert!(!proc.exists());
        let gone = |result: Result<()>| matches!(result, Err(Error::NotFound { what: "process", .. }));
        assert!(gone(proc.cmdline().map(drop)) && gone(proc.stat().map(drop)) && gone(proc.cwd().map(drop)));
        assert!(gone(proc.fds().map(drop)) && gone(proc.environ().map(drop)) && gone(proc.mem(0, 1).map(drop)));
        assert!(gone(proc.namespaces().map(drop)) && gone(proc.setgroups().map(drop)) && gone(proc.maps().map(drop)));
    }
}
