//! Stopping everything in a group, letting it go on, and killing it.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};

use super::{Cgroup, PATIENCE, Part, Pause, collect, files};
use crate::error::{At, Error, Result, Step};
use crate::sys::clone::Keeper;
use crate::sys::descriptors::{openat, pidfd_open, pidfd_send_signal};

impl Cgroup {
    /// Stops every process until [`Cgroup::thaw`], and waits until all have stopped.
    ///
    /// Errors: [`Error::Unsupported`] without a freezer; [`Error::Sys`] at [`Step::Freeze`], `ETIMEDOUT` if something of it
    /// sleeps in the kernel and cannot be stopped (the group is thawed again).
    pub fn freeze(&self) -> Result<()> {
        self.freeze_unless(&|| false)
    }

    /// The same, but what `is_ending` by somebody's SIGKILL is not frozen, or thawed again: on v1 it could not die.
    pub(crate) fn freeze_unless(&self, is_ending: &dyn Fn() -> bool) -> Result<()> {
        let (part, name, _) = self.freezer()?;
        let mut thawer = self.thawer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.dies_with_owner && thawer.is_none() {
            let file = openat(&part.dir, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            let file = file.at(Step::Freeze, "openat", part.path.join(name))?;
            // Without clone3(2) the next start has to do it.
            *thawer = Keeper::start_for(file.as_fd(), thawing(part)).ok();
        }
        let result = self.stop(is_ending);
        if result.is_err() {
            *thawer = None;
        }
        result
    }

    fn stop(&self, is_ending: &dyn Fn() -> bool) -> Result<()> {
        let (part, file, word) = self.freezer()?;
        part.write(Step::Freeze, file, word)?;
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Pause::new();
        loop {
            // Asked after the file was written: who kills says so first, and thaws at last.
            if is_ending() {
                let _ = self.go_on();
                return Err(Error::State("the container is being killed".to_owned()));
            }
            if is_frozen(part)? {
                return Ok(());
            }
            if Instant::now() > deadline {
                let _ = self.go_on();
                return Err(Error::sys(Step::Freeze, "write", part.path.join(file), Errno::ETIMEDOUT).with_hint(
                    "something of it sleeps in the kernel and does not stop: see the wchan of its processes",
                ));
            }
            pause.sleep();
        }
    }

    /// Lets everything go on.
    pub fn thaw(&self) -> Result<()> {
        let mut thawer = self.thawer.lock().unwrap_or_else(PoisonError::into_inner);
        self.go_on()?;
        *thawer = None;
        Ok(())
    }

    fn go_on(&self) -> Result<()> {
        let (part, file, _) = self.freezer()?;
        part.write(Step::Freeze, file, thawing(part))
    }

    /// True while it is frozen.
    pub fn is_frozen(&self) -> Result<bool> {
        is_frozen(self.freezer()?.0)
    }

    fn freezer(&self) -> Result<(&Part, &'static str, &'static str)> {
        if let Some(part) = self.v2() {
            return Ok((part, "cgroup.freeze", "1"));
        }
        match self.v1_with("freezer") {
            Some(part) => Ok((part, "freezer.state", "FROZEN")),
            None => Err(Error::unsupported(
                "freezing",
                "the group has no freezer: none is mounted, or this user may make no group there",
            )),
        }
    }

    /// Kills everything in it at once, however fast it forks; what is frozen is thawed, since it could not die. Returns when
    /// all of it has got the signal.
    ///
    /// Errors: [`Error::Sys`] at [`Step::KillCgroup`].
    pub fn kill(&self) -> Result<()> {
        if self.is_nowhere() || self.is_gone.load(Ordering::Acquire) {
            return Ok(());
        }
        self.thaw_for_killing();
        // Linux 5.14.
        if let Some(part) = self.v2() {
            match files::write(part.dir.as_fd(), "cgroup.kill", "1") {
                Ok(()) | Err(Errno::ENODEV) => return Ok(()),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(Error::sys(Step::KillCgroup, "write", part.path.join("cgroup.kill"), errno)),
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Frozen it forks nothing, so that one round is enough; without a freezer it takes as many as it takes.
            let frozen = self.stop(&|| false).is_ok();
            let found = self.signal_all();
            if frozen {
                self.go_on()?;
            }
            if found? == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                let path = self.parts.first().map(|part| part.path.clone()).unwrap_or_default();
                return Err(Error::sys(Step::KillCgroup, "pidfd_send_signal", path, Errno::ETIMEDOUT)
                    .with_hint("it forks faster than it is killed, or sleeps in the kernel"));
            }
            if frozen {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// On v1 what is frozen takes no signal.
    pub(crate) fn thaw_for_killing(&self) {
        if let Some(part) = self.v1_with("freezer") {
            let _ = files::write(part.dir.as_fd(), "freezer.state", "THAWED");
        }
        if let Some(part) = self.v2() {
            // A frozen one dies there too, but one that waits for a frozen one does not.
            let _ = files::write(part.dir.as_fd(), "cgroup.freeze", "0");
        }
    }

    /// Sends SIGKILL to everybody; how many there were.
    fn signal_all(&self) -> Result<usize> {
        let Some(part) = self.v2().or(self.v1_with("freezer")).or(self.parts.first()) else { return Ok(0) };
        let mut pids = BTreeSet::new();
        collect(part, &mut pids)?;
        let held: Vec<(i32, OwnedFd)> = pids.iter().filter_map(|pid| Some((*pid, pidfd_open(*pid).ok()?))).collect();
        // A number may have come to mean somebody else before it was held; who is still here now is the right one.
        let mut still = BTreeSet::new();
        collect(part, &mut still)?;
        let mut found = 0;
        for (pid, pidfd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
            match pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
                Ok(()) => found += 1,
                Err(Errno::ESRCH) => {}
                Err(errno) => {
                    return Err(Error::sys(Step::KillCgroup, "pidfd_send_signal", pid.to_string(), errno));
                }
            }
        }
        Ok(found)
    }
}

/// The word that lets everything go on.
fn thawing(part: &Part) -> &'static str {
    if part.is_v2 { "0" } else { "THAWED" }
}

fn is_frozen(part: &Part) -> Result<bool> {
    if part.is_v2 {
        return Ok(files::value_of(&part.read("cgroup.events")?, "frozen") == Some(1));
    }
    // Reading it is what lets a group become FROZEN from FREEZING.
    Ok(part.read("freezer.state")?.trim() == "FROZEN")
}
