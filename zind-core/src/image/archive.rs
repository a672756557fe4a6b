//! Archives of images: OCI layout directories, the same in a tar, and what `docker save` writes.
#![forbid(unsafe_code)]

use std::path::Path;

use super::Image;
use super::config::ImageConfig;
use super::progress::Progress;
use crate::error::{Error, Result};
use crate::store::Store;

/// What [`Store::save`] writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveFormat {
    /// An OCI image-layout in a tar file: `skopeo`'s `oci-archive:`.
    #[default]
    OciArchive,
    /// An OCI image-layout directory: `oci:`.
    OciDirectory,
    /// What `docker save` writes and `docker load` reads: `docker-archive:`.
    DockerArchive,
}

pub(crate) fn load(store: &Store, path: &Path, progress: &mut dyn Progress) -> Result<Vec<Image>> {
    let _ = (store, path, progress);
    Err(Error::unsupported("load", "a later version"))
}

pub(crate) fn save(
    store: &Store,
    images: &[Image],
    path: &Path,
    format: ArchiveFormat,
    progress: &mut dyn Progress,
) -> Result<()> {
    let _ = (store, images, path, format, progress);
    Err(Error::unsupported("save", "a later version"))
}

pub(crate) fn import_rootfs(
    store: &Store,
    source: &Path,
    tag: Option<&str>,
    config: ImageConfig,
    progress: &mut dyn Progress,
) -> Result<Image> {
    let _ = (store, source, tag, config, progress);
    Err(Error::unsupported("import_rootfs", "a later version"))
}
