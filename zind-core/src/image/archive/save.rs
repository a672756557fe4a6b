//! Images into archives.
#![forbid(unsafe_code)]

use std::path::Path;

use super::ArchiveFormat;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::image::progress::Progress;
use crate::store::Store;

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
