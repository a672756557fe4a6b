//! The table of verbs, and the overview that is made of it.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use clap::{ArgMatches, Command};

use crate::failure::{Failure, Result};
use crate::{Context, arguments, containers, images, lowlevel, packaging, run};

/// A verb: its arguments, and what it does.
pub struct Verb {
    /// What is typed.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// The heading it stands below; empty for what is not shown.
    group: &'static str,
    /// Adds its arguments.
    arguments: fn(Command) -> Command,
    /// Does it; the result is the exit status.
    pub run: fn(&ArgMatches, &Context) -> Result,
}

impl Verb {
    /// Its arguments.
    pub fn command(&self) -> Command {
        (self.arguments)(arguments::command(self.name, self.about))
    }

    /// What `--help` shows.
    pub fn help(&self) -> String {
        arguments::plain(&self.command().bin_name(format!("zind {}", self.name)).render_long_help().to_string())
    }

    /// Not shown in overviews.
    pub fn is_hidden(&self) -> bool {
        self.group.is_empty()
    }
}

const RUN: &str = "Run";
const CONTAINERS: &str = "Containers";
const IMAGES: &str = "Images";
const LOW: &str = "Low level";
const OTHER: &str = "Other";

/// Every verb, in the order of the overview.
#[rustfmt::skip]
pub static VERBS: &[Verb] = &[
    Verb { name: "run", about: "Run a program in a container of its own", group: RUN, arguments: run::arguments, run: run::run },
    Verb { name: "create", about: "Make a container, and start nothing", group: CONTAINERS, arguments: run::create_arguments, run: run::create },
    Verb { name: "ps", about: "List containers", group: CONTAINERS, arguments: containers::list::arguments, run: containers::list::run },
    Verb { name: "exec", about: "Run a further program in a running container", group: CONTAINERS, arguments: containers::exec::arguments, run: containers::exec::run },
    Verb { name: "logs", about: "Show what a container has written", group: CONTAINERS, arguments: containers::logs::arguments, run: containers::logs::run },
    Verb { name: "attach", about: "Connect to the streams of a container", group: CONTAINERS, arguments: containers::streams::attach_arguments, run: containers::streams::attach },
    Verb { name: "start", about: "Start containers that do not run", group: CONTAINERS, arguments: containers::life::start_arguments, run: containers::life::start },
    Verb { name: "stop", about: "Ask containers to end, and end them after a while", group: CONTAINERS, arguments: containers::life::stop_arguments, run: containers::life::stop },
    Verb { name: "restart", about: "Stop containers and start them", group: CONTAINERS, arguments: containers::life::restart_arguments, run: containers::life::restart },
    Verb { name: "kill", about: "Send containers a signal", group: CONTAINERS, arguments: containers::life::kill_arguments, run: containers::life::kill },
    Verb { name: "pause", about: "Stop everything in containers until unpause", group: CONTAINERS, arguments: containers::life::pause_arguments, run: containers::life::pause },
    Verb { name: "unpause", about: "Let everything in containers go on", group: CONTAINERS, arguments: containers::life::pause_arguments, run: containers::life::unpause },
    Verb { name: "wait", about: "Wait until containers have ended", group: CONTAINERS, arguments: containers::life::wait_arguments, run: containers::life::wait },
    Verb { name: "rm", about: "Delete containers", group: CONTAINERS, arguments: containers::life::rm_arguments, run: containers::life::rm },
    Verb { name: "rename", about: "Give a container another name", group: CONTAINERS, arguments: containers::life::rename_arguments, run: containers::life::rename },
    Verb { name: "update", about: "Change limits of containers, also while they run", group: CONTAINERS, arguments: containers::life::update_arguments, run: containers::life::update },
    Verb { name: "top", about: "Show what runs in a container", group: CONTAINERS, arguments: containers::look::top_arguments, run: containers::look::top },
    Verb { name: "stats", about: "Show what containers use", group: CONTAINERS, arguments: containers::look::stats_arguments, run: containers::look::stats },
    Verb { name: "cp", about: "Copy files into and out of a container", group: CONTAINERS, arguments: containers::copy::arguments, run: containers::copy::run },
    Verb { name: "diff", about: "Tell what a container has changed", group: CONTAINERS, arguments: containers::changes::diff_arguments, run: containers::changes::diff },
    Verb { name: "commit", about: "Make an image of what a container has changed", group: CONTAINERS, arguments: containers::changes::commit_arguments, run: containers::changes::commit },
    Verb { name: "export", about: "Write the root of a container as a tar", group: CONTAINERS, arguments: containers::changes::export_arguments, run: containers::changes::export },
    Verb { name: "events", about: "Tell what happens to containers", group: CONTAINERS, arguments: containers::events::arguments, run: containers::events::run },
    Verb { name: "images", about: "List images", group: IMAGES, arguments: images::list::arguments, run: images::list::run },
    Verb { name: "pull", about: "Fetch an image from a registry", group: IMAGES, arguments: images::transfer::pull_arguments, run: images::transfer::pull },
    Verb { name: "push", about: "Give an image to a registry", group: IMAGES, arguments: images::transfer::push_arguments, run: images::transfer::push },
    Verb { name: "load", about: "Take the images of an archive", group: IMAGES, arguments: images::archive::load_arguments, run: images::archive::load },
    Verb { name: "save", about: "Write images into an archive", group: IMAGES, arguments: images::archive::save_arguments, run: images::archive::save },
    Verb { name: "import", about: "Make an image of a root file system", group: IMAGES, arguments: images::archive::import_arguments, run: images::archive::import },
    Verb { name: "tag", about: "Give an image one more name", group: IMAGES, arguments: images::names::tag_arguments, run: images::names::tag },
    Verb { name: "rmi", about: "Take names of images away", group: IMAGES, arguments: images::names::rmi_arguments, run: images::names::rmi },
    Verb { name: "history", about: "Show how an image came to be", group: IMAGES, arguments: images::look::history_arguments, run: images::look::history },
    Verb { name: "inspect", about: "Show all that is known, as JSON", group: IMAGES, arguments: images::look::inspect_arguments, run: images::look::inspect },
    Verb { name: "prune", about: "Delete containers that do not run, and what nothing refers to", group: IMAGES, arguments: images::look::prune_arguments, run: images::look::prune },
    Verb { name: "unshare", about: "Run a program in new namespaces: unshare(1)", group: LOW, arguments: lowlevel::unshare::arguments, run: lowlevel::unshare::run },
    Verb { name: "nsenter", about: "Run a program in namespaces of other processes: nsenter(1)", group: LOW, arguments: lowlevel::nsenter::arguments, run: lowlevel::nsenter::run },
    Verb { name: "lsns", about: "List namespaces: lsns(8)", group: LOW, arguments: lowlevel::lsns::arguments, run: lowlevel::lsns::run },
    Verb { name: "doctor", about: "Tell what works on this machine, what not, and the cure", group: OTHER, arguments: packaging::doctor_arguments, run: packaging::doctor },
    Verb { name: "version", about: "Show the version", group: OTHER, arguments: packaging::version_arguments, run: packaging::version },
    Verb { name: "completion", about: "Write the completion of a shell", group: "", arguments: packaging::completion_arguments, run: packaging::completion },
    Verb { name: "man", about: "Write the man pages into a directory", group: "", arguments: packaging::man_arguments, run: packaging::man },
    Verb { name: "reference", about: "Write docs/cli.md", group: "", arguments: packaging::reference_arguments, run: packaging::reference },
];

/// Verbs of other tools that zind does not have, and what there is instead.
const ABSENT: &[(&str, &str)] = &[
    ("build", "there are no Dockerfiles yet; zind.build() of the library makes images step by step"),
    ("login", "zind reads the credentials that podman and docker keep; or --creds USER:PASSWORD"),
    ("logout", "zind keeps no credentials"),
    ("network", "there are no networks but none and the host's yet: zind run --network host"),
    ("port", "there are no published ports yet: zind run --network host"),
    ("search", "registries are asked by name: zind pull NAME"),
    ("volume", "volumes are made by their first use: zind run -v NAME:/path"),
];

/// The verb of that name.
pub fn find(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name)
}

/// What is said to a verb that zind knows of and does not have.
pub fn absent(name: &str) -> Option<Failure> {
    let (_, instead) = ABSENT.iter().find(|(absent, _)| *absent == name)?;
    Some(Failure::new(format!("{name}: zind does not have it")).hint(*instead))
}

/// The verb that somebody may have meant: one letter too many, too few, wrong or swapped, or a name of old.
pub fn similar(name: &str) -> Option<&'static str> {
    VERBS.iter().filter(|verb| !verb.is_hidden()).map(|verb| verb.name).find(|known| is_near(known, name))
}

fn is_near(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[head..], &b[head..]);
    let same = |skip_a: usize, skip_b: usize| a.get(skip_a..).is_some_and(|a| Some(a) == b.get(skip_b..));
    same(1, 0) || same(0, 1) || same(1, 1) || (same(2, 2) && a.len() > 1 && a[0] == b[1] && a[1] == b[0])
}

/// `zind --help`.
pub fn overview() -> String {
    let mut text = "Linux containers without a daemon\n\nUsage: zind [--store DIR] COMMAND [ARG]...\n".to_owned();
    for group in [RUN, CONTAINERS, IMAGES, LOW, OTHER] {
        let _ = writeln!(text, "\n{group}:");
        for verb in VERBS.iter().filter(|verb| verb.group == group) {
            let _ = writeln!(text, "  {:<10} {}", verb.name, verb.about);
        }
    }
    text + "\nOptions:\n  --store DIR  Where images and containers are kept, in place of the user's own place; or ZIND_STORE in the\n               \
        environment\n  \
        --help       This text; `zind COMMAND --help` has more\n  --version    The version\n\n\
        `zind completion SHELL` writes the completion of bash, elvish, fish, powershell or zsh, `zind man DIR` the man pages.\n"
}

/// All of it as one command, for completions and man pages.
pub fn tree() -> Command {
    let root = arguments::command("zind", "Linux containers without a daemon").version(env!("CARGO_PKG_VERSION"));
    let root = root.arg(arguments::path("store", "DIR", "Where images and containers are kept"));
    VERBS.iter().filter(|verb| !verb.is_hidden()).fold(root, |root, verb| root.subcommand(verb.command()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        VERBS.iter().for_each(|verb| verb.command().debug_assert());
        tree().debug_assert();
    }

    #[test]
    fn a_slip_is_understood() {
        assert_eq!(similar("rnu"), Some("run"));
        assert_eq!(similar("image"), Some("images"));
        assert_eq!(similar("pul"), Some("pull"));
        assert_eq!(similar("xyz"), None);
        assert!(ABSENT.iter().all(|(name, _)| find(name).is_none()));
    }
}
