//! [`LayerSink`]: a layer that is kept, checked and unpacked while it comes.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use super::{Owners, Store};
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest};

/// A layer on its way into the store, which is unpacked meanwhile by threads of its own. They end with it.
#[derive(Debug)]
pub struct LayerSink {
    _store: Store,
}

impl LayerSink {
    pub(crate) fn begin(
        store: &Store,
        layer: &Descriptor,
        diff_id: &Digest,
        parent: Option<&Digest>,
        owners: &Owners,
    ) -> Result<LayerSink> {
        let _ = (layer, diff_id, parent, owners);
        let _store = store.clone();
        Err(Error::unsupported("layer_sink", "a later version"))
    }

    /// Bytes that are there already, from an earlier try: what is written goes after them.
    pub fn resume_offset(&self) -> u64 {
        0
    }

    /// Throws away what is there, to begin from the first byte: for a source that cannot go on in the middle.
    pub fn restart(&mut self) -> Result<()> {
        Err(Error::unsupported("layer_sink", "a later version"))
    }

    /// Waits until everything is unpacked, checks size and both digests, and puts blob and snapshot in their places. A blob
    /// that is right while its content is not stays out of the store, too.
    pub fn commit(self) -> Result<Descriptor> {
        Err(Error::unsupported("layer_sink", "a later version"))
    }

    /// Throws everything away: for content that is known to be wrong.
    pub fn discard(self) {}
}

impl Write for LayerSink {
    /// Takes bytes of the layer as it is stored (compressed). Waits while the threads are behind. An error of theirs comes
    /// out here as an [`io::Error`] that holds the [`Error`].
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
