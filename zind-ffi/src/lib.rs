//! The C face of zind: `include/zind.h`, `libzind.so.0`, `libzind.a`.
//!
//! Every function is `extern "C"`, runs in `guard` (NULL checks, panics, error out-parameter), and says in the header
//! what it demands of each pointer. That is its safety contract: pointers are NULL, or valid for the kind of access the
//! header describes, for the length of the call; handles come from this library and were not freed.
#![allow(non_camel_case_types, reason = "the names are C's")]
#![allow(rustdoc::invalid_html_tags, rustdoc::broken_intra_doc_links, reason = "the comments are the header's")]
#![allow(clippy::missing_safety_doc, reason = "one contract for all of them, above")]

mod guard;

// In the order of the header.
mod version;

mod error;

mod spec;

mod exit;

mod process;

mod groups;

mod events;

mod seccomp;

mod copy;

mod volume;

mod output;

mod layers;

mod image;

mod image_options;

mod builder;

mod containers;

mod container;

mod container_life;

mod container_running;

mod container_logs;

mod container_attach;

mod container_changes;

mod lowlevel;

mod proc;

mod doctor;

mod strings;

pub use builder::*;
pub use container::*;
pub use container_attach::*;
pub use container_life::*;
pub use container_logs::*;
pub use container_running::*;
pub use containers::*;
pub use copy::*;
pub use doctor::*;
pub use error::*;
pub use exit::*;
pub use groups::*;
pub use image::*;
pub use layers::*;
pub use lowlevel::*;
pub use output::*;
pub use proc::*;
pub use process::*;
pub use spec::*;
pub use strings::zind_string_free;
pub use version::*;
pub use volume::*;
