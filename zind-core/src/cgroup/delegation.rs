//! A subtree of version 2 that is ours to use.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::layout::Hierarchy;
use crate::error::Result;

/// A directory below which groups with these controllers can be made, if one can be had.
pub(super) fn v2(_hierarchy: &Hierarchy, _controllers: &[&str]) -> Result<Option<PathBuf>> {
    Ok(None)
}
