//! `zind load`, `zind save`, `zind import`
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};
use zind_core::image::History;
use zind_core::{ArchiveFormat, ImageConfig};

use super::transfer::tell;
use super::{find, full_name};
use crate::Context;
use crate::arguments::{Given, path, switch, value, words};
use crate::failure::{Failure, Result};
use crate::progress::Bars;
use crate::table::print;

fn quiet() -> Arg {
    switch("quiet", "No bars").short('q')
}

pub fn load_arguments(command: Command) -> Command {
    command
        .arg(path("input", "FILE", "A tar or OCI layout directory, plain or compressed; stdin without it").short('i'))
        .arg(quiet())
}

/// Writes the names of the images, or their ids.
pub fn load(given: &ArgMatches, context: &Context) -> Result {
    let input = match given.file("input") {
        Some(path) if path != Path::new("-") => path,
        _ => stdin("load")?,
    };
    let store = context.store()?;
    let mut bars = Bars::new(given.is_on("quiet"))?;
    let loaded = store.load(&input, &mut bars);
    for image in bars.end(loaded)? {
        match image.tags() {
            [] => tell(&image)?,
            tags => print(&tags.iter().map(|tag| format!("{tag}\n")).collect::<String>())?,
        }
    }
    Ok(0)
}

/// Stdin as a file, unless somebody sits there.
fn stdin(verb: &str) -> Result<PathBuf> {
    if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return Err(Failure::new(format!("{verb}: stdin is a terminal")).hint("name the archive, or pipe it in"));
    }
    Ok("/dev/stdin".into())
}

pub fn save_arguments(command: Command) -> Command {
    command
        .arg(path("output", "FILE", "The archive; it must not be there yet").short('o').required(true))
        .arg(value("format", "FORMAT", "\"oci\", \"oci-dir\" or \"docker\"").default_value("docker"))
        .arg(quiet())
        .arg(words("names", "IMAGE", 1..))
}

pub fn save(given: &ArgMatches, context: &Context) -> Result {
    let format = match given.text("format").unwrap_or_default() {
        "oci" | "oci-archive" => ArchiveFormat::OciArchive,
        "oci-dir" => ArchiveFormat::OciDirectory,
        "docker" | "docker-archive" => ArchiveFormat::DockerArchive,
        other => return Err(Failure::new(format!("--format: {other:?} is none of docker, oci, oci-dir"))),
    };
    let output = given.file("output").unwrap_or_default();
    let store = context.store()?;
    let images = given.texts("names").iter().map(|name| find(&store, name)).collect::<Result<Vec<_>>>()?;
    let mut bars = Bars::new(given.is_on("quiet"))?;
    let saved = store.save(&images, &output, format, &mut bars);
    bars.end(saved).map(|()| 0)
}

pub fn import_arguments(command: Command) -> Command {
    command
        .arg(value("message", "TEXT", "What the history says").short('m'))
        .arg(value("platform", "OS/ARCH", "What it runs on, if not this machine's"))
        .arg(quiet())
        .arg(words("names", "SOURCE [NAME]", 1..=2).help("A directory or a tar, - for stdin; and a name"))
}

/// Writes the id of the image.
pub fn import(given: &ArgMatches, context: &Context) -> Result {
    let names = given.texts("names");
    let source = if names[0] == "-" { stdin("import")? } else { names[0].into() };
    let tag = names.get(1).map(|name| full_name(name)).transpose()?;
    let mut config = ImageConfig::new();
    if let Some(platform) = super::platform(given)? {
        (config.os, config.architecture, config.variant) = (platform.os, platform.architecture, platform.variant);
    }
    if let Some(text) = given.text("message") {
        let mut entry = History::default();
        entry.comment = Some(text.to_owned());
        config.history.push(entry);
    }
    let store = context.store()?;
    let mut bars = Bars::new(given.is_on("quiet"))?;
    let imported = store.import_rootfs(&source, tag.as_deref(), config, &mut bars);
    tell(&bars.end(imported)?).map(|()| 0)
}
