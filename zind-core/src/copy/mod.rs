//! [`Root`]: copying files and trees into and out of a root, never following a link out of it.
#![forbid(unsafe_code)]

mod attributes;
mod data;
mod hands;
mod inside;
pub(crate) mod remove;
mod temp;
mod walk;

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::error::{At, Error, Result, Step};
use crate::rootfs::fault::{By, Fault};
use crate::rootfs::resolve::{PLACE, Parts, Side};
pub(crate) use attributes::magic_path;
pub(crate) use hands::{Attributes, Hands};
pub(crate) use inside::{Reach, hands_for};
use temp::Temp;
pub(crate) use temp::unused_name;
use walk::Walk;
pub(crate) use walk::names;

/// How often a copy answers to signals.
const PAUSE: Duration = Duration::from_millis(50);

/// How [`Root::copy_in`] and [`Root::copy_out`] copy. The default keeps what it may and replaces what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyOptions {
    /// Everything that is copied gets this uid and gid, as numbers of the caller's user namespace. `None` keeps the
    /// source's. Directories that are made on the way to the target get it, too.
    pub owner: Option<(u32, u32)>,
    /// A link as the last part of the source is followed (inside a root never out of it); otherwise it is copied as a
    /// link. Links below the source always stay links.
    pub follow_links: bool,
    /// Files and links at the target are replaced. Otherwise the first one is an error, `EEXIST`; directories are merged
    /// in both cases.
    pub overwrite: bool,
    /// An owner, mode, time or extended attribute that may not be set is an error; otherwise it is counted in
    /// [`CopyStats::not_kept`].
    pub strict: bool,
    /// What is mounted below the source stays behind: `cp --one-file-system`.
    pub(crate) one_file_system: bool,
    /// It is for a layer of an overlay: sockets and the marks of overlayfs are copied, too; labels are left to the system.
    pub(crate) layer: bool,
    /// Who may not give files away asks somebody who has the caller's range of ids; that this fails is an error.
    pub(crate) by_range: bool,
}

impl Default for CopyOptions {
    fn default() -> CopyOptions {
        CopyOptions {
            owner: None,
            follow_links: false,
            overwrite: true,
            strict: false,
            one_file_system: false,
            layer: false,
            by_range: false,
        }
    }
}

impl CopyOptions {
    /// The default.
    pub fn new() -> CopyOptions {
        CopyOptions::default()
    }

    /// For a layer of an overlay, which is copied as it is or not at all.
    pub(crate) fn of_a_layer() -> CopyOptions {
        CopyOptions { strict: true, layer: true, ..CopyOptions::default() }
    }

    /// Sets [`CopyOptions::owner`].
    #[must_use]
    pub fn owner(self, uid: u32, gid: u32) -> CopyOptions {
        CopyOptions { owner: Some((uid, gid)), ..self }
    }

    /// Sets [`CopyOptions::follow_links`].
    #[must_use]
    pub fn follow_links(self, follow_links: bool) -> CopyOptions {
        CopyOptions { follow_links, ..self }
    }

    /// Sets [`CopyOptions::overwrite`].
    #[must_use]
    pub fn overwrite(self, overwrite: bool) -> CopyOptions {
        CopyOptions { overwrite, ..self }
    }

    /// Sets [`CopyOptions::strict`].
    #[must_use]
    pub fn strict(self, strict: bool) -> CopyOptions {
        CopyOptions { strict, ..self }
    }

    fn check(&self) -> Result<()> {
        match self.owner {
            // The kernel takes it for "leave it as it is".
            Some((uid, gid)) if uid == u32::MAX || gid == u32::MAX => {
                Err(Error::spec("owner", "4294967295 is no id of a user or group"))
            }
            _ => Ok(()),
        }
    }
}

/// What a copy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyStats {
    /// Regular files.
    pub files: u64,
    /// Directories, made or merged into.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Further names of files that were copied under another one.
    pub hard_links: u64,
    /// FIFOs and device nodes.
    pub nodes: u64,
    /// Bytes of data; holes are not counted.
    pub bytes: u64,
    /// What was left out: sockets, the inside of `/proc`, `/sys` and their like, and what went away meanwhile.
    pub skipped: u64,
    /// Attributes that this user, the file system or its user namespace does not allow: owners, modes, times, extended
    /// attributes. Set-uid and set-gid bits are left out where the owner could not be kept.
    pub not_kept: u64,
}

/// The inside of a root, held by a descriptor.
///
/// All its paths begin at the root, absolute or not, and are resolved as they would be inside: links and `..` never lead
/// out, whatever a program in there renames or swaps meanwhile. The root of a running container
/// ([`Process::root`](crate::Process::root)) shows all its mounts. It keeps the file system of `/` until it is dropped, also
/// when the container has ended.
///
/// Source: `RESOLVE_IN_ROOT` in <https://man7.org/linux/man-pages/man2/openat2.2.html>
pub struct Root {
    dir: OwnedFd,
    name: PathBuf,
    /// Keeps what it is made of.
    hold: Option<OwnedFd>,
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Root").field(&self.name).finish()
    }
}

impl Root {
    /// The root in a directory of the caller's. Links in `path` itself are followed.
    /// Errors: [`Error::Sys`] at [`Step::OpenRoot`].
    pub fn open(path: impl AsRef<Path>) -> Result<Root> {
        let path = path.as_ref();
        check_path("path", path)?;
        let dir = openat(CWD, path, PLACE | OFlags::DIRECTORY, Mode::empty()).at(Step::OpenRoot, "openat", path)?;
        Ok(Root { dir, name: path.to_owned(), hold: None })
    }

    pub(crate) fn of(dir: OwnedFd, name: PathBuf) -> Root {
        Root { dir, name, hold: None }
    }

    /// It keeps a descriptor until it is dropped.
    pub(crate) fn holding(self, hold: OwnedFd) -> Root {
        Root { hold: Some(hold), ..self }
    }

    /// Another handle of the same root. Errors: [`Error::Sys`] at [`Step::OpenRoot`], when descriptors run out.
    pub fn try_clone(&self) -> Result<Root> {
        let dir = self.dir.try_clone().at(Step::OpenRoot, "fcntl", &self.name)?;
        let hold = self.hold.as_ref().map(OwnedFd::try_clone).transpose().at(Step::OpenRoot, "fcntl", &self.name)?;
        Ok(Root { dir, name: self.name.clone(), hold })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.name
    }

    /// Copies a file or a tree from the host into the root, as `cp -a` does.
    ///
    /// If `target` is a directory the source goes into it under its own name; with `source` ending in `/.` what is inside
    /// of it goes there. Otherwise `target` is the name of the copy, and missing directories on the way to it are made.
    /// A link to a directory inside is that directory; any other link as the last part of `target` is replaced, not
    /// followed.
    ///
    /// Owner, mode, times in nanoseconds, extended attributes (`user.*`, `trusted.*`, `security.capability`, access
    /// control lists), hard links within the tree, holes, links, FIFOs and device nodes are kept; sockets are not. Each
    /// file is written aside and renamed, so nobody sees half of it; after an error what was copied before stays.
    /// Directories are merged, and get the attributes of the source's.
    ///
    /// Errors: [`Error::Sys`] at [`Step::CopyIn`] with the path on the side that refused: `EISDIR` and `ENOTDIR` where a
    /// directory and something else would replace each other, `EPERM` for a device node without `CAP_MKNOD`, `EOVERFLOW`
    /// where the caller has no id in the container's user namespace, `ENAMETOOLONG` below 4096 levels;
    /// [`Error::Spec`] for an empty path or one with a NUL byte.
    pub fn copy_in(
        &self,
        source: impl AsRef<Path>,
        target: impl AsRef<Path>,
        options: &CopyOptions,
    ) -> Result<CopyStats> {
        self.copy_in_interruptible(source.as_ref(), target.as_ref(), options, &mut || false)
    }

    /// As [`Root::copy_in`]; `interrupted` is asked now and then, and ends the copy with [`Error::Interrupted`].
    pub fn copy_in_interruptible(
        &self,
        source: &Path,
        target: &Path,
        options: &CopyOptions,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<CopyStats> {
        let inside = self.side().owned_by(options.owner);
        copy((Side::host(), source), (inside, target), options, Step::CopyIn, interrupted)
    }

    /// Copies a file or a tree out of the root to the host, by the rules of [`Root::copy_in`], except that missing
    /// directories on the way to `target` are an error. Nothing in the root can make it wait: only regular files are read.
    ///
    /// What comes out is what is inside: set-uid programs and, for root, device nodes included.
    ///
    /// Errors: as for [`Root::copy_in`], at [`Step::CopyOut`].
    pub fn copy_out(
        &self,
        source: impl AsRef<Path>,
        target: impl AsRef<Path>,
        options: &CopyOptions,
    ) -> Result<CopyStats> {
        self.copy_out_interruptible(source.as_ref(), target.as_ref(), options, &mut || false)
    }

    /// As [`Root::copy_out`]; `interrupted` as for [`Root::copy_in_interruptible`].
    pub fn copy_out_interruptible(
        &self,
        source: &Path,
        target: &Path,
        options: &CopyOptions,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<CopyStats> {
        copy((self.side(), source), (Side::host(), target), options, Step::CopyOut, interrupted)
    }

    /// The content of a regular file of at most `limit` bytes. Links are followed inside the root.
    /// Errors: [`Error::Sys`] at [`Step::CopyOut`]: `EFBIG` for a longer file, `EISDIR`, `EINVAL` for FIFOs, devices and
    /// sockets, which are not opened.
    pub fn read_file(&self, path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>> {
        let path = path.as_ref();
        check_path("path", path)?;
        self.read_inside(path, limit).map_err(|fault| fault.at(Step::CopyOut, path))
    }

    fn read_inside(&self, path: &Path, limit: u64) -> Result<Vec<u8>, Fault> {
        let place = self.side().open(path, PLACE)?;
        match FileType::from_raw_mode(fstat(&place).by("fstat")?.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Fault::new("read", Errno::ISDIR).hint("it is a directory")),
            _ => return Err(Fault::new("open", Errno::INVAL).hint("it is no regular file, and was not opened")),
        }
        let bytes = data::read_all(walk::open_regular(&place)?.as_fd(), limit)?;
        if bytes.len() as u64 > limit {
            return Err(Fault::new("read", Errno::FBIG).hint("the file is longer than the limit"));
        }
        Ok(bytes)
    }

    /// Writes a file, which replaces one that is there at once. `mode` is exact, whatever the umask; the owner is the
    /// caller. Missing directories are made; a link as the last part is replaced.
    /// Errors: [`Error::Sys`] at [`Step::CopyIn`]: `EISDIR` if a directory is there; [`Error::Spec`] for a mode above
    /// `0o7777`.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<()> {
        let path = path.as_ref();
        check_path("path", path)?;
        if mode & !0o7777 != 0 {
            return Err(Error::spec("mode", format!("{mode:#o} is more than 0o7777")));
        }
        self.write_inside(path, bytes, mode).map_err(|fault| fault.at(Step::CopyIn, path))
    }

    fn write_inside(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), Fault> {
        let parts = Parts::of(path);
        let name = parts.name.filter(|_| !parts.directory).ok_or(Fault::new("openat", Errno::ISDIR))?;
        let parent = self.side().open_parent(parts.parent)?;
        walk::check_free(&parent, name, true)?;
        write_aside(&parent, name, bytes, mode)
    }

    pub(crate) fn side(&self) -> Side<'_> {
        Side::root(self.dir.as_fd())
    }
}

impl AsFd for Root {
    /// Open as a place (`O_PATH`): for the `*at` calls, not to read from.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

fn write_aside(parent: &OwnedFd, name: &OsStr, bytes: &[u8], mode: u32) -> Result<(), Fault> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let make = |temp: &str| openat(parent, temp, flags, Mode::from_raw_mode(0o600));
    let (temp, file) = Temp::make(parent.as_fd(), "openat", make)?;
    data::write_all(file.as_fd(), bytes, 0)?;
    attributes::set_mode(&file, mode)?;
    temp.place(name, true)
}

/// Copies between any two sides.
pub(crate) fn copy(
    from: (Side<'_>, &Path),
    to: (Side<'_>, &Path),
    options: &CopyOptions,
    step: Step,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<CopyStats> {
    check_path("source", from.1)?;
    check_path("target", to.1)?;
    options.check()?;
    Walk::new(options, step, Pause::new(interrupted)).run(from, to)
}

pub(crate) fn check_path(field: &'static str, path: &Path) -> Result<()> {
    match path.as_os_str().as_bytes() {
        b"" => Err(Error::spec(field, "is empty")),
        bytes if bytes.contains(&0) => Err(Error::spec(field, format!("{path:?} contains a NUL byte"))),
        _ => Ok(()),
    }
}

/// Asks now and then whether to go on.
pub(crate) struct Pause<'a> {
    ask: &'a mut dyn FnMut() -> bool,
    last: Instant,
}

impl<'a> Pause<'a> {
    fn new(ask: &'a mut dyn FnMut() -> bool) -> Pause<'a> {
        Pause { ask, last: Instant::now() }
    }

    /// After a call that a signal ended.
    fn answer(&mut self) -> Result<(), data::Stop> {
        self.last = Instant::now();
        if (self.ask)() { Err(data::Stop::Interrupted) } else { Ok(()) }
    }

    fn interrupted(&mut self) -> bool {
        if self.last.elapsed() < PAUSE {
            return false;
        }
        self.last = Instant::now();
        (self.ask)()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_before_anything_is_touched() {
        let root = Root::open("/").unwrap();
        let field = |error: Error| error.field().unwrap_or_default();
        let options = CopyOptions::new();
        assert_eq!(field(root.copy_in("", "/nowhere", &options).unwrap_err()), "source");
        assert_eq!(field(root.copy_in("/nowhere", "", &options).unwrap_err()), "target");
        assert_eq!(field(root.copy_out("a\0b", "/nowhere", &options).unwrap_err()), "source");
        assert_eq!(field(root.write_file("/nowhere/x", b"", 0o10000).unwrap_err()), "mode");
        let nobody = options.owner(u32::MAX, 0);
        assert_eq!(field(root.copy_in("/etc", "/nowhere", &nobody).unwrap_err()), "owner");
    }
}
