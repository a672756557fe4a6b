//! What a container's life survives: SIGKILL of whoever takes part in it before each of its system calls, a second one in the
//! recovery from the first, and system calls that fail. After each there is nothing left that the next program does not find
//! and remove.
//!
//! With `ZIND_TEST_ALL_POINTS=1` all points are tried that differ, with `ZIND_TEST_ALL_POINTS=each` every single one, else a sample
//! of them: the same one each time. `ZIND_TEST_PIECE` and `ZIND_TEST_WHO` ask for those of one piece, or one process.
#![cfg(target_arch = "x86_64")]
#![allow(missing_docs)]

#[path = "support/tracer.rs"]
mod tracer;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Host, Stdio as HostStdio};
use std::time::{Duration, Instant};

use tracer::{Call, FIRST, Fault, Outcome, Point};
use zind_core::container::{Filter, Size, State};
use zind_core::{Container, Containers, Error, Exec, ExitKind, Resources, Restart, Spec, Stdio};

const NAME: &str = "it";
const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// A piece of a container's life.
#[derive(Clone, Copy)]
struct Piece {
    name: &'static str,
    /// What there has to be before.
    prepare: fn(&Containers),
    work: fn(&Containers) -> Result<(), Error>,
    /// States in which the container may be afterwards, whatever happened; `None` among them: it is not there.
    after: &'static [Option<State>],
    /// That in which it is when the work says that it is done.
    done: Option<State>,
}

const PIECES: [Piece; 10] = [
    Piece {
        name: "create",
        prepare: |_| (),
        work: create,
        after: &[None, Some(State::Created)],
        done: Some(State::Created),
    },
    Piece {
        name: "start",
        prepare: |place| make(place, sleeper(), Restart::No),
        work: |place| place.find(NAME)?.start(),
        after: &[Some(State::Created), Some(State::Stopped)],
        // Its owner ends with the work.
        done: Some(State::Stopped),
    },
    Piece {
        name: "start detached",
        prepare: |place| make(place, detached(), Restart::Always),
        work: |place| place.find(NAME)?.start(),
        after: &[Some(State::Created), Some(State::Running), Some(State::Stopped)],
        done: Some(State::Running),
    },
    Piece {
        name: "start with a terminal",
        prepare: |place| {
            let mut spec = detached();
            spec.terminal = Some(Size { rows: 9, cols: 40 });
            make(place, spec, Restart::No);
        },
        work: |place| place.find(NAME)?.start_attached(&mut || false).map(drop),
        after: &[Some(State::Created), Some(State::Running), Some(State::Stopped)],
        done: Some(State::Running),
    },
    Piece {
        name: "run",
        prepare: |place| make(place, Spec::new(["true"]), Restart::No),
        work: |place| {
            let container = place.find(NAME)?;
            container.start()?;
            let exit = container.wait(Some(SECONDS(30)))?.ok_or(Error::Timeout(SECONDS(30)))?;
            // Whoever was killed, the exit is its own or SIGKILL's.
            let is_own = (exit.kind, exit.code) == (ExitKind::Exited, Some(0));
            assert!(is_own || (exit.kind, exit.signal) == (ExitKind::Signaled, Some(9)), "{exit:?}");
            Ok(())
        },
        after: &[Some(State::Created), Some(State::Stopped)],
        done: Some(State::Stopped),
    },
    Piece {
        name: "exec",
        prepare: running,
        work: |place| {
            let mut exec = Exec::new(["true"]);
            (exec.stdin, exec.stdout, exec.stderr) = (Stdio::Null, Stdio::Null, Stdio::Null);
            let process = place.find(NAME)?.exec(&exec)?;
            process.wait(Some(SECONDS(30)))?.map(drop).ok_or(Error::Timeout(SECONDS(30)))
        },
        after: &[Some(State::Running)],
        done: Some(State::Running),
    },
    Piece {
        name: "stop",
        prepare: running,
        work: |place| place.find(NAME)?.stop(SECONDS(30)).map(drop),
        after: &[Some(State::Running), Some(State::Stopped)],
        done: Some(State::Stopped),
    },
    Piece {
        name: "pause",
        prepare: running,
        work: |place| place.find(NAME)?.pause().and_then(|()| place.find(NAME)?.resume()),
        after: &[Some(State::Running), Some(State::Paused)],
        done: Some(State::Running),
    },
    Piece {
        name: "delete",
        prepare: |place| {
            running(place);
            place.find(NAME).and_then(|container| container.stop(SECONDS(30))).unwrap();
        },
        work: |place| place.find(NAME)?.delete(false),
        after: &[None, Some(State::Stopped)],
        done: None,
    },
    Piece {
        name: "delete by force",
        prepare: running,
        work: |place| place.find(NAME)?.delete(true),
        after: &[None, Some(State::Running), Some(State::Stopped)],
        done: None,
    },
];

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn sleeper() -> Spec {
    let mut spec = Spec::new(["sleep", "1000"]);
    // A group of its own, to be removed; an ordinary user has none here.
    spec.resources = is_root().then(|| Resources::new().pids(30));
    spec.die_with_owner = true;
    spec
}

fn detached() -> Spec {
    let mut spec = sleeper();
    spec.die_with_owner = false;
    spec
}

fn make(place: &Containers, spec: Spec, restart: Restart) {
    Container::builder(spec).containers(place).name(NAME).label("a", "b").restart(restart).create().unwrap();
}

fn create(place: &Containers) -> Result<(), Error> {
    Container::builder(sleeper()).containers(place).name(NAME).label("a", "b").create().map(drop)
}

fn running(place: &Containers) {
    make(place, sleeper(), Restart::No);
    place.find(NAME).and_then(|container| container.start()).unwrap();
}

/// What a program does that finds what others have left.
fn recover(place: &Containers) -> Result<(), Error> {
    for container in place.list(&Filter { all: true, ..Filter::default() })? {
        match container.delete(true) {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    place.prune().map(drop)
}

/// What a process of its own does for a test. A test that is none, without the variable.
#[test]
fn worker() {
    let Ok(role) = std::env::var("ZIND_TEST_WORKER") else { return };
    let dir = PathBuf::from(std::env::var_os("ZIND_TEST_DIR").unwrap());
    match role.strip_prefix("points of ") {
        Some(piece) => points_of(piece, &dir),
        None => work_of(&role, &dir),
    }
}

fn work_of(role: &str, dir: &Path) {
    let work = match PIECES.iter().find(|piece| piece.name == role) {
        Some(piece) => piece.work,
        None => recover,
    };
    tracer::pause();
    let result = Containers::open(Some(dir)).and_then(|place| work(&place));
    tracer::pause();
    match result {
        Ok(()) => println!("<done>"),
        Err(error) => println!("<refused> {}: {error}", error.step().map_or("", |step| step.words())),
    }
    // The process, and with it what is to end with it.
    std::process::exit(0);
}

fn worker_command(role: &str, dir: &Path) -> Host {
    let mut command = Host::new(std::env::current_exe().unwrap());
    command.args(["worker", "--exact", "--nocapture"]);
    command.env("ZIND_TEST_WORKER", role).env("ZIND_TEST_DIR", dir);
    command
}

/// Everything that could be left behind: processes, mounts, descriptors, control groups, files.
#[derive(Clone, Debug, PartialEq)]
struct Traces {
    processes: BTreeSet<String>,
    mounts: Vec<String>,
    descriptors: usize,
    groups: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
}

impl Traces {
    /// With the groups that these programs have made.
    fn now(dir: &Path, makers: &BTreeSet<i32>) -> Traces {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut files = BTreeSet::new();
        below(dir, &mut |path| _ = files.insert(path));
        // The older half of the journal, which comes when so much has happened and stays.
        files.remove(&dir.join("events/journal.1"));
        for entry in fs::read_dir(std::env::temp_dir()).unwrap().filter_map(|entry| entry.ok()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("zind-") && !name.starts_with("zind-test-") || name.starts_with(".zind") {
                files.insert(entry.path());
            }
        }
        Traces {
            processes: processes(),
            mounts: mounts.lines().map(str::to_owned).collect(),
            descriptors: descriptors(),
            groups: groups(makers),
            files,
        }
    }

    /// What is there that was not, or the reverse.
    fn difference(&self, other: &Traces) -> String {
        let mut all = Vec::new();
        if self.descriptors != other.descriptors {
            all.push(format!("{} descriptors, {} before", self.descriptors, other.descriptors));
        }
        // Somebody else may have unmounted something meanwhile.
        all.extend(self.mounts.iter().filter(|mount| !other.mounts.contains(mount)).cloned());
        all.extend(self.processes.symmetric_difference(&other.processes).cloned());
        for (ours, theirs) in [(&self.groups, &other.groups), (&self.files, &other.files)] {
            all.extend(ours.symmetric_difference(theirs).map(|path| path.display().to_string()));
        }
        all.join(", ")
    }
}

/// How many there are but for those that the thread which reaps has for a moment.
fn descriptors() -> usize {
    let look = |_| fs::read_dir("/proc/self/fd").unwrap().count();
    (0..8).map(look).min().unwrap_or(0)
}

fn below(dir: &Path, each: &mut dyn FnMut(PathBuf)) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(|entry| entry.ok()) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&entry.path(), each);
        }
        each(entry.path());
    }
}

/// Whoever is below this process, which adopts orphans. Those that have ended are reaped.
fn processes() -> BTreeSet<String> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((head, tail)) = stat.rsplit_once(") ") else { continue };
        let mut fields = tail.split(' ');
        let (state, parent) = (fields.next().unwrap(), fields.next().unwrap().parse::<i32>().unwrap());
        parents.push((pid, parent, format!("{head}) {state}")));
    }
    let own = std::process::id() as i32;
    let mut known = BTreeSet::from([own]);
    while let Some((pid, ..)) = parents.iter().find(|(pid, parent, _)| known.contains(parent) && !known.contains(pid)) {
        known.insert(*pid);
    }
    let mut found = BTreeSet::new();
    for (pid, parent, text) in parents.into_iter().filter(|(pid, ..)| *pid != own && known.contains(pid)) {
        if parent == own && text.ends_with(") Z") {
            tracer::reap(pid);
        }
        found.insert(text);
    }
    found
}

/// The groups that programs have made.
fn groups(makers: &BTreeSet<i32>) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut stack = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = stack.pop().filter(|_| !makers.is_empty()) {
        for entry in fs::read_dir(dir).into_iter().flatten().filter_map(|entry| entry.ok()) {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            let maker = name.strip_prefix("zind-").and_then(|rest| rest.split('-').nth(1)?.parse().ok());
            match maker {
                Some(maker) if makers.contains(&maker) => _ = found.insert(entry.path()),
                Some(_) => {}
                None => stack.push(entry.path()),
            }
        }
    }
    found
}

/// Where a piece is tried again and again.
struct Trial {
    piece: Piece,
    dir: PathBuf,
    before: Traces,
    failures: Vec<String>,
    /// Who has done something since somebody looked for groups.
    workers: BTreeSet<i32>,
}

impl Trial {
    fn new(piece: Piece, dir: &Path) -> Trial {
        tracer::adopt_orphans();
        tracer::reap_orphans();
        // What is kept for good is made before anybody looks.
        let containers = Containers::open(Some(dir)).unwrap();
        running(&containers);
        recover(&containers).unwrap();
        until(|| Ok(processes().is_empty())).unwrap();
        let mut before = Traces::now(dir, &BTreeSet::new());
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(1));
            before.descriptors = before.descriptors.min(descriptors());
        }
        Trial {
            piece,
            dir: dir.to_owned(),
            before,
            failures: Vec::new(),
            workers: BTreeSet::from([std::process::id() as i32]),
        }
    }

    /// The work once, with a fault. What is wrong afterwards is noted.
    fn once(&mut self, point: Option<&Point>, fault: Fault) -> Outcome {
        let containers = Containers::open(Some(&self.dir)).unwrap();
        if containers.find(NAME).is_err() {
            (self.piece.prepare)(&containers);
        }
        let outcome = tracer::run(&mut worker_command(self.piece.name, &self.dir), point, fault);
        self.workers.insert(outcome.pid);
        let result = self.judge(point.is_some_and(|point| point.who == FIRST), fault, &outcome);
        let result = result.and_then(|()| self.clean(point.is_some_and(|point| point.number % 16 == 0)));
        if let Err(text) = result {
            let who = point.map(|point| outcome.names.get(&point.who).cloned().unwrap_or_default());
            let call = point.and_then(|point| Some(outcome.calls.get(&point.who)?.get(point.number - 1)?.kind));
            let text = format!("{} {point:?} ({who:?}, call {call:?}) {fault:?}: {text}", self.piece.name);
            println!("FAILED {text}");
            self.failures.push(text);
            let _ = recover(&containers);
        }
        outcome
    }

    /// The work with a fault at that point. A run that waits less makes fewer calls: then at the last one like it of that run.
    fn meet(&mut self, mut point: Point, fault: Fault) -> bool {
        for _ in 0..4 {
            let outcome = self.once(Some(&point), fault);
            let calls = outcome.calls.get(&point.who).map_or(&[][..], Vec::as_slice);
            let last = match fault {
                Fault::Error { call, .. } => calls.iter().rposition(|made| made.kind == call),
                _ => calls.len().checked_sub(1),
            };
            match last {
                _ if outcome.is_met => return true,
                Some(last) => point.number = point.number.min(last + 1),
                None => return false,
            }
        }
        false
    }

    /// Whether work and container are as they have to be.
    fn judge(&self, is_first: bool, fault: Fault, outcome: &Outcome) -> Result<(), String> {
        let said = &outcome.said;
        if outcome.hangs {
            return Err(format!("it hung; {said}"));
        }
        let was_killed = is_first && fault == Fault::Kill && outcome.is_met;
        let is_done = said.contains("<done>");
        match outcome.status {
            Some(status) if was_killed && libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == 9 => {}
            None if !was_killed && (is_done || said.contains("<refused>")) => {}
            status => return Err(format!("status {status:?}; {said}")),
        }
        if matches!(fault, Fault::Error { errno: libc::EINTR, .. } | Fault::Stop) && !is_done {
            return Err(said.clone());
        }
        let containers = Containers::open(Some(&self.dir)).map_err(|error| format!("opening says {error}"))?;
        let mut expected = self.piece.after;
        // A program that was killed before it ran cannot be told from one that was killed then.
        let done =
            [self.piece.done, self.piece.done.map(|_| State::Stopped).filter(|_| !is_first && fault != Fault::None)];
        if is_done {
            expected = &done[..if done[1].is_some() { 2 } else { 1 }];
        }
        let mut state = None;
        let is_so = until(|| {
            state = match containers.find(NAME).and_then(|container| container.state()) {
                Ok(state) => Some(state),
                Err(Error::NotFound { .. }) => None,
                Err(error) => return Err(format!("its state: {error}")),
            };
            Ok(expected.contains(&state))
        })?;
        if is_so { Ok(()) } else { Err(format!("its state stays {state:?}; {said}")) }
    }

    /// What is left can be used, and removed.
    fn clean(&mut self, thoroughly: bool) -> Result<(), String> {
        let what = |what: &'static str| move |error: Error| format!("{what}: {error}");
        let containers = Containers::open(Some(&self.dir)).map_err(what("open"))?;
        match containers.find(NAME) {
            Ok(container) => {
                let is_started = match container.state().map_err(what("state"))? {
                    State::Created | State::Stopped => container.start().map_err(what("start")).map(|()| true)?,
                    _ => false,
                };
                // What ends at once may have.
                if is_started && container.state().map_err(what("state"))? == State::Created {
                    return Err("it was started and is created".to_owned());
                }
                // The same one is met once more.
                let is_kept = self.piece.name == "exec" && !is_started && !thoroughly;
                if !is_kept {
                    container.delete(true).map_err(what("delete"))?;
                }
                if is_kept {
                    return Ok(());
                }
            }
            Err(Error::NotFound { .. }) => {
                create(&containers).map_err(what("create"))?;
                containers.find(NAME).and_then(|container| container.delete(false)).map_err(what("delete"))?;
            }
            Err(error) => return Err(what("find")(error)),
        }
        recover(&containers).map_err(what("recover"))?;
        let makers = std::mem::take(&mut self.workers);
        let mut left = String::new();
        let is_clean = until(|| {
            left = Traces::now(&self.dir, &makers).difference(&self.before);
            Ok(left.is_empty())
        })?;
        self.workers.insert(std::process::id() as i32);
        if is_clean { Ok(()) } else { Err(format!("left behind: {left}")) }
    }
}

fn until(mut is_so: impl FnMut() -> Result<bool, String>) -> Result<bool, String> {
    let deadline = Instant::now() + SECONDS(20);
    while !is_so()? {
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(true)
}

/// Numbers that look like chance and are the same each time.
struct Choice(u64);

impl Choice {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below.max(1)
    }

    /// So many of a row, or all.
    fn some<T: Clone>(&mut self, row: &[T], count: usize) -> Vec<T> {
        if wants_all() || row.len() <= count {
            return row.to_vec();
        }
        let share = |index: usize| index * row.len() / count;
        (0..count).map(|index| row[share(index) + self.next(share(index + 1) - share(index))].clone()).collect()
    }
}

fn wants_all() -> bool {
    std::env::var_os("ZIND_TEST_ALL_POINTS").is_some()
}

fn wants_each() -> bool {
    std::env::var_os("ZIND_TEST_ALL_POINTS").is_some_and(|which| which == "each")
}

/// How often a call of a loop is one that differs.
const TURNS: usize = 4;

/// Of those with the same key, which are turns of a loop, the first ones, the last one, and some between.
fn that_differ<T, K: Ord>(row: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    if wants_each() {
        return row;
    }
    let mut turns: BTreeMap<K, usize> = BTreeMap::new();
    let of_turn: Vec<usize> = row
        .iter()
        .map(|item| {
            let turn = turns.entry(key(item)).or_default();
            *turn += 1;
            *turn
        })
        .collect();
    let is_kept = |(item, turn): (T, usize)| {
        let all = turns[&key(&item)];
        let is_one = all <= TURNS || turn <= 2 || turn == all || turn == all.div_ceil(2);
        is_one.then_some(item)
    };
    row.into_iter().zip(of_turn).filter_map(is_kept).collect()
}

/// Before which calls a kill differs: before another one it finds everything as before the next.
fn kills(calls: &[Call]) -> Vec<usize> {
    // One more for whoever takes a moment longer this time.
    let all: Vec<(usize, Call)> = calls.iter().copied().enumerate().map(|(index, call)| (index + 1, call)).collect();
    let changes = |(_, call): &(usize, Call)| wants_each() || !CHANGE_NOTHING.contains(&call.kind);
    let row: Vec<(usize, Call)> = all.into_iter().filter(changes).collect();
    let row = that_differ(row, |(_, call)| *call);
    row.into_iter().map(|(number, _)| number).chain([calls.len() + 1]).collect()
}

/// Calls that change nothing that anybody else can find.
const CHANGE_NOTHING: [i64; 46] = [
    libc::SYS_access,
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_lgetxattr,
    libc::SYS_lseek,
    libc::SYS_lstat,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_pread64,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_stat,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Calls that end the process, or that say nothing; memory that is not there ends any program.
const NEVER_FAIL: [i64; 25] = [
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_brk,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_getpid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    // Of the pause after the work.
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigprocmask,
    // No file system's directories have anything to say here, and the standard library panics.
    tracer::CLOSE_DIRECTORY,
    // They wait, are interrupted, or answer: getrandom(2), wait(2), nanosleep(2).
    libc::SYS_getrandom,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
];
/// What can be interrupted, or wait.
const INTERRUPTED: [i64; 23] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_connect,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_flock,
    tracer::fcntl(libc::F_OFD_SETLKW),
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_accept4,
    libc::SYS_ftruncate,
];
const MAKES_FILES: [i64; 16] = [
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_ftruncate,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_bind,
    libc::SYS_memfd_create,
    libc::SYS_mount,
];
const MAKES_DESCRIPTORS: [i64; 12] = [
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_pipe2,
    tracer::fcntl(libc::F_DUPFD),
    tracer::fcntl(libc::F_DUPFD_CLOEXEC),
    libc::SYS_pidfd_open,
    libc::SYS_memfd_create,
    libc::SYS_fsopen,
    libc::SYS_open_tree,
];
/// Those of fcntl(2) that go to a file system; of the others only what makes descriptors fails, for want of them.
const LOCKS: [i64; 3] =
    [tracer::fcntl(libc::F_OFD_GETLK), tracer::fcntl(libc::F_OFD_SETLK), tracer::fcntl(libc::F_OFD_SETLKW)];
const MAKES_PROCESSES: [i64; 4] = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_fork, libc::SYS_vfork];

/// The errors that a call can say. Where several mean the same to whoever hears them, one: another one at the next call.
fn errors_of(number: usize, call: i64) -> Vec<Fault> {
    let one_of = |all: &[i32]| all[number % all.len()];
    let error = |errno: i32| Fault::Error { call, errno, times: 1 };
    let mut all = Vec::new();
    let is_of_descriptors = call & 0xffff == libc::SYS_fcntl && !LOCKS.contains(&call);
    if !NEVER_FAIL.contains(&call) && !MAKES_PROCESSES.contains(&call) && !is_of_descriptors {
        all.push(error(libc::EIO));
    }
    if LOCKS.contains(&call) {
        all.push(error(libc::ENOLCK));
    }
    if MAKES_FILES.contains(&call) {
        all.push(error(one_of(&[libc::ENOSPC, libc::EDQUOT, libc::EROFS])));
    }
    if MAKES_DESCRIPTORS.contains(&call) {
        all.push(error(one_of(&[libc::EMFILE, libc::ENFILE])));
    }
    if MAKES_PROCESSES.contains(&call) {
        all.extend([error(libc::EAGAIN), error(one_of(&[libc::ENOMEM, libc::ENOSPC, libc::EPERM]))]);
    }
    if INTERRUPTED.contains(&call) {
        all.extend([error(libc::EINTR), Fault::Error { call, errno: libc::EINTR, times: 200 }]);
    }
    all
}

/// What is tried of starts always: all who take part send each other words, and a signal may come meanwhile.
const SENDS: &str = "interrupted sends";

/// In a process of its own: the points of one piece.
fn points_of(name: &str, dir: &Path) {
    let (name, what) = name.rsplit_once(" by ").unwrap();
    let piece = *PIECES.iter().find(|piece| piece.name == name).unwrap();
    let mut trial = Trial::new(piece, dir);
    let mut choice = Choice(name.bytes().map(u64::from).sum());
    let counted = trial.once(None, Fault::None);
    let of = |who: &str, number: usize| Point { who: who.to_owned(), number };
    let (mut tried, mut met) = (0, 0);
    let mut told = String::new();
    let wanted = std::env::var("ZIND_TEST_WHO").ok();
    for (who, calls) in counted.calls.iter().filter(|(who, _)| wanted.as_ref().is_none_or(|wanted| wanted == *who)) {
        let is_first = who == FIRST;
        let mut all: Vec<(Point, Fault)> = Vec::new();
        match what {
            "kill" => {
                let count = if is_first { 14 } else { 5 };
                all.extend(choice.some(&kills(calls), count).into_iter().map(|number| (of(who, number), Fault::Kill)));
            }
            SENDS => {
                let is_send = |call: &Call| [libc::SYS_sendto, libc::SYS_sendmsg].contains(&call.kind);
                let row = calls.iter().enumerate().filter(|(_, call)| is_send(call)).collect();
                let row = that_differ(row, |(_, call)| **call);
                let fault = |call: i64| Fault::Error { call, errno: libc::EINTR, times: 200 };
                all.extend(row.into_iter().map(|(index, call)| (of(who, index + 1), fault(call.kind))));
            }
            _ => {
                // Helpers that share the caller's memory do next to nothing, and none of that on a disk.
                let is_helper = !is_first && counted.names.get(who).is_some_and(|name| name == "worker");
                let is_wanted = |fault: &Fault| !is_helper || matches!(fault, Fault::Error { errno: libc::EINTR, .. });
                let faults = |(index, call): (usize, &Call)| -> Vec<(usize, Call, Fault)> {
                    errors_of(index, call.kind)
                        .into_iter()
                        .filter(is_wanted)
                        .map(|fault| (index + 1, *call, fault))
                        .collect()
                };
                let row: Vec<_> = calls.iter().enumerate().flat_map(faults).collect();
                let row = that_differ(row, |(_, call, fault)| (*call, format!("{fault:?}")));
                let chosen = choice.some(&row, if is_first { 16 } else { 5 });
                all.extend(chosen.into_iter().map(|(number, _, fault)| (of(who, number), fault)));
            }
        }
        let name = counted.names.get(who).map_or("", String::as_str);
        told += &format!(" {who} ({name}) {} at {} calls;", all.len(), calls.len());
        for (point, fault) in all {
            tried += 1;
            met += usize::from(trial.meet(point, fault));
        }
    }
    if what == "kill" {
        // A second kill, in the recovery from a first.
        let calls = counted.calls[FIRST].len();
        let count = if wants_all() { 60 } else { 4 };
        for index in 0..count {
            let containers = Containers::open(Some(dir)).unwrap();
            if containers.find(NAME).is_err() {
                (piece.prepare)(&containers);
            }
            let first = Point {
                who: FIRST.to_owned(),
                number: 1 + (index * calls / count + choice.next(calls / count + 1)).min(calls - 1),
            };
            trial.workers.insert(tracer::run(&mut worker_command(name, dir), Some(&first), Fault::Kill).pid);
            let mut points = Vec::new();
            for _ in 0..2 {
                let second = Point { who: FIRST.to_owned(), number: 1 + choice.next(220) };
                tracer::run(&mut worker_command("recover", dir), Some(&second), Fault::Kill);
                points.push(second.number);
            }
            tried += 1;
            met += 1;
            if let Err(text) = trial.clean(index % 4 == 0) {
                let text = format!("{name} killed at {}, its recovery at {points:?}: {text}", first.number);
                println!("FAILED {text}");
                trial.failures.push(text);
                let _ = recover(&containers);
            }
        }
    }
    recover(&Containers::open(Some(dir)).unwrap()).unwrap();
    println!("{name}: {tried} points by {what}, {met} met;{told}");
    assert!(trial.failures.is_empty(), "{} of {tried}: {:#?}", trial.failures.len(), trial.failures);
    assert!(met * 10 >= tried * 8, "{met} of {tried} points were met");
}

/// Two pieces at a time, each in a process of its own.
fn all_pieces(what: &str) {
    let wanted = std::env::var("ZIND_TEST_PIECE").ok();
    // Of the others single points are not settled yet, or wait for somebody, and so make another number of calls each time: they
    // are tried when all are.
    let has_settled = |name: &str| match what {
        "kill" => true,
        SENDS => ["start", "run"].contains(&name),
        _ => wants_all() || ["create", "exec", "stop", "delete", "delete by force"].contains(&name),
    };
    let is_wanted = |piece: &&Piece| wanted.as_ref().map_or(has_settled(piece.name), |wanted| wanted == piece.name);
    let next = std::sync::Mutex::new(PIECES.iter().filter(is_wanted));
    let wrong = std::sync::Mutex::new(String::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let piece = next.lock().unwrap().next();
                    let Some(piece) = piece else { return };
                    let home =
                        format!("zind-test-faults-{}-{what}-{}", std::process::id(), piece.name.replace(' ', "-"));
                    let dir = std::env::temp_dir().join(home);
                    fs::create_dir(&dir).unwrap();
                    let role = format!("points of {} by {what}", piece.name);
                    let mut command = worker_command(&role, &dir.join("place"));
                    // Its own temporary files, beside those of the other one.
                    let output = command.env("TMPDIR", &dir).stdin(HostStdio::null()).output().unwrap();
                    let said =
                        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
                    print!(
                        "{}",
                        said.lines()
                            .filter(|line| line.contains(" points by "))
                            .map(|line| format!("{line}\n"))
                            .collect::<String>()
                    );
                    if !output.status.success() {
                        wrong.lock().unwrap().push_str(&said);
                    }
                    fs::remove_dir_all(&dir).unwrap();
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_kill_before_any_system_call_of_anybody_leaves_nothing() {
    all_pieces("kill");
}

#[test]
fn a_system_call_that_fails_is_an_error_that_leaves_nothing() {
    all_pieces("error");
}

#[test]
fn a_word_whose_sending_a_signal_interrupts_is_sent_again() {
    all_pieces(SENDS);
}
