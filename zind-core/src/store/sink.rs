//! [`LayerSink`]: a layer that is kept, checked and unpacked while it comes.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::blobs::Ingest;
use super::snapshots::Aside;
use super::{Owners, Store};
use crate::error::{At, Error, Result, Step, uninterrupted};
use crate::image::unpack::{self, Job, Running, pipe};
use crate::image::{Descriptor, Digest, Progress, chain_id};

/// A layer on its way into the store, which is unpacked meanwhile by threads of its own. They end with it.
pub struct LayerSink {
    store: Store,
    ingest: Ingest,
    owners: Owners,
    /// The digest that the unpacked layer must have; `None` if it is to be found out.
    diff_id: Option<Digest>,
    parent: Option<Digest>,
    work: Option<Pipeline>,
}

struct Pipeline {
    to: pipe::Sender,
    running: Running,
    aside: Aside,
}

impl LayerSink {
    pub(super) fn begin(
        store: &Store,
        expected: Option<&Digest>,
        media_type: &str,
        size: Option<u64>,
        diff_id: Option<&Digest>,
        parent: Option<&Digest>,
        owners: &Owners,
    ) -> Result<LayerSink> {
        let ingest = store.ingest(expected, media_type, size)?;
        let mut sink = LayerSink {
            store: store.clone(),
            ingest,
            owners: owners.clone(),
            diff_id: diff_id.copied(),
            parent: parent.copied(),
            work: None,
        };
        sink.start()?;
        sink.catch_up()?;
        Ok(sink)
    }

    fn start(&mut self) -> Result<()> {
        let aside = self.store.begin_snapshot(&self.owners)?;
        let job = self.store.job(
            self.ingest.what().replacen("blob", "layer", 1),
            self.diff_id.as_ref(),
            self.store.stack(self.parent.as_ref(), &self.owners)?,
            &self.owners,
        );
        let (to, [from]) = pipe::channel::<1>();
        let running = unpack::start(from, aside.diff()?, job)?;
        self.work = Some(Pipeline { to, running, aside });
        Ok(())
    }

    /// Unpacks what an earlier try has left.
    fn catch_up(&mut self) -> Result<()> {
        let mut left = self.ingest.resume_offset();
        if left == 0 {
            return Ok(());
        }
        let mut file = self.ingest.read_again()?.take(left);
        let mut buffer = vec![0; 128 << 10];
        while left > 0 {
            let count = uninterrupted(|| file.read(&mut buffer)).at(Step::Blob, "read", self.ingest.what())?;
            if count == 0 {
                break;
            }
            self.unpack(&buffer[..count]).map_err(|error| unpack::layer_error("layer", error))?;
            left -= count as u64;
        }
        Ok(())
    }

    /// Bytes that are there already, from an earlier try: what is written goes after them.
    pub fn resume_offset(&self) -> u64 {
        self.ingest.resume_offset()
    }

    /// Throws away what is there, to begin from the first byte: for a source that cannot go on in the middle.
    pub fn restart(&mut self) -> Result<()> {
        self.work = None;
        self.ingest.restart()?;
        self.start()
    }

    fn unpack(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(work) = &mut self.work else { return Err(io::ErrorKind::BrokenPipe.into()) };
        match work.to.write(bytes) {
            Ok(()) => Ok(()),
            Err(pipe::Gone) => Err(io::Error::other(self.failure())),
        }
    }

    /// The error that ended the threads.
    fn failure(&mut self) -> Error {
        let Some(Pipeline { to, running, aside }) = self.work.take() else { return Error::Interrupted };
        drop(to);
        let error = running.wait(&mut |_| false).err().unwrap_or(Error::Interrupted);
        drop(aside);
        error
    }

    /// Waits until everything is unpacked, checks size and both digests, and puts blob and snapshot in their places. A blob
    /// that is right while its content is not stays out of the store, too.
    /// Errors: [`Error::Image`] for a layer that is broken, hostile or another than promised; [`Error::Sys`] at
    /// [`Step::Unpack`] or [`Step::Blob`].
    pub fn commit(self) -> Result<Descriptor> {
        self.commit_with(&mut ()).map(|(descriptor, _)| descriptor)
    }

    /// The same, and tells the DiffID.
    pub(crate) fn commit_with(mut self, progress: &mut dyn Progress) -> Result<(Descriptor, Digest)> {
        let found = match self.ingest.check() {
            Ok(_) => self.finish(progress),
            // What was cut off is not worth a look.
            Err(error) => Err(error),
        };
        let (aside, unpacked, diff_id) = match found {
            Ok(found) => found,
            Err(error) => {
                self.work = None;
                if matches!(error, Error::Image { .. }) && self.ingest.is_complete() {
                    self.ingest.discard();
                }
                return Err(error);
            }
        };
        // The blob first: a snapshot without one could not be made again.
        let LayerSink { store, ingest, owners, parent, .. } = self;
        let descriptor = ingest.commit()?;
        let chain = chain_id(parent.as_ref(), &diff_id);
        store.end_snapshot(aside, &chain, parent.as_ref(), &owners, unpacked)?;
        Ok((descriptor, diff_id))
    }

    fn finish(&mut self, progress: &mut dyn Progress) -> Result<(Aside, unpack::apply::Unpacked, Digest)> {
        let Some(Pipeline { to, running, aside }) = self.work.take() else { return Err(Error::Interrupted) };
        // If they are gone, the threads say why.
        let _ = to.finish();
        // While they finish what they have. A blob that turns out to be wrong was synced for nothing.
        self.ingest.sync()?;
        let (unpacked, found) = running.wait(&mut |_| progress.interrupted())?;
        match self.diff_id {
            Some(expected) if expected != found => {
                let what = self.ingest.what().replacen("blob", "layer", 1);
                Err(Error::image(what, format!("has the content {found}; the configuration says {expected}")))
            }
            _ => Ok((aside, unpacked, found)),
        }
    }

    /// Throws everything away: for content that is known to be wrong.
    pub fn discard(mut self) {
        self.work = None;
        self.ingest.discard();
    }
}

impl Write for LayerSink {
    /// Takes bytes of the layer as it is stored (compressed). Waits while the threads are behind. An error of theirs comes
    /// out here as an [`io::Error`] that holds the [`Error`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.ingest.write(bytes)?;
        self.unpack(&bytes[..count])?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for LayerSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerSink({})", self.ingest.what())
    }
}

impl Store {
    /// Begins to add a layer and to unpack it at the same time: what is written is checked, kept and unpacked while it
    /// comes. `parent` is the ChainID of the layer below, which is unpacked already. `None`: it is the bottommost.
    /// Errors: [`Error::State`] if the parent is not unpacked; [`Error::Sys`] at [`Step::Blob`] or [`Step::Unpack`].
    pub fn layer_sink(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        parent: Option<&Digest>,
        owners: &Owners,
    ) -> Result<LayerSink> {
        LayerSink::begin(self, Some(&layer.digest), &layer.media_type, Some(layer.size), Some(diff_id), parent, owners)
    }

    /// The same for a layer of which nothing is known.
    pub(crate) fn new_layer_sink(
        &self,
        media_type: &str,
        parent: Option<&Digest>,
        owners: &Owners,
    ) -> Result<LayerSink> {
        LayerSink::begin(self, None, media_type, None, None, parent, owners)
    }

    pub(super) fn job(&self, what: String, diff_id: Option<&Digest>, below: Vec<PathBuf>, owners: &Owners) -> Job {
        let algorithm = diff_id.map_or(crate::image::Algorithm::Sha256, Digest::algorithm);
        Job { what, algorithm, below, owners: owners.clone(), limits: *self.limits() }
    }
}
