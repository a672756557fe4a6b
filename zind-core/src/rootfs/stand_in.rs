//! What stands in for a copy-on-write root where the kernel makes no overlay of a directory: an overlay by
//! fuse-overlayfs(1), if that is installed; else a copy of it, in memory or, for `overlay=DIRECTORY`, kept there for the next
//! container.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags, flock, openat, renameat_with};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use super::fault::By;
use super::fuse::{self, Fuse};
use super::resolve::Side;
use super::{Overlay, Rootfs};
use crate::copy::{self, CopyOptions, CopyStats, remove};
use crate::error::{At, Error, Result, Step};
use crate::spec::Spec;

/// The copy of the root in an overlay directory.
const COPY: &str = "copy";
/// Its name until it is whole.
const PARTIAL: &str = "copy.partial";

/// What a container gets as root instead of an overlay.
#[derive(Debug)]
pub(crate) enum StandIn {
    /// A directory of the host, written to directly.
    Directory(PathBuf),
    /// A detached tree of its own.
    Tree(OwnedFd),
    /// A directory of the staging area, which [`fill`] fills when the launcher has made it: only there an ordinary user
    /// has a file system in memory.
    Staged(PathBuf),
    /// The file system of a program.
    Fuse(Box<Fuse>),
}

impl StandIn {
    /// What the isolation report calls it.
    pub(crate) fn name(&self) -> &'static str {
        if matches!(self, StandIn::Fuse(_)) { "fuse-overlayfs" } else { "copy" }
    }
}

/// True for an errno with which the kernel says that it makes no overlay of these directories, or none at all.
pub(crate) fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::EINVAL | Errno::ENODEV | Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EACCES)
}

/// True if a copy may stand in for the root's overlay.
pub(crate) fn is_allowed(spec: &Spec) -> bool {
    let is_overlay = !spec.read_only && matches!(spec.overlay, Overlay::Tmpfs | Overlay::Dir(_));
    // Its files would have labels of their own.
    let may_be_another = spec.mount_label.is_none();
    is_overlay
        && may_be_another
        && matches!(spec.rootfs, Rootfs::Path(_))
        && !spec.require.iter().any(|name| name == "overlay")
}

/// What an earlier start has left in the overlay directory: what was changed is in there. `admin`: as of [`make`].
pub(crate) fn kept(spec: &Spec, admin: impl FnOnce() -> Result<bool>) -> Result<Option<StandIn>> {
    let (Overlay::Dir(dir), Rootfs::Path(_), false) = (&spec.overlay, &spec.rootfs, spec.read_only) else {
        return Ok(None);
    };
    let copy = dir.join(COPY);
    let (is_copy, is_fuse) = (copy.is_dir(), fuse::is_kept(dir));
    if !is_copy && !is_fuse {
        return Ok(None);
    }
    if !is_allowed(spec) {
        let what = if is_copy { "a copy of the root" } else { "changes by fuse-overlayfs(1)" };
        let needs = format!("{} holds {what}, made when there was no overlay of the kernel's to be had", dir.display());
        return Err(Error::unsupported("overlay", needs));
    }
    if is_copy {
        return Ok(Some(StandIn::Directory(copy)));
    }
    fuse::make(spec, admin()?)?.map(Box::new).map(StandIn::Fuse).map(Some).ok_or_else(|| fuse::missing(dir))
}

/// An overlay that is not the kernel's. `admin`: the caller may make file systems. What goes wrong on the way is no error: a
/// copy is there for it.
pub(crate) fn make_fuse(spec: &Spec, admin: bool) -> Option<StandIn> {
    fuse::make(spec, admin).ok().flatten().map(Box::new).map(StandIn::Fuse)
}

/// Makes the copy by which the root of `spec` is replaced. `admin`: the caller may make file systems.
/// Errors: [`Error::Sys`] at [`Step::CopyIn`] with the path of what cannot be copied, `ENOSPC` above `tmpfs_size`.
pub(crate) fn make(spec: &Spec, admin: bool, interrupted: &mut dyn FnMut() -> bool) -> Result<Option<StandIn>> {
    let Rootfs::Path(rootfs) = &spec.rootfs else { return Ok(None) };
    match &spec.overlay {
        Overlay::Dir(dir) => in_directory(rootfs, dir, interrupted).map(Some),
        Overlay::Tmpfs if admin => in_memory(rootfs, spec.tmpfs_size, interrupted).map(Some),
        Overlay::Tmpfs => Ok(Some(StandIn::Staged(rootfs.clone()))),
        Overlay::None => Ok(None),
    }
}

/// Copies the root into an empty directory.
pub(crate) fn fill(rootfs: &Path, dir: BorrowedFd<'_>, interrupted: &mut dyn FnMut() -> bool) -> Result<CopyStats> {
    let inside = rootfs.join(".");
    // An overlay shows nothing of what is mounted in its lower directory.
    let options = CopyOptions { one_file_system: true, ..CopyOptions::default() };
    let (from, to) = ((Side::host(), inside.as_path()), (Side::root(dir), Path::new("/")));
    copy::copy(from, to, &options, Step::CopyIn, interrupted)
        .map_err(|error| match error.errno() {
            Some(Errno::ENOSPC) => error.with_hint(
                "the kernel made no overlay of the root, and so the whole of it was being copied: raise tmpfs_size, or make room",
            ),
            _ => error.with_hint("the kernel made no overlay of the root, and so the whole of it was being copied"),
        })
}

fn in_memory(rootfs: &Path, size: Option<u64>, interrupted: &mut dyn FnMut() -> bool) -> Result<StandIn> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Mount, "fsopen", "tmpfs")?;
    let configure = || {
        fsconfig_set_string(&context, "mode", "0755")?;
        size.map_or(Ok(()), |size| fsconfig_set_string(&context, "size", size.to_string()))?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    let tree = configure().at(Step::Mount, "fsmount", "tmpfs")?;
    fill(rootfs, tree.as_fd(), interrupted)?;
    Ok(StandIn::Tree(tree))
}

/// One start copies, the others wait and use it; after a crash it is begun again.
fn in_directory(rootfs: &Path, dir: &Path, interrupted: &mut dyn FnMut() -> bool) -> Result<StandIn> {
    let open =
        |path: &Path| {
            openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .at(Step::CopyIn, "openat", path)
        };
    let (whole, partial) = (dir.join(COPY), dir.join(PARTIAL));
    let lock = open(dir)?;
    rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive)).at(Step::CopyIn, "flock", dir)?;
    if !whole.is_dir() {
        if let Ok(left) = open(&partial) {
            remove::empty(&left).map_err(|fault| fault.at(Step::CopyIn, &partial))?;
        } else {
            std::fs::create_dir(&partial).at(Step::CopyIn, "mkdir", &partial)?;
        }
        fill(rootfs, open(&partial)?.as_fd(), interrupted)?;
        renameat_with(CWD, &partial, CWD, &whole, RenameFlags::NOREPLACE)
            .by("renameat2")
            .map_err(|fault| fault.at(Step::CopyIn, &whole))?;
    }
    Ok(StandIn::Directory(whole))
}
