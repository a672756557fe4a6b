//! Removing a tree that nobody has to trust, however deep it is.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, chmodat, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::attributes::magic_path;
use super::temp::unused_name;
use super::walk::list;
use crate::rootfs::fault::{By, Fault};
use crate::rootfs::resolve::PLACE;

/// Removes everything in a directory. Directories in directories are moved up before they are emptied, so that a few
/// descriptors are enough for any depth. Nobody else should work in there.
pub(crate) fn empty(dir: &OwnedFd) -> Result<(), Fault> {
    make_writable(dir);
    loop {
        let names = list(dir)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            remove_one(dir, &name)?;
        }
    }
}

fn remove_one(top: &OwnedFd, name: &OsStr) -> Result<(), Fault> {
    let Some(dir) = remove_unless_directory(top, name)? else { return Ok(()) };
    make_writable(&dir);
    for inner_name in list(&dir)? {
        if let Some(inner) = remove_unless_directory(&dir, &inner_name)? {
            // Its entry ".." changes.
            make_writable(&inner);
            renameat(&dir, &inner_name, top, unused_name()).by("renameat")?;
        }
    }
    unlinkat(top, name, AtFlags::REMOVEDIR).by("unlinkat")
}

/// Removes an entry; a directory is opened instead.
fn remove_unless_directory(parent: &OwnedFd, name: &OsStr) -> Result<Option<OwnedFd>, Fault> {
    let errno = match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(errno) => errno,
    };
    let place = openat(parent, name, PLACE | OFlags::NOFOLLOW, Mode::empty()).by("openat")?;
    match FileType::from_raw_mode(fstat(&place).by("fstat")?.st_mode) {
        FileType::Directory => Ok(Some(place)),
        _ => Err(Fault::new("unlinkat", errno)),
    }
}

/// For an ordinary user, whose own directories may be read-only.
fn make_writable(dir: &OwnedFd) {
    let _ = chmodat(CWD, magic_path(dir.as_fd()), Mode::RWXU, AtFlags::empty());
}
