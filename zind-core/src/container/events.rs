//! [`ContainerEvents`]: what happens to the containers of one place.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use super::State;
use super::place::{Containers, Filter, Summary};
use crate::error::{At, Error, Result, Step};
use crate::process::launch::wait_readable;
use crate::process::{Exit, ExitKind};
use rustix::fs::inotify;

/// What is told of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// It was made.
    Created,
    /// It was started, by somebody or by its monitor.
    Started,
    /// Memory ran out, and it ended for it.
    Oom,
    /// It was paused.
    Paused,
    /// It was resumed.
    Resumed,
    /// It has ended.
    Died,
    /// It was deleted.
    Deleted,
}

impl What {
    /// `"created"`, `"started"`, `"oom"`, `"paused"`, `"resumed"`, `"died"`, `"deleted"`.
    pub const fn name(self) -> &'static str {
        match self {
            What::Created => "created",
            What::Started => "started",
            What::Oom => "oom",
            What::Paused => "paused",
            What::Resumed => "resumed",
            What::Died => "died",
            What::Deleted => "deleted",
        }
    }
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerEvent {
    /// When it was noticed, or when it was, if that is known.
    pub time: SystemTime,
    /// What.
    pub what: What,
    /// To which container.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// How it ended, for [`What::Died`].
    pub exit: Option<Exit>,
}

/// What happens to the containers of one place from now on: [`Containers::events`]. Of things that follow each other faster
/// than they are looked at, the last is told.
#[derive(Debug)]
pub struct ContainerEvents {
    containers: Containers,
    watch: OwnedFd,
    known: BTreeMap<String, Summary>,
    ready: std::collections::VecDeque<ContainerEvent>,
}

impl ContainerEvents {
    pub(super) fn watch(containers: &Containers) -> Result<ContainerEvents> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
        let watch = watch.at(Step::Watch, "inotify_init1", "")?;
        let home = containers.home();
        let what = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::MOVED_FROM;
        inotify::add_watch(&watch, &home, what).at(Step::Watch, "inotify_add_watch", &home)?;
        let mut events = ContainerEvents {
            containers: containers.clone(),
            watch,
            known: BTreeMap::new(),
            ready: std::collections::VecDeque::new(),
        };
        events.look()?;
        events.ready.clear();
        Ok(events)
    }

    /// Becomes readable when something may have happened.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    /// The next event. `interrupted` is asked now and then, and ends the wait with [`Error::Interrupted`] when it says so.
    pub fn next_interruptible(&mut self, interrupted: &mut dyn FnMut() -> bool) -> Result<ContainerEvent> {
        loop {
            if let Some(event) = self.next_within(None, interrupted)? {
                return Ok(event);
            }
        }
    }

    /// The same; `None` when `timeout` is over first.
    pub fn next_within(
        &mut self,
        timeout: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<ContainerEvent>> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(Some(event));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // Pausing, and a monitor that was killed, are told by no file.
            let second = Duration::from_secs(1);
            if !wait_readable(self.watch.as_fd(), Some(left.map_or(second, |left| left.min(second))), interrupted)? {
                self.look()?;
                if left == Some(Duration::ZERO) {
                    return Ok(self.ready.pop_front());
                }
            }
        }
    }

    /// The next event, if there is one.
    pub fn try_next(&mut self) -> Result<Option<ContainerEvent>> {
        if self.ready.is_empty() && wait_readable(self.fd(), Some(Duration::ZERO), &mut || false)? {
            let mut bytes = [0u8; 4096];
            while rustix::io::read(&self.watch, &mut bytes).is_ok_and(|len| len > 0) {}
            self.look()?;
        }
        Ok(self.ready.pop_front())
    }

    /// Tells what is different from what there was.
    fn look(&mut self) -> Result<()> {
        let filter = Filter { all: true, ..Filter::default() };
        let now: BTreeMap<String, Summary> =
            self.containers.summaries(&filter)?.into_iter().map(|summary| (summary.id.clone(), summary)).collect();
        let before = std::mem::take(&mut self.known);
        for (id, summary) in &now {
            if !before.contains_key(id) {
                let dir = self.containers.dir_of(id).0;
                let what = inotify::WatchFlags::MOVED_TO;
                match inotify::add_watch(&self.watch, &dir, what) {
                    Ok(_) | Err(rustix::io::Errno::NOENT) => {}
                    Err(errno) => return Err(errno).at(Step::Watch, "inotify_add_watch", &dir),
                }
            }
            self.tell(before.get(id), summary);
        }
        for (id, summary) in before {
            if !now.contains_key(&id) {
                if matches!(summary.state, State::Running | State::Paused) {
                    self.say(What::Died, &summary, None);
                }
                self.say(What::Deleted, &summary, None);
            }
        }
        self.known = now;
        Ok(())
    }

    fn tell(&mut self, before: Option<&Summary>, now: &Summary) {
        let was = before.map(|before| before.state);
        if before.is_none() {
            self.say(What::Created, now, Some(now.created));
        }
        let is_up = |state| matches!(state, State::Running | State::Paused);
        let is_another = now.started.is_some() && before.and_then(|before| before.started) != now.started;
        if is_another {
            if before.is_some_and(|before| is_up(before.state)) {
                self.say(What::Died, now, None);
            }
            self.say(What::Started, now, now.started);
        }
        match (was, now.state) {
            (Some(State::Running), State::Paused) => self.say(What::Paused, now, None),
            (Some(State::Paused), State::Running) if !is_another => self.say(What::Resumed, now, None),
            (was, State::Stopped) if was.is_some_and(is_up) || is_another => {
                if now.exit.is_some_and(|exit| exit.kind == ExitKind::Oom) {
                    self.say(What::Oom, now, now.finished);
                }
                self.say(What::Died, now, now.finished);
            }
            _ => {}
        }
    }

    fn say(&mut self, what: What, of: &Summary, time: Option<SystemTime>) {
        self.ready.push_back(ContainerEvent {
            time: time.unwrap_or_else(SystemTime::now),
            what,
            id: of.id.clone(),
            name: of.name.clone(),
            exit: of.exit.filter(|_| what == What::Died),
        });
    }
}

impl Iterator for ContainerEvents {
    type Item = Result<ContainerEvent>;

    fn next(&mut self) -> Option<Result<ContainerEvent>> {
        match self.next_interruptible(&mut || false) {
            Err(Error::Interrupted) => None,
            result => Some(result),
        }
    }
}
