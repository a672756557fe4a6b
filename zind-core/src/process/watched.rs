//! A start below a monitor: who starts it can go, and the container goes on.
//!
//! The library does what it does at each start; only who clones the launcher is not a waiter with the library's memory, but
//! a process of its own, which stays.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use zind_init::monitor::{self as wire, Begun, Monitor, Reading, RestartWhen};
use zind_init::plan::{FdMap, List, Str};

use super::hooks::Told;
use super::launch::{First, Starting, wait_readable};
use super::plan::{self, Attach, Prepared};
use super::planfile::PlanWriter;
use crate::cgroup::Stored;
use crate::error::{At, Error, Result, Step};
use crate::isolation::Isolation;
use crate::namespace::idmap;
use crate::spec::Spec;
use crate::sys::clone::{self, Start, StartFailure, Waiter};

/// Where containers go to be deleted.
pub(crate) const TRASH: &str = ".trash";
/// Containers to be deleted when they have ended.
pub(crate) const AUTO: &str = ".auto";

/// What a monitor keeps of a container, besides its streams.
pub(crate) struct Keep {
    /// The number of this start.
    pub(crate) run: u64,
    /// The directory of the container.
    pub(crate) dir: OwnedFd,
    /// The lock that says that there is a monitor.
    pub(crate) lock: OwnedFd,
    /// Where it listens.
    pub(crate) listener: OwnedFd,
    /// The process with which the container is to end.
    pub(crate) owner: Option<OwnedFd>,
    pub(crate) log: Option<LogFile>,
    pub(crate) restart: RestartWhen,
    pub(crate) restart_most: u32,
    /// Programs that are run on the way, by whoever.
    pub(crate) told: Told,
    /// The directory of the journal.
    pub(crate) events: Option<OwnedFd>,
    pub(crate) id: String,
    /// The directories that its own and its name are in, if it is to be deleted at its end.
    pub(crate) remove_from: Option<(OwnedFd, OwnedFd)>,
}

/// The file that is written to.
pub(crate) struct LogFile {
    pub(crate) file: OwnedFd,
    pub(crate) length: u64,
    pub(crate) number: u64,
    /// Bytes of output before its end, over all files.
    pub(crate) bytes: u64,
    pub(crate) size: u64,
    pub(crate) files: u32,
}

/// The start that goes on below it.
pub(super) struct Below<'a> {
    pub(super) report: BorrowedFd<'a>,
    pub(super) report_slot: BorrowedFd<'a>,
    pub(super) owner_slot: RawFd,
    pub(super) image: BorrowedFd<'a>,
    pub(super) plan: BorrowedFd<'a>,
    pub(super) keep: Vec<RawFd>,
    pub(super) attach: Option<&'a Attach>,
}

/// Who is above a launcher.
pub(super) enum Above {
    Waiter(Waiter),
    Monitor(Link),
}

/// The library's hold of a monitor until the container is handed over.
pub(super) struct Link {
    control: Option<OwnedFd>,
    monitor: OwnedFd,
    launcher: i32,
    failure: Option<StartFailure>,
}

impl Above {
    pub(super) fn launcher_pid(&self) -> Option<i32> {
        match self {
            Above::Waiter(waiter) => waiter.launcher_pid(),
            Above::Monitor(link) => Some(link.launcher).filter(|pid| *pid > 0),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        match self {
            Above::Waiter(waiter) => waiter.has_ended(),
            Above::Monitor(link) => {
                wait_readable(link.monitor.as_fd(), Some(Duration::ZERO), &mut || false).unwrap_or(true)
            }
        }
    }

    /// Becomes readable when it ends.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        match self {
            Above::Waiter(waiter) => waiter.pidfd(),
            Above::Monitor(link) => link.monitor.as_fd(),
        }
    }

    pub(super) fn failure(&self) -> Option<StartFailure> {
        match self {
            Above::Waiter(waiter) => waiter.failure(),
            Above::Monitor(link) => link.failure,
        }
    }
}

impl Link {
    /// The monitor ends the container, and then itself.
    pub(super) fn give_up(&mut self) {
        self.control = None;
        let _ = wait_readable(self.monitor.as_fd(), Some(Duration::from_secs(10)), &mut || false);
    }

    /// True if somebody has asked the monitor for the end of the container.
    pub(super) fn was_asked_to_end(&self) -> bool {
        let Some(control) = &self.control else { return false };
        let is_there = wait_readable(control.as_fd(), Some(Duration::ZERO), &mut || false);
        is_there.is_ok_and(|is_there| is_there)
            && matches!(hear(control.as_fd(), &mut || false), Ok(Some((begun, _))) if begun.clone_errno == libc::ECANCELED)
    }

    /// It runs, and is the monitor's.
    fn hand_over(&mut self, first: &First, terminal: Option<&OwnedFd>) -> Result<()> {
        let Some(control) = self.control.take() else { return Ok(()) };
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = std::iter::once(&first.pidfd).chain(terminal).map(|fd| fd.as_fd()).collect();
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let mut message = [0u8; 8];
        message[..4].copy_from_slice(&first.pid.to_ne_bytes());
        let pieces = [std::io::IoSlice::new(&message)];
        rustix::io::retry_on_intr(|| sendmsg(&control, &pieces, &mut ancillary, SendFlags::NOSIGNAL)).at(
            Step::Monitor,
            "sendmsg",
            "",
        )?;
        loop {
            match hear(control.as_fd(), &mut || false)?.ok_or_else(died)?.0.clone_errno {
                0 => return Ok(()),
                // Somebody has asked for its end meanwhile, which is not the answer: it is the monitor's to end.
                libc::ECANCELED => {}
                errno => {
                    return Err(Error::sys(Step::Monitor, "write", "running", Errno::from_raw(errno)).with_hint(
                        "the monitor could not write down that the container runs, so it has ended it again",
                    ));
                }
            }
        }
    }
}

fn died() -> Error {
    Error::sys(Step::Monitor, "recvmsg", "zind-monitor", Errno::ECHILD)
        .with_hint("the monitor ended before the container was its own: somebody killed it, or memory ran out")
}

/// What a monitor says of a start, with a descriptor; `None`: it has ended.
fn hear(control: BorrowedFd<'_>, interrupted: &mut dyn FnMut() -> bool) -> Result<Option<(Begun, Option<OwnedFd>)>> {
    while !wait_readable(control, None, interrupted)? {}
    let mut bytes = [0u8; size_of::<Begun>()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut pieces = [std::io::IoSliceMut::new(&mut bytes)];
    let length =
        match rustix::io::retry_on_intr(|| recvmsg(control, &mut pieces, &mut ancillary, RecvFlags::CMSG_CLOEXEC)) {
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            result => result.at(Step::Monitor, "recvmsg", "")?.bytes,
        };
    let mut fd = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            fd = fds.next();
        }
    }
    if length != bytes.len() {
        return Ok(None);
    }
    let word = |at: usize| bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, i32::from_ne_bytes);
    Ok(Some((Begun { pid: word(0), clone_errno: word(4), exec_errno: word(8), pad: 0 }, fd)))
}

/// Starts a monitor, which starts the launcher.
pub(super) fn start(prepared: &mut Prepared, keep: Keep, below: Below<'_>) -> Result<Link> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).at(
        Step::Socket,
        "socketpair",
        "",
    )?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty()).at(Step::Proc, "open", "/proc")?;
    let mut writer = PlanWriter::new();
    let mut numbers = below.keep.clone();
    let mut note = |fd: RawFd| {
        numbers.push(fd);
        fd
    };
    let streams = &mut prepared.streams;
    let mut number = |fd: Option<BorrowedFd<'_>>| fd.map_or(-1, |fd| note(fd.as_raw_fd()));
    let groups: Vec<RawFd> =
        below.attach.iter().flat_map(|attach| &attach.files).map(|file| number(Some(file.as_fd()))).collect();
    let readings = group_files(prepared.group.as_deref(), &mut writer, &mut number)?;
    let freezer = prepared.group.as_ref().and_then(|group| group.freezer_dir());
    let mut monitor = Monitor {
        run: keep.run,
        image: number(Some(below.image)),
        plan: number(Some(below.plan)),
        clone_flags: prepared.clone_flags,
        cgroup: number(prepared.cgroup.as_ref().map(|fd| fd.as_fd())),
        groups_done: number(below.attach.map(|attach| attach.done.as_fd())),
        groups: List::EMPTY,
        owner_slot: below.owner_slot,
        owner: number(keep.owner.as_ref().map(|fd| fd.as_fd())),
        report: number(Some(below.report)),
        report_slot: below.report_slot.as_raw_fd(),
        control: number(Some(theirs.as_fd())),
        listener: number(Some(keep.listener.as_fd())),
        dir: number(Some(keep.dir.as_fd())),
        proc: number(Some(proc.as_fd())),
        lock: number(Some(keep.lock.as_fd())),
        stdin: number(streams.stdin.as_ref().map(|fd| fd.as_fd())),
        stdout: number(streams.stdout.as_ref().map(|fd| fd.as_fd())),
        stderr: number(streams.stderr.as_ref().map(|fd| fd.as_fd())),
        terminal_slot: if streams.terminal.is_some() { streams.map.get(&0).copied().unwrap_or(-1) } else { -1 },
        log: number(keep.log.as_ref().map(|log| log.file.as_fd())),
        log_length: keep.log.as_ref().map_or(0, |log| log.length),
        log_size: keep.log.as_ref().map_or(0, |log| log.size),
        log_number: keep.log.as_ref().map_or(0, |log| log.number),
        log_bytes: keep.log.as_ref().map_or(0, |log| log.bytes),
        log_files: keep.log.as_ref().map_or(0, |log| log.files),
        freezer: number(freezer.map(|(dir, _)| dir)),
        freezer_is_v2: freezer.map_or(0, |(_, is_v2)| u32::from(is_v2)),
        restart: keep.restart,
        restart_most: keep.restart_most,
        groups_ready_slot: prepared.groups_ready(),
        first: match (prepared.is_init, prepared.forks_first) {
            (false, _) => wire::First::Payload,
            (true, true) => wire::First::Sender,
            (true, false) => wire::First::Launcher,
        },
        maps: [Str(0); 3],
        map_programs: [List::EMPTY; 2],
        readings: List::EMPTY,
        remove: List::EMPTY,
        trees: List::EMPTY,
        events: number(keep.events.as_ref().map(|fd| fd.as_fd())),
        home: number(keep.remove_from.as_ref().map(|(home, _)| home.as_fd())),
        names: number(keep.remove_from.as_ref().map(|(_, names)| names.as_fd())),
        id: Str(0),
        trash: Str(0),
        mark: Str(0),
    };
    let kept_trees = std::mem::take(&mut prepared.kept_trees);
    let trees: Vec<FdMap> =
        kept_trees.iter().map(|(tree, slot)| FdMap { from: number(Some(tree.as_fd())), to: *slot }).collect();
    let mut text = |text: String| writer.str(&CString::new(text).unwrap_or_default());
    monitor.id = text(keep.id.clone());
    monitor.trash = text(format!("{TRASH}/{}", keep.id));
    monitor.mark = text(format!("{AUTO}/{}", keep.id));
    monitor.trees = writer.list(&trees);
    if let (Some(maps), true) = (&prepared.maps, keep.restart != RestartWhen::Never) {
        let writes = idmap::writes(maps)?;
        let text = |text: &str| CString::new(text).unwrap_or_default();
        if let Some(setgroups) = writes.setgroups {
            monitor.maps[0] = writer.str(&text(setgroups));
        }
        for (slot, map) in monitor.maps.iter_mut().skip(1).zip(writes.texts.iter().flatten()) {
            *slot = writer.str(&text(map));
        }
        for (slot, argv) in monitor.map_programs.iter_mut().zip(&writes.programs) {
            let argv: Vec<CString> = argv.iter().map(|word| text(word)).collect();
            *slot = writer.strings(argv.iter().map(CString::as_c_str));
        }
    }
    monitor.groups = writer.list(&groups);
    monitor.readings = writer.list(&readings);
    let remove: Vec<CString> = prepared.group.iter().flat_map(|group| group.to_remove()).filter_map(c_path).collect();
    monitor.remove = writer.names(remove.iter().map(CString::as_c_str));
    let bytes = plan::monitor_plan(writer, &monitor, numbers.clone(), &keep.told)?;
    let plan = super::launch::memory_file("zind-monitor", &bytes)?;
    numbers.sort_unstable();
    numbers.dedup();
    let start = Start {
        image: below.image,
        plan: plan.as_fd(),
        keep: numbers,
        flags: 0,
        cgroup: None,
        groups: Vec::new(),
        groups_done: None,
        dirs: Vec::new(),
        is_by_older: prepared.is_by_older_clone,
    };
    let started = if prepared.forked { clone::start_by_fork(start) } else { clone::start(start) };
    let mut waiter = started.at(Step::Monitor, prepared.clone_call(), "")?;
    // The monitor has copies of all that is its.
    drop((theirs, keep, kept_trees));
    prepared.streams.stdin = None;
    prepared.streams.stdout = None;
    prepared.streams.stderr = None;
    let heard = hear(ours.as_fd(), &mut || false);
    // Its parent ended as soon as it was there, and the waiter with that.
    let _ = wait_readable(waiter.pidfd(), Some(Duration::from_secs(10)), &mut || false);
    let failure = waiter.failure();
    waiter.try_reap();
    let (begun, monitor) = match heard? {
        Some((begun, Some(monitor))) => (begun, monitor),
        _ => {
            return Err(match failure {
                Some(StartFailure::Clone(errno)) => Error::sys(Step::Monitor, prepared.clone_call(), "", errno),
                Some(StartFailure::Exec(errno)) => Error::sys(Step::Monitor, "execveat", "", errno),
                None => died(),
            });
        }
    };
    let failure = match (begun.clone_errno, begun.exec_errno) {
        (0, 0) => None,
        (0, errno) => Some(StartFailure::Exec(Errno::from_raw(errno))),
        (errno, _) => Some(StartFailure::Clone(Errno::from_raw(errno))),
    };
    Ok(Link { control: Some(ours), monitor, launcher: begun.pid, failure })
}

/// The files of a group that are read at its end.
fn group_files(
    group: Option<&crate::cgroup::Cgroup>,
    writer: &mut PlanWriter,
    number: &mut dyn FnMut(Option<BorrowedFd<'_>>) -> RawFd,
) -> Result<Vec<Reading>> {
    let Some(group) = group else { return Ok(Vec::new()) };
    let mut readings = Vec::new();
    for (dir, is_v2, name) in group.last_readings() {
        let Ok(name) = CString::new(name) else { continue };
        readings.push(Reading { dir: number(Some(dir)), is_v2: u32::from(is_v2), name: writer.str(&name) });
    }
    Ok(readings)
}

fn c_path(path: PathBuf) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

/// A container that runs and is not handed over yet: dropped, it ends.
pub(crate) struct Running {
    starting: Starting,
    first: First,
}

/// What is to be remembered of a start.
pub(crate) struct Facts {
    pub(crate) group: Option<Stored>,
    pub(crate) is_init: bool,
    pub(crate) isolation: Isolation,
    pub(crate) overlay: Option<PathBuf>,
    /// What further programs in it have in common.
    pub(crate) spec: Option<Arc<Spec>>,
}

/// Starts a payload below a monitor. `ready` is called when its namespaces are there, with the pid of who is in them, if
/// the plan waits for that, as it does with `waits`.
pub(crate) fn run(
    spec: Spec,
    keep: Keep,
    waits: bool,
    ready: &mut dyn FnMut(i32) -> Result<()>,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<Running> {
    let starting = Starting::begin_watched(spec, keep, waits, Instant::now(), interrupted)?;
    let (starting, first) = starting.finish_start(ready, interrupted)?;
    Ok(Running { starting, first })
}

impl Running {
    /// Its first process.
    pub(crate) fn pid(&self) -> i32 {
        self.first.pid
    }

    /// Our end of its terminal, once more.
    pub(crate) fn terminal(&self) -> Result<Option<OwnedFd>> {
        self.starting.terminal().map(|fd| fd.try_clone_to_owned()).transpose().at(Step::Monitor, "dup", "")
    }

    pub(crate) fn facts(&self) -> Facts {
        self.starting.facts()
    }

    /// From now on it is the monitor's.
    pub(crate) fn hand_over(mut self) -> Result<OwnedFd> {
        let terminal = self.starting.take_terminal();
        if let Some(link) = self.starting.link() {
            link.hand_over(&self.first, terminal.as_ref())?;
        }
        self.starting.let_go();
        Ok(self.first.pidfd)
    }
}
