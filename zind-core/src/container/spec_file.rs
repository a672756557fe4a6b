//! The files that keep what a container is made from: OCI documents.
#![forbid(unsafe_code)]

use super::state::{CONFIG, Dir};
use crate::error::{Error, Result};
use crate::spec::Spec;

/// Errors: [`Error::Spec`] for what cannot be kept.
pub(super) fn encode(spec: &Spec) -> Result<Vec<u8>> {
    spec.to_oci().map(String::into_bytes)
}

/// What a container is made from.
///
/// Errors: [`Error::State`] for a document that nobody can read.
pub(super) fn read(dir: &Dir) -> Result<Spec> {
    read_from(dir, CONFIG)
}

pub(super) fn read_from(dir: &Dir, name: &str) -> Result<Spec> {
    let damaged = |why: String| Error::State(format!("{} is damaged: {why}", dir.at(name).display()));
    let bytes = dir.read(name)?.ok_or_else(|| Error::NotFound { what: "container", name: dir.id().to_owned() })?;
    let text = String::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
    Spec::from_oci(&text).map_err(|error| match error {
        Error::Spec { .. } | Error::Sys { .. } => damaged(error.to_string()),
        error => error,
    })
}
