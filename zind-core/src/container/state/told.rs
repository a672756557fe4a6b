//! `running` and `exit`: what the monitor says of the first process, and of the end.
#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use zind_init::monitor::{ExitHead, RunningHead};

use super::Dir;
use crate::proc::start_time;

/// What the monitor says of the first process.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::container) struct Running {
    /// 0: there is none between two runs.
    pub(in crate::container) pid: i32,
    /// It has ended, and is started again later.
    pub(in crate::container) waiting: Option<Box<Waiting>>,
    /// Ticks since the boot: proc_pid_stat(5).
    pub(in crate::container) start_time: u64,
    pub(in crate::container) started_ns: u64,
    /// How often it was started again.
    pub(in crate::container) restarts: u32,
    /// How many the kernel had killed in its group before this run.
    pub(in crate::container) ooms: u32,
}

/// What the monitor says between two runs.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::container) struct Waiting {
    pub(in crate::container) until_ns: u64,
    pub(in crate::container) ended: Ended,
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
        let rest = words.bytes(usize::try_from(len).ok()?)?;
        const { assert!(size_of::<RunningHead>() == 40) };
        let waiting = match pid {
            0 => Some(Box::new(Waiting::parse(rest)?)),
            _ => None,
        };
        let start_time = start_time(rest).filter(|_| pid > 0).unwrap_or(0);
        Some((run, Running { pid, waiting, start_time, started_ns, restarts, ooms })).filter(|_| pid >= 0)
    }

    /// Its number, unless it has ended.
    pub(in crate::container) fn pid(&self, dir: &Dir) -> Option<i32> {
        if self.waiting.is_some() {
            return None;
        }
        // Nobody has that number, or somebody else.
        let stat = fs::read(format!("/proc/{}/stat", self.pid)).ok()?;
        if self.start_time != 0 && start_time(&stat) == Some(self.start_time) {
            return Some(self.pid);
        }
        // In another time namespace processes have begun at another time. Its monitor knows.
        let (pid, pidfd) = crate::container::monitor::ask(dir, zind_init::monitor::request::WHO, 0).ok()??;
        crate::sys::descriptors::pidfd_send_signal(pidfd?.as_fd(), 0).ok()?;
        Some(pid)
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

impl Waiting {
    fn parse(bytes: &[u8]) -> Option<Waiting> {
        let mut words = Words(bytes);
        let until_ns = words.u64()?;
        Some(Waiting { until_ns, ended: Ended::parse(words.0)? })
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

    #[test]
    fn between_two_runs_there_is_no_process() {
        let (magic, version) = (zind_init::monitor::MAGIC, zind_init::monitor::VERSION);
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let longs = |words: &[u64]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let exit = [words(&[magic, version]), longs(&[7, 1, 2, 3, 4, 5, 6, 8, 9]), words(&[1, 3, 0, 2, 0, 0])].concat();
        let rest = [longs(&[99]), exit.clone()].concat();
        let length = u32::try_from(rest.len()).unwrap();
        let bytes = [words(&[magic, version]), longs(&[7, 1]), words(&[0, 2, length, 0]), rest].concat();
        let (run, running) = Running::parse(&bytes).unwrap();
        let waiting = running.waiting.clone().unwrap();
        assert_eq!((run, running.pid, running.restarts, running.start_time), (7, 0, 2, 0));
        assert_eq!((waiting.until_ns, Some(*Box::new(waiting.ended.clone()))), (99, Ended::parse(&exit)));
        assert_eq!(running.pid(&Dir("/nowhere".into())), None);
        assert!(running.pidfd().is_none());
        for end in 0..bytes.len() {
            assert_eq!(Running::parse(&bytes[..end]), None, "{end}");
        }
        let negative = [words(&[magic, version]), longs(&[7, 1]), words(&[u32::MAX, 2, 0, 0])].concat();
        assert_eq!(Running::parse(&negative), None);
    }
}
