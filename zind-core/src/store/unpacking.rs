//! From images to directories: [`Store::unpack`], [`Store::hold`], [`Store::lowers`].
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use super::place::{Locked, TEMPORARY, WORK, open_lock, try_flock};
use super::snapshots::{Aside, DIFF, snapshot_note};
use super::{ImageHold, Owners, Store};
use crate::copy;
use crate::error::{Error, Result, Step};
use crate::image::progress::asked;
use crate::image::unpack;
use crate::image::unpack::apply::Unpacked;
use crate::image::unpack::below::Below;
use crate::image::unpack::merge::merge;
use crate::image::{Descriptor, Digest, Image, Progress, ProgressEvent, ProgressKind, Verified, chain_id};

/// So many directories are given to overlayfs; more are merged into one. Each makes a mount about 8 us slower.
const MOST_LOWERS: usize = 8;

/// How often a turn is asked for again.
const PATIENCE: Duration = Duration::from_millis(10);
/// After so long the kernel has mostly written what was unpacked, so that to sync it costs little.
const SETTLED: Duration = Duration::from_secs(120);

impl Store {
    /// Unpacks the layers of an image that are not unpacked yet. Digests of blobs and contents are checked on the way.
    /// Errors: [`Error::Image`] for a layer that is broken or hostile: nothing of it is left; [`Error::Interrupted`];
    /// [`Error::Sys`] at [`crate::Step::Unpack`].
    pub fn unpack(&self, image: &Image, owners: &Owners, progress: &mut dyn Progress) -> Result<()> {
        let _work = self.work()?;
        let chain = image.config()?.chain_ids();
        let Some(top) = chain.last() else { return Ok(()) };
        // Each of them: somebody may have removed one that was broken.
        if self.has_snapshot(top, owners) && self.stack(Some(top), owners).is_ok() {
            return Ok(());
        }
        self.unpack_missing(image, owners, progress)?;
        // Merged now, so that the first start needs not wait for it.
        self.lowers(image, owners, progress).map(drop)
    }

    fn unpack_missing(&self, image: &Image, owners: &Owners, progress: &mut dyn Progress) -> Result<()> {
        let _work = self.work()?;
        let (layers, diff_ids) = (image.layers()?, &image.config()?.diff_ids);
        let chain = image.config()?.chain_ids();
        self.sync_snapshots(SETTLED)?;
        for (index, layer) in layers.iter().enumerate() {
            if self.has_snapshot(&chain[index], owners) {
                continue;
            }
            // Somebody else may be unpacking it just now: one is enough.
            let _turn = self.take_turn(&chain[index], owners, progress)?;
            if self.has_snapshot(&chain[index], owners) {
                continue;
            }
            let parent = index.checked_sub(1).map(|below| &chain[below]);
            let place = (index, layers.len());
            self.unpack_layer(layer, &diff_ids[index], parent, owners, place, progress)?;
        }
        Ok(())
    }

    /// Waits until nobody else unpacks a layer. Who dies gives its turn away.
    fn take_turn(&self, chain: &Digest, owners: &Owners, progress: &mut dyn Progress) -> Result<Turn> {
        let path = self.at(WORK).join(format!("{TEMPORARY}-{}", snapshot_note(chain, owners).replace(['/', ' '], "-")));
        let lock = self.lock_shared()?;
        let file = open_lock(&path)?;
        drop(lock);
        while !try_flock(&file) {
            if progress.interrupted() {
                return Err(Error::Interrupted);
            }
            std::thread::sleep(PATIENCE);
        }
        Ok(Turn { path, _lock: Locked::new(file) })
    }

    /// Unpacks a layer whose blob is there. `place`: which one, of how many.
    pub(crate) fn unpack_layer(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        parent: Option<&Digest>,
        owners: &Owners,
        place: (usize, usize),
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let below = self.stack(parent, owners)?;
        let (aside, unpacked) = self.unpack_aside(layer, diff_id, below, owners, place, progress)?;
        self.end_snapshot(aside, &chain_id(parent, diff_id), parent, owners, unpacked)
    }

    pub(super) fn unpack_aside(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        below: Vec<PathBuf>,
        owners: &Owners,
        place: (usize, usize),
        progress: &mut dyn Progress,
    ) -> Result<(Aside, Unpacked)> {
        let what = format!("layer {}", layer.digest);
        let input = Verified::new(self.open_blob(&layer.digest)?, layer.digest, layer.size);
        let aside = self.begin_snapshot(owners)?;
        let job = self.job(what.clone(), Some(diff_id), below, owners);
        let running = unpack::start(input, aside.diff()?, job)?;
        let mut tell = |done| {
            let event = ProgressEvent::new(ProgressKind::Unpack).layer(place.0, place.1).digest(&layer.digest);
            progress.step(&event.bytes(done, Some(layer.size)));
            progress.interrupted()
        };
        tell(0);
        let own = format!("blob {}", layer.digest);
        let (unpacked, found) = running.wait(&mut tell).map_err(|error| match error {
            Error::Image { what, rule } if what == own => Error::image(what, self.spoiled(&layer.digest, &rule)),
            error => error,
        })?;
        tell(layer.size);
        match found == *diff_id {
            true => Ok((aside, unpacked)),
            false => Err(Error::image(what, format!("has the content {found}; the configuration says {diff_id}"))),
        }
    }

    /// Keeps gc away from the layers of an image, and unpacks them if need be: for a container, which holds it as long as it
    /// lives. The hold ends when its descriptor and all duplicates are closed. Errors: as [`Store::unpack`].
    pub fn hold(&self, image: &Image, owners: &Owners, progress: &mut dyn Progress) -> Result<ImageHold> {
        asked(progress, |progress| self.hold_asked(image, owners, progress))
    }

    fn hold_asked(&self, image: &Image, owners: &Owners, progress: &mut dyn Progress) -> Result<ImageHold> {
        let chain = image.config()?.chain_ids();
        loop {
            let locked = match chain.last() {
                Some(top) => self.lock_snapshot(top, owners)?,
                // Nothing to be held: an image without layers.
                None => Some(super::snapshots::open_dir(self.place())?),
            };
            match locked {
                Some(fd) => return Ok(ImageHold(fd)),
                None => self.unpack(image, owners, progress)?,
            }
        }
    }

    /// The directories of an image as lower layers of an overlay, topmost first, unpacked if need be. Hold them with
    /// [`Store::hold`] first, or they may be gone. An image without layers has an empty directory. Errors: as
    /// [`Store::unpack`].
    pub fn lowers(&self, image: &Image, owners: &Owners, progress: &mut dyn Progress) -> Result<Vec<PathBuf>> {
        asked(progress, |progress| self.lowers_asked(image, owners, progress))
    }

    fn lowers_asked(&self, image: &Image, owners: &Owners, progress: &mut dyn Progress) -> Result<Vec<PathBuf>> {
        let chain = image.config()?.chain_ids();
        let Some(top) = chain.last() else { return Ok(vec![self.empty_dir()?]) };
        let stack = match self.stack(Some(top), owners) {
            Err(Error::State(_)) => {
                self.unpack_missing(image, owners, progress)?;
                self.stack(Some(top), owners)?
            }
            result => result?,
        };
        match stack.len() > MOST_LOWERS {
            true => self.merge(top, &stack, owners, progress).map(|merged| vec![merged]),
            false => Ok(stack),
        }
    }

    /// Makes one directory of many layers.
    fn merge(&self, top: &Digest, stack: &[PathBuf], owners: &Owners, progress: &mut dyn Progress) -> Result<PathBuf> {
        let _work = self.work()?;
        let aside = self.merge_aside(stack, owners, progress)?;
        let place = self.merged_path(top, owners);
        let note = snapshot_note(top, owners);
        self.put_snapshot(aside, &place, &note, None, owners, Unpacked::default())?;
        Ok(place.join(DIFF))
    }

    pub(super) fn merge_aside(&self, stack: &[PathBuf], owners: &Owners, progress: &mut dyn Progress) -> Result<Aside> {
        let aside = self.begin_snapshot(owners)?;
        let mut below = Below::open(stack).map_err(|(path, fault)| fault.at(Step::Unpack, &path))?;
        let mut hands = copy::hands_for(owners)?;
        merge(&mut below, &aside.diff()?, &mut *hands, &mut || progress.interrupted())?;
        Ok(aside)
    }

    fn empty_dir(&self) -> Result<PathBuf> {
        let path = self.at("empty");
        super::place::make_dir(&path)?;
        Ok(path)
    }
}

/// The right to unpack a layer. It is no more than a courtesy: two who unpack the same do no harm.
struct Turn {
    path: PathBuf,
    _lock: Locked,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl ImageHold {
    /// The descriptor that stands for it, close-on-exec.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}
