//! Whose the directories are that zind keeps things in.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::{At, Error, Result, Step};

/// The directory is this user's, or the machine's: whoever else owns it could put another one in its place, and enter it
/// whatever its mode. `what` is kept there. Errors: [`Error::State`] if it is somebody else's; [`Error::Sys`] at `step`.
pub(crate) fn check(path: &Path, what: &str, step: Step) -> Result<()> {
    let (owner, own) = (fs::metadata(path).at(step, "stat", path)?.uid(), rustix::process::geteuid().as_raw());
    if owner == own || owner == 0 {
        return Ok(());
    }
    Err(Error::State(format!("{} belongs to user {owner}, not to {own}: {what} cannot be kept there", path.display())))
}
