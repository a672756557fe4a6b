//! [`Image`]: a root file system in layers, and how its program is run.

pub(crate) mod apply;
pub(crate) mod archive;
pub(crate) mod commit;
pub(crate) mod config;
mod describe;
pub(crate) mod digest;
pub(crate) mod json;
pub(crate) mod links;
pub(crate) mod manifest;
pub(crate) mod pack;
pub(crate) mod platform;
pub(crate) mod progress;
mod quick;
pub(crate) mod reference;
pub(crate) mod unpack;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

pub use archive::ArchiveFormat;
pub use commit::CommitOptions;
pub use config::{History, ImageConfig, RunConfig, chain_id, chain_ids};
pub use digest::{Algorithm, Digest, Hasher, Verified};
pub use manifest::{Descriptor, Index, Manifest, media};
pub use pack::{Compression, PackStats};
pub use platform::Platform;
pub use progress::{Progress, ProgressEvent, ProgressKind, interruptible};
pub use reference::Reference;
pub use unpack::Limits;

use crate::copy::Root;
use crate::error::Result;
use crate::process::launch;
use crate::rootfs::Rootfs;
use crate::rootfs::layers::Marks;
use crate::spec::Spec;
use crate::store::{Owners, Store};
use commit::Changes;

/// An image of a store: what was known about it when it was looked up. Cheap to clone.
///
/// Its documents are read when they are asked for: a list of thousands of images costs one file.
#[derive(Clone)]
pub struct Image(Arc<Inner>);

struct Inner {
    store: Store,
    summary: Summary,
    manifest: OnceLock<Manifest>,
    config: OnceLock<ImageConfig>,
}

/// What the store's index says about an image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) manifest: Descriptor,
    pub(crate) id: Digest,
    pub(crate) size: u64,
    pub(crate) created: Option<String>,
    pub(crate) platform: Platform,
    pub(crate) tags: Vec<String>,
}

impl Image {
    pub(crate) fn new(store: Store, summary: Summary) -> Image {
        Image(Arc::new(Inner { store, summary, manifest: OnceLock::new(), config: OnceLock::new() }))
    }

    /// An image by its manifest, whatever names it has or had.
    pub(crate) fn of_manifest(store: &Store, descriptor: &Descriptor) -> Result<Image> {
        if let Ok(image) = store.image(&descriptor.digest.to_string()) {
            return Ok(image);
        }
        let manifest = store.read_manifest(descriptor)?;
        let config = store.read_config(&manifest)?;
        let summary = Summary {
            manifest: descriptor.clone(),
            id: manifest.config.digest,
            size: descriptor.size + manifest.blobs_size(),
            created: config.created.clone(),
            platform: config.platform(),
            tags: Vec::new(),
        };
        Ok(Image::new(store.clone(), summary))
    }

    pub(crate) fn summary(&self) -> &Summary {
        &self.0.summary
    }

    /// The digest of its configuration: what Docker calls the image's id.
    pub fn id(&self) -> &Digest {
        &self.0.summary.id
    }

    /// The digest of its manifest: what registries know it by.
    pub fn digest(&self) -> &Digest {
        &self.0.summary.manifest.digest
    }

    /// The descriptor of its manifest.
    pub fn descriptor(&self) -> &Descriptor {
        &self.0.summary.manifest
    }

    /// Its names, in order; may be empty.
    pub fn tags(&self) -> &[String] {
        &self.0.summary.tags
    }

    /// Bytes of its blobs: manifest, configuration and layers as they are stored, compressed.
    pub fn size(&self) -> u64 {
        self.0.summary.size
    }

    /// When it was made, as RFC 3339; `None` if nobody said.
    pub fn created(&self) -> Option<&str> {
        self.0.summary.created.as_deref()
    }

    /// What it runs on.
    pub fn platform(&self) -> &Platform {
        &self.0.summary.platform
    }

    /// The store it is in.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Its manifest, read and checked at the first call.
    /// Errors: [`crate::Error::Image`] if the blob is broken; [`crate::Error::NotFound`] if it was removed meanwhile.
    pub fn manifest(&self) -> Result<&Manifest> {
        if let Some(manifest) = self.0.manifest.get() {
            return Ok(manifest);
        }
        let read = self.0.store.read_manifest(&self.0.summary.manifest)?;
        Ok(self.0.manifest.get_or_init(|| read))
    }

    /// Its configuration, read and checked at the first call. Errors: as [`Image::manifest`].
    pub fn config(&self) -> Result<&ImageConfig> {
        if let Some(config) = self.0.config.get() {
            return Ok(config);
        }
        let read = self.0.store.read_config(self.manifest()?)?;
        Ok(self.0.config.get_or_init(|| read))
    }

    /// Its layers, bottommost first. Errors: as [`Image::manifest`].
    pub fn layers(&self) -> Result<&[Descriptor]> {
        self.manifest().map(|manifest| manifest.layers.as_slice())
    }

    /// How it came to be, oldest first. Errors: as [`Image::manifest`].
    pub fn history(&self) -> Result<&[History]> {
        self.config().map(|config| config.history.as_slice())
    }

    /// Its root file system for reading: nothing of it can be changed. It stays in the store as long as this is open.
    /// Errors: of unpacking it, if it is not unpacked yet, and of a start.
    pub fn mount(&self, progress: &mut dyn Progress) -> Result<Root> {
        let owners = Owners::of_caller();
        let hold = self.store().hold(self, &owners, progress)?;
        let mut lowers = self.store().lowers(self, &owners, progress)?;
        let rootfs = if lowers.len() == 1 { Rootfs::Path(lowers.remove(0)) } else { Rootfs::Lowers(lowers) };
        let spec = Spec { rootfs, read_only: true, ..Spec::new(["look"]) };
        let root = launch::look_at_root(&spec, &mut || progress.interrupted(), |root, _| root.try_clone())?;
        Ok(root.holding(hold.into_fd()))
    }

    /// Writes its root file system as a tar to `path`, which must not exist. Owners are those of the image.
    /// Errors: [`crate::Error::Sys`] at [`crate::Step::Pack`]; of unpacking it, if it is not unpacked yet.
    pub fn export(&self, path: &Path, compression: Compression, progress: &mut dyn Progress) -> Result<PackStats> {
        let owners = Owners::of_caller();
        let _hold = self.store().hold(self, &owners, progress)?;
        let changes = Changes {
            stack: self.store().lowers(self, &owners, progress)?,
            marks: Some(Marks::of_caller()),
            owners_in_xattr: owners == Owners::Xattr,
            ..Changes::default()
        };
        commit::export(&changes, path, compression, progress)
    }

    /// Writes it into an archive: [`Store::save`].
    pub fn save(&self, path: &Path, format: ArchiveFormat, progress: &mut dyn Progress) -> Result<()> {
        self.0.store.save(std::slice::from_ref(self), path, format, progress)
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} {:?})", self.id().short(), self.tags())
    }
}

/// The same image of the same store: names may have changed meanwhile.
impl PartialEq for Image {
    fn eq(&self, other: &Image) -> bool {
        self.digest() == other.digest() && self.store().place() == other.store().place()
    }
}

impl Eq for Image {}
