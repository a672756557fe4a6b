//! [`Store`]: images on disk, shared by all processes of a user.
//!
//! See docs/architecture.md for what is where, and who locks what.

mod blobs;
mod collect;
mod find;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod index;
pub(crate) mod leases;
mod owners;
pub(crate) mod place;
mod sink;
mod snapshots;
mod unpacking;
mod verify;
mod work;

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use blobs::Ingest;
pub(crate) use blobs::write_error;
pub(crate) use index::check_name;
pub use owners::Owners;
pub(crate) use place::Locked;
pub use sink::LayerSink;
pub use work::Work;

use crate::error::{At, Result, Step};
use crate::image::progress::asked;
use crate::image::{ArchiveFormat, Descriptor, Digest, Image, ImageConfig, Limits, Manifest, Progress, archive};
use place::Place;

/// Images and their unpacked layers in a directory, which any number of processes use at once.
///
/// Its `images/` is an OCI image-layout directory that other programs read; `snapshots/` has the unpacked layers. A value is
/// cheap to clone and may be used from any thread.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    limits: Limits,
    /// What the index was when it was last read.
    listed: Mutex<Option<index::Listed>>,
    /// What this store works with.
    notes: Mutex<Option<work::Notes>>,
}

/// What [`Store::gc`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// Blobs that nothing referred to.
    pub blobs: u64,
    /// Unpacked layers that no image has any more and no container uses.
    pub snapshots: u64,
    /// Left-overs of what was interrupted.
    pub leftovers: u64,
    /// Bytes given back, as far as they are known.
    pub bytes: u64,
}

/// Something that [`Store::verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// What is broken: `"blob sha256:…"`, `"snapshot sha256:…, file /etc/passwd"`.
    pub what: String,
    /// What is wrong with it.
    pub rule: String,
    /// How it is repaired.
    pub cure: String,
    /// The names of the images that have it.
    pub images: Vec<String>,
}

/// What a store takes on disk, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// All blobs.
    pub blobs: u64,
    /// All unpacked layers.
    pub snapshots: u64,
    /// Partial downloads and the like.
    pub partial: u64,
    /// What [`Store::gc`] would give back of the blobs.
    pub unused: u64,
    /// One entry per image.
    pub images: Vec<ImageUsage>,
}

/// What one image takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageUsage {
    /// The digest of its configuration.
    pub id: Digest,
    /// Its names.
    pub tags: Vec<String>,
    /// Bytes of its blobs.
    pub size: u64,
    /// Bytes of blobs that no other image has: what removing it gives back.
    pub unique: u64,
    /// Bytes of its unpacked layers on disk; 0 if they are not unpacked.
    pub unpacked: u64,
}

/// A use of an image: its layers are not collected until this and all duplicates of its descriptor are closed.
#[derive(Debug)]
pub struct ImageHold(OwnedFd);

impl Store {
    /// The store in a directory, which is made (mode 0700) if it is missing. `None`: `/var/lib/zind` for root,
    /// `$XDG_DATA_HOME/zind` (`~/.local/share/zind`) for an ordinary user. What a crash has left is removed.
    /// Errors: [`crate::Error::Sys`] at [`crate::Step::Store`]; [`crate::Error::Spec`] without a place and without
    /// `HOME`; [`crate::Error::State`] for a store of a later version, or one that belongs to somebody else.
    pub fn open(place: Option<PathBuf>) -> Result<Store> {
        Store::open_with(place, Limits::default())
    }

    /// [`Store::open`] with other bounds on foreign archives.
    pub fn open_with(place: Option<PathBuf>, limits: Limits) -> Result<Store> {
        let place = Place::open(place)?;
        let store = Store(Arc::new(Inner { place, limits, listed: Mutex::new(None), notes: Mutex::new(None) }));
        store.sweep()?;
        Ok(store)
    }

    /// Where it is.
    pub fn place(&self) -> &Path {
        &self.0.place.0
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.place.at(name)
    }

    /// Removes what interrupted work has left, unless somebody is at work just now: then the next opening does.
    fn sweep(&self) -> Result<u64> {
        let Some(lock) = self.0.place.try_lock(place::LOCK)? else { return Ok(0) };
        let mut count = self.sweep_snapshots()?;
        for name in [place::WORK, place::INGEST] {
            let dir = self.at(name);
            for entry in std::fs::read_dir(&dir).at(Step::Store, "open", &dir)? {
                let entry = entry.at(Step::Store, "getdents64", &dir)?;
                let file_name = entry.file_name();
                let begins = |text: &str| file_name.as_encoded_bytes().starts_with(text.as_bytes());
                // Blobs whose digest is known are gone on with some day; gc removes them.
                if begins(".zind-") || begins(place::TEMPORARY) {
                    count += u64::from(place::remove_unless_locked(&entry.path())?);
                }
            }
        }
        drop(lock);
        self.0.place.empty_trash()?;
        Ok(count)
    }

    /// Keeps collections away while this lives.
    pub(crate) fn share(&self) -> Result<impl Sized> {
        self.0.place.lock(place::LOCK, false)
    }

    /// Its bounds on foreign archives.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Takes the images of an archive: an OCI image-layout directory or tar, or what `docker save` wrote, plain or
    /// compressed. Names come along.
    /// Errors: [`crate::Error::Image`] for an archive that is broken or hostile: none of its images are added.
    pub fn load(&self, path: &Path, progress: &mut dyn Progress) -> Result<Vec<Image>> {
        asked(progress, |progress| archive::load(self, path, progress))
    }

    /// Makes an image of one layer of a root file system: a directory, or a tar (also compressed), as mmdebstrap makes them.
    pub fn import_rootfs(
        &self,
        source: &Path,
        tag: Option<&str>,
        config: ImageConfig,
        progress: &mut dyn Progress,
    ) -> Result<Image> {
        asked(progress, |progress| archive::import_rootfs(self, source, tag, config, progress))
    }

    /// Writes images with their names into an archive. `path` must not exist.
    pub fn save(
        &self,
        images: &[Image],
        path: &Path,
        format: ArchiveFormat,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        asked(progress, |progress| archive::save(self, images, path, format, progress))
    }

    pub(crate) fn read_manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        Manifest::parse(&format!("manifest {}", descriptor.digest), &self.read_document(descriptor)?)
    }

    pub(crate) fn read_config(&self, manifest: &Manifest) -> Result<ImageConfig> {
        ImageConfig::parse(&format!("config {}", manifest.config.digest), &self.read_document(&manifest.config)?)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.place().display())
    }
}
