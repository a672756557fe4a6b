//! `zind events`
#![forbid(unsafe_code)]

use clap::{ArgMatches, Command};
use serde_json::json;

use crate::Context;
use crate::arguments::format;
use crate::failure::Result;
use crate::run::foreground::status;
use crate::table::{Format, print};
use crate::text::rfc3339;

pub fn arguments(command: Command) -> Command {
    command.arg(format())
}

/// One line for each, as it happens; with `--format json` an object in each line.
pub fn run(given: &ArgMatches, context: &Context) -> Result {
    let format = Format::of(given)?;
    let mut events = context.containers()?.events()?;
    loop {
        let event = events.next_interruptible(&mut || false)?;
        let id: String = event.id.chars().take(12).collect();
        let code = event.exit.map(status);
        let time = rfc3339(event.time);
        print(&match format {
            Format::Json => {
                let object =
                    json!({"time": time, "event": event.what.name(), "id": event.id, "name": event.name, "code": code});
                format!("{object}\n")
            }
            Format::Table => {
                let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
                format!("{time} {id} {}{code} {}\n", event.what.name(), event.name.unwrap_or_default())
                    .replace(" \n", "\n")
            }
        })?;
    }
}
