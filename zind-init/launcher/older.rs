//! Mounts by `mount(2)` alone, where the interface of Linux 5.2 and 5.12 is hidden.
//!
//! What the newer interface does to a detached tree is done here to a tree in a corner of the staging area, where nobody
//! else comes; as the last step it is moved to its target. Files are named by their descriptors, through `/proc`.

use crate::files::{Fd, MS_BIND, MS_PRIVATE, MS_REC, MS_REMOUNT, mount_flags};
use crate::step::Step;
use crate::sys::{self, AT_FDCWD, CStr, EMPTY};
use crate::watch::decimal;
use crate::{At, Done};

const MS_MOVE: u64 = 8192;
const MS_RELATIME: u64 = 1 << 21;
const MOUNT_ATTR_ATIME: u64 = 0x70;

/// Where the older interface finds files by their descriptors, and where trees are made ready.
#[derive(Clone, Copy)]
pub struct Older {
    /// `/proc` of the host.
    pub proc: i32,
    pub staging: i32,
    /// There is a staging area; else trees are made ready where they are to be.
    pub apart: bool,
}

/// What a mount gets besides its place.
#[derive(Clone, Copy)]
pub struct Change {
    pub set: u64,
    pub clear: u64,
    pub top_set: u64,
    pub top_clear: u64,
    /// `MS_PRIVATE` or its siblings, or 0.
    pub propagation: u64,
    /// The propagation is not that of the mounts below, which are private.
    pub of_the_top: bool,
    pub recursive: bool,
}

impl Older {
    /// Binds `source` to `target`.
    pub fn bind(self, source: i32, target: i32, change: Change, reopen: impl FnOnce() -> sys::Result<Fd>) -> Done {
        let recursive = if change.recursive { MS_REC } else { 0 };
        if self.apart {
            let tree = self.copy(source, MS_BIND | recursive).at(Step::Bind)?;
            self.change(tree.0, change).at(Step::MountSetattr)?;
            return self.mount(tree.0, target, MS_MOVE).at(Step::Bind);
        }
        self.mount(source, target, MS_BIND | recursive).at(Step::Bind)?;
        reopen().and_then(|mount| self.change(mount.0, change)).at(Step::MountSetattr)
    }

    /// A copy of a tree in the corner.
    fn copy(self, source: i32, flags: u64) -> sys::Result<Fd> {
        let corner = self.corner(source)?;
        self.mount(source, Fd(sys::openat(self.staging, corner, sys::O_PATH, 0)?).0, flags)?;
        let tree = Fd(sys::openat(self.staging, corner, sys::O_PATH, 0)?);
        if sys::fstat(tree.0)?.identity() == sys::fstat(self.staging)?.identity() {
            // With the host's root came the staging area, which lies over it.
            sys::umount(corner, sys::MNT_DETACH)?;
            return sys::openat(self.staging, corner, sys::O_PATH, 0).map(Fd);
        }
        Ok(tree)
    }

    /// Covers `target` with `source` as it is.
    pub fn cover(self, source: i32, target: i32) -> sys::Result<()> {
        self.mount(source, target, MS_BIND)
    }

    /// Applies a change to the mount whose root `mount` is, and to those below it if it is recursive.
    pub fn change(self, mount: i32, change: Change) -> sys::Result<()> {
        if change.of_the_top {
            self.mount(-1, mount, MS_PRIVATE | MS_REC)?;
        }
        if change.propagation != 0 {
            let recursive = if change.recursive && !change.of_the_top { MS_REC } else { 0 };
            self.mount(-1, mount, change.propagation | recursive)?;
        }
        if change.set | change.clear != 0 {
            if change.recursive {
                self.each_below(mount, |below| self.remount(below, change.set, change.clear))?;
            } else {
                self.remount(mount, change.set, change.clear)?;
            }
        }
        if change.top_set | change.top_clear != 0 {
            self.remount(mount, change.top_set, change.top_clear)?;
        }
        Ok(())
    }

    /// All flags have to be said anew, for those left out would be cleared.
    fn remount(self, mount: i32, set: u64, clear: u64) -> sys::Result<()> {
        let attributes = attributes_of(sys::statfs_flags(mount)?) & !clear | set;
        let relatime = if attributes & MOUNT_ATTR_ATIME == 0 { MS_RELATIME } else { 0 };
        self.mount(-1, mount, MS_REMOUNT | MS_BIND | relatime | mount_flags(attributes))
    }

    /// An empty file or directory to mount on, of the kind that `source` is.
    fn corner(self, source: i32) -> sys::Result<CStr> {
        let (name, made) = if sys::fstat(source)?.is_dir() {
            let name = c"corner-dir".as_ptr().cast();
            (name, sys::mkdirat(self.staging, name, 0o700))
        } else {
            let name = c"corner-file".as_ptr().cast();
            let flags = sys::O_CREAT | sys::O_EXCL | sys::O_WRONLY | sys::O_NOFOLLOW;
            (name, sys::openat(self.staging, name, flags, 0o600).map(|fd| drop(Fd(fd))).map(|()| 0))
        };
        match made {
            Err(errno) if errno != sys::EEXIST => Err(errno),
            _ => Ok(name),
        }
    }

    /// `mount(2)` of descriptors; the source may be -1 for none.
    fn mount(self, source: i32, target: i32, flags: u64) -> sys::Result<()> {
        let (mut from, mut to) = (Name::new(), Name::new());
        let from = if source < 0 { EMPTY } else { from.of(source) };
        let here = Fd(sys::openat(AT_FDCWD, c".".as_ptr().cast(), sys::O_PATH | sys::O_DIRECTORY, 0)?);
        sys::fchdir(self.proc)?;
        let result = sys::mount(from, to.of(target), EMPTY, flags, EMPTY);
        sys::fchdir(here.0)?;
        result.map(drop)
    }

    /// Calls `f` for the mount itself and all below it that can be reached by their paths.
    fn each_below(self, mount: i32, mut f: impl FnMut(i32) -> sys::Result<()>) -> sys::Result<()> {
        let mut path = [0u8; 4096];
        let length = sys::readlinkat(self.proc, Name::new().of(mount), &mut path)?;
        // "/" itself is longer than the paths below it by its slash.
        let prefix = match path.get(..length) {
            Some(b"/") => &[][..],
            Some(prefix) if length < path.len() => prefix,
            _ => return Err(sys::ENAMETOOLONG),
        };
        let list = Fd(sys::openat(self.proc, c"self/mountinfo".as_ptr().cast(), 0, 0)?);
        let mut lines = MountInfo::new(list.0);
        while let Some((id, point)) = lines.next()? {
            // The list has a NUL behind the mount point, which is a path from the root of this process.
            let Some(rest) = point.strip_prefix(prefix) else { continue };
            if rest.len() > 1 && rest[0] != b'/' {
                continue;
            }
            let below = match sys::openat2(self.root(), relative(point), sys::O_PATH, sys::RESOLVE_NO_MAGICLINKS) {
                Ok(fd) => Fd(fd),
                Err(sys::ENOENT | sys::EACCES | sys::ENOTDIR | sys::ELOOP) => continue,
                Err(errno) => return Err(errno),
            };
            // A mount that another one covers, or one of the host's with the same path, is not what is there.
            if sys::mount_id(below.0, EMPTY)? == id {
                f(below.0)?;
            }
        }
        Ok(())
    }

    /// What lies over `/` is not found by that name.
    fn root(self) -> i32 {
        if self.apart { self.staging } else { AT_FDCWD }
    }
}

/// A path from the root as one from there: without its slashes, and `.` for the root itself.
fn relative(point: &[u8]) -> CStr {
    let start = point.iter().position(|&byte| byte != b'/').unwrap_or(0);
    if point[start] == 0 { c".".as_ptr().cast() } else { point[start..].as_ptr() }
}

/// `MOUNT_ATTR_*` for the flags of `statfs(2)`.
fn attributes_of(flags: u64) -> u64 {
    const ST_NOATIME: u64 = 1024;
    const ST_NODIRATIME: u64 = 2048;
    const ST_RELATIME: u64 = 4096;
    const ST_NOSYMFOLLOW: u64 = 0x2000;
    let atime = match flags & (ST_NOATIME | ST_RELATIME) {
        ST_RELATIME => 0,
        0 => 0x20,
        _ => 0x10,
    };
    let further = [(ST_NODIRATIME, 0x80), (ST_NOSYMFOLLOW, 0x20_0000)];
    // The first four are the same. MANDLOCK, SYNCHRONOUS and VALID are none of the mount's.
    further
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .fold(flags & 0xf | atime, |all, (_, attribute)| all | attribute)
}

/// `self/fd/<number>`, a path below `/proc`.
struct Name([u8; 20]);

impl Name {
    fn new() -> Name {
        let mut name = [0; 20];
        name[..8].copy_from_slice(b"self/fd/");
        Name(name)
    }

    fn of(&mut self, fd: i32) -> CStr {
        let mut text = [0u8; 12];
        for (to, from) in self.0[8..].iter_mut().zip(decimal(fd, &mut text)) {
            *to = *from;
        }
        self.0.as_ptr()
    }
}

/// `/proc/self/mountinfo`, read line by line without keeping it: proc_pid_mountinfo(5).
struct MountInfo {
    fd: i32,
    buffer: [u8; 4096],
    start: usize,
    end: usize,
    point: [u8; 4096],
}

impl MountInfo {
    fn new(fd: i32) -> MountInfo {
        MountInfo { fd, buffer: [0; 4096], start: 0, end: 0, point: [0; 4096] }
    }

    /// The id of the next mount, and where it is, with a NUL at its end.
    fn next(&mut self) -> sys::Result<Option<(u64, &[u8])>> {
        let (mut id, mut field, mut length) = (0u64, 0, 0);
        loop {
            let Some(byte) = self.byte()? else { return Ok(None) };
            match (byte, field) {
                (b'\n', _) => break,
                (b' ', _) => field += 1,
                (b'0'..=b'9', 0) => id = id * 10 + u64::from(byte - b'0'),
                (b'\\', 4) => {
                    let mut code = 0u8;
                    for _ in 0..3 {
                        let digit = self.byte()?.ok_or(sys::EINVAL)?;
                        code = code.wrapping_mul(8).wrapping_add(digit.wrapping_sub(b'0'));
                    }
                    self.keep(&mut length, code)?;
                }
                (_, 4) => self.keep(&mut length, byte)?,
                _ => {}
            }
        }
        self.point[length] = 0;
        Ok(Some((id, &self.point[..=length])))
    }

    fn keep(&mut self, length: &mut usize, byte: u8) -> sys::Result<()> {
        if *length + 1 >= self.point.len() {
            return Err(sys::ENAMETOOLONG);
        }
        self.point[*length] = byte;
        *length += 1;
        Ok(())
    }

    fn byte(&mut self) -> sys::Result<Option<u8>> {
        if self.start == self.end {
            self.end = sys::read(self.fd, &mut self.buffer)?;
            self.start = 0;
            if self.end == 0 {
                return Ok(None);
            }
        }
        self.start += 1;
        Ok(Some(self.buffer[self.start - 1]))
    }
}
