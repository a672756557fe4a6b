//! `zind load`, `zind save`, `zind import`
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Arg, ArgMatches, Command};
use rustix::fs::{Mode, OFlags};
use zind_core::image::History;
use zind_core::{ArchiveFormat, ImageConfig, Store};

use super::transfer::tell;
use super::{find, full_name};
use crate::Context;
use crate::arguments::{Given, path, switch, value, words};
use crate::failure::{Failure, Result};
use crate::progress::Bars;
use crate::table::print;
use crate::text::rfc3339;

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
    let store = context.store()?;
    let input = Input::of("load", given.file("input").filter(|path| path != Path::new("-")), &store)?;
    let mut bars = Bars::new(given.is_on("quiet"))?;
    let loaded = store.load(&input.path(), &mut bars);
    for image in bars.end(loaded)? {
        match image.tags() {
            [] => tell(&image)?,
            tags => print(&tags.iter().map(|tag| format!("{tag}\n")).collect::<String>())?,
        }
    }
    Ok(0)
}

/// An archive, or stdin as one.
enum Input {
    Path(PathBuf),
    /// A copy of a pipe that has no name.
    Copy(File),
}

impl Input {
    fn of(verb: &str, path: Option<PathBuf>, store: &Store) -> Result<Input> {
        if let Some(path) = path {
            return Ok(Input::Path(path));
        }
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            return Err(Failure::new(format!("{verb}: stdin is a terminal")).hint("name the archive, or pipe it in"));
        }
        let mut copy = nameless(store)?;
        std::io::copy(&mut stdin.lock(), &mut copy).map_err(|error| Failure::file("copy", "stdin", &error))?;
        Ok(Input::Copy(copy))
    }

    fn path(&self) -> PathBuf {
        match self {
            Input::Path(path) => path.clone(),
            Input::Copy(file) => format!("/proc/self/fd/{}", file.as_raw_fd()).into(),
        }
    }
}

/// A file on the store's disk that is gone when it is closed.
fn nameless(store: &Store) -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let opened = rustix::fs::open(store.place(), flags, Mode::RUSR | Mode::WUSR);
    opened.map(File::from).map_err(|errno| Failure::file("make a file in", store.place(), &errno.into()))
}

pub fn save_arguments(command: Command) -> Command {
    command
        .arg(path("output", "FILE", "The archive, which must not be there yet; stdout without it").short('o'))
        .arg(value("format", "FORMAT", "\"oci\", \"oci-dir\" or \"docker\"").default_value("docker"))
        .arg(quiet())
        .arg(words("names", "IMAGE", 1..).help("Name or id"))
}

pub fn save(given: &ArgMatches, context: &Context) -> Result {
    let format = match given.text("format").unwrap_or_default() {
        "oci" | "oci-archive" => ArchiveFormat::OciArchive,
        "oci-dir" => ArchiveFormat::OciDirectory,
        "docker" | "docker-archive" => ArchiveFormat::DockerArchive,
        other => return Err(Failure::new(format!("--format: {other:?} is none of docker, oci, oci-dir"))),
    };
    let store = context.store()?;
    let images = given.texts("names").iter().map(|name| find(&store, name)).collect::<Result<Vec<_>>>()?;
    let mut bars = Bars::new(given.is_on("quiet"))?;
    if let Some(output) = given.file("output").filter(|path| path != Path::new("-")) {
        let saved = store.save(&images, &output, format, &mut bars);
        return bars.end(saved).map(|()| 0);
    }
    let mut stdout = std::io::stdout().lock();
    if stdout.is_terminal() || format == ArchiveFormat::OciDirectory {
        return Err(Failure::new("save: an archive is nothing for a terminal").hint("write it to a file: -o FILE"));
    }
    // Where nobody else can look, since its name is there until it is written.
    let directory = nix::unistd::mkdtemp(&store.place().join("save-XXXXXX"))
        .map_err(|errno| Failure::file("make a directory in", store.place(), &errno.into()))?;
    let saved = store.save(&images, &directory.join("archive"), format, &mut bars);
    let opened = File::open(directory.join("archive"));
    let _ = std::fs::remove_dir_all(&directory);
    bars.end(saved)?;
    let mut archive = opened.map_err(|error| Failure::file("open", &directory, &error))?;
    std::io::copy(&mut archive, &mut stdout)?;
    Ok(0)
}

pub fn import_arguments(command: Command) -> Command {
    command
        .arg(value("message", "TEXT", "What the history says").short('m'))
        .arg(value("platform", "OS/ARCH", "What it runs on, if not this machine's"))
        .arg(quiet())
        .arg(words("source", "SOURCE", 1).help("A directory or a tar, plain or compressed; - is stdin"))
        .arg(words("name", "NAME[:TAG]", 0..=1).help("The name of the image; without it, it has an id only"))
}

/// Writes the id of the image.
pub fn import(given: &ArgMatches, context: &Context) -> Result {
    let store = context.store()?;
    let source = given.text("source").map(PathBuf::from);
    let source = Input::of("import", source.filter(|path| path != Path::new("-")), &store)?;
    let tag = given.text("name").map(full_name).transpose()?;
    let mut config = ImageConfig::new();
    if let Some(platform) = super::platform(given)? {
        (config.os, config.architecture, config.variant) = (platform.os, platform.architecture, platform.variant);
    }
    if let Some(text) = given.text("message") {
        let mut entry = History::default();
        entry.comment = Some(text.to_owned());
        config.history.push(entry);
    }
    config.created = Some(rfc3339(SystemTime::now()));
    let mut bars = Bars::new(given.is_on("quiet"))?;
    let imported = store.import_rootfs(&source.path(), tag.as_deref(), config, &mut bars);
    tell(&bars.end(imported)?).map(|()| 0)
}
