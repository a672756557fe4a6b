//! Paths inside a root that nobody has to trust: openat2(2) with `RESOLVE_IN_ROOT`, and everything after it by descriptor.
//!
//! The kernel resolves links as if the root were `/`: an absolute link begins there, and `..` ends there. Links of `/proc`
//! that jump out of a file system are refused.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, mkdirat, openat2};
use rustix::io::Errno;

use super::fault::{By, Fault};

/// The kernel gives up a resolution when something in the root is renamed meanwhile; it is begun again as often.
const ATTEMPTS: usize = 1000;

/// Opens a place without access to what is there: nothing blocks, and nothing is set off.
pub(crate) const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Where paths begin, and what they may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side<'a> {
    base: BorrowedFd<'a>,
    resolve: ResolveFlags,
    /// Owner of the directories that are made on the way, if not the caller.
    owner: Option<(u32, u32)>,
}

impl<'a> Side<'a> {
    /// Paths inside a root.
    pub(crate) fn root(base: BorrowedFd<'a>) -> Side<'a> {
        Side { base, resolve: ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS), owner: None }
    }

    /// The caller's own paths.
    pub(crate) fn host() -> Side<'static> {
        Side { base: rustix::fs::CWD, resolve: ResolveFlags::empty(), owner: None }
    }

    pub(crate) fn owned_by(self, owner: Option<(u32, u32)>) -> Side<'a> {
        Side { owner, ..self }
    }

    /// True if missing directories on the way to a target are made here. On the host they are most likely a mistake.
    fn makes_parents(&self) -> bool {
        self.resolve.contains(ResolveFlags::IN_ROOT)
    }

    /// Opens a path. Without `NOFOLLOW` in `flags` a link as its last part is followed, too.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Fault> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        for _ in 0..ATTEMPTS {
            match openat2(self.base, path, flags | OFlags::CLOEXEC, Mode::empty(), self.resolve) {
                Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
                result => return result.by("openat2"),
            }
        }
        Err(Fault::new("openat2", Errno::AGAIN).hint("the root changes too fast for its paths to be followed"))
    }

    /// Opens the directory in which a target is made.
    pub(crate) fn open_parent(&self, path: &Path) -> Result<OwnedFd, Fault> {
        match self.open(path, PLACE | OFlags::DIRECTORY) {
            Err(fault) if fault.errno == Errno::NOENT && self.makes_parents() => self.make_dirs(path),
            result => result,
        }
    }

    /// Opens a directory and makes what is missing on the way, part by part. Each part is looked for from the root, so
    /// that links among those that exist mean what they mean inside; what is new is made in the part before.
    fn make_dirs(&self, path: &Path) -> Result<OwnedFd, Fault> {
        let mut here = self.open(Path::new("/"), PLACE | OFlags::DIRECTORY)?;
        let bytes = path.as_os_str().as_bytes();
        for end in part_ends(bytes) {
            let prefix = Path::new(OsStr::from_bytes(&bytes[..end]));
            here = match self.open(prefix, PLACE | OFlags::DIRECTORY) {
                Err(fault) if fault.errno == Errno::NOENT => self.make_dir(here.as_fd(), last_part(&bytes[..end]))?,
                result => result?,
            };
        }
        Ok(here)
    }

    fn make_dir(&self, parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Fault> {
        if matches!(name.as_bytes(), b"." | b"..") {
            // It was there a moment ago. To go on from `parent` by it would lead out of the root.
            return Err(Fault::new("openat2", Errno::NOENT).hint("a part of the path was moved away meanwhile"));
        }
        let made = match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => false,
            result => result.by("mkdirat").map(|()| true)?,
        };
        let dir = open_below(parent, name)?;
        if let Some((uid, gid)) = self.owner.filter(|_| made) {
            // Whoever may not give directories away keeps them; what is copied into them is counted.
            let _ = chownat(&dir, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH);
        }
        Ok(dir)
    }
}

/// Opens a directory in a directory, and nothing else that may have come to its name.
fn open_below(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Fault> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..ATTEMPTS {
        match openat2(parent, name, PLACE | OFlags::DIRECTORY, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
            result => return result.by("openat2"),
        }
    }
    Err(Fault::new("openat2", Errno::AGAIN))
}

/// Where each part of a path ends.
fn part_ends(path: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let ends_here = |&at: &usize| path[at - 1] != b'/' && path.get(at).is_none_or(|next| *next == b'/');
    (1..=path.len()).filter(ends_here)
}

fn last_part(path: &[u8]) -> &OsStr {
    let from = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    OsStr::from_bytes(&path[from..])
}

/// A path taken apart, as cp(1) reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    /// All but the last part; empty for a path of one part.
    pub(crate) parent: &'a Path,
    /// The last part; none for `/`, `.` and `..`.
    pub(crate) name: Option<&'a OsStr>,
    /// It ends with a slash or `/.`: a directory is meant, and links to one are followed.
    pub(crate) directory: bool,
    /// It ends with `/.`: what is inside is meant.
    pub(crate) inside: bool,
}

impl<'a> Parts<'a> {
    pub(crate) fn of(path: &'a Path) -> Parts<'a> {
        let mut rest = path.as_os_str().as_bytes();
        let (mut directory, mut inside) = (false, false);
        loop {
            rest = match rest {
                [head @ .., b'/'] => head,
                [head @ .., b'/', b'.'] => {
                    inside = true;
                    head
                }
                _ => break,
            };
            directory = true;
        }
        let name = last_part(rest);
        let plain = !matches!(name.as_bytes(), b"" | b"." | b"..");
        let parent = if plain { &rest[..rest.len() - name.len()] } else { rest };
        Parts {
            parent: Path::new(OsStr::from_bytes(parent)),
            name: plain.then_some(name),
            directory: directory || !plain,
            inside: inside || !plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> (&str, Option<&str>, bool, bool) {
        let parts = Parts::of(Path::new(path));
        let name = parts.name.map(|name| name.to_str().unwrap());
        (parts.parent.to_str().unwrap(), name, parts.directory, parts.inside)
    }

    #[test]
    fn paths_are_taken_apart_as_cp_reads_them() {
        assert_eq!(parts("a"), ("", Some("a"), false, false));
        assert_eq!(parts("/a"), ("/", Some("a"), false, false));
        assert_eq!(parts("/a/b"), ("/a/", Some("b"), false, false));
        assert_eq!(parts("a//b//"), ("a//", Some("b"), true, false));
        assert_eq!(parts("a/b/."), ("a/", Some("b"), true, true));
        assert_eq!(parts("a/b/./"), ("a/", Some("b"), true, true));
        assert_eq!(parts("/"), ("", None, true, true));
        assert_eq!(parts("."), (".", None, true, true));
        assert_eq!(parts("a/.."), ("a/..", None, true, true));
        assert_eq!(parts("a."), ("", Some("a."), false, false));
        assert_eq!(parts("a/..b"), ("a/", Some("..b"), false, false));
    }

    #[test]
    fn every_part_has_its_end() {
        let ends = |path: &str| part_ends(path.as_bytes()).collect::<Vec<_>>();
        assert_eq!(ends("/a//bc/"), [2, 6]);
        assert_eq!(ends("a"), [1]);
        assert_eq!(ends("/"), [0_usize; 0]);
        assert_eq!(last_part(b"/a//bc"), "bc");
        assert_eq!(last_part(b"a"), "a");
    }
}
