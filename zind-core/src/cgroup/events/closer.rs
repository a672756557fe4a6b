//! [`EventsCloser`]: the end of the events, from another thread.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use crate::error::{At, Result, Step};

/// Ends [`Events`](super::Events) from another thread, and knows whether they are over while that one waits.
#[derive(Clone, Debug)]
pub struct EventsCloser(pub(super) Arc<Ending>);

#[derive(Debug)]
pub(super) struct Ending {
    /// Readable once somebody has closed them.
    pub(super) wake: OwnedFd,
    is_closed: AtomicBool,
    pub(super) is_over: AtomicBool,
}

impl EventsCloser {
    pub(super) fn new() -> Result<EventsCloser> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).at(Step::Watch, "eventfd2", "")?;
        Ok(EventsCloser(Arc::new(Ending { wake, is_closed: AtomicBool::new(false), is_over: AtomicBool::new(false) })))
    }

    /// There will be no more: whoever waits for one gets `None` at once. Twice is fine.
    pub fn close(&self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.is_closed.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.0.wake, &1u64.to_ne_bytes());
    }

    /// True once they were closed.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::Acquire)
    }

    /// As [`Events::is_over`](super::Events::is_over); true also once they were closed.
    pub fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Acquire)
    }
}
