//! The names of groups, which tell whose they are; removing them, also those of processes that are gone.
//!
//! Groups live in the kernel's memory, so that none outlasts a boot: the owner's pid and start time are enough, with the
//! pid namespace in which the pid counts, and the time namespace in which the start time does.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::fs::rmdir;

use super::{Cgroup, PATIENCE, Part, Pause, files};
use crate::error::{At, Error, IntoErrno, Result, Step};
use crate::proc;

/// Whose a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Owner {
    /// Inode number of the pid namespace.
    namespace: u64,
    /// Inode number of the time namespace, by whose clock the start is told; 0 before Linux 5.6.
    clock: u64,
    pid: i32,
    /// Ticks since the boot, by that clock: proc_pid_stat(5), time_namespaces(7).
    started: u64,
}

/// Our own identity; a fork has another one.
static OWN: Mutex<Option<Owner>> = Mutex::new(None);
static NEXT: AtomicU64 = AtomicU64::new(0);

fn own() -> Result<Owner> {
    let pid = std::process::id() as i32;
    let mut own = OWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(known) = own.filter(|known| known.pid == pid) {
        return Ok(known);
    }
    let namespace = rustix::fs::stat("/proc/self/ns/pid").at(Step::MakeCgroup, "stat", "/proc/self/ns/pid")?.st_ino;
    let clock = rustix::fs::stat("/proc/self/ns/time").map_or(0, |stat| stat.st_ino);
    // By this name it is found in the proc of another pid namespace, too.
    let started =
        start_time("self").ok_or_else(|| Error::sys(Step::MakeCgroup, "read", "/proc/self/stat", Errno::ENOENT))?;
    Ok(*own.insert(Owner { namespace, clock, pid, started }))
}

/// A name for the next group: `zind-<pid namespace>.<time namespace>-<pid>-<start time>-<number>-<d|k>`; `d`: whoever is in
/// it ends with the owner, `k`: they are kept.
pub(super) fn next_name(dies_with_owner: bool) -> Result<String> {
    Ok(name(own()?, NEXT.fetch_add(1, Ordering::Relaxed), dies_with_owner))
}

fn name(owner: Owner, number: u64, dies_with_owner: bool) -> String {
    let Owner { namespace, clock, pid, started } = owner;
    let kind = if dies_with_owner { 'd' } else { 'k' };
    format!("zind-{namespace:x}.{clock:x}-{pid}-{started:x}-{number}-{kind}")
}

/// A name that is read and written again.
#[cfg(any(test, fuzzing))]
pub(super) fn name_again(text: &str) -> Option<String> {
    let (owner, dies) = parse(text)?;
    let number = text.split('-').nth(4)?.parse().ok()?;
    Some(name(owner, number, dies))
}

/// The owner in a name, and whether its processes end with it.
fn parse(name: &str) -> Option<(Owner, bool)> {
    let mut parts = name.strip_prefix("zind-")?.split('-');
    let (namespace, clock) = parts.next()?.split_once('.')?;
    let namespace = u64::from_str_radix(namespace, 16).ok()?;
    let clock = u64::from_str_radix(clock, 16).ok()?;
    let pid = parts.next()?.parse().ok().filter(|pid| *pid > 0)?;
    let started = u64::from_str_radix(parts.next()?, 16).ok()?;
    parts.next()?.parse::<u64>().ok()?;
    let dies = match parts.next()? {
        "d" => true,
        "k" => false,
        _ => return None,
    };
    parts.next().is_none().then_some((Owner { namespace, clock, pid, started }, dies))
}

/// The start of a process in ticks.
fn start_time(pid: impl std::fmt::Display) -> Option<u64> {
    proc::start_time(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// True unless it is certain that the owner is gone.
fn is_alive(owner: &Owner) -> bool {
    if let Some(started) = start_time(owner.pid) {
        return started == owner.started;
    }
    // Other users' processes may be hidden.
    let exists = rustix::process::Pid::from_raw(owner.pid).map(rustix::process::test_kill_process);
    exists != Some(Err(rustix::io::Errno::SRCH))
}

/// When a directory was last looked through.
static SWEPT: Mutex<Option<(u32, HashMap<PathBuf, Instant>)>> = Mutex::new(None);
const BETWEEN_SWEEPS: Duration = Duration::from_secs(10);
/// What a start gives to other containers' groups; what takes longer is left to a later one.
const AT_A_START: Duration = Duration::from_millis(100);

/// Removes what others left behind, but not at every start.
pub(super) fn sweep_now_and_then<'a>(dirs: impl Iterator<Item = &'a Path>) {
    let mut due = Vec::new();
    {
        let mut swept = SWEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let pid = std::process::id();
        let (_, swept) = match &mut *swept {
            Some(known) if known.0 == pid => known,
            other => other.insert((pid, HashMap::new())),
        };
        let now = Instant::now();
        for dir in dirs {
            if swept.get(dir).is_none_or(|before| now.duration_since(*before) > BETWEEN_SWEEPS) {
                swept.insert(dir.to_owned(), now);
                due.push(dir.to_owned());
            }
        }
    }
    if !due.is_empty() {
        sweep_all(&due, AT_A_START);
    }
}

/// Removes the groups that processes left behind which are gone, below the caller's own groups or below `parent`; what runs
/// in one is killed if it was to end with its owner, and left alone if not. Every start with resources does it too, every
/// few seconds at most. Returns what was removed.
///
/// Errors: [`Error::Sys`] at [`Step::CgroupLayout`].
pub fn sweep(parent: Option<&Path>) -> Result<Vec<PathBuf>> {
    let layout = super::Layout::read()?;
    let mut all = Vec::new();
    for hierarchy in layout.v2.iter().chain(&layout.v1) {
        let dirs: Vec<PathBuf> = match (parent, &hierarchy.own) {
            (Some(parent), _) => vec![hierarchy.mount.join(parent.strip_prefix("/").unwrap_or(parent))],
            (None, Some(own)) => {
                own.ancestors().take_while(|dir| dir.starts_with(&hierarchy.mount)).map(Path::to_owned).collect()
            }
            (None, None) => vec![hierarchy.mount.clone()],
        };
        all.extend(dirs);
    }
    Ok(sweep_all(&all, PATIENCE))
}

fn sweep_all(dirs: &[PathBuf], patience: Duration) -> Vec<PathBuf> {
    let Ok(own) = own() else { return Vec::new() };
    let mut alive: HashMap<Owner, bool> = HashMap::new();
    let mut orphans = Vec::new();
    let mut removed = Vec::new();
    // The proc of another pid namespace tells about other processes than those that the names mean.
    let is_own_proc =
        std::fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == own.pid.to_string().as_str());
    for path in dirs.iter().flat_map(|dir| children(dir)) {
        let Some((owner, dies)) = path.file_name().and_then(|name| name.to_str()).and_then(parse) else { continue };
        // A pid of another pid namespace is somebody else here, and a start by another clock another one.
        let is_known = owner.namespace == own.namespace && owner.clock == own.clock;
        if !is_known {
            if dies && is_old(&path) && remove_foreign(&path) {
                removed.push(path);
            }
        } else if owner != own && is_own_proc && !*alive.entry(owner).or_insert_with(|| is_alive(&owner)) {
            orphans.push((path, dies));
        }
    }
    // What is frozen in one hierarchy cannot be killed by way of another.
    orphans.iter().filter(|(_, dies)| *dies).for_each(|(path, _)| thaw(path));
    let deadline = Instant::now() + patience;
    orphans.retain(|(path, dies)| match dies {
        true => remove(path, deadline).is_ok(),
        false => remove_unused(path).is_ok(),
    });
    removed.extend(orphans.into_iter().map(|(path, _)| path));
    removed
}

/// True if it was made, or had one made or removed below it, more than a minute ago: whoever makes one puts somebody in
/// sooner.
fn is_old(path: &Path) -> bool {
    let changed = std::fs::symlink_metadata(path).and_then(|of| of.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > Duration::from_secs(60)))
}

/// Removes a group in which nobody is, where nothing is known about its owner. On v1 it must have none below it: who is
/// in those may be invisible from here.
fn remove_foreign(path: &Path) -> bool {
    match path.join("cgroup.events").exists() {
        true => remove_unused(path).is_ok(),
        false => rmdir(path).is_ok(),
    }
}

pub(super) fn thaw(path: &Path) {
    if let Ok(dir) = files::open_dir(path) {
        let _ = files::write(dir.as_fd(), "freezer.state", "THAWED");
        let _ = files::write(dir.as_fd(), "cgroup.freeze", "0");
    }
}

/// Groups whose handles were dropped while their containers ran.
static ABANDONED: Mutex<Vec<Arc<Cgroup>>> = Mutex::new(Vec::new());

/// Leaves a group to a later start.
pub(crate) fn abandon(group: Arc<Cgroup>) {
    if let (false, Ok(mut groups)) = (group.try_delete(), ABANDONED.lock()) {
        groups.push(group);
    }
}

/// Removes the groups of containers nobody waited for.
pub(crate) fn reap_abandoned() {
    let Ok(mut groups) = ABANDONED.try_lock() else { return };
    let deadline = Instant::now() + AT_A_START;
    groups.retain(|group| Instant::now() > deadline || !group.try_delete());
}

/// The groups right below.
pub(super) fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let is_dir = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter_map(|entry| entry.ok()).filter(is_dir).map(|entry| entry.path()).collect()
}

/// Removes a group with those below it; whoever is in there is killed first. It takes until `deadline` at most, but for one
/// try.
pub(super) fn remove(path: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Pause::new();
    loop {
        let errno = match rmdir(path).map_err(IntoErrno::into_errno) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => errno,
        };
        if errno != Errno::EBUSY && errno != Errno::ENOTEMPTY {
            return Err(refused(path, errno));
        }
        if is_populated(path) {
            kill_in(path);
        } else if remove_empty(path).is_ok() {
            return Ok(());
        }
        // Who has ended may be counted for a moment longer.
        if Instant::now() >= deadline {
            return Err(refused(path, errno));
        }
        pause.sleep();
    }
}

/// Removes a group with those below it at once, or not at all: `EBUSY` if somebody is in any of them, whose groups stay as
/// they are, empty ones too.
pub(super) fn remove_unused(path: &Path) -> Result<()> {
    match rmdir(path).map_err(IntoErrno::into_errno) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno @ (Errno::EBUSY | Errno::ENOTEMPTY)) if is_populated(path) => Err(refused(path, errno)),
        Err(Errno::EBUSY | Errno::ENOTEMPTY) => remove_empty(path),
        Err(errno) => Err(refused(path, errno)),
    }
}

fn refused(path: &Path, errno: Errno) -> Error {
    Error::sys(Step::RemoveCgroup, "rmdir", path, errno).with_hint(if errno == Errno::EBUSY {
        "processes are in it that do not end"
    } else {
        ""
    })
}

fn is_populated(path: &Path) -> bool {
    files::open_dir(path).is_ok_and(|dir| {
        let is_v2 = files::exists(dir.as_fd(), "cgroup.events");
        Part { dir, path: path.to_owned(), is_v2, controllers: Vec::new() }.is_populated()
    })
}

/// The groups below first.
fn remove_empty(path: &Path) -> Result<()> {
    for child in children(path) {
        remove_empty(&child)?;
    }
    match rmdir(path).map_err(IntoErrno::into_errno) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(refused(path, errno)),
    }
}

/// Kills whoever is in a group of which only the directory is known, and in those below it.
fn kill_in(path: &Path) {
    let mut dirs = vec![path.to_owned()];
    while let Some(dir) = dirs.pop() {
        thaw(&dir);
        if let Ok(fd) = files::open_dir(&dir) {
            let fd = fd.as_fd();
            if files::write(fd, "cgroup.kill", "1").is_err() {
                let text = files::read(fd, "cgroup.procs").unwrap_or_default();
                for pid in text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0) {
                    kill_member(fd, pid);
                }
            }
        }
        dirs.extend(children(&dir));
    }
}

/// SIGKILL for a process that is in this very group.
fn kill_member(dir: std::os::fd::BorrowedFd<'_>, pid: i32) {
    let Ok(pidfd) = crate::sys::descriptors::pidfd_open(pid) else { return };
    let text = files::read(dir, "cgroup.procs").unwrap_or_default();
    if text.lines().any(|line| line.parse() == Ok(pid)) {
        let _ = crate::sys::descriptors::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestGroup;
    use super::*;

    #[test]
    fn who_is_in_a_group_below_keeps_it_and_its_siblings() {
        let groups = [TestGroup::v2("below"), TestGroup::v1("below", "freezer"), TestGroup::v1("below", "pids")];
        for group in groups.into_iter().flatten() {
            let (used, empty) = (group.dir.join("used"), group.dir.join("empty"));
            std::fs::create_dir(&used).unwrap();
            std::fs::create_dir(&empty).unwrap();
            let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            std::fs::write(used.join("cgroup.procs"), child.id().to_string()).unwrap();
            assert!(is_populated(&group.dir), "{:?}", group.dir);
            let refused = remove_unused(&group.dir).unwrap_err();
            assert!(matches!(refused.errno(), Some(Errno::EBUSY | Errno::ENOTEMPTY)), "{refused}");
            assert!(used.exists() && empty.exists());
            child.kill().unwrap();
            child.wait().unwrap();
            remove_unused(&group.dir).unwrap();
            std::fs::create_dir(&group.dir).unwrap();
        }
    }

    #[test]
    fn names_tell_the_owner() {
        let name = next_name(true).unwrap();
        let own = own().unwrap();
        assert_eq!(parse(&name), Some((own, true)));
        assert!(next_name(false).unwrap() != name && is_alive(&own));
        assert!(!is_alive(&Owner { started: own.started + 1, ..own }));
        for bad in [
            "",
            "zind-",
            "zind-1.1-0-1-1-d",
            "zind-1.1-2-3-4-x",
            "zind-1.1-2-3-4-d-5",
            "zind-g.1-1-1-1-d",
            "zind-1.g-1-1-1-d",
            "zind-1-2-3-4-d",
            "x-1.1-2-3-4-d",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
