//! Removing a tree that nobody has to trust, however deep it is.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, chmodat, fstat};
use rustix::io::Errno;

use super::attributes::magic_path;
use super::hands::{Hands, Own};
use super::inside::Inside;
use super::temp::unused_name;
use super::walk::names;
use crate::rootfs::fault::{By, Fault};
use crate::rootfs::resolve::PLACE;

/// Removes everything in a directory. Directories in directories are moved up before they are emptied, so that a few
/// descriptors are enough for any depth. Nobody else should work in there.
///
/// What belongs to the subordinate ids of an ordinary user is removed in a user namespace.
pub(crate) fn empty(dir: &OwnedFd) -> Result<(), Fault> {
    match empty_by(&mut Own, dir) {
        Err(fault) if matches!(fault.errno, Errno::ACCESS | Errno::PERM) => match Inside::of_the_caller() {
            Some(mut inside) => empty_by(&mut inside, dir),
            None => Err(fault),
        },
        result => result,
    }
}

/// The same by somebody's hands.
pub(crate) fn empty_by(hands: &mut dyn Hands, dir: &OwnedFd) -> Result<(), Fault> {
    make_writable(dir.as_fd());
    loop {
        let names = list(hands, dir)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            remove_one(hands, dir, &name)?;
        }
    }
}

fn list(hands: &mut dyn Hands, dir: &OwnedFd) -> Result<Vec<OsString>, Fault> {
    // Anew: a place cannot be read from, and a descriptor that was read from is at its end.
    names(hands.look(dir.as_fd(), OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY).by("open")?)
}

fn remove_one(hands: &mut dyn Hands, top: &OwnedFd, name: &OsStr) -> Result<(), Fault> {
    let Some(dir) = remove_unless_directory(hands, top, name)? else { return Ok(()) };
    make_writable(dir.as_fd());
    for inner_name in list(hands, &dir)? {
        if let Some(inner) = remove_unless_directory(hands, &dir, &inner_name)? {
            // Its entry ".." changes.
            make_writable(inner.as_fd());
            hands.rename(dir.as_fd(), &inner_name, top.as_fd(), &OsString::from(unused_name()))?;
        }
    }
    hands.rmdir(top.as_fd(), name)
}

/// Removes an entry; a directory is opened instead.
fn remove_unless_directory(hands: &mut dyn Hands, parent: &OwnedFd, name: &OsStr) -> Result<Option<OwnedFd>, Fault> {
    let fault = match hands.unlink(parent.as_fd(), name) {
        Ok(()) | Err(Fault { errno: Errno::NOENT, .. }) => return Ok(None),
        Err(fault) => fault,
    };
    let place = hands.look(parent.as_fd(), name, PLACE | OFlags::NOFOLLOW).by("openat")?;
    match FileType::from_raw_mode(fstat(&place).by("fstat")?.st_mode) {
        FileType::Directory => Ok(Some(place)),
        _ => Err(fault),
    }
}

/// For an ordinary user, whose own directories may be read-only.
fn make_writable(dir: BorrowedFd<'_>) {
    let _ = chmodat(CWD, magic_path(dir), Mode::RWXU, AtFlags::empty());
}
