//! What differs between two stacks of layers, found by looking at the layers they do not share.
//!
//! Whoever ran in the container made these files, so no path is followed: each is opened below its layer's own
//! directory, without links, and looked at by descriptor.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Dir, FileType as Kind, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::state::Marks;
use crate::copy::Reach;
use crate::error::{At, Result, Step};
use crate::namespace::idmap::IdMap;
use crate::store::Owners;

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It is something else, or has other content or metadata.
    Modified,
    /// It is gone, and all below it.
    Deleted,
}

impl ChangeKind {
    /// `"added"`, `"modified"`, `"deleted"`.
    pub const fn name(self) -> &'static str {
        match self {
            ChangeKind::Added => "added",
            ChangeKind::Modified => "modified",
            ChangeKind::Deleted => "deleted",
        }
    }
}

/// The type of a file: `inode(7)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
}

impl FileType {
    /// `"file"`, `"directory"`, `"symlink"`, `"char"`, `"block"`, `"fifo"`, `"socket"`.
    pub const fn name(self) -> &'static str {
        match self {
            FileType::File => "file",
            FileType::Directory => "directory",
            FileType::Symlink => "symlink",
            FileType::CharDevice => "char",
            FileType::BlockDevice => "block",
            FileType::Fifo => "fifo",
            FileType::Socket => "socket",
        }
    }

    pub(crate) fn of(mode: u32) -> FileType {
        match Kind::from_raw_mode(mode) {
            Kind::Directory => FileType::Directory,
            Kind::Symlink => FileType::Symlink,
            Kind::CharacterDevice => FileType::CharDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            _ => FileType::File,
        }
    }
}

/// What is known of a file besides its content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// What it is.
    pub file_type: FileType,
    /// Permission bits, with set-uid, set-gid and sticky: up to 07777.
    pub mode: u32,
    /// Owner, as the last container saw it: 65534 for an id outside of its map.
    pub uid: u32,
    /// Group, likewise.
    pub gid: u32,
    /// Bytes of a regular file or a link's target; 0 for anything else.
    pub size: u64,
    /// Time of the last change of the content, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// Where a symbolic link leads.
    pub target: Option<PathBuf>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Where, as an absolute path of the container.
    pub path: PathBuf,
    /// What it was; `None` for what was added.
    pub old: Option<Metadata>,
    /// What it is; `None` for what was deleted.
    pub new: Option<Metadata>,
}

/// A directory that takes part in a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer(pub(crate) PathBuf);

/// Directories on top of each other, topmost first, as overlay shows them.
pub(crate) struct View {
    layers: Vec<(Layer, Rc<OwnedFd>)>,
    /// `None`: plain directories, in which nothing is a mark.
    marks: Option<Marks>,
    /// For what belongs to the subordinate ids of an ordinary user.
    pub(crate) reach: Rc<Reach>,
}

/// What a view has at one path.
pub(crate) enum Node {
    Directory {
        /// Indices of the layers that take part.
        layers: Vec<usize>,
        stat: Stat,
        file: OwnedFd,
    },
    Other {
        layer: usize,
        stat: Stat,
        file: OwnedFd,
    },
}

/// What one layer says about a path.
pub(crate) enum Found {
    Nothing,
    Whiteout,
    File(Stat, OwnedFd),
}

/// Paths are opened in pieces of this size, because the kernel takes no more than 4096 bytes at once.
const PIECE: usize = 2000;

impl View {
    pub(crate) fn open(layers: impl IntoIterator<Item = Layer>, marks: Option<Marks>) -> Result<View> {
        View { layers: Vec::new(), marks, reach: Rc::default() }.beside(layers)
    }

    /// How many layers there are.
    pub(crate) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Another view; what both have is open once, for a process may open few files.
    pub(crate) fn beside(&self, layers: impl IntoIterator<Item = Layer>) -> Result<View> {
        let open = |layer: Layer| {
            if let Some((_, fd)) = self.layers.iter().find(|(other, _)| *other == layer) {
                return Ok((layer, fd.clone()));
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(&layer.0, flags, Mode::empty()).at(Step::ReadLayers, "open", &layer.0)?;
            Ok((layer, Rc::new(fd)))
        };
        let layers = layers.into_iter().map(open).collect::<Result<_>>()?;
        Ok(View { layers, marks: self.marks, reach: self.reach.clone() })
    }

    /// The directory of the layer that provides a file, if the file is there and none of the path is a link.
    pub(crate) fn provider(&self, path: &Path) -> Result<Option<PathBuf>> {
        let mut layers: Vec<usize> = (0..self.layers.len()).collect();
        let mut parent = PathBuf::new();
        for part in path.iter() {
            match self.child(&parent, &layers, part)? {
                Some(Node::Directory { layers: next, .. }) => layers = next,
                Some(Node::Other { layer, .. }) => {
                    return Ok((parent.join(part) == path).then(|| self.layers[layer].0.0.clone()));
                }
                None => return Ok(None),
            }
            parent.push(part);
        }
        Ok(None)
    }

    pub(crate) fn root(&self) -> Result<Node> {
        let mut layers = Vec::new();
        for index in 0..self.layers.len() {
            layers.push(index);
            if self.is_opaque(self.layers[index].1.as_fd(), index, Path::new(""))? {
                break;
            }
        }
        let (layer, fd) = &self.layers[0];
        let file = fd.try_clone().at(Step::ReadLayers, "dup", &layer.0)?;
        let stat = rustix::fs::fstat(&file).at(Step::ReadLayers, "fstat", &layer.0)?;
        Ok(Node::Directory { layers, stat, file })
    }

    /// `name` in the directory that `layers` have at `parent`.
    pub(crate) fn child(&self, parent: &Path, layers: &[usize], name: &OsStr) -> Result<Option<Node>> {
        let path = parent.join(name);
        let mut directory: Option<(Vec<usize>, Stat, OwnedFd)> = None;
        for &index in layers {
            let (stat, file) = match self.look(index, &path)? {
                Found::Nothing => continue,
                Found::Whiteout => break,
                Found::File(stat, file) => (stat, file),
            };
            if FileType::of(stat.st_mode) != FileType::Directory {
                if directory.is_none() {
                    return Ok(Some(Node::Other { layer: index, stat, file }));
                }
                break;
            }
            let is_last = self.is_opaque(file.as_fd(), index, &path)?;
            match &mut directory {
                Some((all, ..)) => all.push(index),
                None => directory = Some((vec![index], stat, file)),
            }
            if is_last {
                break;
            }
        }
        Ok(directory.map(|(layers, stat, file)| Node::Directory { layers, stat, file }))
    }

    pub(crate) fn look(&self, index: usize, path: &Path) -> Result<Found> {
        let file = match self.open_in(index, path, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Found::Nothing),
            other => other.at(Step::ReadLayers, "openat2", self.name(index, path))?,
        };
        let stat = rustix::fs::fstat(&file).at(Step::ReadLayers, "fstat", self.name(index, path))?;
        let is_whiteout = match FileType::of(stat.st_mode) {
            _ if self.marks.is_none() => false,
            FileType::CharDevice => stat.st_rdev == 0,
            FileType::File => stat.st_size == 0 && self.mark(file.as_fd(), "whiteout", index, path)?.is_some(),
            _ => false,
        };
        Ok(if is_whiteout { Found::Whiteout } else { Found::File(stat, file) })
    }

    pub(crate) fn open_in(&self, index: usize, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let open = |dir: BorrowedFd<'_>, path: &Path, flags| {
            let path = if path.as_os_str().is_empty() { OsStr::new(".") } else { path.as_os_str() };
            self.reach.open(dir, path, flags)
        };
        let mut dir: Option<OwnedFd> = None;
        let mut piece = PathBuf::new();
        for part in path.iter() {
            if piece.as_os_str().len() + part.len() > PIECE {
                let base = dir.as_ref().map_or(self.layers[index].1.as_fd(), |dir| dir.as_fd());
                dir = Some(open(base, &piece, OFlags::PATH | OFlags::DIRECTORY)?);
                piece.clear();
            }
            piece.push(part);
        }
        let base = dir.as_ref().map_or(self.layers[index].1.as_fd(), |dir| dir.as_fd());
        open(base, &piece, flags)
    }

    pub(crate) fn name(&self, index: usize, path: &Path) -> PathBuf {
        self.layers[index].0.0.join(path)
    }

    /// A directory that hides what the layers below have.
    pub(crate) fn is_opaque(&self, dir: BorrowedFd<'_>, index: usize, path: &Path) -> Result<bool> {
        // "x" only says that some files in it are whiteouts.
        Ok(self.mark(dir, "opaque", index, path)?.as_deref() == Some(b"y"))
    }

    /// The value of one of overlay's own attributes.
    pub(crate) fn mark(&self, file: BorrowedFd<'_>, name: &str, index: usize, path: &Path) -> Result<Option<Vec<u8>>> {
        let space = match self.marks {
            None => return Ok(None),
            Some(Marks::Trusted) => "trusted",
            Some(Marks::User) => "user",
        };
        attribute(&self.reach, file, format!("{space}.overlay.{name}").as_ref()).at(
            Step::ReadLayers,
            "getxattr",
            self.name(index, path),
        )
    }

    /// The names that some of the layers have in a directory.
    pub(crate) fn names(&self, path: &Path, layers: &[usize], to: &mut BTreeSet<OsString>) -> Result<()> {
        for &index in layers {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let dir = self.open_in(index, path, flags).at(Step::ReadLayers, "openat2", self.name(index, path))?;
            let entries = Dir::new(dir).at(Step::ReadLayers, "getdents64", self.name(index, path))?;
            for entry in entries {
                let entry = entry.at(Step::ReadLayers, "getdents64", self.name(index, path))?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    to.insert(OsString::from_vec(name.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Ids of the host as the container sees them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids {
    pub(crate) uid: Vec<IdMap>,
    pub(crate) gid: Vec<IdMap>,
}

impl Ids {
    /// The form in which containers with these maps have the files of an image.
    pub(crate) fn owners(&self) -> Owners {
        match (&self.uid[..], rustix::process::geteuid().is_root()) {
            ([], true) => Owners::Kept,
            ([], false) => Owners::Xattr,
            (maps, _) if maps.iter().map(|map| u64::from(map.size)).sum::<u64>() <= 1 => Owners::Xattr,
            _ => Owners::Mapped { uid: self.uid.clone(), gid: self.gid.clone() },
        }
    }
}

/// What the kernel shows for an id that is not mapped.
const OVERFLOW: u32 = 65534;

fn to_container(maps: &[IdMap], id: u32) -> u32 {
    if maps.is_empty() {
        return id;
    }
    let map = maps.iter().find(|map| id >= map.host && id - map.host < map.size);
    map.map_or(OVERFLOW, |map| map.container + (id - map.host))
}

/// Everything that differs between two views, sorted by path.
pub(super) fn compare(old: &View, new: &View, ids: &Ids) -> Result<Vec<Change>> {
    let mut walk = Walk { old, new, ids, changes: Vec::new(), waiting: Vec::new() };
    walk.pair(PathBuf::new(), Some(old.root()?), Some(new.root()?))?;
    while let Some((path, old, new)) = walk.waiting.pop() {
        walk.directory(&path, &old, &new)?;
    }
    walk.changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(walk.changes)
}

struct Walk<'a> {
    old: &'a View,
    new: &'a View,
    ids: &'a Ids,
    changes: Vec<Change>,
    /// Directories whose content is still to be compared, with the layers on either side.
    waiting: Vec<(PathBuf, Vec<usize>, Vec<usize>)>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, old: &[usize], new: &[usize]) -> Result<()> {
        let common = self.common(old, new);
        let mut names = BTreeSet::new();
        self.old.names(path, &old[..old.len() - common], &mut names)?;
        self.new.names(path, &new[..new.len() - common], &mut names)?;
        for name in names {
            let before = self.old.child(path, old, &name)?;
            let after = self.new.child(path, new, &name)?;
            self.pair(path.join(&name), before, after)?;
        }
        Ok(())
    }

    /// How many of the lowest layers are the same on both sides: what only they have did not change.
    fn common(&self, old: &[usize], new: &[usize]) -> usize {
        let same = |(a, b): &(&usize, &usize)| self.old.layers[**a].0 == self.new.layers[**b].0;
        old.iter().rev().zip(new.iter().rev()).take_while(same).count()
    }

    fn pair(&mut self, path: PathBuf, old: Option<Node>, new: Option<Node>) -> Result<()> {
        let differ = match (&old, &new) {
            (None, None) => return Ok(()),
            (Some(old), Some(new)) => self.differ(&path, old, new)?,
            _ => true,
        };
        if differ {
            let kind = match (&old, &new) {
                (None, _) => ChangeKind::Added,
                (_, None) => ChangeKind::Deleted,
                _ => ChangeKind::Modified,
            };
            let old = old.as_ref().map(|node| metadata(node, self.ids, &path)).transpose()?;
            let new = new.as_ref().map(|node| metadata(node, self.ids, &path)).transpose()?;
            self.changes.push(Change { kind, path: Path::new("/").join(&path), old, new });
        }
        // What was below a directory that is gone is gone with it; only what is there now is looked at.
        if let Some(Node::Directory { layers: new, .. }) = new {
            let old = match old {
                Some(Node::Directory { layers, .. }) => layers,
                _ => Vec::new(),
            };
            self.waiting.push((path, old, new));
        }
        Ok(())
    }

    fn differ(&self, path: &Path, old: &Node, new: &Node) -> Result<bool> {
        let at = |error: rustix::io::Result<bool>| error.at(Step::ReadLayers, "read", path);
        match (old, new) {
            (Node::Directory { stat: a, file: x, .. }, Node::Directory { stat: b, file: y, .. }) => {
                // Its times follow from its entries.
                Ok(attributes_of(a) != attributes_of(b)
                    || at(attributes_differ(&self.new.reach, x.as_fd(), y.as_fd()))?)
            }
            (Node::Other { layer: i, stat: a, file: x }, Node::Other { layer: j, stat: b, file: y }) => {
                if self.old.layers[*i].0 == self.new.layers[*j].0 {
                    return Ok(false);
                }
                let quick = |s: &Stat| (attributes_of(s), s.st_size, s.st_mtime, s.st_mtime_nsec, s.st_rdev);
                if quick(a) != quick(b) || at(attributes_differ(&self.new.reach, x.as_fd(), y.as_fd()))? {
                    return Ok(true);
                }
                match FileType::of(a.st_mode) {
                    FileType::Symlink => Ok(link_target(x, path)? != link_target(y, path)?),
                    FileType::File if a.st_size > 0 => self.content_differs(path, *i, *j),
                    _ => Ok(false),
                }
            }
            _ => Ok(true),
        }
    }

    /// Only asked for a file that was copied up and looks the same.
    fn content_differs(&self, path: &Path, old: usize, new: usize) -> Result<bool> {
        let open = |view: &View, index| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
            view.open_in(index, path, flags).at(Step::ReadLayers, "openat2", view.name(index, path)).map(File::from)
        };
        let (mut a, mut b) = (open(self.old, old)?, open(self.new, new)?);
        let (mut x, mut y) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            let count = a.read(&mut x).at(Step::ReadLayers, "read", path)?;
            if count == 0 {
                return Ok(b.read(&mut y).at(Step::ReadLayers, "read", path)? != 0);
            }
            match b.read_exact(&mut y[..count]) {
                Ok(()) if x[..count] == y[..count] => {}
                Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                    return Err(error).at(Step::ReadLayers, "read", path);
                }
                _ => return Ok(true),
            }
        }
    }
}

/// Type, permissions and owners.
fn attributes_of(stat: &Stat) -> (u32, u32, u32) {
    (stat.st_mode, stat.st_uid, stat.st_gid)
}

fn metadata(node: &Node, ids: &Ids, path: &Path) -> Result<Metadata> {
    let (Node::Directory { stat, file, .. } | Node::Other { stat, file, .. }) = node;
    let file_type = FileType::of(stat.st_mode);
    Ok(Metadata {
        file_type,
        mode: stat.st_mode & 0o7777,
        uid: to_container(&ids.uid, stat.st_uid),
        gid: to_container(&ids.gid, stat.st_gid),
        size: if matches!(file_type, FileType::File | FileType::Symlink) { stat.st_size as u64 } else { 0 },
        mtime_ns: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64),
        device: matches!(file_type, FileType::CharDevice | FileType::BlockDevice)
            .then(|| (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))),
        target: if file_type == FileType::Symlink { Some(link_target(file, path)?) } else { None },
    })
}

pub(crate) fn link_target(link: &OwnedFd, path: &Path) -> Result<PathBuf> {
    let target = rustix::fs::readlinkat(link, "", Vec::new()).at(Step::ReadLayers, "readlinkat", path)?;
    Ok(OsStr::from_bytes(target.to_bytes()).into())
}

/// A path to what a descriptor of any kind is open on.
pub(crate) fn by_number(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// An extended attribute; `None` where there is none.
pub(crate) fn attribute(reach: &Reach, file: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<Vec<u8>>> {
    let path = by_number(file);
    let mut value = vec![0; 256];
    let own = loop {
        match rustix::fs::getxattr(&path, name, value.as_mut_slice()) {
            Err(Errno::RANGE) if value.len() < 1 << 16 => value = vec![0; 1 << 16],
            Ok(length) => {
                value.truncate(length);
                break Ok(value);
            }
            Err(errno) => break Err(errno),
        }
    };
    match reach.attribute(own, file, name) {
        Ok(value) => Ok(Some(value)),
        // user.* is for files and directories only; elsewhere asking for it is EPERM.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The names of the extended attributes that are not overlay's own.
pub(crate) fn attribute_names(file: BorrowedFd<'_>) -> rustix::io::Result<BTreeSet<OsString>> {
    let mut list = vec![0; 1 << 16];
    let length = match rustix::fs::listxattr(by_number(file), list.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let names = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let own = |name: &&[u8]| name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    Ok(names.filter(|name| !own(name)).map(|name| OsString::from_vec(name.to_vec())).collect())
}

fn attributes_differ(reach: &Reach, old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let (before, after) = (attribute_names(old)?, attribute_names(new)?);
    if before != after {
        return Ok(true);
    }
    for name in before {
        if attribute(reach, old, &name)? != attribute(reach, new, &name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_container() {
        let maps = [IdMap { container: 0, host: 1000, size: 1 }, IdMap { container: 1, host: 100_000, size: 10 }];
        let ids = [1000, 100_000, 100_009, 100_010, 0].map(|id| to_container(&maps, id));
        assert_eq!(ids, [0, 1, 10, OVERFLOW, OVERFLOW]);
        assert_eq!(to_container(&[], 5), 5);
    }

    fn tree(root: &Path, files: &[(&str, &str)]) {
        for (path, content) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
    }

    #[test]
    fn plain_directories_are_compared_as_overlay_would_show_them() {
        let dir = std::env::temp_dir().join(format!("zind-test-diff-{}", std::process::id()));
        let (base, upper) = (dir.join("base"), dir.join("upper"));
        tree(&base, &[("a/same", "1"), ("a/changed", "1"), ("kind", "1")]);
        tree(&upper, &[("a/changed", "22"), ("a/new/deep", "1"), ("kind/inside", "1")]);
        let layer = |path: &PathBuf| Layer(path.clone());
        let old = View::open([layer(&base)], Some(Marks::User)).unwrap();
        let new = View::open([layer(&upper), layer(&base)], Some(Marks::User)).unwrap();
        let found = compare(&old, &new, &Ids::default()).unwrap();
        let found: Vec<_> = found.iter().map(|c| (c.kind.name(), c.path.to_str().unwrap())).collect();
        let expected = [
            ("modified", "/a/changed"),
            ("added", "/a/new"),
            ("added", "/a/new/deep"),
            ("modified", "/kind"),
            ("added", "/kind/inside"),
        ];
        assert_eq!(found, expected);
        assert_eq!(new.provider(Path::new("a/same")).unwrap(), Some(base.clone()));
        assert_eq!(new.provider(Path::new("a/changed")).unwrap(), Some(upper));
        assert_eq!(new.provider(Path::new("kind")).unwrap(), None);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
