//! Waiting for a descriptor, in a manner that can be interrupted.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::error::{At, Error, Result, Step};

/// Waits until `fd` can be read; false when the time is over. A signal lets `interrupted` decide.
pub(crate) fn wait_readable(
    fd: BorrowedFd<'_>,
    timeout: Option<Duration>,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<bool> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up by the kernel's clock, and cut into slices, for a signal that comes between question and sleep.
        let slice = left.map_or(SLICE, |left| left.min(SLICE));
        let timespec =
            rustix::event::Timespec { tv_sec: slice.as_secs() as i64, tv_nsec: i64::from(slice.subsec_nanos()) };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timespec)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {
                if interrupted() {
                    return Err(Error::Interrupted);
                }
                if left == Some(Duration::ZERO) {
                    return Ok(false);
                }
            }
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno).at(Step::Wait, "poll", ""),
        }
    }
}

/// How long a wait goes on without asking whether it should.
pub(crate) const SLICE: Duration = Duration::from_millis(200);
