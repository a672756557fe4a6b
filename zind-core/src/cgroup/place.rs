//! Where groups are made: below the caller's own group, below an ancestor that is the caller's to use, or below the one
//! that was named.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nix::errno::Errno;
use rustix::fs::{Access, AtFlags, CWD, Mode, accessat, mkdir};

use super::delegation::{self, Scope};
use super::files::{exists, has_word, open_dir, read, write};
use super::layout::{HOLDS, Hierarchy, Layout};
use super::limits::Version;
use super::making::fill_cpuset;
use crate::error::{Error, IntoErrno, Result, Step};

/// One directory below which a group is made.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) version: Version,
    pub(super) dir: PathBuf,
    /// What can be set in groups below.
    pub(super) controllers: Vec<String>,
    /// Something was asked for that is here; else it is for readings only, and may be missing.
    pub(super) is_required: bool,
}

/// The places, and the directories that had to be made for them.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) list: Vec<Place>,
    /// Those that this process made, now or for another container.
    pub(super) made: Vec<PathBuf>,
    /// The group of version 2 is made later, when the launcher is there: in a scope of systemd's.
    pub(super) scope: Option<Scope>,
    /// Why there is none for what nobody insisted on: the first reason.
    pub(super) refused: Option<Error>,
    /// It was found a moment ago, and nothing was looked at again.
    pub(super) is_old: bool,
}

/// Directories on the way to a named parent that this process has made: they go with the last container in there.
static MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// What is good to have for readings, where it costs nobody much. Not "io", which slows down everybody's groups and disks: it is
/// used where it is on already, and switched on where a limit is asked for.
pub(super) const WANTED: [&str; 3] = ["memory", "pids", "cpu"];

/// What a look was for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    layout: &'a Layout,
    needed: &'a [(Version, &'static str)],
    needs_v2: bool,
}

/// What the last look has found, and what it was for.
struct Found {
    layout: Layout,
    needed: Vec<(Version, &'static str)>,
    needs_v2: bool,
    user: u32,
    at: Instant,
    list: Vec<Place>,
}

impl Found {
    fn new(asked: Asked<'_>, list: &[Place]) -> Found {
        Found {
            layout: asked.layout.clone(),
            needed: asked.needed.to_vec(),
            needs_v2: asked.needs_v2,
            user: rustix::process::geteuid().as_raw(),
            at: Instant::now(),
            list: list.to_vec(),
        }
    }

    fn holds_for(&self, asked: Asked<'_>) -> bool {
        self.at.elapsed() < HOLDS
            && (&self.layout, &self.needed[..], self.needs_v2) == (asked.layout, asked.needed, asked.needs_v2)
            && self.user == rustix::process::geteuid().as_raw()
    }
}

/// One start after the other looks once. What has changed meanwhile shows by an error, and then it is looked again.
static FOUND: Mutex<Option<Found>> = Mutex::new(None);

impl Places {
    /// Finds a directory for each controller that is needed. `needs_v2`: the group in version 2 is needed by itself.
    /// `may_be_old`: what was found a moment ago will do.
    pub(super) fn find(
        layout: &Layout,
        needed: &[(Version, &'static str)],
        needs_v2: bool,
        parent: Option<&Path>,
        may_be_old: bool,
    ) -> Result<Places> {
        let asked = Asked { layout, needed, needs_v2 };
        if may_be_old && parent.is_none() {
            let found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = found.as_ref().filter(|found| found.holds_for(asked)) {
                return Ok(Places { list: found.list.clone(), is_old: true, ..Places::default() });
            }
        }
        let mut places = Places::default();
        let result = places.look(layout, needed, needs_v2, parent);
        if result.is_err() {
            places.remove_made();
        }
        let is_plain = parent.is_none() && places.scope.is_none() && places.refused.is_none();
        if result.is_ok() && is_plain {
            *FOUND.lock().unwrap_or_else(PoisonError::into_inner) = Some(Found::new(asked, &places.list));
        }
        result.map(|()| places)
    }

    fn look(
        &mut self,
        layout: &Layout,
        needed: &[(Version, &'static str)],
        needs_v2: bool,
        parent: Option<&Path>,
    ) -> Result<()> {
        let of = |version| needed.iter().filter(move |(other, _)| *other == version).map(|(_, name)| *name);
        let on_v2: Vec<&str> = of(Version::V2).collect();
        if let Some(v2) = &layout.v2 {
            let is_required = needs_v2 || !on_v2.is_empty();
            match self.v2(v2, &on_v2, parent) {
                // In a hybrid only for what is asked for: the groups of version 1 have the rest.
                Ok(OnV2::Scope(scope)) if is_required || layout.v1.is_empty() => self.scope = Some(scope),
                Ok(OnV2::Scope(_)) => {}
                Ok(OnV2::Dir(dir)) => {
                    let controllers = controllers_below(&dir);
                    self.list.push(Place { version: Version::V2, dir, controllers, is_required });
                }
                Err(error) if is_required => return Err(error),
                Err(error) => self.refused = Some(error),
            }
        } else if let Some(controller) = on_v2.first() {
            return Err(Error::unsupported(*controller, format!("{NOWHERE}; {}", nowhere_cure(layout))));
        } else if needs_v2 {
            return Err(Error::unsupported("devices", format!("{NOWHERE}; {}", nowhere_cure(layout))));
        }
        let on_v1: Vec<&str> = of(Version::V1).collect();
        let has_v2 = self.list.iter().any(|place| place.version == Version::V2);
        for hierarchy in &layout.v1 {
            let is_required = on_v1.iter().any(|name| hierarchy.has(name));
            let is_wanted = ["memory", "pids"].iter().any(|name| hierarchy.has(name))
                || (!has_v2 && ["cpuacct", "freezer"].iter().any(|name| hierarchy.has(name)));
            if !is_required && !is_wanted {
                continue;
            }
            match self.v1(hierarchy, parent) {
                Ok(dir) => {
                    let controllers = hierarchy.controllers.clone();
                    self.list.push(Place { version: Version::V1, dir, controllers, is_required });
                }
                Err(error) if is_required => return Err(error),
                Err(error) => self.refused = self.refused.take().or(Some(error)),
            }
        }
        Ok(())
    }

    /// Removes the directories on the way to a named parent, as far as nobody else is in there.
    pub(super) fn remove_made(&self) {
        let mut ours = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        for dir in self.made.iter().rev() {
            if matches!(rustix::fs::rmdir(dir), Ok(()) | Err(rustix::io::Errno::NOENT)) {
                ours.remove(dir);
            }
        }
    }

    fn v1(&mut self, hierarchy: &Hierarchy, parent: Option<&Path>) -> Result<PathBuf> {
        if let Some(parent) = parent {
            return self.descend(hierarchy, parent, |_| Ok(()));
        }
        hierarchy.own.clone().ok_or_else(|| invisible(hierarchy))
    }

    fn v2(&mut self, hierarchy: &Hierarchy, asked: &[&str], parent: Option<&Path>) -> Result<OnV2> {
        let dir = match self.v2_dir(hierarchy, asked, parent)? {
            OnV2::Dir(dir) => dir,
            // systemd moves the launcher itself.
            scope => return Ok(scope),
        };
        match barrier(hierarchy, &dir) {
            None => Ok(OnV2::Dir(dir)),
            Some(above) => Err(Error::unsupported(
                if asked.is_empty() { "a control group".to_owned() } else { asked.join(", ") },
                format!(
                    "nobody comes from the group of this process into one below {}: on control groups v2 that takes the right \
                     to write to {}; root has to move this process into a group below the one it has handed over",
                    dir.display(),
                    above.join("cgroup.procs").display()
                ),
            )),
        }
    }

    fn v2_dir(&mut self, hierarchy: &Hierarchy, asked: &[&str], parent: Option<&Path>) -> Result<OnV2> {
        let slice = parent.and_then(Path::to_str).filter(|name| name.ends_with(".slice") && !name.contains('/'));
        if let (Some(parent), None) = (parent, slice) {
            let dir = self.descend(hierarchy, parent, |dir| match is_enabled(dir, asked) {
                true => Ok(()),
                false => make_usable(dir, asked).map(drop).map_err(|why| why.into_error(dir, asked)),
            })?;
            make_usable(&dir, asked).map_err(|why| why.into_error(&dir, asked))?;
            return Ok(OnV2::Dir(dir));
        }
        let top = match delegation::v2(hierarchy, asked, slice)? {
            delegation::Found::Scope(scope) => return Ok(OnV2::Scope(scope)),
            delegation::Found::Free(top) => top,
        };
        let own = hierarchy.own.as_ref().ok_or_else(|| invisible(hierarchy))?;
        // One that has what was asked for, but not all for readings, is the second choice.
        let mut second = None;
        let first = match make_usable(own, asked) {
            Ok(true) => return Ok(OnV2::Dir(own.clone())),
            Ok(false) => {
                second = Some(own.clone());
                None
            }
            Err(why) => Some(why.into_error(own, asked)),
        };
        let top = top.as_deref().unwrap_or(&hierarchy.mount);
        for dir in own.ancestors().skip(1).take_while(|dir| dir.starts_with(top)) {
            if barrier(hierarchy, dir).is_some() {
                continue;
            }
            match make_usable(dir, asked) {
                Ok(true) => return Ok(OnV2::Dir(dir.to_owned())),
                Ok(false) => second = second.or(Some(dir.to_owned())),
                Err(_) => {}
            }
        }
        if let Some(dir) = second {
            return Ok(OnV2::Dir(dir));
        }
        // The root has no limits of its own, and nobody's groups are disturbed by one more.
        let is_root = open_dir(&hierarchy.mount).is_ok_and(|dir| is_real_root(dir.as_fd()));
        if is_root && top == hierarchy.mount && make_usable(&hierarchy.mount, asked).is_ok() {
            return Ok(OnV2::Dir(hierarchy.mount.clone()));
        }
        Err(first.unwrap_or_else(|| invisible(hierarchy)))
    }

    /// The directory of a named group, made where it is missing; `pass` is asked about each one above it.
    fn descend(
        &mut self,
        hierarchy: &Hierarchy,
        parent: &Path,
        mut pass: impl FnMut(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let mut dir = hierarchy.mount.clone();
        for part in parent.components() {
            let name = match part {
                Component::Normal(name) => name,
                Component::RootDir | Component::CurDir => continue,
                _ => return Err(Error::spec("cgroup_parent", format!("{} has \"..\" in it", parent.display()))),
            };
            pass(&dir)?;
            dir.push(name);
            match mkdir(&dir, Mode::from_raw_mode(0o755)).map_err(IntoErrno::into_errno) {
                Ok(()) => {
                    MADE.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.clone());
                    self.made.push(dir.clone());
                    fill_cpuset(&dir)?;
                }
                Err(Errno::EEXIST) => {
                    if MADE.lock().unwrap_or_else(PoisonError::into_inner).contains(&dir) {
                        self.made.push(dir.clone());
                    }
                }
                Err(_) if dir.is_dir() => {}
                Err(errno) => return Err(refused(&dir, errno)),
            }
        }
        Ok(dir)
    }
}

/// Where the group of version 2 is made.
enum OnV2 {
    Dir(PathBuf),
    Scope(Scope),
}

/// The error of a directory that could not be made.
pub(super) fn refused(dir: &Path, errno: Errno) -> Error {
    let hint = match errno {
        Errno::EACCES | Errno::EPERM | Errno::EROFS => cure_of(dir),
        Errno::EAGAIN => "cgroup.max.depth or cgroup.max.descendants of a group above is reached".to_owned(),
        Errno::ENOENT => "the group above was removed meanwhile".to_owned(),
        Errno::ENOSPC | Errno::ENOMEM => {
            "the kernel has no room for another group of this kind (65535 for memory)".to_owned()
        }
        Errno::EEXIST => {
            "there is a group of this name, which is somebody else's: remove it, or name another cgroup_parent"
                .to_owned()
        }
        _ => String::new(),
    };
    Error::sys(Step::MakeCgroup, "mkdir", dir, errno).with_hint(hint)
}

/// The error about a directory that this user may not make.
pub(super) fn forbidden(feature: &str, dir: &Path, errno: Errno) -> Error {
    let what = format!("{}: {} ({errno:?}) from mkdir", dir.display(), crate::error::describe(errno));
    Error::unsupported(feature, format!("{what}; {}", cure_of(dir)))
}

/// How an ordinary user comes by a group of its own.
fn cure_of(dir: &Path) -> String {
    let is_v2 = exists_at(dir.parent().unwrap_or(dir), "cgroup.controllers");
    let how = if is_v2 {
        "run as root, or in a delegated group: systemd-run --user --scope -p Delegate=yes COMMAND"
    } else {
        "run as root, or let root make a group in each hierarchy, give it to this user (chown -R) and move this process there"
    };
    format!("this user may make no groups there: {how}; without one there are rlimits only")
}

const NOWHERE: &str = "no hierarchy with this controller is mounted";

fn nowhere_cure(layout: &Layout) -> &'static str {
    match layout.kind() {
        "none" => "as root: mount -t cgroup2 none /sys/fs/cgroup",
        _ => "the kernel lacks it, or it is mounted nowhere: see /proc/cgroups",
    }
}

fn invisible(hierarchy: &Hierarchy) -> Error {
    let mount = hierarchy.mount.display();
    Error::unsupported(
        "a control group",
        format!(
            "the group of this process lies outside of what is mounted at {mount}; name another one with cgroup_parent"
        ),
    )
}

/// Why no groups with these controllers can be made below a directory.
enum Why {
    NotWritable,
    Lacks(String),
    /// It has processes, so its controllers cannot be handed down.
    HasProcesses,
    Refused(Errno),
}

impl Why {
    fn into_error(self, dir: &Path, asked: &[&str]) -> Error {
        let feature = if asked.is_empty() { "a control group".to_owned() } else { asked.join(", ") };
        match self {
            Why::NotWritable => forbidden(&feature, &dir.join("zind-*"), Errno::EACCES),
            Why::Lacks(name) => Error::unsupported(
                name,
                format!(
                    "{} does not have that controller: the groups above do not hand it down (cgroup.subtree_control; with \
                     systemd: Delegate=yes), or the kernel lacks it",
                    dir.display()
                ),
            ),
            Why::HasProcesses => Error::sys(Step::MakeCgroup, "write", dir.join("cgroup.subtree_control"), Errno::EBUSY)
                .with_hint(format!(
                    "+{} was to be written, but a group with processes cannot hand controllers down: run in a delegated group \
                     (systemd-run --user --scope -p Delegate=yes COMMAND) whose processes are in a group below, or name an \
                     empty one with cgroup_parent",
                    asked.join(" +")
                )),
            Why::Refused(errno) => Error::sys(Step::MakeCgroup, "write", dir.join("cgroup.subtree_control"), errno)
                .with_hint(format!("+{} was to be written", asked.join(" +"))),
        }
    }
}

/// Sees to it that groups below `dir` can have the controllers. True if they have all that there are for readings, too.
fn make_usable(dir: &Path, asked: &[&str]) -> Result<bool, Why> {
    let may = |path: &Path| accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    if !may(dir) || !may(&dir.join("cgroup.procs")) {
        return Err(Why::NotWritable);
    }
    let fd = open_dir(dir).map_err(Why::Refused)?;
    let fd = fd.as_fd();
    let enabled = read(fd, "cgroup.subtree_control").map_err(Why::Refused)?;
    let missing = |names: &[&'static str]| names.iter().any(|name| !has_word(&enabled, name));
    if asked.iter().all(|name| has_word(&enabled, name)) && !missing(&WANTED) {
        return Ok(true);
    }
    let available = read(fd, "cgroup.controllers").map_err(Why::Refused)?;
    if let Some(lacks) = asked.iter().find(|name| !has_word(&available, name)) {
        return Err(Why::Lacks((*lacks).to_owned()));
    }
    let is_free = is_real_root(fd) || read(fd, "cgroup.procs").is_ok_and(|text| text.is_empty());
    let to_enable: Vec<String> =
        asked.iter().filter(|name| !has_word(&enabled, name)).map(|name| format!("+{name}")).collect();
    if !to_enable.is_empty() {
        if !is_free {
            return Err(Why::HasProcesses);
        }
        match write(fd, "cgroup.subtree_control", &to_enable.join(" ")) {
            Ok(()) => {}
            Err(Errno::EBUSY) => return Err(Why::HasProcesses),
            Err(errno) => return Err(Why::Refused(errno)),
        }
    }
    let mut wanted = WANTED.iter().filter(|name| has_word(&available, name) && !has_word(&enabled, name));
    if !is_free {
        return Ok(wanted.next().is_none());
    }
    let mut has_all = true;
    for name in wanted {
        has_all &= write(fd, "cgroup.subtree_control", &format!("+{name}")).is_ok();
    }
    Ok(has_all)
}

/// On version 2, the group above the caller's own and `dir` if this user may take nobody from the one to the other.
pub(super) fn barrier(hierarchy: &Hierarchy, dir: &Path) -> Option<PathBuf> {
    let own = hierarchy.own.as_ref().unwrap_or(&hierarchy.mount);
    let above = own.ancestors().find(|above| dir.starts_with(above))?;
    let may = accessat(CWD, above.join("cgroup.procs"), Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    (!may).then(|| above.to_owned())
}

fn is_enabled(dir: &Path, asked: &[&str]) -> bool {
    let enabled = std::fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    asked.iter().all(|name| has_word(&enabled, name))
}

/// The controllers of groups below.
fn controllers_below(dir: &Path) -> Vec<String> {
    let enabled = std::fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    enabled.split_ascii_whitespace().map(str::to_owned).collect()
}

/// The root of the hierarchy, and not only what a cgroup namespace shows as one: it alone has no type.
fn is_real_root(dir: BorrowedFd<'_>) -> bool {
    !exists(dir, "cgroup.type")
}

fn exists_at(dir: &Path, name: &str) -> bool {
    dir.join(name).exists()
}
