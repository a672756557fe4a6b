//! `zind exec`
#![forbid(unsafe_code)]

use clap::{ArgMatches, Command};
use zind_core::terminal::Size;
use zind_core::{Exec, Stdio, User};

use super::find;
use crate::Context;
use crate::arguments::{Given, list, number, switch, takes_program, value};
use crate::failure::{Failure, Result};
use crate::run::foreground;
use crate::signals::Signals;

pub fn arguments(command: Command) -> Command {
    takes_program(command, "zind exec [OPTIONS] CONTAINER COMMAND [ARG]...")
        .arg(switch("interactive", "Pass stdin on; else it is empty").short('i'))
        .arg(switch("tty", "A terminal of its own").short('t'))
        .arg(switch("detach", "In the background").short('d'))
        .arg(list("env", "NAME[=VALUE]", "Set a variable; without a value, to the caller's").short('e'))
        .arg(list("env-file", "FILE", "Variables, one in a line"))
        .arg(value("workdir", "DIR", "Working directory").short('w'))
        .arg(number("user", "USER[:GROUP]", "By name or number").short('u'))
        .arg(switch("privileged", "All capabilities, and no filter"))
}

/// A further program in a running container, with the container's own user, directory and variables unless it says otherwise.
pub fn run(given: &ArgMatches, context: &Context) -> Result {
    let mut words = given.program();
    if words.len() < 2 {
        let what = if words.is_empty() { "the container" } else { "the command" };
        return Err(Failure::new(format!("exec: it lacks {what}")).hint("write zind exec CONTAINER COMMAND"));
    }
    let name = words.remove(0);
    let container = find(context, &name.to_string_lossy())?;
    let interactive = given.is_on("interactive");
    let mut exec = Exec::new(words);
    exec.env = crate::run::settings::variables(given)?;
    exec.cwd = given.text("workdir").map(Into::into);
    exec.user = given.text("user").map(|text| User::Name(text.to_owned()));
    exec.privileged = given.is_on("privileged");
    if !interactive {
        exec.stdin = Stdio::Null;
    }
    if given.is_on("detach") {
        (exec.stdin, exec.stdout, exec.stderr) = (Stdio::Null, Stdio::Null, Stdio::Null);
        exec.outlive_owner = true;
        container.exec(&exec)?.expect_no_questions()?;
        return Ok(0);
    }
    if given.is_on("tty") {
        exec.terminal = Some(Size::of(std::io::stdout()).unwrap_or_default());
        let process = container.exec(&exec)?;
        process.expect_no_questions()?;
        return foreground::in_terminal(&process, interactive, None);
    }
    let signals = Signals::hold(Signals::PASSED_ON)?;
    let process = container.exec(&exec)?;
    process.expect_no_questions()?;
    foreground::stay(&process, Some(&signals), foreground::Terminal::Apart { passes_signals: true }, None)
}
