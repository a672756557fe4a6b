//! `zind nsenter`
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process;

use clap::{Arg, ArgAction, ArgMatches, Command};
use nix::unistd::{Gid, Uid, chroot, fchdir, setgid, setgroups, setuid};
use zind_core::proc::Proc;
use zind_core::{Kind, lowlevel};

use super::{KINDS, id, namespace_options, of_util_linux, or_shell};
use crate::Context;
use crate::arguments::{Given, optional, takes_program, value};
use crate::failure::{Failure, Result};
use crate::signals::Signals;

pub fn arguments(command: Command) -> Command {
    let on = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    let command = takes_program(of_util_linux(command), "zind nsenter [OPTIONS] [PROGRAM [ARG]...]");
    let command = namespace_options(command);
    command
        .arg(on("all", "All namespaces of the target").short('a'))
        .arg(value("target", "PID", "The process whose namespaces are entered").short('t'))
        .arg(value("setuid", "UID", "Become this user").short('S'))
        .arg(value("setgid", "GID", "Become this group, without others").short('G'))
        .arg(value("net-socket", "FD", "The network namespace of this socket of the target").short('N'))
        .arg(on("user-parent", "The user namespace above: of --user, or the owner of another one that is entered"))
        .arg(on("join-cgroup", "Move to the target's control group (version 2)").short('c'))
        .arg(on("follow-context", "With the SELinux context of the target").short('Z'))
        .arg(on("keep-caps", "Keep the capabilities of the user namespace, also as another user"))
        .arg(on("preserve-credentials", "Stay the same user and group in another user namespace"))
        .arg(optional("root", "DIR", "Change the root: to the target's, or this directory").short('r'))
        .arg(optional("wd", "DIR", "Change the working directory: to the target's, or this one").short('w'))
        .arg(value("wdns", "DIR", "Change the working directory, in the namespaces").short('W'))
        .arg(on("env", "With the variables of the target").short('e'))
        .arg(on("no-fork", "Be the program, also in another pid namespace").short('F'))
}

/// What was asked for, opened before anything changes.
struct Entry {
    target: Option<i32>,
    /// Kinds that are the target's.
    kinds: Vec<Kind>,
    files: Vec<(Kind, File)>,
    root: Option<File>,
    directory: Option<File>,
    variables: Option<Vec<(std::ffi::OsString, std::ffi::OsString)>>,
}

pub fn run(given: &ArgMatches, _: &Context) -> Result {
    let entry = Entry::open(given)?;
    let has = |kind: Kind| entry.kinds.contains(&kind) || entry.files.iter().any(|(other, _)| *other == kind);
    let (has_user, forks) = (has(Kind::User), (has(Kind::Pid) || has(Kind::Time)) && !given.get_flag("no-fork"));
    entry.join_group(given)?;
    entry.follow_context(given)?;
    entry.enter()?;
    entry.place(given)?;
    let keeps = given.get_flag("keep-caps");
    credentials(given, has_user, keeps)?;
    if keeps {
        keep_capabilities("nsenter")?;
    }
    execute(given, entry.variables, forks)
}

impl Entry {
    fn open(given: &ArgMatches) -> Result<Entry> {
        let target = given.text("target").map(|text| {
            let pid = text.parse::<i32>().ok().filter(|pid| *pid > 0);
            pid.ok_or_else(|| Failure::new(format!("nsenter: --target: {text:?} is no process number")))
        });
        let target = target.transpose()?;
        let process = target.map(Proc::open).transpose()?;
        let need = || target.ok_or_else(|| Failure::new("nsenter: there is no target").hint("name it: --target PID"));
        let mut kinds = Vec::new();
        let mut files = Vec::new();
        if given.get_flag("all") {
            kinds = foreign_kinds(need()?)?;
        }
        for (_, name, kind, _) in KINDS {
            match given.text(name) {
                None => {}
                Some("") => {
                    need()?;
                    if !kinds.contains(&kind) {
                        kinds.push(kind);
                    }
                }
                Some(file) => {
                    kinds.retain(|other| *other != kind);
                    files.push((kind, open(Path::new(file))?));
                }
            }
        }
        if let Some(text) = given.text("net-socket") {
            let number = text.parse::<i32>().ok().filter(|number| *number >= 0);
            let number =
                number.ok_or_else(|| Failure::new(format!("nsenter: --net-socket: {text:?} is no descriptor")))?;
            kinds.retain(|other| *other != Kind::Net);
            files.push((Kind::Net, lowlevel::network_of_socket(need()?, number)?.into()));
        }
        if given.get_flag("user-parent") {
            let parent = above(target, &kinds, &files)?;
            kinds.retain(|other| *other != Kind::User);
            files.retain(|(other, _)| *other != Kind::User);
            files.push((Kind::User, parent));
        }
        let place = |name: &str, of_target: &str| match given.text(name) {
            None => Ok(None),
            Some("") => open(&PathBuf::from(format!("/proc/{}/{of_target}", need()?))).map(Some),
            Some(directory) => open(Path::new(directory)).map(Some),
        };
        let (root, directory) = (place("root", "root")?, place("wd", "cwd")?);
        let variables = if given.get_flag("env") {
            need()?;
            process.as_ref().map(Proc::environ).transpose()?
        } else {
            None
        };
        Ok(Entry { target, kinds, files, root, directory, variables })
    }

    /// Into the group of version 2 that the target is in.
    fn join_group(&self, given: &ArgMatches) -> Result<()> {
        if !given.get_flag("join-cgroup") {
            return Ok(());
        }
        let fail = |text: &str| Failure::new(format!("nsenter: --join-cgroup: {text}"));
        let pid = self.target.ok_or_else(|| fail("there is no target").hint("name it: --target PID"))?;
        let path = format!("/proc/{pid}/cgroup");
        let groups = std::fs::read_to_string(&path).map_err(|error| Failure::file("nsenter: read", &path, &error))?;
        let group = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mount = mounts.lines().find_map(|line| {
            let (head, tail) = line.split_once(" - ")?;
            tail.starts_with("cgroup2 ").then(|| head.split(' ').nth(4)).flatten()
        });
        let (Some(group), Some(mount)) = (group, mount) else {
            return Err(fail("there are no control groups of version 2 here").hint("`zind doctor` tells what there is"));
        };
        let file = Path::new(mount).join(group).join("cgroup.procs");
        std::fs::write(&file, "0").map_err(|error| Failure::file("nsenter: --join-cgroup: write", &file, &error))
    }

    /// What is executed runs with the label of the target.
    fn follow_context(&self, given: &ArgMatches) -> Result<()> {
        if !given.get_flag("follow-context") {
            return Ok(());
        }
        let fail = |text: &str| Failure::new(format!("nsenter: --follow-context: {text}"));
        let pid = self.target.ok_or_else(|| fail("there is no target").hint("name it: --target PID"))?;
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            return Err(fail("SELinux is not in force here").hint("leave it away"));
        }
        let (of_target, own) = (format!("/proc/{pid}/attr/current"), "/proc/thread-self/attr/exec");
        let context = std::fs::read(&of_target).map_err(|error| Failure::file("nsenter: read", &of_target, &error))?;
        std::fs::write(own, context).map_err(|error| Failure::file("nsenter: write", own, &error))
    }

    fn enter(&self) -> Result<()> {
        let flags = self.kinds.iter().fold(0, |flags, kind| flags | kind.flag());
        // Root keeps its rights over the other namespaces until the user namespace, which comes last; anybody else gets them
        // by it.
        let user_first = !nix::unistd::geteuid().is_root();
        let files = |is_user: bool| {
            let of_kind = self.files.iter().filter(move |(kind, _)| (*kind == Kind::User) == is_user);
            of_kind
                .map(|(kind, file)| lowlevel::setns(file.as_fd(), kind.flag()))
                .collect::<zind_core::Result<Vec<()>>>()
        };
        let by_target = || match self.target {
            Some(pid) if flags != 0 => lowlevel::setns_pid(pid, flags),
            _ => Ok(()),
        };
        if user_first {
            files(true)?;
            by_target()?;
            files(false)?;
        } else if self.kinds.contains(&Kind::User) {
            files(false)?;
            by_target()?;
        } else {
            by_target()?;
            files(false)?;
            files(true)?;
        }
        Ok(())
    }

    /// Root and working directory.
    fn place(&self, given: &ArgMatches) -> Result<()> {
        let fail = |what: &str, errno: nix::errno::Errno| Failure::new(format!("nsenter: {what}: {}", errno.desc()));
        if let Some(root) = &self.root {
            fchdir(root).map_err(|errno| fail("change to the root", errno))?;
            chroot(".").map_err(|errno| fail("change the root", errno))?;
            nix::unistd::chdir("/").map_err(|errno| fail("change to the root", errno))?;
        }
        if let Some(directory) = &self.directory {
            fchdir(directory).map_err(|errno| fail("change the working directory", errno))?;
        }
        if let Some(directory) = given.text("wdns") {
            nix::unistd::chdir(directory).map_err(|errno| fail(&format!("change to {directory}"), errno))?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| Failure::file("nsenter: open", path, &error))
}

/// The user namespace above that which is entered, or the owner of another one that is.
fn above(target: Option<i32>, kinds: &[Kind], files: &[(Kind, File)]) -> Result<File> {
    let of_target = |kind: Kind| match target {
        Some(pid) if kinds.contains(&kind) => open(Path::new(&format!("/proc/{pid}/ns/{}", kind.name()))).map(Some),
        _ => Ok(None),
    };
    let file = |wanted: &dyn Fn(Kind) -> bool| -> Result<Option<File>> {
        if let Some((_, file)) = files.iter().find(|(kind, _)| wanted(*kind)) {
            return Ok(file.try_clone().ok());
        }
        kinds.iter().copied().filter(|kind| wanted(*kind)).find_map(|kind| of_target(kind).transpose()).transpose()
    };
    if let Some(user) = file(&|kind| kind == Kind::User)? {
        return Ok(lowlevel::parent_of_namespace(user.as_fd())?.into());
    }
    let other = file(&|kind| kind != Kind::User)?.ok_or_else(|| {
        Failure::new("nsenter: --user-parent: no other namespace is entered").hint("name one: --user, --net...")
    })?;
    Ok(lowlevel::owner_of_namespace(other.as_fd())?.into())
}

/// What it may do now it may do as another user, too, and after execve(2).
pub fn keep_capabilities(verb: &str) -> Result<()> {
    use rustix::thread::{CapabilitySet, capabilities, configure_capability_in_ambient_set, set_capabilities};
    let fail = |errno: rustix::io::Errno| Failure::new(format!("{verb}: --keep-caps: {errno}"));
    let mut sets = capabilities(None).map_err(fail)?;
    (sets.effective, sets.inheritable) = (sets.permitted, sets.permitted);
    set_capabilities(None, sets).map_err(fail)?;
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if sets.permitted.contains(one) {
            configure_capability_in_ambient_set(one, true).map_err(fail)?;
        }
    }
    Ok(())
}

/// The kinds in which the target is not where the caller is: entering one's own user namespace is an error.
fn foreign_kinds(pid: i32) -> Result<Vec<Kind>> {
    let (own, other) = (Proc::current()?.namespaces()?, Proc::open(pid)?.namespaces()?);
    Ok(other.iter().filter(|of| !own.contains(of)).map(|(kind, _)| *kind).collect())
}

fn credentials(given: &ArgMatches, has_user: bool, keeps: bool) -> Result<()> {
    let (uid, gid) = (given.text("setuid"), given.text("setgid"));
    let becomes_root = has_user && !given.get_flag("preserve-credentials");
    let fail = |what: &str, errno: nix::errno::Errno| Failure::new(format!("nsenter: {what}: {}", errno.desc()));
    let gid = gid.map(|text| id("--setgid", text)).transpose()?.or(becomes_root.then_some(0));
    let uid = uid.map(|text| id("--setuid", text)).transpose()?.or(becomes_root.then_some(0));
    if let Some(gid) = gid {
        // A namespace of one user does not allow it, and there are no groups to lose then.
        let dropped = setgroups(&[]);
        if given.text("setgid").is_some() && !becomes_root {
            dropped.map_err(|errno| fail("drop the groups", errno))?;
        }
        setgid(Gid::from_raw(gid)).map_err(|errno| fail("become the group", errno))?;
    }
    if let Some(uid) = uid {
        if keeps {
            let fail = |errno: rustix::io::Errno| Failure::new(format!("nsenter: --keep-caps: {errno}"));
            rustix::thread::set_keep_capabilities(true).map_err(fail)?;
        }
        setuid(Uid::from_raw(uid)).map_err(|errno| fail("become the user", errno))?;
    }
    Ok(())
}

fn execute(
    given: &ArgMatches,
    variables: Option<Vec<(std::ffi::OsString, std::ffi::OsString)>>,
    forks: bool,
) -> Result {
    let (argv, argv0) = or_shell(given.program());
    let mut command = process::Command::new(&argv[0]);
    command.args(&argv[1..]);
    if let Some(name) = argv0 {
        command.arg0(name);
    }
    if let Some(variables) = variables {
        command.env_clear().envs(variables);
    }
    let explain = |error: &std::io::Error| {
        let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
        Failure::file("nsenter: execute", Path::new(&argv[0]), error).code(code)
    };
    if !forks {
        return Err(explain(&command.exec()));
    }
    // The program gets them, too: it is in the foreground of the same terminal.
    let _held = Signals::hold(&[nix::sys::signal::Signal::SIGINT, nix::sys::signal::Signal::SIGQUIT])?;
    let status = command.status().map_err(|error| explain(&error))?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128 + signal as u8,
        (None, None) => crate::failure::OWN,
    })
}
