//! Blobs: written aside, hashed, synced, renamed.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use super::Store;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest};

/// A blob on its way into the store. Dropped without [`Ingest::commit`], it leaves what came so far for a later try, if its
/// digest is known.
#[derive(Debug)]
pub struct Ingest {
    _store: Store,
}

impl Ingest {
    pub(crate) fn begin(
        store: &Store,
        expected: Option<&Digest>,
        media_type: &str,
        size: Option<u64>,
    ) -> Result<Ingest> {
        let _ = (expected, media_type, size);
        let _store = store.clone();
        Err(Error::unsupported("ingest", "a later version"))
    }

    /// Bytes that are there already: what is written goes after them.
    pub fn resume_offset(&self) -> u64 {
        0
    }

    /// Throws away what is there, to begin from the first byte: for a source that cannot go on in the middle.
    pub fn restart(&mut self) -> Result<()> {
        Err(Error::unsupported("ingest", "a later version"))
    }

    /// Checks size and digest and puts the blob in its place.
    /// Errors: [`Error::Image`] if it is not what was promised: nothing of it is kept.
    pub fn commit(self) -> Result<Descriptor> {
        Err(Error::unsupported("ingest", "a later version"))
    }

    /// Throws everything away: for content that is known to be wrong.
    pub fn discard(self) {}
}

impl Write for Ingest {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
