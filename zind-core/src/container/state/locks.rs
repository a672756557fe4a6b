//! Who may change a container, and whether it has a monitor.
#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use super::{Dir, LOCK, Locked, MONITOR, open_at};
use crate::error::{At, Error, Result, Step};

impl Dir {
    /// The right to change the state. Whoever has it decides alone, but for the monitor, which only tells.
    pub(in crate::container) fn lock(&self, interrupted: &mut dyn FnMut() -> bool) -> Result<Locked> {
        let path = self.at(LOCK);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match open_at(&path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Err(self.gone()),
            result => result.at(Step::Container, "open", &path)?,
        };
        let locked = lock_open(file, &path, interrupted)?;
        // Whoever had it may have deleted the container.
        let own = rustix::fs::fstat(&locked).at(Step::Container, "fstat", &path)?;
        match rustix::fs::stat(&path) {
            Ok(found) if found.st_ino == own.st_ino => Ok(locked),
            Ok(_) | Err(rustix::io::Errno::NOENT) => Err(self.gone()),
            Err(errno) => Err(errno).at(Step::Container, "stat", &path),
        }
    }

    /// Makes the files that are locked, and takes the first lock: nobody ever sees it free, and takes it for that of somebody who
    /// has died.
    pub(in crate::container) fn make_locks(&self) -> Result<Locked> {
        let make = |path: &Path| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            open_at(path, flags, Mode::from_raw_mode(0o600)).at(Step::Container, "open", path)
        };
        make(&self.at(MONITOR))?;
        let (aside, path) = (self.at(&format!("{LOCK}.new")), self.at(LOCK));
        let lock = make(&aside)?;
        rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::NonBlockingLockExclusive)).at(
            Step::Container,
            "flock",
            &aside,
        )?;
        fs::rename(&aside, &path).at(Step::Container, "rename", &path)?;
        Ok(Locked::new(lock))
    }

    /// Takes the lock that the monitor holds for its whole life; `None` if one has it.
    pub(in crate::container) fn take_monitor_lock(&self) -> Result<Option<OwnedFd>> {
        let path = self.at(MONITOR);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = open_at(&path, flags, Mode::empty()).at(Step::Container, "open", &path)?;
        let lock = whole_file(libc::F_WRLCK);
        match nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => Ok(Some(file)),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(errno) => Err(errno).at(Step::Container, "fcntl", &path),
        }
    }

    /// True if there is a monitor.
    pub(in crate::container) fn has_monitor(&self) -> Result<bool> {
        let path = self.at(MONITOR);
        // A FIFO in its place must not be waited at.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match open_at(&path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Err(self.gone()),
            result => result.at(Step::Container, "open", &path)?,
        };
        // Asking takes nothing: nobody who wants the lock meets us.
        let mut lock = whole_file(libc::F_RDLCK);
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_OFD_GETLK(&mut lock)).at(Step::Container, "fcntl", &path)?;
        Ok(i32::from(lock.l_type) != libc::F_UNLCK)
    }
}

/// `flock(2)` of a directory.
pub(in crate::container) fn lock_dir(path: &Path, how: FlockOperation) -> Result<Locked> {
    let dir = open_at(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let dir = dir.at(Step::Container, "open", path)?;
    rustix::io::retry_on_intr(|| flock(&dir, how)).at(Step::Container, "flock", path)?;
    Ok(Locked::new(dir))
}

/// Locks what is open for nobody else, as soon as nobody else has it; `interrupted` is asked meanwhile.
pub(in crate::container) fn lock_open(
    file: OwnedFd,
    path: &Path,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<Locked> {
    let mut pause = Duration::from_micros(200);
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Locked::new(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                if interrupted() {
                    return Err(Error::Interrupted);
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).at(Step::Container, "flock", path),
        }
    }
}

/// A lock of a whole file for its open file description: F_OFD_SETLK of fcntl_locking(2).
fn whole_file(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}
