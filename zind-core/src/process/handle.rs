//! [`Process`]: a running payload, and how it ended.
#![forbid(unsafe_code)]

mod exit;
mod resources;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::retry_on_intr;
use rustix::net::{SendFlags, send};

use super::again::{Hold, Launchers};
use super::command::Start;
use super::exec::{self, Exec, Groups, Target};
use super::identity::Caller;
use super::launch;
use super::plan::Inside;
use super::stdio::Streams;
use super::table::{self, ProcessInfo};
use super::watched::Facts;
use crate::cgroup::{self, Cgroup, Stats};
use crate::copy::{CopyOptions, CopyStats, Root};
use crate::error::{At, Error, Result, Step};
use crate::image::apply::Origin;
use crate::image::commit::{self, Changes};
use crate::image::{CommitOptions, Image, Progress};
use crate::isolation::Isolation;
use crate::mount::Mount;
use crate::namespace::idmap;
use crate::rootfs::fuse::Server;
use crate::rootfs::layers::{Ids, Marks};
use crate::rootfs::mount_label;
use crate::rootfs::ops::Ops;
use crate::rootfs::resolve::PLACE;
use crate::security::seccomp::{Notifier, Violations, Watch};
use crate::spec::{Kind, Size, Spec};
use crate::store::Owners;
use crate::sys::clone::{NetworkMaker, Waiter};
use crate::sys::descriptors::openat;
use crate::sys::descriptors::pidfd_send_signal;
use crate::sys::probe;
use crate::terminal::{Left, Raw, Relay};

pub use exit::{Exit, ExitKind};
pub use resources::StatsEvery;

/// A running payload.
///
/// Dropping it neither waits nor kills; the container ends with the caller's process at the latest, unless
/// `die_with_owner` is off. All methods may be called from any thread.
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    end: OwnedFd,
    socket: OwnedFd,
    stdin: Mutex<Option<OwnedFd>>,
    stdout: Mutex<Option<OwnedFd>>,
    stderr: Mutex<Option<OwnedFd>>,
    state: Mutex<State>,
    timed_out: AtomicBool,
    /// The caller killed it.
    was_killed: AtomicBool,
    terminal: Mutex<Option<OwnedFd>>,
    group: Option<Arc<Cgroup>>,
    is_init: bool,
    /// It runs in the container of another one.
    is_guest: bool,
    /// Others run in its container.
    had_guests: AtomicBool,
    /// What a further program in the container starts from.
    spec: Option<Arc<Spec>>,
    isolation: Isolation,
    origin: Option<Origin>,
    overlay: Option<PathBuf>,
    notifier: Mutex<Option<Notifier>>,
    watch: Option<Watch>,
    /// Of further programs in the container.
    launchers: Arc<Launchers>,
    began: Instant,
    deadline: Option<Instant>,
}

enum State {
    /// The second has done its work, and is reaped when the container has ended. The third is the lock of the root's
    /// layers; dropped without the end being known, it stays with the container.
    /// The last serves the root's file system, and ends with it.
    Running(
        Waiter,
        #[expect(dead_code, reason = "kept to be dropped")] Option<Box<NetworkMaker>>,
        Option<OwnedFd>,
        Option<Box<Server>>,
        /// Of a launcher that waits for another program then.
        Option<Box<Hold>>,
    ),
    Ended(Exit, Box<Stats>),
}

/// What a start hands over.
pub(crate) struct Parts {
    pub(crate) waiter: Waiter,
    /// Has done its work, and is reaped with the rest.
    pub(crate) network: Option<NetworkMaker>,
    /// The lock of the root's layers.
    pub(crate) layers: Option<OwnedFd>,
    /// The control group of its own.
    pub(crate) group: Option<Arc<Cgroup>>,
    /// `pid` is a PID 1 of zind's.
    pub(crate) is_init: bool,
    /// Serves the root's file system.
    pub(crate) server: Option<Server>,
    pub(crate) socket: OwnedFd,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) streams: Streams,
    pub(crate) isolation: Isolation,
    /// What a further program in the container starts from.
    pub(crate) spec: Option<Arc<Spec>>,
    /// It runs in the container of another one.
    pub(crate) is_guest: bool,
    /// The image it was started from.
    pub(crate) origin: Option<Origin>,
    /// A directory on disk that its changes go to.
    pub(crate) overlay: Option<PathBuf>,
    /// The listener of its filter, for the caller.
    pub(crate) notifier: Option<Notifier>,
    /// Answers for the caller.
    pub(crate) watch: Option<Watch>,
    /// Of a launcher that waits for another program when this one has ended.
    pub(crate) hold: Option<Hold>,
    pub(crate) began: Instant,
    pub(crate) deadline: Option<Instant>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Process {
    pub(crate) fn new(parts: Parts) -> Result<Process> {
        // A launcher that does not end has said that its program has, and says nothing else from here on.
        let end = if parts.hold.is_some() { parts.socket.as_fd() } else { parts.waiter.pidfd() };
        Ok(Process {
            pid: parts.pid,
            pidfd: parts.pidfd,
            end: end.try_clone_to_owned().at(Step::Wait, "dup", "")?,
            launchers: Arc::default(),
            socket: parts.socket,
            stdin: Mutex::new(parts.streams.stdin),
            stdout: Mutex::new(parts.streams.stdout),
            stderr: Mutex::new(parts.streams.stderr),
            terminal: Mutex::new(parts.streams.terminal),
            is_guest: parts.is_guest,
            had_guests: AtomicBool::new(false),
            spec: parts.spec,
            state: Mutex::new(State::Running(
                parts.waiter,
                parts.network.map(Box::new),
                parts.layers,
                parts.server.map(Box::new),
                parts.hold.map(Box::new),
            )),
            timed_out: AtomicBool::new(false),
            was_killed: AtomicBool::new(false),
            group: parts.group,
            is_init: parts.is_init,
            isolation: parts.isolation,
            origin: parts.origin,
            overlay: parts.overlay,
            notifier: Mutex::new(parts.notifier),
            watch: parts.watch,
            began: parts.began,
            deadline: parts.deadline,
        })
    }

    /// What is to be remembered of its start.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            group: self.group.as_ref().map(|group| group.store()),
            is_init: self.is_init,
            isolation: self.isolation.clone(),
            overlay: self.overlay.clone(),
            spec: self.spec.clone().filter(|_| !self.is_guest),
        }
    }

    /// The container's first process in the caller's pid namespace: zind's PID 1 with `init`, else the payload.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A pidfd of [`Process::pid`], for `setns(2)`, `pidfd_send_signal(2)` and the like.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Becomes readable when the container has ended, for an event loop; [`Process::try_wait`] then has the exit.
    pub fn end_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    /// What is in force.
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// The image it was started from.
    pub fn image(&self) -> Option<&Image> {
        self.origin.as_ref().map(|origin| &origin.image)
    }

    /// The signal that asks the payload to end: the image's, or SIGTERM.
    pub fn stop_signal(&self) -> i32 {
        self.origin.as_ref().map_or(libc::SIGTERM, |origin| origin.stop_signal)
    }

    /// Asks the payload to end, by the image's stop signal or SIGTERM, and ends the whole container when `patience` is over.
    pub fn stop(&self, patience: Duration, interrupted: &mut dyn FnMut() -> bool) -> Result<Exit> {
        self.signal(self.stop_signal())?;
        if let Some(exit) = self.wait_interruptible(Some(patience), interrupted)? {
            return Ok(exit);
        }
        self.kill()?;
        self.wait_interruptible(None, interrupted)?.ok_or(Error::Interrupted)
    }

    /// Makes an image of what the container changed: one layer over the image it was started from, whether it still runs or
    /// has ended. Its changes must go to a directory on disk ([`Overlay::Dir`](crate::Overlay::Dir)); those of layers
    /// are committed by [`Layers::commit`](crate::Layers::commit).
    ///
    /// A container that runs should be paused meanwhile, or what changes under the walk may be torn.
    /// Errors: [`Error::State`] without such a directory or without an image; else as of [`Layers::commit`](crate::Layers::commit).
    pub fn commit(&self, options: &CommitOptions, progress: &mut dyn Progress) -> Result<Image> {
        let state = |text: &str| Error::State(text.to_owned());
        let origin = self.origin.as_ref().ok_or_else(|| state("the container was not started from an image"))?;
        let overlay = self.overlay.as_ref().ok_or_else(|| {
            state("the container's changes are not in a directory of their own: start it with overlay=DIRECTORY, or on layers")
        })?;
        let upper = overlay.join("upper");
        if self.isolation.copy_on_write != "overlay" || !upper.is_dir() {
            return Err(state("the kernel made no overlay of the image, so its changes are not told apart from it"));
        }
        let user = self.isolation.namespaces.get(&Kind::User).is_some_and(|how| *how != "host");
        let is_root = rustix::process::geteuid().is_root();
        let ids = Ids { uid: self.isolation.uid_map.clone(), gid: self.isolation.gid_map.clone() };
        let owners = ids.owners();
        let store = origin.image.store();
        let _hold = store.hold(&origin.image, &owners, progress)?;
        let changes = Changes {
            stack: vec![upper],
            below: store.lowers(&origin.image, &owners, progress)?,
            marks: Some(if user || !is_root { Marks::User } else { Marks::Trusted }),
            ids,
            owners_in_xattr: owners == Owners::Xattr,
            volumes: Vec::new(),
        };
        commit::commit(store, Some(&origin.image), &changes, options, progress)
    }

    /// The inside of the container's root, with all its mounts, for copying files in and out while it runs.
    ///
    /// Errors: [`Error::State`] when the container has ended; [`Error::Sys`] at [`Step::OpenRoot`], `EACCES` where the
    /// caller may not trace the process.
    /// Source: `/proc/pid/root` in <https://man7.org/linux/man-pages/man5/proc_pid_root.5.html>
    pub fn root(&self) -> Result<Root> {
        root_of(self.pid, self.pidfd.as_fd())
    }

    /// [`Root::copy_in`] of [`Process::root`]: a file or a tree of the host's into the running container.
    pub fn copy_in(
        &self,
        source: impl AsRef<Path>,
        target: impl AsRef<Path>,
        options: &CopyOptions,
    ) -> Result<CopyStats> {
        self.root()?.copy_in(source, target, options)
    }

    /// [`Root::copy_out`] of [`Process::root`]: a file or a tree of the running container's to the host.
    pub fn copy_out(
        &self,
        source: impl AsRef<Path>,
        target: impl AsRef<Path>,
        options: &CopyOptions,
    ) -> Result<CopyStats> {
        self.root()?.copy_out(source, target, options)
    }

    /// Our end of the pipe to the payload's standard input, once.
    pub fn take_stdin(&self) -> Option<OwnedFd> {
        lock(&self.stdin).take()
    }

    /// Our end of the pipe from the payload's standard output, once.
    pub fn take_stdout(&self) -> Option<OwnedFd> {
        lock(&self.stdout).take()
    }

    /// Our end of the pipe from the payload's standard error, once.
    pub fn take_stderr(&self) -> Option<OwnedFd> {
        lock(&self.stderr).take()
    }

    /// Our end of the payload's terminal, once: what is written to it is typed, what the payload writes is read from it, and
    /// closing it hangs up. Reading fails with `EIO` when nobody has the terminal open any more.
    pub fn take_terminal(&self) -> Option<OwnedFd> {
        lock(&self.terminal).take()
    }

    /// Sets the size of the terminal's window, until [`Process::take_terminal`]; after that by
    /// [`terminal::resize`](crate::terminal::resize).
    ///
    /// Errors: [`Error::State`] without a terminal; [`Error::Sys`] at [`Step::Terminal`].
    pub fn resize(&self, size: Size) -> Result<()> {
        crate::terminal::check("terminal", Some(size))?;
        match &*lock(&self.terminal) {
            Some(terminal) => crate::terminal::resize(terminal, size),
            None => Err(Error::State(
                "the process was started without a terminal, or it was taken: who has it sets its size".to_owned(),
            )),
        }
    }

    /// Runs a further program in the container, under the container's rules as far as `exec` does not say otherwise: in all of
    /// its namespaces and control groups, with its user, environment, capabilities and filter.
    ///
    /// It is a process of its own: killed, it takes those it has started along, and leaves the container alone. With the
    /// container it ends. What it leaves running when it ends by itself stays in the container, as that of `docker exec` does.
    ///
    /// Errors: [`Error::State`] for a container that has ended or is paused, and for a process that is itself a guest of a
    /// container; else as at a start.
    pub fn exec(&self, exec: &Exec) -> Result<Process> {
        self.exec_interruptible(exec, &mut || false)
    }

    /// As [`Process::exec`]; `interrupted` is asked when a signal arrives. If it says so, nothing of the start is left.
    pub fn exec_interruptible(&self, exec: &Exec, interrupted: &mut dyn FnMut() -> bool) -> Result<Process> {
        exec::start(&self.target()?, exec, interrupted)
    }

    /// Begins [`Process::exec`], for an event loop: when [`Start::fd`] is readable, [`Start::finish`] does not block for long.
    pub fn begin_exec(&self, exec: &Exec) -> Result<Start> {
        exec::begin(&self.target()?, exec).map(Start)
    }

    /// Whoever decides about the calls for which its profile says `SCMP_ACT_NOTIFY`, once. `None` where it says so of none, or
    /// names an agent by `listenerPath`. Until it is taken such calls wait.
    pub fn take_notifier(&self) -> Option<Notifier> {
        lock(&self.notifier).take()
    }

    /// For who waits for its end and answers nothing: ends it if its filter has a listener that nobody has taken, instead of letting
    /// it wait for answers that nobody gives.
    ///
    /// Errors: [`Error::Unsupported`] then; it has ended.
    pub fn expect_no_questions(&self) -> Result<()> {
        if self.take_notifier().is_none() {
            return Ok(());
        }
        let _ = self.kill();
        let _ = self.wait(None);
        let needs =
            "SCMP_ACT_NOTIFY takes somebody who answers: notify= or its notifier, or a profile with listenerPath";
        Err(Error::unsupported("a seccomp listener", needs))
    }

    /// What the filter refuses by an errno, as it happens, from the start on.
    ///
    /// Errors: [`Error::State`] for a process that was started without `violations`.
    pub fn violations(&self) -> Result<Violations> {
        self.watch.as_ref().and_then(Watch::violations).ok_or_else(|| {
            Error::State("what the filter refuses is told of a process that was started with violations".to_owned())
        })
    }

    /// The smallest profile, in OCI's JSON, under which the calls pass that there were so far: after the end, all of them.
    /// Those that tell harmless from dangerous ones by an argument have it (`clone` without new namespaces, families of
    /// sockets, personalities); `clone3` is `ENOSYS`, as with the default filter.
    ///
    /// Errors: [`Error::State`] for a process that was started without [`Seccomp::Learn`](crate::Seccomp::Learn).
    pub fn learned(&self) -> Result<String> {
        self.watch.as_ref().and_then(Watch::learned).map(|profile| profile.to_string()).ok_or_else(|| {
            Error::State("a profile is learned of a process that was started with seccomp \"learn\"".to_owned())
        })
    }

    fn has_own_pids(&self) -> bool {
        self.isolation.namespaces.get(&Kind::Pid).is_some_and(|how| *how != "host")
    }

    /// What has to be known of the container for a further program.
    fn target(&self) -> Result<Target<'_>> {
        let spec = self.spec.as_ref().filter(|_| !self.is_guest).ok_or_else(|| {
            Error::State("this is a program in a container already: start others from the container".to_owned())
        })?;
        if self.try_wait()?.is_some() {
            return Err(exec::ended());
        }
        self.had_guests.store(true, Ordering::Release);
        let groups = self.group.as_deref().map_or(Groups::None, Groups::Of);
        let launchers = &self.launchers;
        Ok(Target { pid: self.pid, pidfd: self.pidfd(), spec, isolation: &self.isolation, groups, launchers })
    }

    /// Connects the payload's terminal, which is taken, to the caller's until the payload has ended: `input` in raw mode if it
    /// is a terminal, the size of the caller's window on the payload's. The time limit of the request is kept.
    ///
    /// No signal is taken: who wants that, or detach keys, uses a [`Relay`](crate::terminal::Relay) itself.
    /// Errors: [`Error::State`] without a terminal; [`Error::Interrupted`]; else as of a relay.
    pub fn interact(
        &self,
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Left> {
        let terminal = self.take_terminal();
        let terminal =
            terminal.ok_or_else(|| Error::State("the process has no terminal, or it was taken".to_owned()))?;
        let _raw = Raw::enter(input)?;
        let mut relay = Relay::new(Some(input), output, terminal.as_fd()).ended(self.end_fd());
        let mut failed = None;
        let left = relay.run(&mut || {
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) && failed.is_none() {
                failed = self.expire().err();
            }
            failed.is_some() || interrupted()
        })?;
        match (left, failed) {
            (Left::Interrupted, failed) => Err(failed.unwrap_or(Error::Interrupted)),
            (left, _) => Ok(left),
        }
    }

    /// When the time of the request is over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Everything that runs in the container, zind's PID 1 included, as `ps` would list it; ended, there is nothing.
    ///
    /// Errors: [`Error::Sys`] at [`Step::ReadCgroup`].
    pub fn processes(&self) -> Result<Vec<ProcessInfo>> {
        if self.try_wait()?.is_some() {
            return Ok(Vec::new());
        }
        let pids = match &self.group {
            Some(group) => group.processes()?,
            None if self.had_guests.load(Ordering::Acquire) && self.has_own_pids() => table::in_namespace_of(self.pid),
            None => table::descendants(self.pid),
        };
        Ok(pids.into_iter().filter_map(ProcessInfo::of).collect())
    }

    /// Ends the whole container at once. Nothing happens if it has ended.
    pub fn kill(&self) -> Result<()> {
        if self.is_guest {
            return exec::kill(self.pid, self.pidfd());
        }
        if let Some(group) = &self.group {
            self.was_killed.store(true, Ordering::SeqCst);
            if !self.is_init {
                return group.kill();
            }
            group.thaw_for_killing();
        }
        let sent = pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        // Somebody may have frozen it between the two.
        self.group.iter().for_each(|group| group.thaw_for_killing());
        match sent {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::sys(Step::Kill, "pidfd_send_signal", self.pid.to_string(), errno)),
        }
    }

    /// Sends a signal to the payload; SIGKILL ends the whole container. Nothing happens if it has ended.
    /// Errors: [`Error::Spec`] for a number that is no signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        match signal {
            libc::SIGKILL => self.kill(),
            // What stands above the payload sends it on, so that no pid has to be trusted.
            1..=64 => match retry_on_intr(|| send(&self.socket, &[signal as u8], SendFlags::NOSIGNAL)) {
                Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
                Err(errno) => Err(errno).at(Step::Kill, "send", signal.to_string()),
            },
            _ => Err(Error::spec("signal", format!("{signal} is not within 1 to 64"))),
        }
    }

    /// Mounts something in the running container. Its target is found, and made, below the container's root, whatever the
    /// payload does to the path meanwhile. A bind takes a source that the caller can reach.
    /// Errors: [`Error::Sys`] as at a start; [`Error::State`] if the container has ended; [`Error::Spec`] for what is put
    /// together before a start only (overlays, files from bytes, `tmpcopyup`). Called by an ordinary user, a bind that is
    /// not recursive of a directory with mounts in it is `EINVAL` at [`Step::Bind`], as it is at a start, and one that maps
    /// ids is [`Error::Unsupported`].
    pub fn mount(&self, mount: &Mount) -> Result<()> {
        let inside = self.inside()?;
        let ops = ops_of_mount(mount, self.isolation.mount_label.as_deref(), inside.has_users)?;
        launch::carry_out_inside(inside, ops)
    }

    /// Takes away what is mounted at `target` in the running container, and what is mounted below it; what is in use goes on
    /// until its last user ends. Errors: [`Error::Sys`] with `EINVAL` where nothing is mounted.
    pub fn umount(&self, target: impl AsRef<Path>) -> Result<()> {
        launch::carry_out_inside(self.inside()?, crate::rootfs::plan::hot_umount(target.as_ref())?)
    }

    /// Where operations in the running container are carried out.
    fn inside(&self) -> Result<Inside> {
        if self.try_wait()?.is_some() {
            return Err(Error::State("the container has ended".to_owned()));
        }
        let has_users = self.isolation.namespaces.get(&Kind::User).is_some_and(|how| *how != "host");
        // What is made on the way has to belong to somebody the user namespace knows.
        let has_root = self.isolation.uid_map.is_empty() || idmap::to_host(&self.isolation.uid_map, 0).is_some();
        let ids = if has_root { Some((0, 0)) } else { self.isolation.user };
        let process = self.pidfd.try_clone().at(Step::OpenNamespace, "dup", "")?;
        Ok(Inside { process, has_users, ids: ids.filter(|_| has_users) })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let (Some(group), State::Running(..)) = (self.group.take(), &*lock(&self.state)) {
            cgroup::abandon(group);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The root of a process, as [`Process::root`] has it.
pub(crate) fn root_of(pid: i32, pidfd: BorrowedFd<'_>) -> Result<Root> {
    let path = format!("/proc/{pid}/root");
    let opened = openat(CWD, &path, PLACE | OFlags::DIRECTORY, Mode::empty());
    // The number may belong to another process by now, but not if ours is still there after the open.
    let ended = pidfd_send_signal(pidfd, 0) == Err(Errno::ESRCH);
    if ended || matches!(opened, Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH)) {
        return Err(Error::State("the container has ended, and its root with it".to_owned()));
    }
    let dir = opened.at(Step::OpenRoot, "openat", &path);
    let dir = dir.map_err(|error| error.with_hint("whoever may trace the process may open its root: ptrace(2)"))?;
    Ok(Root::of(dir, PathBuf::new()))
}

/// The operations that mount something in a running container, with its label if it has one.
pub(crate) fn ops_of_mount(mount: &Mount, label: Option<&str>, has_users: bool) -> Result<Ops> {
    mount.check(0)?;
    if probe::newer_mounts_are_hidden() {
        return Err(Error::unsupported(
            "a mount in a running container",
            "the mount interface of Linux 5.2 and 5.12, which a filter around this process hides",
        ));
    }
    let caller = Caller::now()?;
    let mut ops = crate::rootfs::plan::hot_mount(mount, caller.admin)?;
    if let Some(label) = label {
        mount_label::put(&mut ops.list, label, has_users || !caller.initial_user_namespace)?;
    }
    Ok(ops)
}
