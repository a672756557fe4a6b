//! Where an entry goes: the links of its path followed inside of the root, missing directories made.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Stat, readlinkat};
use rustix::io::Errno;

use super::attributes::attributes_of;
use super::{Apply, Stop, WHITEOUT, at};
use crate::image::links::LINKS_XATTR;
use crate::image::unpack::below::{PLACE, is_whiteout, join, look_at, split};
use crate::image::unpack::tar::{Entry, Kind, shorten};
use crate::rootfs::fault::{By, Fault};
use crate::store::Owners;

/// Links that are followed on one path, as the kernel has it.
const MOST_LINKS: usize = 40;

/// What is found at a name.
pub(super) enum Look {
    Directory,
    Link(Vec<u8>),
    Other,
    Nothing,
}

impl Apply<'_> {
    /// Where the parent of an entry really is: its links followed, missing directories made.
    pub(super) fn parent(&mut self, entry: &Entry, written: &[u8]) -> Result<Vec<u8>, Stop> {
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
    pub(super) fn resolve(&mut self, path: &[u8], make: Option<&Entry>) -> Result<Option<Vec<u8>>, Stop> {
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
    pub(super) fn look(&mut self, parent: &[u8], name: &[u8]) -> Result<Look, Stop> {
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
    pub(super) fn copy_attributes(&mut self, path: &[u8], from: BorrowedFd<'_>, meta: &Stat) -> Result<(), Stop> {
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
}
