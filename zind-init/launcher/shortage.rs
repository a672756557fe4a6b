//! Whether it was the payload itself that the kernel killed because memory ran out.
//!
//! The kernel counts a kill right before it sends the signal, and wakes whoever polls the count. Who has got a SIGKILL is
//! dying from then on, however long that takes; so whoever is not, a moment after the count has risen, was not meant.

use crate::planfile::PlanFile;
use crate::report::{KILLED_FOR_MEMORY, SPARED};
use crate::sys::{self, PollFd};

/// Between the count and the signal, or on version 1 between the news and the count, it may be somebody else's turn.
const MOMENT: i64 = 10_000_000;
/// How often the count is looked at before the news was none.
const LOOKS: u8 = 3;

pub struct Shortage {
    /// `memory.events`, or `memory.oom_control` of version 1; -1: nobody can tell.
    file: i32,
    /// What becomes ready when the count may have risen.
    news: PollFd,
    /// Kills of all of the group, so far as they are understood.
    kills: u64,
    /// The count has risen a moment ago.
    has_risen: bool,
    looks: u8,
    /// The payload was dying when it had.
    is_meant: bool,
}

impl Shortage {
    /// To be called before the payload is there.
    pub fn begin(plan: &PlanFile) -> Shortage {
        let is_v1 = plan.memory_news != plan.memory_events;
        let events = if is_v1 { sys::POLLIN } else { sys::POLLPRI };
        let news = PollFd { fd: plan.memory_news, events, revents: 0 };
        let mut shortage =
            Shortage { file: plan.memory_events, news, kills: 0, has_risen: false, looks: 0, is_meant: false };
        shortage.kills = shortage.count();
        shortage
    }

    pub fn fds(&self) -> [i32; 2] {
        [self.file, self.news.fd]
    }

    pub fn news(&self) -> PollFd {
        self.news
    }

    /// How long to wait for news, in nanoseconds; -1: for as long as it takes.
    pub fn patience(&self) -> i64 {
        if self.looks > 0 { MOMENT } else { -1 }
    }

    /// After [`Shortage::patience`], or when there are news.
    pub fn look(&mut self, are_news: bool, payload: i32) {
        if are_news {
            if self.news.fd != self.file {
                let _ = sys::read(self.news.fd, &mut [0; 8]);
            }
            self.looks = LOOKS;
        }
        self.looks = self.looks.saturating_sub(1);
        let rises = self.rises();
        if rises || self.has_risen {
            self.is_meant |= is_dying(payload);
        }
        // Looked at once more, should the signal have been on its way still.
        if rises {
            self.looks = 1;
        }
        self.has_risen = rises;
    }

    /// What is to be told of a payload that SIGKILL has ended: the index of the report.
    pub fn verdict(&mut self) -> usize {
        let rises = self.rises();
        match self.file {
            ..0 => 0,
            _ if rises || self.has_risen || self.is_meant => KILLED_FOR_MEMORY,
            _ => SPARED,
        }
    }

    fn rises(&mut self) -> bool {
        let before = core::mem::replace(&mut self.kills, 0);
        self.kills = self.count().max(before);
        self.kills > before
    }

    /// Reading it also makes the news old. A group that is gone would be news for ever.
    fn count(&mut self) -> u64 {
        let mut text = [0; 512];
        if self.file < 0 {
            return 0;
        }
        match sys::pread(self.file, &mut text, 0) {
            Ok(length) => number_after(text.get(..length).unwrap_or(&[]), b"\noom_kill "),
            Err(_) => {
                (self.file, self.news.fd) = (-1, -1);
                0
            }
        }
    }
}

/// True for a process that was killed, or when nobody can tell. It is a child that nobody has reaped.
fn is_dying(pid: i32) -> bool {
    let Ok(pidfd) = sys::pidfd_open(pid) else { return true };
    // Gives its memory back a little sooner, and refuses where it is to live on.
    let result = sys::process_mrelease(pidfd);
    sys::close(pidfd);
    result != Err(sys::EINVAL)
}

fn number_after(text: &[u8], key: &[u8]) -> u64 {
    let Some(start) = text.windows(key.len()).position(|window| window == key) else { return 0 };
    let digits = text.get(start + key.len()..).unwrap_or(&[]).iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number: u64, byte| number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')))
}
