//! `zind cp`
#![forbid(unsafe_code)]

use clap::{ArgMatches, Command};
use zind_core::CopyOptions;

use super::find;
use crate::Context;
use crate::arguments::{Given, switch, words};
use crate::failure::{Failure, Result};

pub fn arguments(command: Command) -> Command {
    command
        .arg(switch("follow-link", "Copy what a symbolic link leads to").short('L'))
        .arg(words("source", "SOURCE", 1).help("CONTAINER:PATH, or a path of this machine"))
        .arg(words("target", "TARGET", 1).help("The other of the two"))
}

pub fn run(given: &ArgMatches, context: &Context) -> Result {
    let options = CopyOptions::new().follow_links(given.is_on("follow-link"));
    let paths = ["source", "target"].map(|name| given.text(name).unwrap_or_default());
    if paths.contains(&"-") {
        return Err(Failure::new("cp: zind does not have -, a tar on stdin or stdout")
            .hint("of a whole root there is `zind export`; else `zind exec NAME tar`; a file of that name is ./-"));
    }
    match (inside(paths[0]), inside(paths[1])) {
        (None, Some((name, target))) => find(context, name)?.copy_in(paths[0], target, &options)?,
        (Some((name, source)), None) => find(context, name)?.copy_out(source, paths[1], &options)?,
        (None, None) => {
            return Err(Failure::new("cp: neither path is a container's").hint("write CONTAINER:PATH for one of them"));
        }
        (Some(_), Some(_)) => {
            return Err(
                Failure::new("cp: both paths are a container's").hint("copy to this machine first, and then from it")
            );
        }
    };
    Ok(0)
}

/// A path of this machine with a colon begins with a slash or a dot.
fn inside(path: &str) -> Option<(&str, &str)> {
    path.split_once(':').filter(|(name, _)| !name.is_empty() && !name.contains('/') && !name.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_colons_are_told_apart() {
        assert_eq!(inside("web:/etc"), Some(("web", "/etc")));
        for path in ["/a:b", "./a:b", "a/b:c", "plain", ":x"] {
            assert_eq!(inside(path), None, "{path}");
        }
    }
}
