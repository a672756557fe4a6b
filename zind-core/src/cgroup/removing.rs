//! Removing a group, with what was made for it.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Cgroup, PATIENCE, Part, owner};
use crate::error::Result;

impl Cgroup {
    /// Removes it, with the groups below it; whoever is still in there is killed. Removed already, nothing happens.
    ///
    /// Errors: [`Error::Sys`](crate::error::Error::Sys) at [`Step::RemoveCgroup`](crate::error::Step::RemoveCgroup), `EBUSY` if
    /// something in there does not die.
    pub fn delete(&self) -> Result<()> {
        if self.is_gone.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        if self.last_words.have_a_listener() && !self.last_words.are_spoken() {
            self.keep_last_words();
        }
        self.readings.close();
        // Mostly nobody is there any more, and then nothing is frozen either.
        let left: Vec<&Part> =
            self.parts.iter().rev().filter(|part| owner::remove_unused(&part.path).is_err()).collect();
        if !left.is_empty() {
            self.thaw_for_killing();
        }
        let mut result = Ok(());
        let deadline = Instant::now() + PATIENCE;
        for part in left {
            let removed = owner::remove(&part.path, deadline);
            result = result.and(removed);
        }
        if result.is_ok() {
            self.remove_places();
        } else {
            self.is_gone.store(false, Ordering::Release);
        }
        result
    }

    /// Removes it if nobody is in it; true if it is gone.
    pub(crate) fn try_delete(&self) -> bool {
        if self.is_gone.load(Ordering::Acquire) {
            return true;
        }
        let mut all = true;
        for part in self.parts.iter().rev() {
            all &= owner::remove_unused(&part.path).is_ok();
        }
        if all {
            self.is_gone.store(true, Ordering::Release);
            self.remove_places();
        }
        all
    }

    fn keep_last_words(&self) {
        self.last_words
            .keep(self.v2().map(|part| part.dir.as_fd()), self.v1_with("memory").map(|part| part.dir.as_fd()));
    }

    fn remove_places(&self) {
        drop(self.thawer.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.places.remove_made();
    }

    pub(super) fn remove_parts(&mut self) {
        for part in self.parts.drain(..).rev() {
            let _ = rustix::fs::rmdir(&part.path);
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.is_borrowed.load(Ordering::Acquire) {
            self.try_delete();
        }
    }
}
