//! `zind inspect`, `zind history`, `zind prune`
#![forbid(unsafe_code)]

use std::time::SystemTime;

use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use super::find;
use crate::Context;
use crate::arguments::{Given, format, switch, words};
use crate::failure::Result;
use crate::table::{Format, Table, json, print};
use crate::text::{ago, size};

pub fn inspect_arguments(command: Command) -> Command {
    command.arg(words("names", "IMAGE", 1..))
}

pub fn inspect(given: &ArgMatches, context: &Context) -> Result {
    let store = context.store()?;
    let all = given.texts("names").iter().map(|name| Ok(find(&store, name)?.to_json()?)).collect::<Result<Vec<_>>>()?;
    json(&Value::Array(all)).map(|()| 0)
}

pub fn history_arguments(command: Command) -> Command {
    command.arg(format()).arg(switch("no-trunc", "Show commands in full")).arg(words("name", "IMAGE", 1))
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
    let mut layers = image.layers()?.iter();
    let now = SystemTime::now();
    let mut rows = Vec::new();
    for entry in image.history()? {
        let bytes = if entry.empty_layer { 0 } else { layers.next().map_or(0, |layer| layer.size) };
        let command = entry.created_by.clone().unwrap_or_default();
        let short: String = command.chars().take(45).collect();
        let command =
            if given.is_on("no-trunc") || short == command { command } else { short.trim_end().to_owned() + "…" };
        let created = entry.created.as_deref().map(|date| ago(date, now)).unwrap_or_default();
        rows.push([created, command, size(bytes), entry.comment.clone().unwrap_or_default()]);
    }
    let mut table = Table::new(&["CREATED", "CREATED BY", ">SIZE", "COMMENT"]);
    rows.into_iter().rev().for_each(|row| table.row(row));
    table.print().map(|()| 0)
}

pub fn prune_arguments(command: Command) -> Command {
    command.arg(switch("force", "Accepted for habit: nothing is asked").short('f').hide(true)).arg(format())
}

/// What nothing refers to any more.
pub fn prune(given: &ArgMatches, context: &Context) -> Result {
    let format = Format::of(given)?;
    let collected = context.store()?.gc()?;
    match format {
        Format::Json => json(&json!({
            "blobs": collected.blobs,
            "snapshots": collected.snapshots,
            "leftovers": collected.leftovers,
            "bytes": collected.bytes,
        }))?,
        Format::Table => print(&format!(
            "removed {} blobs, {} unpacked layers and {} left-overs: {}\n",
            collected.blobs,
            collected.snapshots,
            collected.leftovers,
            size(collected.bytes)
        ))?,
    }
    Ok(0)
}
