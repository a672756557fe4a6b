//! What each kind of entry becomes: directories, files, links, devices.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, SeekFrom, ftruncate, seek};
use rustix::io::Errno;

use super::attributes::{OWNER_XATTR, record};
use super::parents::Look;
use super::{Apply, LONGEST, Stop, at};
use crate::copy::{self, Attributes, Hands};
use crate::error::Step;
use crate::image::unpack::below::{is_whiteout, join, look_at, split};
use crate::image::unpack::tar::{Broken, Entry, Reader, shorten};
use crate::rootfs::fault::{By, Fault};
use crate::rootfs::resolve::Side;
use crate::store::Owners;

impl Apply<'_> {
    pub(super) fn set_root(&mut self, entry: &Entry) -> Result<(), Stop> {
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

    pub(super) fn directory(
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

    pub(super) fn file<R: BufRead>(
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

    pub(super) fn symlink(&mut self, entry: &Entry, parent: &[u8], name: &OsStr) -> Result<(), Stop> {
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

    pub(super) fn node(
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

    pub(super) fn hard_link(&mut self, entry: &Entry, parent: &[u8], name: &OsStr) -> Result<(), Stop> {
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
}
