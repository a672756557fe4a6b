//! Registries: images from and to where the distribution-spec is spoken.

mod auth;
mod net;
mod options;

pub use options::{Auth, Mirror, PullPolicy, RegistryOptions};
