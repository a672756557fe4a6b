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

use super::{ABSENT, KINDS, id, namespace_options, of_util_linux, or_shell};
use crate::Context;
use crate::arguments::{Given, optional, takes_program, value};
use crate::failure::{Failure, Result};
use crate::signals::Signals;

/// Options of util-linux that are refused with a word.
const NOT_YET: [(&str, Option<char>); 4] =
    [("net-socket", Some('N')), ("join-cgroup", Some('c')), ("user-parent", None), ("follow-context", Some('Z'))];

pub fn arguments(command: Command) -> Command {
    let on = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    let command = takes_program(of_util_linux(command), "zind nsenter [OPTIONS] [PROGRAM [ARG]...]");
    let command = namespace_options(command);
    let command = NOT_YET.iter().fold(command, |command, (name, letter)| {
        let arg = optional(name, "VALUE", ABSENT).hide(true);
        command.arg(match letter {
            Some(letter) => arg.short(*letter),
            None => arg,
        })
    });
    command
        .arg(on("all", "All namespaces of the target").short('a'))
        .arg(value("target", "PID", "The process whose namespaces are entered").short('t'))
        .arg(value("setuid", "UID", "Become this user").short('S'))
        .arg(value("setgid", "GID", "Become this group, without others").short('G'))
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
    if let Some((name, _)) = NOT_YET.iter().find(|(name, _)| given.text(name).is_some()) {
        return Err(Failure::new(format!("nsenter: --{name}: {ABSENT}")));
    }
    let entry = Entry::open(given)?;
    let has = |kind: Kind| entry.kinds.contains(&kind) || entry.files.iter().any(|(other, _)| *other == kind);
    let (has_user, forks) = (has(Kind::User), (has(Kind::Pid) || has(Kind::Time)) && !given.get_flag("no-fork"));
    entry.enter()?;
    entry.place(given)?;
    credentials(given, has_user)?;
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

/// The kinds in which the target is not where the caller is: entering one's own user namespace is an error.
fn foreign_kinds(pid: i32) -> Result<Vec<Kind>> {
    let (own, other) = (Proc::current()?.namespaces()?, Proc::open(pid)?.namespaces()?);
    Ok(other.iter().filter(|of| !own.contains(of)).map(|(kind, _)| *kind).collect())
}

fn credentials(given: &ArgMatches, has_user: bool) -> Result<()> {
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
