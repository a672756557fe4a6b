//! The command `zind`: what a Docker user types, without a daemon.
//!
//! Each verb has a room of its own; [`verbs`] is the table of them. Only the arguments of the verb at hand are put together,
//! since that costs more than anything else here.
#![forbid(unsafe_code)]

mod arguments;
mod containers;
mod failure;
mod images;
mod lowlevel;
mod packaging;
mod progress;
mod run;
mod signals;
mod table;
mod terminal;
mod text;
mod verbs;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use zind_core::{Containers, Store};

use failure::{Failure, Result};
use verbs::Verb;

/// What is common to all verbs.
pub struct Context {
    /// The directory of images and containers, if not the user's own.
    pub place: Option<PathBuf>,
}

impl Context {
    /// The images.
    pub fn store(&self) -> Result<Store> {
        Ok(Store::open(self.place.clone())?)
    }

    /// The containers.
    pub fn containers(&self) -> Result<Containers> {
        Ok(Containers::open(self.place.as_deref())?)
    }
}

fn main() -> ExitCode {
    let code = zind(std::env::args_os().skip(1).collect()).unwrap_or_else(|failure| {
        if !failure.is_silent() {
            let name = terminal::paint(std::io::stderr().is_terminal(), "31", "zind:");
            let _ = writeln!(std::io::stderr(), "{name} {failure}");
        }
        failure.code
    });
    ExitCode::from(code)
}

/// Finds the verb and does it.
fn zind(mut words: Vec<OsString>) -> Result {
    let place = take_store(&mut words)?.or_else(|| std::env::var_os("ZIND_STORE").map(Into::into));
    let context = Context { place };
    let first = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    match first.as_str() {
        "" | "--help" | "-h" => return table::print(&verbs::overview()).map(|()| 0),
        "--version" | "-V" | "-v" => return table::print(&format!("zind {}\n", env!("CARGO_PKG_VERSION"))).map(|()| 0),
        "help" => return help(&words),
        _ => {}
    }
    let Some(verb) = verbs::find(&first) else { return Err(unknown(&first)) };
    run_verb(verb, words, &context)
}

/// Parses what follows the verb, and does it.
fn run_verb(verb: &Verb, words: Vec<OsString>, context: &Context) -> Result {
    let command = verb.command().no_binary_name(false).bin_name(format!("zind {}", verb.name));
    match command.try_get_matches_from(words) {
        Ok(given) => (verb.run)(&given, context),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                table::print(&arguments::plain(&error.to_string())).map(|()| 0)
            }
            _ => Err(arguments::explain(&error, verb.name)),
        },
    }
}

/// `zind help`, `zind help VERB`.
fn help(words: &[OsString]) -> Result {
    let Some(word) = words.get(1) else { return table::print(&verbs::overview()).map(|()| 0) };
    let name = word.to_string_lossy();
    let verb = verbs::find(&name).ok_or_else(|| unknown(&name))?;
    table::print(&verb.help()).map(|()| 0)
}

/// `--store DIR` before the verb.
fn take_store(words: &mut Vec<OsString>) -> Result<Option<PathBuf>> {
    let Some(first) = words.first().and_then(|word| word.to_str()) else { return Ok(None) };
    if let Some(path) = first.strip_prefix("--store=") {
        let path = path.into();
        words.remove(0);
        return Ok(Some(path));
    }
    if first != "--store" {
        return Ok(None);
    }
    if words.len() < 2 {
        return Err(Failure::new("--store lacks its directory").hint("write zind --store DIR COMMAND"));
    }
    words.remove(0);
    Ok(Some(words.remove(0).into()))
}

fn unknown(name: &str) -> Failure {
    if let Some(failure) = verbs::absent(name) {
        return failure;
    }
    let failure = Failure::new(format!("there is no command {name:?}"));
    match verbs::similar(name) {
        Some(similar) => failure.hint(format!("did you mean `zind {similar}`?")),
        None => failure.hint("`zind --help` lists them"),
    }
}
