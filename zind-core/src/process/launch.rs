//! Starting the launcher, answering it, and turning its report into a [`Process`] or an [`Error`].
#![forbid(unsafe_code)]

mod errors;
mod image;
mod listener;
mod messages;
mod wait;
mod without_program;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::net::{SendFlags, send, sockopt};
use zind_init::monitor::RestartWhen;
use zind_init::report::{GO, Report};

use super::again::{Hold, Wish};
use super::filter;
use super::handle::{Parts, Process};
use super::measured::Reading;
use super::plan::{self, Kept, Prepared};
use super::watched::{self, Above, Facts, Keep};
use super::{outside, planfile, volumes};
use crate::cgroup;
use crate::error::{At, Error, Result, Step};
use crate::image::apply;
use crate::namespace::{idmap, pin};
use crate::rootfs::fuse::{self, Fuse, Launcher};
use crate::rootfs::layers::Lock;
use crate::rootfs::stand_in::{self, StandIn};
use crate::security::seccomp::{Notifier, Watch};
use crate::spec::{Spec, check};
use crate::store::ImageHold;
use crate::sys::clone::{self, Start, Waiter};
use nix::libc;

use errors::explain_clone;
use image::image;
pub(super) use image::memory_file;
pub(crate) use image::places_to_execute;
pub(super) use messages::pair;
use messages::protocol;
pub(crate) use messages::{Message, Received, receive};
pub(crate) use wait::{SLICE, wait_readable};
pub(crate) use without_program::{
    carry_out_inside, look_at_root, make_mount_namespace, make_user_namespace, start_deputy,
};

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
        let deadline = spec.timeout.and_then(|timeout| began.checked_add(timeout));
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
        let deadline = timeout.and_then(|timeout| began.checked_add(timeout));
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
            (Err(error @ Error::Sys { .. }), None) => {
                Err(hindered().unwrap_or_else(|| super::exec::unless_ending(error)))
            }
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
        go(&self.socket).at(Step::Report, "send", "")
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

    /// The namespaces exist: id maps and pins, then the word to go on.
    fn answer(&mut self, pid: Option<i32>, ready: &mut dyn FnMut(i32) -> Result<()>) -> Result<()> {
        let pid = pid.ok_or_else(|| Error::sys(Step::Report, "recvmsg", "", Errno::EPROTO))?;
        if let Some(maps) = &self.prepared.maps {
            idmap::write(pid, maps)?;
        }
        pin::pin(pid, &self.prepared.pins)?;
        ready(pid)?;
        match go(&self.socket) {
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(self.died_early()),
            result => result.at(Step::Report, "send", ""),
        }
    }

    /// Looks at the payload as it stands before its filter, and lets it go on if it is as the report says.
    fn measure(&mut self, pid: Option<i32>) -> Result<()> {
        let pid = pid.ok_or_else(protocol)?;
        outside::check(pid, &mut self.prepared.isolation)?;
        go(&self.socket).at(Step::Report, "send", "")
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

    /// What was started goes away with its socket; this waits until it has.
    fn wait_for_end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if self.prepared.is_guest() {
            // For who watches over a program already, and waits for no other one.
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let _ = rustix::io::retry_on_intr(|| send(&self.socket, &[libc::SIGKILL as u8], flags));
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
        is_by_older: prepared.is_by_older_clone,
    };
    let started = if prepared.forked { clone::start_by_fork(start) } else { clone::start(start) };
    started.at(Step::Clone, prepared.clone_call(), "")
}

/// Lets a launcher that waits go on. A signal in between is nothing to it.
fn go(socket: &OwnedFd) -> std::result::Result<(), rustix::io::Errno> {
    rustix::io::retry_on_intr(|| send(socket, &[GO], SendFlags::NOSIGNAL)).map(drop)
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
