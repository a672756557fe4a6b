//! [`Proc`]: one process as `/proc/<pid>` shows it.
//!
//! What a process can write there itself (its name, arguments, environment, paths) is hostile input: reads are bounded,
//! names that are not UTF-8 survive, and text that makes no sense is an error, never a panic.
#![forbid(unsafe_code)]

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod membership;
mod memory;
mod stat;
mod status;
mod text;

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::error::{At, Error, IntoErrno, Result, Step};
pub use membership::{CgroupMembership, IdMaps, NamespaceId};
pub use memory::{Map, Perms};
pub(crate) use stat::start_time;
pub use stat::{Stat, Statm};
pub use status::{CapabilitySets, Status};
use text::{parse_environ, split_nul};
pub(crate) use text::{printable, unescape_path};

/// The most that is read of one file, in bytes.
const MAX_FILE: usize = 16 << 20;

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

/// The value of a sysctl, `"kernel.ostype"`; `None` if it does not exist or cannot be read.
pub(crate) fn sysctl(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(name.replace('.', "/"))).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::membership::{parse_cgroup, parse_id_map};
    use super::memory::parse_map;
    use super::*;
    use crate::namespace::kind::Kind;

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
