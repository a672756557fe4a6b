//! The files of one container: what was asked for, what became of it, and who may change it.
//!
//! Nothing here is guessed: `state.json` says what a start was to be, `running` and `exit` are the monitor's own words about
//! it, and the lock on `monitor` tells whether that one lives. A file is replaced as a whole or not at all.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock};
use serde_json::{Map, Value, json};
use zind_init::monitor::{ExitHead, RunningHead};

use super::{LogOptions, Restart};
use crate::cgroup::{Stored, StoredPart};
use crate::error::{At, Error, Result, Step};
use crate::namespace::idmap::IdMap;
pub(super) use crate::store::Locked;
use crate::sys::descriptors::openat;
use crate::terminal::Size;

/// The format; a file with a higher number comes from a later zind.
const VERSION: u64 = 1;

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

/// What is kept of a container.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    /// Nanoseconds since 1970.
    pub(super) created_ns: u64,
    pub(super) restart: Restart,
    pub(super) log: LogOptions,
    pub(super) terminal: Option<Size>,
    pub(super) stdin_open: bool,
    pub(super) auto_remove: bool,
    /// Its streams are those of the program that started it and stays with it.
    pub(super) attended: bool,
    /// It goes on when who starts it ends.
    pub(super) detached: bool,
    pub(super) stop_signal: i32,
    /// The name of the image, as it was given.
    pub(super) image: Option<String>,
    /// Program and arguments, to be shown.
    pub(super) command: Vec<String>,
    /// The last start, whatever became of it.
    pub(super) run: Option<Run>,
}

/// One start.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    /// Counted from 1.
    pub(super) number: u64,
    pub(super) boot_id: String,
    pub(super) began_ns: u64,
    /// The control group.
    pub(super) group: Option<Stored>,
    /// Its first process is a PID 1 of zind's.
    pub(super) is_init: bool,
    /// It has a user namespace that is not that of who started it.
    pub(super) has_users: bool,
    pub(super) uid_map: Vec<IdMap>,
    pub(super) gid_map: Vec<IdMap>,
    pub(super) user: Option<(u32, u32)>,
    /// The directory that has its changes in `upper`.
    pub(super) overlay: Option<PathBuf>,
    /// What is in force, as [`crate::Isolation::to_json`] has it.
    pub(super) isolation: Value,
}

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

/// What the monitor says of the first process.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Running {
    pub(super) pid: i32,
    /// Ticks since the boot: proc_pid_stat(5).
    pub(super) start_time: u64,
    pub(super) started_ns: u64,
    /// How often it was started again.
    pub(super) restarts: u32,
    /// How many the kernel had killed in its group before this run.
    pub(super) ooms: u32,
}

/// What the monitor says of the end.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    pub(super) head: ExitHead,
    /// Files of the control group as they were then: version 2, name, text.
    pub(super) texts: Vec<(bool, String, String)>,
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

    /// The right to change the state. Whoever has it decides alone, but for the monitor, which only tells.
    pub(super) fn lock(&self, interrupted: &mut dyn FnMut() -> bool) -> Result<Locked> {
        let path = self.at(LOCK);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match open_at(&path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Err(self.gone()),
            result => result.at(Step::Container, "open", &path)?,
        };
        let locked = lock_open(file, &path, interrupted)?;
        // Whoever had it may have deleted the container.
        let own = rustix::fs::fstat(&locked).at(Step::Container, "fstat", &path)?;
        match rustix::fs::stat(&path) {
            Ok(found) if found.st_ino == own.st_ino => Ok(locked),
            Ok(_) | Err(rustix::io::Errno::NOENT) => Err(self.gone()),
            Err(errno) => Err(errno).at(Step::Container, "stat", &path),
        }
    }

    /// Makes the files that are locked, and takes the first lock: nobody ever sees it free, and takes it for that of somebody who
    /// has died.
    pub(super) fn make_locks(&self) -> Result<Locked> {
        let make = |path: &Path| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            open_at(path, flags, Mode::from_raw_mode(0o600)).at(Step::Container, "open", path)
        };
        make(&self.at(MONITOR))?;
        let (aside, path) = (self.at(&format!("{LOCK}.new")), self.at(LOCK));
        let lock = make(&aside)?;
        rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::NonBlockingLockExclusive)).at(
            Step::Container,
            "flock",
            &aside,
        )?;
        fs::rename(&aside, &path).at(Step::Container, "rename", &path)?;
        Ok(Locked::new(lock))
    }

    /// Takes the lock that the monitor holds for its whole life; `None` if one has it.
    pub(super) fn take_monitor_lock(&self) -> Result<Option<OwnedFd>> {
        let path = self.at(MONITOR);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = open_at(&path, flags, Mode::empty()).at(Step::Container, "open", &path)?;
        let lock = whole_file(libc::F_WRLCK);
        match nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => Ok(Some(file)),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(errno) => Err(errno).at(Step::Container, "fcntl", &path),
        }
    }

    /// True if there is a monitor.
    pub(super) fn has_monitor(&self) -> Result<bool> {
        let path = self.at(MONITOR);
        // A FIFO in its place must not be waited at.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match open_at(&path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Err(self.gone()),
            result => result.at(Step::Container, "open", &path)?,
        };
        // Asking takes nothing: nobody who wants the lock meets us.
        let mut lock = whole_file(libc::F_RDLCK);
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_OFD_GETLK(&mut lock)).at(Step::Container, "fcntl", &path)?;
        Ok(i32::from(lock.l_type) != libc::F_UNLCK)
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

/// `flock(2)` of a directory.
pub(super) fn lock_dir(path: &Path, how: FlockOperation) -> Result<Locked> {
    let dir = open_at(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let dir = dir.at(Step::Container, "open", path)?;
    rustix::io::retry_on_intr(|| flock(&dir, how)).at(Step::Container, "flock", path)?;
    Ok(Locked::new(dir))
}

/// Locks what is open for nobody else, as soon as nobody else has it; `interrupted` is asked meanwhile.
pub(super) fn lock_open(file: OwnedFd, path: &Path, interrupted: &mut dyn FnMut() -> bool) -> Result<Locked> {
    let mut pause = Duration::from_micros(200);
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Locked::new(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                if interrupted() {
                    return Err(Error::Interrupted);
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).at(Step::Container, "flock", path),
        }
    }
}

/// A lock of a whole file for its open file description: F_OFD_SETLK of fcntl_locking(2).
fn whole_file(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

/// As ids are shown.
pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// A new id.
pub(super) fn new_id() -> Result<String> {
    let mut bytes = [0u8; 32];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut *rest, flags)).at(
            Step::Container,
            "getrandom",
            "",
        )?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Errors: [`Error::Spec`] for a name that is none.
pub(super) fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let is_first = |byte: u8| byte.is_ascii_alphanumeric();
    let is_good = bytes.next().is_some_and(is_first)
        && name.len() <= 128
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if !is_good {
        return Err(Error::spec(
            "name",
            format!("{name:?} is none: a letter or digit, then up to 127 of letters, digits, \"_\", \".\" and \"-\""),
        ));
    }
    if is_id(name) {
        return Err(Error::spec("name", "has the form of an id"));
    }
    Ok(())
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

/// The start of a process in ticks, out of its `stat`.
pub(super) fn start_time(stat: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(stat);
    // The name may have spaces and brackets in it.
    text.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
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
    pub(super) fn parse(bytes: &[u8]) -> Option<(u64, Running)> {
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
    pub(super) fn pidfd(&self) -> Option<OwnedFd> {
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
    pub(super) fn parse(bytes: &[u8]) -> Option<Ended> {
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

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let document = json!({
            "zind-container": VERSION,
            "id": self.id,
            "name": self.name,
            "labels": self.labels,
            "created_ns": self.created_ns,
            "restart": self.restart.to_json(),
            "log": {"size": self.log.size, "files": self.log.files},
            "terminal": self.terminal.map(|size| json!([size.rows, size.cols])),
            "stdin_open": self.stdin_open,
            "auto_remove": self.auto_remove,
            "attended": self.attended,
            "detached": self.detached,
            "stop_signal": self.stop_signal,
            "image": self.image,
            "command": self.command,
            "run": self.run.as_ref().map(Run::to_json),
        });
        let mut bytes = document.to_string().into_bytes();
        bytes.push(b'\n');
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Record, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("is damaged: {error}"))?;
        let fields = value.as_object().ok_or("is damaged")?;
        match fields.get("zind-container").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => {
                return Err(format!(
                    "has format {other}; this version of zind knows {VERSION}: use the one that made it"
                ));
            }
            None => return Err("is damaged: it has no format".to_owned()),
        }
        read(fields).ok_or_else(|| "is damaged: a field is missing or of the wrong kind".to_owned())
    }
}

fn maps_value(maps: &[IdMap]) -> Value {
    maps.iter().map(|map| json!([map.container, map.host, map.size])).collect()
}

impl Run {
    fn to_json(&self) -> Value {
        let group = |group: &Stored| {
            let part = |part: &StoredPart| json!({"path": path_value(&part.path), "v2": part.is_v2, "controllers": part.controllers});
            json!({
                "parts": group.parts.iter().map(part).collect::<Vec<_>>(),
                "made": group.made.iter().map(|path| path_value(path)).collect::<Vec<_>>(),
                "helpers": group.helpers,
            })
        };
        json!({
            "number": self.number,
            "boot_id": self.boot_id,
            "began_ns": self.began_ns,
            "group": self.group.as_ref().map(group),
            "init": self.is_init,
            "has_users": self.has_users,
            "uid_map": maps_value(&self.uid_map),
            "gid_map": maps_value(&self.gid_map),
            "user": self.user.map(|(uid, gid)| json!([uid, gid])),
            "overlay": self.overlay.as_deref().map(path_value),
            "isolation": self.isolation,
        })
    }
}

/// Text where it is text, else its bytes.
pub(super) fn path_value(path: &Path) -> Value {
    use std::os::unix::ffi::OsStrExt;
    path.to_str().map_or_else(|| json!(path.as_os_str().as_bytes()), |text| json!(text))
}

pub(super) fn path_of(value: &Value) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let Some(bytes) = value.as_array() else { return value.as_str().map(PathBuf::from) };
    let byte = |value: &Value| value.as_u64().and_then(|number| u8::try_from(number).ok());
    let bytes: Option<Vec<u8>> = bytes.iter().map(byte).collect();
    Some(std::ffi::OsString::from_vec(bytes?).into())
}

/// `null` or missing is `None`; anything else has to be read.
fn optional<T>(fields: &Map<String, Value>, name: &str, read: impl Fn(&Value) -> Option<T>) -> Option<Option<T>> {
    match fields.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(value) => read(value).map(Some),
    }
}

fn numbers<const N: usize>(value: &Value) -> Option<[u32; N]> {
    let list: Option<Vec<u32>> =
        value.as_array()?.iter().map(|value| value.as_u64().and_then(|number| u32::try_from(number).ok())).collect();
    <[u32; N]>::try_from(list?).ok()
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

fn read(fields: &Map<String, Value>) -> Option<Record> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let flag = |name: &str| fields.get(name)?.as_bool();
    let labels = fields.get("labels")?.as_object()?;
    let label = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    let log = fields.get("log")?.as_object()?;
    let size = |value: &Value| {
        let [rows, cols] = numbers::<2>(value)?;
        Some(Size { rows: u16::try_from(rows).ok()?, cols: u16::try_from(cols).ok()? })
    };
    Some(Record {
        id: text(fields.get("id")?).filter(|id| is_id(id))?,
        name: optional(fields, "name", |value| text(value).filter(|name| check_name(name).is_ok()))?,
        labels: labels.iter().map(label).collect::<Option<_>>()?,
        created_ns: fields.get("created_ns")?.as_u64()?,
        restart: Restart::of_json(fields.get("restart")?)?,
        log: LogOptions { size: log.get("size")?.as_u64()?, files: u32::try_from(log.get("files")?.as_u64()?).ok()? },
        terminal: optional(fields, "terminal", size)?,
        stdin_open: flag("stdin_open")?,
        auto_remove: flag("auto_remove")?,
        attended: optional(fields, "attended", Value::as_bool)?.unwrap_or(false),
        detached: flag("detached")?,
        stop_signal: fields.get("stop_signal")?.as_i64().and_then(|signal| i32::try_from(signal).ok())?,
        image: optional(fields, "image", text)?,
        command: strings(fields.get("command")?)?,
        run: optional(fields, "run", |value| read_run(value.as_object()?))?,
    })
}

fn read_run(fields: &Map<String, Value>) -> Option<Run> {
    let map = |value: &Value| {
        let [container, host, size] = numbers::<3>(value)?;
        IdMap { container, host, size }.if_sound()
    };
    let maps = |name: &str| -> Option<Vec<IdMap>> { fields.get(name)?.as_array()?.iter().map(map).collect() };
    let part = |value: &Value| {
        Some(StoredPart {
            path: path_of(value.get("path")?).filter(|path| path.is_absolute())?,
            is_v2: value.get("v2")?.as_bool()?,
            controllers: strings(value.get("controllers")?)?,
        })
    };
    let group = |value: &Value| {
        Some(Stored {
            parts: value.get("parts")?.as_array()?.iter().map(part).collect::<Option<_>>()?,
            made: value.get("made")?.as_array()?.iter().map(path_of).collect::<Option<_>>()?,
            helpers: value.get("helpers")?.as_u64()?,
        })
    };
    Some(Run {
        number: fields.get("number")?.as_u64()?,
        boot_id: fields.get("boot_id")?.as_str()?.to_owned(),
        began_ns: fields.get("began_ns")?.as_u64()?,
        group: optional(fields, "group", group)?,
        is_init: fields.get("init")?.as_bool()?,
        has_users: fields.get("has_users")?.as_bool()?,
        uid_map: maps("uid_map")?,
        gid_map: maps("gid_map")?,
        user: optional(fields, "user", |value| numbers::<2>(value).map(|[uid, gid]| (uid, gid)))?,
        overlay: optional(fields, "overlay", path_of)?,
        isolation: fields.get("isolation")?.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Record {
        Record {
            id: "0123456789abcdef".repeat(4),
            name: Some("web-1.a_b".into()),
            labels: BTreeMap::from([("a".into(), "b \"c\"\u{e9}".into())]),
            created_ns: 1_700_000_000_123_456_789,
            restart: Restart::OnFailure { most: Some(3) },
            log: LogOptions { size: 1 << 20, files: 5 },
            terminal: Some(Size { rows: 24, cols: 80 }),
            stdin_open: true,
            auto_remove: false,
            attended: true,
            detached: true,
            stop_signal: 15,
            image: Some("debian:12".into()),
            command: vec!["sh".into()],
            run: Some(Run {
                number: 3,
                boot_id: "b".into(),
                began_ns: 5,
                group: Some(Stored {
                    parts: vec![StoredPart {
                        path: "/sys/fs/cgroup/zind-1".into(),
                        is_v2: true,
                        controllers: vec!["memory".into()],
                    }],
                    made: vec!["/sys/fs/cgroup/x".into()],
                    helpers: 1,
                }),
                is_init: true,
                has_users: true,
                uid_map: vec![IdMap { container: 0, host: 1000, size: 1 }],
                gid_map: vec![],
                user: Some((0, 0)),
                overlay: Some("/c".into()),
                isolation: json!({"seccomp": "default"}),
            }),
        }
    }

    #[test]
    fn a_record_survives_its_file() {
        let bare = Record { name: None, terminal: None, run: None, restart: Restart::No, ..example() };
        for record in [example(), bare, Record { restart: Restart::UnlessStopped, ..example() }] {
            assert_eq!(Record::parse(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn no_beginning_and_no_changed_byte_of_a_file_makes_it_panic() {
        let bytes = example().encode();
        for end in 0..bytes.len() - 1 {
            assert!(Record::parse(&bytes[..end]).is_err(), "{end}");
        }
        for at in 0..bytes.len() {
            for byte in [0, b'0', b'"', b'[', 0xff] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                let _ = Record::parse(&changed);
            }
        }
    }

    #[test]
    fn later_formats_and_garbage_are_refused_by_name() {
        for (text, words) in
            [("", "damaged"), ("[]", "damaged"), ("{}", "no format"), ("{\"zind-container\":2}", "format 2")]
        {
            assert!(Record::parse(text.as_bytes()).unwrap_err().contains(words), "{text}");
        }
    }

    #[test]
    fn names_are_names_and_never_paths() {
        for good in ["a", "Web_1.2-x", &"a".repeat(128)] {
            check_name(good).unwrap();
        }
        for bad in ["", ".", "..", "-a", "_a", "a/b", "a b", "a\0", "\u{e9}", &"a".repeat(129), &"ab".repeat(32)] {
            assert!(matches!(check_name(bad), Err(Error::Spec { field: "name", .. })), "{bad}");
        }
        let (one, two) = (new_id().unwrap(), new_id().unwrap());
        assert!(is_id(&one) && one != two);
    }

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
