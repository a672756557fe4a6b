//! Owner, mode, times and attributes of a file, as the container sees them.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::Stat;

use super::{Options, no_layer};
use crate::copy::Reach;
use crate::error::{At, Result, Step};
use crate::namespace::idmap::IdMap;
use crate::rootfs::layers::{FileType, Ids, attribute, attribute_names};

/// Where single-id unpacking keeps `uid:gid:mode`.
pub(crate) const OWNER: &str = "user.zind.owner";

/// Where it keeps file capabilities.
const CAPABILITY: &str = "user.zind.capability";

pub(super) struct Meta {
    pub(super) file_type: FileType,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: (i64, u32),
    pub(super) device: (u32, u32),
    /// Sorted by name.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Meta {
    pub(super) fn of(stat: &Stat, file: &OwnedFd, options: &Options<'_>, path: &Path, reach: &Reach) -> Result<Meta> {
        let file_type = FileType::of(stat.st_mode);
        let (mut uid, mut gid) = (stat.st_uid, stat.st_gid);
        if let Some(ids) = options.ids {
            uid = mapped(&ids.uid, uid, path, "user")?;
            gid = mapped(&ids.gid, gid, path, "group")?;
        }
        // Before the attribute is looked at: files of root have none.
        if let Some((user, group)) = options.root {
            let is_mapped = |maps: fn(&Ids) -> &[IdMap]| options.ids.is_some_and(|ids| !maps(ids).is_empty());
            uid = if uid == user && !is_mapped(|ids| &ids.uid) { 0 } else { uid };
            gid = if gid == group && !is_mapped(|ids| &ids.gid) { 0 } else { gid };
        }
        let is_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
        let mut meta = Meta {
            file_type,
            mode: stat.st_mode & 0o7777,
            uid,
            gid,
            size: if file_type == FileType::File { stat.st_size as u64 } else { 0 },
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            device: if is_device { (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) } else { (0, 0) },
            xattrs: Vec::new(),
        };
        meta.attributes(file, options, path, reach)?;
        Ok(meta)
    }

    fn attributes(&mut self, file: &OwnedFd, options: &Options<'_>, path: &Path, reach: &Reach) -> Result<()> {
        for name in attribute_names(file.as_fd()).at(Step::Pack, "listxattr", path)? {
            if name == OWNER {
                let value = attribute(reach, file.as_fd(), &name).at(Step::Pack, "getxattr", path)?.unwrap_or_default();
                // In a user namespace with ranges only devices have it: nobody can make them there.
                if options.owners_in_xattr || Kept::parse(&value).is_some_and(|kept| kept.device.is_some()) {
                    self.kept(&value);
                }
                continue;
            }
            if name == CAPABILITY && options.owners_in_xattr {
                if let Some(mut value) = attribute(reach, file.as_fd(), &name).at(Step::Pack, "getxattr", path)? {
                    without_root_id(&mut value);
                    self.xattrs.push((b"security.capability".to_vec(), value));
                }
                continue;
            }
            if !is_kept(&name) || name.as_bytes().starts_with(b"user.zind.") {
                continue;
            }
            let Some(mut value) = attribute(reach, file.as_fd(), &name).at(Step::Pack, "getxattr", path)? else {
                continue;
            };
            match (name.as_bytes(), options.ids) {
                (b"security.capability", _) => without_root_id(&mut value),
                (b"system.posix_acl_access" | b"system.posix_acl_default", Some(ids)) => {
                    map_acl(&mut value, &ids.uid, &ids.gid, path)?;
                }
                _ => {}
            }
            if name.as_bytes().contains(&b'=') {
                return Err(no_layer(path, "a tar holds no extended attribute with \"=\" in its name"));
            }
            self.xattrs.push((name.as_bytes().to_vec(), value));
        }
        Ok(())
    }

    /// What the file was before everything became the caller's. The container may have written it: nonsense says nothing.
    fn kept(&mut self, value: &[u8]) {
        let Some(kept) = Kept::parse(value) else { return };
        (self.uid, self.gid) = (kept.uid, kept.gid);
        let is_directory = self.file_type == FileType::Directory;
        if kept.usable_mode(is_directory) == self.mode {
            // Nobody has changed it since.
            self.mode = kept.mode & 0o7777;
        }
        let Some(device) = kept.device else { return };
        self.file_type = match kept.mode & 0o170_000 {
            0o020_000 => FileType::CharDevice,
            0o060_000 => FileType::BlockDevice,
            _ => return,
        };
        (self.device, self.size, self.mode) = (device, 0, kept.mode & 0o7777);
    }
}

/// The attribute that single-id unpacking leaves: `uid:gid:mode` with the mode in octal, and `:major:minor` of devices.
struct Kept {
    uid: u32,
    gid: u32,
    mode: u32,
    device: Option<(u32, u32)>,
}

impl Kept {
    fn parse(value: &[u8]) -> Option<Kept> {
        let mut parts = std::str::from_utf8(value).ok()?.split(':');
        let id = |text: &str| text.parse::<u32>().ok().filter(|&id| id != u32::MAX);
        let (uid, gid) = (id(parts.next()?)?, id(parts.next()?)?);
        let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
        let device = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some(major), Some(minor), None) => Some((id(major)?, id(minor)?)),
            _ => return None,
        };
        Some(Kept { uid, gid, mode, device })
    }

    /// The mode that unpacking gave it: without set-id bits of others, and so that the caller can use it.
    fn usable_mode(&self, is_directory: bool) -> u32 {
        let mode = self.mode & 0o7777;
        let kept = if (self.uid, self.gid) == (0, 0) { mode } else { mode & !0o6000 };
        kept | if is_directory { 0o700 } else { 0o400 }
    }
}

/// Attributes that a container may have written: of a file before it became the caller's, an access list, capabilities.
#[cfg(any(test, fuzzing))]
pub(crate) fn attributes(bytes: &[u8]) {
    if let Some(kept) = Kept::parse(bytes) {
        assert!(kept.uid != u32::MAX && kept.gid != u32::MAX && kept.usable_mode(true) <= 0o7777);
    }
    let maps = [IdMap { container: 0, host: 1000, size: 1 }, IdMap { container: 1, host: 100_000, size: 65536 }];
    let mut list = bytes.to_vec();
    if map_acl(&mut list, &maps, &maps, Path::new("x")).is_ok() {
        let changed = list.iter().zip(bytes).skip(4).filter(|(new, old)| new != old).count();
        assert!(list.len() == bytes.len() && changed <= bytes.len() / 2);
    }
    let mut capabilities = bytes.to_vec();
    without_root_id(&mut capabilities);
    assert!(capabilities.len() == bytes.len() || capabilities.len() == 20);
}

/// Labels of this machine's security modules stay here.
fn is_kept(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let spaces: [&[u8]; 2] = [b"user.", b"trusted."];
    spaces.iter().any(|space| name.starts_with(space))
        || [&b"security.capability"[..], b"system.posix_acl_access", b"system.posix_acl_default"].contains(&name)
}

fn mapped(maps: &[IdMap], id: u32, path: &Path, what: &str) -> Result<u32> {
    if maps.is_empty() {
        return Ok(id);
    }
    let map = maps.iter().find(|map| id >= map.host && id - map.host < map.size);
    let map = map.ok_or_else(|| no_layer(path, &format!("its {what} {id} has no id in the container's map")))?;
    Ok(map.container + (id - map.host))
}

/// `VFS_CAP_REVISION_3` names the user namespace by its root on this machine; in an image it is that of whoever unpacks it.
fn without_root_id(value: &mut Vec<u8>) {
    const REVISION_3: u8 = 3;
    if value.len() == 24 && value[3] == REVISION_3 {
        value.truncate(20);
        value[3] = 2;
    }
}

/// The ids in an access control list: `struct posix_acl_xattr_entry`.
fn map_acl(value: &mut [u8], uids: &[IdMap], gids: &[IdMap], path: &Path) -> Result<()> {
    let Some(entries) = value.get_mut(4..) else { return Ok(()) };
    for entry in entries.chunks_exact_mut(8) {
        let (maps, what) = match u16::from_le_bytes([entry[0], entry[1]]) {
            2 => (uids, "user"),
            8 => (gids, "group"),
            _ => continue,
        };
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        entry[4..].copy_from_slice(&mapped(maps, id, path, what)?.to_le_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_given_back_where_nobody_changed_it() {
        let meta = |file_type, mode| Meta {
            file_type,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            device: (0, 0),
            xattrs: Vec::new(),
        };
        let after = |file_type, mode, text: &str| {
            let mut meta = meta(file_type, mode);
            meta.kept(text.as_bytes());
            (meta.uid, meta.gid, meta.mode)
        };
        assert_eq!(after(FileType::File, 0o755, "5:6:104755"), (5, 6, 0o4755));
        assert_eq!(after(FileType::File, 0o700, "5:6:104755"), (5, 6, 0o700));
        assert_eq!(after(FileType::Directory, 0o700, "0:0:40000"), (0, 0, 0));
        let mut device = meta(FileType::File, 0);
        device.kept(b"0:6:20660:4:64");
        assert_eq!((device.file_type, device.device, device.mode), (FileType::CharDevice, (4, 64), 0o660));
        for bad in ["", "1", "1:2", "x:2:644", "4294967295:0:644", "1:2:9", "1:2:644:1", "1:2:644:1:2:3", "\u{ff}"] {
            assert_eq!(after(FileType::File, 0o600, bad), (0, 0, 0o600), "{bad}");
        }
    }

    #[test]
    fn acls_and_capabilities_lose_the_ids_of_this_machine() {
        let maps = [IdMap { container: 0, host: 100_000, size: 10 }];
        let mut acl =
            [&2_u32.to_le_bytes()[..], &2_u16.to_le_bytes(), &7_u16.to_le_bytes(), &100_003_u32.to_le_bytes()].concat();
        map_acl(&mut acl, &maps, &[], Path::new("x")).unwrap();
        assert_eq!(acl[8..], 3_u32.to_le_bytes());
        acl[8..].copy_from_slice(&7_u32.to_le_bytes());
        assert!(map_acl(&mut acl, &maps, &[], Path::new("x")).is_err());
        let mut caps = vec![0; 24];
        caps[3] = 3;
        without_root_id(&mut caps);
        assert_eq!((caps.len(), caps[3]), (20, 2));
    }
}
