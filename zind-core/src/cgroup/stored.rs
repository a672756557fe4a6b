//! [`Stored`]: a group that outlives who made it, as it is written down, and found again.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::events::LastWords;
use super::place::Places;
use super::readings::Readings;
use super::stats::Stats;
use super::{Cgroup, Part, files, owner};
use crate::error::{Error, Result, Step};
use nix::errno::Errno;

/// Where a group is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stored {
    pub(crate) parts: Vec<StoredPart>,
    /// Directories that were made above it.
    pub(crate) made: Vec<PathBuf>,
    pub(crate) helpers: u64,
}

/// The group in one hierarchy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredPart {
    pub(crate) path: PathBuf,
    pub(crate) is_v2: bool,
    pub(crate) controllers: Vec<String>,
}

impl Cgroup {
    /// What is written down of it. From now on somebody else removes it.
    pub(crate) fn store(&self) -> Stored {
        self.is_borrowed.store(true, Ordering::Release);
        let part = |part: &Part| StoredPart {
            path: part.path.clone(),
            is_v2: part.is_v2,
            controllers: part.controllers.clone(),
        };
        Stored { parts: self.parts.iter().map(part).collect(), made: self.places.made.clone(), helpers: self.helpers }
    }

    /// The files that [`Cgroup::last_stats`] reads: where, on version 2 or not, and their names.
    pub(crate) fn last_readings(&self) -> Vec<(BorrowedFd<'_>, bool, &'static str)> {
        let asked = self.readings.asked_in(|| drop(Stats::last_of(self)));
        let place = |(is_v2, name): (bool, &'static str)| {
            let mut parts = self.parts.iter().filter(|part| part.is_v2 == is_v2);
            // Names are of one part of the group in each version.
            let part = parts.find(|part| files::exists(part.dir.as_fd(), name))?;
            Some((part.dir.as_fd(), is_v2, name))
        };
        asked.into_iter().filter_map(place).collect()
    }

    /// A directory whose freezer stops all of it; true if it is of version 2.
    pub(crate) fn freezer_dir(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let part = self.v2().or(self.v1_with("freezer"))?;
        Some((part.dir.as_fd(), part.is_v2))
    }

    /// The directories to remove, in this order.
    pub(crate) fn to_remove(&self) -> Vec<PathBuf> {
        let parts = self.parts.iter().rev().map(|part| part.path.clone());
        parts.chain(self.places.made.iter().rev().cloned()).collect()
    }

    fn of_parts(parts: Vec<Part>, helpers: u64, readings: Readings) -> Cgroup {
        Cgroup {
            parts,
            helpers,
            places: Places::default(),
            later: None,
            scope: None,
            keeper: Mutex::new(None),
            dies_with_owner: false,
            thawer: Mutex::new(None),
            last_words: LastWords::default(),
            readings,
            memory_max: AtomicU64::new(0),
            began: None,
            is_gone: AtomicBool::new(false),
            is_borrowed: AtomicBool::new(true),
        }
    }
}

impl Stored {
    /// The group while it is there.
    ///
    /// Errors: [`Error::State`] when it is not.
    pub(crate) fn open(&self) -> Result<Cgroup> {
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let dir = files::open_dir(&part.path).map_err(|errno| match errno {
                Errno::ENOENT => Error::State("the container has ended, and its control group with it".to_owned()),
                errno => Error::sys(Step::ReadCgroup, "open", &part.path, errno),
            })?;
            let (path, controllers) = (part.path.clone(), part.controllers.clone());
            parts.push(Part { dir, path, is_v2: part.is_v2, controllers });
        }
        Ok(Cgroup::of_parts(parts, self.helpers, Readings::default()))
    }

    /// True if it is frozen; `None` if it has no freezer, or is gone.
    pub(crate) fn is_frozen(&self) -> Option<bool> {
        let freezer = |part: &&StoredPart| part.controllers.iter().any(|name| name == "freezer");
        if let Some(part) = self.parts.iter().find(|part| part.is_v2) {
            let text = std::fs::read_to_string(part.path.join("cgroup.events")).ok()?;
            return Some(files::value_of(&text, "frozen") == Some(1));
        }
        let part = self.parts.iter().find(freezer)?;
        let text = std::fs::read_to_string(part.path.join("freezer.state")).ok()?;
        Some(text.trim() == "FROZEN")
    }

    /// What the group had to say when it was still there.
    pub(crate) fn stats_of(&self, texts: Vec<(bool, String, String)>) -> Stats {
        let part = |part: &StoredPart| {
            // A directory with nothing in it that has such a name.
            let dir = files::open_dir("/".as_ref()).ok()?;
            let (path, controllers) = (part.path.clone(), part.controllers.clone());
            Some(Part { dir, path, is_v2: part.is_v2, controllers })
        };
        let parts = self.parts.iter().filter_map(part).collect();
        Stats::last_of(&Cgroup::of_parts(parts, self.helpers, Readings::of_texts(texts))).0
    }

    /// Kills whoever is in it, and removes it.
    ///
    /// Errors: [`Error::Sys`] at [`Step::RemoveCgroup`].
    pub(crate) fn remove(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        self.parts.iter().for_each(|part| owner::thaw(&part.path));
        let mut result = Ok(());
        for part in self.parts.iter().rev() {
            result = result.and(owner::remove(&part.path, deadline));
        }
        for dir in self.made.iter().rev() {
            let _ = rustix::fs::rmdir(dir);
        }
        result
    }
}
