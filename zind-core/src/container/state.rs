//! The files of one container: what was asked for, what became of it, and who may change it.
//!
//! Nothing here is guessed: `state.json` says what a start was to be, `running` and `exit` are the monitor's own words about
//! it, and the lock on `monitor` tells whether that one lives. A file is replaced as a whole or not at all.
#![forbid(unsafe_code)]

mod ids;
mod locks;
mod record;
mod told;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{CWD, Mode, OFlags};

use crate::error::{At, Error, Result, Step};
pub(super) use crate::store::Locked;
use crate::sys::descriptors::openat;
pub(super) use ids::{check_name, is_id, new_id, short};
pub(super) use locks::{lock_dir, lock_open};
pub(super) use record::{Record, Run, path_value};
pub(super) use told::{Ended, Running, Waiting};

pub(super) const CONFIG: &str = "config.json";
/// What its programs have in common, settled at the last start.
pub(super) const RUNTIME: &str = "runtime.json";
pub(super) const STATE: &str = "state.json";
pub(super) const LOCK: &str = "lock";
pub(super) const MONITOR: &str = "monitor";
pub(super) const RUNNING: &str = "running";
pub(super) const EXIT: &str = "exit";
/// Where the monitor prepares the file of that name: `exit.new`.
pub(super) const EXIT_ROOM: &str = "exit.room";
pub(super) const LOG: &str = "log";
pub(super) const SOCKET: &str = "socket";

/// What is larger is none of ours.
const LARGEST: u64 = 16 << 20;

/// What a container is doing, as its files tell it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    /// Never started, or it came to nothing.
    Created,
    /// Somebody is starting it.
    Starting,
    Running(Running),
    /// `None`: the monitor was killed, and the container with it, or the machine was restarted.
    Ended(Option<Box<Ended>>),
}

/// The directory of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dir(pub(super) PathBuf);

impl Dir {
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The last part of its path, which is the id.
    pub(super) fn id(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    fn gone(&self) -> Error {
        Error::NotFound { what: "container", name: self.id().to_owned() }
    }

    /// The directory itself.
    pub(super) fn open(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match open_at(&self.0, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => Err(self.gone()),
            result => result.at(Step::Container, "open", &self.0),
        }
    }

    /// Replaces a file as a whole.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (path, aside) = (self.at(name), self.at(&format!("{name}.new")));
        let written = (|| {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&aside)?;
            file.write_all(bytes)?;
            fs::rename(&aside, &path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&aside);
        }
        written.at(Step::ContainerState, "write", &path)
    }

    /// A file; `None` if there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.at(name);
        let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
        let file: File = match file {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            result => result.at(Step::ContainerState, "open", &path)?,
        };
        // Room for all of it mostly: without any it would be read in pieces of 32 bytes, 64, 128...
        let mut bytes = Vec::with_capacity(4 << 10);
        file.take(LARGEST + 1).read_to_end(&mut bytes).at(Step::ContainerState, "read", &path)?;
        if bytes.len() as u64 > LARGEST {
            return Err(Error::State(format!("{} is larger than anything zind writes", path.display())));
        }
        Ok(Some(bytes))
    }

    /// What is kept of it.
    pub(super) fn record(&self) -> Result<Record> {
        let bytes = self.read(STATE)?.ok_or_else(|| self.gone())?;
        let record = Record::parse(&bytes)
            .map_err(|rule| Error::State(format!("the state of container {} {rule}", short(self.id()))))?;
        if record.id != self.id() {
            return Err(Error::State(format!("the state of container {} is that of another one", short(self.id()))));
        }
        Ok(record)
    }

    pub(super) fn write_record(&self, record: &Record) -> Result<()> {
        self.write(STATE, &record.encode())
    }

    /// What it is doing.
    pub(super) fn phase(&self, record: &Record) -> Result<Phase> {
        // Asked first: what a monitor writes it writes before it goes.
        let lives = self.has_monitor()?;
        let number = record.run.as_ref().map_or(0, |run| run.number);
        let ended = self.ended()?;
        if let Some(ended) = ended.clone().filter(|ended| number != 0 && ended.head.run == number) {
            return Ok(Phase::Ended(Some(ended)));
        }
        let running = self.running()?.filter(|(run, _)| number != 0 && *run == number).map(|(_, running)| running);
        Ok(match (lives, running, ended) {
            (true, Some(running), _) => Phase::Running(running),
            (true, None, _) => Phase::Starting,
            (false, Some(_), _) => Phase::Ended(None),
            // A start that came to nothing.
            (false, None, Some(before)) => Phase::Ended(Some(before)),
            (false, None, None) => Phase::Created,
        })
    }

    /// What was said of the last end.
    fn ended(&self) -> Result<Option<Box<Ended>>> {
        // Cut off by a crash of the machine it is none.
        Ok(self.read(EXIT)?.and_then(|bytes| Ended::parse(&bytes)).map(Box::new))
    }

    /// What was said of the last first process, and of which start that was.
    pub(super) fn running(&self) -> Result<Option<(u64, Running)>> {
        Ok(self.read(RUNNING)?.and_then(|bytes| Running::parse(&bytes)))
    }
}

/// `openat(2)`, whoever sends signals meanwhile.
pub(super) fn open_at(path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    openat(CWD, path.as_ref(), flags, mode)
}

/// Nanoseconds since 1970.
pub(super) fn now_ns() -> u64 {
    ns_of(SystemTime::now())
}

fn ns_of(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).ok().and_then(|time| u64::try_from(time.as_nanos()).ok()).unwrap_or(0)
}

pub(super) fn time_of(ns: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)
}

/// What this run of the kernel is called.
pub(super) fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    fs::read_to_string(path).map(|text| text.trim().to_owned()).at(Step::ContainerState, "read", path)
}

/// Waits for something that takes no time mostly.
pub(super) fn wait_until(
    patience: Duration,
    interrupted: &mut dyn FnMut() -> bool,
    mut is_done: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_micros(100);
    loop {
        if is_done()? {
            return Ok(true);
        }
        if interrupted() {
            return Err(Error::Interrupted);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}
