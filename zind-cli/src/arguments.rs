//! Pieces that the verbs put their arguments together from, and how broken ones are told.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::builder::{ValueParser, ValueRange};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::failure::Failure;

/// How wide a help text is: for every terminal the same, since man pages and docs/cli.md are, too.
const WIDEST: usize = 100;

/// What every verb's command begins as. `--help` is there; `-h` where nothing else has that letter.
pub fn command(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).term_width(WIDEST).disable_help_subcommand(true).args_override_self(true)
}

/// An option that is on or off: `--init`, `--init=false`.
pub fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .help(help)
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(["true", "false"])
        .hide_possible_values(true)
        .value_name("BOOL")
        .hide_default_value(true)
}

/// An option with one value; the last one counts. `-1` behind it is its value, and no option.
pub fn value(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(what).help(help).action(ArgAction::Set).allow_negative_numbers(true)
}

/// An option with a number, a size or a time: whatever is behind it is its value, `-5g` too, and is judged as such.
pub fn number(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    value(name, what, help).allow_hyphen_values(true)
}

/// An option with a path.
pub fn path(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    value(name, what, help).value_parser(ValueParser::path_buf())
}

/// An option that may be given several times.
pub fn list(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(what).help(help).action(ArgAction::Append).allow_negative_numbers(true)
}

/// An option whose value may be left away: `--mount`, `--mount=FILE`.
pub fn optional(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    value(name, what, help).num_args(0..=1).require_equals(true).default_missing_value("")
}

/// What follows the options.
pub fn words(name: &'static str, what: &'static str, count: impl Into<ValueRange>) -> Arg {
    let count = count.into();
    Arg::new(name).value_name(what).required(count.min_values() > 0).num_args(count)
}

/// `--format`.
pub fn format() -> Arg {
    value("format", "FORMAT", "\"table\" or \"json\"")
}

/// How registries are reached.
pub fn registry(command: Command) -> Command {
    command
        .arg(value("creds", "USER:PASSWORD", "Credentials, in place of those of the user's files"))
        .arg(path("authfile", "FILE", "The only file to look for credentials in"))
        .arg(path("cert-dir", "DIR", "Certificates: *.crt, *.cert, *.key"))
        .arg(switch(
            "tls-verify",
            "Check certificates: so it is unless the registry is on this machine, or --tls-verify=false",
        ))
}

/// The program and its arguments, and nothing of it is an option of zind's.
pub fn takes_program(command: Command, usage: &'static str) -> Command {
    command
        .allow_external_subcommands(true)
        .external_subcommand_value_parser(ValueParser::os_string())
        .override_usage(usage)
}

/// A help text without the values of switches, which nobody needs.
pub fn plain(help: &str) -> String {
    const VALUE: &str = "[=<BOOL>]";
    let lines = help.lines().map(|line| line.replacen(VALUE, &" ".repeat(VALUE.len()), 1).trim_end().to_owned() + "\n");
    lines.collect()
}

/// Reading what was given.
pub trait Given {
    /// An option's text.
    fn text(&self, name: &str) -> Option<&str>;
    /// An option's texts.
    fn texts(&self, name: &str) -> Vec<&str>;
    /// An option's path.
    fn file(&self, name: &str) -> Option<PathBuf>;
    /// A switch, if it was given.
    fn switched(&self, name: &str) -> Option<bool>;
    /// A switch that is off unless it was given.
    fn is_on(&self, name: &str) -> bool {
        self.switched(name).unwrap_or(false)
    }
    /// The words behind the options that are a program, or an image or container and a program.
    fn program(&self) -> Vec<std::ffi::OsString>;
}

impl Given for ArgMatches {
    fn text(&self, name: &str) -> Option<&str> {
        self.try_get_one::<String>(name).ok().flatten().map(String::as_str)
    }

    fn texts(&self, name: &str) -> Vec<&str> {
        self.try_get_many::<String>(name).ok().flatten().into_iter().flatten().map(String::as_str).collect()
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.try_get_one::<PathBuf>(name).ok().flatten().cloned()
    }

    fn switched(&self, name: &str) -> Option<bool> {
        self.text(name).map(|text| text == "true")
    }

    fn program(&self) -> Vec<std::ffi::OsString> {
        let Some((first, rest)) = self.subcommand() else { return Vec::new() };
        let rest = rest.get_many::<std::ffi::OsString>("").into_iter().flatten().cloned();
        std::iter::once(first.into()).chain(rest).collect()
    }
}

/// A broken command line in one line.
pub fn explain(error: &clap::Error, verb: &str) -> Failure {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        Some(ContextValue::StyledStr(text)) => Some(text.to_string()),
        _ => None,
    };
    // Without the names of values: `--memory <BYTES>`; and without the marks of others: `<IMAGE>...`.
    let about = text(ContextKind::InvalidArg).unwrap_or_default();
    let bare = about.split(", ").map(|one| match one.strip_prefix('<') {
        Some(rest) => rest.trim_end_matches(['>', '.']),
        None => one,
    });
    let bare = bare.collect::<Vec<_>>().join(", ");
    let about = if bare.starts_with('-') { bare.split([' ', '[']).next().unwrap_or_default() } else { &bare };
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let similar = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue]
        .into_iter()
        .find_map(text);
    let valid = text(ContextKind::ValidValue).filter(|valid| !valid.is_empty());
    let what = match error.kind() {
        ErrorKind::UnknownArgument if about.starts_with('-') => format!("there is no option {about}"),
        ErrorKind::TooManyValues => format!("{value:?} is one argument too many"),
        ErrorKind::UnknownArgument => format!("{about:?} is one argument too many"),
        ErrorKind::InvalidSubcommand => {
            format!("there is no command {:?}", text(ContextKind::InvalidSubcommand).unwrap_or_default())
        }
        ErrorKind::MissingRequiredArgument => format!("it lacks {}", about.replace(", ", " and ")),
        ErrorKind::InvalidValue if value.is_empty() => format!("{about} lacks its value"),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => format!("{about}: {value:?} is no value for it"),
        ErrorKind::NoEquals => format!("{about} takes its value after an equals sign"),
        ErrorKind::ArgumentConflict => {
            format!("{about} and {} exclude each other", text(ContextKind::PriorArg).unwrap_or_default())
        }
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".to_owned(),
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    let cure = match (similar, valid) {
        (Some(similar), _) => format!("did you mean {similar}?"),
        (None, Some(valid)) => format!("it is one of {valid}"),
        (None, None) => format!("`zind {verb} --help` shows what it takes"),
    };
    Failure::new(format!("{verb}: {what}")).hint(cure)
}
