//! Uses of an image that outlive processes: a directory of [`Layers`](crate::Layers) over it.
//!
//! `leases/` has a file for each, named after the directory. It says which image; it counts as long as the directory's own
//! file `state` says the same, so whoever deletes the directory by whatever means has given the image back.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Store;
use crate::error::{At, Result, Step};
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
    });
    std::fs::write(&aside, document.to_string()).at(Step::Store, "write", &aside)?;
    std::fs::File::open(&aside).and_then(|file| file.sync_all()).at(Step::Store, "fsync", &aside)?;
    std::fs::rename(&aside, &path).at(Step::Store, "rename", &path)
}

/// True if `user` has its file.
pub(crate) fn has(store: &Store, user: &Path) -> bool {
    file(store, user).exists()
}

/// Forgets a use; that there is none is no error.
pub(crate) fn drop_of(store: &Store, user: &Path) {
    let _ = std::fs::remove_file(file(store, user));
}

/// The manifests of the images that directories use. Files of those that are gone are removed.
/// For gc: with its lock, nothing is taken meanwhile.
pub(crate) fn in_use(store: &Store) -> Result<Vec<Descriptor>> {
    let dir = directory(store);
    let entries = match std::fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at(Step::Store, "open", &dir)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.at(Step::Store, "getdents64", &dir)?.path();
        if path.extension().is_some() {
            continue;
        }
        match read(&path) {
            Some((manifest, user)) if is_used(&user, &manifest.digest) => found.push(manifest),
            _ => drop(std::fs::remove_file(&path)),
        }
    }
    Ok(found)
}

fn document(path: &Path) -> std::io::Result<Value> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut bytes = Vec::new();
    let file = std::fs::File::options().read(true).custom_flags(flags).open(path)?;
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

fn read(path: &Path) -> Option<(Descriptor, PathBuf)> {
    let value = document(path).ok()?;
    let digest = Digest::parse(value.get("manifest")?.as_str()?).ok()?;
    let manifest = Descriptor::new(value.get("media_type")?.as_str()?, digest, value.get("size")?.as_u64()?);
    let byte = |value: &Value| value.as_u64().and_then(|number| u8::try_from(number).ok());
    let user: Option<Vec<u8>> = value.get("user")?.as_array()?.iter().map(byte).collect();
    Some((manifest, Path::new(OsStr::from_bytes(&user?)).to_owned()))
}

/// A directory that cannot be read now may be read later.
fn is_used(user: &Path, manifest: &Digest) -> bool {
    match document(&user.join("state")) {
        Ok(state) => state["image"]["manifest"] == manifest.to_string().as_str(),
        Err(error) => !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)),
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
        let mut all: Vec<Digest> = in_use(&store).unwrap().iter().map(|manifest| manifest.digest).collect();
        all.sort();
        let mut both = [a.digest, b.digest];
        both.sort();
        assert_eq!(all, both);
        std::fs::remove_dir_all(&one).unwrap();
        assert_eq!(in_use(&store).unwrap(), [b]);
        assert!(!has(&store, &one));
        // Another root has come to its place.
        std::fs::write(two.join("state"), "{}").unwrap();
        assert_eq!(in_use(&store).unwrap(), []);
        std::fs::remove_dir_all(place).unwrap();
    }
}
