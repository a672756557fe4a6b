//! Uses of an image that outlive processes: a directory of [`Layers`](crate::Layers) over it.
//!
//! `leases/` has a file for each, named after the directory. It says which image; it counts as long as the directory's own
//! file `state` says the same, so whoever deletes the directory by whatever means has given the image back.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Store;
use crate::error::{At, Error, Result, Step};
use crate::image::{Descriptor, Digest};

/// Larger files are none of ours.
const LARGEST: u64 = 1 << 24;

fn directory(store: &Store) -> PathBuf {
    store.place().join("leases")
}

fn file(store: &Store, user: &Path) -> PathBuf {
    directory(store).join(Digest::of(user.as_os_str().as_bytes()).hex())
}

/// Notes that `user`, whose `state` says so already, needs an image. Hold the image meanwhile.
pub(crate) fn take(store: &Store, manifest: &Descriptor, user: &Path) -> Result<()> {
    // Before or after a collection, not beside it.
    let _lock = store.share()?;
    let (dir, path) = (directory(store), file(store, user));
    std::fs::create_dir_all(&dir).at(Step::Store, "mkdir", &dir)?;
    let aside = path.with_extension("new");
    let document = json!({
        "manifest": manifest.digest.to_string(),
        "media_type": manifest.media_type,
        "size": manifest.size,
        "user": user.as_os_str().as_bytes(),
        // Another directory there: its file system is not mounted.
        "parent": user.parent().and_then(inode),
    });
    std::fs::write(&aside, document.to_string()).at(Step::Store, "write", &aside)?;
    std::fs::File::open(&aside).and_then(|file| file.sync_all()).at(Step::Store, "fsync", &aside)?;
    std::fs::rename(&aside, &path).at(Step::Store, "rename", &path)?;
    std::fs::File::open(&dir).and_then(|dir| dir.sync_all()).at(Step::Store, "fsync", &dir)
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|meta| meta.ino())
}

/// True if `user` has its file.
pub(crate) fn has(store: &Store, user: &Path) -> bool {
    file(store, user).exists()
}

/// Forgets a use; that there is none is no error.
pub(crate) fn drop_of(store: &Store, user: &Path) {
    let _ = std::fs::remove_file(file(store, user));
}

/// The manifests of the images that directories use. With `clean`, which takes the exclusive lock of the store, the files
/// of those that are gone are removed. What cannot be read is an error: who knows what it holds.
pub(crate) fn in_use(store: &Store, clean: bool) -> Result<Vec<Descriptor>> {
    let dir = directory(store);
    let entries = match std::fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at(Step::Store, "open", &dir)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.at(Step::Store, "getdents64", &dir)?.path();
        if path.extension().is_some() {
            if clean {
                // Of one that was killed: whoever writes one shares the lock.
                forget(&path)?;
            }
            continue;
        }
        let value = match document(&path) {
            // Given back just now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.at(Step::Store, "read", &path)?,
        };
        let Some(lease) = value.as_ref().and_then(Lease::parse) else {
            let text = "says which image a directory of layers needs, and is broken: remove it if there is none";
            return Err(Error::State(format!("{} {text}", path.display())));
        };
        if lease.is_used() {
            found.push(lease.manifest);
        } else if clean {
            forget(&path)?;
        }
    }
    Ok(found)
}

/// Whoever deletes a directory gives its image back without a lock, so the file may be gone by now.
fn forget(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.at(Step::Collect, "unlink", path),
    }
}

/// None: it is no JSON.
fn document(path: &Path) -> std::io::Result<Option<Value>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut bytes = Vec::new();
    let file = std::fs::File::options().read(true).custom_flags(flags).open(path)?;
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes).ok())
}

/// What a file says.
struct Lease {
    manifest: Descriptor,
    user: PathBuf,
    /// The inode of the directory that `user` is in, if it was noted.
    parent: Option<u64>,
}

impl Lease {
    fn parse(value: &Value) -> Option<Lease> {
        let digest = Digest::parse(value.get("manifest")?.as_str()?).ok()?;
        let manifest = Descriptor::new(value.get("media_type")?.as_str()?, digest, value.get("size")?.as_u64()?);
        let byte = |value: &Value| value.as_u64().and_then(|number| u8::try_from(number).ok());
        let user: Option<Vec<u8>> = value.get("user")?.as_array()?.iter().map(byte).collect();
        let user = Path::new(OsStr::from_bytes(&user?)).to_owned();
        Some(Lease { manifest, user, parent: value.get("parent").and_then(Value::as_u64) })
    }

    /// False only if it is certain: a directory that cannot be read now, or whose file system is not there, may be read later.
    fn is_used(&self) -> bool {
        match document(&self.user.join("state")) {
            Ok(Some(state)) => state["image"]["manifest"] == self.manifest.digest.to_string().as_str(),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                let parent = self.user.parent().and_then(inode);
                parent.is_none() || self.parent.is_some_and(|noted| parent != Some(noted))
            }
            Ok(None) | Err(_) => true,
        }
    }
}

/// Whatever it says, its directory is only looked at.
#[cfg(any(test, fuzzing))]
pub(super) fn lease_again(bytes: &[u8]) {
    if let Some(lease) = serde_json::from_slice(bytes).ok().as_ref().and_then(Lease::parse) {
        assert!(lease.user.as_os_str().len() <= bytes.len());
        assert!(lease.manifest.digest.to_string().len() <= bytes.len());
    }
}

/// What a directory of layers says of its image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BaseImage {
    /// The place of its store.
    pub(crate) store: PathBuf,
    pub(crate) manifest: Descriptor,
    /// The owners of its files are in attributes.
    pub(crate) owners_in_xattr: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_ends_with_its_directory() {
        let place = std::env::temp_dir().join(format!("zind-test-leases-{}", std::process::id()));
        let store = Store::open(Some(place.join("store"))).unwrap();
        let (one, two) = (place.join("one"), place.join("two"));
        let manifest = |text: &[u8]| Descriptor::new("application/x", Digest::of(text), 1);
        let (a, b) = (manifest(b"a"), manifest(b"b"));
        for (user, manifest) in [(&one, &a), (&two, &b)] {
            std::fs::create_dir_all(user).unwrap();
            let state = json!({"image": {"manifest": manifest.digest.to_string()}});
            std::fs::write(user.join("state"), state.to_string()).unwrap();
            take(&store, manifest, user).unwrap();
            assert!(has(&store, user));
        }
        let mut all: Vec<Digest> = in_use(&store, true).unwrap().iter().map(|manifest| manifest.digest).collect();
        all.sort();
        let mut both = [a.digest, b.digest];
        both.sort();
        assert_eq!(all, both);
        std::fs::remove_dir_all(&one).unwrap();
        assert_eq!(in_use(&store, true).unwrap(), [b]);
        assert!(!has(&store, &one));
        // Another root has come to its place.
        std::fs::write(two.join("state"), "{}").unwrap();
        assert_eq!(in_use(&store, true).unwrap(), []);
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_use_ends_only_when_that_is_certain() {
        let place = std::env::temp_dir().join(format!("zind-test-leases-sure-{}", std::process::id()));
        let store = Store::open(Some(place.join("store"))).unwrap();
        let (mount, away) = (place.join("mount"), place.join("away"));
        let user = mount.join("work");
        let manifest = Descriptor::new("application/x", Digest::of(b"a"), 1);
        let state = json!({"image": {"manifest": manifest.digest.to_string()}}).to_string();
        std::fs::create_dir_all(&user).unwrap();
        std::fs::write(user.join("state"), &state).unwrap();
        take(&store, &manifest, &user).unwrap();
        let is_kept = || in_use(&store, true).is_ok_and(|all| all.len() == 1) && has(&store, &user);
        // Its file system is not there: neither the place, nor another directory in its place.
        std::fs::rename(&mount, &away).unwrap();
        assert!(is_kept());
        std::fs::create_dir(&mount).unwrap();
        assert!(is_kept());
        std::fs::remove_dir(&mount).unwrap();
        std::fs::rename(&away, &mount).unwrap();
        // It is broken, or cannot be read.
        std::fs::write(user.join("state"), "{").unwrap();
        assert!(is_kept());
        std::fs::remove_file(user.join("state")).unwrap();
        std::fs::create_dir(user.join("state")).unwrap();
        assert!(is_kept());
        std::fs::remove_dir(user.join("state")).unwrap();
        // Who only looks removes nothing.
        assert_eq!(in_use(&store, false).unwrap(), []);
        assert!(has(&store, &user));
        // A file that cannot be read ends a collection.
        let path = file(&store, &user);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(store.gc(), Err(Error::State(text)) if text.contains("is broken")));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(store.gc(), Err(Error::Sys { .. })));
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, good).unwrap();
        assert_eq!(in_use(&store, true).unwrap(), []);
        assert!(!has(&store, &user));
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn collecting_beside_those_who_give_back() {
        let place = std::env::temp_dir().join(format!("zind-test-leases-beside-{}", std::process::id()));
        let store = Store::open(Some(place.join("store"))).unwrap();
        let manifest = Descriptor::new("application/x", Digest::of(b"a"), 1);
        let users: Vec<PathBuf> = (0..200).map(|number| place.join(number.to_string())).collect();
        for user in &users {
            // Directories that are gone already: both may remove the file.
            take(&store, &manifest, user).unwrap();
            std::fs::write(file(&store, user).with_extension("new"), "written by one that was killed").unwrap();
        }
        let names: Vec<PathBuf> =
            std::fs::read_dir(directory(&store)).unwrap().map(|entry| entry.unwrap().path()).collect();
        std::thread::scope(|scope| {
            // In the order of the directory, so that they meet.
            scope.spawn(|| {
                names.iter().filter(|path| path.extension().is_none()).for_each(|path| drop(std::fs::remove_file(path)))
            });
            assert_eq!(in_use(&store, true).unwrap(), []);
        });
        assert_eq!(std::fs::read_dir(directory(&store)).unwrap().count(), 0);
        std::fs::remove_dir_all(place).unwrap();
    }
}
