//! From the entries of a layer to a directory that overlayfs takes as a layer.
//!
//! Everything goes by descriptors of directories that this walk has made or opened itself; no name with a slash reaches the
//! kernel, no link is followed by it. Links among the parents of an entry are followed here, inside of the root.
//!
//! Whiteouts become devices 0:0, where they hide something. There are no opaque marks: what an opaque directory hides gets
//! whiteouts, one by one. So no extended attributes are needed, and the directory serves in any user namespace.
#![forbid(unsafe_code)]

mod attributes;
mod deletions;
mod entries;
mod link_owners;
mod open;
mod parents;

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::FileType;

use super::below::{Below, split};
use super::limits::Limits;
use super::tar::{Broken, Entry, Kind, Reader, shorten};
use crate::copy::Hands;
use crate::image::links::Links;
use crate::rootfs::fault::Fault;
use crate::store::Owners;
pub(crate) use attributes::attributes_of;

/// As long as a path may be: `PATH_MAX` without its NUL.
const LONGEST: usize = 4095;
/// Records of what was left out that are kept; all are counted.
const MOST_LEFT: usize = 100;

const WHITEOUT: &[u8] = b".wh.";

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

    fn note_left(&mut self, path: &[u8], what: Vec<Vec<u8>>) {
        for what in what {
            self.unpacked.left += 1;
            if self.unpacked.left_list.len() < MOST_LEFT {
                self.unpacked.left_list.push(format!("{}: {}", shorten(path), shorten(&what)));
            }
        }
    }
}

fn at(path: &[u8], fault: Fault) -> Stop {
    Stop::Fault(OsString::from_vec(path.to_vec()), fault)
}
