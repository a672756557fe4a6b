//! [`Below`]: what the layers below a layer show together, as overlayfs would.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::{Errno, retry_on_intr};

use crate::copy::Hands;
use crate::rootfs::fault::{By, Fault};

/// So many directories are remembered.
const REMEMBERED: usize = 4096;

/// Directories in the form of overlay layers, topmost first. They have whiteouts but no opaque marks.
pub(crate) struct Below {
    layers: Vec<OwnedFd>,
    /// In which layers a directory can be seen, topmost first.
    visible: HashMap<Vec<u8>, Rc<[usize]>>,
}

/// What is found at a path.
pub(crate) struct Found {
    pub(crate) layer: usize,
    pub(crate) place: OwnedFd,
    pub(crate) meta: Stat,
}

impl Found {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.meta.st_mode)
    }
}

/// True for what overlayfs takes as "there is nothing".
pub(crate) fn is_whiteout(meta: &Stat) -> bool {
    FileType::from_raw_mode(meta.st_mode) == FileType::CharacterDevice && meta.st_rdev == 0
}

/// What is at a name; links are not followed.
pub(crate) fn look_at(hands: &mut dyn Hands, dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Stat> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::ACCESS) => fstat(hands.look(dir, name, PLACE)?),
        result => result,
    }
}

pub(super) const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Below {
    pub(crate) fn open(layers: &[PathBuf]) -> Result<Below, (PathBuf, Fault)> {
        let open = |path: &PathBuf| {
            let opened = retry_on_intr(|| openat(CWD, path, PLACE | OFlags::DIRECTORY, Mode::empty())).by("open");
            opened.map_err(|fault| (path.clone(), fault))
        };
        Ok(Below { layers: layers.iter().map(open).collect::<Result<_, _>>()?, visible: HashMap::new() })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// What is at a path without links in it; the last part is not followed.
    pub(crate) fn find(&mut self, hands: &mut dyn Hands, path: &[u8]) -> Result<Option<Found>, Fault> {
        let Some((parent, _)) = split(path) else {
            let Some(top) = self.layers.first() else { return Ok(None) };
            let place = retry_on_intr(|| openat(top, ".", PLACE, Mode::empty())).by("openat")?;
            let meta = fstat(&place).by("fstat")?;
            return Ok(Some(Found { layer: 0, place, meta }));
        };
        for layer in self.visible(hands, parent)?.iter().copied() {
            match self.open_in(hands, layer, path, PLACE)? {
                None => {}
                Some(place) => {
                    let meta = fstat(&place).by("fstat")?;
                    return Ok((!is_whiteout(&meta)).then_some(Found { layer, place, meta }));
                }
            }
        }
        Ok(None)
    }

    /// Opens a directory of one layer as a place; none if it is not there.
    pub(crate) fn open_dir(&self, hands: &mut dyn Hands, layer: usize, path: &[u8]) -> Result<Option<OwnedFd>, Fault> {
        self.open_in(hands, layer, path, PLACE | OFlags::DIRECTORY)
    }

    /// Opens a directory of one layer for reading; none if it is not there.
    pub(crate) fn open_for_reading(
        &self,
        hands: &mut dyn Hands,
        layer: usize,
        path: &[u8],
    ) -> Result<Option<OwnedFd>, Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.open_in(hands, layer, path, flags)
    }

    /// The names in a directory.
    pub(crate) fn list(&mut self, hands: &mut dyn Hands, path: &[u8]) -> Result<Vec<OsString>, Fault> {
        let mut seen = HashSet::new();
        let mut names = Vec::new();
        for layer in self.visible(hands, path)?.iter().copied() {
            let Some(dir) = self.open_for_reading(hands, layer, path)? else { continue };
            let again = dir.try_clone().map_err(|_| Fault::new("dup", Errno::MFILE))?;
            for entry in Dir::new(dir).by("open")? {
                let entry = entry.by("getdents64")?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if matches!(name.as_bytes(), b"." | b"..") || !seen.insert(name.to_owned()) {
                    continue;
                }
                let may_hide = matches!(entry.file_type(), FileType::CharacterDevice | FileType::Unknown);
                let hides = may_hide && is_whiteout(&look_at(hands, again.as_fd(), name).by("fstatat")?);
                if !hides {
                    names.push(name.to_owned());
                }
            }
        }
        Ok(names)
    }

    /// The layers in which a directory can be seen.
    pub(crate) fn visible(&mut self, hands: &mut dyn Hands, path: &[u8]) -> Result<Rc<[usize]>, Fault> {
        if let Some(known) = self.visible.get(path) {
            return Ok(known.clone());
        }
        let Some((parent, _)) = split(path) else { return Ok((0..self.layers.len()).collect()) };
        let mut layers = Vec::new();
        for layer in self.visible(hands, parent)?.iter().copied() {
            let Some(place) = self.open_in(hands, layer, path, PLACE)? else { continue };
            // A file or a whiteout hides what is below it.
            match FileType::from_raw_mode(fstat(&place).by("fstat")?.st_mode) {
                FileType::Directory => layers.push(layer),
                _ => break,
            }
        }
        if self.visible.len() >= REMEMBERED {
            self.visible.clear();
        }
        let layers: Rc<[usize]> = layers.into();
        self.visible.insert(path.to_owned(), layers.clone());
        Ok(layers)
    }

    fn open_in(
        &self,
        hands: &mut dyn Hands,
        layer: usize,
        path: &[u8],
        flags: OFlags,
    ) -> Result<Option<OwnedFd>, Fault> {
        let path = if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) };
        match hands.look(self.layers[layer].as_fd(), path, flags) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(Fault::new("openat2", errno)),
        }
    }
}

/// Parent and name of a path; none for the root, which is empty.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    })
}

pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}
