//! From the entries of a layer to a directory that overlayfs takes as a layer.
//!
//! Everything goes by descriptors of directories that this walk has made or opened itself; no name with a slash reaches the
//! kernel, no link is followed by it. Links among the parents of an entry are followed here, inside of the root.
//!
//! Whiteouts become devices 0:0, where they hide something. There are no opaque marks: what an opaque directory hides gets
//! whiteouts, one by one. So no extended attributes are needed, and the directory serves in any user namespace.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{FileType, SeekFrom, Stat, fgetxattr, fstat, ftruncate, getxattr, listxattr, readlinkat, seek};
use rustix::io::Errno;

use super::below::{Below, PLACE, is_whiteout, join, look_at, split};
use super::limits::Limits;
use super::tar::{Broken, Entry, Kind, Reader, shorten};
use crate::copy::{self, Attributes, Hands};
use crate::error::Step;
use crate::image::links::{self, LINKS_XATTR, Links};
use crate::namespace::idmap::to_host;
use crate::rootfs::fault::{By, Fault};
use crate::rootfs::resolve::Side;
use crate::store::Owners;

/// Directories that stay open.
const OPEN: usize = 64;
/// Links that are followed on one path, as the kernel has it.
const MOST_LINKS: usize = 40;
/// As long as a path may be: `PATH_MAX` without its NUL.
const LONGEST: usize = 4095;
/// Records of what was left out that are kept; all are counted.
const MOST_LEFT: usize = 100;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What else begins so is aufs's own.
const META: &[u8] = b".wh..wh.";

/// Where the ids and modes are when files are all the caller's.
pub(crate) const OWNER_XATTR: &[u8] = b"user.zind.owner";
/// The file capabilities that an ordinary user may not set.
pub(crate) const CAPABILITY_XATTR: &[u8] = b"user.zind.capability";

/// Why a layer is not unpacked.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The archive breaks a rule: entry and rule.
    Rule(String, String),
    /// The kernel refused, at a path in the layer.
    Fault(OsString, Fault),
    /// The bytes ended or broke: see whoever sends them.
    Source(std::io::Error),
    /// Somebody asked to stop.
    Stopped,
}

/// As many directories are remembered to hide everything below.
const OPAQUE_KNOWN: usize = 1024;

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) entries: u64,
    /// Bytes of files.
    pub(crate) bytes: u64,
    /// What this user or file system does not allow: how much, and the first of them.
    pub(crate) left: u64,
    pub(crate) left_list: Vec<String>,
}

/// A directory that is open.
struct Node {
    fd: OwnedFd,
    path: Vec<u8>,
    /// What it gets when it is closed: its time, which changes while files are made in it, and its mode, which may
    /// forbid that.
    time: (i64, u32),
    mode: Option<u32>,
    /// New entries get the group of the directory.
    setgid: bool,
    /// Whose its links are, where all files are the caller's.
    links: Links,
    /// They are not on disk yet.
    links_changed: bool,
    used: u64,
}

pub(crate) struct Apply<'a> {
    hands: &'a mut dyn Hands,
    below: Below,
    owners: &'a Owners,
    limits: Limits,
    /// Effective ids: what new files have by themselves.
    own: (u32, u32),
    root: OwnedFd,
    nodes: HashMap<Vec<u8>, Node>,
    clock: u64,
    /// The parent of the last entry, as it was written, and where it really is.
    last_parent: Option<(Vec<u8>, Vec<u8>)>,
    root_was_given: bool,
    /// Directories of this layer in which nothing shows from below any more.
    opaque: HashSet<Vec<u8>>,
    unpacked: Unpacked,
}

impl<'a> Apply<'a> {
    /// `root` is an empty directory; `below` are the layers under it.
    pub(crate) fn new(
        hands: &'a mut dyn Hands,
        root: OwnedFd,
        below: Below,
        owners: &'a Owners,
        limits: Limits,
    ) -> Apply<'a> {
        let own = hands.own();
        Apply {
            hands,
            below,
            owners,
            limits,
            own,
            root,
            nodes: HashMap::new(),
            clock: 0,
            last_parent: None,
            root_was_given: false,
            opaque: HashSet::new(),
            unpacked: Unpacked::default(),
        }
    }

    /// Unpacks everything. `stopped` is asked at each entry and now and then in long files.
    pub(crate) fn run<R: BufRead>(
        mut self,
        reader: &mut Reader<R>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Unpacked, Stop> {
        self.open_root()?;
        loop {
            let entry = match reader.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(broken) => return Err(self.broken(broken)),
            };
            if stopped() {
                return Err(Stop::Stopped);
            }
            self.unpacked.entries += 1;
            if self.unpacked.entries > self.limits.entries {
                return self.rule(&entry.path, format!("is one more than {} entries", self.limits.entries));
            }
            self.entry(&entry, reader, stopped)?;
        }
        self.finish()
    }

    fn broken(&self, broken: Broken) -> Stop {
        match broken {
            Broken::Rule(rule) => Stop::Rule(format!("entry {}", self.unpacked.entries + 1), rule),
            Broken::Io(error) => Stop::Source(error),
        }
    }

    fn rule<T>(&self, path: &[u8], rule: impl Into<String>) -> Result<T, Stop> {
        Err(Stop::Rule(format!("entry {}", shorten(path)), rule.into()))
    }

    fn entry<R: BufRead>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), Stop> {
        let path = self.clean(&entry.path, &entry.path, WHITEOUT.len())?;
        let Some((parent, name)) = split(&path) else {
            if entry.kind != Kind::Directory {
                return self.rule(&entry.path, "is in place of the root, which is a directory");
            }
            return self.set_root(entry);
        };
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(entry, parent, name, hidden, stopped);
        }
        let parent = self.parent(entry, parent)?;
        let name = OsStr::from_bytes(name);
        match entry.kind {
            Kind::Directory => self.directory(entry, &parent, name, stopped),
            Kind::File => self.file(entry, &parent, name, reader, stopped),
            Kind::HardLink => self.hard_link(entry, &parent, name),
            Kind::Symlink => self.symlink(entry, &parent, name),
            Kind::Fifo => self.node(entry, &parent, name, FileType::Fifo, (0, 0)),
            Kind::Char(0, 0) => self.rule(&entry.path, "is a device 0:0, which means a deletion to the kernel"),
            Kind::Char(major, minor) => self.node(entry, &parent, name, FileType::CharacterDevice, (major, minor)),
            Kind::Block(major, minor) => self.node(entry, &parent, name, FileType::BlockDevice, (major, minor)),
        }
    }

    /// A name without what means nothing. Names that begin with a slash are meant from the root, as everybody has it.
    /// The mark of a deletion may have `more` bytes: those that are no part of what is deleted.
    fn clean(&self, path: &[u8], entry: &[u8], more: usize) -> Result<Vec<u8>, Stop> {
        if path.is_empty() {
            return self.rule(entry, "has no name");
        }
        let mut clean = Vec::with_capacity(path.len());
        let (mut depth, mut room) = (0, 0);
        let mut parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).peekable();
        while let Some(part) = parts.next() {
            if part == b".." {
                return self.rule(entry, "has a \"..\" in its name");
            }
            if parts.peek().is_none() && part.starts_with(WHITEOUT) {
                room = more;
            }
            if part.len() > 255 + room {
                return self.rule(entry, "has a name longer than 255 bytes (ENAMETOOLONG)");
            }
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(part);
            depth += 1;
        }
        if clean.len() > LONGEST + room {
            return self.rule(entry, "has a path longer than 4095 bytes (ENAMETOOLONG)");
        }
        if depth > self.limits.depth {
            return self.rule(entry, format!("is deeper than {} directories", self.limits.depth));
        }
        Ok(clean)
    }

    // Directories that are open.

    fn open_root(&mut self) -> Result<(), Stop> {
        let fd = self.root.try_clone().map_err(|_| at(b"", Fault::new("dup", Errno::MFILE)))?;
        let node = Node {
            fd,
            path: Vec::new(),
            time: (0, 0),
            mode: Some(0o755),
            setgid: false,
            links: Links::new(),
            links_changed: false,
            used: 0,
        };
        self.nodes.insert(Vec::new(), node);
        self.links_of_below(b"")
    }

    // Whose links are.

    /// Adds to a directory what those below it say about their links.
    fn links_of_below(&mut self, path: &[u8]) -> Result<(), Stop> {
        if *self.owners != Owners::Xattr || self.below.is_empty() {
            return Ok(());
        }
        let found = self.below.find(self.hands, path).map_err(|fault| at(path, fault))?;
        let Some(found) = found.filter(|found| found.kind() == FileType::Directory) else { return Ok(()) };
        let mut value = vec![0; 1 << 16];
        // A place has no attributes of its own; what it stands for is read by its path.
        if let Ok(length) = getxattr(copy::magic_path(found.place.as_fd()).as_str(), LINKS_XATTR, &mut value[..]) {
            self.add_links(path, &value[..length]);
        }
        Ok(())
    }

    /// Adds what an attribute says, unless something is known already.
    fn add_links(&mut self, path: &[u8], value: &[u8]) {
        let Some(node) = self.nodes.get_mut(path) else { return };
        for (name, owner) in links::parse(value) {
            node.links.entry(name).or_insert_with(|| {
                node.links_changed = true;
                owner
            });
        }
    }

    /// Notes whose a link or FIFO is.
    fn note_link(&mut self, entry: &Entry, parent: &[u8], name: &OsStr) -> Result<(), Stop> {
        let owner = (u32::try_from(entry.uid).unwrap_or(0), u32::try_from(entry.gid).unwrap_or(0));
        self.set_link(parent, name, (owner != (0, 0)).then_some(owner))
    }

    fn set_link(&mut self, parent: &[u8], name: &OsStr, owner: Option<(u32, u32)>) -> Result<(), Stop> {
        if *self.owners != Owners::Xattr {
            return Ok(());
        }
        self.dir(parent)?;
        let Some(node) = self.nodes.get_mut(parent) else { return Ok(()) };
        let before = match owner {
            Some(owner) => node.links.insert(name.as_bytes().to_vec(), owner),
            None => node.links.remove(name.as_bytes()),
        };
        node.links_changed |= before != owner;
        Ok(())
    }

    /// Puts them on disk. What does not fit there is noted as left out.
    fn keep_links(&mut self, node: &Node) -> Result<(), Stop> {
        if !node.links_changed {
            return Ok(());
        }
        let value = links::to_bytes(&node.links);
        let attributes = Attributes { xattrs: vec![(LINKS_XATTR.to_vec(), value)], ..Attributes::default() };
        let is_left = match self.hands.set(node.fd.as_fd(), &attributes) {
            Ok(left) => !left.is_empty(),
            Err(Fault { errno: Errno::NOSPC | Errno::TOOBIG | Errno::RANGE, .. }) => true,
            Err(fault) => return Err(at(&node.path, fault)),
        };
        if is_left {
            let path = join(&node.path, b"");
            self.note_left(&path, vec![format!("owners of {} links", node.links.len()).into_bytes()]);
        }
        Ok(())
    }

    /// Makes an open directory the last that is closed. False: it is not open.
    fn touch(&mut self, path: &[u8]) -> bool {
        self.clock += 1;
        let clock = self.clock;
        self.nodes.get_mut(path).map(|node| node.used = clock).is_some()
    }

    /// The descriptor of a directory in this layer, by its path without links. It is opened if it is not.
    fn dir(&mut self, path: &[u8]) -> Result<&Node, Stop> {
        if !self.touch(path) {
            // From the deepest one above it that is open.
            let mut from = path;
            while let Some((parent, _)) = split(from) {
                from = parent;
                if self.nodes.contains_key(from) {
                    break;
                }
            }
            let mut end = from.len();
            while end < path.len() {
                let begin = if end == 0 { 0 } else { end + 1 };
                let next = path[begin..].iter().position(|byte| *byte == b'/').map_or(path.len(), |len| begin + len);
                let name = OsStr::from_bytes(&path[begin..next]);
                self.touch(&path[..end]);
                let above = &self.nodes[&path[..end]];
                let fd = self.hands.open_dir(above.fd.as_fd(), name).map_err(|fault| at(&path[..next], fault))?;
                let meta = fstat(&fd).by("fstat").map_err(|fault| at(&path[..next], fault))?;
                self.add(&path[..next], fd, &meta)?;
                end = next;
            }
        }
        Ok(&self.nodes[path])
    }

    /// Keeps a directory open whose attributes are on disk already.
    fn add(&mut self, path: &[u8], fd: OwnedFd, meta: &Stat) -> Result<(), Stop> {
        let time = (meta.st_mtime, u32::try_from(meta.st_mtime_nsec).unwrap_or_default());
        let mode = meta.st_mode & 0o7777;
        let setgid = mode & 0o2000 != 0;
        let mut links = Links::new();
        if *self.owners == Owners::Xattr {
            let mut value = vec![0; 1 << 16];
            if let Ok(length) = fgetxattr(&fd, LINKS_XATTR, &mut value[..]) {
                links = links::parse(&value[..length]);
            }
        }
        let path = path.to_vec();
        self.insert(Node { fd, path, time, mode: Some(mode), setgid, links, links_changed: false, used: 0 })
    }

    fn insert(&mut self, mut node: Node) -> Result<(), Stop> {
        if self.nodes.len() >= OPEN {
            // The root stays.
            let oldest = self.nodes.values().filter(|node| !node.path.is_empty()).min_by_key(|node| node.used);
            if let Some(path) = oldest.map(|node| node.path.clone()) {
                self.close(&path)?;
            }
        }
        self.clock += 1;
        node.used = self.clock;
        self.nodes.insert(node.path.clone(), node);
        Ok(())
    }

    /// Done with a directory for now: it gets its mode and time.
    fn close(&mut self, path: &[u8]) -> Result<(), Stop> {
        let Some(node) = self.nodes.remove(path) else { return Ok(()) };
        self.keep_links(&node)?;
        let attributes = Attributes { mode: node.mode, time: Some(node.time), ..Attributes::default() };
        self.hands.set(node.fd.as_fd(), &attributes).map_err(|fault| at(path, fault))?;
        Ok(())
    }

    fn finish(mut self) -> Result<Unpacked, Stop> {
        if !self.root_was_given
            && let Some(found) = self.below.find(self.hands, b"").map_err(|fault| at(b"", fault))?
        {
            self.copy_attributes(b"", found.place.as_fd(), &found.meta)?;
        }
        let open: Vec<Vec<u8>> = self.nodes.keys().cloned().collect();
        for path in open {
            self.close(&path)?;
        }
        Ok(self.unpacked)
    }

    // Parents.

    /// Where the parent of an entry really is: its links followed, missing directories made.
    fn parent(&mut self, entry: &Entry, written: &[u8]) -> Result<Vec<u8>, Stop> {
        if let Some((last, real)) = &self.last_parent
            && last == written
            && self.nodes.contains_key(real)
        {
            return Ok(real.clone());
        }
        let real = self.resolve(written, Some(entry))?;
        let Some(real) = real else { return self.rule(&entry.path, "has no directory to be in") };
        self.last_parent = Some((written.to_vec(), real.clone()));
        Ok(real)
    }

    /// Follows a path. With `make` missing directories are made, for that entry; without it, none is what is missing.
    fn resolve(&mut self, path: &[u8], make: Option<&Entry>) -> Result<Option<Vec<u8>>, Stop> {
        let parts = |path: &[u8]| -> VecDeque<Vec<u8>> {
            path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec).collect()
        };
        let mut here = Vec::new();
        let mut left = parts(path);
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == b".." {
                let above = split(&here).map_or(0, |(above, _)| above.len());
                here.truncate(above);
                continue;
            }
            if part.starts_with(WHITEOUT) {
                return self.rule(path, "has the mark of a deletion among its directories");
            }
            let next = join(&here, &part);
            let target = match self.look(&here, &part)? {
                Look::Directory => {
                    here = next;
                    continue;
                }
                Look::Link(target) => target,
                Look::Other => {
                    return self.rule(path, format!("goes through {}, which is no directory", shorten(&next)));
                }
                Look::Nothing => match make {
                    Some(entry) => {
                        self.make_parent(&here, &next, entry)?;
                        here = next;
                        continue;
                    }
                    None => return Ok(None),
                },
            };
            links += 1;
            if links > MOST_LINKS {
                return self.rule(path, "goes through too many links (ELOOP)");
            }
            if target.first() == Some(&b'/') {
                here.clear();
            }
            let mut inner = parts(&target);
            if inner.len() + left.len() > self.limits.depth {
                return self.rule(path, "goes through links that lead too deep");
            }
            inner.append(&mut left);
            left = inner;
        }
        Ok(Some(here))
    }

    /// What is at a name, in this layer or below. Directories that are only below are made here first.
    fn look(&mut self, parent: &[u8], name: &[u8]) -> Result<Look, Stop> {
        let path = join(parent, name);
        if self.touch(&path) {
            return Ok(Look::Directory);
        }
        // A parent that was only found to be there below is here by now.
        self.dir(parent)?;
        let dir = self.nodes[parent].fd.as_fd();
        let name = OsStr::from_bytes(name);
        match look_at(self.hands, dir, name) {
            Ok(meta) if is_whiteout(&meta) => return Ok(Look::Nothing),
            Ok(meta) => {
                return Ok(match FileType::from_raw_mode(meta.st_mode) {
                    FileType::Directory => Look::Directory,
                    FileType::Symlink => {
                        let target =
                            self.hands.look(dir, name, PLACE).and_then(|link| readlinkat(&link, "", Vec::new()));
                        Look::Link(target.by("readlinkat").map_err(|fault| at(&path, fault))?.into_bytes())
                    }
                    _ => Look::Other,
                });
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(at(&path, Fault::new("fstatat", errno))),
        }
        let Some(found) = self.below.find(self.hands, &path).map_err(|fault| at(&path, fault))? else {
            return Ok(Look::Nothing);
        };
        match found.kind() {
            FileType::Directory => {
                let dir = self.dir(parent)?.fd.try_clone().map_err(|_| at(&path, Fault::new("dup", Errno::MFILE)))?;
                self.hands.mkdir(dir.as_fd(), name).map_err(|fault| at(&path, fault))?;
                self.dir(&path)?;
                self.copy_attributes(&path, found.place.as_fd(), &found.meta)?;
                Ok(Look::Directory)
            }
            FileType::Symlink => {
                let target = readlinkat(&found.place, "", Vec::new()).by("readlinkat");
                Ok(Look::Link(target.map_err(|fault| at(&path, fault))?.into_bytes()))
            }
            _ => Ok(Look::Other),
        }
    }

    /// A directory that no entry gives: root's, with the time of what is put into it.
    fn make_parent(&mut self, parent: &[u8], path: &[u8], entry: &Entry) -> Result<(), Stop> {
        let (_, name) = split(path).unwrap_or_default();
        let implied = Entry {
            path: path.to_vec(),
            link: Vec::new(),
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: entry.mtime,
            size: 0,
            xattrs: Vec::new(),
            parts: None,
        };
        self.directory(&implied, parent, OsStr::from_bytes(name), &|| false)
    }

    /// Gives a directory of this layer what the one below has.
    fn copy_attributes(&mut self, path: &[u8], from: BorrowedFd<'_>, meta: &Stat) -> Result<(), Stop> {
        let fault = |fault| at(path, fault);
        let mut attributes = attributes_of(from, meta).map_err(fault)?;
        attributes.owner = attributes.owner.filter(|owner| *owner != self.own);
        (attributes.mode, attributes.time) = (None, None);
        let links = attributes.xattrs.iter().position(|(name, _)| name == LINKS_XATTR);
        if let Some((_, value)) = links.map(|index| attributes.xattrs.remove(index))
            && *self.owners == Owners::Xattr
        {
            self.add_links(path, &value);
        }
        let Some(node) = self.nodes.get_mut(path) else { return Ok(()) };
        node.time = (meta.st_mtime, u32::try_from(meta.st_mtime_nsec).unwrap_or_default());
        node.mode = Some(meta.st_mode & 0o7777);
        node.setgid = meta.st_mode & 0o2000 != 0;
        self.hands.set(node.fd.as_fd(), &attributes).map_err(fault)?;
        Ok(())
    }

    // Entries.

    fn set_root(&mut self, entry: &Entry) -> Result<(), Stop> {
        self.root_was_given = true;
        self.set_directory(entry, b"")
    }

    /// Gives an open directory the attributes of its entry. Time and mode come when it is closed.
    fn set_directory(&mut self, entry: &Entry, path: &[u8]) -> Result<(), Stop> {
        let mut attributes = self.attributes(entry, FileType::Directory, false)?;
        let mode = attributes.mode.take();
        let time = attributes.time.take();
        let Some(node) = self.nodes.get_mut(path) else { return Ok(()) };
        (node.mode, node.time) = (mode, time.unwrap_or_default());
        node.setgid = mode.unwrap_or_default() & 0o2000 != 0;
        if attributes == Attributes::default() {
            return Ok(());
        }
        let left = self.hands.set(node.fd.as_fd(), &attributes).map_err(|fault| at(path, fault))?;
        self.note_left(path, left);
        Ok(())
    }

    fn directory(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        name: &OsStr,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), Stop> {
        let path = join(parent, name.as_bytes());
        if self.touch(&path) {
            return self.set_directory(entry, &path);
        }
        let mut hides = false;
        let inherits = loop {
            self.dir(parent)?;
            let node = &self.nodes[parent];
            match self.hands.mkdir(node.fd.as_fd(), name) {
                Ok(()) => break node.setgid,
                Err(Fault { errno: Errno::EXIST, .. }) => {
                    let meta = look_at(self.hands, node.fd.as_fd(), name).by("fstatat");
                    let meta = meta.map_err(|fault| at(&path, fault))?;
                    if FileType::from_raw_mode(meta.st_mode) == FileType::Directory {
                        break false;
                    }
                    // What was there, a file or a whiteout, has hidden what is below; the directory goes on with it.
                    hides = true;
                    self.hands.unlink(node.fd.as_fd(), name).map_err(|fault| at(&path, fault))?;
                }
                Err(fault) => return Err(at(&path, fault)),
            }
        };
        self.dir(&path)?;
        if inherits {
            let own = Attributes { owner: Some(self.own), ..Attributes::default() };
            self.hands.set(self.nodes[&path].fd.as_fd(), &own).map_err(|fault| at(&path, fault))?;
        }
        match hides {
            true => self.hide_all(&path, stopped)?,
            false => self.links_of_below(&path)?,
        }
        // Its descriptor may be closed again by what was done meanwhile.
        self.dir(&path)?;
        self.set_directory(entry, &path)
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        name: &OsStr,
        reader: &mut Reader<R>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), Stop> {
        let path = || join(parent, name.as_bytes());
        let (file, setgid) = self.make(parent, name, |hands, dir| hands.create(dir, name))?;
        self.unpacked.bytes += entry.size;
        match &entry.parts {
            None => self.fill(&file, reader, u64::MAX, &path, stopped)?,
            Some(parts) => {
                for (offset, length) in parts {
                    seek(&file, SeekFrom::Start(*offset)).by("lseek").map_err(|fault| at(&path(), fault))?;
                    self.fill(&file, reader, *length, &path, stopped)?;
                }
                ftruncate(&file, entry.size).by("ftruncate").map_err(|fault| at(&path(), fault))?;
            }
        }
        let attributes = self.attributes(entry, FileType::RegularFile, setgid)?;
        let left = self.hands.set(file.as_fd(), &attributes).map_err(|fault| at(&path(), fault))?;
        if !left.is_empty() {
            self.note_left(&path(), left);
        }
        Ok(())
    }

    /// Writes the content of an entry, as far as it goes or up to `limit` bytes.
    fn fill<R: BufRead>(
        &self,
        file: &OwnedFd,
        reader: &mut Reader<R>,
        mut limit: u64,
        path: &dyn Fn() -> Vec<u8>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), Stop> {
        while limit > 0 {
            let bytes = match reader.content() {
                Ok([]) => return Ok(()),
                Ok(bytes) => &bytes[..bytes.len().min(usize::try_from(limit).unwrap_or(usize::MAX))],
                Err(Broken::Io(error)) => return Err(Stop::Source(error)),
                Err(Broken::Rule(rule)) => return self.rule(&path(), rule),
            };
            let written = match rustix::io::write(file, bytes) {
                Ok(written) => written,
                Err(Errno::INTR) => 0,
                Err(errno) => return Err(at(&path(), Fault::new("write", errno))),
            };
            reader.consume(written);
            limit -= written as u64;
            if stopped() {
                return Err(Stop::Stopped);
            }
        }
        Ok(())
    }

    /// Makes something at a name; what this layer has there goes away. Tells also whether its group is the directory's.
    fn make<T>(
        &mut self,
        parent: &[u8],
        name: &OsStr,
        mut make: impl FnMut(&mut dyn Hands, BorrowedFd<'_>) -> Result<T, Fault>,
    ) -> Result<(T, bool), Stop> {
        loop {
            self.dir(parent)?;
            let node = &self.nodes[parent];
            match make(self.hands, node.fd.as_fd()) {
                Ok(made) => return Ok((made, node.setgid)),
                Err(Fault { errno: Errno::EXIST, .. }) => self.remove(parent, name)?,
                Err(fault) => return Err(at(&join(parent, name.as_bytes()), fault)),
            }
        }
    }

    /// Removes what this layer has at a name.
    fn remove(&mut self, parent: &[u8], name: &OsStr) -> Result<(), Stop> {
        let path = join(parent, name.as_bytes());
        self.last_parent = None;
        let fd = self.dir(parent)?.fd.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|_| at(&path, Fault::new("dup", Errno::MFILE)))?;
        let unlinked = self.hands.unlink(fd.as_fd(), name);
        let Err(fault) = unlinked else { return Ok(()) };
        if fault.errno != Errno::ISDIR {
            return Err(at(&path, fault));
        }
        let inside = join(&path, b"");
        self.nodes.retain(|open, _| *open != path && !open.starts_with(&inside));
        self.opaque.retain(|known| *known != path && !known.starts_with(&inside));
        let dir = self.hands.open_dir(fd.as_fd(), name).map_err(|fault| at(&path, fault))?;
        copy::remove::empty_by(self.hands, &dir).map_err(|fault| at(&path, fault))?;
        self.hands.rmdir(fd.as_fd(), name).map_err(|fault| at(&path, fault))
    }

    fn symlink(&mut self, entry: &Entry, parent: &[u8], name: &OsStr) -> Result<(), Stop> {
        if entry.link.is_empty() {
            return self.rule(&entry.path, "is a link to nothing");
        }
        if entry.link.len() > LONGEST {
            return self.rule(&entry.path, "is a link longer than 4095 bytes (ENAMETOOLONG)");
        }
        let target = OsStr::from_bytes(&entry.link);
        let ((), setgid) = self.make(parent, name, |hands, dir| hands.symlink(target, dir, name))?;
        self.last_parent = None;
        self.note_link(entry, parent, name)?;
        let mut attributes = self.attributes(entry, FileType::Symlink, setgid)?;
        attributes.mode = None;
        self.set_at(parent, name, &attributes)
    }

    fn set_at(&mut self, parent: &[u8], name: &OsStr, attributes: &Attributes) -> Result<(), Stop> {
        let path = join(parent, name.as_bytes());
        self.dir(parent)?;
        let left = self.hands.set_at(self.nodes[parent].fd.as_fd(), name, attributes);
        let left = left.map_err(|fault| at(&path, fault))?;
        self.note_left(&path, left);
        Ok(())
    }

    fn node(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        name: &OsStr,
        kind: FileType,
        dev: (u32, u32),
    ) -> Result<(), Stop> {
        if dev.0 >= 1 << 12 || dev.1 >= 1 << 20 {
            return self.rule(&entry.path, format!("is a device {}:{}, which Linux does not have", dev.0, dev.1));
        }
        let is_device = kind != FileType::Fifo;
        let made = match *self.owners == Owners::Xattr && is_device {
            true => Ok(None),
            false => self.make(parent, name, |hands, dir| hands.mknod(dir, name, kind, dev)).map(Some),
        };
        match made {
            Ok(Some(((), setgid))) => {
                self.note_link(entry, parent, name)?;
                let attributes = self.attributes(entry, kind, setgid)?;
                self.set_at(parent, name, &attributes)
            }
            // A file stands for it, and says what it should be.
            Ok(None) | Err(Stop::Fault(_, Fault { errno: Errno::PERM, .. })) if is_device => {
                let (file, setgid) = self.make(parent, name, |hands, dir| hands.create(dir, name))?;
                let mut attributes = self.attributes(entry, kind, setgid)?;
                // Its owner must be able to read the record.
                attributes.mode = Some(0o400);
                attributes.xattrs.retain(|(name, _)| name != OWNER_XATTR);
                attributes.xattrs.push((OWNER_XATTR.to_vec(), record(entry, kind, Some(dev))));
                let path = join(parent, name.as_bytes());
                self.hands.set(file.as_fd(), &attributes).map_err(|fault| at(&path, fault))?;
                self.note_left(&path, vec![format!("device {}:{}", dev.0, dev.1).into_bytes()]);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(stop) => Err(stop),
        }
    }

    fn hard_link(&mut self, entry: &Entry, parent: &[u8], name: &OsStr) -> Result<(), Stop> {
        let target = self.clean(&entry.link, &entry.path, 0)?;
        let Some((target_parent, target_name)) = split(&target) else {
            return self.rule(&entry.path, "is a hard link to the root");
        };
        let missing = |apply: &Self| {
            apply.rule(&entry.path, format!("is a hard link to {}, which is not there", shorten(&entry.link)))
        };
        let Some(target_parent) = self.resolve(target_parent, None)? else { return missing(self) };
        let target = join(&target_parent, target_name);
        let target_name = OsStr::from_bytes(target_name);
        if target == join(parent, name.as_bytes()) {
            // To itself: it is there or it is not.
            return match self.look(parent, name.as_bytes())? {
                Look::Nothing => missing(self),
                _ => Ok(()),
            };
        }
        let dup =
            |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(|_| at(&target, Fault::new("dup", Errno::MFILE)));
        let here = dup(self.dir(&target_parent)?.fd.as_fd())?;
        let from = match look_at(self.hands, here.as_fd(), target_name) {
            Ok(meta) if is_whiteout(&meta) => return missing(self),
            Ok(meta) if FileType::from_raw_mode(meta.st_mode) == FileType::Directory => {
                return self.rule(&entry.path, "is a hard link to a directory");
            }
            Ok(_) => here,
            Err(Errno::NOENT) => {
                let Some(found) = self.below.find(self.hands, &target).map_err(|fault| at(&target, fault))? else {
                    return missing(self);
                };
                if found.kind() == FileType::Directory {
                    return self.rule(&entry.path, "is a hard link to a directory");
                }
                let dir =
                    self.below.open_dir(self.hands, found.layer, &target_parent).map_err(|fault| at(&target, fault))?;
                let Some(dir) = dir else { return missing(self) };
                dir
            }
            Err(errno) => return Err(at(&target, Fault::new("fstatat", errno))),
        };
        match self.make(parent, name, |hands, dir| hands.link(from.as_fd(), target_name, dir, name)) {
            Ok(_) => {
                let owner = self.dir(&target_parent)?.links.get(target_name.as_bytes()).copied();
                self.set_link(parent, name, owner)
            }
            Err(Stop::Fault(path, fault)) => match fault.errno {
                // It was removed to make place for the link.
                Errno::NOENT => self.rule(&entry.path, "is a hard link into what it replaces"),
                Errno::MLINK | Errno::XDEV | Errno::PERM => self.copy_file(from, target_name, parent, name),
                _ => Err(Stop::Fault(path, fault)),
            },
            Err(stop) => Err(stop),
        }
    }

    /// A copy of a file, where it cannot be linked.
    fn copy_file(&mut self, from: OwnedFd, from_name: &OsStr, parent: &[u8], name: &OsStr) -> Result<(), Stop> {
        let path = join(parent, name.as_bytes());
        self.dir(parent)?;
        let options = copy::CopyOptions::of_a_layer();
        let (from, to) = (copy::magic_path(from.as_fd()), copy::magic_path(self.nodes[parent].fd.as_fd()));
        let from = std::path::Path::new(&from).join(from_name);
        let to = std::path::Path::new(&to).join(name);
        let host = Side::host();
        copy::copy((host, &from), (host, &to), &options, Step::Unpack, &mut || false)
            .map(drop)
            .map_err(|error| Stop::Rule(format!("entry {}", shorten(&path)), format!("cannot be copied: {error}")))
    }

    // Deletions.

    fn whiteout(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        name: &[u8],
        hidden: &[u8],
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), Stop> {
        if name != OPAQUE && name.starts_with(META) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return self.rule(&entry.path, "is the mark of a deletion of nothing that can be deleted");
        }
        if self.below.is_empty() {
            return Ok(());
        }
        if name == OPAQUE {
            // Nothing below: nothing to hide, and no directory to be made for it.
            let Some(parent) = self.resolve(parent, None)? else { return Ok(()) };
            return self.hide_all(&parent, stopped);
        }
        let Some(parent) = self.resolve(parent, None)? else { return Ok(()) };
        self.hide(&parent, OsStr::from_bytes(hidden), stopped)
    }

    /// Hides what is below at a name. What this layer has there stays.
    fn hide(&mut self, parent: &[u8], name: &OsStr, stopped: &dyn Fn() -> bool) -> Result<(), Stop> {
        let path = join(parent, name.as_bytes());
        if self.below.find(self.hands, &path).map_err(|fault| at(&path, fault))?.is_none() {
            return Ok(());
        }
        self.dir(parent)?;
        match self.hands.mknod(self.nodes[parent].fd.as_fd(), name, FileType::CharacterDevice, (0, 0)) {
            Ok(()) => Ok(()),
            Err(Fault { errno: Errno::EXIST, .. }) => {
                let meta = look_at(self.hands, self.nodes[parent].fd.as_fd(), name).by("fstatat");
                match FileType::from_raw_mode(meta.map_err(|fault| at(&path, fault))?.st_mode) {
                    FileType::Directory => self.hide_all(&path, stopped),
                    _ => Ok(()),
                }
            }
            Err(fault) => Err(at(&path, fault)),
        }
    }

    /// Hides everything below in a directory of this layer, also in its directories.
    fn hide_all(&mut self, path: &[u8], stopped: &dyn Fn() -> bool) -> Result<(), Stop> {
        let mut left = vec![path.to_vec()];
        while let Some(path) = left.pop() {
            // Whatever has come into it since then hides what is below, too.
            if self.opaque.contains(&path) {
                continue;
            }
            let names = self.below.list(self.hands, &path).map_err(|fault| at(&path, fault))?;
            // In order, so that the directory is the same each time.
            for name in names.into_iter().collect::<BTreeSet<_>>() {
                if stopped() {
                    return Err(Stop::Stopped);
                }
                self.dir(&path)?;
                let dir = self.nodes[&path].fd.as_fd();
                match self.hands.mknod(dir, &name, FileType::CharacterDevice, (0, 0)) {
                    Ok(()) => {}
                    Err(Fault { errno: Errno::EXIST, .. }) => {
                        let meta = look_at(self.hands, dir, &name).by("fstatat");
                        let meta = meta.map_err(|fault| at(&path, fault))?;
                        if FileType::from_raw_mode(meta.st_mode) == FileType::Directory {
                            left.push(join(&path, name.as_bytes()));
                        }
                    }
                    Err(fault) => return Err(at(&join(&path, name.as_bytes()), fault)),
                }
            }
            if self.opaque.len() >= OPAQUE_KNOWN {
                self.opaque.clear();
            }
            self.opaque.insert(path);
        }
        Ok(())
    }

    // Attributes.

    /// What an entry is given. `setgid`: it came with the group of its directory.
    fn attributes(&mut self, entry: &Entry, kind: FileType, setgid: bool) -> Result<Attributes, Stop> {
        let id = |id: u64, what: &str| match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => self.rule(&entry.path, format!("belongs to {what} {id}, which no system has")),
        };
        let (uid, gid) = (id(entry.uid, "user")?, id(entry.gid, "group")?);
        let unmapped = |id: u32, what: &str| -> Result<u32, Stop> {
            self.rule(&entry.path, format!("belongs to {what} {id}, which has no id in the user namespace"))
        };
        let owner = match self.owners {
            Owners::Kept => (uid, gid),
            Owners::Mapped { uid: users, gid: groups } => (
                to_host(users, uid).map_or_else(|| unmapped(uid, "user"), Ok)?,
                to_host(groups, gid).map_or_else(|| unmapped(gid, "group"), Ok)?,
            ),
            Owners::Xattr => self.own,
        };
        let mut mode = entry.mode;
        let mut xattrs = Vec::new();
        let mut left = Vec::new();
        for (name, value) in &entry.xattrs {
            match class(name) {
                Class::Taken => xattrs.push((name.clone(), value.clone())),
                Class::Capability if *self.owners == Owners::Xattr => {
                    xattrs.push((CAPABILITY_XATTR.to_vec(), value.clone()));
                }
                Class::Capability => xattrs.push((name.clone(), value.clone())),
                Class::Refused => left.push(name.clone()),
            }
        }
        if *self.owners == Owners::Xattr && matches!(kind, FileType::RegularFile | FileType::Directory) {
            let usable = mode_on_disk(mode, kind, (uid, gid));
            if (uid, gid) != (0, 0) || usable != mode {
                xattrs.push((OWNER_XATTR.to_vec(), record(entry, kind, None)));
            }
            mode = usable;
        }
        let owner = (owner != self.own || setgid).then_some(owner);
        if !left.is_empty() {
            let path = entry.path.clone();
            self.note_left(&path, left);
        }
        Ok(Attributes { owner, mode: Some(mode), time: Some(entry.mtime), xattrs })
    }

    fn note_left(&mut self, path: &[u8], what: Vec<Vec<u8>>) {
        for what in what {
            self.unpacked.left += 1;
            if self.unpacked.left_list.len() < MOST_LEFT {
                self.unpacked.left_list.push(format!("{}: {}", shorten(path), shorten(&what)));
            }
        }
    }
}

/// What a directory has, for another.
pub(crate) fn attributes_of(from: BorrowedFd<'_>, meta: &Stat) -> Result<Attributes, Fault> {
    let mut xattrs = Vec::new();
    let from = copy::magic_path(from);
    let mut names = vec![0; 1 << 16];
    let length = match listxattr(from.as_str(), &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        result => result.by("listxattr")?,
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        if !name.starts_with(b"security.selinux")
            && let Ok(length) = getxattr(from.as_str(), name, &mut value[..])
        {
            value.truncate(length);
            xattrs.push((name.to_vec(), value));
        }
    }
    Ok(Attributes {
        owner: Some((meta.st_uid, meta.st_gid)),
        mode: Some(meta.st_mode & 0o7777),
        time: Some((meta.st_mtime, u32::try_from(meta.st_mtime_nsec).unwrap_or_default())),
        xattrs,
    })
}

/// What is found at a name.
enum Look {
    Directory,
    Link(Vec<u8>),
    Other,
    Nothing,
}

/// What is done with an extended attribute.
#[derive(Debug, PartialEq, Eq)]
enum Class {
    Taken,
    Capability,
    /// Overlayfs or zind would believe it, or the system's own policy sets it.
    Refused,
}

fn class(name: &[u8]) -> Class {
    let starts = |prefix: &[u8]| name.starts_with(prefix);
    if starts(b"trusted.overlay.") || starts(b"user.overlay.") || starts(b"user.zind.") {
        Class::Refused
    } else if name == b"security.capability" {
        Class::Capability
    } else if starts(b"user.") || starts(b"trusted.") || starts(b"system.posix_acl_") {
        Class::Taken
    } else {
        Class::Refused
    }
}

/// The mode that a file gets on disk where all files are the caller's: set-id bits would mean the caller, except for those
/// of root; and the caller must be able to read what it unpacks again, or copies. If it is not the mode of the layer, that
/// is in the attribute.
pub(crate) fn mode_on_disk(mode: u32, kind: FileType, owner: (u32, u32)) -> u32 {
    let kept = if owner == (0, 0) { mode } else { mode & !0o6000 };
    kept | if kind == FileType::Directory { 0o700 } else { 0o400 }
}

/// `"uid:gid:mode"`, and `":major:minor"` of a device.
fn record(entry: &Entry, kind: FileType, dev: Option<(u32, u32)>) -> Vec<u8> {
    let mut text = format!("{}:{}:{:o}", entry.uid, entry.gid, kind.as_raw_mode() | entry.mode);
    if let Some((major, minor)) = dev {
        text += &format!(":{major}:{minor}");
    }
    text.into_bytes()
}

fn at(path: &[u8], fault: Fault) -> Stop {
    Stop::Fault(OsString::from_vec(path.to_vec()), fault)
}
