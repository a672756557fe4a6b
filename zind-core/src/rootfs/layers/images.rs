//! Layers over an image, and images and archives of layers.
#![forbid(unsafe_code)]

use std::path::Path;

use super::files::Lock;
use super::state::{Marks, State};
use super::{Ids, Layers};
use crate::error::{Error, Result};
use crate::image::commit::{self, Changes};
use crate::image::{CommitOptions, Compression, Image, PackStats, Progress};
use crate::store::Store;
use crate::store::leases::BaseImage;

impl Layers {
    /// The image that the base is of, if it is one.
    /// Errors: [`Error::NotFound`] if somebody took it from the store; [`Error::Image`] if it is broken.
    pub fn image(&self) -> Result<Option<Image>> {
        let Some(base) = self.state()?.image else { return Ok(None) };
        self.base_image(&Store::open(Some(base.store.clone()))?, &base).map(Some)
    }

    fn base_image(&self, store: &Store, base: &BaseImage) -> Result<Image> {
        Image::of_manifest(store, &base.manifest).map_err(|error| match error {
            Error::NotFound { what, name } => {
                let (dir, place) = (self.dir.display(), store.place().display());
                let text =
                    format!("{} below {dir}, of which the store {place} has no {what} {name}", base.manifest.digest);
                Error::NotFound { what: "image", name: text + "; pull or load it again" }
            }
            error => error,
        })
    }

    /// Makes an image of everything that was changed: one layer over the image that these layers lie on. Of layers over
    /// plain directories it is an image of one layer that has everything. `store` must be the base image's.
    ///
    /// Deletions, owners (as the containers saw them), modes, times, hard links, extended attributes and capabilities are in
    /// the layer. The layers themselves do not change. While a container runs on them, pause it meanwhile.
    ///
    /// Errors: [`Error::Sys`] at [`Step::Pack`](crate::error::Step::Pack) with the path of what the caller may not read;
    /// [`Error::Image`] for a file that no layer can hold: one whose name begins with `.wh.`, or whose owner is outside of the
    /// containers' id maps.
    pub fn commit(&self, store: &Store, options: &CommitOptions, progress: &mut dyn Progress) -> Result<Image> {
        let _lock = Lock::take(&self.dir);
        let state = self.state()?;
        let Some(base) = &state.image else {
            return commit::commit(store, None, &self.whole(&state), options, progress);
        };
        if base.store != store.place() {
            let rule =
                format!("is {}, but the image of the layers is in {}", store.place().display(), base.store.display());
            return Err(Error::spec("store", rule));
        }
        let image = self.base_image(store, base)?;
        let mut changes = self.whole(&state);
        changes.below = changes.stack.split_off(changes.stack.len() - state.base.len());
        commit::commit(store, Some(&image), &changes, options, progress)
    }

    /// Writes the present state, with all that lies below, as a tar of a root file system. `path` must not exist.
    /// Errors: as [`Layers::commit`].
    pub fn export(&self, path: &Path, compression: Compression, progress: &mut dyn Progress) -> Result<PackStats> {
        let _lock = Lock::take(&self.dir);
        commit::export(&self.whole(&self.state()?), path, compression, progress)
    }

    /// What was changed since the last snapshot.
    pub(crate) fn top_changes(&self, owners_in_xattr: bool) -> Result<Changes> {
        let mut changes = self.whole(&self.state()?);
        changes.below = changes.stack.split_off(1);
        changes.owners_in_xattr = owners_in_xattr;
        Ok(changes)
    }

    /// The layers and the base.
    fn whole(&self, state: &State) -> Changes {
        Changes {
            stack: self.stack(state, state.top).into_iter().map(|layer| layer.0).collect(),
            below: Vec::new(),
            marks: Some(state.marks.unwrap_or_else(Marks::of_caller)),
            ids: Ids { uid: state.uid_map.clone(), gid: state.gid_map.clone() },
            owners_in_xattr: state.image.as_ref().is_some_and(|image| image.owners_in_xattr),
            volumes: Vec::new(),
        }
    }
}
