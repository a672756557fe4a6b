//! From a layer to a directory.

mod limits;

pub use limits::Limits;
