//! Starting the launcher, answering it, and turning its report into a [`Process`] or an [`Error`].
#![forbid(unsafe_code)]

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType, recvmsg,
    send, socketpair, sockopt,
};
use zind_init::measured::{Part, READING, READING_SIZE};
use zind_init::monitor::RestartWhen;
use zind_init::report::{GO, REPORT_SIZE, Report, Usage};

use super::again::{Hold, Wish};
use super::filter::{self, Listening};
use super::handle::{Parts, Process};
use super::measured::{self, Reading};
use super::plan::{self, Inside, Kept, Names, Prepared};
use super::watched::{self, Above, Facts, Keep};
use super::{hooks, outside, planfile, volumes};
use crate::cgroup;
use crate::copy::Root;
use crate::error::{At, Error, Result, Step};
use crate::image::apply;
use crate::namespace::idmap::IdMap;
use crate::namespace::{idmap, pin};
use crate::proc::Proc;
use crate::rootfs::fuse::{self, Fuse, Launcher};
use crate::rootfs::layers::Lock;
use crate::rootfs::ops::{Op, Ops};
use crate::rootfs::stand_in::{self, StandIn};
use crate::security::seccomp::{Notifier, Watch};
use crate::spec::{Spec, check};
use crate::store::ImageHold;
use crate::sys;
use crate::sys::clone::{self, Start, StartFailure, Waiter};
use nix::libc;

/// Checks a request, starts it, and waits until the payload's program runs.
pub(crate) fn spawn(spec: Spec) -> Result<Process> {
    Starting::begin(spec, &mut || false)?.finish(&mut || false)
}

/// A start that is under way: for callers who have something else to do meanwhile.
pub(crate) struct Starting {
    prepared: Prepared,
    waiter: Option<Above>,
    socket: OwnedFd,
    deadline: Option<Instant>,
    began: Instant,
    /// What the kernel said about a file system it refused.
    log: String,
    /// What the launcher found instead of what it expected.
    reading: Option<Reading>,
    /// What was asked for, where it can be had without an overlay.
    again: Option<Box<Spec>>,
    /// The hold of the root's image, for that.
    image_hold: Option<OwnedFd>,
    /// The directory whose content the launcher waits for.
    to_fill: Option<PathBuf>,
    /// What stands in for the overlay, if that is a program's: it is started, or will be when the launcher asks for it.
    fuse: Option<Box<Fuse>>,
    /// The listener of the payload's filter, and who is about to become the payload.
    listener: Option<(OwnedFd, i32)>,
    /// Where the listener of a further program's filter comes from: that one has no report socket.
    handover: Option<OwnedFd>,
    /// Answers for the caller.
    watch: Option<Watch>,
    /// Of a launcher that waits for another program when this one has ended.
    hold: Option<Hold>,
    ended: bool,
}

impl Starting {
    /// Does all that needs no answer from the launcher. `interrupted` is asked while a fresh volume is filled.
    pub(crate) fn begin(mut spec: Spec, interrupted: &mut dyn FnMut() -> bool) -> Result<Starting> {
        let image = apply::settle(&mut spec, interrupted)?;
        check::check(&spec)?;
        clone::reap_orphans();
        cgroup::reap_abandoned();
        let stand_in = stand_in::kept(&spec, plan::may_make_file_systems)?;
        let again = (stand_in.is_none() && stand_in::is_allowed(&spec)).then(|| Box::new(spec.clone()));
        let mut holds = volumes::take(&mut spec, stand_in.as_ref(), interrupted)?;
        let image = image.map(ImageHold::into_fd);
        let image_hold = image.as_ref().map(OwnedFd::try_clone).transpose().at(Step::OpenRoot, "dup", "")?;
        holds.extend(image);
        let began = Instant::now();
        let deadline = spec.timeout.map(|timeout| began + timeout);
        let mut prepared = plan::prepare_with(spec, clone::have_clone3(), stand_in.as_ref(), Kept::default())?;
        prepared.hold(holds);
        let mut starting = Starting::start(prepared, deadline, began, interrupted)?;
        starting.again = again;
        starting.image_hold = image_hold;
        starting.stand_by(stand_in);
        Ok(starting)
    }

    /// The same below a monitor. What needs this process for as long as the container lives is not used.
    pub(super) fn begin_watched(
        mut spec: Spec,
        keep: Keep,
        waits: bool,
        began: Instant,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Starting> {
        let image = apply::settle(&mut spec, interrupted)?;
        check::check(&spec)?;
        clone::reap_orphans();
        cgroup::reap_abandoned();
        let mut holds = volumes::take(&mut spec, None, interrupted)?;
        holds.extend(image.map(ImageHold::into_fd));
        let kept = Kept { is_reusable: keep.restart != RestartWhen::Never, is_hooked: waits };
        filter::check_watched(&spec, kept.is_reusable)?;
        spec.hooks = keep.told.hooks.clone();
        let mut prepared = plan::prepare_with(spec, clone::have_clone3(), None, kept)?;
        prepared.hold(holds);
        prepared.tell_hooks(&keep.told.states);
        if waits {
            prepared.wait_when_ready();
        }
        Starting::start_below(prepared, Some(keep), None, began, interrupted)
    }

    /// What is to be remembered of it.
    pub(super) fn facts(&self) -> Facts {
        Facts {
            group: self.prepared.group.as_ref().map(|group| group.store()),
            is_init: self.prepared.is_init,
            isolation: self.prepared.isolation.clone(),
            overlay: self.prepared.overlay.clone(),
            spec: self.prepared.spec.clone(),
        }
    }

    /// Our end of the payload's terminal.
    pub(super) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.prepared.streams.terminal.as_ref().map(|fd| fd.as_fd())
    }

    /// The same, once.
    pub(super) fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.prepared.streams.terminal.take()
    }

    pub(super) fn link(&mut self) -> Option<&mut watched::Link> {
        match &mut self.waiter {
            Some(Above::Monitor(link)) => Some(link),
            _ => None,
        }
    }

    /// It is somebody else's.
    pub(super) fn let_go(mut self) {
        self.ended = true;
        self.waiter = None;
        self.prepared.group = None;
        // The launcher has a copy of the descriptor: ours is closed, and the lock stays.
        drop(self.prepared.layers.take().and_then(Lock::into_fd));
    }

    /// Begins again without an overlay of the kernel's, if it was the root's that it refused; and with a copy, if nothing
    /// came of a program's overlay.
    fn begin_without_overlay(
        &mut self,
        report: &Report,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Starting>> {
        let is_refused = report.step == Step::Mount as u16
            && stand_in::is_refusal(Errno::from_raw(report.value))
            && self.prepared.names.is_overlay_of_root(usize::from(report.index));
        let has_failed = report.step == Step::Fuse as u16
            || self.fuse.is_some() && fuse::is_disconnection(Errno::from_raw(report.value));
        let Some(mut spec) = self.again.take_if(|_| is_refused || has_failed) else { return Ok(None) };
        let may_mount = plan::may_make_file_systems()?;
        let fuse = if has_failed { None } else { stand_in::make_fuse(&spec, may_mount) };
        let again = fuse.is_some().then(|| spec.clone());
        if let Some(fuse) = self.fuse.take() {
            fuse.give_up();
        }
        let copy = |stop: &mut dyn FnMut() -> bool| stand_in::make(&spec, may_mount, stop);
        let stand_in = if fuse.is_some() { fuse } else { self.in_time(interrupted, copy)? };
        let Some(stand_in) = stand_in else { return Ok(None) };
        let mut holds = volumes::take(&mut spec, None, interrupted)?;
        let image_hold = self.image_hold.take();
        holds.extend(image_hold.as_ref().map(OwnedFd::try_clone).transpose().at(Step::OpenRoot, "dup", "")?);
        let mut prepared = plan::prepare_with(*spec, clone::have_clone3(), Some(&stand_in), Kept::default())?;
        prepared.hold(holds);
        let mut starting = Starting::start(prepared, self.deadline, self.began, interrupted)?;
        starting.again = again;
        starting.image_hold = image_hold;
        starting.stand_by(Some(stand_in));
        Ok(Some(starting))
    }

    /// What the launcher is going to ask for.
    fn stand_by(&mut self, stand_in: Option<StandIn>) {
        match stand_in {
            Some(StandIn::Staged(rootfs)) => self.to_fill = Some(rootfs),
            Some(StandIn::Fuse(mut fuse)) => {
                // The launcher has its copy, and who serves it must be told of the end.
                fuse.tree = None;
                self.fuse = Some(fuse);
            }
            _ => {}
        }
    }

    /// Begins to start a program in a running container, by a launcher that waits there if one is wished for.
    pub(super) fn begin_exec(
        mut prepared: Prepared,
        wish: Option<Wish>,
        timeout: Option<Duration>,
    ) -> Result<Starting> {
        let began = Instant::now();
        let deadline = timeout.map(|timeout| began + timeout);
        let is_simple =
            !prepared.needs_answer() && prepared.listening.is_none() && prepared.attach.is_none() && !prepared.forked;
        let Some(wish) = wish.filter(|_| is_simple) else {
            return Starting::start(prepared, deadline, began, &mut || false);
        };
        let settled = prepared.settled.take();
        let Some((waiter, mut hold)) = wish.take() else {
            let (hold, theirs) = wish.hold(settled)?;
            prepared.wait_again(Some(theirs));
            let mut starting = Starting::start(prepared, deadline, began, &mut || false)?;
            starting.hold = Some(hold);
            return Ok(starting);
        };
        let (ours, theirs) = pair()?;
        prepared.wait_again(None);
        let (mut bytes, keep) = prepared.encode(theirs.as_fd());
        let plan = memory_file("zind-plan", &bytes)?;
        let (waiter, hold) = if hold.send(plan.as_raw_fd(), &keep, settled) {
            (waiter, Some(hold))
        } else {
            hold.give_up(waiter);
            planfile::for_once(&mut bytes);
            let plan = memory_file("zind-plan", &bytes)?;
            let waiter = start_launcher(&prepared, image()?.as_fd(), plan.as_fd(), keep, None, false);
            (waiter.map_err(|error| explain_clone(error, false))?, None)
        };
        drop((theirs, plan));
        let mut starting = Starting::of(prepared, Some(Above::Waiter(waiter)), ours, deadline, began);
        starting.prepared.streams.close_ours();
        starting.hold = hold;
        Ok(starting)
    }

    fn of(
        mut prepared: Prepared,
        waiter: Option<Above>,
        socket: OwnedFd,
        deadline: Option<Instant>,
        began: Instant,
    ) -> Starting {
        let handover = prepared.handover.take();
        Starting {
            prepared,
            waiter,
            socket,
            deadline,
            began,
            log: String::new(),
            reading: None,
            again: None,
            image_hold: None,
            to_fill: None,
            fuse: None,
            listener: None,
            handover,
            watch: None,
            hold: None,
            ended: false,
        }
    }

    /// The end of that. `hindered` says why it cannot go on; it is asked several times a second.
    pub(super) fn finish_exec(
        self,
        hindered: &dyn Fn() -> Option<Error>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Process> {
        let mut hindrance = None;
        let result = self.finish(&mut || {
            hindrance = hindered();
            hindrance.is_some() || interrupted()
        });
        match (result, hindrance) {
            (Err(Error::Interrupted), Some(hindrance)) => Err(hindrance),
            // What it failed of may be that the container has ended meanwhile.
            (Err(error @ Error::Sys { .. }), None) => Err(hindered().unwrap_or(error)),
            (result, _) => result,
        }
    }

    fn start(
        prepared: Prepared,
        deadline: Option<Instant>,
        began: Instant,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Starting> {
        Starting::start_below(prepared, None, deadline, began, interrupted)
    }

    /// The same below a monitor, if there is to be one.
    fn start_below(
        mut prepared: Prepared,
        keep_alive: Option<Keep>,
        deadline: Option<Instant>,
        began: Instant,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Starting> {
        let (ours, theirs) = pair()?;
        if prepared.needs_answer() || prepared.forks_first || prepared.listening.is_some() || prepared.is_measured() {
            // The pid of whoever is ready, in our own numbers: unix(7).
            sockopt::set_socket_passcred(&ours, true).at(Step::Socket, "setsockopt", "")?;
        }
        let slot = keep_alive.is_some().then(|| prepared.take_owner()).transpose()?;
        let (bytes, keep) = prepared.encode(theirs.as_fd());
        let plan = memory_file("zind-plan", &bytes)?;
        let image = image()?;
        let attach = prepared.attach.take();
        let is_crossing = attach.as_ref().is_some_and(|attach| attach.crossing.is_some());
        let is_to_settle = is_crossing || prepared.group.as_ref().is_some_and(|group| group.is_to_settle());
        let waiter = match (keep_alive, slot) {
            (Some(alive), Some(slot)) => {
                let start = watched::Below {
                    report: ours.as_fd(),
                    report_slot: theirs.as_fd(),
                    owner_slot: slot,
                    image: image.as_fd(),
                    plan: plan.as_fd(),
                    keep,
                    attach: attach.as_ref().filter(|_| !is_to_settle),
                };
                Some(Above::Monitor(watched::start(&mut prepared, alive, start)?))
            }
            _ => {
                let waiter =
                    start_launcher(&prepared, image.as_fd(), plan.as_fd(), keep, attach.as_ref(), is_to_settle);
                Some(Above::Waiter(waiter.map_err(|error| explain_clone(error, prepared.group.is_some()))?))
            }
        };
        let mut starting = Starting::of(prepared, waiter, ours, deadline, began);
        // The waiter got copies as it was cloned; ours must go, for a reader to see the last writer leave.
        drop((theirs, plan));
        starting.prepared.streams.close_ours();
        if let Some(attach) = attach.filter(|_| is_to_settle) {
            starting.settle(attach, interrupted)?;
        }
        Ok(starting)
    }

    /// Has systemd make a scope around the launcher, or move it into one; it waits for the word that it is in there.
    fn settle(&mut self, attach: plan::Attach, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let done = attach.done;
        let (deadline, began) = (self.deadline, self.began);
        let is_late = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let pid = loop {
            let Some(waiter) = &self.waiter else { return Ok(()) };
            if let Some(pid) = waiter.launcher_pid() {
                break pid;
            }
            if waiter.has_ended() {
                return Err(self.died_early());
            }
            let _ = wait_readable(waiter.pidfd(), Some(Duration::from_millis(1)), &mut || false);
        };
        let mut stop = || interrupted() || is_late();
        let settled = match (&attach.crossing, self.prepared.group.as_mut().and_then(Arc::get_mut)) {
            (Some(crossing), _) => crossing.take(pid as u32, &mut stop),
            (None, Some(group)) => group.settle(&[pid as u32], &mut stop),
            (None, None) => return Err(self.died_early()),
        };
        if let Err(error) = settled {
            if matches!(error, Error::Interrupted) {
                return Err(if is_late() { Error::Timeout(began.elapsed()) } else { error });
            }
            // It may have failed because the launcher is gone.
            return Err(if self.waiter.as_ref().is_some_and(Above::has_ended) { self.died_early() } else { error });
        }
        if let Some(group) = self.prepared.group.as_ref().filter(|_| attach.crossing.is_none()) {
            self.prepared.isolation.cgroup = group.paths();
            self.prepared.isolation.cgroup_refused = group.why_nowhere();
        }
        rustix::io::write(&done, &[0; 8]).at(Step::JoinCgroup, "write", "").map(drop)
    }

    /// Becomes readable when [`Starting::finish`] will not block for long.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Answers the launcher until the payload runs. `interrupted` is asked whenever a signal arrives.
    pub(crate) fn finish(self, interrupted: &mut dyn FnMut() -> bool) -> Result<Process> {
        let (starting, first) = self.finish_start(&mut |_| Ok(()), interrupted)?;
        starting.process(first)
    }

    /// The same; `ready` is called when the namespaces are there, with the pid of who is in them, if that is waited for.
    pub(super) fn finish_start(
        mut self,
        ready: &mut dyn FnMut(i32) -> Result<()>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(Starting, First)> {
        loop {
            let Some(message) = self.next_message(interrupted)? else { return Err(self.died_early()) };
            match Step::from_number(message.report.step) {
                Some(Step::Ready) => self.answer(message.pid, ready)?,
                Some(Step::LookAtMe) => self.measure(message.pid)?,
                Some(Step::HandedOver) => self.hand_back(message.fd, message.pid, interrupted)?,
                Some(Step::HandedTerminal) => self.prepared.streams.terminal = message.fd,
                Some(Step::HandedListener) => self.take_listener(message.fd, message.pid, interrupted)?,
                Some(Step::Started) => {
                    if let Some(network) = &mut self.prepared.network {
                        network.let_go();
                    }
                    if message.report.index != 0 {
                        self.prepared.isolation.root_change = "chroot";
                    }
                    let Some(pidfd) = message.fd else { return Err(self.died_early()) };
                    let payload = message.report.value;
                    // With a PID 1 of ours, the launcher is the container's first process; its payload's number is the
                    // inner one.
                    let launcher = self.waiter.as_ref().and_then(Above::launcher_pid);
                    let first = if self.prepared.forks_first { message.pid } else { launcher };
                    let pid = first.filter(|_| self.prepared.is_init).unwrap_or(payload);
                    return Ok((self, First { pid, pidfd }));
                }
                Some(step) if message.report.is_milestone() => {
                    debug_assert!(matches!(step, Step::ReachedExec | Step::Exited | Step::Signaled), "{step:?}");
                }
                _ => {
                    let error = self.failure(&message.report);
                    match self.begin_without_overlay(&message.report, interrupted)? {
                        Some(starting) => self = starting,
                        None => return Err(error),
                    }
                }
            }
        }
    }

    /// Fills the directory that the launcher has handed over, or serves the file system behind the descriptor.
    fn hand_back(
        &mut self,
        fd: Option<OwnedFd>,
        pid: Option<i32>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let pid = pid.or_else(|| self.waiter.as_ref().and_then(Above::launcher_pid));
        let only_ids = self.prepared.maps.as_ref().and_then(|maps| idmap::only(&maps.uid).zip(idmap::only(&maps.gid)));
        let launcher = pid.map(|pid| Launcher { pid, only_ids });
        match (fd, self.to_fill.take(), &mut self.fuse) {
            (Some(dir), Some(rootfs), _) => {
                self.in_time(interrupted, |stop| stand_in::fill(&rootfs, dir.as_fd(), stop))?;
            }
            // If it does not start, nobody is left at the other end, and the launcher says what does not work then.
            (Some(device), None, Some(fuse)) => drop(fuse.serve(device, launcher)),
            _ => return Err(self.died_early()),
        }
        send(&self.socket, &[GO], SendFlags::NOSIGNAL).at(Step::Report, "send", "").map(drop)
    }

    /// Does something long, which asks whether it is to stop.
    fn in_time<T>(
        &self,
        interrupted: &mut dyn FnMut() -> bool,
        work: impl FnOnce(&mut dyn FnMut() -> bool) -> Result<T>,
    ) -> Result<T> {
        let is_late = || self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        match work(&mut || interrupted() || is_late()) {
            Err(Error::Interrupted) if is_late() => Err(Error::Timeout(self.began.elapsed())),
            result => result,
        }
    }

    fn next_message(&mut self, interrupted: &mut dyn FnMut() -> bool) -> Result<Option<Message>> {
        loop {
            let timeout = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if timeout == Some(Duration::ZERO) {
                return Err(Error::Timeout(self.began.elapsed()));
            }
            let is_told = match (&self.listener, &self.handover) {
                (Some((listener, pid)), _) => self.wait_beside(listener.as_fd(), *pid, timeout, interrupted)?,
                (None, Some(_)) => self.wait_for_handover(timeout, interrupted)?,
                (None, None) => wait_readable(self.socket.as_fd(), timeout, interrupted)?,
            };
            if !is_told {
                continue;
            }
            match receive(self.socket.as_fd())? {
                Received::Report(message) => return Ok(Some(message)),
                Received::Log(text) => self.log = text,
                Received::Reading(reading) => self.reading = Some(reading),
                Received::End => return Ok(None),
            }
        }
    }

    /// The filter is in force: its listener goes to whom it is for.
    fn take_listener(
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
    fn wait_for_handover(&mut self, timeout: Option<Duration>, interrupted: &mut dyn FnMut() -> bool) -> Result<bool> {
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
    fn wait_beside(
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

    /// The namespaces exist: id maps and pins, then the word to go on.
    fn answer(&mut self, pid: Option<i32>, ready: &mut dyn FnMut(i32) -> Result<()>) -> Result<()> {
        let pid = pid.ok_or_else(|| Error::sys(Step::Report, "recvmsg", "", Errno::EPROTO))?;
        if let Some(maps) = &self.prepared.maps {
            idmap::write(pid, maps)?;
        }
        pin::pin(pid, &self.prepared.pins)?;
        ready(pid)?;
        match send(&self.socket, &[GO], SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(self.died_early()),
            result => result.at(Step::Report, "send", "").map(drop),
        }
    }

    /// Looks at the payload as it stands before its filter, and lets it go on if it is as the report says.
    fn measure(&mut self, pid: Option<i32>) -> Result<()> {
        let pid = pid.ok_or_else(protocol)?;
        outside::check(pid, &mut self.prepared.isolation)?;
        send(&self.socket, &[GO], SendFlags::NOSIGNAL).at(Step::Report, "send", "").map(drop)
    }

    fn process(mut self, First { pid, pidfd }: First) -> Result<Process> {
        let socket = self.socket.try_clone().at(Step::Report, "dup", "")?;
        let Some(Above::Waiter(waiter)) = self.waiter.take() else { return Err(self.died_early()) };
        self.ended = true;
        Process::new(Parts {
            waiter,
            socket,
            pid,
            pidfd,
            network: self.prepared.network.take(),
            layers: self.prepared.layers.take().and_then(Lock::into_fd),
            group: self.prepared.group.take(),
            is_init: self.prepared.is_init,
            server: self.fuse.take().and_then(|mut fuse| fuse.take_server()),
            streams: std::mem::take(&mut self.prepared.streams),
            isolation: std::mem::take(&mut self.prepared.isolation),
            origin: self.prepared.origin.take(),
            spec: self.prepared.spec.take(),
            is_guest: self.prepared.is_guest(),
            notifier: self.listener.take().map(|(listener, _)| Notifier::from_fd(listener)),
            watch: self.watch.take(),
            hold: self.hold.take(),
            overlay: self.prepared.overlay.take(),
            began: self.began,
            deadline: self.deadline,
        })
    }

    /// Turns the numbers of a report into an error with names.
    fn failure(&mut self, report: &Report) -> Error {
        let Some(step) = Step::from_number(report.step) else {
            return Error::sys(Step::Report, "", "", Errno::EPROTO);
        };
        let errno = Errno::from_raw(report.value);
        let index = usize::from(report.index);
        if step == Step::Hook {
            self.wait_for_end();
            return hooks::reported(&self.prepared.names.hooks, index, report.value, &self.log);
        }
        if step == Step::ReadBack
            && let Some(part) = Part::from_number(report.index)
        {
            self.wait_for_end();
            return measured::differs(part, self.reading.take());
        }
        if step == Step::ReadMount {
            self.wait_for_end();
            let place = self.prepared.names.place(index);
            let path = if place.is_absolute() { place } else { Path::new("/proc").join(place) };
            return measured::mount_differs(path, self.reading.take());
        }
        let error = Error::sys(step, self.prepared.names.syscall(step), self.prepared.names.object(step, index), errno);
        let mut hint = self.prepared.names.hint(step, errno);
        if self.prepared.names.is_overlay_of_root(index) && stand_in::is_refusal(errno) {
            hint = "the root cannot be the lower directory of an overlay here, or overlay= not the upper one (another overlay, a network file system): read_only=True and overlay=False need none".to_owned();
        }
        if let Some(name) = self.prepared.names.asked_for(step, index) {
            hint = format!("it is {name}{}{hint}", if hint.is_empty() { "" } else { "; " });
        }
        if let Some(source) = self.prepared.names.source(step, index) {
            hint = format!("{source} was to come there{}{hint}", if hint.is_empty() { "" } else { "; " });
        }
        if step == Step::JoinCgroup {
            hint = join_hint(errno).to_owned();
        }
        if !self.log.is_empty() {
            hint = format!("the kernel says: {}{}{hint}", self.log, if hint.is_empty() { "" } else { "; " });
        }
        self.wait_for_end();
        error.with_hint(hint)
    }

    /// The launcher is gone without a word.
    fn died_early(&mut self) -> Error {
        let was_asked = matches!(&self.waiter, Some(Above::Monitor(link)) if link.was_asked_to_end());
        self.wait_for_end();
        if was_asked {
            return Error::State("the container was killed while it was being started".to_owned());
        }
        let memory_ran_out = self.prepared.group.as_ref().is_some_and(|group| group.memory_was_short());
        let too_little = "memory ran out before the program ran: the limit in resources= is too low to start anything";
        match self.waiter.as_ref().and_then(Above::failure) {
            Some(StartFailure::Clone(errno)) => {
                explain_clone(Error::sys(Step::Clone, "clone3", "", errno), self.prepared.group.is_some())
            }
            Some(StartFailure::Exec(errno)) => {
                let error = Error::sys(Step::Launcher, "execveat", "", errno);
                if errno == Errno::ENOMEM && self.prepared.group.is_some() {
                    error.with_hint(too_little)
                } else {
                    error
                }
            }
            None if memory_ran_out => Error::sys(Step::Report, "", "zind-init", Errno::ENOMEM).with_hint(too_little),
            None => Error::sys(Step::Report, "", "zind-init", Errno::ECHILD)
                .with_hint("the launcher ended before the program ran: somebody killed it, memory ran out, or a filter around this process hides one of the calls that it begins with"),
        }
    }

    /// What was started goes away with its socket; this waits until it has.
    fn wait_for_end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if self.prepared.is_guest() {
            // For who watches over a program already, and waits for no other one.
            let _ = send(&self.socket, &[libc::SIGKILL as u8], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            self.hold = None;
        }
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let waiter = match &mut self.waiter {
            Some(Above::Waiter(waiter)) => waiter,
            Some(Above::Monitor(link)) => return link.give_up(),
            None => return,
        };
        if self.prepared.is_guest() {
            // It reaps the program then. Killed, it would leave that to whoever adopts orphans, and the container could not end
            // where that one never reaps.
            let _ = wait_readable(waiter.pidfd(), Some(Duration::from_secs(1)), &mut || false);
        }
        // The launcher may not be there yet; then it will be in a moment, unless its waiter ends first.
        while waiter.try_reap().is_none() {
            // Its number stays its own until the waiter reaps it, which ends the waiter too.
            let pidfd = waiter.launcher_pid().map(crate::sys::descriptors::pidfd_open);
            if let Some(Ok(pidfd)) = pidfd {
                if !waiter.has_ended() {
                    let _ = crate::sys::descriptors::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
                }
                break;
            }
            let _ = wait_readable(waiter.pidfd(), Some(Duration::from_millis(1)), &mut || false);
        }
        let _ = wait_readable(waiter.pidfd(), Some(Duration::from_secs(10)), &mut || false);
        waiter.try_reap();
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.wait_for_end();
        if let Some(fuse) = self.fuse.take() {
            fuse.give_up();
        }
        if let Some(group) = self.prepared.group.take() {
            let _ = group.delete();
        }
    }
}

/// A call waits at a listener.
fn has_question(listener: BorrowedFd<'_>) -> bool {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(&listener, PollFlags::IN)];
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::IN)
}

/// The launcher below a waiter.
fn start_launcher(
    prepared: &Prepared,
    image: BorrowedFd<'_>,
    plan: BorrowedFd<'_>,
    keep: Vec<i32>,
    attach: Option<&plan::Attach>,
    is_to_settle: bool,
) -> Result<Waiter> {
    let start = Start {
        image,
        plan,
        keep,
        flags: prepared.clone_flags,
        cgroup: prepared.cgroup.as_ref().map(|fd| fd.as_fd()),
        groups: attach.iter().flat_map(|attach| &attach.files).map(AsRawFd::as_raw_fd).collect(),
        // In a scope of systemd's it is we who tell: `settle`.
        groups_done: attach.filter(|_| !is_to_settle).map(|attach| attach.done.as_fd()),
        dirs: prepared.group.as_ref().map(|group| group.leavings()).unwrap_or_default(),
    };
    if prepared.forked { clone::start_by_fork(start) } else { clone::start(start) }.at(Step::Clone, "clone3", "")
}

/// The report socket: our end, and the launcher's.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).at(Step::Socket, "socketpair", "")
}

/// Makes a mount namespace by `ops`; `take` gets hold of it by the pid of who is in it.
pub(crate) fn make_mount_namespace<T>(ops: &Ops, take: impl FnOnce(i32) -> Result<T>) -> Result<T> {
    let prepared = plan::prepare_mount_namespace(ops);
    let mut starting = Starting::start(prepared, None, Instant::now(), &mut || false)?;
    let Some(message) = starting.next_message(&mut || false)? else { return Err(starting.died_early()) };
    match (Step::from_number(message.report.step), starting.waiter.as_ref().and_then(Above::launcher_pid)) {
        (Some(Step::Ready), Some(pid)) => {
            let result = take(pid);
            send(&starting.socket, &[GO], SendFlags::NOSIGNAL).at(Step::Report, "send", "")?;
            result
        }
        _ => Err(starting.failure(&message.report)),
    }
}

/// Makes the root of a container as it is without the caller's mounts, and lets `look` look at it.
pub(crate) fn look_at_root<T>(
    spec: &Spec,
    interrupted: &mut dyn FnMut() -> bool,
    look: impl FnOnce(&Root, &mut dyn FnMut() -> bool) -> Result<T>,
) -> Result<T> {
    let prepared = plan::prepare_look(spec, clone::have_clone3())?;
    let mut starting = Starting::start(prepared, None, Instant::now(), &mut || false)?;
    let mut is_waiting = starting.prepared.needs_answer();
    let pid = loop {
        let Some(message) = starting.next_message(interrupted)? else { return Err(starting.died_early()) };
        match Step::from_number(message.report.step) {
            Some(Step::Ready) if is_waiting => starting.answer(message.pid, &mut |_| Ok(()))?,
            Some(Step::Ready) => break message.pid.or(starting.waiter.as_ref().and_then(Above::launcher_pid)),
            _ => return Err(starting.failure(&message.report)),
        }
        is_waiting = false;
    };
    let path = PathBuf::from(format!("/proc/{}/root", pid.unwrap_or_default()));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(&path, flags, Mode::empty()).at(Step::OpenRoot, "open", &path)?;
    look(&Root::of(dir, path), interrupted)
}

/// Carries out operations on the file system inside a running container.
pub(crate) fn carry_out_inside(inside: Inside, ops: Ops) -> Result<()> {
    let mut starting = Starting::start(plan::prepare_inside(inside, ops)?, None, Instant::now(), &mut || false)?;
    let Some(message) = starting.next_message(&mut || false)? else { return Err(starting.died_early()) };
    match Step::from_number(message.report.step) {
        Some(Step::Ready) => Ok(()),
        _ => Err(starting.failure(&message.report)),
    }
}

/// A user namespace with these maps and nobody in it, for the ids of a mount.
pub(crate) fn make_user_namespace(uid: &[IdMap], gid: &[IdMap]) -> Result<OwnedFd> {
    let maps = idmap::ReadyMaps::of_root(uid.to_vec(), gid.to_vec());
    let mut starting = Starting::start(plan::prepare_user_namespace(maps), None, Instant::now(), &mut || false)?;
    let Some(message) = starting.next_message(&mut || false)? else { return Err(starting.died_early()) };
    let (Some(Step::Ready), Some(pid)) = (Step::from_number(message.report.step), message.pid) else {
        return Err(starting.failure(&message.report));
    };
    if let Some(maps) = &starting.prepared.maps {
        idmap::write(pid, maps)?;
    }
    let path = format!("/proc/{pid}/ns/user");
    std::fs::File::open(&path).map(OwnedFd::from).at(Step::OpenNamespace, "open", path)
}

/// A launcher that serves in a user namespace with these maps, behind its socket; see [`super::deputy`]. Dropping it ends it.
pub(crate) fn start_deputy(maps: idmap::ReadyMaps) -> Result<Starting> {
    let mut starting = Starting::start(plan::prepare_deputy(maps), None, Instant::now(), &mut || false)?;
    let mut is_mapped = false;
    loop {
        let Some(message) = starting.next_message(&mut || false)? else { return Err(starting.died_early()) };
        match Step::from_number(message.report.step) {
            Some(Step::Ready) if !is_mapped => starting.answer(message.pid, &mut |_| Ok(()))?,
            Some(Step::Ready) => return Ok(starting),
            _ => return Err(starting.failure(&message.report)),
        }
        is_mapped = true;
    }
}

impl Prepared {
    fn needs_answer(&self) -> bool {
        self.maps.is_some() || !self.pins.is_empty() || self.waits
    }
}

/// The first process of a container that runs.
pub(super) struct First {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
}

/// One report and what came with it.
pub(crate) struct Message {
    pub(crate) report: Report,
    fd: Option<OwnedFd>,
    pid: Option<i32>,
}

pub(crate) enum Received {
    Report(Message),
    Log(String),
    Reading(Reading),
    End,
}

/// The next message of a launcher; `EAGAIN` where there is none is an error here.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<Received> {
    let mut bytes = [0u8; 512];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let length = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
            // It is gone, and has not read all that we have sent. The error comes once; what it has said is there still.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
            other => break other.at(Step::Report, "recvmsg", "")?.bytes,
        }
    };
    let (mut fd, mut pid) = (None, None);
    for message in ancillary.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fd = fds.next(),
            RecvAncillaryMessage::ScmCredentials(credentials) => pid = Some(credentials.pid.as_raw_nonzero().get()),
            _ => {}
        }
    }
    match bytes.get(..length).unwrap_or_default() {
        [] => Ok(Received::End),
        [b'#', text @ ..] => Ok(Received::Log(String::from_utf8_lossy(text).trim().to_owned())),
        [READING, ..] if length == READING_SIZE => {
            Reading::decode(bytes.get(..length).unwrap_or_default()).map(Received::Reading).ok_or_else(protocol)
        }
        report if report.len() == REPORT_SIZE => Ok(Received::Report(Message { report: decode(report), fd, pid })),
        _ => Err(protocol()),
    }
}

fn protocol() -> Error {
    Error::sys(Step::Report, "recvmsg", "", Errno::EPROTO)
}

fn decode(bytes: &[u8]) -> Report {
    let take = |at: usize, len: usize| bytes.get(at..at + len).unwrap_or_default();
    let word = |at| u64::from_ne_bytes(take(at, 8).try_into().unwrap_or_default());
    let short = |at| u16::from_ne_bytes(take(at, 2).try_into().unwrap_or_default());
    Report {
        step: short(0),
        index: short(2),
        value: i32::from_ne_bytes(take(4, 4).try_into().unwrap_or_default()),
        usage: Usage { user_us: word(8), system_us: word(16), max_rss: word(24) },
    }
}

/// Waits until `fd` can be read; false when the time is over. A signal lets `interrupted` decide.
pub(crate) fn wait_readable(
    fd: BorrowedFd<'_>,
    timeout: Option<Duration>,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<bool> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up by the kernel's clock, and cut into slices, for a signal that comes between question and sleep.
        let slice = left.map_or(SLICE, |left| left.min(SLICE));
        let timespec =
            rustix::event::Timespec { tv_sec: slice.as_secs() as i64, tv_nsec: i64::from(slice.subsec_nanos()) };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timespec)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {
                if interrupted() {
                    return Err(Error::Interrupted);
                }
                if left == Some(Duration::ZERO) {
                    return Ok(false);
                }
            }
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno).at(Step::Wait, "poll", ""),
        }
    }
}

/// How long a wait goes on without asking whether it should.
pub(crate) const SLICE: Duration = Duration::from_millis(200);

pub(super) fn memory_file(name: &str, bytes: &[u8]) -> Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).at(Step::Memfd, "memfd_create", name)?;
    write_all(&fd, bytes).at(Step::Memfd, "write", name)?;
    Ok(fd)
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(fd, bytes))?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// The launcher's image, made once in this process.
static IMAGE: Mutex<Option<std::sync::Arc<OwnedFd>>> = Mutex::new(None);

fn image() -> Result<std::sync::Arc<OwnedFd>> {
    let mut slot = IMAGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(image) = slot.as_ref() {
        return Ok(image.clone());
    }
    let image = std::sync::Arc::new(sealed_image().or_else(|error| image_file().map_err(|_| error))?);
    *slot = Some(image.clone());
    Ok(image)
}

/// A memory file that nobody, the payload least of all, can change (CVE-2019-5736).
fn sealed_image() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC, from Linux 6.3 on, says that it is meant to be executed; older kernels do not know it.
    let fd = rustix::fs::memfd_create("zind-init", flags | MemfdFlags::EXEC)
        .or_else(|_| {
            if memfds_may_execute() {
                rustix::fs::memfd_create("zind-init", flags)
            } else {
                Err(rustix::io::Errno::ACCESS)
            }
        })
        .at(Step::Memfd, "memfd_create", "zind-init")?;
    write_all(&fd, zind_init::IMAGE).at(Step::Memfd, "write", "zind-init")?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals).at(Step::Memfd, "fcntl", "zind-init")?;
    Ok(fd)
}

fn memfds_may_execute() -> bool {
    std::fs::read_to_string("/proc/sys/vm/memfd_noexec").map_or(true, |value| value.trim() == "0")
}

/// Where memory files may not be executed (`vm.memfd_noexec=2`): a file without a name.
fn image_file() -> Result<OwnedFd> {
    let mut last = Error::sys(Step::Memfd, "open", "/tmp", Errno::ENOENT);
    for place in places() {
        match unnamed_executable(&place) {
            Ok(fd) => return Ok(fd),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn file_to_execute(place: &Path) -> Result<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(place, flags, Mode::from_raw_mode(0o700)).at(Step::Memfd, "open", place)?;
    let flags = rustix::fs::fstatvfs(&file).at(Step::Memfd, "fstatvfs", place)?.f_flag;
    if flags.contains(rustix::fs::StatVfsMountFlags::NOEXEC) {
        return Err(Error::sys(Step::Memfd, "open", place, Errno::EACCES).with_hint("it is mounted noexec"));
    }
    Ok(file)
}

/// Where the launcher could be executed from if not from memory: each place, and whether it can be there.
pub(crate) fn places_to_execute() -> Vec<(PathBuf, Result<()>)> {
    places().map(|place| (place.clone(), file_to_execute(&place).map(drop))).collect()
}

fn places() -> impl Iterator<Item = PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    runtime.into_iter().chain(["/run", "/dev/shm", "/tmp", "/var/tmp"].map(PathBuf::from))
}

fn unnamed_executable(place: &Path) -> Result<OwnedFd> {
    let file = file_to_execute(place)?;
    write_all(&file, zind_init::IMAGE).at(Step::Memfd, "write", place)?;
    // A file that is open for writing cannot be executed.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::Memfd, "open", place)
}

/// What to do about a group that takes nobody in.
fn join_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES | Errno::EPERM => {
            "this user may not move processes there: who moves one has to own it, and on v2 may write to cgroup.procs of the group above both"
        }
        Errno::ENOSPC => "the cpuset has no CPUs or memory nodes",
        Errno::EINVAL => "a process with a real-time policy needs cpu_rt_runtime_us in its group",
        Errno::EBUSY => "a group that hands controllers down takes no processes",
        Errno::EOPNOTSUPP => "the group is a threaded one, or below one",
        Errno::ESRCH | Errno::ECHILD => "the launcher, or who was to move it, ended meanwhile",
        _ => "",
    }
}

fn explain_clone(error: Error, has_group: bool) -> Error {
    let hint = match error.errno() {
        Some(errno @ (Errno::EACCES | Errno::EBUSY | Errno::EOPNOTSUPP)) if has_group => join_hint(errno),
        Some(Errno::EPERM) => {
            "the kernel or a security module does not let this user make namespaces; zind.doctor() tells which setting"
        }
        Some(Errno::ENOSPC | Errno::EUSERS) => {
            "a limit of namespaces is reached: /proc/sys/user/max_*_namespaces, or 32 levels of nesting"
        }
        Some(Errno::EAGAIN) => {
            "a limit of processes is reached: RLIMIT_NPROC, pids.max of the control group, or kernel.pid_max"
        }
        Some(Errno::EINVAL) => "this kernel lacks one of the namespaces that were asked for",
        _ => "",
    };
    error.with_hint(hint)
}

/// The call behind a step, where it is a single one.
fn syscall_of(step: Step) -> &'static str {
    match step {
        Step::Setns => "setns",
        Step::Unshare => "unshare",
        Step::CloseFds => "close_range",
        Step::Fork => "clone",
        Step::Wait => "wait4",
        Step::Signals => "rt_sigprocmask",
        Step::OldRoot => "statx",
        Step::Hostname => "sethostname",
        Step::Domainname => "setdomainname",
        Step::Mkdir => "mkdirat",
        Step::Symlink => "symlinkat",
        Step::Mknod => "mknodat",
        Step::Mount => "fsconfig",
        Step::Bind => "move_mount",
        Step::MountSetattr | Step::Propagation => "mount_setattr",
        Step::PivotRoot => "pivot_root",
        Step::Chroot => "chroot",
        Step::MountTarget | Step::Chdir => "openat2",
        Step::Setsid => "setsid",
        Step::Setpgid => "setpgid",
        Step::ControllingTerminal | Step::Foreground | Step::Loopback => "ioctl",
        Step::Terminal => "openat2",
        Step::ArrangeFds => "dup3",
        Step::JoinCgroup => "write",
        Step::Rlimit => "prlimit",
        Step::Nice => "setpriority",
        Step::Scheduler => "sched_setattr",
        Step::Keyring => "keyctl",
        Step::Personality => "personality",
        Step::Setgroups => "setgroups",
        Step::Setgid => "setresgid",
        Step::Setuid => "setresuid",
        Step::Capabilities => "capset",
        Step::BoundingSet | Step::Ambient | Step::NoNewPrivileges | Step::ParentDeath | Step::Securebits => "prctl",
        Step::Ptrace => "ptrace",
        Step::Seccomp => "seccomp",
        Step::Landlock => "landlock_restrict_self",
        Step::LandlockPath => "openat2",
        Step::LandlockRule | Step::LandlockPort => "landlock_add_rule",
        Step::Exec | Step::Interpreter => "execve",
        Step::LabelCheck => "pread64",
        Step::Label | Step::OomScoreAdj | Step::TimeOffsets | Step::WriteFile | Step::Sysctl => "write",
        _ => "",
    }
}

impl Names {
    fn is_overlay_of_root(&self, index: usize) -> bool {
        self.fs.get(index).is_some_and(Op::is_overlay_of_root)
    }

    fn syscall(&self, step: Step) -> &'static str {
        match step {
            Step::Mount | Step::Bind | Step::MountSetattr if self.older_mounts => "mount",
            _ => syscall_of(step),
        }
    }

    /// Which of the caller's mounts or devices it was.
    fn asked_for(&self, step: Step, index: usize) -> Option<String> {
        let op = self.fs.get(index).filter(|_| self.object(step, index) != Path::new(""))?;
        let mount = op.mount.map(|number| format!("mounts[{number}]"));
        mount.or_else(|| op.of_device.map(|number| format!("devices[{number}]")))
    }

    /// What a mount that failed was to be.
    fn source(&self, step: Step, index: usize) -> Option<String> {
        let is_mount = matches!(step, Step::Mount | Step::Bind | Step::MountTarget);
        self.fs.get(index).filter(|_| is_mount).map(Op::source_text).filter(|source| !source.is_empty())
    }

    fn object(&self, step: Step, index: usize) -> PathBuf {
        let list = |names: &[PathBuf]| names.get(index).cloned().unwrap_or_default();
        match step {
            Step::Setns | Step::Unshare => list(&self.enter),
            Step::Exec | Step::Interpreter if self.programs.len() > 1 => {
                // Looked for in several places: what the caller wrote says more than the last of them.
                self.programs[0].file_name().map(PathBuf::from).unwrap_or_default()
            }
            Step::Exec | Step::Interpreter => list(&self.programs),
            Step::JoinCgroup => list(&self.groups),
            Step::Sysctl => list(&self.sysctls),
            Step::LandlockPath | Step::LandlockRule => list(&self.landlock),
            Step::Label | Step::LabelCheck => list(&self.labels),
            Step::LandlockPort => self.ports.get(index).map(|port| port.to_string().into()).unwrap_or_default(),
            Step::Rlimit => self.rlimits.get(index).map(PathBuf::from).unwrap_or_default(),
            Step::Chdir => self.cwd.clone(),
            Step::Setuid | Step::Setgid => self.user.clone(),
            Step::ArrangeFds => self.fds.get(index).map(|fd| PathBuf::from(fd.to_string())).unwrap_or_default(),
            Step::BoundingSet | Step::Ambient => PathBuf::from(format!("capability {index}")),
            Step::Mkdir
            | Step::Symlink
            | Step::WriteFile
            | Step::Mknod
            | Step::Mount
            | Step::Bind
            | Step::MountSetattr
            | Step::OpenRoot
            | Step::PivotRoot
            | Step::OldRoot
            | Step::Chroot
            | Step::Mask
            | Step::ReadonlyPath
            | Step::Umount
            | Step::MountTarget
            | Step::Fuse
            | Step::Staging => self.place(index),
            Step::Terminal => PathBuf::from("/dev/pts/ptmx"),
            _ => PathBuf::new(),
        }
    }

    /// What an operation was about. What is put together in the staging area is told by where it was to come.
    fn place(&self, index: usize) -> PathBuf {
        let Some(op) = self.fs.get(index) else { return PathBuf::new() };
        let is_its_place = |other: &&Op| other.mount.is_some() && other.mount == op.mount && other.is_in_root();
        let place = self.fs.iter().skip(index).find(is_its_place).filter(|_| !op.is_in_root());
        place.unwrap_or(op).object()
    }

    fn hint(&self, step: Step, errno: Errno) -> String {
        let text = match (step, errno) {
            (Step::Exec, Errno::ENOENT) if self.programs.len() > 1 => {
                let places: Vec<_> = self
                    .programs
                    .iter()
                    .filter_map(|path| path.parent())
                    .map(|dir| dir.display().to_string())
                    .collect();
                return format!("the program is in none of {} of the container", places.join(":"));
            }
            (Step::Exec, Errno::ENOENT) => "there is no such program in the container",
            (Step::Exec, Errno::EACCES) if self.has_landlock => {
                "landlock has to let the program, its interpreter and its dynamic loader be read and executed (rox=/usr); or the file is not executable for this user"
            }
            (Step::Label, Errno::ENOENT) => "no such profile is loaded: apparmor_parser(8), aa-status(8)",
            (Step::Label, Errno::EINVAL) => "the policy that is loaded has no such label, or its name is none",
            (Step::Label, Errno::EACCES | Errno::EPERM) => "the caller's own label does not let it change to this one",
            (Step::Label, Errno::EXDEV) => "something is mounted over a part of /proc/self/attr here",
            (Step::LabelCheck, _) => "the kernel has taken another label than was asked for",
            (Step::Exec, Errno::EACCES | Errno::EPERM) if !self.labels.is_empty() => {
                "the file is not executable for this user, or the policy does not let the program change to the label"
            }
            (Step::Landlock, Errno::EPERM) => "without no_new_privileges this takes CAP_SYS_ADMIN",
            (Step::Landlock, Errno::E2BIG) => "the kernel takes no more than 16 domains one in another",
            (Step::LandlockPath, Errno::ENOENT | Errno::ENOTDIR) => {
                "a rule is for what is there when the container starts, at a path of its root"
            }
            (Step::LandlockPath, Errno::ELOOP) => "links like /proc/self/fd are not followed",
            (Step::LandlockRule, Errno::EINVAL) => {
                "a right for directories was asked for by its name (make_dir), and this is none; read and write fit both"
            }
            (Step::LandlockRule, Errno::EBADFD) => "files of the kernel's own, as pipes and sockets are, take no rules",
            (Step::Exec, Errno::EACCES) => "the file is not executable for this user, or lies on a mount with noexec",
            (Step::Exec, Errno::ENOEXEC) => "the file is neither a program for this machine nor does it begin with #!",
            (Step::Exec, Errno::E2BIG) => {
                "arguments and environment are too large: together a quarter of the stack limit, each at most 128 KiB"
            }
            (Step::Interpreter, _) => {
                "the program is there, but the interpreter of its first line, or its dynamic loader, is not"
            }
            (Step::Chdir, Errno::ENOENT) => "there is no such directory in the container; cwd is a path inside of it",
            (Step::Chdir, Errno::ELOOP) => "links like /proc/self/fd are not followed",
            (Step::Rlimit, Errno::EPERM) => {
                "the hard limit of the caller is lower, and raising it needs CAP_SYS_RESOURCE"
            }
            (Step::Rlimit, Errno::EINVAL) => "the soft limit is above the hard one",
            (Step::Sysctl, Errno::ENOENT) => "this kernel has no such parameter in a namespace",
            (Step::Sysctl, Errno::EACCES | Errno::EPERM) => {
                "the parameter cannot be changed in a namespace of this user's"
            }
            (Step::Sysctl, Errno::EINVAL | Errno::ERANGE) => "the kernel does not take this value",
            (Step::Sysctl, Errno::EXDEV | Errno::EROFS | Errno::ELOOP) => {
                "something is mounted over /proc/sys here, as in a container of Docker's"
            }
            (Step::OomScoreAdj, Errno::EACCES) => "lowering oom_score_adj needs CAP_SYS_RESOURCE",
            (Step::Nice, Errno::EACCES | Errno::EPERM) => {
                "a lower nice value needs CAP_SYS_NICE or a higher RLIMIT_NICE"
            }
            (Step::Scheduler, Errno::EPERM) => {
                "real-time policies need CAP_SYS_NICE or RLIMIT_RTPRIO, and cpu.rt_runtime_us on control groups v1"
            }
            (Step::Setuid | Step::Setgid, Errno::EINVAL) => "the id is not mapped in the user namespace",
            (Step::Setgroups, Errno::EPERM) => {
                "setgroups is denied in this user namespace: a single id is mapped; use uid_map=\"auto\""
            }
            (Step::Setns, Errno::EUSERS) => {
                "a time namespace takes CAP_SYS_ADMIN over the caller's own user namespace: run as root"
            }
            (Step::Terminal, Errno::ENOENT | Errno::ENODEV | Errno::ELOOP) => {
                "the container has no /dev/pts of its own any more; a terminal of the host's can be passed by its descriptors"
            }
            (Step::Terminal, Errno::ENOSPC) => "the limit of terminals is reached: kernel.pty.max",
            (Step::Setns, Errno::EPERM) => "joining needs CAP_SYS_ADMIN over that namespace and over the caller's own",
            (Step::Setns, Errno::EINVAL) => {
                "a process cannot join the user namespace it is in already, nor a pid namespace above its own"
            }
            (Step::Mount, Errno::EINVAL) if self.older_mounts => {
                "mount(2) does not say what it dislikes, as the newer interface would, which is hidden here; the kernel's log may"
            }
            (_, Errno::ENOTCONN | Errno::ECONNABORTED) => "fuse-overlayfs(1), which serves the root, has ended",
            (Step::Mount, Errno::ENODEV) => "this kernel has no such file system",
            (Step::Mount, Errno::ELOOP) => "the directories of an overlay must not lie in each other",
            (Step::Mount | Step::Bind, Errno::EPERM) => "this user may not mount that here",
            (Step::MountSetattr, Errno::EPERM) => {
                "a user namespace may protect what it got from outside but take no protection away, nor change how access times are kept: mount_namespaces(7)"
            }
            (Step::Bind, Errno::EINVAL) => {
                "of a directory with mounts in it an ordinary user takes all (recursive), since what they cover would come into sight; an unbindable mount is not taken at all"
            }
            (Step::Bind, Errno::ENOTDIR) => "a directory was to be mounted over a file",
            (Step::Bind, Errno::EISDIR) => "a file was to be mounted over a directory",
            (Step::MountTarget, Errno::ENOSYS | Errno::EPERM) => {
                "a filter around this process hides the call, and nothing else keeps a path inside of a root: let the outer container allow it"
            }
            (Step::MountTarget, Errno::EROFS) => {
                "the mount point is missing and the root is read-only; make it there, or use an overlay"
            }
            (Step::MountTarget, Errno::EEXIST) => "there is something else already, which is no empty file",
            (Step::Bind, Errno::ESTALE) => "what is at the path of the source was replaced meanwhile",
            (Step::MountTarget | Step::Mask | Step::ReadonlyPath, Errno::ELOOP) => {
                "a part of the path is a symbolic link, which a mount point must not be"
            }
            (Step::Mount | Step::Bind | Step::Umount | Step::PivotRoot, Errno::ENOSPC) => {
                "the limit of mounts is reached: fs.mount-max"
            }
            (Step::Ambient, Errno::EPERM) => "an ambient capability must be permitted and inheritable",
            (Step::Foreground, Errno::ENOTTY) => "the descriptor is no terminal, or not the controlling one",
            (Step::ControllingTerminal, _) => "the descriptor must be a terminal that no other session controls",
            (Step::Seccomp, Errno::EBUSY) => {
                "a filter with a listener is in force already: there is one listener at most"
            }
            (Step::Exec, Errno::EPERM | Errno::ENOSYS) if self.has_profile => {
                "the seccomp profile does not let execve pass, without which no program begins"
            }
            (Step::Seccomp, Errno::EACCES) => "a filter needs no_new_privileges or CAP_SYS_ADMIN",
            (Step::CloseFds, Errno::ENOSYS | Errno::EPERM) => {
                "a filter around this process hides the call, and no procfs on /proc tells what is open: let the outer container allow it, or mount /proc"
            }
            (Step::ArrangeFds, Errno::EBADF) => "the descriptor is not open in this process",
            _ => "",
        };
        text.to_owned()
    }
}
