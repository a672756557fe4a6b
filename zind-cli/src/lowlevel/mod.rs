//! The low level under util-linux's own names: `unshare(1)`, `nsenter(1)`, `lsns(8)`.

mod direct;
pub mod lsns;
pub mod nsenter;
pub mod unshare;

use std::ffi::OsString;
use std::path::Path;

use clap::{Arg, Command};
use zind_core::Kind;

use crate::arguments::optional;
use crate::failure::{Failure, Result};

/// The options of namespaces: letter, name, kind, and what stands in the help.
const KINDS: [(char, &str, Kind, &str); 8] = [
    ('m', "mount", Kind::Mount, "The mount namespace"),
    ('u', "uts", Kind::Uts, "The UTS namespace: host name"),
    ('i', "ipc", Kind::Ipc, "The IPC namespace"),
    ('n', "net", Kind::Net, "The network namespace"),
    ('p', "pid", Kind::Pid, "The pid namespace"),
    ('U', "user", Kind::User, "The user namespace"),
    ('C', "cgroup", Kind::Cgroup, "The cgroup namespace"),
    ('T', "time", Kind::Time, "The time namespace"),
];

/// `-m`, `--mount[=FILE]` and so on.
fn namespace_options(command: Command) -> Command {
    KINDS
        .iter()
        .fold(command, |command, (letter, name, _, help)| command.arg(optional(name, "FILE", help).short(*letter)))
}

/// Help of util-linux has `-h` and `-V`.
fn of_util_linux(command: Command) -> Command {
    command
        .infer_long_args(true)
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .arg(Arg::new("version").long("version").short('V').help("The version").action(clap::ArgAction::Version))
}

/// What is run if nothing is named: a login shell of the user's, as `$SHELL` has it.
fn or_shell(program: Vec<OsString>) -> (Vec<OsString>, Option<OsString>) {
    if !program.is_empty() {
        return (program, None);
    }
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    let mut name = OsString::from("-");
    name.push(Path::new(&shell).file_name().unwrap_or(&shell));
    (vec![shell], Some(name))
}

/// A user or group by number.
fn id(option: &str, text: &str) -> Result<u32> {
    let id = text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    id.ok_or_else(|| Failure::new(format!("{option}: {text:?} is no id")).hint("write a number"))
}

/// Options of util-linux that are not there yet.
const ABSENT: &str = "this option of util-linux is not there yet";
