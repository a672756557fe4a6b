//! `zind run`

pub mod arguments;
pub mod foreground;
mod found;
mod lasting;
mod learning;
mod mounts;
mod security;
pub mod settings;

use clap::ArgMatches;
use zind_core::terminal::Size;
use zind_core::{PullPolicy, Rootfs, Spec};

pub use arguments::{arguments, create_arguments};

use crate::Context;
use crate::arguments::Given;
use crate::failure::{Failure, Result};
use crate::images;
use crate::progress::Bars;

/// Runs a program in a container: in the foreground with the caller's streams, and nothing is left of it; or, if it has a name or
/// goes on by itself, in one that is kept.
pub fn run(given: &ArgMatches, context: &Context) -> Result {
    arguments::refuse_absent("run", given)?;
    let file = lasting::IdFile::make(given)?;
    let mut spec = spec("run", given, context)?;
    if let Some(file) = given.file("learn") {
        return learning::run(spec, given, context, &file);
    }
    if lasting::is_wanted(given) {
        return lasting::run(spec, given, context, file);
    }
    if given.is_on("tty") {
        spec.terminal = Some(Size::of(std::io::stdout()).unwrap_or_default());
        let interactive = given.is_on("interactive");
        let process = zind_core::Command::from(spec).spawn()?;
        process.expect_no_questions()?;
        return foreground::in_terminal(&process, interactive, Some(context));
    }
    foreground::run(spec, apart(given), Some(context))
}

fn apart(given: &ArgMatches) -> foreground::Terminal {
    foreground::Terminal::Apart { passes_signals: given.switched("sig-proxy").unwrap_or(true) }
}

/// Makes a container, and writes its id.
pub fn create(given: &ArgMatches, context: &Context) -> Result {
    arguments::refuse_absent("create", given)?;
    if given.file("learn").is_some() {
        return Err(
            Failure::new("create: --learn: nothing is started").hint("`zind run --learn FILE` starts it, and stays")
        );
    }
    if given.is_on("detach") {
        return Err(Failure::new("create: nothing is started").hint("`zind start NAME` starts it in the background"));
    }
    let file = lasting::IdFile::make(given)?;
    lasting::create(spec("create", given, context)?, given, context, file)
}

/// All that was asked for.
fn spec(verb: &str, given: &ArgMatches, context: &Context) -> Result<Spec> {
    let mut words = given.program();
    let rootfs = match given.file("rootfs") {
        Some(path) => Rootfs::Path(path),
        None if words.is_empty() => {
            return Err(Failure::new(format!("{verb}: it lacks an image"))
                .hint(format!("write zind {verb} IMAGE [COMMAND], or zind {verb} host COMMAND")));
        }
        None => {
            let name = words.remove(0);
            root(&name.to_string_lossy(), given, context)?
        }
    };
    if words.is_empty() && !matches!(rootfs, Rootfs::Image(_)) {
        return Err(Failure::new(format!("{verb}: it lacks the command"))
            .hint("only an image says by itself what is to be run"));
    }
    let mut spec = Spec::new(words);
    spec.rootfs = rootfs;
    settings::apply(&mut spec, given)?;
    mounts::apply(&mut spec, given)?;
    security::apply(&mut spec, given)?;
    Ok(spec)
}

/// What `IMAGE` means: this machine's own system, a directory, or an image of the store or a registry.
fn root(name: &str, given: &ArgMatches, context: &Context) -> Result<Rootfs> {
    if name == "host" {
        return Ok(Rootfs::Host);
    }
    if name == "." || name == ".." || ["/", "./", "../"].iter().any(|head| name.starts_with(head)) {
        return Ok(Rootfs::Path(name.into()));
    }
    let policy = match given.text("pull") {
        None => PullPolicy::Missing,
        Some(text) => PullPolicy::from_name(text).ok_or_else(|| {
            Failure::new(format!("run: --pull: {text:?} is no policy")).hint("it is one of missing, always, never")
        })?,
    };
    let mut options = images::pull_options(given)?;
    options.policy = policy;
    let store = context.store()?;
    let mut bars = Bars::new(given.is_on("quiet"))?;
    let image = store.get(name, &options, &mut bars);
    let image = bars.end(image)?;
    // Here rather than by the start, so that it shows how far it is.
    let unpacked = store.unpack(&image, &zind_core::Owners::of_caller(), &mut bars);
    bars.end(unpacked)?;
    Ok(Rootfs::Image(image))
}
