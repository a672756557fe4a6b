//! Control groups: limits, readings, freezing and killing, with one face over v2, v1 and the hybrid of both.
#![forbid(unsafe_code)]

mod calm;
mod crossing;
mod curve;
mod dbus;
pub(crate) mod delegation;
mod devices;
pub(crate) mod events;
mod files;
mod freezing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod layout;
mod limits;
mod making;
mod oci;
pub(crate) mod outlook;
mod owner;
mod place;
mod readings;
mod removing;
pub(crate) mod resources;
mod shortage;
pub(crate) mod stats;
mod stored;
pub(crate) mod systemd;
#[cfg(test)]
mod testing;
mod writing;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};

use crate::error::{At, Error, Result, Step};
use crate::sys::clone::Keeper;
use crate::sys::descriptors::openat;
use events::LastWords;
use making::Later;
use place::Places;

pub(crate) use crossing::Crossing;
pub use events::{Event, EventKind, Events, EventsCloser, PressureOf, PressureTrigger};
pub use layout::{Hierarchy, Layout};
pub use limits::{LimitInfo, limits};
pub(crate) use making::Request;
pub use owner::sweep;
pub(crate) use owner::{abandon, reap_abandoned};
pub use resources::{DeviceKind, DeviceRule, IoLimit, RdmaLimit, Resources};
pub use stats::{IoStats, Pressure, PressureStats, Stall, Stats};
pub(crate) use stored::{Stored, StoredPart};

/// How long something may take that mostly takes no time: freezing, the last breath of what was killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A control group: a directory in each hierarchy that is needed. Dropped, its directories are removed if nobody is in them.
#[derive(Debug)]
pub struct Cgroup {
    parts: Vec<Part>,
    /// Processes of zind's own that are in it beside the payload's.
    helpers: u64,
    /// Directories that had to be made above it.
    places: Places,
    /// The part of version 2, made when the launcher is there: [`Cgroup::settle`].
    later: Option<Later>,
    /// The scope of systemd's that it is in, and its name there.
    scope: Option<(delegation::Scope, String)>,
    /// Keeps systemd's scope until the last readings are taken.
    keeper: Mutex<Option<Keeper>>,
    /// Whoever is in it ends with this process.
    dies_with_owner: bool,
    /// Thaws it when this process ends while it is paused.
    thawer: Mutex<Option<Keeper>>,
    last_words: LastWords,
    readings: readings::Readings,
    /// What `memory.max` has, as nobody but us has written it: [`Cgroup::known_memory_max`]; 0: not known.
    memory_max: AtomicU64,
    /// Before it was made; `None`: by somebody else.
    began: Option<Instant>,
    is_gone: AtomicBool,
    /// It is somebody else's, who removes it.
    is_borrowed: AtomicBool,
}

/// The group in one hierarchy.
#[derive(Debug)]
pub(crate) struct Part {
    /// The directory, `O_PATH`.
    pub(crate) dir: OwnedFd,
    /// Its path, for messages.
    pub(crate) path: PathBuf,
    /// Version 2.
    pub(crate) is_v2: bool,
    /// What can be set here.
    pub(crate) controllers: Vec<String>,
}

impl Part {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    fn read(&self, name: &str) -> Result<String> {
        files::read(self.dir.as_fd(), name).map_err(|errno| {
            let gone = if errno == Errno::ENODEV { "the group was removed" } else { "" };
            Error::sys(Step::ReadCgroup, "read", self.path.join(name), errno).with_hint(gone)
        })
    }

    fn write(&self, step: Step, name: &str, text: &str) -> Result<()> {
        files::write(self.dir.as_fd(), name, text).map_err(|errno| {
            Error::sys(step, "write", self.path.join(name), errno).with_hint(format!("{text:?} was to be written"))
        })
    }

    /// True if there are processes in it or below it.
    fn is_populated(&self) -> bool {
        match self.is_v2 {
            true => files::read(self.dir.as_fd(), "cgroup.events")
                .is_ok_and(|text| files::value_of(&text, "populated") != Some(0)),
            false => {
                let mut pids = BTreeSet::new();
                collect(self, &mut pids).is_err() || !pids.is_empty()
            }
        }
    }
}

impl Cgroup {
    /// What happens in the group, until `end` is readable.
    pub(crate) fn events(&self, end: BorrowedFd<'_>, triggers: &[PressureTrigger]) -> Result<Events> {
        fn view(part: &Part) -> (BorrowedFd<'_>, &Path) {
            (part.dir.as_fd(), &part.path)
        }
        let (v2, v1) = (self.v2().map(view), self.v1_with("memory").map(view));
        let watched = match self.last_words.are_spoken() {
            false => Events::watch(v2, v1, end, triggers, self.last_words.clone()),
            true => Events::watch(None, None, end, &[], self.last_words.clone()),
        };
        match watched {
            Err(_) if self.last_words.are_spoken() => Events::watch(None, None, end, &[], self.last_words.clone()),
            watched => watched,
        }
    }

    /// The part in the version 2 hierarchy.
    pub(crate) fn v2(&self) -> Option<&Part> {
        self.parts.iter().find(|part| part.is_v2)
    }

    /// The parts in version 1 hierarchies.
    pub(crate) fn v1(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| !part.is_v2)
    }

    fn v1_with(&self, controller: &str) -> Option<&Part> {
        self.v1().find(|part| part.has(controller))
    }

    /// The part that has the controller.
    pub(crate) fn with(&self, controller: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.has(controller))
    }

    /// The directories of the group, one in each hierarchy.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.parts.iter().map(|part| part.path.clone()).collect()
    }

    /// The directory in which this controller is: `"memory"`; `""` for that of version 2.
    pub fn path_of(&self, controller: &str) -> Option<&Path> {
        let part = if controller.is_empty() { self.v2() } else { self.with(controller) };
        part.map(|part| part.path.as_path())
    }

    /// Its directories and those made for it, as paths with their NULs, in the order in which they can be removed.
    pub(crate) fn leavings(&self) -> Vec<u8> {
        let parts = self.parts.iter().rev().map(|part| &part.path);
        let all = parts.chain(self.places.made.iter().rev());
        all.flat_map(|path| path.as_os_str().as_bytes().iter().copied().chain([0])).collect()
    }

    /// True if there is no directory at all: nothing was asked for, and this user may make no groups.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.parts.is_empty() && self.later.is_none()
    }

    /// Why there is no directory at all; empty if there is one.
    pub(crate) fn why_nowhere(&self) -> String {
        match (&self.places.refused, self.is_nowhere()) {
            (_, false) => String::new(),
            (Some(error), true) => error.to_string(),
            (None, true) => "no hierarchy of control groups is mounted here".to_owned(),
        }
    }

    /// Files to write a pid to, for the hierarchies into which nobody is born: those of version 1, and of version 2 where
    /// `clone3(2)` is hidden.
    pub(crate) fn entrances(&self, have_clone3: bool) -> Result<Vec<(OwnedFd, PathBuf)>> {
        let parts = self.parts.iter().filter(|part| !part.is_v2 || !have_clone3);
        parts.map(|part| entrance(part.dir.as_fd(), &part.path)).collect()
    }

    /// Moves a process with all its threads into the group.
    ///
    /// Errors: [`Error::Sys`] at [`Step::JoinCgroup`].
    pub fn add(&self, pid: i32) -> Result<()> {
        for part in &self.parts {
            part.write(Step::JoinCgroup, "cgroup.procs", &pid.to_string())?;
        }
        Ok(())
    }

    /// What the group uses, and used so far.
    pub fn stats(&self) -> Stats {
        Stats::of(self)
    }

    /// The readings at the end of everybody in it, right before it is removed.
    pub(crate) fn last_stats(&self) -> Stats {
        let (stats, counts) = Stats::last_of(self);
        self.last_words.say(counts);
        stats
    }

    /// Processes that were killed because memory ran out.
    pub(crate) fn oom_kills(&self) -> u64 {
        let Some(part) = self.with("memory") else { return 0 };
        let file = if part.is_v2 { "memory.events" } else { "memory.oom_control" };
        files::read(part.dir.as_fd(), file).ok().and_then(|text| files::value_of(&text, "oom_kill")).unwrap_or(0)
    }

    /// True if the limit of memory was ever met, whatever came of it.
    pub(crate) fn memory_was_short(&self) -> bool {
        let Some(part) = self.with("memory") else { return false };
        let read = |name| files::read(part.dir.as_fd(), name).unwrap_or_default();
        if part.is_v2 {
            return files::value_of(&read("memory.events"), "max").is_some_and(|count| count > 0);
        }
        self.oom_kills() > 0 || files::number(&read("memory.failcnt")).is_some_and(|count| count > 0)
    }

    /// The processes in it and in groups below it, by their pids in the caller's pid namespace; a process the caller cannot
    /// see is left out.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let Some(part) = self.v2().or(self.parts.first()) else { return Ok(Vec::new()) };
        let mut pids = BTreeSet::new();
        collect(part, &mut pids)?;
        Ok(pids.into_iter().collect())
    }
}

/// The file of a group to write a pid to.
pub(crate) fn entrance(dir: BorrowedFd<'_>, path: &Path) -> Result<(OwnedFd, PathBuf)> {
    let path = path.join("cgroup.procs");
    let file = openat(dir, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    file.at(Step::JoinCgroup, "openat", &path).map(|file| (file, path))
}

/// The pids of a group and of those below it.
fn collect(part: &Part, pids: &mut BTreeSet<i32>) -> Result<()> {
    let mut dirs = vec![part.path.clone()];
    let mut is_first = true;
    while let Some(dir) = dirs.pop() {
        let file = dir.join("cgroup.procs");
        match std::fs::read_to_string(&file) {
            // A threaded group has none of its own; its processes are listed above.
            Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0)),
            Err(error) if is_first && error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).at(Step::ReadCgroup, "read", &file);
            }
            Err(_) => {}
        }
        is_first = false;
        dirs.extend(owner::children(&dir));
    }
    Ok(())
}

/// Waits a little, then longer.
struct Pause(Duration);

impl Pause {
    fn new() -> Pause {
        Pause(Duration::from_micros(20))
    }

    fn sleep(&mut self) {
        std::thread::sleep(self.0);
        self.0 = (self.0 * 2).min(Duration::from_millis(5));
    }
}
