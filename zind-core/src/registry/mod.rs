//! Registries: images from and to where the distribution-spec is spoken.

mod auth;
mod certificates;
mod challenge;
mod download;
mod failure;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod http;
mod net;
mod options;
mod pull;
mod push;
mod session;
mod work;

pub use options::{Auth, Mirror, PullOptions, PullPolicy, PushOptions, RegistryOptions};
