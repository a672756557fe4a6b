//! What is known of memory that ran out while the container runs: by whoever watches over the payload, who is to tell
//! whether it was the one that the kernel killed.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::{EventfdFlags, eventfd};

use super::resources::Resources;
use super::{Cgroup, files};

/// Where the kernel counts whom it has killed because memory ran out.
pub(crate) struct OomCount {
    pub(crate) file: Arc<OwnedFd>,
    /// What becomes readable when memory runs out; `None`: the file tells that itself.
    pub(crate) news: Option<OwnedFd>,
}

impl Cgroup {
    /// `None` without the controller, and while nobody knows where the group will be.
    pub(crate) fn oom_count(&self) -> Option<OomCount> {
        let part = self.with("memory")?;
        if part.is_v2 {
            return Some(OomCount { file: self.readings.shared(part, "memory.events")?, news: None });
        }
        let file = self.readings.shared(part, "memory.oom_control")?;
        let news = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
        let line = format!("{} {}", news.as_raw_fd(), file.as_raw_fd());
        files::write(part.dir.as_fd(), "cgroup.event_control", &line).ok()?;
        Some(OomCount { file, news: Some(news) })
    }

    /// Notes what the file has now that the limits are written.
    pub(super) fn note_memory_max(&self, resources: &Resources) {
        let is_ours =
            self.with("memory").is_some_and(|part| part.is_v2) && !resources.unified.contains_key("memory.max");
        let limit = resources.memory.unwrap_or(u64::MAX);
        // The kernel keeps whole pages, of 64 KiB at most, and takes what is near the greatest number of them for none.
        let is_plain = limit == u64::MAX || (limit.is_multiple_of(64 << 10) && limit < 1 << 60);
        if is_ours && is_plain {
            self.memory_max.store(limit, Ordering::Release);
        }
    }

    /// The limit in `memory.max` as zind has set it, `u64::MAX` for none: one file less to read at the end.
    pub(super) fn known_memory_max(&self) -> Option<u64> {
        Some(self.memory_max.load(Ordering::Acquire)).filter(|limit| *limit != 0)
    }
}
