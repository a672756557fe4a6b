//! A directory, or the upper layers of an overlay, as the tar of an image's layer.
//!
//! What is on the disk was made by programs nobody has to trust, and may still be changed by them: no link is followed, no
//! device or FIFO is opened, and what is read is what the descriptor is, not what the name was.
//! The same files give the same bytes: entries are sorted by name, and nothing of this machine is in them.
//! Source: <https://github.com/opencontainers/image-spec/blob/main/layer.md>
#![forbid(unsafe_code)]

mod compress;
mod meta;
#[cfg(any(test, fuzzing))]
pub(crate) use meta::attributes;
mod tar;

use std::collections::{BTreeSet, HashMap, hash_map};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, Stat};

pub use compress::Compression;
pub(crate) use compress::Encoder;

use crate::error::{At, Error, Result, Step};
use crate::image::links::{self, LINKS_XATTR, Links};
use crate::rootfs::layers::{FileType, Found, Ids, Node, View, attribute, link_target};
use meta::Meta;
use tar::{Entry, Kind};

/// The deepest tree that is packed, in levels.
const DEEPEST: usize = 4096;
/// So much of a file is read at once.
const PIECE: usize = 1 << 18;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a packing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackStats {
    /// Everything that has an entry, whiteouts included.
    pub entries: u64,
    /// Deletions: whiteouts and opaque directories.
    pub whiteouts: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Sockets, which no tar can hold.
    pub skipped: u64,
}

/// How a tree is packed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options<'a> {
    /// What lies below: only what is there needs a whiteout. `None`: nothing.
    pub(crate) below: Option<&'a View>,
    /// Ids of the host as ids of the container.
    pub(crate) ids: Option<&'a Ids>,
    /// Owners are taken from the extended attribute that single-id unpacking leaves.
    pub(crate) owners_in_xattr: bool,
    /// User and group that stand for root where no map says otherwise: whoever unpacked with a single id, or has the directory.
    pub(crate) root: Option<(u32, u32)>,
    /// Directories whose content is left out.
    pub(crate) volumes: &'a [PathBuf],
}

/// Writes the tar of `tree` to `out`. `pause` is told the bytes of content so far; the work ends with
/// [`Error::Interrupted`] when it says so.
/// Errors: [`Error::Sys`] at [`Step::Pack`] with the path of what the caller may not read, or of the write; [`Error::Image`]
/// for what a layer cannot hold.
pub(crate) fn pack(
    tree: &View,
    options: Options<'_>,
    out: &mut dyn Write,
    pause: &mut dyn FnMut(u64) -> bool,
) -> Result<PackStats> {
    let mut packer = Packer {
        tree,
        options,
        out,
        pause,
        stats: PackStats::default(),
        names: HashMap::new(),
        waiting: Vec::new(),
        buffer: vec![0; PIECE],
    };
    packer.root()?;
    while let Some(dir) = packer.waiting.pop() {
        match dir {
            Waiting::Directory(dir) => packer.directory(dir)?,
            Waiting::Entry(dir, name) => packer.entry(&dir, &name)?,
        }
    }
    let Packer { out, stats, .. } = packer;
    tar::finish_archive(out).and_then(|()| out.flush()).at(Step::Pack, "write", "")?;
    Ok(stats)
}

/// A directory, with the layers that it is made of.
#[derive(Clone)]
struct Directory {
    path: PathBuf,
    /// Of the tree, topmost first.
    layers: Vec<usize>,
    /// Of what lies below and is not hidden.
    below: Vec<usize>,
    /// Whose its links are, where all files are the caller's.
    links: Links,
}

/// What is still to be packed, in reverse order.
enum Waiting {
    Directory(std::rc::Rc<Directory>),
    Entry(std::rc::Rc<Directory>, OsString),
}

/// What the layers of the tree say about one name.
enum Merged {
    Nothing,
    /// It is gone.
    Deleted,
    Directory {
        layers: Vec<usize>,
        stat: Stat,
        file: OwnedFd,
        /// Nothing of what lies below is seen in it.
        hides: bool,
    },
    Other {
        layer: usize,
        stat: Stat,
        file: OwnedFd,
    },
}

struct Packer<'a> {
    tree: &'a View,
    options: Options<'a>,
    out: &'a mut dyn Write,
    pause: &'a mut dyn FnMut(u64) -> bool,
    stats: PackStats,
    /// The first name of each file that has several.
    names: HashMap<(u64, u64), Vec<u8>>,
    waiting: Vec<Waiting>,
    buffer: Vec<u8>,
}

impl Packer<'_> {
    fn root(&mut self) -> Result<()> {
        let mut layers = Vec::new();
        let mut hides = false;
        for index in 0..self.tree.depth() {
            layers.push(index);
            let Found::File(_, file) = self.tree.look(index, Path::new(""))? else { continue };
            if self.tree.is_opaque(file.as_fd(), index, Path::new(""))? {
                hides = true;
                break;
            }
        }
        let Some(&top) = layers.first() else { return Ok(()) };
        let Found::File(stat, file) = self.tree.look(top, Path::new(""))? else { return Ok(()) };
        let below = match self.options.below.map(View::root).transpose()? {
            Some(Node::Directory { layers, stat: other, .. }) if !hides => {
                let same = |a: &Stat, b: &Stat| (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid);
                // Its times follow from its entries, and a layer need not speak of it.
                if !same(&stat, &other) {
                    self.plain(Path::new(""), &stat, &file, top, None)?;
                }
                layers
            }
            _ => {
                self.plain(Path::new(""), &stat, &file, top, None)?;
                Vec::new()
            }
        };
        if hides {
            self.whiteout(OPAQUE.to_vec())?;
        }
        let links = self.links(&file, Path::new(""))?;
        let root = Directory { path: PathBuf::new(), layers, below, links };
        self.waiting.push(Waiting::Directory(root.into()));
        Ok(())
    }

    fn directory(&mut self, dir: std::rc::Rc<Directory>) -> Result<()> {
        let mut names = BTreeSet::new();
        self.tree.names(&dir.path, &dir.layers, &mut names)?;
        self.waiting.extend(names.into_iter().rev().map(|name| Waiting::Entry(dir.clone(), name)));
        Ok(())
    }

    fn entry(&mut self, dir: &Directory, name: &OsString) -> Result<()> {
        let path = dir.path.join(name);
        if (self.pause)(self.stats.bytes) {
            return Err(Error::Interrupted);
        }
        let below = match self.options.below {
            Some(view) if !dir.below.is_empty() => view.child(&dir.path, &dir.below, name)?,
            _ => None,
        };
        let merged = self.merged(&path, &dir.layers)?;
        if !matches!(merged, Merged::Nothing | Merged::Deleted) && name.as_bytes().starts_with(WHITEOUT) {
            return Err(no_layer(&path, "names that begin with \".wh.\" mean deletions in a layer"));
        }
        match merged {
            Merged::Nothing => Ok(()),
            // What is not below need not be deleted.
            Merged::Deleted if below.is_none() => Ok(()),
            Merged::Deleted => {
                let mut whiteout = dir.path.as_os_str().as_bytes().to_vec();
                if !whiteout.is_empty() {
                    whiteout.push(b'/');
                }
                whiteout.extend_from_slice(WHITEOUT);
                whiteout.extend_from_slice(name.as_bytes());
                self.whiteout(whiteout)
            }
            Merged::Other { layer, stat, file } => {
                let owner = dir.links.get(name.as_bytes()).copied();
                self.plain(&path, &stat, &file, layer, owner)
            }
            Merged::Directory { layers, stat, file, hides } => {
                if path.iter().count() > DEEPEST {
                    return Err(no_layer(&path, "it lies deeper than 4096 levels"));
                }
                if self.options.volumes.contains(&path) {
                    return match below {
                        Some(Node::Directory { .. }) => Ok(()),
                        _ => self.plain(&path, &stat, &file, layers[0], None),
                    };
                }
                self.plain(&path, &stat, &file, layers[0], None)?;
                let links = self.links(&file, &path)?;
                let below = match below {
                    Some(Node::Directory { layers, .. }) if !hides => layers,
                    Some(Node::Directory { .. }) => {
                        self.whiteout([path.as_os_str().as_bytes(), b"/", OPAQUE].concat())?;
                        Vec::new()
                    }
                    _ => Vec::new(),
                };
                self.waiting.push(Waiting::Directory(Directory { path, layers, below, links }.into()));
                Ok(())
            }
        }
    }

    /// Looks through the layers from the top as overlay does.
    fn merged(&self, path: &Path, layers: &[usize]) -> Result<Merged> {
        let mut directory: Option<(Vec<usize>, Stat, OwnedFd)> = None;
        let mut hides = false;
        for &index in layers {
            let (stat, file) = match self.tree.look(index, path)? {
                Found::Nothing => continue,
                Found::Whiteout => {
                    hides = true;
                    break;
                }
                Found::File(stat, file) => (stat, file),
            };
            if FileType::of(stat.st_mode) != FileType::Directory {
                if directory.is_none() {
                    return Ok(Merged::Other { layer: index, stat, file });
                }
                hides = true;
                break;
            }
            for mark in ["redirect", "metacopy"] {
                if self.tree.mark(file.as_fd(), mark, index, path)?.is_some() {
                    return Err(no_layer(path, "the overlay was mounted with redirect_dir or metacopy"));
                }
            }
            let is_last = self.tree.is_opaque(file.as_fd(), index, path)?;
            match &mut directory {
                Some((all, ..)) => all.push(index),
                None => directory = Some((vec![index], stat, file)),
            }
            if is_last {
                hides = true;
                break;
            }
        }
        Ok(match directory {
            Some((layers, stat, file)) => Merged::Directory { layers, stat, file, hides },
            None if hides => Merged::Deleted,
            None => Merged::Nothing,
        })
    }

    fn whiteout(&mut self, path: Vec<u8>) -> Result<()> {
        self.stats.entries += 1;
        self.stats.whiteouts += 1;
        let entry = Entry { mode: 0o600, ..Entry::new(Kind::File, &path) };
        tar::write_header(self.out, &entry).at(Step::Pack, "write", "")
    }

    /// Whose the links in a directory are.
    fn links(&self, dir: &OwnedFd, path: &Path) -> Result<Links> {
        if !self.options.owners_in_xattr {
            return Ok(Links::new());
        }
        let value = attribute(&self.tree.reach, dir.as_fd(), OsStr::from_bytes(LINKS_XATTR));
        Ok(links::parse(&value.at(Step::Pack, "getxattr", path)?.unwrap_or_default()))
    }

    /// One file as it is. `owner` is that of a link or FIFO, if it is known.
    fn plain(
        &mut self,
        path: &Path,
        stat: &Stat,
        file: &OwnedFd,
        layer: usize,
        owner: Option<(u32, u32)>,
    ) -> Result<()> {
        let mut meta = Meta::of(stat, file, &self.options, path, &self.tree.reach)
            .map_err(|error| self.explained(error, layer, path))?;
        if let Some(owner) = owner.filter(|_| matches!(meta.file_type, FileType::Symlink | FileType::Fifo)) {
            (meta.uid, meta.gid) = owner;
        }
        let mut name = path.as_os_str().as_bytes().to_vec();
        let kind = match meta.file_type {
            FileType::Socket => {
                self.stats.skipped += 1;
                return Ok(());
            }
            FileType::Directory => {
                name.extend_from_slice(if name.is_empty() { b"./" } else { b"/" });
                Kind::Directory
            }
            FileType::File => Kind::File,
            FileType::Symlink => Kind::Symlink,
            FileType::CharDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
        };
        self.stats.entries += 1;
        let mut target = Vec::new();
        if kind == Kind::Symlink {
            target = link_target(file, path)?.into_os_string().into_encoded_bytes();
        }
        let mut entry = Entry {
            kind,
            path: &name,
            target: &target,
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            size: 0,
            mtime: meta.mtime,
            device: meta.device,
            xattrs: &meta.xattrs,
        };
        if kind != Kind::Directory && stat.st_nlink > 1 {
            match self.names.entry((stat.st_dev, stat.st_ino)) {
                hash_map::Entry::Occupied(first) => {
                    let entry = Entry { kind: Kind::HardLink, target: first.get(), xattrs: &[], ..entry };
                    return tar::write_header(self.out, &entry).at(Step::Pack, "write", "");
                }
                hash_map::Entry::Vacant(place) => drop(place.insert(name.clone())),
            }
        }
        if kind != Kind::File {
            return tar::write_header(self.out, &entry).at(Step::Pack, "write", "");
        }
        entry.size = meta.size;
        if entry.size == 0 {
            return tar::write_header(self.out, &entry).at(Step::Pack, "write", "");
        }
        let mut content = self.open(layer, path)?;
        tar::write_header(self.out, &entry).at(Step::Pack, "write", "")?;
        self.content(&mut content, entry.size, path)
    }

    fn open(&self, layer: usize, path: &Path) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.tree.open_in(layer, path, flags).at(Step::Pack, "openat2", self.tree.name(layer, path));
        let file = file.map_err(|error| self.explained(error, layer, path))?;
        let stat = rustix::fs::fstat(&file).at(Step::Pack, "fstat", self.tree.name(layer, path))?;
        if FileType::of(stat.st_mode) != FileType::File {
            return Err(Error::State(format!("{} became something else while it was packed", path.display())));
        }
        Ok(file.into())
    }

    /// Exactly `size` bytes: what is appended meanwhile is left out.
    fn content(&mut self, file: &mut File, size: u64, path: &Path) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match file.read(&mut self.buffer[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.at(Step::Pack, "read", path)?,
            };
            if count == 0 {
                return Err(Error::State(format!(
                    "{} became shorter while it was packed; pause the container meanwhile",
                    path.display()
                )));
            }
            self.out.write_all(&self.buffer[..count]).at(Step::Pack, "write", "")?;
            left -= count as u64;
            self.stats.bytes += count as u64;
            if (self.pause)(self.stats.bytes) {
                return Err(Error::Interrupted);
            }
        }
        tar::pad(self.out, size).at(Step::Pack, "write", "")
    }

    fn explained(&self, error: Error, layer: usize, path: &Path) -> Error {
        match error.errno() {
            Some(nix::errno::Errno::EACCES | nix::errno::Errno::EPERM) => {
                let what = self.tree.name(layer, path);
                let user = "a container with uid_map made it as another id of its map, or locked it by its mode";
                Error::sys(Step::Pack, error.syscall().unwrap_or("openat2"), what, nix::errno::Errno::EACCES)
                    .with_hint(format!("{user}; make the image as root"))
            }
            _ => error,
        }
    }
}

/// Something that is fine as a file and has no form in a layer.
fn no_layer(path: &Path, rule: &str) -> Error {
    Error::Image { what: format!("/{}", path.display()), rule: rule.to_owned() }
}

#[cfg(test)]
mod tests;
