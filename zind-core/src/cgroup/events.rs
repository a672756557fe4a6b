//! [`Events`]: what happens to a container's memory, processes and time, as it happens.
#![forbid(unsafe_code)]

mod closer;
mod counts;
mod kind;
mod pressure;

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};

use super::files;
use crate::error::{At, Error, Result, Step};
use crate::sys::descriptors::openat;
pub use closer::EventsCloser;
use counts::Group;
pub(crate) use counts::{Counts, LastWords};
pub use kind::{Event, EventKind, PressureOf};
use pressure::Armed;
pub use pressure::PressureTrigger;

const INOTIFY: u64 = 0;
const END: u64 = 1;
const OOM: u64 = 2;
const PENDING: u64 = 3;
const CLOSED: u64 = 4;
const FIRST_TRIGGER: u64 = 16;

/// The events of a container, as they come. It is an iterator too, which blocks.
///
/// The first ones may be of before it was made: nothing that happened since the container's start is left out. It ends
/// with [`EventKind::Empty`]. Holds the descriptors of its own; [`Process`](crate::Process) need not live.
pub struct Events {
    epoll: OwnedFd,
    group: Group,
    last_words: LastWords,
    inotify: Option<OwnedFd>,
    oom: Option<OwnedFd>,
    triggers: Vec<Armed>,
    end: OwnedFd,
    told: Counts,
    queue: VecDeque<Event>,
    /// Readable while something is queued.
    pending: OwnedFd,
    closer: EventsCloser,
    is_new: bool,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("is_over", &self.is_over()).finish_non_exhaustive()
    }
}

impl AsFd for Events {
    /// Readable when there is something to be told; [`Events::next_within`] of zero then tells it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Events {
    /// Watches a group: `v2` and `v1_memory` are its directories (and their paths, for errors), `end` becomes readable when
    /// the container has ended.
    pub(crate) fn watch(
        v2: Option<(BorrowedFd<'_>, &Path)>,
        v1_memory: Option<(BorrowedFd<'_>, &Path)>,
        end: BorrowedFd<'_>,
        triggers: &[PressureTrigger],
        last_words: LastWords,
    ) -> Result<Events> {
        triggers.iter().try_for_each(PressureTrigger::check)?;
        let own = |(dir, path): (BorrowedFd<'_>, &Path)| {
            dir.try_clone_to_owned().at(Step::Watch, "dup", path).map(|dir| (dir, path.to_owned()))
        };
        let group = Group { v2: v2.map(own).transpose()?, v1_memory: v1_memory.map(own).transpose()? };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).at(Step::Watch, "epoll_create1", "")?;
        let mut events = Events {
            epoll,
            last_words,
            inotify: None,
            oom: None,
            triggers: Vec::new(),
            end: end.try_clone_to_owned().at(Step::Watch, "dup", "")?,
            told: Counts::default(),
            queue: VecDeque::new(),
            pending: eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).at(Step::Watch, "eventfd2", "")?,
            closer: EventsCloser::new()?,
            is_new: true,
            group,
        };
        events.add(END, events.end.as_fd(), EventFlags::IN)?;
        events.add(PENDING, events.pending.as_fd(), EventFlags::IN)?;
        events.add(CLOSED, events.closer.0.wake.as_fd(), EventFlags::IN)?;
        events.watch_files()?;
        events.watch_oom()?;
        for trigger in triggers {
            events.arm(*trigger)?;
        }
        Ok(events)
    }

    fn add(&self, token: u64, fd: BorrowedFd<'_>, flags: EventFlags) -> Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token), flags).at(Step::Watch, "epoll_ctl", "")
    }

    /// v2: files whose changes the kernel tells.
    fn watch_files(&mut self) -> Result<()> {
        let Some((dir, path)) = &self.group.v2 else { return Ok(()) };
        let inotify =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).at(Step::Watch, "inotify_init1", path)?;
        for name in ["cgroup.events", "memory.events", "pids.events"] {
            // By the directory's descriptor, which stays this group's, whatever its path becomes.
            let by_fd = format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(dir));
            match inotify::add_watch(&inotify, &by_fd, WatchFlags::MODIFY) {
                // Not every controller is there.
                Ok(_) | Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => return Err(errno).at(Step::Watch, "inotify_add_watch", path.join(name)),
            }
        }
        self.add(INOTIFY, inotify.as_fd(), EventFlags::IN)?;
        self.inotify = Some(inotify);
        Ok(())
    }

    /// v1: an eventfd that the kernel adds to when memory runs out.
    fn watch_oom(&mut self) -> Result<()> {
        let Some((dir, path)) = &self.group.v1_memory else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let control = openat(dir, "memory.oom_control", flags, Mode::empty()).at(
            Step::Watch,
            "openat",
            path.join("memory.oom_control"),
        )?;
        let oom = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).at(Step::Watch, "eventfd2", "")?;
        let raw = std::os::fd::AsRawFd::as_raw_fd;
        let line = format!("{} {}", raw(&oom), raw(&control));
        files::write(dir.as_fd(), "cgroup.event_control", &line).at(
            Step::Watch,
            "write",
            path.join("cgroup.event_control"),
        )?;
        self.add(OOM, oom.as_fd(), EventFlags::IN)?;
        self.oom = Some(oom);
        Ok(())
    }

    /// The next event. `None` when `timeout` is over first (`None`: never), and when there will be no more
    /// ([`Events::is_over`]). Errors: [`Error::Sys`] at [`Step::Watch`].
    pub fn next_within(&mut self, timeout: Option<Duration>) -> Result<Option<Event>> {
        self.next_interruptible(timeout, &mut || false)
    }

    /// As [`Events::next_within`]; `interrupted` is asked when a signal arrives, and ends the wait with
    /// [`Error::Interrupted`] when it says so.
    pub fn next_interruptible(
        &mut self,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Event>> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if self.closer.is_closed() {
                return Ok(None);
            }
            if let Some(event) = self.queue.pop_front() {
                if event.kind == EventKind::Empty {
                    self.closer.0.is_over.store(true, Ordering::Release);
                }
                self.show_pending();
                return Ok(Some(event));
            }
            if self.is_over() {
                return Ok(None);
            }
            if std::mem::take(&mut self.is_new) {
                self.compare();
                self.show_pending();
                continue;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if !self.look(left, interrupted)? && left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    /// True once [`EventKind::Empty`] was told, and once they were closed.
    pub fn is_over(&self) -> bool {
        self.closer.is_over()
    }

    /// What ends them from another thread.
    pub fn closer(&self) -> EventsCloser {
        self.closer.clone()
    }

    /// Whoever polls is to come back for what is queued.
    fn show_pending(&self) {
        if self.queue.is_empty() {
            drain(&self.pending);
        } else {
            let _ = rustix::io::write(&self.pending, &1u64.to_ne_bytes());
        }
    }

    /// Waits for something to happen, and queues what it means; false if nothing did.
    fn look(&mut self, timeout: Option<Duration>, interrupted: &mut dyn FnMut() -> bool) -> Result<bool> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut ready = Vec::with_capacity(16);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) if interrupted() => return Err(Error::Interrupted),
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(errno) => return Err(errno).at(Step::Watch, "epoll_wait", ""),
        }
        let mut has_ended = false;
        let mut is_other = false;
        let mut signaled = Vec::new();
        for event in &ready {
            match event.data.u64() {
                INOTIFY => is_other |= self.inotify.as_ref().is_some_and(drain),
                OOM => is_other |= self.oom.as_ref().is_some_and(drain),
                END => has_ended = true,
                PENDING | CLOSED => is_other = true,
                token => {
                    let at = (token - FIRST_TRIGGER) as usize;
                    let (flags, Some(armed)) = (event.flags, self.triggers.get(at)) else { continue };
                    if flags.contains(EventFlags::ERR) {
                        // The group is gone, and would be told for ever.
                        let _ = epoll::delete(&self.epoll, &armed.file);
                    } else {
                        signaled.push(at);
                    }
                }
            }
        }
        self.pressure(&signaled, !is_other && !has_ended);
        self.compare();
        if has_ended {
            let _ = epoll::delete(&self.epoll, &self.end);
            self.queue.push_back(Event { kind: EventKind::Empty, count: 1 });
        }
        self.show_pending();
        Ok(!ready.is_empty() || !self.queue.is_empty())
    }

    /// Queues what the counts have grown by.
    fn compare(&mut self) {
        let now = self.last_words.get().unwrap_or_else(|| self.group.counts(self.told));
        let before = std::mem::replace(&mut self.told, now);
        for (kind, now, before) in [
            (EventKind::MemoryHigh, now.high, before.high),
            (EventKind::MemoryMax, now.max, before.max),
            (EventKind::Oom, now.oom, before.oom),
            (EventKind::OomKill, now.oom_kill, before.oom_kill),
            (EventKind::PidsMax, now.pids, before.pids),
            (EventKind::Frozen, u64::from(now.is_frozen), u64::from(before.is_frozen)),
            (EventKind::Thawed, u64::from(before.is_frozen), u64::from(now.is_frozen)),
        ] {
            if now > before {
                self.queue.push_back(Event { kind, count: now - before });
            }
        }
    }
}

impl Iterator for Events {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        self.next_within(None).transpose()
    }
}

/// Reads until there is nothing more; true if there was something.
fn drain(fd: &OwnedFd) -> bool {
    let mut bytes = [0u8; 4096];
    let mut any = false;
    while matches!(rustix::io::read(fd, &mut bytes[..]), Ok(length) if length > 0) {
        any = true;
    }
    any
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestGroup;
    use super::*;

    const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

    fn end_of(child: &std::process::Child) -> OwnedFd {
        crate::sys::descriptors::pidfd_open(child.id() as i32).unwrap()
    }

    fn is_readable(events: &Events) -> bool {
        let mut fds = [rustix::event::PollFd::new(events, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn freezing_thawing_and_the_end_are_told_in_order() {
        let Some(group) = TestGroup::v2("frozen") else { return };
        let mut child = group.start("exec sleep 60");
        let (dir, end) = (group.open(), end_of(&child));
        let mut events =
            Events::watch(Some((dir.as_fd(), &group.dir)), None, end.as_fd(), &[], LastWords::default()).unwrap();
        assert_eq!(events.next_within(Some(Duration::ZERO)).unwrap(), None);
        group.write("cgroup.freeze", "1");
        assert_eq!(events.next_within(PATIENCE).unwrap().unwrap().kind, EventKind::Frozen);
        group.write("cgroup.freeze", "0");
        assert_eq!(events.next_within(PATIENCE).unwrap().unwrap().kind, EventKind::Thawed);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_readable(&events), "for an event loop");
        let rest: Vec<EventKind> = events.by_ref().map(|event| event.unwrap().kind).collect();
        assert_eq!(rest, [EventKind::Empty]);
        assert!(events.is_over());
        assert_eq!(events.next_within(None).unwrap(), None);
    }

    #[test]
    fn another_thread_ends_the_wait() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut events = Events::watch(None, None, end_of(&child).as_fd(), &[], LastWords::default()).unwrap();
        let closer = events.closer();
        let waiting = std::thread::spawn(move || events.next_within(None).unwrap());
        assert!(!closer.is_over(), "asked while the other one waits");
        closer.close();
        assert_eq!(waiting.join().unwrap(), None);
        assert!(closer.is_over() && closer.is_closed());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_time_that_no_clock_comes_to_is_waited_for_without_end() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let mut events = Events::watch(None, None, end_of(&child).as_fd(), &[], LastWords::default()).unwrap();
        assert_eq!(events.next_within(Some(Duration::MAX)).unwrap().unwrap().kind, EventKind::Empty);
        child.wait().unwrap();
    }

    #[test]
    fn memory_that_ran_out_is_told_on_v1() {
        let Some(group) = TestGroup::v1("oom", "memory") else { return };
        group.write("memory.limit_in_bytes", "16777216");
        let mut child = group.start("tail /dev/zero");
        let (dir, end) = (group.open(), end_of(&child));
        let mut events =
            Events::watch(None, Some((dir.as_fd(), &group.dir)), end.as_fd(), &[], LastWords::default()).unwrap();
        let all: Vec<Event> = events.by_ref().map(|event| event.unwrap()).collect();
        child.wait().unwrap();
        let kinds: Vec<EventKind> = all.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::Oom, EventKind::OomKill, EventKind::Empty], "{all:?}");
        assert_eq!(all[1].count, 1);
    }

    #[test]
    fn what_happened_before_is_told_and_the_last_counts_outlive_the_group() {
        let Some(group) = TestGroup::v1("late", "memory") else { return };
        group.write("memory.limit_in_bytes", "16777216");
        let mut child = group.start("tail /dev/zero");
        child.wait().unwrap();
        let (dir, words) = (group.open(), LastWords::default());
        let mut waiting = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let end = end_of(&waiting);
        let mut events = Events::watch(None, Some((dir.as_fd(), &group.dir)), end.as_fd(), &[], words.clone()).unwrap();
        words.keep(None, Some(dir.as_fd()));
        drop(group);
        waiting.kill().unwrap();
        waiting.wait().unwrap();
        let kinds: Vec<EventKind> = events.by_ref().map(|event| event.unwrap().kind).collect();
        assert_eq!(kinds, [EventKind::Oom, EventKind::OomKill, EventKind::Empty]);
    }

    #[test]
    fn lost_time_is_told_to_an_event_loop_too() {
        let Some(group) = TestGroup::v2("pressure") else { return };
        let two = Duration::from_secs(2);
        let trigger = PressureTrigger::some(PressureOf::Cpu, Duration::from_millis(50), two);
        let busy = "for i in 1 2 3 4 5 6; do timeout 30 sh -c 'while :; do :; done' & done; wait";
        let mut child = group.start(busy);
        let (dir, end) = (group.open(), end_of(&child));
        let watched = Some((dir.as_fd(), &*group.dir));
        let mut events = Events::watch(watched, None, end.as_fd(), &[trigger], LastWords::default()).unwrap();
        let first = events.next_within(PATIENCE).unwrap().unwrap();
        assert_eq!(first.kind, EventKind::Pressure(PressureOf::Cpu));
        // The loop's own poll(2) is the one that the kernel tells.
        let until = Instant::now() + Duration::from_secs(20);
        while !is_readable(&events) {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(events.next_within(Some(Duration::ZERO)).unwrap().unwrap().kind, first.kind);
        group.write("cgroup.kill", "1");
        child.wait().unwrap();
        let bad = PressureTrigger { full: true, of: PressureOf::Memory, stall: two, window: two };
        assert!(Events::watch(None, None, end.as_fd(), &[bad], LastWords::default()).is_err(), "no group of v2");
    }
}
