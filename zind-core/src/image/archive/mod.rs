//! Archives of images: OCI layout directories, the same in a tar, and what `docker save` writes.

mod load;
mod save;
mod source;

pub(crate) use load::{import_rootfs, load};
pub(crate) use save::save;

/// What [`crate::Store::save`] writes.
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
