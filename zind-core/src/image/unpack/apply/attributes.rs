//! Owners, modes and extended attributes: what an entry is given of what it says.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Stat, getxattr, listxattr};
use rustix::io::Errno;

use super::{Apply, Stop};
use crate::copy::{self, Attributes};
use crate::image::unpack::tar::Entry;
use crate::namespace::idmap::to_host;
use crate::rootfs::fault::{By, Fault};
use crate::store::Owners;

/// Where the ids and modes are when files are all the caller's.
pub(super) const OWNER_XATTR: &[u8] = b"user.zind.owner";
/// The file capabilities that an ordinary user may not set.
const CAPABILITY_XATTR: &[u8] = b"user.zind.capability";

impl Apply<'_> {
    /// What an entry is given. `setgid`: it came with the group of its directory.
    pub(super) fn attributes(&mut self, entry: &Entry, kind: FileType, setgid: bool) -> Result<Attributes, Stop> {
        let id = |id: u64, what: &str| match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => self.rule(&entry.path, format!("belongs to {what} {id}, which no system has")),
        };
        let (uid, gid) = (id(entry.uid, "user")?, id(entry.gid, "group")?);
        let unmapped = |id: u32, what: &str| -> Result<u32, Stop> {
            self.rule(&entry.path, format!("belongs to {what} {id}, which has no id in the user namespace"))
        };
        let owner = match self.owners {
            Owners::Kept => (uid, gid),
            Owners::Mapped { uid: users, gid: groups } => (
                to_host(users, uid).map_or_else(|| unmapped(uid, "user"), Ok)?,
                to_host(groups, gid).map_or_else(|| unmapped(gid, "group"), Ok)?,
            ),
            Owners::Xattr => self.own,
        };
        let mut mode = entry.mode;
        let mut xattrs = Vec::new();
        let mut left = Vec::new();
        for (name, value) in &entry.xattrs {
            match class(name) {
                Class::Taken => xattrs.push((name.clone(), value.clone())),
                Class::Capability if *self.owners == Owners::Xattr => {
                    xattrs.push((CAPABILITY_XATTR.to_vec(), value.clone()));
                }
                Class::Capability => xattrs.push((name.clone(), value.clone())),
                Class::Refused => left.push(name.clone()),
            }
        }
        if *self.owners == Owners::Xattr && matches!(kind, FileType::RegularFile | FileType::Directory) {
            let usable = mode_on_disk(mode, kind, (uid, gid));
            if (uid, gid) != (0, 0) || usable != mode {
                xattrs.push((OWNER_XATTR.to_vec(), record(entry, kind, None)));
            }
            mode = usable;
        }
        let owner = (owner != self.own || setgid).then_some(owner);
        if !left.is_empty() {
            let path = entry.path.clone();
            self.note_left(&path, left);
        }
        Ok(Attributes { owner, mode: Some(mode), time: Some(entry.mtime), xattrs })
    }
}

/// What a directory has, for another.
pub(crate) fn attributes_of(from: BorrowedFd<'_>, meta: &Stat) -> Result<Attributes, Fault> {
    let mut xattrs = Vec::new();
    let from = copy::magic_path(from);
    let mut names = vec![0; 1 << 16];
    let length = match listxattr(from.as_str(), &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        result => result.by("listxattr")?,
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        if !name.starts_with(b"security.selinux")
            && let Ok(length) = getxattr(from.as_str(), name, &mut value[..])
        {
            value.truncate(length);
            xattrs.push((name.to_vec(), value));
        }
    }
    Ok(Attributes {
        owner: Some((meta.st_uid, meta.st_gid)),
        mode: Some(meta.st_mode & 0o7777),
        time: Some((meta.st_mtime, u32::try_from(meta.st_mtime_nsec).unwrap_or_default())),
        xattrs,
    })
}

/// What is done with an extended attribute.
#[derive(Debug, PartialEq, Eq)]
enum Class {
    Taken,
    Capability,
    /// Overlayfs or zind would believe it, or the system's own policy sets it.
    Refused,
}

fn class(name: &[u8]) -> Class {
    let starts = |prefix: &[u8]| name.starts_with(prefix);
    if starts(b"trusted.overlay.") || starts(b"user.overlay.") || starts(b"user.zind.") {
        Class::Refused
    } else if name == b"security.capability" {
        Class::Capability
    } else if starts(b"user.") || starts(b"trusted.") || starts(b"system.posix_acl_") {
        Class::Taken
    } else {
        Class::Refused
    }
}

/// The mode that a file gets on disk where all files are the caller's: set-id bits would mean the caller, except for those
/// of root; and the caller must be able to read what it unpacks again, or copies. If it is not the mode of the layer, that
/// is in the attribute.
fn mode_on_disk(mode: u32, kind: FileType, owner: (u32, u32)) -> u32 {
    let kept = if owner == (0, 0) { mode } else { mode & !0o6000 };
    kept | if kind == FileType::Directory { 0o700 } else { 0o400 }
}

/// `"uid:gid:mode"`, and `":major:minor"` of a device.
pub(super) fn record(entry: &Entry, kind: FileType, dev: Option<(u32, u32)>) -> Vec<u8> {
    let mut text = format!("{}:{}:{:o}", entry.uid, entry.gid, kind.as_raw_mode() | entry.mode);
    if let Some((major, minor)) = dev {
        text += &format!(":{major}:{minor}");
    }
    text.into_bytes()
}
