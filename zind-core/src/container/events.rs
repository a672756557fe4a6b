//! [`ContainerEvents`]: what happens to the containers of one place.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use zind_init::monitor::event;

use super::journal::Entry;
use super::place::{Containers, Filter};
use super::state;
use crate::error::{At, Error, Result, Step};
use crate::process::Exit;
use crate::process::launch::wait_readable;
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
    /// It has another name.
    Renamed,
}

impl What {
    /// `"created"`, `"started"`, `"oom"`, `"paused"`, `"resumed"`, `"died"`, `"deleted"`, `"renamed"`.
    pub const fn name(self) -> &'static str {
        match self {
            What::Created => "created",
            What::Started => "started",
            What::Oom => "oom",
            What::Paused => "paused",
            What::Resumed => "resumed",
            What::Died => "died",
            What::Deleted => "deleted",
            What::Renamed => "renamed",
        }
    }

    fn of_number(number: u32) -> Option<What> {
        Some(match number {
            event::CREATED => What::Created,
            event::STARTED => What::Started,
            event::OOM => What::Oom,
            event::PAUSED => What::Paused,
            event::RESUMED => What::Resumed,
            event::DIED => What::Died,
            event::DELETED => What::Deleted,
            event::RENAMED => What::Renamed,
            _ => return None,
        })
    }
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerEvent {
    /// Its number in this place, from 1 on without a gap: for [`Containers::events_from`].
    pub number: u64,
    /// When it was written down.
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

/// What happens to the containers of one place: [`Containers::events`]. All of it, each once, in the order in which it was
/// written down; who looks so seldom that more than four thousand are gone meanwhile finds a gap in the numbers.
#[derive(Debug)]
pub struct ContainerEvents {
    containers: Containers,
    watch: OwnedFd,
    /// The number of the next one.
    next: u64,
    names: BTreeMap<String, String>,
    /// Ends that nobody was there to tell of, and that were looked after: the container and the start.
    looked_after: BTreeSet<(String, u64)>,
    looked: Option<Instant>,
    ready: VecDeque<ContainerEvent>,
}

/// How often it is looked whether a monitor was killed, which nobody tells.
const OFTEN: Duration = Duration::from_secs(1);

impl ContainerEvents {
    pub(super) fn watch(containers: &Containers, since: Option<u64>) -> Result<ContainerEvents> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
        let watch = watch.at(Step::Watch, "inotify_init1", "")?;
        let dir = containers.journal_dir();
        let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, &dir, what).at(Step::Watch, "inotify_add_watch", &dir)?;
        let next = since.unwrap_or_else(|| containers.next_number());
        let mut events = ContainerEvents {
            containers: containers.clone(),
            watch,
            next,
            names: BTreeMap::new(),
            looked_after: BTreeSet::new(),
            looked: None,
            ready: VecDeque::new(),
        };
        let all = Filter { all: true, ..Filter::default() };
        let named = containers.summaries(&all)?.into_iter().filter_map(|one| Some((one.id, one.name?)));
        events.names = named.collect();
        // As they were called then: the monitor, which deletes some, knows no names.
        let before = since.map(|_| containers.journal_from(0)).unwrap_or_default();
        for entry in before.into_iter().filter(|entry| entry.number < next) {
            if let Some(name) = entry.name {
                events.names.insert(entry.id, name);
            }
        }
        events.look()?;
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
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(Some(event));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            wait_readable(self.watch.as_fd(), Some(left.map_or(OFTEN, |left| left.min(OFTEN))), interrupted)?;
        }
    }

    /// The next event, if there is one.
    pub fn try_next(&mut self) -> Result<Option<ContainerEvent>> {
        if self.ready.is_empty() {
            let mut bytes = [0u8; 4096];
            while rustix::io::read(&self.watch, &mut bytes).is_ok_and(|len| len > 0) {}
            self.look()?;
            for entry in self.containers.journal_from(self.next) {
                self.next = entry.number + 1;
                let event = self.event_of(entry);
                self.ready.extend(event);
            }
        }
        Ok(self.ready.pop_front())
    }

    /// Has the ends told of those whose monitors were killed.
    fn look(&mut self) -> Result<()> {
        if self.looked.is_some_and(|looked| looked.elapsed() < OFTEN) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        for (id, run) in self.containers.ended_without_a_word()? {
            if self.looked_after.insert((id.clone(), run)) {
                self.containers.tell_lost_end(&id, run);
            }
        }
        Ok(())
    }

    fn event_of(&mut self, entry: Entry) -> Option<ContainerEvent> {
        let exit = entry.exit();
        let what = What::of_number(entry.what)?;
        if let Some(name) = &entry.name {
            self.names.insert(entry.id.clone(), name.clone());
        }
        let name =
            if what == What::Deleted { self.names.remove(&entry.id) } else { self.names.get(&entry.id).cloned() };
        let (time, id) = (state::time_of(entry.time_ns), entry.id);
        Some(ContainerEvent { number: entry.number, time, what, id, name: entry.name.or(name), exit })
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
