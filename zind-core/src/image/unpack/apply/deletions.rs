//! Whiteouts, and directories in which nothing shows from below.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Apply, Stop, at};
use crate::image::unpack::below::{join, look_at};
use crate::image::unpack::tar::Entry;
use crate::rootfs::fault::{By, Fault};

const OPAQUE: &[u8] = b".wh..wh..opq";
/// What else begins so is aufs's own.
const META: &[u8] = b".wh..wh.";

/// As many directories are remembered to hide everything below.
const OPAQUE_KNOWN: usize = 1024;

impl Apply<'_> {
    pub(super) fn whiteout(
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
    pub(super) fn hide_all(&mut self, path: &[u8], stopped: &dyn Fn() -> bool) -> Result<(), Stop> {
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
}
