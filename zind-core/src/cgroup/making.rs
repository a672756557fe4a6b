//! Making a group: below the caller's own one, below a named one, or later in a scope of systemd's.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nix::errno::Errno;
use rustix::fs::Mode;

use super::events::LastWords;
use super::limits::Version;
use super::place::{Place, Places};
use super::writing::unified_controller;
use super::{Cgroup, Layout, Part, Resources, delegation, files, limits, owner, place, readings};
use crate::error::{At, Error, IntoErrno, Result, Step};
use crate::sys::clone::Keeper;

/// A part that is made in a scope of systemd's, and what is written to it then.
#[derive(Debug)]
pub(super) struct Later {
    scope: delegation::Scope,
    name: String,
    needed: Vec<&'static str>,
    resources: Resources,
    /// Something was asked for; else it is for readings only, and may be missing.
    is_required: bool,
    /// Whom it is given to: [`Cgroup::give`].
    owner: Option<(u32, u32)>,
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
pub(super) fn fill_cpuset(dir: &Path) -> Result<()> {
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
