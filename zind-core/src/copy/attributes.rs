//! Owner, mode, times and extended attributes, all through descriptors.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fstat, getxattr,
    listxattr, removexattr, setxattr, utimensat,
};
use rustix::io::Errno;

use crate::rootfs::fault::{By, Fault};

const ACL: &CStr = c"system.posix_acl_access";
const DEFAULT_ACL: &CStr = c"system.posix_acl_default";
const SET_ID: u32 = 0o6000;

/// The path by which the kernel finds what a descriptor is open on, whoever renames it meanwhile; also for one that was
/// opened as a place (`O_PATH`), which many calls do not take.
pub(crate) fn magic_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/thread-self/fd/{}", fd.as_raw_fd())
}

/// Gives a copy what its source has.
pub(crate) struct Keep<'a> {
    pub(crate) owner: Option<(u32, u32)>,
    /// The copy is to be a layer of an overlay, as the source is.
    pub(crate) layer: bool,
    /// Gets each thing that this user or the file system does not allow, and says whether to go on.
    pub(crate) refused: &'a mut dyn FnMut(Fault) -> Result<(), Fault>,
}

impl Keep<'_> {
    /// Gives `to` what `from` has. `meta` is that of `from`.
    pub(crate) fn all(&mut self, from: BorrowedFd<'_>, meta: &Stat, to: BorrowedFd<'_>) -> Result<(), Fault> {
        let kind = FileType::from_raw_mode(meta.st_mode);
        // Changing the owner takes set-id bits and capabilities away, so it comes first.
        let owner_is_kept = self.owner(meta, to)?;
        self.xattrs(from, to, kind)?;
        // A program that runs as its owner must not run as somebody else.
        let is_given_away = self.owner.is_some_and(|owner| owner != (meta.st_uid, meta.st_gid));
        let loses_set_id = !owner_is_kept || is_given_away && kind != FileType::Directory;
        let mode = meta.st_mode & 0o7777 & if loses_set_id { !SET_ID } else { 0o7777 };
        if kind != FileType::Symlink {
            let result = chmodat(CWD, magic_path(to), Mode::from_raw_mode(mode), AtFlags::empty());
            self.allow(result.by("chmod"), "the mode of somebody else's file may not be changed")?;
        }
        self.times(meta, to)
    }

    /// True if the owner is as it should be.
    fn owner(&mut self, meta: &Stat, to: BorrowedFd<'_>) -> Result<bool, Fault> {
        let wanted = self.owner.unwrap_or((meta.st_uid, meta.st_gid));
        let now = fstat(to).by("fstat")?;
        if (now.st_uid, now.st_gid) == wanted {
            return Ok(true);
        }
        let (uid, gid) = (Some(Uid::from_raw(wanted.0)), Some(Gid::from_raw(wanted.1)));
        let Err(errno) = chownat(to, "", uid, gid, AtFlags::EMPTY_PATH) else { return Ok(true) };
        // The group alone may be one of the user's own.
        let _ = chownat(to, "", None, gid, AtFlags::EMPTY_PATH);
        let hint = match errno {
            Errno::PERM => {
                "only who has CAP_CHOWN over the file system gives files away: leave strict off, or set owner"
            }
            _ => "the owner has no id in the user namespace of the target: leave strict off, or set owner",
        };
        self.allow(Err(Fault::new("fchownat", errno)), hint)?;
        Ok(false)
    }

    fn xattrs(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, kind: FileType) -> Result<(), Fault> {
        let (from, to) = (magic_path(from), magic_path(to));
        let names = match list(&from) {
            Err(fault) if is_forbidden(fault.errno) => {
                (self.refused)(fault.hint("this user may not read the extended attributes"))?;
                Vec::new()
            }
            result => result?,
        };
        for name in &names {
            match class(name) {
                Class::System if self.layer => {}
                class if class == Class::Taken || self.layer => {
                    let Some(value) = self.read(&from, name)? else { continue };
                    let result = setxattr(to.as_str(), name.as_c_str(), &value, XattrFlags::empty()).by("setxattr");
                    self.allow(result, "this user or the file system may not set it")?;
                }
                Class::Taken | Class::Overlay => self.allow(
                    Err(Fault::new("setxattr", Errno::PERM)),
                    "the marks of overlayfs mean something to the kernel, and are never copied",
                )?,
                // The system gives the copy its own, which may be the same.
                Class::System => {
                    let Some(value) = self.read(&from, name)? else { continue };
                    if get(&to, name).ok().flatten() != Some(value) {
                        let hint = "it is for the policy of the system to set, and is not copied";
                        self.allow(Err(Fault::new("setxattr", Errno::PERM)), hint)?;
                    }
                }
            }
        }
        // What the directory made the new file inherit, and the source does not have.
        let inherited =
            [(kind != FileType::Symlink).then_some(ACL), (kind == FileType::Directory).then_some(DEFAULT_ACL)];
        for name in inherited.into_iter().flatten().filter(|name| !names.iter().any(|has| has.as_c_str() == *name)) {
            let _ = removexattr(to.as_str(), name);
        }
        Ok(())
    }

    /// A value of the source's; none if it went away, or this user may not see it.
    fn read(&mut self, from: &str, name: &CStr) -> Result<Option<Vec<u8>>, Fault> {
        match get(from, name) {
            Err(fault) if is_forbidden(fault.errno) => {
                (self.refused)(fault.hint("this user may not read it")).map(|()| None)
            }
            result => result,
        }
    }

    fn times(&mut self, meta: &Stat, to: BorrowedFd<'_>) -> Result<(), Fault> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: meta.st_atime as _, tv_nsec: meta.st_atime_nsec as _ },
            last_modification: Timespec { tv_sec: meta.st_mtime as _, tv_nsec: meta.st_mtime_nsec as _ },
        };
        let result = utimensat(to, "", &times, AtFlags::EMPTY_PATH).by("utimensat");
        self.allow(result, "the times of somebody else's file may not be changed")
    }

    /// Lets a refusal pass that is due to who asks or to the file system.
    fn allow(&mut self, result: Result<(), Fault>, hint: &'static str) -> Result<(), Fault> {
        match result {
            Err(fault) if is_refusal(fault.errno) => (self.refused)(fault.hint(hint)),
            result => result,
        }
    }
}

fn is_refusal(errno: Errno) -> bool {
    [Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP, Errno::INVAL, Errno::OVERFLOW].contains(&errno)
}

fn is_forbidden(errno: Errno) -> bool {
    [Errno::PERM, Errno::ACCESS].contains(&errno)
}

/// What is done with an extended attribute.
#[derive(Debug, PartialEq, Eq)]
enum Class {
    Taken,
    /// Overlayfs would believe it.
    Overlay,
    /// Labels that each system's own policy gives: SELinux, IMA and the like.
    System,
}

fn class(name: &CStr) -> Class {
    let name = name.to_bytes();
    let starts = |prefix: &str| name.starts_with(prefix.as_bytes());
    if starts("trusted.overlay.") || starts("user.overlay.") {
        Class::Overlay
    } else if starts("user.") || starts("trusted.") || starts("system.posix_acl_") || name == b"security.capability" {
        Class::Taken
    } else {
        Class::System
    }
}

/// As long as a list or a value may be: `XATTR_LIST_MAX` and `XATTR_SIZE_MAX` of the kernel, in bytes.
const LONGEST: usize = 1 << 16;

fn list(path: &str) -> Result<Vec<CString>, Fault> {
    let mut buffer = vec![0; 1 << 10];
    loop {
        match listxattr(path, &mut buffer[..]) {
            Ok(len) => return Ok(split_names(&buffer[..len])),
            Err(Errno::RANGE) if buffer.len() < LONGEST => buffer.resize(LONGEST, 0),
            // File systems that have no attributes.
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(Fault::new("listxattr", errno)),
        }
    }
}

fn split_names(buffer: &[u8]) -> Vec<CString> {
    buffer.split(|byte| *byte == 0).filter(|name| !name.is_empty()).filter_map(|name| CString::new(name).ok()).collect()
}

/// The value of an attribute; none if it went away.
fn get(path: &str, name: &CStr) -> Result<Option<Vec<u8>>, Fault> {
    let mut value = vec![0; 1 << 10];
    loop {
        match getxattr(path, name, &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) if value.len() < LONGEST => value.resize(LONGEST, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(Fault::new("getxattr", errno)),
        }
    }
}

/// Sets the mode of a new file exactly, whatever the umask.
pub(crate) fn set_mode(file: impl AsFd, mode: u32) -> Result<(), Fault> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).by("fchmod")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_marks_and_labels_stay_behind() {
        assert_eq!(class(c"user.comment"), Class::Taken);
        assert_eq!(class(c"trusted.key"), Class::Taken);
        assert_eq!(class(c"security.capability"), Class::Taken);
        assert_eq!(class(c"system.posix_acl_default"), Class::Taken);
        assert_eq!(class(c"trusted.overlay.opaque"), Class::Overlay);
        assert_eq!(class(c"user.overlay.redirect"), Class::Overlay);
        assert_eq!(class(c"security.selinux"), Class::System);
        assert_eq!(split_names(b"a\0bc\0"), [c"a".to_owned(), c"bc".to_owned()]);
    }
}
