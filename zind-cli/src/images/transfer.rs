//! `zind pull`, `zind push`
#![forbid(unsafe_code)]

use clap::{ArgMatches, Command};
use zind_core::{Image, PushOptions};

use super::{find, full_name, pull_options, registry_options};
use crate::Context;
use crate::arguments::{Given, registry, switch, value, words};
use crate::failure::{Failure, Result};
use crate::progress::Bars;
use crate::table::print;

pub fn pull_arguments(command: Command) -> Command {
    registry(command)
        .arg(switch("quiet", "No bars").short('q'))
        .arg(value("platform", "OS/ARCH", "Choose this platform of an image for several"))
        .arg(words("names", "NAME[:TAG|@DIGEST]", 1..).help("debian, debian:12, registry.example/team/app:1"))
}

/// Writes the id of each image.
pub fn pull(given: &ArgMatches, context: &Context) -> Result {
    let options = pull_options(given)?;
    let store = context.store()?;
    for name in given.texts("names") {
        let mut bars = Bars::new(given.is_on("quiet"))?;
        let pulled = store.pull(name, &options, &mut bars);
        tell(&bars.end(pulled)?)?;
    }
    Ok(0)
}

/// The id of an image that has arrived, on stdout.
pub fn tell(image: &Image) -> Result<()> {
    print(&format!("{}\n", image.id()))
}

pub fn push_arguments(command: Command) -> Command {
    registry(command).arg(switch("quiet", "No bars").short('q')).arg(words("image", "IMAGE", 1).help("Name or id")).arg(
        words("name", "NAME[:TAG]", 0..=1).help("Its name there, registry included; without it, the one it has here"),
    )
}

/// Writes the digest of the manifest.
pub fn push(given: &ArgMatches, context: &Context) -> Result {
    let mut options = PushOptions::default();
    options.registry = registry_options(given)?;
    let name = given.text("image").unwrap_or_default();
    let store = context.store()?;
    let image = find(&store, name)?;
    let target = match given.text("name") {
        Some(name) => full_name(name)?,
        None => full_name(name).map_err(|failure: Failure| failure.hint("write zind push IMAGE NAME"))?,
    };
    let mut bars = Bars::new(given.is_on("quiet"))?;
    let pushed = store.push(&image, &target, &options, &mut bars);
    bars.end(pushed)?;
    print(&format!("{}\n", image.digest())).map(|()| 0)
}
