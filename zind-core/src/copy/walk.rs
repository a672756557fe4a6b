//! The walk over a tree: an explicit stack of directories, each held by descriptor, so that neither the depth of the tree
//! nor the length of its paths matters, and what is renamed or swapped meanwhile leads nowhere else.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, fstatfs, linkat, mkdirat, mknodat, openat, readlinkat,
    statat, symlinkat,
};
use rustix::io::Errno;

use super::attributes::{Keep, magic_path};
use super::data::{self, Stop};
use super::inside::Inside;
use super::temp::Temp;
use super::{CopyOptions, CopyStats, Pause};
use crate::error::{Error, Result, Step};
use crate::rootfs::fault::{By, Fault};
use crate::rootfs::resolve::{PLACE, Parts, Side};

/// The deepest tree that is copied, in levels.
const DEEPEST: usize = 4096;
/// So many directories of each side are open at most; those in between are opened again on the way back.
const OPEN: usize = 64;
/// So many are opened again at once.
const REOPENED: usize = 32;

/// File systems whose files are the kernel's answers, by their magic numbers: proc, sysfs, cgroup, cgroup2, devpts,
/// debugfs, tracefs, securityfs, bpf, mqueue. A walk does not go down into them.
const PSEUDO: [u32; 10] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x1980_0202,
];

type Id = (u64, u64);

fn id(meta: &Stat) -> Id {
    (meta.st_dev, meta.st_ino)
}

fn kind(meta: &Stat) -> FileType {
    FileType::from_raw_mode(meta.st_mode)
}

/// A directory that is being copied.
struct Level {
    name: OsString,
    /// None while too many others are open.
    dirs: Option<Dirs>,
    source_id: Id,
    target_id: Id,
    meta: Stat,
    entries: std::vec::IntoIter<OsString>,
}

#[derive(Clone)]
struct Dirs {
    source: Rc<OwnedFd>,
    target: Rc<OwnedFd>,
}

/// Where the copy of a file with several names is.
struct Seen {
    /// Below the top of the copy.
    path: PathBuf,
    id: Id,
}

/// What there is at the target.
enum Target {
    Directory(OwnedFd),
    /// Nothing, or something else.
    Entry(OwnedFd, OsString),
}

/// Something that is to be copied, held as a place (`O_PATH`).
struct Source {
    place: OwnedFd,
    meta: Stat,
}

impl Source {
    fn new(place: OwnedFd) -> Result<Source, Fault> {
        let meta = fstat(&place).by("fstat")?;
        Ok(Source { place, meta })
    }

    fn kind(&self) -> FileType {
        kind(&self.meta)
    }
}

/// One call of a copy.
pub(super) struct Walk<'a> {
    options: &'a CopyOptions,
    /// Who gives files to other ids of the caller's range, once it was needed.
    inside: Option<Option<Inside>>,
    step: Step,
    pause: Pause<'a>,
    stats: CopyStats,
    levels: Vec<Level>,
    seen: HashMap<Id, Seen>,
    /// The top of each side, for messages.
    from: PathBuf,
    to: PathBuf,
}

impl<'a> Walk<'a> {
    pub(super) fn new(options: &'a CopyOptions, step: Step, pause: Pause<'a>) -> Walk<'a> {
        Walk {
            inside: None,
            options,
            step,
            pause,
            stats: CopyStats::default(),
            levels: Vec::new(),
            seen: HashMap::new(),
            from: PathBuf::new(),
            to: PathBuf::new(),
        }
    }

    /// Copies `from` to `to`.
    pub(super) fn run(mut self, from: (Side<'_>, &Path), to: (Side<'_>, &Path)) -> Result<CopyStats> {
        (self.from, self.to) = (from.1.to_owned(), to.1.to_owned());
        let parts = Parts::of(from.1);
        let source = self.open_source(from.0, from.1, parts).map_err(|fault| fault.at(self.step, from.1))?;
        let is_dir = source.kind() == FileType::Directory;
        let target = find_target(to.0, to.1, is_dir).map_err(|fault| fault.at(self.step, to.1))?;
        match (target, parts.name) {
            (Target::Directory(dir), _) if parts.inside => self.enter(source, dir, OsString::new())?,
            (Target::Directory(dir), own_name) => {
                let own_name = own_name.unwrap_or_default();
                self.to.push(own_name);
                self.copy_top(source, &dir, own_name)?;
            }
            (Target::Entry(parent, name), _) => self.copy_top(source, &parent, &name)?,
        }
        self.walk()?;
        Ok(self.stats)
    }

    fn open_source(&self, side: Side<'_>, path: &Path, parts: Parts<'_>) -> Result<Source, Fault> {
        let flags = match (parts.directory, self.options.follow_links) {
            (true, _) => OFlags::DIRECTORY,
            (false, true) => OFlags::empty(),
            (false, false) => OFlags::NOFOLLOW,
        };
        Source::new(side.open(path, PLACE | flags)?)
    }

    fn copy_top(&mut self, source: Source, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        if source.kind() == FileType::Directory {
            let target = make_dir(parent, name).map_err(|fault| self.at_target(fault, OsStr::new("")))?;
            self.enter(source, target, OsString::new())
        } else {
            self.copy_entry(&source, parent, name)
        }
    }

    fn walk(&mut self) -> Result<()> {
        while let Some(level) = self.levels.last_mut() {
            match level.entries.next() {
                Some(name) => self.copy_child(&name)?,
                None => self.leave()?,
            }
        }
        Ok(())
    }

    fn copy_child(&mut self, name: &OsStr) -> Result<()> {
        if self.pause.interrupted() {
            return Err(Error::Interrupted);
        }
        let dirs = self.here()?;
        let place = match openat(&*dirs.source, name, PLACE | OFlags::NOFOLLOW, Mode::empty()) {
            // Gone since the directory was listed.
            Err(Errno::NOENT) => {
                self.stats.skipped += 1;
                return Ok(());
            }
            result => result.by("openat").map_err(|fault| self.at_source(fault, name))?,
        };
        let source = Source::new(place).map_err(|fault| self.at_source(fault, name))?;
        if source.kind() == FileType::Directory {
            let target = make_dir(&dirs.target, name).map_err(|fault| self.at_target(fault, name))?;
            self.enter(source, target, name.to_owned())
        } else {
            self.copy_entry(&source, &dirs.target, name)
        }
    }

    /// Begins with a directory.
    fn enter(&mut self, source: Source, target: OwnedFd, name: OsString) -> Result<()> {
        let target_id = id(&fstat(&target).by("fstat").map_err(|fault| self.at_target(fault, &name))?);
        let entries = self.list(&source, target_id).map_err(|fault| self.at_source(fault, &name))?;
        let dirs = Some(Dirs { source: Rc::new(source.place), target: Rc::new(target) });
        let meta = source.meta;
        self.levels.push(Level { name, dirs, source_id: id(&meta), target_id, meta, entries: entries.into_iter() });
        // The top stays open: everything is found again from there.
        if let Some(far @ 1..) = self.levels.len().checked_sub(1 + OPEN) {
            self.levels[far].dirs = None;
        }
        self.stats.directories += 1;
        Ok(())
    }

    /// What is to be copied of a directory.
    fn list(&mut self, source: &Source, target_id: Id) -> Result<Vec<OsString>, Fault> {
        let top_target = self.levels.first().map_or(target_id, |top| top.target_id);
        if top_target == id(&source.meta) {
            return Err(Fault::new("mkdirat", Errno::INVAL).hint("a directory cannot be copied into itself"));
        }
        if self.levels.len() >= DEEPEST {
            return Err(Fault::new("openat", Errno::NAMETOOLONG).hint("the tree is deeper than 4096 levels"));
        }
        let is_mount = self.levels.last().is_some_and(|above| above.meta.st_dev != source.meta.st_dev);
        let stays_behind = |place: &OwnedFd| -> Result<bool, Fault> {
            Ok(self.options.one_file_system || PSEUDO.contains(&(fstatfs(place).by("fstatfs")?.f_type as u32)))
        };
        if is_mount && stays_behind(&source.place)? {
            self.stats.skipped += 1;
            return Ok(Vec::new());
        }
        list(&source.place)
    }

    /// Done with a directory: it gets its attributes now that nothing in it changes any more.
    fn leave(&mut self) -> Result<()> {
        let dirs = self.here()?;
        if let Some(level) = self.levels.last() {
            let meta = level.meta;
            self.keep(&dirs.source, &meta, &dirs.target).map_err(|fault| self.at_target(fault, OsStr::new("")))?;
        }
        self.levels.pop();
        Ok(())
    }

    /// The directories of the level that is being copied, opened again if need be.
    fn here(&mut self) -> Result<Dirs> {
        if let Some(dirs) = self.levels.last().and_then(|level| level.dirs.as_ref()) {
            return Ok(dirs.clone());
        }
        self.reopen().map_err(|fault| self.at_source(fault, OsStr::new("")))
    }

    /// Goes down from the top by names, and looks that each directory is the one it was.
    fn reopen(&mut self) -> Result<Dirs, Fault> {
        let moved = Fault::new("openat", Errno::STALE).hint("a directory was moved away while it was being copied");
        let open = |dir: &OwnedFd, name: &OsStr, wanted: Id| -> Result<Rc<OwnedFd>, Fault> {
            let dir = openat(dir, name, PLACE | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
            let dir = dir.map_err(|errno| if errno == Errno::MFILE { Fault::new("openat", errno) } else { moved })?;
            if id(&fstat(&dir).by("fstat")?) == wanted { Ok(Rc::new(dir)) } else { Err(moved) }
        };
        let last = self.levels.len() - 1;
        let mut dirs = self.levels[0].dirs.clone().ok_or(moved)?;
        for (at, level) in self.levels.iter_mut().enumerate().skip(1) {
            dirs = Dirs {
                source: open(&dirs.source, &level.name, level.source_id)?,
                target: open(&dirs.target, &level.name, level.target_id)?,
            };
            if at + REOPENED > last {
                level.dirs = Some(dirs.clone());
            }
        }
        Ok(dirs)
    }

    /// Copies what is no directory.
    fn copy_entry(&mut self, source: &Source, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        // At the top the paths of the call name it already.
        let shown = if self.levels.is_empty() { OsStr::new("") } else { name };
        match self.copy_any(source, parent, name) {
            Ok(()) => Ok(()),
            Err(Stop::Interrupted) => Err(Error::Interrupted),
            Err(Stop::Fault(fault)) if is_about_source(&fault) => Err(self.at_source(fault, shown)),
            Err(Stop::Fault(fault)) => Err(self.at_target(fault, shown)),
        }
    }

    fn copy_any(&mut self, source: &Source, parent: &OwnedFd, name: &OsStr) -> Result<(), Stop> {
        let kind = source.kind();
        if kind == FileType::Unknown || kind == FileType::Socket && !self.options.layer {
            self.stats.skipped += 1;
            return Ok(());
        }
        check_free(parent, name, self.options.overwrite)?;
        if source.meta.st_nlink > 1 && self.link(source, parent, name)? {
            return Ok(());
        }
        let made = match kind {
            FileType::RegularFile => self.copy_file(source, parent, name)?,
            FileType::Symlink => self.copy_symlink(source, parent, name)?,
            _ => self.copy_node(source, parent, name)?,
        };
        if source.meta.st_nlink > 1 && !self.levels.is_empty() {
            self.seen.insert(id(&source.meta), Seen { path: self.below_top(name), id: made });
        }
        Ok(())
    }

    fn copy_file(&mut self, source: &Source, parent: &OwnedFd, name: &OsStr) -> Result<Id, Stop> {
        let input = open_regular(&source.place)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = |temp: &str| openat(parent, temp, flags, Mode::from_raw_mode(0o600));
        let (temp, output) = Temp::make(parent.as_fd(), "openat", make)?;
        let size = u64::try_from(source.meta.st_size).unwrap_or_default();
        self.stats.bytes += data::copy(input.as_fd(), output.as_fd(), size, &mut self.pause)?;
        self.keep(&source.place, &source.meta, &output)?;
        temp.place(name, self.options.overwrite)?;
        self.stats.files += 1;
        Ok(id(&fstat(&output).by("fstat")?))
    }

    fn copy_symlink(&mut self, source: &Source, parent: &OwnedFd, name: &OsStr) -> Result<Id, Fault> {
        let points_to = readlinkat(&source.place, "", Vec::new()).by("readlinkat")?;
        let make = |temp: &str| symlinkat(points_to.as_c_str(), parent, temp);
        let (temp, ()) = Temp::make(parent.as_fd(), "symlinkat", make)?;
        let made = self.finish(source, parent, temp, name)?;
        self.stats.symlinks += 1;
        Ok(made)
    }

    fn copy_node(&mut self, source: &Source, parent: &OwnedFd, name: &OsStr) -> Result<Id, Fault> {
        let make = |temp: &str| mknodat(parent, temp, source.kind(), Mode::from_raw_mode(0o600), source.meta.st_rdev);
        let (temp, ()) = Temp::make(parent.as_fd(), "mknodat", make).map_err(|fault| match fault.errno {
            Errno::PERM => fault.hint("device nodes are made by root in the initial user namespace (CAP_MKNOD) only"),
            _ => fault,
        })?;
        let made = self.finish(source, parent, temp, name)?;
        self.stats.nodes += 1;
        Ok(made)
    }

    /// Gives a new link or node its attributes and its name, if it is still there.
    fn finish(&mut self, source: &Source, parent: &OwnedFd, temp: Temp<'_>, name: &OsStr) -> Result<Id, Fault> {
        let made = openat(parent, temp.name(), PLACE | OFlags::NOFOLLOW, Mode::empty()).by("openat")?;
        let found = fstat(&made).by("fstat")?;
        if kind(&found) != source.kind() || found.st_nlink != 1 {
            return Err(Fault::new("openat", Errno::STALE).hint("somebody else changed a file that was being made"));
        }
        self.keep(&source.place, &source.meta, &made)?;
        temp.place(name, self.options.overwrite)?;
        Ok(id(&found))
    }

    fn keep(&mut self, source: &OwnedFd, meta: &Stat, target: &OwnedFd) -> Result<(), Fault> {
        let (strict, not_kept) = (self.options.strict, &mut self.stats.not_kept);
        let mut refused = |fault: Fault| {
            *not_kept += 1;
            if strict { Err(fault) } else { Ok(()) }
        };
        let now = fstat(target).by("fstat")?;
        let now = (now.st_uid, now.st_gid);
        let other = self.options.owner.filter(|owner| self.options.by_range && *owner != now);
        let owner = other.map(|_| now).or(self.options.owner);
        let mut keep = Keep { owner, layer: self.options.layer, refused: &mut refused };
        keep.all(source.as_fd(), meta, target.as_fd())?;
        // At last: what belongs to somebody else cannot be changed any more.
        other.map_or(Ok(()), |owner| self.give(target, owner))
    }

    /// Gives a file to another id of the caller's range, by somebody who may.
    fn give(&mut self, target: &OwnedFd, owner: (u32, u32)) -> Result<(), Fault> {
        match self.inside.get_or_insert_with(Inside::of_the_caller) {
            Some(inside) => inside.give(target.as_fd(), owner),
            None => {
                Err(Fault::new("fchownat", Errno::PERM).hint("this user has no ranges in /etc/subuid and /etc/subgid"))
            }
        }
    }

    /// Makes another name of a file that was copied already. False if it was not, or is not where it was put.
    fn link(&mut self, source: &Source, parent: &OwnedFd, name: &OsStr) -> Result<bool, Fault> {
        let copy = self.seen.get(&id(&source.meta)).and_then(|seen| self.find_copy(seen));
        let Some(copy) = copy else { return Ok(false) };
        let path = magic_path(copy.as_fd());
        let make = |temp: &str| linkat(CWD, &path, parent, temp, AtFlags::SYMLINK_FOLLOW);
        // Too many links already, or a file system without them.
        let Ok((temp, ())) = Temp::make(parent.as_fd(), "linkat", make) else { return Ok(false) };
        temp.place(name, self.options.overwrite)?;
        self.stats.hard_links += 1;
        Ok(true)
    }

    fn find_copy(&self, seen: &Seen) -> Option<OwnedFd> {
        let top = self.levels.first()?.dirs.as_ref()?;
        let mut at: Option<OwnedFd> = None;
        for part in &seen.path {
            let dir = at.as_ref().unwrap_or(&top.target);
            at = Some(openat(dir, part, PLACE | OFlags::NOFOLLOW, Mode::empty()).ok()?);
        }
        at.filter(|copy| fstat(copy).is_ok_and(|meta| id(&meta) == seen.id))
    }

    fn below_top(&self, name: &OsStr) -> PathBuf {
        let mut path: PathBuf = self.levels.iter().skip(1).map(|level| &level.name).collect();
        if !name.is_empty() {
            path.push(name);
        }
        path
    }

    fn at_source(&self, fault: Fault, name: &OsStr) -> Error {
        fault.at(self.step, &shown(&self.from, self.below_top(name)))
    }

    fn at_target(&self, fault: Fault, name: &OsStr) -> Error {
        fault.at(self.step, &shown(&self.to, self.below_top(name)))
    }
}

fn shown(top: &Path, below: PathBuf) -> PathBuf {
    if below.as_os_str().is_empty() { top.to_owned() } else { top.join(below) }
}

/// Reading is about the source; all the rest happens at the target.
fn is_about_source(fault: &Fault) -> bool {
    ["open", "read", "pread", "lseek", "readlinkat", "listxattr", "getxattr"].contains(&fault.call)
}

fn find_target(side: Side<'_>, path: &Path, source_is_dir: bool) -> Result<Target, Fault> {
    let parts = Parts::of(path);
    let last = if parts.directory { OFlags::DIRECTORY } else { OFlags::empty() };
    match side.open(path, PLACE | last) {
        Ok(there) if kind(&fstat(&there).by("fstat")?) == FileType::Directory => return Ok(Target::Directory(there)),
        // A link that leads nowhere is replaced.
        Err(fault) if fault.errno == Errno::LOOP && !parts.directory => {}
        Err(fault) if fault.errno != Errno::NOENT => return Err(fault),
        Err(fault) if parts.directory && !source_is_dir => {
            return Err(fault.hint("a path that ends with a slash is a directory, which must be there for a file"));
        }
        Ok(_) | Err(_) => {}
    }
    let name = parts.name.ok_or(Fault::new("openat2", Errno::NOENT))?;
    Ok(Target::Entry(side.open_parent(parts.parent)?, name.to_owned()))
}

/// The names in a directory.
pub(crate) fn list(dir: &OwnedFd) -> Result<Vec<OsString>, Fault> {
    // A place cannot be read from.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    names(openat(dir, ".", flags, Mode::empty()).by("open")?)
}

/// The names in a directory that is open for reading.
pub(crate) fn names(readable: OwnedFd) -> Result<Vec<OsString>, Fault> {
    let mut names = Vec::new();
    for entry in Dir::new(readable).by("open")? {
        let entry = entry.by("getdents64")?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// Opens the content of a regular file that is held as a place. Whatever has its name by now is not touched.
pub(super) fn open_regular(place: &OwnedFd) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(CWD, magic_path(place.as_fd()), flags, Mode::empty()).by("open")
}

/// Looks whether a new entry may come to a name.
pub(super) fn check_free(parent: &OwnedFd, name: &OsStr, overwrite: bool) -> Result<(), Fault> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(meta) if kind(&meta) == FileType::Directory => Err(Fault::new("renameat", Errno::ISDIR)),
        Ok(_) if !overwrite => Err(Fault::new("renameat2", Errno::EXIST).hint("it is there, and overwrite is off")),
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Fault::new("newfstatat", errno)),
    }
}

/// Makes a directory, or takes the one that is there.
fn make_dir(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Fault> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Err(Errno::EXIST) => {}
        result => result.by("mkdirat")?,
    }
    match openat(parent, name, PLACE | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) => Err(Fault::new("openat", Errno::NOTDIR).hint(
            "what is there is no directory, and is not replaced by one; of links to directories only the target itself is followed",
        )),
        result => result.by("openat"),
    }
}
