//! `running` and `exit`: what the monitor says of the first process, and of the end.
#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use zind_init::monitor::{ExitHead, RunningHead};

use crate::proc::start_time;

/// What the monitor says of the first process.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::container) struct Running {
    pub(in crate::container) pid: i32,
    /// Ticks since the boot: proc_pid_stat(5).
    pub(in crate::container) start_time: u64,
    pub(in crate::container) started_ns: u64,
    /// How often it was started again.
    pub(in crate::container) restarts: u32,
    /// How many the kernel had killed in its group before this run.
    pub(in crate::container) ooms: u32,
}

/// What the monitor says of the end.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::container) struct Ended {
    pub(in crate::container) head: ExitHead,
    /// Files of the control group as they were then: version 2, name, text.
    pub(in crate::container) texts: Vec<(bool, String, String)>,
}

/// Words of a file of the monitor's.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_ne_bytes)
    }

    fn bytes(&mut self, len: usize) -> Option<&[u8]> {
        let (first, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(first)
    }
}

impl Running {
    pub(in crate::container) fn parse(bytes: &[u8]) -> Option<(u64, Running)> {
        let mut words = Words(bytes);
        (words.u32()? == zind_init::monitor::MAGIC && words.u32()? == zind_init::monitor::VERSION).then_some(())?;
        let run = words.u64()?;
        let started_ns = words.u64()?;
        let pid = words.i32()?;
        let restarts = words.u32()?;
        let len = words.u32()?;
        let ooms = words.u32()?;
        let stat = words.bytes(usize::try_from(len).ok()?)?;
        const { assert!(size_of::<RunningHead>() == 40) };
        Some((run, Running { pid, start_time: start_time(stat).unwrap_or(0), started_ns, restarts, ooms }))
            .filter(|_| pid > 0)
    }

    /// A pidfd of the first process, if it is still that one.
    pub(in crate::container) fn pidfd(&self) -> Option<OwnedFd> {
        // It was gone already when it was written down.
        (self.start_time != 0).then_some(())?;
        let pidfd = crate::sys::descriptors::pidfd_open(self.pid).ok()?;
        let stat = fs::read(format!("/proc/{}/stat", self.pid)).ok()?;
        (start_time(&stat)? == self.start_time).then_some(())?;
        // The number may have come to mean somebody else before it was held, but not if it is the same after.
        crate::sys::descriptors::pidfd_send_signal(pidfd.as_fd(), 0).ok()?;
        Some(pidfd)
    }
}

impl Ended {
    pub(in crate::container) fn parse(bytes: &[u8]) -> Option<Ended> {
        let mut words = Words(bytes);
        let magic = words.u32()?;
        let version = words.u32()?;
        (magic == zind_init::monitor::MAGIC && version == zind_init::monitor::VERSION).then_some(())?;
        const { assert!(size_of::<ExitHead>() == 104) };
        let head = ExitHead {
            magic,
            version,
            run: words.u64()?,
            began_ns: words.u64()?,
            ended_ns: words.u64()?,
            wall_ns: words.u64()?,
            usage: zind_init::report::Usage { user_us: words.u64()?, system_us: words.u64()?, max_rss: words.u64()? },
            lost_records: words.u64()?,
            lost_bytes: words.u64()?,
            how: words.u32()?,
            value: words.i32()?,
            flags: words.u32()?,
            restarts: words.u32()?,
            sections: words.u32()?,
            ooms: words.u32()?,
        };
        let mut texts = Vec::new();
        for _ in 0..head.sections.min(256) {
            let is_v2 = words.u32()? != 0;
            let name_len = usize::try_from(words.u32()?).ok()?;
            let text_len = usize::try_from(words.u64()?).ok()?;
            let name = String::from_utf8_lossy(words.bytes(name_len)?).into_owned();
            let text = String::from_utf8_lossy(words.bytes(text_len)?).into_owned();
            texts.push((is_v2, name, text));
        }
        Some(Ended { head, texts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_monitor_that_are_cut_off_are_none() {
        let mut bytes = Vec::new();
        for word in [zind_init::monitor::MAGIC, zind_init::monitor::VERSION] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(7u64.to_ne_bytes());
        bytes.extend(9u64.to_ne_bytes());
        bytes.extend(42i32.to_ne_bytes());
        bytes.extend(1u32.to_ne_bytes());
        let stat = b"42 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        bytes.extend((stat.len() as u32).to_ne_bytes());
        bytes.extend(5u32.to_ne_bytes());
        bytes.extend(stat);
        let (run, running) = Running::parse(&bytes).unwrap();
        assert_eq!((run, running.pid, running.start_time, running.restarts, running.ooms), (7, 42, 777, 1, 5));
        for end in 0..bytes.len() - 3 {
            assert_eq!(Running::parse(&bytes[..end]), None, "{end}");
            assert_eq!(Ended::parse(&bytes[..end]), None);
        }
    }
}
