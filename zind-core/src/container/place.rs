//! [`Containers`]: where containers are kept, how they are found, and what crashed programs left there.
//!
//! `containers/<id>` has one whole container each, since it is made in `containers/.new` and goes by `containers/.trash`, each
//! by one rename(2). `names/<name>` is a symbolic link to the id; it counts if the container has that name. The lock of names/
//! belongs to who changes any of it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{FlockOperation, Mode, OFlags};
use zind_init::monitor::event;

use super::builder::Making;
use super::events::ContainerEvents;
use super::journal::Entry;
use super::state::{self, Dir, Locked, Phase, Record};
use super::{Container, Restarting, State, life};
use crate::error::{At, Error, Result, Step};
use crate::owner;
use crate::process::Exit;
use crate::process::watched::{AUTO, TRASH};
use crate::store::place::{default_place, make_dir, remove_open, try_flock};

const CONTAINERS: &str = "containers";
const NAMES: &str = "names";
const NEW: &str = ".new";

/// The containers of one place: `/var/lib/zind` for root, `$XDG_DATA_HOME/zind` or `~/.local/share/zind` for others, or
/// any directory. A value is cheap to clone.
#[derive(Clone, Debug)]
pub struct Containers(Arc<PathBuf>);

/// Which containers are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those, too, that do not run.
    pub all: bool,
    /// Those that have all of these labels; `None`: whatever the value.
    pub labels: Vec<(String, Option<String>)>,
    /// Those whose name has this in it.
    pub name: Option<String>,
    /// Those in one of these states, whatever `all` says; empty: any.
    pub states: Vec<State>,
}

/// What [`Containers::prune`] has removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// The ids of containers that did not run.
    pub containers: Vec<String>,
    /// Control groups that nobody was in any more.
    pub groups: Vec<PathBuf>,
}

/// A container in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The name of its image, as it was given.
    pub image: Option<String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// What it is doing.
    pub state: State,
    /// Its first process, while it runs.
    pub pid: Option<i32>,
    /// When it was made.
    pub created: SystemTime,
    /// When it was started last.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub finished: Option<SystemTime>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// How often it was started again.
    pub restarts: u32,
    /// As of [`Container::restarting`].
    pub restarting: Option<Restarting>,
}

impl Containers {
    /// Opens the place at `path`, or the user's own, and makes it if it is missing. What programs left there that died in
    /// the middle of something is removed.
    ///
    /// Errors: [`Error::Spec`] without a home; [`Error::State`] if it belongs to somebody else; [`Error::Sys`] at
    /// [`Step::Container`].
    pub fn open(path: Option<&Path>) -> Result<Containers> {
        let place = match path {
            Some(path) => path.to_owned(),
            None => default_place(rustix::process::geteuid().is_root(), |name| std::env::var_os(name))?,
        };
        let place = std::path::absolute(&place).at(Step::Container, "getcwd", &place)?;
        let containers = Containers(Arc::new(place));
        let home = containers.at(CONTAINERS);
        let journal = containers.journal_dir();
        if !journal.is_dir() {
            let new = [NEW, TRASH, AUTO].map(|name| home.join(name));
            let [making, trash, auto] = &new;
            for dir in [&*containers.0, &home, making, trash, &containers.at(NAMES), auto, &journal] {
                make_dir(dir)?;
                // Nothing is made in a place of somebody else.
                owner::check(&containers.0, "containers", Step::Container)?;
            }
        }
        owner::check(&containers.0, "containers", Step::Container)?;
        let own = rustix::process::geteuid().as_raw();
        for dir in [&home, &home.join(NEW), &home.join(TRASH), &home.join(AUTO), &containers.at(NAMES), &journal] {
            let uid = fs::metadata(dir).at(Step::Container, "stat", dir)?.uid();
            if uid != own {
                let text = format!("{} belongs to user {uid}, not to {own}", dir.display());
                return Err(Error::State(text));
            }
        }
        containers.sweep();
        Ok(containers)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The directory it all is in.
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn home(&self) -> PathBuf {
        self.at(CONTAINERS)
    }

    pub(super) fn dir_of(&self, id: &str) -> Dir {
        Dir(self.home().join(id))
    }

    /// The right to change names and who is there.
    fn lock_names(&self) -> Result<Locked> {
        state::lock_dir(&self.at(NAMES), FlockOperation::LockExclusive)
    }

    /// A directory to make a container in.
    pub(super) fn begin(&self) -> Result<Making> {
        let home = self.home().join(NEW);
        Making::new(&home, Dir(home.join(state::new_id()?)))
    }

    /// Brings a container that is made to its place, under its name. `interrupted` is asked while somebody else changes names.
    pub(super) fn publish(
        &self,
        made: Making,
        record: &Record,
        home: &Dir,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let names = self.at(NAMES);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = state::open_at(&names, flags, Mode::empty()).at(Step::Container, "open", &names)?;
        let _lock = state::lock_open(open, &names, interrupted)?;
        if let Some(name) = &record.name {
            self.claim(name, &record.id)?;
        }
        if record.auto_remove {
            let mark = self.home().join(AUTO).join(&record.id);
            fs::write(&mark, "").at(Step::Container, "write", &mark)?;
        }
        let result = fs::rename(&made.dir().0, &home.0).at(Step::Container, "rename", &home.0);
        if result.is_err() {
            record.name.iter().for_each(|name| self.unname(name, &record.id));
            return result;
        }
        made.published();
        self.tell(Entry::new(event::CREATED, &record.id, record.name.as_deref()));
        Ok(())
    }

    /// Gives a name to a container, if no other one has it. The lock of names is held.
    fn claim(&self, name: &str, id: &str) -> Result<()> {
        let path = self.at(NAMES).join(name);
        if let Some(other) = self.named(name)? {
            let name = format!("{name} is the name of {}", state::short(other.id()));
            return Err(Error::Exists { what: "container", name });
        }
        // Left by somebody who died between two steps.
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink(id, &path).at(Step::Container, "symlink", &path)
    }

    /// Takes a name from a container, if it is that one's.
    fn unname(&self, name: &str, id: &str) {
        let path = self.at(NAMES).join(name);
        if fs::read_link(&path).is_ok_and(|link| link.as_os_str() == id) {
            let _ = fs::remove_file(&path);
        }
    }

    /// Takes away the names of a container that cannot say any more what it is called.
    pub(super) fn forget_names(&self, id: &str) {
        let Ok(_lock) = self.lock_names() else { return };
        let Ok(entries) = fs::read_dir(self.at(NAMES)) else { return };
        for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            self.unname(&name, id);
        }
    }

    /// Which container has this name.
    fn named(&self, name: &str) -> Result<Option<Dir>> {
        let path = self.at(NAMES).join(name);
        let link = match fs::read_link(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            result => result.at(Step::Container, "readlink", &path)?,
        };
        let Some(id) = link.to_str().filter(|id| state::is_id(id)) else { return Ok(None) };
        let dir = self.dir_of(id);
        match dir.record() {
            Ok(record) => Ok(Some(dir).filter(|_| record.name.as_deref() == Some(name))),
            Err(Error::NotFound { .. }) => Ok(None),
            // It cannot be read, but its name is taken.
            Err(_) => Ok(Some(dir)),
        }
    }

    pub(super) fn rename(
        &self,
        container: &Container,
        name: &str,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        state::check_name(name)?;
        let dir = container.dir();
        let _change = dir.lock(interrupted)?;
        let _names = self.lock_names()?;
        let mut record = dir.record()?;
        if record.name.as_deref() == Some(name) {
            return Ok(());
        }
        self.claim(name, dir.id())?;
        let before = record.name.replace(name.to_owned());
        if let Err(error) = dir.write_record(&record) {
            self.unname(name, dir.id());
            return Err(error);
        }
        before.iter().for_each(|before| self.unname(before, dir.id()));
        self.tell(Entry::new(event::RENAMED, dir.id(), Some(name)));
        Ok(())
    }

    /// Takes a container away, and then what it had. Its lock is held by the caller.
    pub(super) fn remove(&self, dir: &Dir, name: Option<&str>) -> Result<()> {
        let aside = Dir(self.home().join(TRASH).join(dir.id()));
        {
            let _lock = self.lock_names()?;
            fs::rename(&dir.0, &aside.0).at(Step::Container, "rename", &dir.0)?;
            name.iter().for_each(|name| self.unname(name, dir.id()));
        }
        self.tell(Entry::new(event::DELETED, dir.id(), name));
        let _ = fs::remove_file(self.home().join(AUTO).join(dir.id()));
        remove_tree(&aside.0)
    }

    /// The container with this name or id, or with an id that begins so, if it is the only one.
    ///
    /// Errors: [`Error::NotFound`]; [`Error::Spec`] if it is several; [`Error::Sys`] at [`Step::Container`].
    pub fn find(&self, name: &str) -> Result<Container> {
        let is_name = state::check_name(name).is_ok();
        if let Some(dir) = if is_name { self.named(name)? } else { None } {
            return Ok(Container::new(self.clone(), dir, None));
        }
        let none = || Error::NotFound { what: "container", name: name.chars().take(200).collect() };
        if state::is_id(name) {
            let dir = self.dir_of(name);
            return match fs::metadata(&dir.0) {
                Ok(_) => Ok(Container::new(self.clone(), dir, None)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(none()),
                Err(error) => Err(error).at(Step::Container, "stat", &dir.0),
            };
        }
        if name.is_empty() || name.len() > 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(none());
        }
        let mut all: Vec<Dir> = self.dirs()?.into_iter().filter(|dir| dir.id().starts_with(name)).collect();
        match (all.pop(), all.len()) {
            (Some(dir), 0) => Ok(Container::new(self.clone(), dir, None)),
            (None, _) => Err(none()),
            (Some(_), more) => Err(Error::spec("name", format!("{name:?} is how {} ids begin: say more", more + 1))),
        }
    }

    /// All there are, in no order.
    fn dirs(&self) -> Result<Vec<Dir>> {
        let home = self.home();
        let entries = fs::read_dir(&home).at(Step::Container, "open", &home)?;
        let id = |entry: fs::DirEntry| entry.file_name().into_string().ok().filter(|name| state::is_id(name));
        Ok(entries.filter_map(|entry| entry.ok().and_then(id)).map(|id| self.dir_of(&id)).collect())
    }

    /// The containers that a filter lets through, the latest first. One whose state cannot be read is among those in any
    /// state and without labels, and says so itself when it is asked.
    ///
    /// Errors: [`Error::Sys`] at [`Step::Container`].
    pub fn list(&self, filter: &Filter) -> Result<Vec<Container>> {
        let mut all = self.look(filter)?;
        all.sort_by_key(|(_, summary)| std::cmp::Reverse(summary.as_ref().map(|summary| summary.created)));
        Ok(all.into_iter().map(|(dir, _)| Container::new(self.clone(), dir, None)).collect())
    }

    /// The same in one line each: every file is read once. What cannot be read is left out.
    ///
    /// Errors: as of [`Containers::list`].
    pub fn summaries(&self, filter: &Filter) -> Result<Vec<Summary>> {
        let mut all: Vec<Summary> = self.look(filter)?.into_iter().filter_map(|(_, summary)| summary).collect();
        all.sort_by_key(|summary| std::cmp::Reverse(summary.created));
        Ok(all)
    }

    fn look(&self, filter: &Filter) -> Result<Vec<(Dir, Option<Summary>)>> {
        let mut found = Vec::new();
        for dir in self.dirs()? {
            match self.summary(&dir) {
                Ok(summary) if filter.lets_through(&summary) => found.push((dir, Some(summary))),
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(_) if filter.all && filter.labels.is_empty() && filter.name.is_none() => found.push((dir, None)),
                Err(_) => {}
            }
        }
        Ok(found)
    }

    fn summary(&self, dir: &Dir) -> Result<Summary> {
        let record = dir.record()?;
        let phase = dir.phase(&record)?;
        let state = match &phase {
            Phase::Created => State::Created,
            Phase::Starting => State::Creating,
            Phase::Running(_) if super::running::is_paused(&record) => State::Paused,
            Phase::Running(_) => State::Running,
            Phase::Ended(_) => State::Stopped,
        };
        let (pid, started, finished, restarts) = match &phase {
            Phase::Running(running) => (running.pid(dir), Some(running.started_ns), None, running.restarts),
            Phase::Ended(Some(ended)) => {
                (None, Some(ended.head.began_ns), Some(ended.head.ended_ns), ended.head.restarts)
            }
            Phase::Ended(None) => (None, dir.running()?.map(|(_, running)| running.started_ns), None, 0),
            _ => (None, None, None, 0),
        };
        Ok(Summary {
            exit: life::exit_of(&record, &phase),
            restarting: life::restarting_of(&record, &phase),
            id: record.id,
            name: record.name,
            labels: record.labels,
            image: record.image,
            command: record.command,
            state,
            pid,
            created: state::time_of(record.created_ns),
            started: started.map(state::time_of),
            finished: finished.map(state::time_of),
            restarts,
        })
    }

    /// Deletes every container that does not run, and what is left of others.
    ///
    /// Errors: [`Error::Sys`] at [`Step::Container`].
    pub fn prune(&self) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for dir in self.dirs()? {
            let container = Container::new(self.clone(), dir, None);
            match container.delete(false) {
                Ok(()) => pruned.containers.push(container.id().to_owned()),
                // It runs, somebody else deletes it, or it cannot be read and is not touched.
                Err(Error::State(_) | Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.sweep();
        pruned.groups = crate::cgroup::sweep(None)?;
        Ok(pruned)
    }

    /// What happens to the containers here from now on.
    ///
    /// Errors: [`Error::Sys`] at [`Step::Watch`].
    pub fn events(&self) -> Result<ContainerEvents> {
        ContainerEvents::watch(self, None)
    }

    /// The same, and before that what has happened since the event with this number, itself included, as far as it is kept: the
    /// last four thousand and more.
    ///
    /// Errors: as of [`Containers::events`].
    pub fn events_from(&self, number: u64) -> Result<ContainerEvents> {
        ContainerEvents::watch(self, Some(number))
    }

    /// Containers that have ended without a word of their monitor, with the number of that start.
    pub(super) fn ended_without_a_word(&self) -> Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        for dir in self.dirs()? {
            let Ok(record) = dir.record() else { continue };
            if let (Ok(Phase::Ended(None)), Some(run)) = (dir.phase(&record), &record.run) {
                found.push((record.id, run.number));
            }
        }
        Ok(found)
    }

    /// The directory of containers and that of names, open.
    pub(super) fn open_dirs(&self) -> Result<(OwnedFd, OwnedFd)> {
        let open = |path: PathBuf| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            state::open_at(&path, flags, Mode::empty()).at(Step::Container, "open", &path)
        };
        Ok((open(self.home())?, open(self.at(NAMES))?))
    }

    /// Removes what was left by programs that died in the middle of something. What cannot be removed now is left to a later
    /// one.
    fn sweep(&self) {
        for (name, is_new) in [(NEW, true), (TRASH, false)] {
            let home = self.home().join(name);
            let Ok(entries) = fs::read_dir(&home) else { continue };
            for entry in entries.filter_map(|entry| entry.ok()) {
                let dir = Dir(entry.path());
                // Its maker lives as long as its lock is held, or is just about to take it.
                let is_left = !is_new || is_abandoned(&home, &dir);
                if is_left {
                    let _ = remove_tree(&dir.0);
                }
            }
        }
        let Ok(entries) = fs::read_dir(self.home().join(AUTO)) else { return };
        for entry in entries.filter_map(|entry| entry.ok()) {
            let Ok(id) = entry.file_name().into_string() else { continue };
            let dir = self.dir_of(&id);
            match dir.record().and_then(|record| dir.phase(&record)) {
                Ok(Phase::Ended(_)) => {
                    let _ = Container::new(self.clone(), dir, None).delete(false);
                }
                Err(Error::NotFound { .. }) if state::is_id(&id) => {
                    // Another one may be about to come to its place.
                    if let Ok(_lock) = self.lock_names()
                        && matches!(dir.0.try_exists(), Ok(false))
                    {
                        let _ = fs::remove_file(entry.path());
                    }
                }
                _ => {}
            }
        }
    }
}

impl Filter {
    fn lets_through(&self, summary: &Summary) -> bool {
        let has_state = match self.states.as_slice() {
            [] => self.all || matches!(summary.state, State::Running | State::Paused | State::Creating),
            states => states.contains(&summary.state),
        };
        let has_label = |(name, value): &(String, Option<String>)| {
            summary.labels.get(name).is_some_and(|have| value.as_ref().is_none_or(|value| value == have))
        };
        let has_name = |part: &String| summary.name.as_ref().is_some_and(|name| name.contains(part.as_str()));
        has_state && self.labels.iter().all(has_label) && self.name.iter().all(has_name)
    }
}

/// True if nobody makes it any more.
fn is_abandoned(home: &Path, dir: &Dir) -> bool {
    let Ok(_nobody_begins) = state::lock_dir(home, FlockOperation::NonBlockingLockExclusive) else { return false };
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match state::open_at(dir.at(state::LOCK), flags, Mode::empty()) {
        Ok(file) => try_flock(&file),
        Err(errno) => errno == rustix::io::Errno::NOENT,
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match state::open_at(path, flags, Mode::empty()) {
        Ok(dir) => remove_open(path, &dir).map(drop),
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).at(Step::Container, "open", path),
    }
}
