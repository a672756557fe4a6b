//! `zind inspect`, `zind history`, `zind prune`
#![forbid(unsafe_code)]

use std::time::SystemTime;

use clap::{ArgMatches, Command};
use serde_json::{Value, json};
use zind_core::Error;

use super::find;
use crate::Context;
use crate::arguments::{Given, format, switch, value, words};
use crate::failure::{Failure, Result};
use crate::table::{Format, Table, json, print};
use crate::text::{ago, size};

pub fn inspect_arguments(command: Command) -> Command {
    command
        .arg(value("type", "TYPE", "Only \"container\" or only \"image\""))
        .arg(format().hide(true))
        .arg(words("names", "NAME", 1..).help("Containers or images, by name or id"))
}

/// A container, if there is one of that name; else an image.
pub fn inspect(given: &ArgMatches, context: &Context) -> Result {
    let wanted = given.text("type");
    if let Some(other) = wanted.filter(|wanted| !["container", "image"].contains(wanted)) {
        return Err(Failure::new(format!("inspect: --type: {other:?} is neither container nor image")));
    }
    Format::of(given)?;
    let mut all = Vec::new();
    for name in given.texts("names") {
        if wanted != Some("image") {
            match context.containers()?.find(name) {
                Ok(container) => {
                    all.push(container.inspect()?);
                    continue;
                }
                Err(Error::NotFound { .. } | Error::Spec { .. }) if wanted.is_none() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let image = find(&context.store()?, name);
        let image = image.map_err(|failure| match (wanted, failure) {
            (None, failure) if failure.is_missing_image() => {
                Failure::new(format!("there is no container or image {name:?}"))
                    .hint("`zind ps -a` and `zind images` list them")
            }
            (_, failure) => failure,
        })?;
        all.push(image.to_json()?);
    }
    json(&Value::Array(all)).map(|()| 0)
}

pub fn history_arguments(command: Command) -> Command {
    command
        .arg(format())
        .arg(switch("no-trunc", "Show commands in full"))
        .arg(words("name", "IMAGE", 1).help("Name or id"))
}

/// The youngest first, as `docker history`.
pub fn history(given: &ArgMatches, context: &Context) -> Result {
    let format = Format::of(given)?;
    let image = find(&context.store()?, given.text("name").unwrap_or_default())?;
    if format == Format::Json {
        let history = image.to_json()?.get_mut("history").map(Value::take).unwrap_or_default();
        json(&history)?;
        return Ok(0);
    }
    let full = given.is_on("no-trunc");
    let mut layers = image.layers()?.iter();
    let now = SystemTime::now();
    let mut rows = Vec::new();
    for entry in image.history()? {
        let bytes = if entry.empty_layer { 0 } else { layers.next().map_or(0, |layer| layer.size) };
        let command = entry.created_by.clone().unwrap_or_default();
        let short: String = command.chars().take(45).collect();
        let command = if full || short == command { command } else { short.trim_end().to_owned() + "…" };
        let created = entry.created.as_deref().map(|date| ago(date, now)).unwrap_or_default();
        rows.push([created, command, size(bytes), entry.comment.clone().unwrap_or_default()]);
    }
    let mut table = Table::new(&["CREATED", "CREATED BY", ">SIZE", "COMMENT"]);
    rows.into_iter().rev().for_each(|row| table.row(row));
    table.print_as(full).map(|()| 0)
}

pub fn prune_arguments(command: Command) -> Command {
    command.arg(switch("force", "Accepted for habit: nothing is asked").short('f').hide(true)).arg(format())
}

/// Containers that do not run, and what no image or container refers to any more.
pub fn prune(given: &ArgMatches, context: &Context) -> Result {
    let format = Format::of(given)?;
    let pruned = context.containers()?.prune()?;
    let collected = context.store()?.gc()?;
    match format {
        Format::Json => json(&json!({
            "containers": pruned.containers,
            "blobs": collected.blobs,
            "snapshots": collected.snapshots,
            "leftovers": collected.leftovers,
            "bytes": collected.bytes,
        }))?,
        Format::Table => print(&format!(
            "removed {} containers, {} blobs, {} unpacked layers and {} left-overs: {}\n",
            pruned.containers.len(),
            collected.blobs,
            collected.snapshots,
            collected.leftovers,
            size(collected.bytes)
        ))?,
    }
    Ok(0)
}
