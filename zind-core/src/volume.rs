//! [`Volumes`]: named directories that outlive containers.
//!
//! A volume is a directory of the place: `_data` is what containers see, `lock` is held by each user (flock(2), shared) and
//! by who removes it (exclusive), `filled` says that it was used before. Locks die with their holders; what a crash leaves
//! half made or half removed has a name that is no volume's, and goes away with the next volume that is made.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, openat, renameat_with};
use rustix::io::Errno;

use crate::copy::{self, CopyOptions, CopyStats, Root, remove};
use crate::error::{At, Error, Result, Step};
use crate::owner;
use crate::rootfs::fault::By;
use crate::rootfs::resolve::{PLACE, Side};

/// As long as a file name may be.
const LONGEST_NAME: usize = 255;
/// Held by who makes a volume: nobody else takes for left over what is only half made.
const PLACE_LOCK: &str = ".lock";
/// What begins with this is no volume.
const ASIDE: &str = ".zind-";
/// How often a lock that somebody else has is tried again.
const PATIENCE: Duration = Duration::from_millis(10);
const DATA: &str = "_data";
const LOCK: &str = "lock";
const FILL_LOCK: &str = "fill.lock";
const FILLED: &str = "filled";
/// Where the content is put together until it is whole.
const FILLING: &str = "_filling";

/// The place where volumes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volumes {
    place: PathBuf,
}

/// A named directory that outlives containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    name: String,
    dir: PathBuf,
}

/// A volume in use: it cannot be removed until this is dropped, and every duplicate of its descriptor is closed.
#[derive(Debug)]
pub struct Hold(OwnedFd);

impl Hold {
    /// The descriptor that stands for it, close-on-exec. Closing it and all its duplicates ends the hold.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}

impl AsFd for Hold {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Volumes {
    /// The volumes in a directory, which is made (mode 0700) if it is missing. `None`: `/var/lib/zind/volumes` for root, and
    /// `$XDG_DATA_HOME/zind/volumes` (`~/.local/share/zind/volumes`) for an ordinary user.
    /// Errors: [`Error::Sys`] at [`Step::Volume`]; [`Error::State`] if the directory belongs to somebody else; [`Error::Spec`]
    /// without a place and without `HOME`.
    pub fn open(place: Option<PathBuf>) -> Result<Volumes> {
        let place = match place {
            Some(place) => place,
            None => default_place(rustix::process::geteuid().is_root(), |name| env::var_os(name))?,
        };
        let place = std::path::absolute(&place).at(Step::Volume, "getcwd", &place)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&place).at(Step::Volume, "mkdir", &place)?;
        owner::check(&place, "volumes", Step::Volume)?;
        Ok(Volumes { place })
    }

    /// Where they are.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Makes a volume. Names have letters, digits, `_`, `.` and `-`, begin with a letter or digit, and have at most 255
    /// characters.
    /// Errors: [`Error::Spec`] for another name; [`Error::Sys`] at [`Step::Volume`], `EEXIST` if there is one.
    pub fn create(&self, name: &str) -> Result<Volume> {
        let volume = self.volume(name)?;
        let _making = self.lock_place()?;
        self.sweep();
        // Whole or not at all: it is put together aside.
        let aside = self.place.join(copy::unused_name());
        let made = make_layout(&aside).and_then(|()| {
            renameat_with(CWD, &aside, CWD, &volume.dir, RenameFlags::NOREPLACE).at(
                Step::Volume,
                "renameat2",
                &volume.dir,
            )
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&aside);
        }
        made.map(|()| volume)
    }

    /// A volume that exists. Errors: [`Error::NotFound`]; [`Error::Spec`] for what cannot be a name.
    pub fn get(&self, name: &str) -> Result<Volume> {
        let volume = self.volume(name)?;
        if volume.exists() { Ok(volume) } else { Err(volume.not_found()) }
    }

    /// The volume of this name, made if there is none.
    pub fn get_or_create(&self, name: &str) -> Result<Volume> {
        match self.get(name) {
            Err(Error::NotFound { .. }) => {}
            result => return result,
        }
        match self.create(name) {
            Err(error) if error.errno() == Some(nix::errno::Errno::EEXIST) => self.get(name),
            result => result,
        }
    }

    /// The volume of this name, held, made if there is none.
    pub(crate) fn take(&self, name: &str, interrupted: &mut dyn FnMut() -> bool) -> Result<(Volume, Hold)> {
        loop {
            let held = self.get_or_create(name).and_then(|volume| {
                let lock = volume.lock(false, Some(&mut *interrupted))?;
                Ok((volume, lock))
            });
            match held {
                Ok((volume, Some(lock))) => return Ok((volume, Hold(lock))),
                // Removed meanwhile.
                Ok((_, None)) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn lock_place(&self) -> Result<OwnedFd> {
        let path = self.place.join(PLACE_LOCK);
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(CWD, &path, flags, Mode::from_raw_mode(0o600)).at(Step::Volume, "openat", &path)?;
        wait_for_lock(&file, &path, true, Some(&mut || false))?;
        Ok(file)
    }

    /// Removes what crashes left. What somebody is about to remove is locked.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.place) else { return };
        for name in entries.flatten().map(|entry| entry.file_name()) {
            if name.as_encoded_bytes().starts_with(ASIDE.as_bytes()) {
                let left = Volume { name: String::new(), dir: self.place.join(name) };
                if !matches!(left.lock(true, None), Ok(None)) {
                    let _ = left.wipe();
                }
            }
        }
    }

    /// All volumes, by name.
    pub fn list(&self) -> Result<Vec<Volume>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.place).at(Step::Volume, "open", &self.place)? {
            let name = entry.at(Step::Volume, "getdents64", &self.place)?.file_name();
            let volume = name.to_str().and_then(|name| self.volume(name).ok());
            found.extend(volume.filter(Volume::exists));
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Removes a volume and all that is in it.
    /// Errors: [`Error::State`] while somebody uses it; [`Error::NotFound`]; [`Error::Sys`] at [`Step::Volume`], `EACCES`
    /// for an ordinary user where directories in it belong to other ids of a container.
    pub fn remove(&self, name: &str) -> Result<()> {
        let volume = self.get(name)?;
        let Some(_lock) = volume.lock(true, None)? else {
            return Err(Error::State(format!("the volume {name} is in use")));
        };
        // From here on nobody finds it, whatever becomes of us.
        let aside = self.place.join(copy::unused_name());
        fs::rename(&volume.dir, &aside).at(Step::Volume, "rename", &volume.dir)?;
        let removed = Volume { name: volume.name, dir: aside };
        removed.wipe().inspect_err(|_| {
            let _ = renameat_with(CWD, &removed.dir, CWD, &volume.dir, RenameFlags::NOREPLACE);
        })
    }

    fn volume(&self, name: &str) -> Result<Volume> {
        check_name(name)?;
        Ok(Volume { name: name.to_owned(), dir: self.place.join(name) })
    }
}

impl Volume {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory that containers see.
    pub fn path(&self) -> PathBuf {
        self.dir.join(DATA)
    }

    /// True until it has been filled or marked as used.
    pub fn is_fresh(&self) -> bool {
        !self.dir.join(FILLED).exists()
    }

    /// Uses the volume: it cannot be removed meanwhile. Any number of users may hold it at once.
    /// Errors: [`Error::NotFound`] if it was removed; [`Error::Sys`] at [`Step::Volume`].
    /// Source: <https://man7.org/linux/man-pages/man2/flock.2.html>
    pub fn hold(&self) -> Result<Hold> {
        let lock = self.lock(false, Some(&mut || false))?;
        lock.map(Hold).ok_or_else(|| self.not_found())
    }

    /// Fills a fresh volume with what is in the directory `path` of `root`, with owners, modes and all: the copy-up of the
    /// first user. `None` if there is nothing to do: the volume was used before, has something in it, or the root has no
    /// such directory. To be called before the volume is mounted, by a user who holds it. Whoever comes second waits; after
    /// a crash the next one begins again.
    ///
    /// Errors: [`Error::Sys`] at [`Step::Volume`], as for [`Root::copy_out`]; the volume stays fresh then.
    pub fn fill_from(&self, root: &Root, path: impl AsRef<Path>) -> Result<Option<CopyStats>> {
        self.fill_from_interruptible(root, path.as_ref(), &mut || false)
    }

    /// As [`Volume::fill_from`]; `interrupted` is asked now and then, and ends the copy with [`Error::Interrupted`].
    pub fn fill_from_interruptible(
        &self,
        root: &Root,
        path: &Path,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<CopyStats>> {
        copy::check_path("path", path)?;
        self.fill(interrupted, |interrupted| self.copy_up(root, path, interrupted))
    }

    /// Fills a fresh volume by `copy_up`, once. Whoever comes second waits.
    pub(crate) fn fill(
        &self,
        interrupted: &mut dyn FnMut() -> bool,
        copy_up: impl FnOnce(&mut dyn FnMut() -> bool) -> Result<Option<CopyStats>>,
    ) -> Result<Option<CopyStats>> {
        if !self.is_fresh() {
            return Ok(None);
        }
        let _filling = self.lock_file(FILL_LOCK, true, Some(&mut *interrupted))?;
        if !self.is_fresh() {
            return Ok(None);
        }
        let stats = if self.is_empty()? { copy_up(interrupted)? } else { None };
        self.write_mark()?;
        Ok(stats)
    }

    /// Says that the volume was used: it is not filled any more. Waits for who is filling it.
    pub fn mark_used(&self) -> Result<()> {
        self.fill(&mut || false, |_| Ok(None)).map(drop)
    }

    fn write_mark(&self) -> Result<()> {
        let path = self.dir.join(FILLED);
        fs::File::create(&path).map(drop).at(Step::Volume, "open", &path)
    }

    /// Copies aside and renames: the content is there as a whole, or not at all. `None` if there is no such directory.
    pub(crate) fn copy_up(
        &self,
        root: &Root,
        path: &Path,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<CopyStats>> {
        match root.side().open(path, PLACE | OFlags::DIRECTORY) {
            Err(fault) if [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].contains(&fault.errno) => return Ok(None),
            Err(fault) => return Err(fault.at(Step::Volume, path)),
            Ok(_) => {}
        }
        let (filling, data) = (self.dir.join(FILLING), self.dir.join(DATA));
        self.empty(FILLING)?;
        let inside = path.join(".");
        fs::create_dir_all(&filling).at(Step::Volume, "mkdir", &filling)?;
        let (from, to) = ((root.side(), inside.as_path()), (Side::host(), filling.as_path()));
        let stats = copy::copy(from, to, &CopyOptions::new(), Step::Volume, interrupted)?;
        fs::rename(&filling, &data).at(Step::Volume, "rename", &data)?;
        Ok(Some(stats))
    }

    fn is_empty(&self) -> Result<bool> {
        let path = self.path();
        Ok(fs::read_dir(&path).at(Step::Volume, "open", &path)?.next().is_none())
    }

    fn exists(&self) -> bool {
        fs::symlink_metadata(self.path()).is_ok_and(|meta| meta.is_dir())
    }

    fn not_found(&self) -> Error {
        Error::NotFound { what: "volume", name: self.name.clone() }
    }

    /// Removes everything, once nobody finds it any more.
    fn wipe(&self) -> Result<()> {
        for directory in [FILLING, DATA] {
            self.empty(directory)?;
        }
        fs::remove_dir_all(&self.dir).at(Step::Volume, "rmdir", &self.dir)
    }

    /// Empties a directory of the volume, if it is there.
    fn empty(&self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        let flags = PLACE | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let removed = match openat(CWD, &path, flags, Mode::empty()) {
            Err(Errno::NOENT) => Ok(()),
            result => result.by("openat").and_then(|dir| remove::empty(&dir)),
        };
        removed.map_err(|fault| {
            let fault = match fault.errno {
                Errno::ACCESS | Errno::PERM => fault.hint(
                    "files in it belong to other ids of a container: remove them there, or with uid_map=\"auto\"",
                ),
                _ => fault,
            };
            fault.at(Step::Volume, &path)
        })
    }

    /// Takes the lock of the volume; none if somebody has it, and this is not to wait.
    fn lock(&self, exclusive: bool, wait: Option<&mut dyn FnMut() -> bool>) -> Result<Option<OwnedFd>> {
        let Some(file) = self.lock_file(LOCK, exclusive, wait)? else { return Ok(None) };
        // It may have been removed while we waited, and another made with its name.
        let path = self.dir.join(LOCK);
        let ours = fstat(&file).at(Step::Volume, "fstat", &path)?;
        match fs::metadata(&path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.st_dev, ours.st_ino) => Ok(Some(file)),
            _ => Err(self.not_found()),
        }
    }

    fn lock_file(
        &self,
        name: &str,
        exclusive: bool,
        wait: Option<&mut dyn FnMut() -> bool>,
    ) -> Result<Option<OwnedFd>> {
        let path = self.dir.join(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(CWD, &path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Err(self.not_found()),
            result => result.at(Step::Volume, "openat", &path)?,
        };
        Ok(wait_for_lock(&file, &path, exclusive, wait)?.then_some(file))
    }
}

/// Locks a file. `wait` is asked now and then whether to stop waiting; without it a lock of somebody else's is false.
fn wait_for_lock(
    file: &OwnedFd,
    path: &Path,
    exclusive: bool,
    mut wait: Option<&mut dyn FnMut() -> bool>,
) -> Result<bool> {
    let operation = match exclusive {
        true => FlockOperation::NonBlockingLockExclusive,
        false => FlockOperation::NonBlockingLockShared,
    };
    loop {
        match (flock(file, operation), &mut wait) {
            (Ok(()), _) => return Ok(true),
            (Err(Errno::INTR), _) => {}
            (Err(Errno::WOULDBLOCK), None) => return Ok(false),
            (Err(Errno::WOULDBLOCK), Some(interrupted)) => {
                if interrupted() {
                    return Err(Error::Interrupted);
                }
                std::thread::sleep(PATIENCE);
            }
            (Err(errno), _) => return Err(errno).at(Step::Volume, "flock", path),
        }
    }
}

fn make_layout(dir: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(dir).at(Step::Volume, "mkdir", dir)?;
    for name in [LOCK, FILL_LOCK] {
        let path = dir.join(name);
        fs::File::create_new(&path).map(drop).at(Step::Volume, "open", &path)?;
    }
    let data = dir.join(DATA);
    fs::create_dir(&data).at(Step::Volume, "mkdir", &data)?;
    // Users of the container other than its root get in, whatever the umask.
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).at(Step::Volume, "chmod", &data)
}

fn default_place(is_root: bool, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    if is_root {
        return Ok(PathBuf::from("/var/lib/zind/volumes"));
    }
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    let none = || Error::spec("place", "is not given, and neither XDG_DATA_HOME nor HOME is an absolute path");
    data.map(|data| data.join("zind/volumes")).ok_or_else(none)
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && name.len() <= LONGEST_NAME {
        return Ok(());
    }
    let rule = "a volume has a name of letters, digits, \"_\", \".\" and \"-\" that begins with a letter or digit, at most 255";
    Err(Error::spec("name", format!("{name:?}: {rule}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        let longest = "x".repeat(255);
        for good in ["a", "0", "web-data_1.2", "A..b", longest.as_str()] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let too_long = "x".repeat(256);
        for bad in ["", ".", "..", ".a", "-a", "_a", "a/b", "a b", "a\n", "ä", "a\0", too_long.as_str()] {
            assert_eq!(check_name(bad).unwrap_err().field(), Some("name"), "{bad:?}");
        }
    }

    #[test]
    fn the_place_is_the_user_s_own() {
        let of = |root, pairs: &'static [(&str, &str)]| {
            default_place(root, |name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            })
            .map(|path| path.display().to_string())
        };
        assert_eq!(of(true, &[("HOME", "/root")]).unwrap(), "/var/lib/zind/volumes");
        assert_eq!(of(false, &[("HOME", "/home/a")]).unwrap(), "/home/a/.local/share/zind/volumes");
        assert_eq!(of(false, &[("HOME", "/h"), ("XDG_DATA_HOME", "/x")]).unwrap(), "/x/zind/volumes");
        assert_eq!(of(false, &[("HOME", "/h"), ("XDG_DATA_HOME", "x")]).unwrap(), "/h/.local/share/zind/volumes");
        assert_eq!(of(false, &[]).unwrap_err().field(), Some("place"));
    }
}
