//! [`Container`]: a container that lives on its own, under a name, and can be met again by any process of the user.
//!
//! See docs/containers.md for its states and its files, and docs/architecture.md for who does what.
#![forbid(unsafe_code)]

mod attach;
mod attended;
mod builder;
mod changes;
mod ending;
mod events;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod health;
mod hooks;
mod journal;
mod life;
mod logs;
mod monitor;
mod place;
mod running;
mod spec_file;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::{Value, json};

pub use crate::spec::{Hook, Hooks};
pub use crate::terminal::Size;
pub use attach::{AttachOptions, Attachment, Chunk};
pub use attended::Attended;
pub use builder::ContainerBuilder;
pub use ending::Ending;
pub use events::{ContainerEvent, ContainerEvents, What};
pub use health::Ready;
pub use hooks::{HookPoint, HookState};
pub use logs::{LogLine, LogLines, LogQuery, LogRecord, Logs, Stream};
pub use place::{Containers, Filter, Pruned, Summary};
use state::{Dir, Phase, Record};

use crate::error::{Error, Result};
use crate::process::again::Launchers;
use crate::process::{Exit, ExitKind};
use crate::spec::Spec;

/// What a container is doing: OCI's words, and "paused".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It is being made, or started.
    Creating,
    /// It is there, and nothing of it runs.
    Created,
    /// Its program runs, or has ended and is started again by its monitor: [`Container::restarting`].
    Running,
    /// Everything in it is stopped until it is resumed.
    Paused,
    /// Its program has ended.
    Stopped,
}

impl State {
    /// `"creating"`, `"created"`, `"running"`, `"paused"`, `"stopped"`.
    pub const fn name(self) -> &'static str {
        match self {
            State::Creating => "creating",
            State::Created => "created",
            State::Running => "running",
            State::Paused => "paused",
            State::Stopped => "stopped",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When a container is started again after it has ended. Its monitor does so, whoever is gone; it waits 100 ms the first
/// time, twice as long each further time, a minute at most, and begins anew after ten seconds of running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it exits with anything but 0, or is killed by anybody but zind.
    OnFailure {
        /// That often at most; `None`: any number of times.
        most: Option<u32>,
    },
    /// Whenever it ends, unless [`Container::stop`] or [`Container::kill`] ended it.
    Always,
    /// The same: nothing is started again at a boot, since there is no daemon that would.
    UnlessStopped,
}

impl Restart {
    /// `"no"`, `"on-failure"`, `"on-failure:3"`, `"always"`, `"unless-stopped"`.
    pub fn parse(text: &str) -> Result<Restart> {
        let wrong = || {
            Error::spec("restart", format!("{text:?} is none of no, on-failure, on-failure:N, always, unless-stopped"))
        };
        match text.split_once(':') {
            None => match text {
                "no" => Ok(Restart::No),
                "on-failure" => Ok(Restart::OnFailure { most: None }),
                "always" => Ok(Restart::Always),
                "unless-stopped" => Ok(Restart::UnlessStopped),
                _ => Err(wrong()),
            },
            Some(("on-failure", most)) => {
                let most = most.parse().map_err(|_| wrong())?;
                Ok(Restart::OnFailure { most: Some(most).filter(|most| *most > 0) })
            }
            Some(_) => Err(wrong()),
        }
    }

    fn to_json(self) -> Value {
        json!(self.to_string())
    }

    fn of_json(value: &Value) -> Option<Restart> {
        Restart::parse(value.as_str()?).ok()
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Restart::No => f.write_str("no"),
            Restart::OnFailure { most: None } => f.write_str("on-failure"),
            Restart::OnFailure { most: Some(most) } => write!(f, "on-failure:{most}"),
            Restart::Always => f.write_str("always"),
            Restart::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

/// A container has ended, and its monitor starts it again: [`Container::restarting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restarting {
    /// When that is; in the past: it is doing so.
    pub at: SystemTime,
    /// When it ended.
    pub finished: SystemTime,
    /// How it ended.
    pub exit: Exit,
}

/// How much of a container's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes of one file; when it is full another one is begun.
    pub size: u64,
    /// How many files there are at most; the oldest goes. 0: nothing is kept.
    pub files: u32,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { size: 16 << 20, files: 2 }
    }
}

/// A container in its place on disk. A value is a way to it, cheap to clone; dropping it changes nothing.
///
/// Every method looks at what is there now: another process may have started, renamed or deleted it meanwhile. One that is
/// deleted is [`Error::NotFound`] to all of them. All may be called from any thread.
#[derive(Clone)]
pub struct Container(Arc<Inner>);

struct Inner {
    places: Containers,
    dir: Dir,
    /// What it was made from, for who made it; others read it from its directory.
    spec: Mutex<Option<Spec>>,
    /// Of programs that were run in it.
    launchers: Arc<Launchers>,
    /// Functions of this process.
    functions: Mutex<Vec<(HookPoint, hooks::Function)>>,
    /// What hooks complained of.
    warnings: Mutex<Vec<String>>,
    /// By which it tells of its end, if it was started here and is deleted then; and what it had on it.
    held: Mutex<Option<monitor::Connection>>,
    /// How it ended, once it was heard there.
    told: Mutex<Option<Exit>>,
    labels: Mutex<BTreeMap<String, String>>,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container").field("id", &state::short(self.id())).finish_non_exhaustive()
    }
}

impl Container {
    fn new(places: Containers, dir: Dir, spec: Option<Spec>) -> Container {
        Container(Arc::new(Inner {
            places,
            dir,
            spec: Mutex::new(spec),
            launchers: Arc::default(),
            functions: Mutex::new(Vec::new()),
            warnings: Mutex::new(Vec::new()),
            held: Mutex::new(None),
            told: Mutex::new(None),
            labels: Mutex::new(BTreeMap::new()),
        }))
    }

    /// A container to be made: what runs in it is `spec`'s.
    pub fn builder(spec: impl Into<Spec>) -> ContainerBuilder {
        ContainerBuilder::new(spec.into())
    }

    /// [`Containers::find`] where this user's containers are.
    pub fn open(name: &str) -> Result<Container> {
        Containers::open(None)?.find(name)
    }

    fn dir(&self) -> &Dir {
        &self.0.dir
    }

    fn record(&self) -> Result<Record> {
        self.dir().record()
    }

    fn phase(&self) -> Result<(Record, Phase)> {
        let record = self.record()?;
        let phase = self.dir().phase(&record)?;
        Ok((record, phase))
    }

    /// Its id: 64 hexadecimal digits.
    pub fn id(&self) -> &str {
        self.dir().id()
    }

    /// The first 12 digits of its id, as they are shown.
    pub fn short_id(&self) -> &str {
        state::short(self.id())
    }

    /// Its name, if it has one.
    ///
    /// Errors: [`Error::NotFound`]; [`Error::State`] for a state that a later zind has written, or nobody.
    pub fn name(&self) -> Result<Option<String>> {
        Ok(self.record()?.name)
    }

    /// Its labels.
    pub fn labels(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.record()?.labels)
    }

    /// Where it is kept.
    pub fn place(&self) -> &Path {
        &self.dir().0
    }

    /// The containers that it is one of.
    pub fn containers(&self) -> &Containers {
        &self.0.places
    }

    /// What it is doing.
    pub fn state(&self) -> Result<State> {
        let (record, phase) = self.phase()?;
        Ok(self.state_of(&record, &phase))
    }

    fn state_of(&self, record: &Record, phase: &Phase) -> State {
        match phase {
            Phase::Created => State::Created,
            Phase::Starting => State::Creating,
            Phase::Running(_) if running::is_paused(record) => State::Paused,
            Phase::Running(_) => State::Running,
            Phase::Ended(_) => State::Stopped,
        }
    }

    /// Its first process in the caller's pid namespace, while it runs; `None` between two runs, and once it is gone.
    pub fn pid(&self) -> Result<Option<i32>> {
        Ok(match self.phase()?.1 {
            Phase::Running(running) => running.pid(self.dir()),
            _ => None,
        })
    }

    /// How it ended, if it has. A container whose monitor was killed, or that did not survive a restart of the machine, was
    /// ended by SIGKILL.
    pub fn exit(&self) -> Result<Option<Exit>> {
        let (record, phase) = self.phase()?;
        Ok(life::exit_of(&record, &phase))
    }

    /// How often its monitor has started it again.
    pub fn restarts(&self) -> Result<u32> {
        Ok(match self.phase()?.1 {
            Phase::Running(running) => running.restarts,
            Phase::Ended(Some(ended)) => ended.head.restarts,
            _ => 0,
        })
    }

    /// When it was made.
    pub fn created(&self) -> Result<SystemTime> {
        Ok(state::time_of(self.record()?.created_ns))
    }

    /// When it was started last.
    pub fn started(&self) -> Result<Option<SystemTime>> {
        Ok(match self.phase()?.1 {
            Phase::Running(running) => Some(state::time_of(running.started_ns)),
            Phase::Ended(Some(ended)) => Some(state::time_of(ended.head.began_ns)),
            Phase::Ended(None) => self.dir().running()?.map(|(_, running)| state::time_of(running.started_ns)),
            _ => None,
        })
    }

    /// When it ended, if that is known.
    pub fn finished(&self) -> Result<Option<SystemTime>> {
        Ok(match self.phase()?.1 {
            Phase::Ended(Some(ended)) => Some(state::time_of(ended.head.ended_ns)),
            _ => None,
        })
    }

    /// The name of its image, as it was given.
    pub fn image(&self) -> Result<Option<String>> {
        Ok(self.record()?.image)
    }

    /// Whether it has a terminal.
    pub fn has_terminal(&self) -> Result<bool> {
        Ok(self.record()?.terminal.is_some())
    }

    /// Whether it is deleted when it has ended.
    pub fn is_auto_removed(&self) -> Result<bool> {
        Ok(self.record()?.auto_remove)
    }

    /// The signal that asks it to end.
    pub fn stop_signal(&self) -> Result<i32> {
        Ok(self.record()?.stop_signal)
    }

    /// What it is made from.
    pub fn spec(&self) -> Result<Spec> {
        let written = spec_file::read(self.dir());
        match (&*self.0.spec.lock().unwrap_or_else(PoisonError::into_inner), written) {
            // Limits may have been changed by others.
            (Some(spec), Ok(written)) => Ok(Spec { resources: written.resources, ..spec.clone() }),
            (Some(spec), Err(_)) => Ok(spec.clone()),
            (None, written) => written,
        }
    }

    /// What is in force since its last start, as [`crate::Isolation::to_json`] has it; `None` before the first one.
    pub fn isolation(&self) -> Result<Option<Value>> {
        Ok(self.record()?.run.map(|run| run.isolation))
    }

    /// All that is known of it, as a JSON document; `config` is its OCI config.json.
    pub fn inspect(&self) -> Result<Value> {
        let (record, phase) = self.phase()?;
        let seconds = |ns: u64| ns as f64 / 1e9;
        let exit = life::exit_of(&record, &phase);
        let of_exit = |exit: Exit| json!({"kind": exit.kind.name(), "code": exit.code, "signal": exit.signal});
        let of_time = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let restarting = life::restarting_of(&record, &phase).map(|restarting| {
            json!({
                "at": of_time(restarting.at),
                "finished": of_time(restarting.finished),
                "exit": of_exit(restarting.exit),
            })
        });
        let config = self.dir().read(state::CONFIG)?.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let (pid, started, ended, restarts, lost) = match &phase {
            Phase::Running(running) => {
                let lost = running.waiting.as_ref().map(|waiting| &waiting.ended.head);
                let lost = lost.map_or((0, 0), |head| (head.lost_records, head.lost_bytes));
                (running.pid(self.dir()), Some(running.started_ns), None, running.restarts, lost)
            }
            Phase::Ended(Some(ended)) => {
                let head = &ended.head;
                let lost = (head.lost_records, head.lost_bytes);
                (None, Some(head.began_ns), Some(head.ended_ns), head.restarts, lost)
            }
            Phase::Ended(None) => (None, self.dir().running()?.map(|(_, running)| running.started_ns), None, 0, (0, 0)),
            _ => (None, None, None, 0, (0, 0)),
        };
        Ok(json!({
            "id": record.id,
            "name": record.name,
            "labels": record.labels,
            "image": record.image,
            "state": self.state_of(&record, &phase).name(),
            "pid": pid,
            "created": seconds(record.created_ns),
            "started": started.map(seconds),
            "finished": ended.map(seconds),
            "restarts": restarts,
            "restart": record.restart.to_string(),
            "restarting": restarting,
            "exit": exit.map(of_exit),
            "fault": life::fault_of(&record, &phase),
            "detached": record.detached,
            "auto_remove": record.auto_remove,
            "attended": record.attended,
            "terminal": record.terminal.map(|size| json!({"rows": size.rows, "cols": size.cols})),
            "stdin_open": record.stdin_open,
            "stop_signal": record.stop_signal,
            "log": {
                "size": record.log.size,
                "files": record.log.files,
                "lost_records": lost.0,
                "lost_bytes": lost.1,
                "rotated_bytes": logs::rotated(self.dir(), record.log.files),
            },
            "place": state::path_value(&self.dir().0),
            "cgroup": record.run.iter().flat_map(|run| &run.group).flat_map(|group| &group.parts)
                .map(|part| state::path_value(&part.path)).collect::<Vec<_>>(),
            "isolation": record.run.as_ref().map(|run| &run.isolation),
            "config": config,
        }))
    }
}

/// An exit by SIGKILL of which nobody has told.
const KILLED: Exit = Exit { kind: ExitKind::Signaled, code: None, signal: Some(libc::SIGKILL) };
