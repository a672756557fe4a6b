//! The kernel's counts of a group, also as it was removed.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cgroup::files;

/// The counts of the kernel's that events are differences of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) oom: u64,
    pub(crate) oom_kill: u64,
    pub(crate) high: u64,
    pub(crate) max: u64,
    pub(crate) pids: u64,
    pub(crate) is_frozen: bool,
}

/// A group that is watched, by its directories.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) v2: Option<(OwnedFd, PathBuf)>,
    pub(super) v1_memory: Option<(OwnedFd, PathBuf)>,
}

impl Group {
    /// What the files say now; what is not there any more stays as it was.
    pub(super) fn counts(&self, before: Counts) -> Counts {
        let mut now = before;
        if let Some((dir, _)) = &self.v2 {
            if let Ok(text) = files::read(dir.as_fd(), "memory.events") {
                let value = |key| files::value_of(&text, key).unwrap_or(0);
                now.oom = value("oom");
                now.oom_kill = value("oom_kill");
                now.high = value("high");
                now.max = value("max");
            }
            if let Ok(text) = files::read(dir.as_fd(), "pids.events") {
                now.pids = files::value_of(&text, "max").unwrap_or(0);
            }
            if let Ok(text) = files::read(dir.as_fd(), "cgroup.events") {
                now.is_frozen = files::value_of(&text, "frozen") == Some(1);
            }
        }
        if let Some((dir, _)) = &self.v1_memory
            && let Ok(text) = files::read(dir.as_fd(), "memory.oom_control")
        {
            // v1 has a count of kills only; each follows from memory that ran out.
            now.oom_kill = files::value_of(&text, "oom_kill").unwrap_or(0);
            now.oom = now.oom_kill;
        }
        now
    }
}

/// The counts of a group as it was removed, for those who watch it still.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastWords(Arc<Mutex<Option<Counts>>>);

impl LastWords {
    /// True if somebody watches, who will ask for them.
    pub(crate) fn have_a_listener(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// To be called right before the group is removed.
    pub(crate) fn keep(&self, v2: Option<BorrowedFd<'_>>, v1_memory: Option<BorrowedFd<'_>>) {
        let own = |dir: BorrowedFd<'_>| dir.try_clone_to_owned().ok().map(|dir| (dir, PathBuf::new()));
        let group = Group { v2: v2.and_then(own), v1_memory: v1_memory.and_then(own) };
        self.say(group.counts(Counts::default()));
    }

    /// The same from readings that were taken anyway, right before the group is removed.
    pub(crate) fn say(&self, counts: Counts) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(counts);
    }

    /// The group is gone, or about to go.
    pub(crate) fn are_spoken(&self) -> bool {
        self.get().is_some()
    }

    pub(super) fn get(&self) -> Option<Counts> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
