//! `zind run` of a container that others can find: one with a name, or in the background.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use clap::ArgMatches;
use zind_core::container::{LogOptions, Restart};
use zind_core::terminal::Size;
use zind_core::{Container, Spec};

use super::settings::{self, lines};
use crate::Context;
use crate::arguments::Given;
use crate::containers::{life, names, streams};
use crate::failure::{Failure, Result};
use crate::table::print;
use crate::text::{parse_duration, parse_signal};

/// Whether it has to be apart from this process: for what others find it by, or what only such a container has.
pub fn is_wanted(given: &ArgMatches) -> bool {
    given.is_on("detach")
        || given.switched("rm") == Some(false)
        || given.file("cidfile").is_some()
        || ["name", "restart", "stop-signal", "stop-timeout", "detach-keys"]
            .iter()
            .any(|option| given.text(option).is_some())
        || ["label", "label-file", "log-opt"].iter().any(|option| !given.texts(option).is_empty())
}

/// Whether nothing is left of it when it has ended: without a word on it, of what has no name, unless it is in the background or is
/// started again and again.
fn is_deleted(given: &ArgMatches) -> bool {
    let is_kept = given.is_on("detach") || given.text("name").is_some() || given.text("restart").is_some_and(restarts);
    given.switched("rm").unwrap_or(!is_kept)
}

/// What is no policy is told as such when the container is made.
fn restarts(policy: &str) -> bool {
    Restart::parse(policy).is_ok_and(|policy| policy != Restart::No)
}

/// Makes it, starts it, and stays with it unless it is to be in the background.
pub fn run(spec: Spec, given: &ArgMatches, context: &Context, file: Option<IdFile>) -> Result {
    let is_detached = given.is_on("detach");
    let is_deleted = is_deleted(given);
    let how = streams::How {
        interactive: given.is_on("interactive"),
        signals: given.switched("sig-proxy").unwrap_or(true),
        keys: given.text("detach-keys").map(str::to_owned),
        outlives_terminal: false,
    };
    // What would keep it from being started is told before it is made.
    how.keys()?;
    let container = make(spec, given, context, is_deleted)?;
    let result = written(file, &container).and_then(|()| {
        if is_detached {
            container.start()?;
            print(&format!("{}\n", container.id())).map(|()| 0)
        } else {
            streams::run(&container, &how)
        }
    });
    // What could not be started is as if it had never been, unless somebody wanted to keep it.
    if result.is_err() && is_deleted {
        let _ = container.delete(true);
    }
    result
}

/// Makes it, and starts nothing.
pub fn create(spec: Spec, given: &ArgMatches, context: &Context, file: Option<IdFile>) -> Result {
    let container = make(spec, given, context, given.is_on("rm"))?;
    if let Err(failure) = written(file, &container) {
        let _ = container.delete(true);
        return Err(failure);
    }
    print(&format!("{}\n", container.id())).map(|()| 0)
}

fn make(mut spec: Spec, given: &ArgMatches, context: &Context, is_deleted: bool) -> Result<Container> {
    spec.die_with_owner = !given.is_on("detach");
    // For `zind pause`, `zind stats` and `zind update`, wherever groups can be made.
    spec.resources.get_or_insert_default();
    if given.is_on("tty") {
        spec.terminal = Some(Size::of(std::io::stdout()).unwrap_or_default());
    }
    let mut builder = Container::builder(spec)
        .containers(&context.containers()?)
        .auto_remove(is_deleted)
        .stdin_open(given.is_on("interactive"));
    for (name, value) in labels(given)? {
        builder = builder.label(name, value);
    }
    if let Some(text) = given.text("restart") {
        builder = builder.restart(Restart::parse(text)?);
    }
    if let Some(text) = given.text("stop-signal") {
        builder = builder.stop_signal(parse_signal("--stop-signal", text)?);
    }
    builder = builder.log(log(given)?);
    if let Some(name) = given.text("name") {
        return Ok(builder.name(name).create()?);
    }
    loop {
        match builder.clone().name(names::propose()).create() {
            Err(zind_core::Error::Exists { .. }) => {}
            result => return Ok(result?),
        }
    }
}

fn labels(given: &ArgMatches) -> Result<Vec<(String, String)>> {
    let mut labels = Vec::new();
    let mut add = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        labels.push((name.to_owned(), value.to_owned()));
    };
    for file in given.texts("label-file") {
        lines(file)?.iter().for_each(|line| add(line));
    }
    given.texts("label").into_iter().for_each(&mut add);
    if let Some(text) = given.text("stop-timeout") {
        parse_duration("--stop-timeout", text)?;
        labels.push((life::STOP_TIMEOUT.to_owned(), text.to_owned()));
    }
    Ok(labels)
}

/// `max-size=10m`, `max-file=3`.
fn log(given: &ArgMatches) -> Result<LogOptions> {
    let mut options = LogOptions::default();
    for text in given.texts("log-opt") {
        match text.split_once('=') {
            Some(("max-size", size)) => options.size = settings::size("log-opt", size)?,
            Some(("max-file", count)) => {
                options.files =
                    count.parse().map_err(|_| Failure::new(format!("--log-opt: {text:?} is no number of files")))?;
            }
            _ => {
                return Err(Failure::new(format!("--log-opt: {text:?} is no option of the log"))
                    .hint("there are max-size=BYTES and max-file=NUMBER"));
            }
        }
    }
    Ok(options)
}

/// `--cidfile`: made before anything else is, so that no container is without its file, and no id is written over another one.
pub struct IdFile {
    path: PathBuf,
    file: File,
    is_written: bool,
}

impl IdFile {
    /// The file, if there is to be one. It must not be there yet.
    pub fn make(given: &ArgMatches) -> Result<Option<IdFile>> {
        let Some(path) = given.file("cidfile") else { return Ok(None) };
        match std::fs::OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => Ok(Some(IdFile { path, file, is_written: false })),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Failure::file("--cidfile", &path, &error)
                    .hint("it may hold the id of another container: delete it, or name another file"))
            }
            Err(error) => Err(Failure::file("--cidfile", &path, &error)),
        }
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.is_written {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn written(file: Option<IdFile>, container: &Container) -> Result<()> {
    let Some(mut file) = file else { return Ok(()) };
    let written = file.file.write_all(container.id().as_bytes());
    written.map_err(|error| Failure::file("write", &file.path, &error))?;
    file.is_written = true;
    Ok(())
}
