//! `doctor`, `version`, and what packages are made of: completions and man pages, from the same table as the verbs.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::path::Path;

use clap::{ArgMatches, Command};
use serde_json::json;

use crate::arguments::{Given, format, words};
use crate::failure::{Failure, Result};
use crate::table::{Format, json, print};
use crate::{Context, verbs};

pub fn doctor_arguments(command: Command) -> Command {
    command.arg(format())
}

/// What works here. The exit status is 1 if something does not.
pub fn doctor(given: &ArgMatches, _: &Context) -> Result {
    let format = Format::of(given)?;
    let doctor = zind_core::doctor();
    match format {
        Format::Json => json(&doctor.to_json())?,
        Format::Table => print(&format!("{}\n", doctor.to_string().trim_end()))?,
    }
    Ok(u8::from(!doctor.ok()))
}

pub fn version_arguments(command: Command) -> Command {
    command.arg(format())
}

pub fn version(given: &ArgMatches, _: &Context) -> Result {
    let version = env!("CARGO_PKG_VERSION");
    match Format::of(given)? {
        Format::Json => json(&json!({"version": version, "launcher_size": zind_core::LAUNCHER_SIZE}))?,
        Format::Table => print(&format!("zind {version}\n"))?,
    }
    Ok(0)
}

pub fn completion_arguments(command: Command) -> Command {
    command.arg(words("shell", "SHELL", 1).help("bash, elvish, fish, powershell or zsh"))
}

pub fn completion(given: &ArgMatches, _: &Context) -> Result {
    let name = given.text("shell").unwrap_or_default();
    let shell: clap_complete::Shell = name.parse().map_err(|_| {
        Failure::new(format!("completion: there is none for {name:?}"))
            .hint("it is one of bash, elvish, fish, powershell, zsh")
    })?;
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut verbs::tree(), "zind", &mut text);
    print(&String::from_utf8_lossy(&text)).map(|()| 0)
}

pub fn man_arguments(command: Command) -> Command {
    command.arg(words("directory", "DIR", 1).help("Where they are written; it is made if it is not there"))
}

/// `zind.1` and a page for each verb.
pub fn man(given: &ArgMatches, _: &Context) -> Result {
    let directory = Path::new(given.text("directory").unwrap_or_default()).to_owned();
    std::fs::create_dir_all(&directory).map_err(|error| Failure::file("make", &directory, &error))?;
    let mut tree = verbs::tree();
    tree.build();
    let pages = tree.get_subcommands().filter(|verb| verb.get_name() != "help").map(|verb| {
        // Leaked, because clap keeps names as 'static without its feature "string"; there are thirty of them.
        let name: &'static str = Box::leak(format!("zind-{}", verb.get_name()).into_boxed_str());
        verb.clone().name(name)
    });
    for page in std::iter::once(tree.clone()).chain(pages) {
        let path = directory.join(format!("{}.1", page.get_name()));
        let mut text = Vec::new();
        let rendered = clap_mangen::Man::new(page).render(&mut text).and_then(|()| std::fs::write(&path, text));
        rendered.map_err(|error| Failure::file("write", &path, &error))?;
    }
    Ok(0)
}

pub fn reference_arguments(command: Command) -> Command {
    command
}

/// `docs/cli.md`: the help of every verb.
pub fn reference(_: &ArgMatches, _: &Context) -> Result {
    let mut text = include_str!("reference.md").to_owned();
    for verb in verbs::VERBS.iter().filter(|verb| !verb.is_hidden()) {
        let _ = write!(text, "\n## zind {}\n```text\n{}\n```\n", verb.name, verb.help().trim_end());
    }
    print(&text).map(|()| 0)
}
