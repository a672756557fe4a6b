//! Where a process belongs: namespaces, the id maps of its user namespace, control groups.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;
use rustix::fs::AtFlags;

use super::Proc;
use crate::error::Result;
use crate::namespace::idmap::IdMap;
use crate::namespace::kind::Kind;

/// What identifies a namespace: two processes are in the same one exactly if both numbers are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId {
    /// `st_dev` of the file below `/proc/<pid>/ns`.
    pub dev: u64,
    /// Its inode, the number in `net:[4026531840]`.
    pub inode: u64,
}

/// The id maps of a process's user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMaps {
    /// `uid_map`. Host ids are those of the reader's user namespace; 4294967295 where it has none.
    pub uid: Vec<IdMap>,
    /// `gid_map`, likewise.
    pub gid: Vec<IdMap>,
}

/// Membership of a process in one control group hierarchy.
///
/// Source: <https://man7.org/linux/man-pages/man7/cgroups.7.html>, `/proc/[pid]/cgroup`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupMembership {
    /// Number of the hierarchy; 0 is cgroup v2.
    pub hierarchy: u32,
    /// Controllers of a v1 hierarchy, or its `name=...`; empty for cgroup v2.
    pub controllers: Vec<String>,
    /// Path below the hierarchy's root, as seen from the reader's cgroup namespace: it begins with `/..` for a group
    /// outside of that, and ends in ` (deleted)` for a group that was removed.
    pub path: PathBuf,
}

impl Proc {
    /// The namespaces the process is in, in the order of [`Kind::ALL`].
    ///
    /// A kind that the kernel was built without is left out; of a process that has ended, only the user namespace is
    /// left. See [`Proc::children_namespaces`] for those that its children will be in.
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_ns.5.html>
    pub fn namespaces(&self) -> Result<Vec<(Kind, NamespaceId)>> {
        self.namespace_files(Kind::ALL.map(|kind| (kind, kind.name())))
    }

    /// The pid and time namespaces of the children that the process makes from now on: `pid_for_children`,
    /// `time_for_children`.
    ///
    /// A pid namespace that was made by unshare(2) and has no first process yet is left out.
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_ns.5.html>
    pub fn children_namespaces(&self) -> Result<Vec<(Kind, NamespaceId)>> {
        self.namespace_files([(Kind::Pid, "pid_for_children"), (Kind::Time, "time_for_children")])
    }

    fn namespace_files(
        &self,
        files: impl IntoIterator<Item = (Kind, &'static str)>,
    ) -> Result<Vec<(Kind, NamespaceId)>> {
        let mut found = Vec::new();
        for (kind, name) in files {
            let file = format!("ns/{name}");
            match rustix::fs::statat(&self.dir, &file, AtFlags::empty()) {
                Ok(stat) => found.push((kind, NamespaceId { dev: stat.st_dev, inode: stat.st_ino })),
                Err(rustix::io::Errno::NOENT) if self.exists() => (),
                Err(errno) => return Err(self.error(&file, "newfstatat", errno)),
            }
        }
        Ok(found)
    }

    /// `uid_map` and `gid_map` of the process's user namespace; empty while they are not written.
    ///
    /// Source: <https://man7.org/linux/man-pages/man7/user_namespaces.7.html>
    pub fn id_maps(&self) -> Result<IdMaps> {
        Ok(IdMaps { uid: self.read_lines("uid_map", parse_id_map)?, gid: self.read_lines("gid_map", parse_id_map)? })
    }

    /// Whether setgroups(2) is allowed in the process's user namespace: `"allow"` or `"deny"`; `None` where the kernel
    /// has no such file.
    ///
    /// Source: <https://man7.org/linux/man-pages/man7/user_namespaces.7.html>
    pub fn setgroups(&self) -> Result<Option<String>> {
        match self.read("setgroups") {
            Ok(text) => Ok(Some(String::from_utf8_lossy(&text).trim().to_owned())),
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The control groups of the process, one for each hierarchy.
    ///
    /// Source: <https://man7.org/linux/man-pages/man7/cgroups.7.html>
    pub fn cgroup(&self) -> Result<Vec<CgroupMembership>> {
        self.read_lines("cgroup", parse_cgroup)
    }
}

pub(super) fn parse_id_map(line: &[u8]) -> Option<IdMap> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let mut number = || words.next()?.parse().ok();
    let map = IdMap { container: number()?, host: number()?, size: number()? };
    words.next().is_none().then_some(map)
}

pub(super) fn parse_cgroup(line: &[u8]) -> Option<CgroupMembership> {
    let mut parts = line.splitn(3, |byte| *byte == b':');
    let hierarchy = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let controllers = std::str::from_utf8(parts.next()?).ok()?;
    let path = OsStr::from_bytes(parts.next()?).into();
    let controllers = controllers.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    Some(CgroupMembership { hierarchy, controllers, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_maps_take_three_numbers() {
        let text = b"         0     100000      65536";
        assert_eq!(parse_id_map(text), Some(IdMap { container: 0, host: 100000, size: 65536 }));
        assert_eq!(parse_id_map(b"0 0 4294967295").unwrap().size, u32::MAX);
        assert_eq!(parse_id_map(b"0 0 4294967296"), None);
        assert_eq!(parse_id_map(b"0 0 1 1"), None);
    }

    #[test]
    fn cgroup_paths_may_hold_colons() {
        let group = parse_cgroup(b"9:name=systemd:/a:b c").unwrap();
        assert_eq!((group.hierarchy, group.controllers, group.path), (9, vec!["name=systemd".into()], "/a:b c".into()));
        assert_eq!(parse_cgroup(b"0::/").unwrap().controllers, Vec::<String>::new());
    }
}
