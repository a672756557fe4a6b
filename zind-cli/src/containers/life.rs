//! `zind start stop kill rm restart pause unpause rename wait update`
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{ArgMatches, Command};
use zind_core::Container;

use super::{each, each_done, find, streams};
use crate::Context;
use crate::arguments::{Given, number, switch, value, words};
use crate::failure::{Failure, Result};
use crate::run::foreground::status;
use crate::table::print;
use crate::text::{parse_duration, parse_signal};

/// How long Docker waits, too.
const PATIENCE: Duration = Duration::from_secs(10);

/// The label that says it of a container: `--stop-timeout`.
pub const STOP_TIMEOUT: &str = "zind.stop-timeout";

fn names(command: Command) -> Command {
    command.arg(words("names", "CONTAINER", 1..).help("Name, id or the beginning of one"))
}

/// What was said when it is stopped.
fn patience(given: &ArgMatches) -> Result<Option<Duration>> {
    given.text("time").map(|text| parse_duration("--time", text)).transpose()
}

/// What was said when it was made. Of one that is gone meanwhile the stop tells.
fn patience_with(container: &Container) -> Duration {
    container.labels().map_or(PATIENCE, |labels| patience_of(&labels))
}

/// A label that is no time, which somebody has given by hand, keeps nobody from stopping it.
fn patience_of(labels: &BTreeMap<String, String>) -> Duration {
    labels.get(STOP_TIMEOUT).and_then(|text| parse_duration(STOP_TIMEOUT, text).ok()).unwrap_or(PATIENCE)
}

fn time(command: Command) -> Command {
    command.arg(
        number("time", "SECONDS", "How long after the signal it is killed; without it, its own --stop-timeout, or 10")
            .short('t')
            .alias("timeout"),
    )
}

/// To each of them.
fn all(given: &ArgMatches, context: &Context, act: impl Fn(&Container) -> zind_core::Result<()>) -> Result {
    let containers = context.containers()?;
    each(&given.texts("names"), |name| Ok(act(&containers.find(name)?)?))
}

pub fn start_arguments(command: Command) -> Command {
    names(command)
        .arg(switch("attach", "Stay with its streams; its exit status is zind's").short('a'))
        .arg(switch("interactive", "Pass stdin on, too").short('i'))
}

pub fn start(given: &ArgMatches, context: &Context) -> Result {
    let is_attached = given.is_on("attach") || given.is_on("interactive");
    match (&given.texts("names")[..], is_attached) {
        ([name], true) => {
            let container = find(context, name)?;
            let how = streams::How { interactive: given.is_on("interactive"), ..streams::How::default() };
            streams::run(&container, &how)
        }
        (_, true) => Err(Failure::new("start: several containers cannot be attached to at once")),
        (_, false) => all(given, context, |container| {
            container.detach()?;
            container.start()
        }),
    }
}

pub fn stop_arguments(command: Command) -> Command {
    time(names(command))
}

pub fn stop(given: &ArgMatches, context: &Context) -> Result {
    let patience = patience(given)?;
    all(given, context, |container| container.stop(patience.unwrap_or_else(|| patience_with(container))).map(drop))
}

pub fn restart_arguments(command: Command) -> Command {
    time(names(command))
}

pub fn restart(given: &ArgMatches, context: &Context) -> Result {
    let patience = patience(given)?;
    all(given, context, |container| {
        container.detach()?;
        container.restart(patience.unwrap_or_else(|| patience_with(container)))
    })
}

pub fn kill_arguments(command: Command) -> Command {
    names(command).arg(value("signal", "SIGNAL", "The signal, by name or number; KILL without it").short('s'))
}

pub fn kill(given: &ArgMatches, context: &Context) -> Result {
    let signal = parse_signal("--signal", given.text("signal").unwrap_or("KILL"))?;
    all(given, context, |container| container.kill(signal))
}

pub fn rm_arguments(command: Command) -> Command {
    names(command)
        .arg(
            switch("force", "End it first, if it runs; what is not there is no error, and its name is not written")
                .short('f'),
        )
        .arg(switch("volumes", "Accepted for habit: volumes have names here, and stay").short('v').hide(true))
}

pub fn rm(given: &ArgMatches, context: &Context) -> Result {
    let force = given.is_on("force");
    let containers = context.containers()?;
    each_done(&given.texts("names"), |name| match containers.find(name) {
        Err(zind_core::Error::NotFound { .. }) if force => Ok(false),
        found => Ok(found?.delete(force).map(|()| true)?),
    })
}

pub fn pause_arguments(command: Command) -> Command {
    names(command)
}

pub fn pause(given: &ArgMatches, context: &Context) -> Result {
    all(given, context, Container::pause)
}

pub fn unpause(given: &ArgMatches, context: &Context) -> Result {
    all(given, context, Container::resume)
}

pub fn rename_arguments(command: Command) -> Command {
    command
        .arg(words("container", "CONTAINER", 1).help("Name, id or the beginning of one"))
        .arg(words("name", "NAME", 1).help("Its new name"))
}

pub fn rename(given: &ArgMatches, context: &Context) -> Result {
    let container = find(context, given.text("container").unwrap_or_default())?;
    container.rename(given.text("name").unwrap_or_default())?;
    Ok(0)
}

pub fn wait_arguments(command: Command) -> Command {
    names(command)
}

/// Writes the exit status of each.
pub fn wait(given: &ArgMatches, context: &Context) -> Result {
    for name in given.texts("names") {
        let exit = find(context, name)?.wait(None)?.ok_or(zind_core::Error::Interrupted)?;
        print(&format!("{}\n", status(exit)))?;
    }
    Ok(0)
}

pub fn update_arguments(command: Command) -> Command {
    crate::run::arguments::limits_of_running(names(command))
}

/// New limits; what is not named stays as it is.
pub fn update(given: &ArgMatches, context: &Context) -> Result {
    let limits = crate::run::settings::resources(given)?;
    let limits =
        limits.ok_or_else(|| Failure::new("update: it lacks a limit").hint("`zind update --help` shows them"))?;
    all(given, context, |container| container.update(&limits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_says_how_long_it_is_waited_for() {
        let of = |text: &str| patience_of(&[(STOP_TIMEOUT.to_owned(), text.to_owned())].into());
        assert_eq!(of("3"), Duration::from_secs(3));
        assert_eq!(of("1m30s"), Duration::from_secs(90));
        assert_eq!((of("soon"), of("-1")), (PATIENCE, PATIENCE));
        assert_eq!(patience_of(&BTreeMap::new()), PATIENCE);
    }
}
