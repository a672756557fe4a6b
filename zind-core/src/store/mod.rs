//! [`Store`]: images on disk, shared by all processes of a user.
//!
//! See docs/architecture.md for what is where, and who locks what.

mod blobs;
pub(crate) mod leases;
mod find;
mod owners;
mod sink;

use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use blobs::Ingest;
pub use owners::Owners;
pub use sink::LayerSink;

use crate::error::{Error, Result};
use crate::image::{ArchiveFormat, Descriptor, Digest, Image, ImageConfig, Limits, Manifest, Progress, archive};

/// Images and their unpacked layers in a directory, which any number of processes use at once.
///
/// Its `images/` is an OCI image-layout directory that other programs read; `snapshots/` has the unpacked layers. A value is
/// cheap to clone and may be used from any thread.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: PathBuf,
    limits: Limits,
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
    /// All unpacked layers, as allocated on disk.
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

impl ImageHold {
    /// The descriptor that stands for it, close-on-exec.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}

/// A piece of work on the store: until it is dropped, nothing that was found or added meanwhile by this [`Store`] is
/// collected, though no image refers to it yet. Ends with the process.
#[derive(Debug)]
pub struct Work(());

fn later<T>(what: &str) -> Result<T> {
    Err(Error::unsupported(what, "a later version"))
}

impl Store {
    /// The store in a directory, which is made (mode 0700) if it is missing. `None`: `/var/lib/zind` for root,
    /// `$XDG_DATA_HOME/zind` (`~/.local/share/zind`) for an ordinary user. What a crash has left is removed.
    /// Errors: [`Error::Sys`] at [`crate::Step::Store`]; [`Error::Spec`] without a place and without `HOME`;
    /// [`Error::State`] for a store of a later version, or one that belongs to somebody else.
    pub fn open(place: Option<PathBuf>) -> Result<Store> {
        Store::open_with(place, Limits::default())
    }

    /// [`Store::open`] with other bounds on foreign archives.
    pub fn open_with(place: Option<PathBuf>, limits: Limits) -> Result<Store> {
        let place = place.ok_or_else(|| Error::spec("place", "is not given"))?;
        Ok(Store(Arc::new(Inner { place, limits })))
    }

    /// Where it is.
    pub fn place(&self) -> &Path {
        &self.0.place
    }

    /// Its bounds on foreign archives.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// An image by its name (exactly as tagged), its id or digest (`sha256:…`), or the first 4 or more digits of one.
    /// Errors: [`Error::NotFound`]; [`Error::State`] if the digits fit several images.
    pub fn image(&self, name: &str) -> Result<Image> {
        Err(Error::NotFound { what: "image", name: name.to_owned() })
    }

    /// All images, in the order in which they came.
    pub fn images(&self) -> Result<Vec<Image>> {
        later("images")
    }

    /// Gives an image one more name; another image that has it loses it. `name` is kept as it is: normalise it before.
    /// Errors: [`Error::Spec`] for a name with other characters than those of references.
    pub fn tag(&self, image: &Image, name: &str) -> Result<()> {
        let _ = (image, name);
        later("tag")
    }

    /// Takes a name away, or all names with an id. An image without names is gone; its blobs go with [`Store::gc`].
    /// Errors: [`Error::NotFound`].
    pub fn remove(&self, name: &str) -> Result<()> {
        let _ = name;
        later("remove")
    }

    /// Removes blobs and unpacked layers that no image and no container has. Safe beside everything else.
    pub fn gc(&self) -> Result<Collected> {
        later("gc")
    }

    /// Checks every digest and every unpacked file.
    pub fn verify(&self, progress: &mut dyn Progress) -> Result<Vec<Fault>> {
        let _ = progress;
        later("verify")
    }

    /// What it takes on disk.
    pub fn usage(&self) -> Result<Usage> {
        later("usage")
    }

    /// Takes the images of an archive: an OCI image-layout directory or tar, or what `docker save` wrote, plain or
    /// compressed. Names come along.
    /// Errors: [`Error::Image`] for an archive that is broken or hostile: none of its images are added.
    pub fn load(&self, path: &Path, progress: &mut dyn Progress) -> Result<Vec<Image>> {
        archive::load(self, path, progress)
    }

    /// Makes an image of one layer of a root file system: a directory, or a tar (also compressed), as mmdebstrap makes them.
    pub fn import_rootfs(
        &self,
        source: &Path,
        tag: Option<&str>,
        config: ImageConfig,
        progress: &mut dyn Progress,
    ) -> Result<Image> {
        archive::import_rootfs(self, source, tag, config, progress)
    }

    /// Writes images with their names into an archive. `path` must not exist.
    pub fn save(
        &self,
        images: &[Image],
        path: &Path,
        format: ArchiveFormat,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        archive::save(self, images, path, format, progress)
    }

    /// Begins work: what this store finds and adds from now on stays, until images refer to it or the work is dropped.
    /// `Ingest` and `LayerSink` are work by themselves; whoever asks [`Store::has_blob`] and relies on it needs this.
    pub fn work(&self) -> Result<Work> {
        Ok(Work(()))
    }

    /// True if the blob is there, whole.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        let _ = digest;
        false
    }

    /// Opens a blob for reading. It was checked when it came; who needs to know that it still is as it was reads through
    /// [`crate::image::Verified`]. Errors: [`Error::NotFound`].
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        Err(Error::NotFound { what: "blob", name: digest.to_string() })
    }

    /// A small blob that is a document (bounded by [`Limits::document`]), checked.
    pub fn read_document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        Err(Error::NotFound { what: "blob", name: descriptor.digest.to_string() })
    }

    /// Adds a small blob.
    pub fn put_document(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let _ = (media_type, bytes);
        later("put_document")
    }

    /// Begins to add a blob. With a digest that is known, what an earlier try has left is gone on with:
    /// [`Ingest::resume_offset`]. `size` is its size, if it is known: more is refused.
    /// Errors: [`Error::Sys`] at [`crate::Step::Blob`].
    pub fn ingest(&self, expected: Option<&Digest>, media_type: &str, size: Option<u64>) -> Result<Ingest> {
        Ingest::begin(self, expected, media_type, size)
    }

    /// Begins to add a layer and to unpack it at the same time: what is written is checked, kept and unpacked while it
    /// comes. `parent` is the ChainID of the layer below, which is unpacked already. `None`: it is the bottommost.
    pub fn layer_sink(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        parent: Option<&Digest>,
        owners: &Owners,
    ) -> Result<LayerSink> {
        LayerSink::begin(self, layer, diff_id, parent, owners)
    }

    /// True if a layer is unpacked, by its ChainID.
    pub fn has_snapshot(&self, chain: &Digest, owners: &Owners) -> bool {
        let _ = (chain, owners);
        false
    }

    /// Makes an image of a manifest that was added with everything it refers to, and gives it names.
    /// Errors: [`Error::Image`] if a blob is missing or documents do not fit together.
    pub fn add_image(&self, manifest: &Descriptor, tags: &[&str]) -> Result<Image> {
        let _ = (manifest, tags);
        later("add_image")
    }

    /// Makes an image of a base and more layers on top, which were added before: what commit and build do.
    /// `layers` come with their DiffIDs; those of `base` (none: from scratch) are put below them, and `config.diff_ids` is
    /// filled in. `config.history` is the caller's.
    pub fn add_layer_and_config(
        &self,
        base: Option<&Image>,
        layers: &[(Descriptor, Digest)],
        config: ImageConfig,
        tags: &[&str],
    ) -> Result<Image> {
        let _ = (base, layers, config, tags);
        later("add_layer_and_config")
    }

    /// Unpacks the layers of an image that are not unpacked yet.
    pub fn unpack(&self, image: &Image, owners: &Owners, progress: &mut dyn Progress) -> Result<()> {
        let _ = (image, owners, progress);
        later("unpack")
    }

    /// Keeps gc away from the layers of an image: for a container, which holds it as long as it lives.
    pub fn hold(&self, image: &Image, owners: &Owners) -> Result<ImageHold> {
        let _ = (image, owners);
        later("hold")
    }

    /// The directories of an image as lower layers of an overlay, topmost first, unpacked if need be. Hold them with
    /// [`Store::hold`] first, or they may be gone.
    pub fn lowers(&self, image: &Image, owners: &Owners, progress: &mut dyn Progress) -> Result<Vec<PathBuf>> {
        let _ = (image, owners, progress);
        later("lowers")
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
