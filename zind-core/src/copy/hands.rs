//! [`Hands`]: who makes and removes the files of a tree.
//!
//! Mostly this process itself. In a user namespace with ranges of ids it must be somebody inside of it.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fsetxattr, futimens, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, openat2, renameat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, retry_on_intr};

use crate::rootfs::fault::{By, Fault};

/// Opens what is below `dir`, without following a link on the way: as a place to look at, or a directory to be read.
pub(crate) fn open_below(dir: BorrowedFd<'_>, path: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    loop {
        match retry_on_intr(|| openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), BELOW)) {
            // It cannot leave, and nobody renames there; the kernel may be unsure all the same.
            Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
            result => return result,
        }
    }
}

pub(crate) const BELOW: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// What a new file is given. `None` leaves what it came with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Host ids.
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) mode: Option<u32>,
    /// For access and modification.
    pub(crate) time: Option<(i64, u32)>,
    /// In this order. Those that the user or the file system does not allow are left out.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The calls by which a tree is made. Names are single names, never followed if they are links; directories are descriptors.
pub(crate) trait Hands: Send {
    /// User and group of what it makes.
    fn own(&self) -> (u32, u32) {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }

    /// [`open_below`], also where this process may not.
    fn look(&mut self, dir: BorrowedFd<'_>, path: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        open_below(dir, path, flags)
    }

    fn mkdir(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Fault>;

    /// Opens a directory, also one whose mode forbids it: then it is made accessible first.
    fn open_dir(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Fault>;

    /// Makes a file, which must not exist, and opens it for writing.
    fn create(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Fault>;

    /// Gives attributes to an open file or directory; the xattrs that were left out.
    fn set(&mut self, file: BorrowedFd<'_>, attributes: &Attributes) -> Result<Vec<Vec<u8>>, Fault>;

    /// The same for a link or a node, by its name. Links have no mode.
    fn set_at(&mut self, dir: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes) -> Result<Vec<Vec<u8>>, Fault>;

    fn symlink(&mut self, target: &OsStr, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Fault>;

    fn link(&mut self, from: BorrowedFd<'_>, from_name: &OsStr, dir: BorrowedFd<'_>, name: &OsStr)
    -> Result<(), Fault>;

    /// Makes a FIFO or device.
    fn mknod(&mut self, dir: BorrowedFd<'_>, name: &OsStr, kind: FileType, dev: (u32, u32)) -> Result<(), Fault>;

    fn unlink(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Fault>;

    fn rmdir(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Fault>;

    fn rename(
        &mut self,
        from: BorrowedFd<'_>,
        from_name: &OsStr,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), Fault>;
}

/// This process.
#[derive(Debug, Default)]
pub(crate) struct Own;

const DIR: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Hands for Own {
    fn mkdir(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Fault> {
        mkdirat(dir, name, Mode::RWXU).by("mkdirat")
    }

    fn open_dir(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Fault> {
        match retry_on_intr(|| openat(dir, name, OFlags::RDONLY | DIR, Mode::empty())) {
            Err(Errno::ACCESS) => {
                let place = retry_on_intr(|| openat(dir, name, OFlags::PATH | DIR, Mode::empty())).by("openat")?;
                let path = super::magic_path(place.as_fd());
                chmodat(CWD, &path, Mode::RWXU, AtFlags::empty()).by("chmod")?;
                retry_on_intr(|| openat(dir, name, OFlags::RDONLY | DIR, Mode::empty())).by("openat")
            }
            result => result.by("openat"),
        }
    }

    fn create(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Fault> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        retry_on_intr(|| openat(dir, name, flags, Mode::RUSR | Mode::WUSR)).by("openat")
    }

    fn set(&mut self, file: BorrowedFd<'_>, attributes: &Attributes) -> Result<Vec<Vec<u8>>, Fault> {
        // Changing the owner takes set-id bits and capabilities away, so it comes first.
        if let Some((uid, gid)) = attributes.owner {
            fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).by("fchown")?;
        }
        let left = each(&attributes.xattrs, |name, value| fsetxattr(file, name, value, XattrFlags::empty()))?;
        if let Some(mode) = attributes.mode {
            fchmod(file, Mode::from_raw_mode(mode)).by("fchmod")?;
        }
        if let Some(time) = attributes.time {
            futimens(file, &both(time)).by("futimens")?;
        }
        Ok(left)
    }

    fn set_at(&mut self, dir: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes) -> Result<Vec<Vec<u8>>, Fault> {
        if let Some((uid, gid)) = attributes.owner {
            let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).by("fchownat")?;
        }
        let mut left = Vec::new();
        if !attributes.xattrs.is_empty() || attributes.mode.is_some() {
            let place =
                retry_on_intr(|| openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()))
                    .by("openat")?;
            let is_link = rustix::fs::fstat(&place).by("fstat")?.st_mode & libc::S_IFMT == libc::S_IFLNK;
            let path = match is_link {
                // No link of /proc leads to a link: by the directory's.
                true => format!("{}/", super::magic_path(dir)).into_bytes(),
                false => super::magic_path(place.as_fd()).into_bytes(),
            };
            let path = match is_link {
                true => [path.as_slice(), name.as_encoded_bytes()].concat(),
                false => path,
            };
            left = each(&attributes.xattrs, |name, value| match is_link {
                true => lsetxattr(path.as_slice(), name, value, XattrFlags::empty()),
                false => rustix::fs::setxattr(path.as_slice(), name, value, XattrFlags::empty()),
            })?;
            if let Some(mode) = attributes.mode.filter(|_| !is_link) {
                chmodat(CWD, path.as_slice(), Mode::from_raw_mode(mode), AtFlags::empty()).by("chmod")?;
            }
        }
        if let Some(time) = attributes.time {
            utimensat(dir, name, &both(time), AtFlags::SYMLINK_NOFOLLOW).by("utimensat")?;
        }
        Ok(left)
    }

    fn symlink(&mut self, target: &OsStr, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Fault> {
        symlinkat(target, dir, name).by("symlinkat")
    }

    fn link(
        &mut self,
        from: BorrowedFd<'_>,
        from_name: &OsStr,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), Fault> {
        linkat(from, from_name, dir, name, AtFlags::empty()).by("linkat")
    }

    fn mknod(&mut self, dir: BorrowedFd<'_>, name: &OsStr, kind: FileType, dev: (u32, u32)) -> Result<(), Fault> {
        mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, makedev(dev.0, dev.1)).by("mknodat")
    }

    fn unlink(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Fault> {
        unlinkat(dir, name, AtFlags::empty()).by("unlinkat")
    }

    fn rmdir(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Fault> {
        unlinkat(dir, name, AtFlags::REMOVEDIR).by("unlinkat")
    }

    fn rename(
        &mut self,
        from: BorrowedFd<'_>,
        from_name: &OsStr,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), Fault> {
        renameat(from, from_name, dir, name).by("renameat")
    }
}

fn both(time: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: time.0, tv_nsec: i64::from(time.1) };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets attributes one by one; those that are not allowed here.
fn each(
    xattrs: &[(Vec<u8>, Vec<u8>)],
    mut set: impl FnMut(&[u8], &[u8]) -> rustix::io::Result<()>,
) -> Result<Vec<Vec<u8>>, Fault> {
    let mut left = Vec::new();
    for (name, value) in xattrs {
        match set(name, value) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => left.push(name.clone()),
            Err(errno) => return Err(Fault::new("setxattr", errno)),
        }
    }
    Ok(left)
}
