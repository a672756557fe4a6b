//! [`Notifier`]: whoever decides about the calls of a running payload for which its profile says `SCMP_ACT_NOTIFY`.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{At, Error, Result, Step};
use crate::security::syscalls::Arch;
use crate::sys::seccomp as sys;

/// A system call that waits for an answer.
///
/// What its arguments point to can be changed by other threads of the process at any time: never let a call go on
/// ([`Notifier::proceed`]) because of what was found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The number of this question.
    pub id: u64,
    /// The thread that called, in the pid namespace of the reader; 0 if it is not in there.
    pub pid: i32,
    /// The number of the call.
    pub number: u32,
    /// The convention it is of. `None`: one that zind does not know.
    pub arch: Option<Arch>,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// Where the program is.
    pub instruction_pointer: u64,
}

impl Call {
    fn of(notification: sys::Notification) -> Call {
        let number = notification.number as u32;
        Call {
            id: notification.id,
            pid: notification.pid as i32,
            number,
            arch: Arch::of_call(notification.arch, number),
            arguments: notification.arguments,
            instruction_pointer: notification.instruction_pointer,
        }
    }

    /// The call with this number of a question, for an answer; nothing else is known of it.
    pub fn of_id(id: u64, pid: i32) -> Call {
        Call { id, pid, number: 0, arch: None, arguments: [0; 6], instruction_pointer: 0 }
    }

    /// The kernel's name of the call: `"mkdir"`. `None` for a number without one.
    pub fn name(&self) -> Option<&'static str> {
        self.arch?.name(self.number)
    }
}

/// The listener of a running payload's filter.
///
/// Until a call is answered its thread sleeps. When the notifier is dropped, calls that wait and all later ones fail with
/// `ENOSYS`. All methods may be called from any thread.
///
/// Source: <https://man7.org/linux/man-pages/man2/seccomp_unotify.2.html>
#[derive(Debug)]
pub struct Notifier {
    listener: OwnedFd,
    /// Between the question whether there is a call and the taking of it.
    receiving: Mutex<()>,
}

impl Notifier {
    /// Of a listener that came from anywhere: [`Notifier::into_fd`], or seccomp(2) itself.
    pub fn from_fd(listener: OwnedFd) -> Notifier {
        Notifier { listener, receiving: Mutex::new(()) }
    }

    /// The listener, for whoever speaks with it by ioctl(2).
    pub fn into_fd(self) -> OwnedFd {
        self.listener
    }

    /// Readable when a call waits, or nobody is left who could call; for an event loop.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The next call that waits for an answer. `None` when `timeout` is over first (`None`: never), and when nobody is left
    /// who could call ([`Notifier::is_over`]).
    ///
    /// Errors: [`Error::Sys`] at [`Step::Notify`].
    pub fn receive(&self, timeout: Option<Duration>) -> Result<Option<Call>> {
        self.receive_interruptible(timeout, &mut || false)
    }

    /// The same; `interrupted` is asked whenever a signal arrives, and ends it with [`Error::Interrupted`].
    pub fn receive_interruptible(
        &self,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Call>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            let state = self.poll(slice)?;
            if state.contains(PollFlags::IN) {
                let _one = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
                // Another thread may have taken it meanwhile.
                if self.poll(Duration::ZERO)?.contains(PollFlags::IN) {
                    match sys::receive(self.fd()) {
                        Ok(notification) => return Ok(Some(Call::of(notification))),
                        // Whoever called was killed.
                        Err(Errno::ENOENT | Errno::EINTR) => {}
                        Err(errno) => return Err(errno).at(Step::Notify, "ioctl", "SECCOMP_IOCTL_NOTIF_RECV"),
                    }
                }
                continue;
            }
            if state.intersects(PollFlags::HUP | PollFlags::ERR) || left == Some(Duration::ZERO) {
                return Ok(None);
            }
            if interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }

    fn poll(&self, timeout: Duration) -> Result<PollFlags> {
        let time = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
        match poll(&mut fds, Some(&time)) {
            Err(rustix::io::Errno::INTR) => Ok(PollFlags::empty()),
            other => other.at(Step::Notify, "poll", "").map(|_| fds[0].revents()),
        }
    }

    /// True when nobody is left who could call.
    pub fn is_over(&self) -> bool {
        self.poll(Duration::ZERO).is_ok_and(|state| state.intersects(PollFlags::HUP | PollFlags::ERR))
    }

    /// The call returns this, without having been run.
    ///
    /// Errors: [`Error::State`] if nobody waits for it any more: it was answered, or a signal came.
    pub fn answer(&self, call: &Call, value: i64) -> Result<()> {
        self.respond(sys::Response { id: call.id, value, ..sys::Response::default() })
    }

    /// The call fails with this errno, without having been run.
    ///
    /// Errors: as for [`Notifier::answer`]; [`Error::Spec`] for what is no errno.
    pub fn refuse(&self, call: &Call, errno: i32) -> Result<()> {
        if !(1..=4095).contains(&errno) {
            return Err(Error::spec("errno", format!("{errno} is not within 1 to 4095")));
        }
        self.respond(sys::Response { id: call.id, error: -errno, ..sys::Response::default() })
    }

    /// The kernel runs the call. What its arguments point to may be another thing by then: this is for calls that are
    /// allowed whatever that is.
    ///
    /// Errors: as for [`Notifier::answer`].
    pub fn proceed(&self, call: &Call) -> Result<()> {
        self.respond(sys::Response { id: call.id, flags: sys::CONTINUE, ..sys::Response::default() })
    }

    fn respond(&self, response: sys::Response) -> Result<()> {
        match sys::respond(self.fd(), &response) {
            Ok(()) => Ok(()),
            Err(Errno::ENOENT | Errno::EINPROGRESS) => Err(gone()),
            Err(errno) => Err(errno).at(Step::Notify, "ioctl", "SECCOMP_IOCTL_NOTIF_SEND"),
        }
    }

    /// True while the call waits for its answer.
    pub fn is_waiting(&self, call: &Call) -> bool {
        sys::is_waiting(self.fd(), call.id).is_ok()
    }

    /// Gives whoever called a copy of a descriptor, under a number that is free there, or under `target` in place of what
    /// that was. Returns the number. The call goes on waiting.
    ///
    /// Errors: [`Error::State`] as for [`Notifier::answer`]; [`Error::Sys`] at [`Step::Notify`].
    pub fn add_fd(&self, call: &Call, fd: BorrowedFd<'_>, target: Option<u32>, close_on_exec: bool) -> Result<i32> {
        self.add(call, fd, target, close_on_exec, 0)
    }

    /// The same, and the call returns the number, in one step: nothing is left there if it does not wait any more.
    ///
    /// Errors: as for [`Notifier::add_fd`]; `EINVAL` before Linux 5.14.
    pub fn answer_fd(&self, call: &Call, fd: BorrowedFd<'_>, close_on_exec: bool) -> Result<i32> {
        self.add(call, fd, None, close_on_exec, sys::SEND)
    }

    fn add(&self, call: &Call, fd: BorrowedFd<'_>, target: Option<u32>, on_exec: bool, flags: u32) -> Result<i32> {
        let add = sys::AddFd {
            id: call.id,
            flags: flags | if target.is_some() { sys::SETFD } else { 0 },
            source: fd.as_raw_fd() as u32,
            target: target.unwrap_or(0),
            target_flags: if on_exec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        match sys::add_fd(self.fd(), &add) {
            Err(Errno::ENOENT | Errno::EINPROGRESS) => Err(gone()),
            other => other.at(Step::Notify, "ioctl", "SECCOMP_IOCTL_NOTIF_ADDFD"),
        }
    }

    /// Reads memory of whoever called, and makes sure that it was theirs. Returns how many bytes there were; it may be
    /// another thing a moment later.
    ///
    /// Errors: [`Error::State`] as for [`Notifier::answer`]; [`Error::Sys`] at [`Step::Notify`]: `EFAULT` where nothing is
    /// mapped, `EPERM` where the caller may not trace it.
    pub fn read_memory(&self, call: &Call, address: u64, buffer: &mut [u8]) -> Result<usize> {
        let read = sys::read_memory(call.pid, address, buffer);
        // The number may be another one's by now, unless it still waits.
        if !self.is_waiting(call) {
            buffer.fill(0);
            return Err(gone());
        }
        read.at(Step::Notify, "process_vm_readv", call.pid.to_string())
    }

    /// A text that ends with a NUL, without it, of at most `most` bytes.
    ///
    /// Errors: as for [`Notifier::read_memory`]; `ENAMETOOLONG` without an end within `most`.
    pub fn read_text(&self, call: &Call, address: u64, most: usize) -> Result<Vec<u8>> {
        const PAGE: u64 = 4096;
        let mut text = Vec::new();
        while text.len() <= most {
            let at = address.wrapping_add(text.len() as u64);
            // Not beyond the page: the next one may not be there.
            let mut piece = vec![0; (PAGE - at % PAGE).min(256) as usize];
            let read = self.read_memory(call, at, &mut piece)?;
            piece.truncate(read);
            if let Some(end) = piece.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(&piece[..end]);
                if text.len() <= most {
                    return Ok(text);
                }
                break;
            }
            if read == 0 {
                break;
            }
            text.extend(piece);
        }
        Err(Error::sys(Step::Notify, "process_vm_readv", call.pid.to_string(), Errno::ENAMETOOLONG))
    }

    /// Writes into the memory of whoever called, who waited before. Should a signal end the wait in that very moment, it is
    /// written all the same; a process that ended and whose number another one has got by then is the one danger, which
    /// takes tens of thousands of new processes in between.
    ///
    /// Errors: as for [`Notifier::read_memory`].
    pub fn write_memory(&self, call: &Call, address: u64, bytes: &[u8]) -> Result<usize> {
        if !self.is_waiting(call) {
            return Err(gone());
        }
        sys::write_memory(call.pid, address, bytes).at(Step::Notify, "process_vm_writev", call.pid.to_string())
    }
}

/// How long a wait goes on without asking whether it should.
const SLICE: Duration = Duration::from_millis(200);

fn gone() -> Error {
    Error::State("nobody waits for the answer any more: the call was answered, or a signal ended it".to_owned())
}
