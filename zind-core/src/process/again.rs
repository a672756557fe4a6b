//! Launchers of programs in a running container that have done their work and wait for the next one, for a moment.
//!
//! To start a launcher takes longer than what it does then. So one that has seen its program to its end goes back to the
//! container's handle, and the next program is given to it. Each serves one program at a time, so that none waits for another.
//!
//! A launcher has what its caller had when it was made: ids, capabilities, limits. Whoever asks next must have the same
//! ([`Likeness`]), and no launcher grows older than [`MOST_AGE`], whatever else a caller may have changed of itself.
#![forbid(unsafe_code)]

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{ResGid, ResUid, getresgid, getresuid};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use rustix::process::{Gid, getgroups, getpriority_process};
use rustix::thread::{CapabilitySets, CpuSet, capabilities, no_new_privs, sched_getaffinity, secure_computing_mode};
use zind_init::plan::{AGAIN_MOST, AGAIN_NUMBERS};

use super::launch::wait_readable;
use super::settled::Settled;
use crate::error::{At, Result, Step};
use crate::spec::Spec;
use crate::sys::clone::Waiter;
use crate::sys::probe;

/// Since it was started.
const MOST_AGE: Duration = Duration::from_secs(2);
/// Of one container that wait.
const MOST_WAITING: usize = 2;

/// The launchers that wait for the next program in one container. The default is none.
#[derive(Default)]
pub(crate) struct Launchers(Mutex<Vec<Launcher>>);

/// One that waits.
struct Launcher {
    waiter: Waiter,
    hold: Hold,
}

/// What makes a launcher wait when its program has ended.
pub(crate) struct Hold {
    /// Where it is told of the next program; when it is closed the launcher ends after the one it has.
    control: OwnedFd,
    /// The same for a program that is let in as the last one was, for which it may have made a joiner ready.
    ready: OwnedFd,
    /// How the last one was, if that can be.
    settled: Option<Settled>,
    began: Instant,
    likeness: Likeness,
    home: Weak<Launchers>,
}

/// What a program gets of its caller, and what its launcher was made for.
#[derive(PartialEq)]
struct Likeness {
    /// A forked child is not its parent.
    process: u32,
    container: i32,
    bounding: u64,
    users: ResUid,
    main_groups: ResGid,
    groups: Vec<Gid>,
    capabilities: CapabilitySets,
    /// Soft and hard ones, by their numbers.
    limits: Vec<(u64, u64)>,
    nice: i32,
    scheduling: (i32, i32),
    processors: CpuSet,
}

/// `RLIM_NLIMITS`
const LIMITS: u32 = 16;

impl Likeness {
    /// `None` for a caller that is confined: by what, nobody can ask.
    fn now(container: i32, bounding: u64) -> Option<Likeness> {
        let is_confined = !matches!(secure_computing_mode(), Ok(rustix::thread::SecureComputingMode::Disabled))
            || no_new_privs().unwrap_or(true);
        if is_confined {
            return None;
        }
        Some(Likeness {
            process: std::process::id(),
            container,
            bounding,
            users: getresuid().ok()?,
            main_groups: getresgid().ok()?,
            groups: getgroups().ok()?,
            capabilities: capabilities(None).ok()?,
            limits: (0..LIMITS).map(probe::limit).collect::<Option<_>>()?,
            nice: getpriority_process(None).ok()?,
            scheduling: probe::scheduling()?,
            processors: sched_getaffinity(None).ok()?,
        })
    }
}

/// A request for which a launcher may be used that has run another program, and that may be used again.
pub(super) struct Wish {
    likeness: Likeness,
    home: Arc<Launchers>,
}

impl Wish {
    /// `None` for a program with something of its own in the launcher itself.
    pub(super) fn of(spec: &Spec, home: &Arc<Launchers>, container: i32, bounding: Option<u64>) -> Option<Wish> {
        let is_plain = spec.die_with_owner && !spec.is_low_level() && spec.umask.is_some();
        if !is_plain || spec.oom_score_adj.is_some() {
            return None;
        }
        let likeness = Likeness::now(container, bounding.unwrap_or(u64::MAX))?;
        Some(Wish { likeness, home: Arc::clone(home) })
    }

    /// One that waits, if there is one. Those that will not do any more are ended.
    pub(super) fn take(&self) -> Option<(Waiter, Hold)> {
        let mut waiting = self.home.lock();
        let mut unfit = Vec::new();
        let mut found = None;
        while found.is_none() {
            let Some(launcher) = waiting.pop() else { break };
            let is_fit = launcher.hold.likeness == self.likeness && launcher.hold.is_young();
            if is_fit && !launcher.waiter.has_ended() { found = Some(launcher) } else { unfit.push(launcher) }
        }
        drop(waiting);
        unfit.into_iter().for_each(Launcher::end);
        found.map(|launcher| (launcher.waiter, launcher.hold))
    }

    /// For a launcher that is about to be started: our ends, and its own.
    pub(super) fn hold(self, settled: Option<Settled>) -> Result<(Hold, [OwnedFd; 2])> {
        let pair = || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (control, their_control) = pair().at(Step::Socket, "socketpair", "")?;
        let (ready, their_ready) = pair().at(Step::Socket, "socketpair", "")?;
        let (likeness, home) = (self.likeness, Arc::downgrade(&self.home));
        let hold = Hold { control, ready, settled, began: Instant::now(), likeness, home };
        Ok((hold, [their_control, their_ready]))
    }
}

impl Hold {
    fn is_young(&self) -> bool {
        self.began.elapsed() < MOST_AGE
    }

    /// Sends a plan and its descriptors: `keep`, in ascending order. False if this launcher cannot take it, because it has ended
    /// or there are too many: nothing has happened then.
    pub(super) fn send(&mut self, plan: RawFd, keep: &[RawFd], settled: Option<Settled>) -> bool {
        let mut all: Vec<RawFd> = keep.iter().copied().chain([plan]).collect();
        all.sort_unstable();
        if all.len() > AGAIN_MOST || all.last().is_none_or(|last| *last >= AGAIN_NUMBERS) {
            return false;
        }
        let text: Vec<u8> = [plan].iter().chain(&all).flat_map(|number| number.to_ne_bytes()).collect();
        let rights = [ControlMessage::ScmRights(&all)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let is_alike = settled.is_some() && settled == self.settled;
        let socket = if is_alike { &self.ready } else { &self.control };
        self.settled = settled;
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&text)], &rights, flags, None) == Ok(text.len())
    }

    /// Its program has ended: it waits for the next one, or ends.
    pub(super) fn release(self, waiter: Waiter) {
        let home = self.home.upgrade().filter(|_| self.is_young());
        let launcher = Launcher { waiter, hold: self };
        if let Some(home) = home {
            let mut waiting = home.lock();
            if waiting.len() < MOST_WAITING {
                return waiting.push(launcher);
            }
        }
        launcher.end();
    }

    /// The same for one that has ended, or can take no more.
    pub(super) fn give_up(self, waiter: Waiter) {
        Launcher { waiter, hold: self }.end();
    }
}

impl Launcher {
    fn end(self) {
        let Launcher { mut waiter, hold } = self;
        let is_ours = hold.likeness.process == std::process::id();
        if is_ours {
            // A child that was forked from us meanwhile may have the other copy of our end.
            let _ = shutdown(&hold.control, Shutdown::Both);
        }
        drop(hold);
        if is_ours {
            // It has nothing more to do; a bounded wait keeps a debugger's stop from stopping us.
            let _ = wait_readable(waiter.pidfd(), Some(Duration::from_secs(1)), &mut || false);
            waiter.try_reap();
        }
    }
}

impl Launchers {
    fn lock(&self) -> MutexGuard<'_, Vec<Launcher>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends those that wait: the container has ended.
    pub(crate) fn end(&self) {
        let waiting = std::mem::take(&mut *self.lock());
        waiting.into_iter().for_each(Launcher::end);
    }
}

impl Drop for Launchers {
    fn drop(&mut self) {
        self.end();
    }
}
