//! Images.
#![forbid(unsafe_code)]

pub(crate) mod pack;

pub use pack::{Compression, PackStats};
