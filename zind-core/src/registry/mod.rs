//! Registries: images from and to where the distribution-spec is spoken.

mod auth;
mod certificates;
mod challenge;
mod failure;
mod http;
mod net;
mod options;
mod session;

pub use options::{Auth, Mirror, PullPolicy, RegistryOptions};
