//! [`Work`]: what is found or added is not collected while it goes on.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::MutexGuard;

use super::Store;
use super::place::{LOCK, WORK, try_flock};
use crate::copy;
use crate::error::{At, Result, Step};

/// A piece of work on the store: until it is dropped, nothing that was found or added meanwhile by this [`Store`] is
/// collected, though no image refers to it yet. Ends with the process.
#[derive(Debug)]
pub struct Work(Store);

/// The file in which a store notes what it works with. It is locked as long as the process lives.
#[derive(Debug)]
pub(super) struct Notes {
    count: usize,
    file: File,
    path: PathBuf,
    noted: std::collections::HashSet<String>,
}

impl Store {
    /// Begins work: what this store finds and adds from now on stays, until images refer to it or the work is dropped.
    /// `Ingest` and `LayerSink` are work by themselves; whoever asks [`Store::has_blob`] and relies on it needs this.
    pub fn work(&self) -> Result<Work> {
        let _lock = self.0.place.lock(LOCK, false)?;
        let mut notes = self.notes();
        match &mut *notes {
            Some(notes) => notes.count += 1,
            None => {
                let path = self.at(WORK).join(copy::unused_name());
                let mut options = OpenOptions::new();
                let file = options.append(true).create_new(true).mode(0o600).open(&path);
                let file = file.at(Step::Store, "open", &path)?;
                try_flock(&file);
                *notes = Some(Notes { count: 1, file, path, noted: Default::default() });
            }
        }
        Ok(Work(self.clone()))
    }

    /// Notes a blob or snapshot, if there is work. The lock of the store is held by the caller.
    pub(super) fn note(&self, name: &str) -> Result<()> {
        let mut notes = self.notes();
        let Some(notes) = &mut *notes else { return Ok(()) };
        if notes.noted.insert(name.to_owned()) {
            notes.file.write_all(format!("{name}\n").as_bytes()).at(Step::Store, "write", &notes.path)?;
        }
        Ok(())
    }

    fn notes(&self) -> MutexGuard<'_, Option<Notes>> {
        self.0.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut notes = self.0.notes();
        if let Some(inner) = &mut *notes {
            inner.count -= 1;
            if inner.count == 0 {
                let _ = fs::remove_file(&inner.path);
                *notes = None;
            }
        }
    }
}
