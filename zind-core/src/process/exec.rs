//! [`Exec`]: a further program in a running container.
//!
//! The launcher joins by a pidfd of the container's first process, so that no path of the container's is ever followed and no
//! number trusted; see `zind-init/launcher/exec.rs` for who does what, and why nothing of it can be taken hold of from inside.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use rustix::fs::{CWD, Mode, OFlags};
use zind_init::plan::{self as wire, Enter, Topology};

use super::again::{Launchers, Wish};
use super::filter;
use super::handle::Process;
use super::identity::{self, Identity};
use super::launch::Starting;
use super::plan::{self, Attach, Builder, Prepared};
use super::settled::Settled;
use super::stdio::Streams;
use super::table;
use crate::cgroup::{self, Cgroup};
use crate::error::{At, Error, Result, Step};
use crate::isolation::Isolation;
use crate::rootfs::Rootfs;
use crate::rootfs::users::Users;
use crate::security::capabilities::CapSet;
use crate::spec::{Kind, Rlimit, Seccomp, Session, Size, Spec, Stdio, User, check};
use crate::sys::clone;
use crate::sys::descriptors::openat;
use crate::sys::descriptors::{pidfd_open, pidfd_send_signal};

/// A program to run in a running container, and in what it differs from the container's own. What is `None` or empty is as
/// the container has it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Exec {
    /// Program and arguments. The program is looked up in the `PATH` it gets, unless it has a slash.
    pub argv: Vec<OsString>,
    /// What it sees as `argv[0]`, if not the program.
    pub argv0: Option<OsString>,
    /// Variables on top of the container's.
    pub env: Vec<(OsString, OsString)>,
    /// None of the container's variables, nor the default ones.
    pub clear_env: bool,
    /// Working directory in the container.
    pub cwd: Option<PathBuf>,
    /// The user; names are looked up in the container as it is now.
    pub user: Option<User>,
    /// Supplementary groups.
    pub groups: Option<Vec<String>>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Resource limits on top of the container's.
    pub rlimits: Vec<Rlimit>,
    /// -1000 (never) to 1000 (first).
    pub oom_score_adj: Option<i32>,
    /// -20 to 19.
    pub nice: Option<i32>,
    /// Capabilities.
    pub capabilities: Option<CapSet>,
    /// All capabilities, and no filter.
    pub privileged: bool,
    /// No set-uid program and no file capability has any effect.
    pub no_new_privileges: Option<bool>,
    /// System call filter.
    pub seccomp: Option<Seccomp>,
    /// A session keyring of its own.
    pub keyring: Option<bool>,
    /// Standard input.
    pub stdin: Stdio,
    /// Standard output.
    pub stdout: Stdio,
    /// Standard error.
    pub stderr: Stdio,
    /// A terminal of this size in place of the three streams.
    pub terminal: Option<Size>,
    /// Descriptors of the caller's that it gets under the same number.
    pub pass_fds: Vec<i32>,
    /// How long it may run; it is killed then.
    pub timeout: Option<Duration>,
    /// It may outlive the caller's process, if the container does.
    pub outlive_owner: bool,
}

impl Exec {
    /// A program that differs in nothing.
    pub fn new(argv: impl IntoIterator<Item = impl Into<OsString>>) -> Exec {
        Exec { argv: argv.into_iter().map(Into::into).collect(), ..Exec::default() }
    }
}

impl From<&Spec> for Exec {
    /// What a spec says that differs from [`Spec::default`], as far as it is about the program; the rest is the container's.
    fn from(spec: &Spec) -> Exec {
        let usual = Spec::default();
        Exec {
            argv: spec.argv.clone(),
            argv0: spec.argv0.clone(),
            env: spec.env.clone(),
            clear_env: spec.clear_env,
            cwd: spec.cwd.clone(),
            user: spec.user.clone(),
            groups: spec.groups.clone(),
            umask: spec.umask.filter(|_| spec.umask != usual.umask),
            rlimits: spec.rlimits.clone(),
            oom_score_adj: spec.oom_score_adj,
            nice: spec.nice,
            capabilities: spec.capabilities,
            privileged: spec.privileged,
            no_new_privileges: (spec.no_new_privileges != usual.no_new_privileges).then_some(spec.no_new_privileges),
            seccomp: (spec.seccomp != usual.seccomp).then(|| spec.seccomp.clone()),
            keyring: (spec.keyring != usual.keyring).then_some(spec.keyring),
            stdin: spec.stdin.clone(),
            stdout: spec.stdout.clone(),
            stderr: spec.stderr.clone(),
            terminal: spec.terminal,
            pass_fds: spec.pass_fds.clone(),
            timeout: spec.timeout,
            outlive_owner: !spec.die_with_owner,
        }
    }
}

/// What has to be known of a running container to start a program in it.
pub(crate) struct Target<'a> {
    /// Its first process.
    pub(crate) pid: i32,
    /// The same.
    pub(crate) pidfd: BorrowedFd<'a>,
    /// What it was started from, with users and groups by number: see [`keep`].
    pub(crate) spec: &'a Arc<Spec>,
    /// What it got; of that the namespaces and the change of the root count.
    pub(crate) isolation: &'a Isolation,
    /// Its control groups.
    pub(crate) groups: Groups<'a>,
    /// Launchers that have run other programs in it.
    pub(crate) launchers: &'a Arc<Launchers>,
}

/// The control groups of a running container.
pub(crate) enum Groups<'a> {
    /// It has none of its own.
    None,
    /// A group of this process's.
    Of(&'a Cgroup),
    /// Its directories.
    At(&'a [PathBuf]),
}

/// What is kept of a request for further programs, and for who asks what runs: no descriptors, no mounts; users and groups by number.
pub(super) fn keep(mut spec: Spec, identity: Identity) -> Spec {
    if let Some((uid, gid)) = identity.user {
        spec.user = Some(User::Ids(uid, Some(gid)));
    }
    if let Some(groups) = identity.groups {
        spec.groups = Some(groups.iter().map(u32::to_string).collect());
    }
    if let Some(home) = identity.home.filter(|_| !spec.clear_env && !spec.inherit_env) {
        spec.env.insert(0, ("HOME".into(), home.into()));
    }
    if !spec.is_low_level() {
        spec.rootfs = Rootfs::Host;
    }
    (spec.stdin, spec.stdout, spec.stderr, spec.terminal) = (Stdio::Null, Stdio::Null, Stdio::Null, None);
    (spec.mounts, spec.devices, spec.console) = (Vec::new(), Vec::new(), None);
    (spec.pass_fds, spec.require) = (Vec::new(), Vec::new());
    (spec.cgroup, spec.resources, spec.cgroup_parent) = (None, None, None);
    spec.namespaces.values_mut().filter(|source| matches!(source, crate::spec::Source::Fd(_))).for_each(|source| {
        // Joined is what counts.
        *source = crate::spec::Source::Pid(0);
    });
    spec
}

/// What is wrong where nothing else hinders. One that is about to end has no namespaces any more, a moment before its pidfd says so.
pub(super) fn unless_ending(error: Error) -> Error {
    match error {
        Error::Sys { step: Step::Setns, errno: Errno::ESRCH, .. } => ended(),
        other => other,
    }
}

/// The error about a container that has ended.
pub(super) fn ended() -> Error {
    Error::State("the container has ended: a program can be run in one that runs".to_owned())
}

impl Target<'_> {
    /// Why no program can be started in it now.
    fn hindrance(&self) -> Option<Error> {
        if has_ended(self.pidfd) {
            return Some(ended());
        }
        self.is_paused()
            .then(|| Error::State("the container is paused: a program could not start before it is resumed".to_owned()))
    }

    fn is_paused(&self) -> bool {
        match &self.groups {
            Groups::None => false,
            Groups::Of(group) => group.is_frozen().unwrap_or(false),
            Groups::At(paths) => paths.iter().any(|path| {
                let is = |file: &str, word: &str| {
                    std::fs::read_to_string(path.join(file)).is_ok_and(|text| text.trim() == word)
                };
                is("cgroup.freeze", "1") || is("freezer.state", "FROZEN") || is("freezer.state", "FREEZING")
            }),
        }
    }

    /// Its root, by a descriptor.
    fn root(&self) -> Result<OwnedFd> {
        let path = format!("/proc/{}/root", self.pid);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &path, flags, Mode::empty());
        // The number may belong to another process by now, but not if ours is still there after the open.
        if has_ended(self.pidfd) {
            return Err(ended());
        }
        root.at(Step::OpenRoot, "openat", path)
    }

    /// The request as a whole: the container's, and what this program has of its own.
    fn merge(&self, exec: &Exec) -> Spec {
        let base = &**self.spec;
        let mut env = if exec.clear_env { Vec::new() } else { base.env.clone() };
        if exec.user.is_some() {
            // Another one's home.
            env.retain(|(name, _)| name != "HOME");
        }
        env.extend(exec.env.iter().cloned());
        let mut rlimits = base.rlimits.clone();
        rlimits.retain(|limit| exec.rlimits.iter().all(|other| other.resource != limit.resource));
        rlimits.extend(exec.rlimits.iter().copied());
        let groups = exec.groups.clone();
        let is_privileged = exec.privileged || base.privileged && exec.capabilities.is_none();
        Spec {
            argv: exec.argv.clone(),
            argv0: exec.argv0.clone(),
            env,
            clear_env: exec.clear_env || base.clear_env,
            keep_env: if exec.clear_env { Vec::new() } else { base.keep_env.clone() },
            inherit_env: base.inherit_env && !exec.clear_env,
            cwd: exec.cwd.clone().or_else(|| base.cwd.clone()),
            user: exec.user.clone().or_else(|| base.user.clone()),
            groups: if exec.user.is_some() { groups } else { groups.or_else(|| base.groups.clone()) },
            of_image: base.of_image,
            umask: exec.umask.or(base.umask),
            rlimits,
            oom_score_adj: exec.oom_score_adj.or(base.oom_score_adj),
            nice: exec.nice.or(base.nice),
            scheduler: base.scheduler,
            personality: base.personality,
            capabilities: if exec.privileged { None } else { exec.capabilities.or(base.capabilities) },
            cap_sets: base.cap_sets.filter(|_| !exec.privileged && exec.capabilities.is_none()),
            ambient: base.ambient,
            privileged: is_privileged,
            no_new_privileges: exec.no_new_privileges.unwrap_or(base.no_new_privileges && !exec.privileged),
            seccomp: exec.seccomp.clone().unwrap_or_else(|| filter::of_container(base)),
            // The same rules, in a domain of its own.
            landlock: base.landlock.clone(),
            apparmor: base.apparmor.clone(),
            selinux: base.selinux.clone(),
            keyring: exec.keyring.unwrap_or(base.keyring),
            stdin: exec.stdin.clone(),
            stdout: exec.stdout.clone(),
            stderr: exec.stderr.clone(),
            terminal: exec.terminal,
            pass_fds: exec.pass_fds.clone(),
            session: Session { setsid: !base.is_low_level(), ..Session::default() },
            timeout: exec.timeout,
            die_with_owner: !exec.outlive_owner,
            rootfs: base.rootfs.clone(),
            system_mounts: base.system_mounts,
            namespaces: base.namespaces.clone(),
            ..Spec::default()
        }
    }
}

fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now)) == Ok(1)
}

/// Starts a program in a running container.
pub(crate) fn start(target: &Target<'_>, exec: &Exec, interrupted: &mut dyn FnMut() -> bool) -> Result<Process> {
    begin(target, exec)?.finish_exec(&|| target.hindrance(), interrupted)
}

/// Does all of it that needs no answer from the launcher.
pub(crate) fn begin(target: &Target<'_>, exec: &Exec) -> Result<Starting> {
    if let Some(error) = target.hindrance() {
        return Err(error);
    }
    clone::reap_orphans();
    let (prepared, wish) = prepare(target, exec)?;
    Starting::begin_exec(prepared, wish, exec.timeout).map_err(|error| match error {
        // It may be that the container has ended meanwhile.
        Error::Sys { .. } => target.hindrance().unwrap_or_else(|| unless_ending(error)),
        other => other,
    })
}

fn prepare(target: &Target<'_>, exec: &Exec) -> Result<(Prepared, Option<Wish>)> {
    let mut spec = target.merge(exec);
    if exec.privileged && exec.capabilities.is_some() {
        return Err(Error::spec("capabilities", "excludes privileged, which gives all of them"));
    }
    check::check_program(&spec)?;
    filter::check_exec(&spec)?;
    plan::on_terminal(&mut spec);
    let streams = Streams::of(&spec)?;
    let have_clone3 = clone::have_clone3();
    let identity = identity::resolve_by(&spec, &|| Users::inside(target.root()?.as_fd()))?;
    let mut builder = Builder::new();
    builder.plan.topology = Topology::Exec;
    join(&mut builder, target)?;
    let attach = enter_groups(&mut builder, target, have_clone3)?;
    builder.program(&spec, &identity)?;
    let is_joined = |kind: Kind| target.isolation.namespaces.get(&kind).is_some_and(|how| *how != "host");
    let setgroups = is_joined(Kind::User).then(|| may_set_groups(target.pid));
    builder.credentials(&spec, &identity, None, setgroups.or(Some(true)))?;
    builder.handover()?;
    let landlock = builder.landlock(&spec)?;
    builder.labels(&spec)?;
    builder.process(&spec)?;
    builder.streams(&spec, &streams);
    if spec.die_with_owner {
        let owner = pidfd_open(std::process::id() as i32).at(Step::Socket, "pidfd_open", "")?;
        builder.plan.owner = owner.as_raw_fd();
        builder.descriptors.push(owner);
    }
    if !is_joined(Kind::Pid) && !spec.is_low_level() {
        // Nobody inside takes care of what it leaves.
        builder.plan.flags |= wire::KILL_DESCENDANTS;
        builder.open_proc()?;
    }
    let of_launcher = wire::KILL_DESCENDANTS | wire::JOIN_TIME;
    let bounding = (builder.plan.flags & wire::CAPABILITIES != 0).then_some(builder.plan.capabilities.bounding);
    let wish = match builder.plan.flags & of_launcher {
        0 => Wish::of(&spec, target.launchers, target.pid, bounding),
        _ => None,
    };
    let settled = Settled::of(&builder, &spec).filter(|_| wish.is_some());
    if settled.is_some() {
        builder.plan.flags |= wire::MAKE_NEXT_READY;
    }
    let isolation = Isolation {
        user: identity.user,
        capabilities: plan::payload_capabilities(&spec),
        seccomp: filter::name(&spec),
        seccomp_notes: filter::notes(&spec),
        no_new_privileges: spec.no_new_privileges,
        landlock,
        apparmor: spec.apparmor.clone(),
        selinux: spec.selinux.clone(),
        keyring: spec.keyring,
        rlimits: spec.rlimits.iter().map(|limit| crate::spec::parse::rlimit_name(limit.resource)).collect(),
        rlimit_values: plan::rlimit_values(&spec),
        init: false,
        die_with_owner: spec.die_with_owner,
        pass_fds: spec.pass_fds.clone(),
        measured: "inside",
        ..target.isolation.clone()
    };
    let mut prepared = builder.finish(streams, isolation, Arc::clone(target.spec), !have_clone3);
    prepared.attach = attach;
    prepared.settled = settled;
    Ok((prepared, wish))
}

/// The namespaces: all at once, by the pidfd.
fn join(builder: &mut Builder, target: &Target<'_>) -> Result<()> {
    let dup = || target.pidfd.try_clone_to_owned().at(Step::JoinContainer, "dup", "");
    let joined = |kind: &Kind| target.isolation.namespaces.get(kind).is_some_and(|how| *how != "host");
    let flags: u64 = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Time && joined(kind)).map(Kind::flag).sum();
    let (enter, container) = (dup()?, dup()?);
    if flags != 0 {
        builder.plan.enter = builder.writer.list(&[Enter { fd: enter.as_raw_fd(), flags: flags as u32 }]);
        builder.names.enter.push("the container".into());
    }
    if joined(&Kind::Time) {
        builder.plan.flags |= wire::JOIN_TIME;
    }
    builder.plan.container = container.as_raw_fd();
    if target.isolation.root_change == "chroot" {
        let root = target.root()?;
        builder.plan.root = root.as_raw_fd();
        builder.descriptors.push(root);
    }
    builder.descriptors.extend([enter, container]);
    Ok(())
}

/// The control groups: born into that of version 2; the others are joined by who forks the program's process. Where an ordinary
/// user comes to them from outside of their manager's tree, the launcher waits until it was moved there.
fn enter_groups(builder: &mut Builder, target: &Target<'_>, have_clone3: bool) -> Result<Option<Attach>> {
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    let mut files = Vec::new();
    let (mut on_v2, mut born_into) = (None, None);
    match &target.groups {
        Groups::None => {}
        Groups::Of(group) => {
            files = group.entrances(have_clone3)?;
            on_v2 = group.v2().map(|part| part.path.clone());
            if let Some(part) = group.v2().filter(|_| have_clone3) {
                born_into = Some((part.dir.try_clone().at(Step::JoinCgroup, "dup", &part.path)?, part.path.clone()));
            }
        }
        Groups::At(paths) => {
            for path in *paths {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = openat(CWD, path, flags, Mode::empty()).at(Step::JoinCgroup, "openat", path)?;
                let kind = rustix::fs::fstatfs(&dir).at(Step::JoinCgroup, "fstatfs", path)?.f_type as u64;
                on_v2 = on_v2.or_else(|| (kind == CGROUP2_SUPER_MAGIC).then(|| path.clone()));
                if kind == CGROUP2_SUPER_MAGIC && have_clone3 {
                    born_into = Some((dir, path.clone()));
                } else {
                    files.push(cgroup::entrance(dir.as_fd(), path)?);
                }
            }
        }
    }
    let crossing = on_v2.as_deref().and_then(cgroup::Crossing::to);
    let attach = builder.attach(Vec::new(), crossing.is_some())?.map(|attach| Attach { crossing, ..attach });
    let (files, mut names): (Vec<OwnedFd>, Vec<PathBuf>) = files.into_iter().unzip();
    let numbers: Vec<i32> = files.iter().map(AsRawFd::as_raw_fd).collect();
    builder.plan.group_files = builder.writer.list(&numbers);
    builder.descriptors.extend(files);
    if let Some((dir, path)) = born_into {
        builder.plan.group = dir.as_raw_fd();
        builder.descriptors.push(dir);
        names.push(path);
    }
    builder.names.groups = names;
    Ok(attach)
}

/// `/proc/<pid>/setgroups`: user_namespaces(7).
fn may_set_groups(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/setgroups")).is_ok_and(|text| text.trim() == "allow")
}

/// How many generations are followed; each of them was stopped before the next one was looked for.
const MOST_ROUNDS: usize = 64;

/// Kills a program in a container and what it has started: stopped first, so that none of them starts another one meanwhile.
pub(super) fn kill(pid: i32, pidfd: BorrowedFd<'_>) -> Result<()> {
    match pidfd_send_signal(pidfd, libc::SIGSTOP) {
        Err(Errno::ESRCH) => return Ok(()),
        other => other.at(Step::Kill, "pidfd_send_signal", pid.to_string())?,
    }
    let mut found: Vec<(i32, OwnedFd)> = Vec::new();
    for _ in 0..MOST_ROUNDS {
        let known = found.len();
        for child in table::descendants(pid) {
            if child == pid || found.iter().any(|(other, _)| *other == child) {
                continue;
            }
            let Ok(fd) = pidfd_open(child) else { continue };
            // Its number may be another one's by now, which is not below ours; nor is anybody any more once ours has ended: somebody
            // else in the container may kill it, and then its number is another one's, too.
            let is_below = table::descendants(pid).contains(&child) && !has_ended(pidfd);
            if is_below && pidfd_send_signal(fd.as_fd(), libc::SIGSTOP).is_ok() {
                found.push((child, fd));
            }
        }
        if found.len() == known {
            break;
        }
    }
    let result = pidfd_send_signal(pidfd, libc::SIGKILL);
    for (_, fd) in &found {
        let _ = pidfd_send_signal(fd.as_fd(), libc::SIGKILL);
    }
    match result {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Error::sys(Step::Kill, "pidfd_send_signal", pid.to_string(), errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    use super::*;

    #[test]
    fn who_has_the_number_of_one_that_has_ended_keeps_its_children() {
        let mut ended = Command::new("true").spawn().unwrap();
        let pidfd = pidfd_open(ended.id() as i32).unwrap();
        let id = WaitId::Pid(Pid::from_child(&ended));
        waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let mut other = Command::new("sh");
        other.args(["-c", "sleep 600 & echo $!; wait $!; echo $?"]).stdout(Stdio::piped());
        let mut other = other.spawn().unwrap();
        let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
        let child = lines.next().unwrap().unwrap().parse().unwrap();
        kill(other.id() as i32, pidfd.as_fd()).unwrap();
        rustix::process::kill_process(Pid::from_raw(child).unwrap(), rustix::process::Signal::TERM).unwrap();
        // By us, and not by SIGKILL before.
        assert_eq!(lines.next().unwrap().unwrap(), "143");
        assert!(other.wait().unwrap().success() && ended.wait().unwrap().success());
    }
}
