//! Many layers as one: the same files under new directories, by hard links.
//!
//! Overlayfs takes longer to mount and to look up the more layers it has. What is merged is one layer, has no whiteouts, and
//! takes the space of its directories.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{Dir, FileType, OFlags};
use rustix::io::Errno;

use super::apply::attributes_of;
use super::below::{Below, is_whiteout, join, look_at};
use crate::copy::{self, Hands};
use crate::error::{Error, Result, Step};
use crate::rootfs::fault::{By, Fault};
use crate::rootfs::resolve::Side;

/// Puts into the empty directory `root` what `below` shows. `stopped` is asked at each directory.
pub(crate) fn merge(
    below: &mut Below,
    root: &OwnedFd,
    hands: &mut dyn Hands,
    stopped: &mut dyn FnMut() -> bool,
) -> Result<()> {
    let mut left = vec![Vec::new()];
    while let Some(path) = left.pop() {
        if stopped() {
            return Err(Error::Interrupted);
        }
        let at = |fault: Fault| fault.at(Step::Unpack, Path::new(OsStr::from_bytes(&path)));
        let to = open(hands, root, &path).map_err(at)?;
        let mut seen = HashSet::new();
        for layer in below.visible(hands, &path).map_err(at)?.iter().copied() {
            let Some(dir) = below.open_for_reading(hands, layer, &path).map_err(at)? else { continue };
            let from = dir.try_clone().map_err(|_| at(Fault::new("dup", Errno::MFILE)))?;
            for entry in Dir::new(dir).by("open").map_err(at)? {
                let entry = entry.by("getdents64").map_err(at)?;
                let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
                if matches!(name.as_bytes(), b"." | b"..") || !seen.insert(name.clone()) {
                    continue;
                }
                let mut kind = entry.file_type();
                if matches!(kind, FileType::CharacterDevice | FileType::Unknown) {
                    let meta = look_at(hands, from.as_fd(), &name).by("fstatat").map_err(at)?;
                    if is_whiteout(&meta) {
                        continue;
                    }
                    kind = FileType::from_raw_mode(meta.st_mode);
                }
                if kind == FileType::Directory {
                    hands.mkdir(to.as_fd(), &name).map_err(at)?;
                    left.push(join(&path, name.as_bytes()));
                    continue;
                }
                match hands.link(from.as_fd(), &name, to.as_fd(), &name) {
                    Err(fault) if [Errno::MLINK, Errno::PERM, Errno::XDEV].contains(&fault.errno) => {
                        copy_file(&from, &to, &name)?;
                    }
                    result => result.map_err(at)?,
                }
            }
        }
        let Some(found) = below.find(hands, &path).map_err(at)? else { continue };
        let attributes = attributes_of(found.place.as_fd(), &found.meta).map_err(at)?;
        hands.set(to.as_fd(), &attributes).map_err(at)?;
    }
    Ok(())
}

/// A file has as many names as it may have, or may not be linked: it is copied.
fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &OsStr) -> Result<()> {
    let path = |dir: &OwnedFd| Path::new(&copy::magic_path(dir.as_fd())).join(name);
    let (host, options) = (Side::host(), copy::CopyOptions::of_a_layer());
    copy::copy((host, &path(from)), (host, &path(to)), &options, Step::Unpack, &mut || false).map(drop)
}

fn open(hands: &mut dyn Hands, root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Fault> {
    let path = if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) };
    hands.look(root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW).by("openat2")
}
