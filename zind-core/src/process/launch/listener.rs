//! The listener of the payload's filter: to whom it goes, and who answers until the program runs.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags, poll};

use super::{Received, SLICE, Starting, image, protocol, receive, wait_readable};
use crate::error::{At, Error, Result, Step};
use crate::proc::Proc;
use crate::process::filter::{self, Listening};
use crate::security::seccomp::Watch;
use crate::sys;

impl Starting {
    /// The filter is in force: its listener goes to whom it is for.
    pub(super) fn take_listener(
        &mut self,
        listener: Option<OwnedFd>,
        pid: Option<i32>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let (Some(listener), Some(pid)) = (listener, pid) else {
            return Err(Error::sys(Step::Report, "recvmsg", "", Errno::EPROTO));
        };
        match &self.prepared.listening {
            Some(Listening::Watch(compiled)) => self.watch = Some(Watch::begin(listener, compiled, false)?),
            Some(Listening::Learn(compiled)) => self.watch = Some(Watch::begin(listener, compiled, true)?),
            Some(Listening::Agent(agent)) => {
                let annotations = self.prepared.spec.as_ref().map(|spec| &spec.annotations);
                let listener = listener.as_fd();
                self.in_time(interrupted, |stop| filter::hand_over(agent, listener, pid, annotations, stop))?;
            }
            Some(Listening::Caller) | None => self.listener = Some((listener, pid)),
        }
        Ok(())
    }

    /// Waits for a report, or for the listener that comes before the last of them. True if there is a report.
    pub(super) fn wait_for_handover(
        &mut self,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<bool> {
        let Some(handover) = &self.handover else { return Ok(false) };
        let slice = timeout.map_or(SLICE, |timeout| timeout.min(SLICE));
        let time = rustix::event::Timespec { tv_sec: slice.as_secs() as i64, tv_nsec: i64::from(slice.subsec_nanos()) };
        // In this order: who is seen to have started has handed its listener over before.
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(handover, PollFlags::IN)];
        match poll(&mut fds, Some(&time)) {
            Ok(0) | Err(rustix::io::Errno::INTR) if interrupted() => return Err(Error::Interrupted),
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(errno) => return Err(errno).at(Step::Wait, "poll", ""),
        }
        let (is_reported, is_handed) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if !is_handed {
            return Ok(is_reported);
        }
        let received = receive(handover.as_fd())?;
        self.handover = None;
        match received {
            Received::Report(message) if message.report.step == Step::HandedListener as u16 => {
                self.take_listener(message.fd, message.pid, interrupted)?;
                Ok(false)
            }
            // It has ended without a word, of which the report tells.
            Received::End => Ok(false),
            _ => Err(protocol()),
        }
    }

    /// Waits for a report beside a listener that nobody reads yet. True if there is one.
    ///
    /// What the launcher itself calls on its way to the payload's program is none of the caller's business, and is let through.
    /// Nobody has this filter but that process, which sleeps while its call waits, so what it executes now tells whose
    /// call that is; the program's own stay where they are.
    pub(super) fn wait_beside(
        &self,
        listener: BorrowedFd<'_>,
        pid: i32,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<bool> {
        let slice = timeout.map_or(SLICE, |timeout| timeout.min(SLICE));
        let time = rustix::event::Timespec { tv_sec: slice.as_secs() as i64, tv_nsec: i64::from(slice.subsec_nanos()) };
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&listener, PollFlags::IN)];
        match poll(&mut fds, Some(&time)) {
            Ok(0) | Err(rustix::io::Errno::INTR) if interrupted() => return Err(Error::Interrupted),
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(errno) => return Err(errno).at(Step::Wait, "poll", ""),
        }
        if !fds[0].revents().is_empty() {
            return Ok(true);
        }
        if !fds[1].revents().contains(PollFlags::IN) {
            // It has ended, which the report will tell.
            return wait_readable(self.socket.as_fd(), timeout, interrupted);
        }
        let program = format!("/proc/{pid}/exe");
        let is_launcher = match rustix::fs::stat(&program) {
            Ok(found) => {
                let launcher = rustix::fs::fstat(&*image()?).at(Step::Memfd, "fstat", "zind-init")?;
                (found.st_dev, found.st_ino) == (launcher.st_dev, launcher.st_ino)
            }
            // It has ended.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) => {
                return wait_readable(self.socket.as_fd(), timeout, interrupted);
            }
            // Nobody may look at who ends in this moment.
            Err(_) if !has_question(listener) => return Ok(false),
            // Who becomes a further program is forked from a launcher that nobody may look into, who executes nothing else.
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) if self.prepared.is_guest() => {
                const PF_FORKNOEXEC: u32 = 0x40;
                Proc::open(pid).and_then(|process| process.stat()).is_ok_and(|stat| stat.flags & PF_FORKNOEXEC != 0)
            }
            Err(errno) => {
                let hint = "the filter notifies of calls that zind makes on the way to the program; whose they are is seen by who may trace it";
                return Err(errno).at(Step::Notify, "stat", &program).map_err(|error| error.with_hint(hint));
            }
        };
        if !is_launcher {
            return wait_readable(self.socket.as_fd(), timeout, interrupted);
        }
        let notification = match sys::seccomp::receive(listener) {
            Err(Errno::ENOENT | Errno::EINTR) => return Ok(false),
            other => other.at(Step::Notify, "ioctl", "SECCOMP_IOCTL_NOTIF_RECV")?,
        };
        let flags = sys::seccomp::CONTINUE;
        let response = sys::seccomp::Response { id: notification.id, flags, ..Default::default() };
        match sys::seccomp::respond(listener, &response) {
            Ok(()) | Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno).at(Step::Notify, "ioctl", "SECCOMP_IOCTL_NOTIF_SEND"),
        }
    }
}

/// A call waits at a listener.
fn has_question(listener: BorrowedFd<'_>) -> bool {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(&listener, PollFlags::IN)];
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::IN)
}
