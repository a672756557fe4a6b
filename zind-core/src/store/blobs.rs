//! Blobs: written aside, hashed, synced, renamed.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

use super::place::{INGEST, read_bounded, try_flock};
use super::{Store, Work};
use crate::copy;
use crate::error::{At, Error, Result, Step, uninterrupted};
use crate::image::{Algorithm, Descriptor, Digest, Hasher};
use crate::sys::descriptors::begin_sync;

/// So much is gathered before it is sent to the disk, so that little is left for the end.
const AHEAD: u64 = 8 << 20;

/// A blob on its way into the store. Dropped without [`Ingest::commit`], it leaves what came so far for a later try, if its
/// digest is known.
#[derive(Debug)]
pub struct Ingest {
    store: Store,
    _work: Work,
    file: File,
    path: PathBuf,
    expected: Option<Digest>,
    media_type: String,
    size: Option<u64>,
    hasher: Hasher,
    written: u64,
    resumed: u64,
    /// Bytes that are on their way to the disk.
    begun: u64,
    is_synced: bool,
    is_kept: bool,
    is_done: bool,
}

impl Ingest {
    pub(super) fn begin(
        store: &Store,
        expected: Option<&Digest>,
        media_type: &str,
        size: Option<u64>,
    ) -> Result<Ingest> {
        let work = store.work()?;
        let dir = store.at(INGEST);
        let open = |path: &PathBuf| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
            options.open(path).at(Step::Blob, "open", path)
        };
        let _lock = store.lock_shared()?;
        let named = expected.map(|digest| dir.join(format!("{}-{}", digest.algorithm().name(), digest.hex())));
        let mut found = None;
        while let Some(path) = named.as_ref().filter(|_| found.is_none()) {
            let file = open(path)?;
            // Somebody else may fetch it just now: then this one begins anew, under a name of its own.
            if !try_flock(&file) {
                break;
            }
            // Whoever had the lock may have made a blob of it, which is not to be touched.
            let (opened, there) = (file.metadata().at(Step::Blob, "fstat", path)?, fs::symlink_metadata(path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (opened.dev(), opened.ino())) {
                found = Some((file, path.clone()));
            }
        }
        let is_kept = found.is_some();
        let (file, path) = match found {
            Some(found) => found,
            None => {
                let path = dir.join(copy::unused_name());
                let file = open(&path)?;
                try_flock(&file);
                (file, path)
            }
        };
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let mut ingest = Ingest {
            store: store.clone(),
            _work: work,
            file,
            path,
            expected: expected.copied(),
            media_type: media_type.to_owned(),
            size,
            hasher: Hasher::new(algorithm),
            written: 0,
            resumed: 0,
            begun: 0,
            is_synced: false,
            is_kept,
            is_done: false,
        };
        ingest.resume()?;
        Ok(ingest)
    }

    /// Goes on after what is there.
    fn resume(&mut self) -> Result<()> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = uninterrupted(|| self.file.read(&mut buffer)).at(Step::Blob, "read", &self.path)?;
            if count == 0 {
                break;
            }
            self.hasher.update(&buffer[..count]);
            self.written += count as u64;
        }
        if self.size.is_some_and(|size| self.written > size) {
            self.restart()?;
        }
        self.resumed = self.written;
        Ok(())
    }

    /// Bytes that are there already: what is written goes after them.
    pub fn resume_offset(&self) -> u64 {
        self.resumed
    }

    /// Bytes that are there by now.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Throws away what is there, to begin from the first byte: for a source that cannot go on in the middle.
    /// Errors: [`Error::Sys`] at [`Step::Blob`].
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).at(Step::Blob, "ftruncate", &self.path)?;
        io::Seek::rewind(&mut self.file).at(Step::Blob, "lseek", &self.path)?;
        self.hasher = Hasher::new(self.expected.map_or(Algorithm::Sha256, |digest| digest.algorithm()));
        (self.written, self.resumed, self.begun) = (0, 0, 0);
        Ok(())
    }

    /// A second view of the bytes that are there.
    pub(super) fn read_again(&self) -> Result<File> {
        File::open(&self.path).at(Step::Blob, "open", &self.path)
    }

    /// True if nothing more is to come.
    pub(super) fn is_complete(&self) -> bool {
        self.size.is_none_or(|size| self.written >= size)
    }

    pub(super) fn what(&self) -> String {
        match &self.expected {
            Some(digest) => format!("blob {digest}"),
            None => "blob".to_owned(),
        }
    }

    /// Checks size and digest. What is wrong is not kept.
    pub(super) fn check(&mut self) -> Result<Digest> {
        let found = self.hasher.clone().finish();
        let wrong = match (self.expected, self.size) {
            (_, Some(size)) if self.written != size => {
                // It may go on later, if it is only cut off.
                self.is_kept &= self.written < size;
                Some(format!("has {} bytes instead of {size}", self.written))
            }
            (Some(expected), _) if expected != found => {
                self.is_kept = false;
                Some(format!("is not what its digest says, but {found}"))
            }
            _ => None,
        };
        match wrong {
            Some(rule) => Err(Error::image(self.what(), rule)),
            None => Ok(found),
        }
    }

    /// Waits until all that came is on the disk: [`Ingest::commit`] does not wait for it again.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.file.sync_all().at(Step::Blob, "fsync", &self.path)?;
        self.is_synced = true;
        Ok(())
    }

    /// Checks size and digest and puts the blob in its place.
    /// Errors: [`Error::Image`] if it is not what was promised: nothing of it is kept, except that one which ends too early
    /// may be gone on with; [`Error::Sys`] at [`Step::Blob`].
    pub fn commit(mut self) -> Result<Descriptor> {
        let digest = self.check()?;
        if !self.is_synced {
            self.sync()?;
        }
        let place = self.store.blob_path(&digest);
        let _lock = self.store.lock_shared()?;
        self.store.note(&format!("blob {digest}"))?;
        fs::rename(&self.path, &place).at(Step::Blob, "rename", &place)?;
        self.is_done = true;
        if let Some(dir) = place.parent() {
            File::open(dir).and_then(|dir| dir.sync_all()).at(Step::Blob, "fsync", dir)?;
        }
        Ok(Descriptor::new(std::mem::take(&mut self.media_type), digest, self.written))
    }

    /// Throws everything away: for content that is known to be wrong.
    pub fn discard(mut self) {
        self.is_kept = false;
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size.is_some_and(|size| self.written + bytes.len() as u64 > size) {
            self.is_kept = false;
            let rule = format!("is longer than its {} bytes", self.size.unwrap_or_default());
            return Err(io::Error::other(Error::image(self.what(), rule)));
        }
        let count = match self.file.write(bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let errno = crate::error::IntoErrno::into_errno(error);
                return Err(io::Error::other(Error::sys(Step::Blob, "write", &self.path, errno)));
            }
        };
        self.hasher.update(&bytes[..count]);
        self.written += count as u64;
        self.is_synced = false;
        if self.written - self.begun >= AHEAD {
            // If it cannot be, it is not needed either.
            let _ = begin_sync(self.file.as_fd(), self.begun, self.written - self.begun);
            self.begun = self.written;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.is_done && (!self.is_kept || self.written == 0) {
            let _ = fs::remove_file(&self.path);
        }
        // A child of this process may have the descriptor, too.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl Store {
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.at("images/blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// True if the blob is there, whole.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        let Ok(_lock) = self.lock_shared() else { return false };
        self.blob_path(digest).is_file() && self.note(&format!("blob {digest}")).is_ok()
    }

    /// True if the blob is there, and as long as its descriptor says. One that was cut off is to be fetched again.
    pub(crate) fn has_whole(&self, descriptor: &Descriptor) -> bool {
        self.has_blob(&descriptor.digest)
            && fs::metadata(self.blob_path(&descriptor.digest)).is_ok_and(|meta| meta.len() == descriptor.size)
    }

    /// The rule that a blob of the store breaks which came whole, and its cure.
    pub(crate) fn spoiled(&self, digest: &Digest, rule: &str) -> String {
        let path = self.blob_path(digest);
        format!(
            "{rule}; it is the store's own copy that is spoiled: remove {} and take the image again",
            path.display()
        )
    }

    /// Opens a blob for reading. It was checked when it came; who needs to know that it still is as it was reads through
    /// [`crate::image::Verified`]. Errors: [`Error::NotFound`].
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NotFound { what: "blob", name: digest.to_string() })
            }
            result => result.at(Step::Blob, "open", &path),
        }
    }

    /// A small blob that is a document (bounded by [`crate::Limits::document`]), checked.
    /// Errors: [`Error::Image`] if it is larger or not what its descriptor says; [`Error::NotFound`].
    pub fn read_document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let what = format!("blob {}", descriptor.digest);
        let limit = self.limits().document;
        let file = self.open_blob(&descriptor.digest)?;
        let bytes = read_bounded(&file, limit).at(Step::Blob, "read", self.blob_path(&descriptor.digest))?;
        let Some(bytes) = bytes else {
            return Err(Error::image(what, format!("is a document of more than {limit} bytes")));
        };
        if bytes.len() as u64 != descriptor.size {
            let rule = format!("has {} bytes instead of {}", bytes.len(), descriptor.size);
            return Err(Error::image(what, self.spoiled(&descriptor.digest, &rule)));
        }
        let mut hasher = Hasher::new(descriptor.digest.algorithm());
        hasher.update(&bytes);
        match hasher.finish() {
            found if found == descriptor.digest => Ok(bytes),
            found => {
                let rule = format!("is not what its digest says, but {found}");
                Err(Error::image(what, self.spoiled(&descriptor.digest, &rule)))
            }
        }
    }

    /// Adds a small blob. Errors: [`Error::Sys`] at [`Step::Blob`].
    pub fn put_document(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let descriptor = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
        self.put_checked(&descriptor, bytes)?;
        Ok(descriptor)
    }

    /// Adds a small blob that has a descriptor, and was checked against it.
    pub(crate) fn put_checked(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
        if self.has_whole(descriptor) {
            return Ok(());
        }
        let mut ingest = self.ingest(Some(&descriptor.digest), &descriptor.media_type, Some(descriptor.size))?;
        let rest = bytes.get(usize::try_from(ingest.resume_offset()).unwrap_or(0)..).unwrap_or_default();
        ingest.write_all(rest).map_err(|error| write_error(&descriptor.digest, error))?;
        ingest.commit().map(drop)
    }

    /// Where files without a name may be made.
    pub(crate) fn spool(&self) -> PathBuf {
        self.at(INGEST)
    }

    /// Begins to add a blob. With a digest that is known, what an earlier try has left is gone on with:
    /// [`Ingest::resume_offset`]. `size` is its size, if it is known: more is refused.
    /// Errors: [`Error::Sys`] at [`Step::Blob`].
    pub fn ingest(&self, expected: Option<&Digest>, media_type: &str, size: Option<u64>) -> Result<Ingest> {
        Ingest::begin(self, expected, media_type, size)
    }
}

/// The error behind a failed write of a blob.
pub(crate) fn write_error(digest: &Digest, error: io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|error| {
        let errno = crate::error::IntoErrno::into_errno(error);
        Error::sys(Step::Blob, "write", digest.to_string(), errno)
    })
}
