//! The root of a container: what it is made of, and the operations that make it.

pub(crate) mod caller;
pub(crate) mod dev;
pub(crate) mod devices;
pub(crate) mod fault;
pub(crate) mod fuse;
pub(crate) mod host;
pub(crate) mod layers;
pub(crate) mod mask;
pub(crate) mod mount_label;
pub(crate) mod ops;
pub(crate) mod plan;
pub(crate) mod resolve;
pub(crate) mod stand_in;
pub(crate) mod template;
pub(crate) mod users;

use std::path::PathBuf;

use layers::Layers;

use crate::image::Image;

/// What a container sees as `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rootfs {
    /// The system directories of this machine below a copy-on-write layer, with empty `/home`, `/root`, `/tmp`, `/run`
    /// and a minimal `/etc`.
    #[default]
    Host,
    /// A directory that holds a root file system.
    Path(PathBuf),
    /// An image: its layers are unpacked if they are not yet, and what it says of its program fills in what the caller
    /// leaves open, as `docker run` does.
    Image(Image),
    /// Several directories on each other, topmost first, as an overlay shows them: what an image of several layers is.
    Lowers(Vec<PathBuf>),
    /// Layers on disk: changes go to the topmost and stay for the next container.
    Layers(Layers),
    /// The caller's own root: the low level, where nothing is hidden.
    Unchanged,
}

/// Where the changes to a root go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overlay {
    /// Into memory; they are gone with the container.
    #[default]
    Tmpfs,
    /// Into this directory, below `upper/`; they stay.
    Dir(PathBuf),
    /// Into the root itself. Not for [`Rootfs::Host`].
    None,
}
