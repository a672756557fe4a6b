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
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod layout;
mod limits;
mod oci;
pub(crate) mod outlook;
mod owner;
mod place;
mod readings;
pub(crate) mod resources;
mod shortage;
pub(crate) mod stats;
mod stored;
pub(crate) mod systemd;
#[cfg(test)]
mod testing;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};

use crate::error::{At, Error, IntoErrno, Result, Step};
use crate::sys::clone::Keeper;
use crate::sys::descriptors::openat;
use crate::sys::descriptors::{pidfd_open, pidfd_send_signal};
use events::LastWords;
use limits::{Situation, Version};
use place::{Place, Places};

pub(crate) use crossing::Crossing;
pub use events::{Event, EventKind, Events, EventsCloser, PressureOf, PressureTrigger};
pub use layout::{Hierarchy, Layout};
pub use limits::{LimitInfo, limits};
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

/// A part that is made in a scope of systemd's, and what is written to it then.
#[derive(Debug)]
struct Later {
    scope: delegation::Scope,
    name: String,
    needed: Vec<&'static str>,
    resources: Resources,
    /// Something was asked for; else it is for readings only, and may be missing.
    is_required: bool,
    /// Whom it is given to: [`Cgroup::give`].
    owner: Option<(u32, u32)>,
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

/// What a new group is for.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) resources: &'a Resources,
    pub(crate) parent: Option<&'a Path>,
    pub(crate) helpers: u64,
    /// Whoever is in it ends with this process.
    pub(crate) dies_with_owner: bool,
}

impl Cgroup {
    /// A group with these limits, below the caller's own one or `parent`, a path from the root of the hierarchies. Nobody is
    /// in it yet.
    ///
    /// Errors: [`Error::Spec`] for values without sense; [`Error::Unsupported`] with the cure for what this machine lacks or
    /// this user may not do; [`Error::Sys`] at [`Step::MakeCgroup`], [`Step::WriteCgroup`] with file, value and errno.
    pub fn create(resources: &Resources, parent: Option<&Path>) -> Result<Cgroup> {
        resources.check()?;
        Cgroup::make(Request { resources, parent, helpers: 0, dies_with_owner: true })
    }

    pub(crate) fn make(request: Request<'_>) -> Result<Cgroup> {
        let mut is_old = true;
        let is_gone = |error: &Error| {
            matches!(error, Error::Sys { step: Step::MakeCgroup, .. }) && error.errno() == Some(Errno::ENOENT)
        };
        for _ in 0..16 {
            match Cgroup::try_make(request, &mut is_old) {
                // What has changed since the places were looked for shows by an error.
                Err(_) if std::mem::take(&mut is_old) => {}
                // The named parent went with the last container in there, which ended just now.
                Err(error) if request.parent.is_some() && is_gone(&error) => {}
                result => return result,
            }
        }
        Cgroup::try_make(request, &mut is_old)
    }

    /// `is_old`: places may be those that were found a moment ago; whether they were.
    fn try_make(request: Request<'_>, is_old: &mut bool) -> Result<Cgroup> {
        let may_be_old = std::mem::take(is_old);
        let layout = Layout::read_again(may_be_old)?;
        let resources = request.resources;
        let on_v1 = |controller: &str| layout.v1_with(controller).is_some();
        let mut needed = limits::needed(resources, on_v1)?;
        for file in resources.unified.keys() {
            let controller = unified_controller(file, &layout)?;
            if !needed.contains(&(Version::V2, controller)) {
                needed.push((Version::V2, controller));
            }
        }
        let has_rules = !resources.devices.is_empty() && !on_v1("devices");
        let places = Places::find(&layout, &needed, has_rules, request.parent, may_be_old)?;
        *is_old = places.is_old;
        let mut group = Cgroup {
            parts: Vec::with_capacity(places.list.len()),
            helpers: request.helpers,
            places,
            later: None,
            scope: None,
            keeper: Mutex::new(None),
            dies_with_owner: request.dies_with_owner,
            thawer: Mutex::new(None),
            last_words: LastWords::default(),
            readings: readings::Readings::default(),
            memory_max: AtomicU64::new(0),
            began: Some(Instant::now()),
            is_gone: AtomicBool::new(false),
            is_borrowed: AtomicBool::new(false),
        };
        group.make_parts(request.dies_with_owner)?;
        if let (Some(parent), true) = (request.parent, group.is_nowhere()) {
            let needs =
                format!("no group can be made below {} in any hierarchy: it is somebody else's", parent.display());
            return Err(Error::unsupported("cgroup_parent", needs));
        }
        match group.places.scope.take() {
            None => {
                group.write_limits(resources, &layout)?;
                group.note_memory_max(resources);
            }
            Some(scope) => {
                let on_v2 = needed.iter().filter(|(version, _)| *version == Version::V2);
                let needed: Vec<&str> = on_v2.map(|(_, controller)| *controller).collect();
                group.later = Some(Later {
                    scope,
                    name: owner::next_name(request.dies_with_owner)?,
                    is_required: has_rules || !needed.is_empty(),
                    needed,
                    resources: resources.clone(),
                    owner: None,
                });
            }
        }
        Ok(group)
    }

    /// True if processes have to be there for the rest of it to be made.
    pub(crate) fn is_to_settle(&self) -> bool {
        self.later.is_some()
    }

    /// Makes the part that systemd's scope is for, around processes which have done nothing yet, and sets its limits.
    ///
    /// Errors: [`Error::Sys`] at [`Step::Systemd`] with what systemd said; [`Error::Unsupported`] for a controller that the
    /// user's manager was not given; [`Error::Interrupted`] when `interrupted` says so; those of [`Cgroup::create`].
    pub(crate) fn settle(&mut self, pids: &[u32], interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        let Some(later) = self.later.take() else { return Ok(()) };
        // Without clone3(2) the last readings are lost.
        let keeper = Keeper::start().ok();
        let pid = keeper.as_ref().map(Keeper::pid);
        let made = later.scope.make(&later.name, pids, pid, &later.needed, &later.resources, interrupted);
        let (path, controllers) = match made {
            Err(error) if !later.is_required && !matches!(error, Error::Interrupted) => {
                self.places.refused = Some(error);
                return Ok(());
            }
            made => made?,
        };
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = keeper;
        let dir = files::open_dir(&path).map_err(|errno| Error::sys(Step::MakeCgroup, "open", &path, errno))?;
        self.parts.push(Part { dir, path, is_v2: true, controllers });
        self.write_limits(&later.resources, &Layout::read()?)?;
        // An ordinary user can give it to themselves only.
        let user = rustix::process::geteuid();
        if let Some((uid, gid)) = later.owner.filter(|(uid, _)| user.is_root() || user.as_raw() == *uid) {
            self.give(uid, gid)?;
        }
        self.scope = Some((later.scope, later.name));
        Ok(())
    }

    /// Gives the part of version 2 to the root of a container of its own user namespace, who can make groups below it then, but
    /// not change its limits.
    ///
    /// Errors: [`Error::Sys`] at [`Step::MakeCgroup`].
    pub(crate) fn give(&mut self, uid: u32, gid: u32) -> Result<()> {
        if let Some(later) = &mut self.later {
            later.owner = Some((uid, gid));
        }
        self.v2().map_or(Ok(()), |part| delegation::give(part.dir.as_fd(), &part.path, uid, gid))
    }

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

    fn make_parts(&mut self, dies_with_owner: bool) -> Result<()> {
        owner::sweep_now_and_then(self.places.list.iter().map(|place| place.dir.as_path()));
        // One of ours may be there from before an execve(2), after which the numbers begin again.
        for _ in 0..64 {
            let name = owner::next_name(dies_with_owner)?;
            match self.make_parts_as(&name) {
                Err(error) if error.errno() == Some(Errno::EEXIST) => self.remove_parts(),
                result => return result,
            }
        }
        let dir = self.places.list.first().map(|place| place.dir.clone()).unwrap_or_default();
        Err(place::refused(&dir, Errno::EEXIST))
    }

    fn make_parts_as(&mut self, name: &str) -> Result<()> {
        for place in &self.places.list {
            match make_part(place, name) {
                Ok(part) => self.parts.push(part),
                Err(error) if place.is_required || error.errno() == Some(Errno::EEXIST) => return Err(error),
                Err(error) => self.places.refused = self.places.refused.take().or(Some(error)),
            }
        }
        Ok(())
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

    /// Changes limits; what is `None` stays as it is. A limit of memory below what is in use and cannot be taken back is
    /// refused (`EBUSY`), on both versions. When the kernel refuses one, those before it stand already.
    ///
    /// Errors: as for [`Cgroup::create`]; [`Error::State`] for a controller that the group was made without, before anything is
    /// changed.
    pub fn update(&self, resources: &Resources) -> Result<()> {
        resources.check()?;
        if resources.memory.is_some() || resources.unified.contains_key("memory.max") {
            self.memory_max.store(0, Ordering::Release);
        }
        if let (Some(memory), Some(part)) = (resources.memory, self.with("memory").filter(|part| part.is_v2)) {
            make_room(part, memory)?;
        }
        self.write_limits(resources, &Layout::read()?)?;
        self.scope.as_ref().map_or(Ok(()), |(scope, name)| scope.update(name, resources))
    }

    fn write_limits(&self, resources: &Resources, layout: &Layout) -> Result<()> {
        // What is not there is found out before anything is written.
        let mut parts = Vec::new();
        for (version, controller) in limits::needed(resources, |name| layout.v1_with(name).is_some())? {
            let part = self.parts.iter().find(|part| part.is_v2 == (version == Version::V2) && part.has(controller));
            parts.push((part.ok_or_else(|| without(controller))?, version, controller));
        }
        let program = match !resources.devices.is_empty() && layout.v1_with("devices").is_none() {
            true => Some(self.v2().ok_or_else(|| without("devices"))?),
            false => None,
        };
        let mut raw = Vec::new();
        for (file, text) in &resources.unified {
            let controller = unified_controller(file, layout)?;
            raw.push((self.v2().filter(|part| part.has(controller)).ok_or_else(|| without(controller))?, file, text));
        }
        for (part, version, controller) in parts {
            let current = |file: &str| files::read(part.dir.as_fd(), file).ok();
            let situation = Situation { version, helpers: self.helpers, current: &current };
            let mut writes = limits::writes(resources, controller, &situation)?;
            put_in_order(&mut writes, &current);
            let before = |file: &str| (version == Version::V2).then(|| current(file).unwrap_or_default());
            for write in &writes {
                let set = CPUSETS.into_iter().find(|file| *file == write.alternatives[0].0);
                let before = set.and_then(before);
                write_one(part, write)?;
                if let (Some(file), Some(before)) = (set, before) {
                    check_cpuset(part, write, file, &before)?;
                }
            }
        }
        if let Some(part) = program {
            devices::attach_v2(part.dir.as_fd(), &part.path, &resources.devices)?;
        }
        for (part, file, text) in raw {
            for line in text.lines() {
                let write = limits::Write {
                    option: "unified",
                    alternatives: vec![(file.clone().into(), line.to_owned())],
                    optional: false,
                    every: false,
                };
                write_one(part, &write)?;
            }
        }
        Ok(())
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

    /// Removes it, with the groups below it; whoever is still in there is killed. Removed already, nothing happens.
    ///
    /// Errors: [`Error::Sys`] at [`Step::RemoveCgroup`], `EBUSY` if something in there does not die.
    pub fn delete(&self) -> Result<()> {
        if self.is_gone.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        if self.last_words.have_a_listener() && !self.last_words.are_spoken() {
            self.keep_last_words();
        }
        self.readings.close();
        // Mostly nobody is there any more, and then nothing is frozen either.
        let left: Vec<&Part> =
            self.parts.iter().rev().filter(|part| owner::remove_unused(&part.path).is_err()).collect();
        if !left.is_empty() {
            self.thaw_for_killing();
        }
        let mut result = Ok(());
        let deadline = Instant::now() + PATIENCE;
        for part in left {
            let removed = owner::remove(&part.path, deadline);
            result = result.and(removed);
        }
        if result.is_ok() {
            self.remove_places();
        } else {
            self.is_gone.store(false, Ordering::Release);
        }
        result
    }

    /// Removes it if nobody is in it; true if it is gone.
    pub(crate) fn try_delete(&self) -> bool {
        if self.is_gone.load(Ordering::Acquire) {
            return true;
        }
        let mut all = true;
        for part in self.parts.iter().rev() {
            all &= owner::remove_unused(&part.path).is_ok();
        }
        if all {
            self.is_gone.store(true, Ordering::Release);
            self.remove_places();
        }
        all
    }

    fn keep_last_words(&self) {
        self.last_words
            .keep(self.v2().map(|part| part.dir.as_fd()), self.v1_with("memory").map(|part| part.dir.as_fd()));
    }

    fn remove_places(&self) {
        drop(self.thawer.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.places.remove_made();
    }

    fn remove_parts(&mut self) {
        for part in self.parts.drain(..).rev() {
            let _ = rustix::fs::rmdir(&part.path);
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.is_borrowed.load(Ordering::Acquire) {
            self.try_delete();
        }
    }
}

/// The file of a group to write a pid to.
pub(crate) fn entrance(dir: BorrowedFd<'_>, path: &Path) -> Result<(OwnedFd, PathBuf)> {
    let path = path.join("cgroup.procs");
    let file = openat(dir, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    file.at(Step::JoinCgroup, "openat", &path).map(|file| (file, path))
}

/// The error about a controller that a group was made without.
fn without(controller: &str) -> Error {
    Error::State(format!(
        "the container has no group in the hierarchy of {controller}, and zind puts processes into one only as they are born: give a \
         limit of it at the start, be it a high one"
    ))
}

/// The controller of a file of version 2, which must be there.
fn unified_controller(file: &str, layout: &Layout) -> Result<&'static str> {
    let controller = file.split('.').next().unwrap_or_default();
    let Some(known) = limits::known(controller) else {
        let names = limits::CONTROLLERS.join(", ");
        return Err(Error::spec("resources", format!("unified: {controller:?} is none of {names}")));
    };
    let v1 = if known == "io" { "blkio" } else { known };
    if layout.v1_with(v1).is_some() {
        let needs = format!("the {v1} controller is on control groups v1 here, and unified has files of v2");
        return Err(Error::unsupported(format!("unified[{file:?}]"), needs));
    }
    Ok(known)
}

fn make_part(place: &Place, name: &str) -> Result<Part> {
    let path = place.dir.join(name);
    rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)).map_err(|errno| match errno.into_errno() {
        errno @ (Errno::EACCES | Errno::EPERM | Errno::EROFS) => {
            place::forbidden(&place.controllers.join(", "), &path, errno)
        }
        errno => place::refused(&path, errno),
    })?;
    let made =
        files::open_dir(&path).map_err(|errno| Error::sys(Step::MakeCgroup, "open", &path, errno)).and_then(|dir| {
            if place.version == Version::V1 && place.controllers.iter().any(|name| name == "cpuset") {
                fill_cpuset(&path)?;
            }
            Ok(dir)
        });
    match made {
        Ok(dir) => Ok(Part { dir, path, is_v2: place.version == Version::V2, controllers: place.controllers.clone() }),
        Err(error) => {
            let _ = rustix::fs::rmdir(&path);
            Err(error)
        }
    }
}

/// On v1 a new cpuset has nothing in it, and takes nobody in: it gets what the one above has. Elsewhere nothing happens.
fn fill_cpuset(dir: &Path) -> Result<()> {
    if dir.join("cgroup.type").exists() || !dir.join("cpuset.cpus").exists() {
        return Ok(());
    }
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let own = dir.join(name);
        let is_empty = std::fs::read_to_string(&own).is_ok_and(|text| text.trim().is_empty());
        if is_empty {
            let above = dir.parent().unwrap_or(dir).join(name);
            let text = std::fs::read_to_string(&above).at(Step::ReadCgroup, "read", &above)?;
            std::fs::write(&own, text.trim()).at(Step::WriteCgroup, "write", &own)?;
        }
    }
    Ok(())
}

/// What has to be written before what: on v1 memory alone may never be above memory and swap together; a burst never above
/// the quota; what is idle takes no weight.
fn put_in_order(writes: &mut [limits::Write], current: &dyn Fn(&str) -> Option<String>) {
    const BOTH: &str = "memory.memsw.limit_in_bytes";
    let number = |text: &str| files::number(text).unwrap_or(u64::MAX);
    let find = |writes: &[limits::Write], names: &[&str]| {
        writes.iter().position(|write| names.contains(&&*write.alternatives[0].0))
    };
    let quota = find(writes, &["cpu.max", "cpu.cfs_period_us", "cpu.cfs_quota_us"]);
    if let (Some(quota), Some(burst)) = (quota, find(writes, &["cpu.max.burst", "cpu.cfs_burst_us"])) {
        let (file, text) = &writes[burst].alternatives[0];
        if quota < burst && current(file).is_some_and(|now| number(text) < number(&now)) {
            writes[quota..=burst].rotate_right(1);
        }
    }
    if let Some(idle) = find(writes, &["cpu.idle"]).filter(|idle| writes[*idle].alternatives[0].1 == "0") {
        writes[..=idle].rotate_right(1);
    }
    let (memory, both) = (find(writes, &["memory.limit_in_bytes"]), find(writes, &[BOTH]));
    let (Some(memory), Some(both)) = (memory, both) else { return };
    let now = current(BOTH).map_or(u64::MAX, |text| number(&text));
    if number(&writes[memory].alternatives[0].1) > now {
        writes.swap(memory, both);
    }
}

fn write_one(part: &Part, write: &limits::Write) -> Result<()> {
    let mut first = None;
    let mut is_written = false;
    for (file, text) in &write.alternatives {
        let refused = match files::write(part.dir.as_fd(), file, text) {
            Ok(()) if write.every => {
                is_written = true;
                continue;
            }
            Ok(()) => return Ok(()),
            Err(Errno::ENOENT) if write.optional => return Ok(()),
            Err(errno) => (file, text, errno),
        };
        if first.is_none_or(|(_, _, errno)| errno == Errno::ENOENT) {
            first = Some(refused);
        }
        if refused.2 != Errno::ENOENT && !write.every {
            break;
        }
    }
    if is_written {
        return Ok(());
    }
    let Some((file, text, errno)) = first else { return Ok(()) };
    let cure = limits::cure(write.option, file, errno);
    let cure = if cure.is_empty() { String::new() } else { format!(": {cure}") };
    let hint = format!("{text:?} was to be written for {}{cure}", write.option);
    Err(Error::sys(Step::WriteCgroup, "write", part.path.join(&**file), errno).with_hint(hint))
}

const CPUSETS: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// On v2 a list that has nothing of what the group above may use is taken without a word, and then all that the group above
/// may use is in force. Here it is refused as on v1, and `before` is put back.
fn check_cpuset(part: &Part, write: &limits::Write, file: &str, before: &str) -> Result<()> {
    let asked = &write.alternatives[0].1;
    let effective = part.read(&format!("{file}.effective"))?;
    let effective = effective.trim();
    if limits::is_within(effective, asked) {
        return Ok(());
    }
    let _ = files::write(part.dir.as_fd(), file, if before.trim().is_empty() { "\n" } else { before });
    let hint = format!(
        "{asked:?} was to be written for {}: the group above may use {effective} only, and nothing of that was asked for",
        write.option
    );
    Err(Error::sys(Step::WriteCgroup, "write", part.path.join(file), Errno::EINVAL).with_hint(hint))
}

/// On v2 a limit below what is in use would kill; as on v1, it is refused where the memory cannot be taken back.
fn make_room(part: &Part, memory: u64) -> Result<()> {
    let current = || part.read("memory.current").map(|text| files::number(&text).unwrap_or(0));
    let used = current()?;
    if used <= memory {
        return Ok(());
    }
    // Linux 5.19; EAGAIN where not all of it could be taken back.
    let _ = files::write(part.dir.as_fd(), "memory.reclaim", &(used - memory).to_string());
    let left = current()?;
    if left <= memory {
        return Ok(());
    }
    let cure = limits::cure("memory", "memory.max", Errno::EBUSY);
    let hint = format!("\"{memory}\" was to be written for memory, {left} bytes are in use: {cure}");
    Err(Error::sys(Step::WriteCgroup, "write", part.path.join("memory.max"), Errno::EBUSY).with_hint(hint))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_disks_are_written_for_every_scheduler() {
        let dir = tempfile();
        let written = |names: &[&str]| -> Result<Vec<String>> {
            names.iter().for_each(|name| std::fs::write(dir.join(name), "").unwrap());
            let part =
                Part { dir: files::open_dir(&dir).unwrap(), path: dir.clone(), is_v2: true, controllers: Vec::new() };
            let r = Resources { io_weight: Some(910), ..Resources::default() };
            let situation = Situation { version: Version::V2, helpers: 1, current: &|_| None };
            let result = limits::writes(&r, "io", &situation)?.iter().try_for_each(|write| write_one(&part, write));
            let texts = names.iter().map(|name| {
                let text = std::fs::read_to_string(dir.join(name)).unwrap();
                std::fs::remove_file(dir.join(name)).unwrap();
                text
            });
            let texts = texts.collect();
            result.map(|()| texts)
        };
        assert_eq!(written(&["io.weight", "io.bfq.weight"]).unwrap(), ["910", "100"]);
        assert_eq!(written(&["io.weight"]).unwrap(), ["910"]);
        assert_eq!(written(&["io.bfq.weight"]).unwrap(), ["100"]);
        assert_eq!(written(&[]).unwrap_err().errno(), Some(Errno::ENOENT));
        std::fs::remove_dir(&dir).unwrap();
    }

    fn tempfile() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("zind-test-weights-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn limits_that_depend_on_each_other_are_written_in_order() {
        let files = |r: &Resources, version: Version, burst: u64| -> Vec<String> {
            let current = |file: &str| file.contains("burst").then(|| burst.to_string());
            let situation = Situation { version, helpers: 1, current: &current };
            let mut writes = limits::writes(r, "cpu", &situation).unwrap();
            put_in_order(&mut writes, &current);
            writes.iter().map(|write| write.alternatives[0].0.to_string()).collect()
        };
        let mut r = Resources { cpu_quota_us: Some(20_000), cpu_burst_us: Some(10_000), ..Resources::default() };
        assert_eq!(files(&r, Version::V2, 50_000), ["cpu.max.burst", "cpu.max"], "it falls");
        assert_eq!(files(&r, Version::V2, 5_000), ["cpu.max", "cpu.max.burst"], "it rises");
        r.cpu_period_us = Some(100_000);
        assert_eq!(files(&r, Version::V1, 50_000), ["cpu.cfs_burst_us", "cpu.cfs_period_us", "cpu.cfs_quota_us"]);
        let mut r = Resources { cpu_weight: Some(50), cpu_idle: Some(false), ..Resources::default() };
        assert_eq!(files(&r, Version::V2, 0), ["cpu.idle", "cpu.weight"]);
        r.cpu_idle = Some(true);
        assert_eq!(files(&r, Version::V1, 0), ["cpu.shares", "cpu.idle"]);
    }
}
