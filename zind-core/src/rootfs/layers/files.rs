//! Files of a directory of layers: the lock, the file that changes as a whole, and trees that are removed.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::copy;
use crate::error::{At, Error, Result, Step};

/// The right to use a directory of layers. It ends with this value, or with the last copy of what [`Lock::into_fd`]
/// gives.
#[derive(Debug)]
pub(crate) struct Lock(Option<OwnedFd>);

impl Lock {
    /// Takes the lock, or tells that somebody has it.
    pub(super) fn take(dir: &Path) -> Result<Lock> {
        let busy = "a container runs on them, or its end was not waited for, or somebody is changing them";
        Lock::try_take(dir)?.ok_or_else(|| Error::State(format!("the layers in {} are in use: {busy}", dir.display())))
    }

    /// Takes the lock, if nobody has it.
    pub(super) fn try_take(dir: &Path) -> Result<Option<Lock>> {
        let path = dir.join("lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).at(Step::ReadLayers, "open", &path)?;
        Lock::of(file, &path)
    }

    /// Takes the lock of those who change `state`: the directory itself. A container has it for its start only.
    pub(super) fn take_for_editing(dir: &Path) -> Result<Lock> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let file = rustix::fs::open(dir, flags, Mode::empty()).at(Step::ReadLayers, "open", dir)?;
        Lock::of(file, dir)?.ok_or_else(|| {
            Error::State(format!("the layers in {} are in use: somebody is changing or cloning them", dir.display()))
        })
    }

    fn of(file: OwnedFd, path: &Path) -> Result<Option<Lock>> {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(None),
            other => other.at(Step::ReadLayers, "flock", path).map(|()| Some(Lock(Some(file)))),
        }
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }

    /// The lock as a descriptor, which holds it until the last copy is closed or [`release`] is called.
    pub(crate) fn into_fd(mut self) -> Option<OwnedFd> {
        self.0.take()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.fd().into_iter().for_each(release);
    }
}

/// Ends a lock at once, whoever else has a copy of the descriptor: a process that was forked meanwhile may.
pub(crate) fn release(lock: BorrowedFd<'_>) {
    let _ = rustix::fs::flock(lock, FlockOperation::Unlock);
}

/// Replaces a file by another content: a reader, and whoever comes after a crash, finds the old one or the new one.
pub(super) fn replace(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let (aside, path) = (dir.join(format!("{name}.new")), dir.join(name));
    let mut file = File::create(&aside).at(Step::Layers, "open", &aside)?;
    file.write_all(content).at(Step::Layers, "write", &aside)?;
    file.sync_all().at(Step::Layers, "fsync", &aside)?;
    std::fs::rename(&aside, &path).at(Step::Layers, "rename", &path)?;
    sync_directory(dir)
}

pub(super) fn sync_directory(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).at(Step::Layers, "fsync", dir)
}

/// Removes a tree, if it is there. It is emptied from the top: what lies deep is moved up first, so that neither the depth
/// of the tree nor the length of its paths matter. Directories that nobody may read are made readable. What belongs to the
/// subordinate ids of an ordinary user is removed in a user namespace.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match remove_own_tree(path) {
        Err(error) if matches!(error.errno(), Some(nix::errno::Errno::EACCES | nix::errno::Errno::EPERM)) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(dir) = rustix::fs::open(path, flags, Mode::empty()) else { return Err(error) };
            if copy::remove::empty(&dir).is_err() {
                return Err(error);
            }
            std::fs::remove_dir(path).at(Step::Layers, "rmdir", path)
        }
        result => result,
    }
}

fn remove_own_tree(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::open(parent, flags, Mode::empty()).at(Step::Layers, "open", parent)?;
    if unlink(&parent, name, path)? {
        return Ok(());
    }
    let top = open_directory(&parent, name, path)?;
    let mut number = 0;
    loop {
        let names = names(&top, path)?;
        if names.is_empty() {
            break;
        }
        for name in names {
            let inner = path.join(&name);
            if !unlink(&top, &name, &inner)? {
                empty_into(&top, &name, &inner, &mut number)?;
            }
        }
    }
    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).at(Step::Layers, "rmdir", path)
}

/// Removes a directory of `top`, whose own directories that are not empty become directories of `top`.
fn empty_into(top: &OwnedFd, name: &OsStr, path: &Path, number: &mut u64) -> Result<()> {
    let dir = open_directory(top, name, path)?;
    for child in names(&dir, path)? {
        let inner = path.join(&child);
        if unlink(&dir, &child, &inner)? {
            continue;
        }
        // A directory can only be moved by who may write to it.
        open_directory(&dir, &child, &inner)?;
        loop {
            *number += 1;
            match rustix::fs::renameat(&dir, &child, top, format!("removed-{number}")) {
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                other => break other.at(Step::Layers, "renameat", &inner).map_err(not_ours)?,
            }
        }
    }
    rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR).at(Step::Layers, "rmdir", path)
}

/// Removes a file or an empty directory; false for a directory that is not empty.
fn unlink(dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<bool> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno).at(Step::Layers, "unlinkat", path).map_err(not_ours),
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno).at(Step::Layers, "rmdir", path).map_err(not_ours),
    }
}

fn open_directory(dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<OwnedFd> {
    let all = Mode::from_raw_mode(0o700);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).at(Step::Layers, "fstatat", path)?;
    if stat.st_mode & 0o700 != 0o700 {
        rustix::fs::chmodat(dir, name, all, AtFlags::empty()).at(Step::Layers, "fchmodat", path).map_err(not_ours)?;
    }
    rustix::fs::openat(dir, name, flags, Mode::empty()).at(Step::Layers, "openat", path).map_err(not_ours)
}

fn not_ours(error: Error) -> Error {
    match error.errno() {
        Some(nix::errno::Errno::EACCES | nix::errno::Errno::EPERM) => error.with_hint(
            "a container with uid_map made it as another id of its map; remove it in such a container, or as root",
        ),
        _ => error,
    }
}

fn names(dir: &OwnedFd, path: &Path) -> Result<Vec<OsString>> {
    let at = |result: rustix::io::Result<Dir>| result.at(Step::Layers, "getdents64", path);
    let mut list = Vec::new();
    for entry in at(Dir::read_from(dir))? {
        let name = entry.at(Step::Layers, "getdents64", path)?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            list.push(OsString::from_vec(name));
        }
    }
    Ok(list)
}

/// The content of a file that is small by its nature.
pub(super) fn read(path: &PathBuf) -> Result<Vec<u8>> {
    std::fs::read(path).at(Step::ReadLayers, "open", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn place(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("zind-test-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_deep_tree_with_locked_directories_is_removed() {
        let dir = place("remove");
        let mut deep = dir.join("tree");
        for _ in 0..300 {
            deep.push("d");
        }
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("file"), "x").unwrap();
        std::fs::write(dir.join("tree/removed-1"), "x").unwrap();
        std::fs::create_dir_all(dir.join("tree/removed-2/x/y")).unwrap();
        std::os::unix::fs::symlink("/", dir.join("tree/link")).unwrap();
        for name in ["tree/d/d", "tree/removed-2/x"] {
            std::fs::set_permissions(dir.join(name), PermissionsExt::from_mode(0o000)).unwrap();
        }
        remove_tree(&dir.join("tree")).unwrap();
        remove_tree(&dir.join("tree")).unwrap();
        std::fs::remove_dir(dir).unwrap();
    }

    #[test]
    fn a_lock_is_exclusive_and_ends_with_its_value() {
        let dir = place("lock");
        let lock = Lock::take(&dir).unwrap();
        assert!(matches!(Lock::take(&dir), Err(Error::State(_))));
        drop(lock);
        let fd = Lock::take(&dir).unwrap().into_fd().unwrap();
        assert!(Lock::take(&dir).is_err());
        release(fd.as_fd());
        drop(Lock::take(&dir).unwrap());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
