//! `zind diff`, `zind commit`, `zind export`
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::IsTerminal;
use std::path::Path;

use clap::{ArgMatches, Command};
use serde_json::{Value, json};
use zind_core::image::RunConfig;
use zind_core::{ChangeKind, CommitOptions, Compression, Container, Rootfs};

use super::find;
use crate::Context;
use crate::arguments::{Given, format, list, path, switch, value, words};
use crate::failure::{Failure, Result};
use crate::images::full_name;
use crate::images::transfer::tell;
use crate::progress::Bars;
use crate::table::{Format, json as write_json, print};
use crate::text::printable;

const NAME: &str = "Name, id or the beginning of one";

pub fn diff_arguments(command: Command) -> Command {
    command.arg(format()).arg(words("name", "CONTAINER", 1).help(NAME))
}

/// One line for each: `A` for what was added, `C` changed, `D` deleted.
pub fn diff(given: &ArgMatches, context: &Context) -> Result {
    let format = Format::of(given)?;
    let changes = find(context, given.text("name").unwrap_or_default())?.diff(None)?;
    if format == Format::Json {
        let object =
            |change: &zind_core::Change| json!({"kind": change.kind.name(), "path": change.path.to_string_lossy()});
        return write_json(&Value::Array(changes.iter().map(object).collect())).map(|()| 0);
    }
    let letter = |kind| match kind {
        ChangeKind::Added => 'A',
        ChangeKind::Deleted => 'D',
        _ => 'C',
    };
    let lines =
        changes.iter().map(|change| format!("{} {}\n", letter(change.kind), printable(&change.path.to_string_lossy())));
    print(&lines.collect::<String>()).map(|()| 0)
}

pub fn commit_arguments(command: Command) -> Command {
    command
        .arg(value("author", "TEXT", "Who made it").short('a'))
        .arg(list("change", "INSTRUCTION", "How it runs, as a Dockerfile has it: 'CMD [\"sh\"]', 'ENV A=1'").short('c'))
        .arg(value("message", "TEXT", "What the history says").short('m'))
        .arg(switch("pause", "Stop everything in it meanwhile: so it is unless --pause=false").short('p'))
        .arg(switch("quiet", "No bars").short('q'))
        .arg(words("container", "CONTAINER", 1).help(NAME))
        .arg(words("image", "NAME[:TAG]", 0..=1).help("The name of the image; without it, it has an id only"))
}

/// Writes the id of the image.
pub fn commit(given: &ArgMatches, context: &Context) -> Result {
    let container = find(context, given.text("container").unwrap_or_default())?;
    let mut options = CommitOptions::new();
    options.tags = given.text("image").map(full_name).transpose()?.into_iter().collect();
    options.author = given.text("author").map(str::to_owned);
    options.message = given.text("message").map(str::to_owned);
    let instructions = given.texts("change");
    if !instructions.is_empty() {
        let mut config = config_of(&container)?;
        instructions.into_iter().try_for_each(|text| change(&mut config, text))?;
        options.config = Some(config);
    }
    let mut bars = Bars::new(given.is_on("quiet"))?;
    let pause = given.switched("pause").unwrap_or(true);
    let made = container.commit(&options, pause, &mut bars);
    let made = bars.end(made).map_err(|failure| match failure.to_string() {
        text if text.contains("do not pause it") => Failure::new(
            text.replace("or do not pause it, or stop it first", "or give --pause=false, or stop it first"),
        ),
        _ => failure,
    })?;
    tell(&made).map(|()| 0)
}

/// How its image runs.
fn config_of(container: &Container) -> Result<RunConfig> {
    let image = match container.spec()?.rootfs {
        Rootfs::Image(image) => Some(image),
        Rootfs::Layers(layers) => layers.image()?,
        _ => None,
    };
    Ok(image.map(|image| image.config().map(|config| config.config.clone())).transpose()?.unwrap_or_default())
}

/// An instruction of a Dockerfile.
fn change(config: &mut RunConfig, text: &str) -> Result<()> {
    let wrong = |what: &str| Failure::new(format!("commit: --change: {text:?} {what}"));
    let (word, rest) = text.trim().split_once(char::is_whitespace).ok_or_else(|| wrong("lacks its value"))?;
    let rest = rest.trim();
    let pair = || rest.split_once('=').ok_or_else(|| wrong("is not NAME=VALUE"));
    // A list of texts, or a line for a shell.
    let program = || match serde_json::from_str::<Vec<String>>(rest) {
        Ok(list) => list,
        Err(_) => ["/bin/sh", "-c", rest].map(str::to_owned).to_vec(),
    };
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(program()),
        "ENTRYPOINT" => config.entrypoint = Some(program()),
        "ENV" => {
            let (name, value) = pair()?;
            config.env.retain(|line| line.split('=').next() != Some(name));
            config.env.push(format!("{name}={value}"));
        }
        "LABEL" => {
            let (name, value) = pair()?;
            config.labels.insert(name.to_owned(), value.to_owned());
        }
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => config.working_dir = rest.to_owned(),
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "VOLUME" => config.volumes.push(rest.to_owned()),
        _ => {
            return Err(wrong("is no instruction for it")
                .hint("there are CMD, ENTRYPOINT, ENV, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR"));
        }
    }
    Ok(())
}

pub fn export_arguments(command: Command) -> Command {
    command
        .arg(path("output", "FILE", "The tar, which must not be there yet; stdout without it").short('o'))
        .arg(switch("quiet", "No bars").short('q'))
        .arg(words("name", "CONTAINER", 1).help(NAME))
}

/// The root file system as a tar.
pub fn export(given: &ArgMatches, context: &Context) -> Result {
    let container = find(context, given.text("name").unwrap_or_default())?;
    let mut bars = Bars::new(given.is_on("quiet"))?;
    if let Some(output) = given.file("output").filter(|path| path != Path::new("-")) {
        let written = container.export(&output, Compression::None, &mut bars);
        return bars.end(written).map(|_| 0);
    }
    let mut stdout = std::io::stdout().lock();
    if stdout.is_terminal() {
        return Err(Failure::new("export: a tar is nothing for a terminal").hint("write it to a file: -o FILE"));
    }
    // Where nobody else can look, since its name is there until it is written.
    let place = container.containers().path();
    let directory = nix::unistd::mkdtemp(&place.join("export-XXXXXX"))
        .map_err(|errno| Failure::file("make a directory in", place, &errno.into()))?;
    let written = container.export(&directory.join("tar"), Compression::None, &mut bars);
    let opened = File::open(directory.join("tar"));
    let _ = std::fs::remove_dir_all(&directory);
    bars.end(written)?;
    let mut tar = opened.map_err(|error| Failure::file("open", &directory, &error))?;
    std::io::copy(&mut tar, &mut stdout)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_how_an_image_runs() {
        let mut config = RunConfig::default();
        for text in [
            "CMD [\"a\", \"b c\"]",
            "entrypoint run it",
            "ENV A=1",
            "ENV A=x=y",
            "LABEL tier=front",
            "USER web",
            "WORKDIR /srv",
            "STOPSIGNAL INT",
            "VOLUME /data",
        ] {
            change(&mut config, text).unwrap();
        }
        assert_eq!(config.cmd, Some(vec!["a".to_owned(), "b c".to_owned()]));
        assert_eq!(config.entrypoint, Some(["/bin/sh", "-c", "run it"].map(str::to_owned).to_vec()));
        assert_eq!(config.env, ["A=x=y"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("web", "/srv"));
        assert_eq!((config.stop_signal.as_deref(), config.labels["tier"].as_str()), (Some("INT"), "front"));
        for bad in ["CMD", "ENV A", "RUN true", ""] {
            assert!(change(&mut config, bad).is_err(), "{bad}");
        }
    }
}
