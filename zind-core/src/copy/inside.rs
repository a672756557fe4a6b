//! [`Hands`] in a user namespace: files for ids that only its inside may give away.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CString, OsStr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use zind_init::deputy::FIRST_FREE;

use super::hands::{Attributes, BELOW, Hands, Own, open_below};
use crate::error::Result;
use crate::namespace::idmap::{self, IdMap, IdMaps, ReadyMaps, from_host, to_host};
use crate::process::deputy::{Arg, Deputy, Refusal, Request};
use crate::rootfs::fault::Fault;
use crate::store::Owners;

/// Somebody inside of a user namespace.
pub(crate) struct Inside {
    deputy: Deputy,
    uid: Vec<IdMap>,
    gid: Vec<IdMap>,
}

/// Reading what this process may, and with its range of ids what somebody inside of a user namespace may, who is started
/// when that is first needed.
#[derive(Default)]
pub(crate) struct Reach(RefCell<Option<Option<Inside>>>);

impl Reach {
    /// Opens what is below `dir`, without following a link.
    pub(crate) fn open(&self, dir: BorrowedFd<'_>, path: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.or_inside(open_below(dir, path, flags), |inside| inside.look(dir, path, flags))
    }

    /// Takes the answer to the same question from inside, where it was that this is forbidden.
    pub(crate) fn attribute(
        &self,
        own: rustix::io::Result<Vec<u8>>,
        file: BorrowedFd<'_>,
        name: &OsStr,
    ) -> rustix::io::Result<Vec<u8>> {
        self.or_inside(own, |inside| inside.attribute(file, name))
    }

    fn or_inside<T>(
        &self,
        own: rustix::io::Result<T>,
        ask: impl FnOnce(&mut Inside) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        if !matches!(own, Err(Errno::ACCESS)) {
            return own;
        }
        match self.0.borrow_mut().get_or_insert_with(Inside::of_the_caller) {
            Some(inside) => ask(inside),
            None => own,
        }
    }
}

/// As long as an extended attribute may be: xattr(7).
const MOST_ATTRIBUTE: u64 = 1 << 16;

/// The calls of one request, and what they are called.
struct Calls<'a> {
    request: Request<'a>,
    names: Vec<&'static str>,
}

const OPEN_DIR: u64 = (libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC) as u64;
const CREATE: u64 = (libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC) as u64;
const NO_FOLLOW: u64 = libc::AT_SYMLINK_NOFOLLOW as u64;

impl<'a> Calls<'a> {
    fn new() -> Calls<'a> {
        Calls { request: Request::new(), names: Vec::new() }
    }

    fn add(mut self, name: &'static str, number: i64, arguments: &[Arg<'a>]) -> Calls<'a> {
        self.request = self.request.call(number, arguments);
        self.names.push(name);
        self
    }

    fn fault(&self, refusal: Refusal) -> Fault {
        Fault::new(self.names.get(refusal.index).copied().unwrap_or_default(), refusal.errno)
    }
}

impl Inside {
    /// Starts somebody in a new user namespace with these maps.
    pub(crate) fn start(maps: ReadyMaps) -> Result<Inside> {
        let (uid, gid) = (maps.uid.clone(), maps.gid.clone());
        Ok(Inside { deputy: Deputy::start(maps)?, uid, gid })
    }

    /// Somebody with all ids that an ordinary user has: the range of subordinate ones, if there is one, and its own. None if
    /// it may make no user namespaces, or root asks, who needs nobody.
    pub(crate) fn of_the_caller() -> Option<Inside> {
        if rustix::process::geteuid().is_root() {
            return None;
        }
        let start = |maps| Inside::start(idmap::resolve(maps, None, (0, 0), false).ok()?).ok();
        start(&IdMaps::Auto).or_else(|| start(&IdMaps::Single))
    }

    /// The value of an extended attribute; `file` may be open as a place.
    fn attribute(&self, file: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Vec<u8>> {
        // A place has no attributes but by its path, for which it needs a number that we know.
        let path = CString::new(format!("/proc/self/fd/{FIRST_FREE}")).map_err(|_| Errno::INVAL)?;
        let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
        let number = [Arg::Fd(file), Arg::Number(FIRST_FREE), Arg::Number(libc::O_CLOEXEC as u64)];
        let get = [Arg::Text(&path), Arg::Text(&name), Arg::Out, Arg::Number(MOST_ATTRIBUTE)];
        let request = Request::new().call(libc::SYS_dup3, &number).call(libc::SYS_getxattr, &get);
        self.deputy.read(&request).map_err(|refusal| refusal.errno)
    }

    /// Gives away what `file` is open on, which may be a place.
    pub(crate) fn give(&self, file: BorrowedFd<'_>, owner: (u32, u32)) -> Result<(), Fault> {
        let (uid, gid) = self.owner(owner)?;
        let empty = Arg::Number(libc::AT_EMPTY_PATH as u64);
        let arguments = [Arg::Fd(file), Arg::Text(c""), Arg::Number(uid), Arg::Number(gid), empty];
        self.ask(&Calls::new().add("fchownat", libc::SYS_fchownat, &arguments))
    }

    fn ask(&self, calls: &Calls<'_>) -> Result<(), Fault> {
        self.deputy.ask(&calls.request).map(drop).map_err(|refusal| calls.fault(refusal))
    }

    fn open(&self, calls: &Calls<'_>) -> Result<OwnedFd, Fault> {
        self.deputy.open(&calls.request).map_err(|refusal| calls.fault(refusal))
    }

    /// Ids as they are called inside.
    fn owner(&self, owner: (u32, u32)) -> Result<(u64, u64), Fault> {
        let (uid, gid) = (from_host(&self.uid, owner.0), from_host(&self.gid, owner.1));
        let both = uid.zip(gid).ok_or(Fault::new("fchown", Errno::INVAL))?;
        Ok((u64::from(both.0), u64::from(both.1)))
    }
}

/// Root gives files to whom it wants; an ordinary user, to the ids of a namespace, only inside of it.
pub(crate) fn hands_for(owners: &Owners) -> Result<Box<dyn Hands>> {
    match owners {
        Owners::Mapped { uid, gid } if !rustix::process::geteuid().is_root() => {
            Ok(Box::new(Inside::start(ReadyMaps::by_helper(uid.clone(), gid.clone()))?))
        }
        _ => Ok(Box::new(Own)),
    }
}

fn c_name(name: &OsStr) -> Result<CString, Fault> {
    CString::new(name.as_bytes()).map_err(|_| Fault::new("openat", Errno::INVAL))
}

/// Access and modification, as utimensat(2) takes them.
fn times((seconds, nanoseconds): (i64, u32)) -> Vec<u8> {
    [seconds, i64::from(nanoseconds), seconds, i64::from(nanoseconds)]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect()
}

impl Hands for Inside {
    fn own(&self) -> (u32, u32) {
        let host = |maps| to_host(maps, 0).unwrap_or_default();
        (host(&self.uid), host(&self.gid))
    }

    fn look(&mut self, dir: BorrowedFd<'_>, path: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let own = open_below(dir, path, flags);
        if !matches!(own, Err(Errno::ACCESS)) {
            return own;
        }
        let path = CString::new(path.as_bytes()).map_err(|_| Errno::INVAL)?;
        // struct open_how: flags, mode, resolve.
        let how = [u64::from((flags | OFlags::CLOEXEC).bits()), 0, BELOW.bits()];
        let how: Vec<u8> = how.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let arguments = [Arg::Fd(dir), Arg::Text(&path), Arg::Bytes(&how), Arg::Number(how.len() as u64)];
        self.deputy.open(&Request::new().call(libc::SYS_openat2, &arguments)).map_err(|refusal| refusal.errno)
    }

    fn mkdir(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Fault> {
        let name = c_name(name)?;
        let arguments = [Arg::Fd(dir), Arg::Text(&name), Arg::Number(0o700)];
        self.ask(&Calls::new().add("mkdirat", libc::SYS_mkdirat, &arguments))
    }

    fn open_dir(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Fault> {
        let name = c_name(name)?;
        let arguments = [Arg::Fd(dir), Arg::Text(&name), Arg::Number(OPEN_DIR)];
        self.open(&Calls::new().add("openat", libc::SYS_openat, &arguments))
    }

    fn create(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Fault> {
        let name = c_name(name)?;
        let arguments = [Arg::Fd(dir), Arg::Text(&name), Arg::Number(CREATE), Arg::Number(0o600)];
        self.open(&Calls::new().add("openat", libc::SYS_openat, &arguments))
    }

    fn set(&mut self, file: BorrowedFd<'_>, attributes: &Attributes) -> Result<Vec<Vec<u8>>, Fault> {
        let fd = Arg::Fd(file);
        if let Some(owner) = attributes.owner {
            let (uid, gid) = self.owner(owner)?;
            let arguments = [fd, Arg::Number(uid), Arg::Number(gid)];
            self.ask(&Calls::new().add("fchown", libc::SYS_fchown, &arguments))?;
        }
        let mut left = Vec::new();
        for (name, value) in &attributes.xattrs {
            let name = c_name(OsStr::from_bytes(name))?;
            let length = Arg::Number(value.len() as u64);
            let arguments = [fd, Arg::Text(&name), Arg::Bytes(value), length, Arg::Number(0)];
            match self.ask(&Calls::new().add("fsetxattr", libc::SYS_fsetxattr, &arguments)) {
                Ok(()) => {}
                Err(Fault { errno: Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL, .. }) => {
                    left.push(name.into_bytes());
                }
                Err(fault) => return Err(fault),
            }
        }
        let mut calls = Calls::new();
        if let Some(mode) = attributes.mode {
            calls = calls.add("fchmod", libc::SYS_fchmod, &[fd, Arg::Number(u64::from(mode))]);
        }
        let time = attributes.time.map(times);
        if let Some(time) = &time {
            let arguments = [fd, Arg::Number(0), Arg::Bytes(time), Arg::Number(0)];
            calls = calls.add("utimensat", libc::SYS_utimensat, &arguments);
        }
        if !calls.names.is_empty() {
            self.ask(&calls)?;
        }
        Ok(left)
    }

    fn set_at(&mut self, dir: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes) -> Result<Vec<Vec<u8>>, Fault> {
        let name = c_name(name)?;
        let (dir, place) = (Arg::Fd(dir), Arg::Text(&name));
        let mut calls = Calls::new();
        if let Some(owner) = attributes.owner {
            let (uid, gid) = self.owner(owner)?;
            let arguments = [dir, place, Arg::Number(uid), Arg::Number(gid), Arg::Number(NO_FOLLOW)];
            calls = calls.add("fchownat", libc::SYS_fchownat, &arguments);
        }
        if let Some(mode) = attributes.mode {
            // It would follow a link, but what is given a mode here is none, and nobody else works there.
            calls = calls.add("fchmodat", libc::SYS_fchmodat, &[dir, place, Arg::Number(u64::from(mode))]);
        }
        let time = attributes.time.map(times);
        if let Some(time) = &time {
            let arguments = [dir, place, Arg::Bytes(time), Arg::Number(NO_FOLLOW)];
            calls = calls.add("utimensat", libc::SYS_utimensat, &arguments);
        }
        if !calls.names.is_empty() {
            self.ask(&calls)?;
        }
        // Links and nodes take none that a user namespace may give.
        Ok(attributes.xattrs.iter().map(|(name, _)| name.clone()).collect())
    }

    fn symlink(&mut self, target: &OsStr, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Fault> {
        let (target, name) = (c_name(target)?, c_name(name)?);
        let arguments = [Arg::Text(&target), Arg::Fd(dir), Arg::Text(&name)];
        self.ask(&Calls::new().add("symlinkat", libc::SYS_symlinkat, &arguments))
    }

    fn link(
        &mut self,
        from: BorrowedFd<'_>,
        from_name: &OsStr,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), Fault> {
        let (from_name, name) = (c_name(from_name)?, c_name(name)?);
        let arguments = [Arg::Fd(from), Arg::Text(&from_name), Arg::Fd(dir), Arg::Text(&name), Arg::Number(0)];
        self.ask(&Calls::new().add("linkat", libc::SYS_linkat, &arguments))
    }

    fn mknod(&mut self, dir: BorrowedFd<'_>, name: &OsStr, kind: FileType, dev: (u32, u32)) -> Result<(), Fault> {
        let name = c_name(name)?;
        let mode = Arg::Number(u64::from(kind.as_raw_mode() | 0o600));
        let arguments = [Arg::Fd(dir), Arg::Text(&name), mode, Arg::Number(rustix::fs::makedev(dev.0, dev.1))];
        self.ask(&Calls::new().add("mknodat", libc::SYS_mknodat, &arguments))
    }

    fn unlink(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Fault> {
        let name = c_name(name)?;
        self.ask(&Calls::new().add("unlinkat", libc::SYS_unlinkat, &[Arg::Fd(dir), Arg::Text(&name), Arg::Number(0)]))
    }

    fn rmdir(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Fault> {
        let name = c_name(name)?;
        let flags = Arg::Number(libc::AT_REMOVEDIR as u64);
        self.ask(&Calls::new().add("unlinkat", libc::SYS_unlinkat, &[Arg::Fd(dir), Arg::Text(&name), flags]))
    }

    fn rename(
        &mut self,
        from: BorrowedFd<'_>,
        from_name: &OsStr,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), Fault> {
        let (from_name, name) = (c_name(from_name)?, c_name(name)?);
        let arguments = [Arg::Fd(from), Arg::Text(&from_name), Arg::Fd(dir), Arg::Text(&name)];
        self.ask(&Calls::new().add("renameat", libc::SYS_renameat, &arguments))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

    use super::*;
    use crate::copy::remove::empty_by;

    /// Everything by the hands of somebody who is user 0 only inside: ids there are 300,000 and on outside.
    #[test]
    fn a_tree_is_made_and_removed_in_a_user_namespace() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root may map ids without a helper");
            return;
        }
        let map = vec![IdMap { container: 0, host: 300_000, size: 1000 }];
        let mut inside = Inside::start(ReadyMaps::of_root(map.clone(), map)).unwrap();
        assert_eq!(inside.own(), (300_000, 300_000));
        let path = std::env::temp_dir().join(format!("zind-inside-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(300_000), Some(300_000)).unwrap();
        let top = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();

        let name = OsStr::new;
        inside.mkdir(top.as_fd(), name("dir")).unwrap();
        let dir = inside.open_dir(top.as_fd(), name("dir")).unwrap();
        let file = inside.create(dir.as_fd(), name("file")).unwrap();
        rustix::io::write(&file, b"data").unwrap();
        let given = Attributes {
            owner: Some((300_005, 300_006)),
            mode: Some(0o4755),
            time: Some((12345, 678)),
            xattrs: vec![(b"user.a".to_vec(), b"b".to_vec()), (b"trusted.a".to_vec(), b"b".to_vec())],
        };
        assert_eq!(inside.set(file.as_fd(), &given).unwrap(), [b"trusted.a".to_vec()]);
        inside.symlink(name("/etc"), dir.as_fd(), name("link")).unwrap();
        let owner = Attributes { owner: Some((300_007, 300_007)), time: Some((1, 0)), ..Attributes::default() };
        inside.set_at(dir.as_fd(), name("link"), &owner).unwrap();
        inside.link(dir.as_fd(), name("file"), top.as_fd(), name("second")).unwrap();
        inside.mknod(dir.as_fd(), name("gone"), FileType::CharacterDevice, (0, 0)).unwrap();
        inside.rename(dir.as_fd(), name("gone"), dir.as_fd(), name("hidden")).unwrap();
        let device = inside.mknod(dir.as_fd(), name("null"), FileType::CharacterDevice, (1, 3));
        assert_eq!(device.map_err(|fault| (fault.call, fault.errno)), Err(("mknodat", Errno::PERM)));
        let stranger = Attributes { owner: Some((0, 0)), ..Attributes::default() };
        assert!(inside.set(file.as_fd(), &stranger).is_err());
        inside.set(dir.as_fd(), &Attributes { mode: Some(0), ..owner.clone() }).unwrap();

        let file = std::fs::metadata(path.join("dir/file")).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777, file.nlink()), (300_005, 300_006, 0o4755, 2));
        assert_eq!((file.mtime(), file.mtime_nsec(), file.size()), (12345, 678, 4));
        let link = std::fs::symlink_metadata(path.join("dir/link")).unwrap();
        assert_eq!((link.uid(), link.mtime()), (300_007, 1));
        assert!(std::fs::symlink_metadata(path.join("dir/hidden")).unwrap().file_type().is_char_device());
        assert_eq!(std::fs::metadata(path.join("dir")).unwrap().permissions().mode() & 0o777, 0);

        let secret = inside.look(top.as_fd(), name("dir/file"), OFlags::PATH).unwrap();
        assert_eq!(inside.attribute(secret.as_fd(), name("user.a")).as_deref(), Ok(&b"b"[..]));
        assert_eq!(inside.attribute(secret.as_fd(), name("user.b")), Err(Errno::NODATA));
        assert!(inside.look(top.as_fd(), name("dir/link"), OFlags::PATH | OFlags::NOFOLLOW).is_ok());
        assert!(matches!(inside.look(top.as_fd(), name("dir/link/x"), OFlags::PATH), Err(Errno::LOOP)));
        assert!(inside.look(top.as_fd(), name("../x"), OFlags::PATH).is_err());
        empty_by(&mut inside, &top).unwrap();
        std::fs::remove_dir(&path).unwrap();
    }
}
