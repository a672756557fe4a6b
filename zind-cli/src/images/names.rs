//! `zind tag`, `zind rmi`
#![forbid(unsafe_code)]

use clap::{ArgMatches, Command};

use super::{find, full_name};
use crate::Context;
use crate::arguments::{Given, switch, words};
use crate::failure::{Failure, Result};
use crate::table::print;

pub fn tag_arguments(command: Command) -> Command {
    command
        .arg(words("image", "IMAGE", 1).help("Name or id"))
        .arg(words("name", "NAME[:TAG]", 1).help("Its further name"))
}

pub fn tag(given: &ArgMatches, context: &Context) -> Result {
    let store = context.store()?;
    let image = find(&store, given.text("image").unwrap_or_default())?;
    store.tag(&image, &full_name(given.text("name").unwrap_or_default())?)?;
    Ok(0)
}

pub fn rmi_arguments(command: Command) -> Command {
    command
        .arg(switch("force", "What is not there is no error").short('f'))
        .arg(words("names", "IMAGE", 1..).help("A name; or an id, for all names of that image"))
}

/// Writes what is gone. Blobs go with `zind prune`.
pub fn rmi(given: &ArgMatches, context: &Context) -> Result {
    let store = context.store()?;
    let mut first: Option<Failure> = None;
    for name in given.texts("names") {
        match remove(&store, name) {
            Ok(removed) => print(&format!("{removed}\n"))?,
            Err(zind_core::Error::NotFound { .. }) if given.is_on("force") => {}
            Err(error) => {
                // The others are removed nevertheless.
                let failure = Failure::from(error);
                if let Some(before) = first.replace(failure) {
                    eprintln!("zind: {before}");
                }
            }
        }
    }
    first.map_or(Ok(0), Err)
}

fn remove(store: &zind_core::Store, name: &str) -> zind_core::Result<String> {
    // As it stands, if it is a name in full, or digits; else what the name means.
    let whole = full_name(name).ok().filter(|whole| store.image(whole).is_ok());
    let removed = whole.as_deref().unwrap_or(name);
    store.remove(removed)?;
    Ok(removed.to_owned())
}
