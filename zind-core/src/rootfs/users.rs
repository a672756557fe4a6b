//! Users and groups by name, looked up in the container's own files, which nobody has to trust.
#![forbid(unsafe_code)]

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::Rootfs;
use super::host;
use super::layers::{Layer, Marks, View};
use crate::error::{At, Error, Result, Step};

/// Larger databases are refused: they are read into memory.
const LARGEST: u64 = 1 << 20;

/// `NGROUPS_MAX`
const MOST_GROUPS: usize = 65536;

/// `passwd` and `group` of a root, as text.
pub(crate) struct Users {
    passwd: String,
    group: String,
}

impl Users {
    /// Reads the databases of a root. A missing one is empty.
    pub(crate) fn of(rootfs: &Rootfs) -> Result<Users> {
        let root = match rootfs {
            Rootfs::Host => return Ok(Users::generated()),
            Rootfs::Path(path) => path.as_path(),
            Rootfs::Layers(layers) => return Users::found(|path| layers.provider(path)),
            Rootfs::Lowers(lowers) => {
                let view = View::open(lowers.iter().cloned().map(Layer), Some(Marks::of_caller()))?;
                return Users::found(|path| view.provider(path));
            }
            // Settled before, if it is a start's.
            Rootfs::Image(_) => return Ok(Users { passwd: String::new(), group: String::new() }),
            Rootfs::Unchanged => Path::new("/"),
        };
        Ok(Users { passwd: read_in(root, "etc/passwd")?, group: read_in(root, "etc/group")? })
    }

    /// Of layers: `provider` tells which of them has a file.
    fn found(provider: impl Fn(&Path) -> Result<Option<PathBuf>>) -> Result<Users> {
        let read =
            |path: &str| provider(path.as_ref())?.map_or(Ok(String::new()), |root: PathBuf| read_in(&root, path));
        Ok(Users { passwd: read("etc/passwd")?, group: read("etc/group")? })
    }

    /// Reads the databases of a running container by a descriptor of its root.
    pub(crate) fn inside(root: BorrowedFd<'_>) -> Result<Users> {
        let name = Path::new("/");
        Ok(Users { passwd: read_below(root, name, "etc/passwd")?, group: read_below(root, name, "etc/group")? })
    }

    fn generated() -> Users {
        let text = |name: &str| {
            host::generated("", &[]).into_iter().find_map(|entry| match entry {
                host::Entry::File(path, _, content) if path.ends_with(name) => String::from_utf8(content).ok(),
                _ => None,
            })
        };
        Users { passwd: text("passwd").unwrap_or_default(), group: text("group").unwrap_or_default() }
    }

    /// A user by name: uid and gid.
    pub(crate) fn user(&self, name: &str) -> Option<(u32, u32)> {
        let fields = find(&self.passwd, name)?;
        Some((id(fields.get(2)?)?, id(fields.get(3)?)?))
    }

    /// The gid that belongs to a uid, if the database has the uid.
    pub(crate) fn gid_of(&self, uid: u32) -> Option<u32> {
        let uid = uid.to_string();
        let line = self.passwd.lines().map(fields).find(|fields| fields.get(2) == Some(&uid.as_str()))?;
        id(line.get(3)?)
    }

    /// The home directory of a uid, if the database names an absolute one.
    pub(crate) fn home_of(&self, uid: u32) -> Option<&str> {
        let uid = uid.to_string();
        let line = self.passwd.lines().map(fields).find(|fields| fields.get(2) == Some(&uid.as_str()))?;
        line.get(5).copied().filter(|home| home.starts_with('/'))
    }

    /// The name of a uid.
    pub(crate) fn name_of(&self, uid: u32) -> Option<&str> {
        let uid = uid.to_string();
        let line = self.passwd.lines().map(fields).find(|fields| fields.get(2) == Some(&uid.as_str()))?;
        line.first().copied().filter(|name| !name.is_empty())
    }

    /// The groups that list a user among their members, in order.
    pub(crate) fn groups_of(&self, user: &str) -> Vec<u32> {
        let has_user = |fields: &Vec<&str>| fields.get(3).is_some_and(|list| list.split(',').any(|name| name == user));
        let lines = self.group.lines().map(fields).filter(has_user);
        let mut groups: Vec<u32> = lines.filter_map(|fields| id(fields.get(2)?)).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.truncate(MOST_GROUPS);
        groups
    }

    /// A group by name.
    pub(crate) fn group(&self, name: &str) -> Option<u32> {
        id(find(&self.group, name)?.get(2)?)
    }
}

/// No id is the number that means "leave it as it is" to setresuid(2) (CVE-2024-40635).
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn fields(line: &str) -> Vec<&str> {
    line.trim_end_matches('\r').split(':').collect()
}

fn find<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    text.lines().map(fields).find(|fields| fields.first() == Some(&name))
}

/// A small regular file below an untrusted root: no link leads out, no FIFO blocks, no device is opened.
fn read_in(root: &Path, path: &str) -> Result<String> {
    let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root_fd = rustix::fs::open(root, dir, Mode::empty()).at(Step::UserLookup, "open", root)?;
    read_below(root_fd.as_fd(), root, path)
}

/// The same; `root` is what errors call it.
fn read_below(root_fd: BorrowedFd<'_>, root: &Path, path: &str) -> Result<String> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let probe = match rustix::fs::openat2(root_fd, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        other => other.at(Step::UserLookup, "openat2", root.join(path))?,
    };
    let stat = rustix::fs::fstat(&probe).at(Step::UserLookup, "fstat", root.join(path))?;
    if stat.st_mode & 0o170_000 != 0o100_000 || stat.st_size as u64 > LARGEST {
        let rule =
            format!("{} is not a small regular file; users of it must be given by number", root.join(path).display());
        return Err(Error::spec("user", rule));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(root_fd, path, flags, Mode::empty(), resolve).at(
        Step::UserLookup,
        "openat2",
        root.join(path),
    )?;
    // The second opening may have found something else; only the descriptor counts.
    let stat = rustix::fs::fstat(&file).at(Step::UserLookup, "fstat", root.join(path))?;
    if stat.st_mode & 0o170_000 != 0o100_000 {
        return Err(Error::spec("user", format!("{} changed while it was read", root.join(path).display())));
    }
    read_bounded(file, &root.join(path))
}

fn read_bounded(file: OwnedFd, path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    File::from(file).take(LARGEST).read_to_end(&mut bytes).at(Step::UserLookup, "read", path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        Users {
            passwd: "root:x:0:0:root:/root:/bin/sh\r\n1000:x:0:0::/:/bin/sh\nweb:x:33:34::/:\nbroken\nx:x:no:1\n"
                .into(),
            group: "staff:x:50:web\nlast:x:7".into(),
        }
    }

    #[test]
    fn names_are_found_and_nonsense_is_not() {
        assert_eq!(users().user("root"), Some((0, 0)));
        assert_eq!(users().user("web"), Some((33, 34)));
        assert_eq!(users().user("x"), None);
        assert_eq!(users().user("broken"), None);
        assert_eq!(users().group("last"), Some(7));
        assert_eq!(users().gid_of(33), Some(34));
        assert_eq!(users().home_of(0), Some("/root"));
        assert_eq!((users().name_of(33), users().name_of(1)), (Some("web"), None));
        assert_eq!((users().groups_of("web"), users().groups_of("x")), (vec![50], vec![]));
    }

    #[test]
    fn no_id_means_that_it_stays_as_it_is() {
        let users =
            Users { passwd: "a:x:4294967295:0::/:\nb:x:5:4294967295::/:\n".into(), group: "c:x:4294967295:a".into() };
        assert_eq!((users.user("a"), users.user("b"), users.gid_of(5)), (None, None, None));
        assert_eq!((users.group("c"), users.groups_of("a")), (None, vec![]));
    }
}
