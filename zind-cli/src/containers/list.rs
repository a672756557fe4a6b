//! `zind ps`
#![forbid(unsafe_code)]

use std::time::SystemTime;

use clap::{ArgMatches, Command};
use serde_json::{Value, json};
use zind_core::Exit;
use zind_core::container::{Filter, State, Summary};

use crate::Context;
use crate::arguments::{Given, format, list, switch};
use crate::failure::{Failure, Result};
use crate::images::shown;
use crate::run::foreground::status;
use crate::table::{Format, Table, json as write_json, print};
use crate::text::duration;

pub fn arguments(command: Command) -> Command {
    command
        .arg(switch("all", "Those, too, that do not run").short('a'))
        .arg(switch("quiet", "Only the ids").short('q'))
        .arg(switch("no-trunc", "Show ids and commands in full"))
        .arg(list("filter", "KEY=VALUE", "label=NAME[=VALUE], name=PART or status=STATE").short('f'))
        .arg(format())
}

pub fn run(given: &ArgMatches, context: &Context) -> Result {
    let format = Format::of(given)?;
    let filter = filter(given)?;
    let mut all = context.containers()?.summaries(&filter)?;
    // The youngest first.
    all.sort_by_key(|one| std::cmp::Reverse(one.created));
    if format == Format::Json {
        write_json(&Value::Array(all.iter().map(object).collect()))?;
        return Ok(0);
    }
    let full = given.is_on("no-trunc");
    let id = |one: &Summary| if full { one.id.clone() } else { one.id.chars().take(12).collect() };
    if given.is_on("quiet") {
        print(&all.iter().map(|one| id(one) + "\n").collect::<String>())?;
        return Ok(0);
    }
    let mut table = Table::new(&["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"]);
    let now = SystemTime::now();
    for one in &all {
        let command = one.command.join(" ");
        let short: String = command.chars().take(24).collect();
        let command = if full || short == command { command } else { short + "…" };
        table.row([
            id(one),
            image(one),
            command,
            since(one.created, now),
            told(one, now),
            one.name.clone().unwrap_or_default(),
        ]);
    }
    table.print_as(full).map(|()| 0)
}

fn filter(given: &ArgMatches) -> Result<Filter> {
    let mut filter = Filter { all: given.is_on("all"), ..Filter::default() };
    for text in given.texts("filter") {
        let wrong = || {
            Failure::new(format!("ps: --filter: {text:?} is no filter"))
                .hint("write label=NAME[=VALUE], name=PART or status=created|running|paused|exited")
        };
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        match (key, value) {
            ("label", value) => {
                let (name, value) = value.split_once('=').map_or((value, None), |(name, value)| (name, Some(value)));
                filter.labels.push((name.to_owned(), value.map(str::to_owned)));
            }
            ("name", part) => filter.name = Some(part.to_owned()),
            ("status", state) => filter.states.push(match state {
                "created" => State::Created,
                "running" => State::Running,
                "paused" => State::Paused,
                "exited" | "stopped" => State::Stopped,
                _ => return Err(wrong()),
            }),
            _ => return Err(wrong()),
        }
    }
    Ok(filter)
}

fn image(one: &Summary) -> String {
    let Some(image) = &one.image else { return String::new() };
    match shown(image) {
        (_, tag) if tag == "<none>" => image.strip_prefix("sha256:").unwrap_or(image).chars().take(12).collect(),
        (name, tag) => format!("{name}:{tag}"),
    }
}

fn since(time: SystemTime, now: SystemTime) -> String {
    format!("{} ago", duration(now.duration_since(time).unwrap_or_default()))
}

/// What Docker calls its status.
fn told(one: &Summary, now: SystemTime) -> String {
    let up = || one.started.map(|time| duration(now.duration_since(time).unwrap_or_default())).unwrap_or_default();
    if let Some(restarting) = &one.restarting {
        return format!("Restarting ({}) {}", status(restarting.exit), since(restarting.finished, now));
    }
    match one.state {
        State::Running => format!("Up {}", up()),
        State::Paused => format!("Up {} (Paused)", up()),
        State::Stopped => match (one.exit, one.finished) {
            (Some(exit), Some(finished)) => format!("Exited ({}) {}", status(exit), since(finished, now)),
            (Some(exit), None) => format!("Exited ({})", status(exit)),
            (None, _) => "Exited".to_owned(),
        },
        State::Created => "Created".to_owned(),
        _ => "Creating".to_owned(),
    }
}

fn object(one: &Summary) -> Value {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let exit = |exit: Exit| json!({"kind": exit.kind.name(), "code": exit.code, "signal": exit.signal});
    json!({
        "id": one.id,
        "name": one.name,
        "image": one.image,
        "command": one.command,
        "labels": one.labels,
        "state": one.state.name(),
        "pid": one.pid,
        "created": seconds(one.created),
        "started": one.started.map(seconds),
        "finished": one.finished.map(seconds),
        "exit": one.exit.map(exit),
        "restarts": one.restarts,
        "restarting": one.restarting.map(|restarting| json!({
            "at": seconds(restarting.at),
            "finished": seconds(restarting.finished),
            "exit": exit(restarting.exit),
        })),
    })
}
