//! What is where in a store, and the locks.
//!
//! `lock` is held shared for the moment in which something comes to its place or a use is noted, and exclusively by gc while
//! it decides. `index.lock` is held by who changes `index.json`. Nobody holds either for long. What is half made is locked
//! by its maker; when that dies the lock goes, and whoever opens the store next removes it.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::{Errno, retry_on_intr};

use crate::copy;
use crate::error::{At, Error, Result, Step};
use crate::sys::asking;

pub(super) const INDEX: &str = "images/index.json";
pub(super) const INGEST: &str = "ingest";
pub(super) const SNAPSHOTS: &str = "snapshots";
pub(super) const WORK: &str = "work";
pub(super) const TRASH: &str = "trash";
pub(super) const LOCK: &str = "lock";
pub(super) const INDEX_LOCK: &str = "index.lock";
/// What a file begins with that is about to replace another.
pub(super) const TEMPORARY: &str = "new";
/// The longest wait for a lock. They are held for moments; gc needs one as long as it reads all documents.
const PATIENCE: Duration = Duration::from_secs(120);
const FORMAT: &str = "store";
const VERSION: &str = "zind-store 1\n";

/// A lock that ends with this, even if a child of this process has the descriptor, too: between fork and exec, say.
#[derive(Debug)]
pub(crate) struct Locked(OwnedFd);

impl Locked {
    /// Of a file that is locked already.
    pub(crate) fn new(file: OwnedFd) -> Locked {
        Locked(file)
    }
}

impl AsFd for Locked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// The directory of a store.
#[derive(Clone, Debug)]
pub(super) struct Place(pub(super) PathBuf);

impl Place {
    /// Opens a store, and makes it if it is missing.
    pub(super) fn open(place: Option<PathBuf>) -> Result<Place> {
        let place = match place {
            Some(place) => place,
            None => default_place(rustix::process::geteuid().is_root(), |name| env::var_os(name))?,
        };
        let path = std::path::absolute(&place).at(Step::Store, "getcwd", &place)?;
        make_dir(&path)?;
        let place = Place(path);
        let meta = fs::metadata(&place.0).at(Step::Store, "stat", &place.0)?;
        let own = rustix::process::geteuid().as_raw();
        if meta.uid() != own {
            let path = place.0.display();
            return Err(Error::State(format!("the store {path} belongs to user {}, not to {own}", meta.uid())));
        }
        place.check_format()?;
        Ok(place)
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn check_format(&self) -> Result<()> {
        let path = self.at(FORMAT);
        match fs::read_to_string(&path) {
            Ok(text) if text == VERSION => return Ok(()),
            Ok(text) => {
                let text: String = text.chars().take(40).collect();
                let path = path.display();
                return Err(Error::State(format!("{path} has the format {text:?}, which this version does not know")));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).at(Step::Store, "open", &path),
        }
        for name in ["images/blobs/sha256", "images/blobs/sha512", INGEST, SNAPSHOTS, WORK, TRASH] {
            make_dir(&self.at(name))?;
        }
        for name in [LOCK, INDEX_LOCK] {
            open_lock(&self.at(name))?;
        }
        let _index = self.lock(INDEX_LOCK, true)?;
        let layout = self.at("images/oci-layout");
        if !layout.exists() {
            self.write_file(&layout, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        if !self.at(INDEX).exists() {
            self.write_file(&self.at(INDEX), &crate::image::Index::default().to_bytes())?;
        }
        self.write_file(&path, VERSION.as_bytes())
    }

    /// Replaces a file as a whole, and makes it last.
    pub(super) fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let aside = self.at(WORK).join(format!("{TEMPORARY}{}", copy::unused_name()));
        let lock = self.lock(LOCK, false)?;
        let written = (|| {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&aside)?;
            // Locked, so that nobody takes it for left over.
            try_flock(&file);
            drop(lock);
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&aside, path)?;
            path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
        })();
        if written.is_err() {
            let _ = fs::remove_file(&aside);
        }
        written.at(Step::Store, "write", path)
    }

    /// Waits for a lock of the store. Whom this thread works for is asked whether to stop.
    /// Errors: [`Error::Interrupted`]; `ETIMEDOUT` with the process that holds it, if that takes longer than anything should.
    pub(super) fn lock(&self, name: &str, exclusive: bool) -> Result<Locked> {
        self.lock_within(name, exclusive, PATIENCE)
    }

    fn lock_within(&self, name: &str, exclusive: bool, patience: Duration) -> Result<Locked> {
        let path = self.at(name);
        let file = open_lock(&path)?;
        let operation = match exclusive {
            true => FlockOperation::NonBlockingLockExclusive,
            false => FlockOperation::NonBlockingLockShared,
        };
        let (began, mut pause) = (Instant::now(), Duration::from_micros(200));
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(Locked(file)),
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(errno).at(Step::Store, "flock", &path),
            }
            if asking::is_interrupted() {
                return Err(Error::Interrupted);
            }
            if began.elapsed() >= patience {
                let late = Err(Errno::TIMEDOUT).at(Step::Store, "flock", &path);
                return late.map_err(|error: Error| error.with_hint(holders(&file)));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(40));
        }
    }

    /// The exclusive lock, if nobody holds it now.
    pub(super) fn try_lock(&self, name: &str) -> Result<Option<Locked>> {
        let file = open_lock(&self.at(name))?;
        Ok(try_flock(&file).then(|| Locked(file)))
    }

    /// Moves something into the trash, where it is nothing any more. The lock of the store is held by the caller.
    pub(super) fn throw_away(&self, path: &Path) -> Result<()> {
        let aside = self.at(TRASH).join(copy::unused_name());
        match fs::rename(path, &aside) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.at(Step::Collect, "rename", path),
        }
    }

    /// Removes what is in the trash. What somebody else removes already is left to them.
    pub(super) fn empty_trash(&self) -> Result<u64> {
        let trash = self.at(TRASH);
        let mut count = 0;
        for entry in fs::read_dir(&trash).at(Step::Collect, "open", &trash)? {
            let path = entry.at(Step::Collect, "getdents64", &trash)?.path();
            count += u64::from(remove_unless_locked(&path)?);
        }
        Ok(count)
    }
}

/// Removes a tree or file that nobody has locked. False: somebody has, or it is gone.
pub(super) fn remove_unless_locked(path: &Path) -> Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match retry_on_intr(|| openat(CWD, path, flags, Mode::empty())) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno).at(Step::Collect, "open", path),
    };
    if !try_flock(&file) {
        return Ok(false);
    }
    let locked = Locked(file);
    remove_open(path, &locked.0)
}

/// Removes a tree or file that is open.
pub(crate) fn remove_open(path: &Path, file: &OwnedFd) -> Result<bool> {
    let meta = rustix::fs::fstat(file).at(Step::Collect, "fstat", path)?;
    let removed = match rustix::fs::FileType::from_raw_mode(meta.st_mode) {
        rustix::fs::FileType::Directory => {
            copy::remove::empty(file).map_err(|fault| fault.at(Step::Collect, path))?;
            fs::remove_dir(path)
        }
        _ => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        result => result.at(Step::Collect, "unlink", path).map(|()| true),
    }
}

/// Who has a lock, for people: by proc_locks(5), which knows only processes of this pid namespace.
fn holders(file: &OwnedFd) -> String {
    let inode = rustix::fs::fstat(file).map_or(0, |meta| meta.st_ino);
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let mut all = Vec::new();
    for line in locks.lines() {
        // `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`; those who wait have an arrow before the kind.
        let parts: Vec<&str> = line.split_whitespace().collect();
        if let [_, "FLOCK", _, _, pid, place, ..] = parts[..]
            && place.rsplit(':').next().is_some_and(|number| number.parse() == Ok(inode))
        {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let field = |name: &str| {
                status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
            };
            all.push(format!("process {pid} ({}, state {})", field("Name:"), field("State:")));
        }
    }
    match all.is_empty() {
        true => "a process of another pid namespace holds it".to_owned(),
        false => format!("held by {}: end it, or let it go on", all.join(", ")),
    }
}

/// Locks a file or directory exclusively, if nobody has it.
pub(crate) fn try_flock(file: impl AsFd) -> bool {
    loop {
        match flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

pub(super) fn open_lock(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry_on_intr(|| openat(CWD, path, flags, Mode::RUSR | Mode::WUSR)).at(Step::Store, "open", path)
}

pub(crate) fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).at(Step::Store, "mkdir", path)
}

/// Reads a file of at most `limit` bytes.
pub(super) fn read_bounded(file: &File, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// What this run of the kernel is called.
pub(super) fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim().to_owned()
    })
}

/// Where the things of a user are, unless it is said otherwise.
pub(crate) fn default_place(is_root: bool, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    if is_root {
        return Ok(PathBuf::from("/var/lib/zind"));
    }
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    let none = || Error::spec("place", "is not given, and neither XDG_DATA_HOME nor HOME is an absolute path");
    data.map(|data| data.join("zind")).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn place(name: &str) -> Place {
        let dir = env::temp_dir().join(format!("zind-test-place-{name}-{}", std::process::id()));
        Place::open(Some(dir)).unwrap()
    }

    #[test]
    fn a_wait_for_a_lock_can_be_interrupted() {
        let place = place("interrupted");
        for name in [LOCK, INDEX_LOCK] {
            let held = place.lock(name, true).unwrap();
            let asked = AtomicUsize::new(0);
            let result = asking::asking(&|| asked.fetch_add(1, Ordering::Relaxed) == 3, || place.lock(name, true));
            assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
            assert_eq!(asked.load(Ordering::Relaxed), 4);
            drop(held);
            drop(place.lock(name, false).unwrap());
        }
        fs::remove_dir_all(&place.0).unwrap();
    }

    #[test]
    fn a_wait_without_end_names_who_holds_the_lock() {
        let place = place("late");
        let held = place.lock(LOCK, false).unwrap();
        drop(place.lock_within(LOCK, false, Duration::ZERO).unwrap());
        let error = place.lock_within(LOCK, true, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.errno(), Some(nix::errno::Errno::ETIMEDOUT));
        assert!(error.to_string().contains(&format!("process {} ", std::process::id())), "{error}");
        drop(held);
        fs::remove_dir_all(&place.0).unwrap();
    }
}
