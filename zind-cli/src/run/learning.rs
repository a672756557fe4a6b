//! `zind run --learn FILE`: which system calls a program makes.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use clap::ArgMatches;
use zind_core::{Seccomp, Spec};

use super::{apart, foreground, lasting};
use crate::Context;
use crate::arguments::Given;
use crate::failure::{Failure, Result};

/// Runs the program in the foreground, and writes the profile when it has ended, whatever its end was. What is in the file stays
/// if the program cannot be started.
pub fn run(mut spec: Spec, given: &ArgMatches, context: &Context, file: &Path) -> Result {
    let hint = "learn in the foreground first; `--security-opt seccomp=FILE` then gives any container the profile";
    if lasting::is_wanted(given) || given.is_on("tty") {
        return Err(Failure::new("run: --learn takes no terminal, and no container that is kept").hint(hint));
    }
    if given.texts("security-opt").iter().any(|text| text.starts_with("seccomp")) {
        return Err(Failure::new("run: --learn is a filter by itself").hint("leave --security-opt seccomp away"));
    }
    spec.seccomp = Seccomp::Learn;
    let failed = |error: std::io::Error| Failure::new(format!("run: --learn {}: {error}", file.display()));
    let mut output = OpenOptions::new().write(true).create(true).truncate(false).open(file).map_err(failed)?;
    foreground::run_and(spec, apart(given), Some(context), |process| {
        let value: serde_json::Value = serde_json::from_str(&process.learned()?)
            .map_err(|error| Failure::new(format!("run: --learn: the profile is no JSON: {error}")))?;
        output.set_len(0).and_then(|()| writeln!(output, "{value:#}")).map_err(failed)
    })
}
