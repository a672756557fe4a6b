//! What a container uses and what it may use: readings, limits, pauses.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::{Process, State, lock};
use crate::cgroup::{Cgroup, Events, PressureTrigger, Resources, Stats};
use crate::error::{At, Error, Result, Step};

impl Process {
    /// What the container uses now; once it has ended, what it used over its whole life.
    pub fn stats(&self) -> Result<Stats> {
        match &*lock(&self.state) {
            State::Ended(_, stats) => Ok((**stats).clone()),
            State::Running(..) => {
                let used = self.group.as_ref().map(|group| group.stats()).unwrap_or_default();
                Ok(Stats { wall: self.began.elapsed(), ..used })
            }
        }
    }

    /// [`Process::stats`] now and then every `interval`, until the container has ended: the last reading is that of its whole
    /// life. It blocks between them, and ends the wait early when the container ends; a reading that came too late is left
    /// out, not made up for.
    pub fn stats_every(&self, interval: Duration) -> StatsEvery<'_> {
        StatsEvery { process: self, interval, due: Some(Instant::now()), clock: None }
    }

    /// The group, or why there is none.
    fn own_group(&self) -> Result<&Arc<Cgroup>> {
        let refused = &self.isolation.cgroup_refused;
        match &self.group {
            Some(group) if refused.is_empty() => Ok(group),
            _ if self.is_guest => Err(Error::State(
                "a program in a container has no control group of its own: ask the container".to_owned(),
            )),
            _ if !refused.is_empty() => Err(Error::State(format!("the container has no control group: {refused}"))),
            _ => Err(Error::State(
                "the container was started without a control group: give resources= at the start, be it without limits"
                    .to_owned(),
            )),
        }
    }

    /// The container's control group, while it has one.
    pub(crate) fn group(&self) -> Result<&Arc<Cgroup>> {
        if self.try_wait()?.is_some() {
            return Err(Error::State("the container has ended, and its control group with it".to_owned()));
        }
        self.own_group()
    }

    /// Changes limits of the running container; what is `None` stays as it is, and `u64::MAX` takes a limit away.
    ///
    /// Errors: [`Error::State`] for a container that has ended, that was started without resources, or without the
    /// controller; those of [`Cgroup::update`].
    pub fn update(&self, resources: &Resources) -> Result<()> {
        self.group()?.update(resources)
    }

    /// Stops everything in the container until [`Process::resume`], and waits until all of it has stopped.
    ///
    /// Errors: [`Error::State`] as for [`Process::update`], and when it is being killed; those of [`Cgroup::freeze`].
    pub fn pause(&self) -> Result<()> {
        self.group()?.freeze_unless(&|| self.was_killed.load(Ordering::SeqCst))
    }

    /// Lets everything go on.
    ///
    /// Errors: as for [`Process::pause`].
    pub fn resume(&self) -> Result<()> {
        self.group()?.thaw()
    }

    /// What happens in the container from its start on, as it happens: memory that runs out, processes killed for it, limits
    /// met, freezing, and its end. `pressure` asks for the time lost waiting, too.
    ///
    /// Errors: [`Error::State`] for a container that was started without resources; [`Error::Spec`] for a trigger without
    /// sense; [`Error::Unsupported`] for triggers where the kernel has none; [`Error::Sys`] at [`Step::Watch`].
    pub fn events(&self, pressure: &[PressureTrigger]) -> Result<Events> {
        let group = self.own_group()?;
        group.events(self.end_fd(), pressure)
    }

    /// True between [`Process::pause`] and [`Process::resume`].
    ///
    /// Errors: as for [`Process::pause`].
    pub fn is_paused(&self) -> Result<bool> {
        self.group()?.is_frozen()
    }
}

/// Readings at intervals: [`Process::stats_every`]. An iterator that blocks, or with a descriptor for an event loop.
#[derive(Debug)]
pub struct StatsEvery<'a> {
    process: &'a Process,
    interval: Duration,
    /// `None` after the last one.
    due: Option<Instant>,
    /// Readable when one is due: made when somebody asks for it.
    clock: Option<Clock>,
}

/// A timer, and the end of the container.
#[derive(Debug)]
struct Clock {
    epoll: OwnedFd,
    timer: OwnedFd,
}

impl Clock {
    fn new(end: BorrowedFd<'_>) -> Result<Clock> {
        use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags).at(Step::Watch, "timerfd_create", "")?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).at(Step::Watch, "epoll_create1", "")?;
        for (number, fd) in [(0, timer.as_fd()), (1, end)] {
            epoll::add(&epoll, fd, EventData::new_u64(number), EventFlags::IN).at(Step::Watch, "epoll_ctl", "")?;
        }
        Ok(Clock { epoll, timer })
    }

    fn set(&self, due: Instant) -> Result<()> {
        // Zero would switch it off.
        let left = due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let it_value = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        let set = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
        set.map(drop).at(Step::Watch, "timerfd_settime", "")
    }
}

impl StatsEvery<'_> {
    /// Readable when [`StatsEvery::next_within`] of zero has a reading; for an event loop.
    ///
    /// Errors: [`Error::Sys`] at [`Step::Watch`].
    pub fn fd(&mut self) -> Result<BorrowedFd<'_>> {
        if self.clock.is_none() {
            let clock = Clock::new(self.process.end_fd())?;
            self.due.map_or(Ok(()), |due| clock.set(due))?;
            self.clock = Some(clock);
        }
        Ok(self.clock.as_ref().map_or(self.process.end_fd(), |clock| clock.epoll.as_fd()))
    }

    /// The next reading. `None` when `timeout` is over first (`None`: never), and when there will be no more
    /// ([`StatsEvery::is_over`]).
    pub fn next_within(&mut self, timeout: Option<Duration>) -> Result<Option<Stats>> {
        let Some(due) = self.due else { return Ok(None) };
        let left = due.saturating_duration_since(Instant::now());
        let has_ended = self.process.wait(Some(timeout.map_or(left, |timeout| timeout.min(left))))?.is_some();
        if has_ended {
            self.due = None;
            return self.process.stats().map(Some);
        }
        if Instant::now() < due {
            return Ok(None);
        }
        self.due = due.checked_add(self.interval).map(|due| due.max(Instant::now()));
        if let (Some(clock), Some(due)) = (&self.clock, self.due) {
            clock.set(due)?;
        }
        self.process.stats().map(Some)
    }

    /// True once the last reading was given.
    pub fn is_over(&self) -> bool {
        self.due.is_none()
    }
}

impl Iterator for StatsEvery<'_> {
    type Item = Result<Stats>;

    fn next(&mut self) -> Option<Result<Stats>> {
        while !self.is_over() {
            match self.next_within(None) {
                Ok(None) => {}
                result => {
                    if result.is_err() {
                        self.due = None;
                    }
                    return result.transpose();
                }
            }
        }
        None
    }
}
