//! `zind images`
#![forbid(unsafe_code)]

use std::time::SystemTime;

use clap::{ArgMatches, Command};
use serde_json::Value;
use zind_core::Image;

use super::{short_id, shown};
use crate::Context;
use crate::arguments::{Given, format, switch, words};
use crate::failure::Result;
use crate::table::{Format, Table, json, print};
use crate::text::{ago, size};

pub fn arguments(command: Command) -> Command {
    command
        .arg(switch("quiet", "Only the ids").short('q'))
        .arg(switch("digests", "Show digests of manifests, too"))
        .arg(switch("no-trunc", "Show ids in full"))
        .arg(switch("all", "Accepted for habit: all images are shown").short('a').hide(true))
        .arg(format())
        .arg(words("names", "NAME", 0..).help("Only images with this name, or this name and tag"))
}

pub fn run(given: &ArgMatches, context: &Context) -> Result {
    let format = Format::of(given)?;
    let wanted = given.texts("names");
    let images = context.store()?.images()?;
    let fits = |tag: &str| {
        let (repository, label) = shown(tag);
        let either = |name: &&str| *name == repository || *name == format!("{repository}:{label}") || *name == tag;
        wanted.is_empty() || wanted.iter().any(either)
    };
    // The youngest first.
    let images: Vec<&Image> = images
        .iter()
        .rev()
        .filter(|image| image.tags().iter().any(|tag| fits(tag)) || (image.tags().is_empty() && wanted.is_empty()))
        .collect();
    if format == Format::Json {
        json(&Value::Array(images.iter().map(|image| image.summary_json()).collect()))?;
        return Ok(0);
    }
    let full = given.is_on("no-trunc");
    let id = |image: &Image| if full { image.id().to_string() } else { short_id(image) };
    if given.is_on("quiet") {
        print(&images.iter().map(|image| id(image) + "\n").collect::<String>())?;
        return Ok(0);
    }
    let digests = given.is_on("digests");
    let mut headings = vec!["REPOSITORY", "TAG"];
    headings.extend(digests.then_some("DIGEST"));
    headings.extend(["IMAGE ID", "CREATED", ">SIZE"]);
    let mut table = Table::new(&headings);
    let now = SystemTime::now();
    for image in images {
        let mut names: Vec<_> = image.tags().iter().filter(|tag| fits(tag)).map(|tag| shown(tag)).collect();
        if names.is_empty() {
            names.push(("<none>".to_owned(), "<none>".to_owned()));
        }
        for (repository, tag) in names {
            let mut row = vec![repository, tag];
            row.extend(digests.then(|| image.digest().to_string()));
            row.extend([id(image), image.created().map(|date| ago(date, now)).unwrap_or_default(), size(image.size())]);
            table.row(row);
        }
    }
    table.print_as(full).map(|()| 0)
}
